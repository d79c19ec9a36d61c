"""Which documents hold which words: built once per segment, read in place from a mapped file. Pure.

Terms are known by 64 bits of BLAKE2b; a million words collide with a chance of 1 in 40 million. Single CJK characters
are kept as terms of a name space of their own: they are never scored, but how rare they are is asked for.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

CHARACTER = "\x02"
"""Marks a single character, as opposed to a token that is one character long."""

_COUNT_MAX = 65_535


def term_key(term: str) -> int:
    """64 bits that stand for a term, the same on every machine."""
    return int.from_bytes(blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class PostingsBuilder:
    """Takes documents one by one; rows are numbered from 0."""

    def __init__(self) -> None:
        self._held: dict[str, array[int]] = {}  # term to row, count, row, count...
        self._lengths = array("I")

    def add(self, terms: Sequence[str], characters: Iterable[str]) -> None:
        """Add one document: its terms with repeats, and its different CJK characters."""
        row = len(self._lengths)
        for term, count in Counter(terms).items():
            self._take(term, row, count)
        for character in characters:
            self._take(CHARACTER + character, row, 1)
        self._lengths.append(len(terms))

    def _take(self, term: str, row: int, count: int) -> None:
        held = self._held.get(term)
        if held is None:
            held = self._held[term] = array("I")
        held.append(row)
        held.append(min(count, _COUNT_MAX))

    def arrays(self) -> dict[str, array[int]]:
        """For `rag.arrays.pack`."""
        by_key = {term_key(term): held for term, held in self._held.items()}
        keys = array("Q", sorted(by_key))
        starts, rows, counts = array("Q", [0]), array("I"), array("H")
        for key in keys:
            held = by_key[key]
            rows.extend(held[::2])
            counts.fromlist(held[1::2].tolist())
            starts.append(len(rows))
        return {"keys": keys, "starts": starts, "rows": rows, "counts": counts, "lengths": self._lengths}


class Postings:
    """The arrays of one segment, as views."""

    def __init__(self, arrays: Mapping[str, memoryview]) -> None:
        self.keys, self.starts = arrays["keys"], arrays["starts"]
        self.rows, self.counts, self.lengths = arrays["rows"], arrays["counts"], arrays["lengths"]

    @classmethod
    def of(cls, arrays: Mapping[str, array[int]]) -> Postings:
        """Of arrays in memory."""
        return cls({name: memoryview(values) for name, values in arrays.items()})

    def span(self, key: int) -> tuple[int, int]:
        """Where in `rows` and `counts` the term is; (0, 0) when nothing holds it."""
        place = bisect_left(self.keys, key)
        if place == len(self.keys) or self.keys[place] != key:
            return 0, 0
        return self.starts[place], self.starts[place + 1]


def merged(parts: Sequence[tuple[Postings, Sequence[int] | None]]) -> dict[str, array[int]]:
    """The postings of several segments, one after the other.

    parts: with each the rows that are kept, ascending; None for all.
    """
    keys, starts, rows, counts, lengths = array("Q"), array("Q", [0]), array("I"), array("H"), array("I")
    new_row: list[dict[int, int] | int] = []
    for postings, kept in parts:
        base = len(lengths)
        if kept is None:
            new_row.append(base)
            lengths.extend(postings.lengths)
        else:
            new_row.append({row: base + i for i, row in enumerate(kept)})
            lengths.extend(postings.lengths[row] for row in kept)
    for key in sorted({key for postings, _ in parts for key in postings.keys}):
        before = len(rows)
        for (postings, _), place in zip(parts, new_row, strict=True):
            begin, end = postings.span(key)
            if isinstance(place, int):
                rows.extend(row + place for row in postings.rows[begin:end])
                counts.extend(postings.counts[begin:end])
                continue
            for row, count in zip(postings.rows[begin:end], postings.counts[begin:end], strict=True):
                if row in place:
                    rows.append(place[row])
                    counts.append(count)
        if len(rows) > before:
            keys.append(key)
            starts.append(len(rows))
    return {"keys": keys, "starts": starts, "rows": rows, "counts": counts, "lengths": lengths}
