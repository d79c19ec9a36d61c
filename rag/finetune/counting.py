"""Tokens of chat rows, and what training on them costs.

Exact with the `ft` extra (the tokenizer of the model, in a package, no download); otherwise an estimate that says so.
"""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rag.text import has_cjk, token_spans
from slo.errors import ConfigError
from slo.strict_yaml import load_yaml_file, validate_model

PRICES = Path(__file__).with_name("training_prices.yaml")

_MESSAGE_TOKENS, _REPLY_TOKENS = 4, 3
"""Framing of a message (three tokens and its role) and of the reply. https://cookbook.openai.com, token counting."""

_LATIN_CHARS_PER_TOKEN = 6.0
_CJK_TOKENS = 1.0
"""Fitted on the texts of this repository with o200k_base: within 5 % in sum, English and Traditional Chinese."""

_DATED = re.compile(r"-\d{4}(?:-\d{2}-\d{2})?$")


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """count: tokens of a text. exact: by the model's own tokenizer. name: which, for people."""

    count: Callable[[str], int]
    exact: bool
    name: str

    def row(self, messages: Sequence[Mapping[str, Any]]) -> int:
        """Tokens of one training example."""
        texts = (str(message.get("content") or "") for message in messages)
        return sum(self.count(text) + _MESSAGE_TOKENS for text in texts) + _REPLY_TOKENS


def counter_for(model: str) -> TokenCounter:
    """The counter for a base model: its tokenizer when there is one, else an estimate."""
    encoding = encoding_of(model)
    if encoding and importlib.util.find_spec("bpe_openai") is not None:
        return TokenCounter(_exact(encoding), True, encoding)
    why = "unknown model" if not encoding else "pip install 'sft-guard[ft]' for exact counts"
    return TokenCounter(estimate, False, f"estimate ({why})")


def encoding_of(model: str) -> str:
    """Name of a model's tokenizer, "" when unknown.

    >>> encoding_of("gpt-4o-mini-2024-07-18"), encoding_of("gpt-3.5-turbo-0125"), encoding_of("qwen")
    ('o200k_base', 'cl100k_base', '')
    """
    if model.startswith(("gpt-4o", "gpt-4.1", "gpt-5", "o1", "o3", "o4")):
        return "o200k_base"
    return "cl100k_base" if model.startswith(("gpt-4", "gpt-3.5")) else ""


def estimate(text: str) -> int:
    """Tokens by length: a Chinese character about one, Latin words by their letters."""
    total = 0.0
    for start, end in token_spans(text):
        unit = text[start:end]
        total += _CJK_TOKENS if has_cjk(unit) else max(1.0, len(unit) / _LATIN_CHARS_PER_TOKEN)
    return round(total)


@lru_cache(maxsize=4)
def _exact(encoding: str) -> Callable[[str], int]:
    with warnings.catch_warnings():
        # It reads its tables through a call that Python 3.11 calls old; nobody here can change that.
        warnings.simplefilter("ignore", DeprecationWarning)
        from bpe_openai import get_encoding

        tokenizer = get_encoding(encoding)
        tokenizer.encode("")
    return lambda text: len(tokenizer.encode(text))


def epochs_for(example_count: int) -> int:
    """Epochs the API chooses when it is left the choice: three, more for few examples, fewer for many.

    Source: https://cookbook.openai.com/examples/chat_finetuning_data_prep (3 epochs, 100 to 25,000 examples seen).

    >>> epochs_for(29), epochs_for(1000), epochs_for(20_000)
    (3, 3, 1)
    """
    if example_count * 3 < 100:
        return max(3, min(25, 100 // max(1, example_count)))
    if example_count * 3 > 25_000:
        return max(1, 25_000 // example_count)
    return 3


class _Prices(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: str
    unit: Literal["per_1M_tokens"]
    models: dict[str, Annotated[float, Field(ge=0, le=1000)]]


def training_usd_per_million(model: str, given: float | None = None) -> float | None:
    """USD per 1M trained tokens; None when the price is unknown.

    Raises:
        ConfigError: a price that looks a thousand times off.
    """
    if given is not None:
        if not 0.0 <= given <= 1000.0:
            raise ConfigError("--training-usd", given, "write USD per 1M trained tokens, for example 3.00")
        return given
    document, _ = load_yaml_file(PRICES)
    prices = validate_model(_Prices, document, PRICES.name).models
    return prices.get(model, prices.get(_DATED.sub("", model)))
