"""Hashed character n-grams weighted by how telling they are: vectors for every script, no model, deterministic.

TF-IDF with the document frequencies fixed beforehand: grams of function characters and stop words count little whatever
the collection, so vectors of different processes, days and collections may be compared. On Traditional Chinese passages
that finds more than frequencies of the collection itself (docs/embedders.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import TYPE_CHECKING
from zlib import crc32

from rag.text import char_ngrams, has_cjk
from rag.words import FUNCTION_CHARACTERS, STOP_WORDS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

HASHED_TFIDF = "hashed-tfidf"
DIM_DEFAULT = 1024
DIM_MIN, DIM_MAX = 256, 8192

_GRAMS_REMEMBERED = 200_000
_FUNCTION_WEIGHT = 0.15


class HashedTfIdfEmbedder:
    """It sees shared characters, not meaning. An empty text is the zero vector."""

    every_answer = True
    by_characters = True

    def __init__(self, dim: int = DIM_DEFAULT) -> None:
        import numpy

        from rag.embedding import PROBES, fingerprint_of

        self._np = numpy
        self.dim = dim
        self.name = f"{HASHED_TFIDF}-{dim}"
        self._cells: dict[str, tuple[int, float]] = {}
        self.fingerprint = fingerprint_of(self.name, dim, "", self.embed(PROBES))

    def embed(self, texts: Sequence[str]) -> Vectors:
        np = self._np
        out: Vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            grams = char_ngrams(text)
            if not grams:
                continue
            if len(self._cells) > _GRAMS_REMEMBERED:
                self._cells.clear()
            places, weights = [], []
            for gram, count in grams.items():
                place, weight = self._cells.get(gram) or self._remember(gram)
                places.append(place)
                weights.append(weight if count == 1 else weight * (1.0 + log(count)))
            sums = np.bincount(places, weights=weights, minlength=self.dim)
            norm = float(np.sqrt(sums @ sums))
            if norm > 0.0:
                out[row] = sums / norm
        return out

    def unknown_token_ratio(self, text: str) -> float:
        return 0.0

    def covers(self, text: str) -> bool:
        return True

    def _remember(self, gram: str) -> tuple[int, float]:
        # crc32 is stable over processes and machines; hash() is salted. The last bit gives the sign.
        code = crc32(gram.encode("utf-8", "surrogatepass"))
        weight = gram_weight(gram) * (1.0 if code & 1 else -1.0)
        cell = self._cells[gram] = ((code >> 1) % self.dim, weight)
        return cell


def gram_weight(gram: str) -> float:
    """Weight of a gram before repeats are counted, 0..1.

    A single character says half of what two say; function characters say little, and as much less as they make up of a
    gram; a whole stop word (between its marks) likewise.

    >>> gram_weight("\\u7279\\u4f11"), gram_weight("\\u4ec0\\u9ebc"), gram_weight("<the>"), gram_weight("vpn")
    (1.0, 0.15, 0.15, 1.0)
    """
    if not has_cjk(gram):
        return _FUNCTION_WEIGHT if gram.strip("<>") in STOP_WORDS else 1.0
    share = sum(character in FUNCTION_CHARACTERS for character in gram) / len(gram)
    weight = _FUNCTION_WEIGHT if share == 1.0 else 1.0 - 0.5 * share
    return weight * (0.5 if len(gram) == 1 else 1.0)
