"""routes.yaml: which models may answer, the line between knowledge base and model, what is sensitive, fixed answers.

models:
  rag:    {base_url: "https://api.openai.com/v1", model: gpt-4o-mini, key_env: OPENAI_API_KEY}
  cloud:  {base_url: "https://api.openai.com/v1", model: "ft:gpt-4o-mini:org::id", key_env: OPENAI_API_KEY}
  local:  {base_url: "http://127.0.0.1:8000/v1", model: qwen-lora, on_premises: true}
thresholds: thresholds.json        # of `sft-guard route calibrate`
sensitive: {words: [salary, payroll], doc_ids: ["hr-pay-*"]}
answers:
  - {topic: opening hours, answer: "Monday to Friday, 9 to 18.", phrasings: ["When are you open?"]}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rag.fixed_answers import ANSWERS_MAX, FixedAnswer, FixedAnswers
from rag.model_client import ModelConfig
from rag.routing import PRACTICE, LineSet, Models, Slot, Thresholds
from rag.sensitivity import SensitiveRule
from rag.text import near_hash
from slo.codec import NOT_JSON
from slo.errors import ConfigError, DataError
from slo.strict_yaml import load_yaml_file, validate_model

_NOTHING = near_hash("")

FINE_TUNED_SYSTEM = ""
"""Fine-tuned models get no system text unless the file gives one: it must be the one they were trained with."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Seconds = Annotated[float, Field(gt=0, le=600)]


class _Model(_Strict):
    base_url: str
    model: Annotated[str, Field(min_length=1, max_length=256)]
    key_env: str = ""
    on_premises: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.1
    max_tokens: Annotated[int, Field(ge=1, le=32_000)] = 500
    timeout_s: Seconds = 60.0
    idle_s: Seconds = 30.0
    system: Annotated[str, Field(max_length=20_000)] = FINE_TUNED_SYSTEM

    @field_validator("base_url")
    @classmethod
    def _url(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")) or "@" in value or "?" in value:
            raise ValueError("write an address such as http://127.0.0.1:8000/v1, without user, password or query")
        return value.rstrip("/")


class _Models(_Strict):
    rag: _Model | None = None
    strong: _Model | None = None
    cloud: _Model | None = None
    local: _Model | None = None

    @model_validator(mode="after")
    def _sense(self) -> _Models:
        if self.strong is not None and self.rag is None:
            raise ValueError("`strong` is asked when the answer of `rag` does not pass; name `rag` too")
        if self.local is not None and self.local.on_premises is False:
            raise ValueError("`local` is where sensitive questions go; it cannot be on_premises: false")
        return self


class _Line(_Strict):
    best: Annotated[float, Field(ge=-1, le=1)] = Thresholds().best
    mean: Annotated[float, Field(ge=-1, le=1)] = Thresholds().mean
    documents: Annotated[int, Field(ge=1, le=100)] = Thresholds().documents
    margin: Annotated[float, Field(ge=0, le=1)] = 0.0
    confidence: Annotated[float, Field(ge=0, le=1)] = Thresholds().confidence
    by: Literal["similarity", "confidence"] = "similarity"

    def line(self) -> Thresholds:
        return Thresholds(self.best, self.mean, self.documents, self.margin, self.confidence, self.by)


class _Sensitive(_Strict):
    words: tuple[str, ...] = ()
    doc_ids: tuple[str, ...] = ()
    always: bool = False


class _Answer(_Strict):
    topic: Annotated[str, Field(min_length=1, max_length=80)]
    answer: Annotated[str, Field(min_length=1, max_length=8_000)]
    phrasings: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    none: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _matches_something(self) -> _Answer:
        if not (self.phrasings or self.all or self.any):
            raise ValueError("no question matches it; write `phrasings`, `all` or `any`")
        for text in (*self.phrasings, *self.all, *self.any, *self.none):
            if near_hash(text) == _NOTHING:
                raise ValueError(f"{text!r} holds no letter and no digit; it would match nothing or everything")
        return self


class _File(_Strict):
    models: _Models = _Models()
    thresholds: _Line | None = None
    thresholds_file: str = ""
    retry_s: Seconds = 5.0
    sensitive: _Sensitive = _Sensitive()
    answers: Annotated[tuple[_Answer, ...], Field(max_length=ANSWERS_MAX)] = ()
    stream: Literal["whole", "live"] = "whole"

    @model_validator(mode="after")
    def _one_line(self) -> _File:
        if self.thresholds and self.thresholds_file:
            raise ValueError("`thresholds` and `thresholds_file` both say where the line is; keep one")
        return self


@dataclass(frozen=True, slots=True)
class Routes:
    """A route file, read and checked.

    stream_whole: a streamed answer of a model is held until it is whole, so that another can take over; `live` sends
    from the first word, and a model that breaks later breaks the stream. system_of: system text of fine-tuned models.
    retry_s: how long a model that failed is left alone before one question tries it again.
    """

    models: Mapping[Slot, ModelConfig] = field(default_factory=dict)
    known: Models = field(default_factory=Models)
    lines: LineSet = PRACTICE
    sensitive: SensitiveRule = field(default_factory=SensitiveRule)
    rules: FixedAnswers = field(default_factory=FixedAnswers)
    system_of: Mapping[Slot, str] = field(default_factory=dict)
    stream_whole: bool = True
    retry_s: float = 5.0


def load_routes(path: Path | str, environment: Callable[[str], str | None]) -> Routes:
    """Read a route file.

    environment: the value of an environment variable, for `key_env`.

    Raises:
        ConfigError: with place, value and cure. DataError: the thresholds file cannot be used.
    """
    path = Path(path)
    document, _ = load_yaml_file(path)
    file = validate_model(_File, document, path.name)
    models: dict[Slot, ModelConfig] = {}
    on_premises: set[Slot] = set()
    for slot in Slot:
        given: _Model | None = getattr(file.models, slot.value)
        if given is None:
            continue
        key = environment(given.key_env) or "" if given.key_env else ""
        if given.key_env and not key:
            place = f"{path.name}: models.{slot}.key_env"
            raise ConfigError(place, given.key_env, "set that environment variable, or leave `key_env` out")
        models[slot] = ModelConfig(
            given.base_url, given.model, key, given.temperature, given.max_tokens, given.timeout_s, given.idle_s
        )
        if given.on_premises or (given.on_premises is None and slot is Slot.LOCAL):
            on_premises.add(slot)
    lines = LineSet(file.thresholds.line()) if file.thresholds else PRACTICE
    if file.thresholds_file:
        lines = read_thresholds(path.parent / file.thresholds_file)
    return Routes(
        models=models,
        known=Models(frozenset(models), frozenset(on_premises)),
        lines=lines,
        sensitive=SensitiveRule(file.sensitive.words, file.sensitive.doc_ids, file.sensitive.always),
        rules=FixedAnswers([
            FixedAnswer(a.topic, a.answer, a.phrasings, a.all, a.any, a.none) for a in file.answers
        ]),
        system_of={s: getattr(file.models, s.value).system for s in models if getattr(file.models, s.value).system},
        stream_whole=file.stream == "whole",
        retry_s=file.retry_s,
    )  # fmt: skip


class _ThresholdFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1]
    embedder: str = ""
    languages: dict[str, dict[str, Any]]


def read_thresholds(path: Path) -> LineSet:
    """The lines that `sft-guard route calibrate` wrote.

    Raises:
        DataError: the file is missing or is none.
    """
    cure = "make it with `sft-guard route calibrate`"
    try:
        document = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {cure}") from error
    except NOT_JSON as error:
        raise DataError(f"{path}: not a thresholds file ({error}); {cure}") from error
    file = validate_model(_ThresholdFile, document, path.name)
    lines: dict[str, Thresholds] = {}
    for lang, entry in file.languages.items():
        place, given = f"{path.name}: languages.{lang}.line", entry.get("line", {})
        if not isinstance(given, dict):
            raise DataError(f"{place}: no thresholds but {type(given).__name__}; {cure}")
        lines[lang] = validate_model(_Line, given, place).line()
    return LineSet(Thresholds(by="confidence"), lines, file.embedder)
