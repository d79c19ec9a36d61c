"""Texts that are nearly the same, found while they pass by, in bounded memory. Pure.

A text is cut into runs of three tokens; 16 smallest hashes of them (one-permutation MinHash) stand for it. Two texts
agree in a bin about as often as their runs overlap (Jaccard), so texts that share any band of four bins are compared
bin by bin. When more texts pass than are kept, those whose smallest hash is odd are let go, then half of the rest, and
so on: near twins share that hash more often than not, so what is kept stays a fair sample of pairs.
"""

from __future__ import annotations

from zlib import crc32

from rag.text import tokens

BINS = 16
BAND = 4
SAME_BINS = 13
"""Bins that agree in near duplicates: an overlap of about 0.8 or more."""
KEEP_COUNT = 100_000
"""Sketches kept at most, about 1 KB each."""
_SHORT_TOKENS = 8  # a run of three says too little of a shorter text; those are compared as a whole elsewhere
_NONE = 2**32

Sketch = tuple[int, ...]


def sketch_of(text: str) -> Sketch | None:
    """The 16 smallest hashes of a text, one a bin; None for a text that is too short to have a near twin.

    >>> one = sketch_of("the quick brown fox jumps over the lazy dog by the river bank today")
    >>> one == sketch_of("The quick brown fox jumps over the lazy dog by the river bank today!")
    True
    """
    words = tokens(text)
    if len(words) < _SHORT_TOKENS:
        return None
    smallest = [_NONE] * BINS
    for i in range(len(words) - 2):
        value = crc32(f"{words[i]}\x1f{words[i + 1]}\x1f{words[i + 2]}".encode("utf-8", "surrogatepass"))
        # CRC is linear: without mixing, similar runs would fall into similar bins.
        value = (value ^ (value >> 15)) * 0x2C1B3C6D & 0xFFFFFFFF
        value = (value ^ (value >> 12)) * 0x297A2D39 & 0xFFFFFFFF
        value ^= value >> 15
        place = value % BINS
        smallest[place] = min(smallest[place], value)
    return tuple(smallest)


def alike_ratio(one: Sketch, other: Sketch) -> float:
    """Share of bins that agree, of those that either text fills: an estimate of the overlap."""
    filled = [(a, b) for a, b in zip(one, other, strict=True) if a != _NONE or b != _NONE]
    return sum(a == b for a, b in filled) / len(filled) if filled else 0.0


class NearTwins:
    """Asked text by text: has nearly this been there? `scale` says by how much its count has to be multiplied."""

    def __init__(self, keep_count: int = KEEP_COUNT) -> None:
        self._keep_count = keep_count
        self._kept: list[tuple[Sketch, str]] = []
        self._bands: dict[tuple[int, ...], list[int]] = {}
        self.scale = 1

    def take(self, sketch: Sketch, name: str) -> str | None:
        """Name of a near twin seen before, else None; remembers this one unless it is let go."""
        if min(sketch) // BINS % self.scale:
            return None
        keys = [(start, *sketch[start : start + BAND]) for start in range(0, BINS, BAND)]
        for key in keys:
            for place in self._bands.get(key, ()):
                if alike_ratio(sketch, self._kept[place][0]) >= SAME_BINS / BINS:
                    return self._kept[place][1]
        self._remember(sketch, name, keys)
        if len(self._kept) > self._keep_count:
            self._halve()
        return None

    def _remember(self, sketch: Sketch, name: str, keys: list[tuple[int, ...]]) -> None:
        self._kept.append((sketch, name))
        for key in keys:
            found = self._bands.setdefault(key, [])
            if len(found) < 8:  # boilerplate that all texts share must not make every comparison long
                found.append(len(self._kept) - 1)

    def _halve(self) -> None:
        self.scale *= 2
        old, self._kept, self._bands = self._kept, [], {}
        for sketch, name in old:
            if min(sketch) // BINS % self.scale == 0:
                keys = [(start, *sketch[start : start + BAND]) for start in range(0, BINS, BAND)]
                self._remember(sketch, name, keys)
