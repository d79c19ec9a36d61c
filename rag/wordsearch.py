"""BM25 over the postings of several segments, as if only the visible documents existed.

Rows that are deleted, or that the asker may not see, count for nothing: not in the rarity of a word, not in the mean
length, not in the result. A score can therefore not tell anything about them. numpy does the sums when it is there.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from typing import TYPE_CHECKING, Any, Protocol

from rag.bm25 import K1, B, gain, idf
from rag.postings import CHARACTER, Postings, term_key

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Flags = npt.NDArray[np.bool_]


class Scores(Protocol):
    """Scores of the documents that hold at least one of the terms."""

    def top(self, k: int) -> list[tuple[int, float]]:
        """The `k` best (row, score), best first; equal scores keep the order of adding."""
        ...

    def get(self, row: int) -> float:
        """0.0 for a document that holds none of the terms."""
        ...


class WordIndex(Protocol):
    """Rows are numbered through all segments.

    mean_length: of visible documents, in terms.
    """

    mean_length: float

    def idf(self, term: str) -> float: ...

    def character_idf(self, character: str) -> float: ...

    def scores(self, terms: Iterable[str]) -> Scores: ...


def word_index(parts: Sequence[Postings], visible: bytearray | None, *, numpy: bool | None = None) -> WordIndex:
    """The index over `parts`.

    visible: one byte a row, 0 for rows that do not exist for the asker; None when all do.
    numpy: None for "when it is installed".
    """
    if numpy is None:
        numpy = importlib.util.find_spec("numpy") is not None
    return _NumpyWords(parts, visible) if numpy else _PlainWords(parts, visible)


def coverage_ratio(words: WordIndex, terms: Iterable[str], row_terms: Iterable[str]) -> float:
    """Share of the query's weight (idf) that a document holds, 0..1; 0.0 for a query without terms.

    Unlike the score it means the same in every corpus and for every query length: 1.0 is "every term found".
    """
    held = set(row_terms)
    weights = {term: words.idf(term) for term in terms}
    total = sum(weights.values())
    return sum(weight for term, weight in weights.items() if term in held) / total if total else 0.0


class _PlainWords:
    def __init__(self, parts: Sequence[Postings], visible: bytearray | None) -> None:
        self._parts: list[tuple[int, Postings]] = []
        base = 0
        for part in parts:
            self._parts.append((base, part))
            base += len(part.lengths)
        self._visible = visible
        lengths = (n for _, part in self._parts for n in part.lengths)
        shown = [n for row, n in enumerate(lengths) if visible is None or visible[row]]
        self._count, self.mean_length = len(shown), (sum(shown) / len(shown) if shown else 1.0) or 1.0

    def _held(self, key: int) -> list[tuple[int, int, int]]:
        """(row, count, length) of visible documents with the term."""
        found = []
        for base, part in self._parts:
            begin, end = part.span(key)
            for place in range(begin, end):
                row = part.rows[place]
                if self._visible is None or self._visible[base + row]:
                    found.append((base + row, part.counts[place], part.lengths[row]))
        return found

    def idf(self, term: str) -> float:
        return idf(self._count, len(self._held(term_key(term))))

    def character_idf(self, character: str) -> float:
        return self.idf(CHARACTER + character)

    def scores(self, terms: Iterable[str]) -> Scores:
        total: dict[int, float] = {}
        for term in dict.fromkeys(terms):
            held = self._held(term_key(term))
            weight = idf(self._count, len(held))
            for row, count, length in held:
                total[row] = total.get(row, 0.0) + weight * gain(count, length, self.mean_length)
        return _PlainScores(total)


class _PlainScores:
    def __init__(self, total: Mapping[int, float]) -> None:
        self._total = total

    def top(self, k: int) -> list[tuple[int, float]]:
        return nlargest(k, self._total.items(), key=lambda item: (item[1], -item[0]))

    def get(self, row: int) -> float:
        return self._total.get(row, 0.0)


class _NumpyWords:
    def __init__(self, parts: Sequence[Postings], visible: bytearray | None) -> None:
        import numpy

        self._np = numpy
        self._parts: list[tuple[Postings, int, Any, Any]] = []
        base = 0
        for part in parts:
            rows = numpy.frombuffer(part.rows, numpy.uint32) if len(part.rows) else numpy.zeros(0, numpy.uint32)
            counts = numpy.frombuffer(part.counts, numpy.uint16) if len(part.counts) else numpy.zeros(0, numpy.uint16)
            self._parts.append((part, base, rows, counts))
            base += len(part.lengths)
        self._total = base
        each = [numpy.frombuffer(part.lengths, numpy.uint32) for part in parts if len(part.lengths)]
        self._lengths: Any = numpy.concatenate(each).astype(numpy.float64) if each else numpy.zeros(0)
        self._visible: Flags | None = None if visible is None else numpy.frombuffer(visible, numpy.bool_)
        shown = self._lengths if self._visible is None else self._lengths[self._visible]
        self._count = len(shown)
        self.mean_length = (float(shown.mean()) if len(shown) else 1.0) or 1.0

    def _held(self, term: str) -> tuple[Any, Any]:
        """Rows and counts of visible documents with the term, both shape (holding_count,)."""
        key = term_key(term)
        rows, counts = [], []
        for part, base, all_rows, all_counts in self._parts:
            begin, end = part.span(key)
            if begin < end:
                rows.append(all_rows[begin:end].astype(self._np.int64) + base)
                counts.append(all_counts[begin:end])
        if not rows:
            return self._np.zeros(0, self._np.int64), self._np.zeros(0, self._np.uint16)
        row, count = self._np.concatenate(rows), self._np.concatenate(counts)
        if self._visible is None:
            return row, count
        keep = self._visible[row]
        return row[keep], count[keep]

    def idf(self, term: str) -> float:
        return idf(self._count, len(self._held(term)[0]))

    def character_idf(self, character: str) -> float:
        return self.idf(CHARACTER + character)

    def scores(self, terms: Iterable[str]) -> Scores:
        total = self._np.zeros(self._total)
        for term in dict.fromkeys(terms):
            rows, counts = self._held(term)
            if len(rows):
                # The formula of rag.bm25.gain, for all documents with the term at once.
                saturation = counts + K1 * (1.0 - B + B * self._lengths[rows] / self.mean_length)
                total[rows] += idf(self._count, len(rows)) * counts * (K1 + 1.0) / saturation
        return _NumpyScores(self._np, total)


class _NumpyScores:
    def __init__(self, numpy: Any, total: Any) -> None:
        self._np, self._total = numpy, total

    def top(self, k: int) -> list[tuple[int, float]]:
        rows = self._np.flatnonzero(self._total)
        if len(rows) > k:
            line = self._np.partition(self._total[rows], len(rows) - k)[len(rows) - k]
            rows = rows[self._total[rows] >= line]  # ties of the last place included
        order = self._np.lexsort((rows, -self._total[rows]))[:k]
        return [(int(row), float(self._total[row])) for row in rows[order]]

    def get(self, row: int) -> float:
        return float(self._total[row])
