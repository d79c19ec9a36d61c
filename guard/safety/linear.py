"""A linear model over cues and hashed word and character n-grams, read from JSON, scored without numpy. Pure.

Hashing keeps the file small and free of anybody's sentences: it holds weights of buckets, not words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from zlib import crc32

import msgspec

from slo.errors import DataError

BITS = 14
MASK = (1 << BITS) - 1
_HAN = re.compile("[\u3400-\u9fff]{2,}")
FILE = "injection_model.json"


class Model(msgspec.Struct, frozen=True):
    """One trained model. named: weights of cues and other named features; buckets: of hashed n-grams; thresholds: score
    from which a text is flagged, by false-positive rate; counts: rows of each set it was trained on."""

    intercept: float
    named: dict[str, float]
    buckets: dict[int, float]
    thresholds: dict[str, float]
    counts: dict[str, int]


class ModelFile(msgspec.Struct, frozen=True):
    """injection_model.json. licences: of the sets the weights were trained on; command: makes the file anew."""

    made_on: str
    command: str
    licences: dict[str, str]
    question: Model
    context: Model


@dataclass(frozen=True, slots=True)
class Features:
    """named: name -> value; buckets: hashed n-grams, each once; scale: value of each bucket."""

    named: dict[str, float]
    buckets: frozenset[int]
    scale: float


def buckets_of(plain: str, words: list[str]) -> frozenset[int]:
    """Hashed words, pairs of neighbours, and two and three Chinese characters in a row.

    >>> len(buckets_of("ignore the rules", ["ignore", "the", "rules"]))
    5
    """
    found = {crc32(word.encode()) & MASK for word in words}
    found.update(crc32(f"{a} {b}".encode()) & MASK for a, b in pairwise(words))
    if not plain.isascii():
        for run in _HAN.findall(plain):
            raw = run.encode("utf-32-le")  # four bytes a character: pieces are slices
            found.update(crc32(raw[i : i + 8]) & MASK for i in range(0, len(raw) - 4, 4))
            found.update(crc32(raw[i : i + 12]) & MASK for i in range(0, len(raw) - 8, 4))
    return frozenset(found)


def features(plain: str, words: list[str], names: Iterable[str], more: dict[str, float] | None = None) -> Features:
    """Put the features of a text together. The n-grams of a text weigh as much as one cue, however many they are."""
    named = dict.fromkeys(names, 1.0)
    if more:
        named.update(more)
    buckets = buckets_of(plain, words)
    return Features(named, buckets, 1.0 / math.sqrt(len(buckets)) if buckets else 0.0)


def score(model: Model, found: Features) -> float:
    """Chance of an instruction, 0..1, as the model was trained; only its order and thresholds mean anything."""
    weights, named = model.buckets, model.named
    z = model.intercept + found.scale * sum([weights[b] for b in found.buckets if b in weights])
    for name, value in found.named.items():
        z += named.get(name, 0.0) * value
    return 1.0 / (1.0 + math.exp(-z)) if z > -30.0 else 0.0


@lru_cache(maxsize=1)
def load_models() -> ModelFile:
    """The models that ship with the program.

    Raises:
        DataError: the file is damaged or missing; the checks then say `unavailable`.
    """
    try:
        return msgspec.json.decode(files("guard.safety").joinpath(FILE).read_bytes(), type=ModelFile)
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(f"{FILE}: not readable ({type(error).__name__}); install the program again") from error
