"""When something was seen last, for a great many things, in memory that never grows."""

from __future__ import annotations

from array import array
from collections.abc import Hashable

WAYS = 4


class Stamps:
    """A table of `count` places (a power of two), 16 bytes each, all taken at the start: 2 MiB for 131,072.

    A thing is known by its hash (64 bits, salted by the interpreter for texts) and may lie in one of four places; the
    one that was seen longest ago makes room. So it is forgotten by chance, not by age alone: with 131,072 places one
    in 100 is gone after 25,000 others, one in 14 after 50,000, half after 120,000.

    >>> stamps = Stamps(1024)
    >>> stamps.seen(("session", "answer"), 10.0), stamps.seen(("session", "answer"), 25.0)
    (None, 10.0)
    """

    __slots__ = ("_at_s", "_hashes", "_mask")

    def __init__(self, count: int) -> None:
        if count < WAYS or count & (count - 1):
            raise ValueError(f"count {count}: give a power of two from {WAYS} on")
        self._hashes = array("Q", bytes(8 * count))  # 0: free
        self._at_s = array("d", bytes(8 * count))
        self._mask = count - WAYS

    @property
    def size_bytes(self) -> int:
        """What it takes, empty or full."""
        return 16 * len(self._hashes)

    def seen(self, thing: Hashable, now_s: float) -> float | None:
        """Note it; when it was seen before, None when it was not or that is forgotten. now_s: 0 or later."""
        hashes, at_s = self._hashes, self._at_s
        own = hash(thing) & 0xFFFF_FFFF_FFFF_FFFF or 1
        first = (own >> 7) & self._mask
        oldest = first
        for place in range(first, first + WAYS):
            if hashes[place] == own:
                before_s, at_s[place] = at_s[place], now_s
                return before_s
            if at_s[place] < at_s[oldest]:
                oldest = place
        hashes[oldest], at_s[oldest] = own, now_s
        return None
