"""What was said of a great many things, in memory that is all taken at the start: no growth, nothing for the collector.

Tables of small long-lived objects cost twice: their own size, and the pages they keep half empty when they were made
amid a burst. Here a thing is its hash (64 bits, salted by the interpreter for texts and bytes) and what is said of it a
few bytes, both in flat arrays.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

V = TypeVar("V", bound=Hashable)

WAYS = 16
VALUES_COUNT = 1000


class Slots:
    """A table of `count` places (a power of two) with `width` bytes each; a place takes 8 bytes more.

    A thing may lie in one of 16 places, the latest first, and the one said of longest ago makes room. So it is
    forgotten by chance: with 65,536 places none in 10,000 after 20,000 others, one in 25 after 40,000, half after
    64,000 (the chance that of so many at least 16 share its places).

    Things are texts or bytes: those of other kinds may have hashes that crowd. Two of the same hash are taken for one:
    one in 10^14 at these sizes.

    >>> slots = Slots(64, 2)
    >>> slots.put("a", b"xy")
    >>> slots.get("a"), slots.get("b"), len(slots)
    (b'xy', None, 1)
    """

    __slots__ = ("_hashes", "_mask", "_used", "_values", "_width")

    def __init__(self, count: int, width: int) -> None:
        if count < WAYS or count & (count - 1):
            raise ValueError(f"count {count}: give a power of two from {WAYS} on")
        self._width, self._mask, self._used = width, count - WAYS, 0
        self._hashes = array("Q", bytes(8 * count))  # 0: free; the free places of a thing's 16 are its last
        self._values = bytearray(bytes(width * count))  # copied, so that its pages are there from now on

    def __len__(self) -> int:
        return self._used

    @property
    def size_bytes(self) -> int:
        """What it takes, empty or full."""
        return (8 + self._width) * len(self._hashes)

    def _find(self, thing: str | bytes) -> tuple[int, int, int]:
        """(hash, first place, its place or -1)."""
        own = hash(thing) & 0xFFFF_FFFF_FFFF_FFFF or 1
        first = (own >> 7) & self._mask
        try:
            return own, first, self._hashes.index(own, first, first + WAYS)
        except ValueError:
            return own, first, -1

    def put(self, thing: str | bytes, value: bytes) -> None:
        """Say `value` of it, of exactly `width` bytes, and make it the latest.

        Raises:
            ValueError: another length.
        """
        width, hashes, values = self._width, self._hashes, self._values
        if len(value) != width:
            raise ValueError(f"{len(value)} bytes: give {width}")
        own, first, at = self._find(thing)
        if at < 0:
            at = first + WAYS - 1
            self._used += hashes[at] == 0
        if at > first:
            hashes[first + 1 : at + 1] = hashes[first:at]
            values[width * (first + 1) : width * (at + 1)] = values[width * first : width * at]
        hashes[first] = own
        values[width * first : width * (first + 1)] = value

    def get(self, thing: str | bytes) -> bytes | None:
        """What was said of it last; None: nothing, or that is forgotten."""
        at = self._find(thing)[2]
        return None if at < 0 else bytes(self._values[self._width * at : self._width * (at + 1)])

    def discard(self, thing: str | bytes) -> None:
        """Forget one, if it is there."""
        _, first, at = self._find(thing)
        if at >= 0:
            width, hashes, values, end = self._width, self._hashes, self._values, first + WAYS
            hashes[at : end - 1] = hashes[at + 1 : end]
            values[width * at : width * (end - 1)] = values[width * (at + 1) : width * end]
            hashes[end - 1] = 0
            self._used -= 1

    def clear(self) -> None:
        """Forget all."""
        self._hashes, self._used = array("Q", bytes(8 * len(self._hashes))), 0

    def values(self) -> Iterator[bytes]:
        """What is said of all of them, in no order."""
        width = self._width
        for place, own in enumerate(self._hashes):
            if own:
                yield bytes(self._values[width * place : width * (place + 1)])


class Recall(Generic[V]):
    """Says of a great many things which of a few values each has; 10 bytes a place, see `Slots` for how long.

    Of more than `VALUES_COUNT` different values all is forgotten and it begins anew: values are releases, and nobody
    has a thousand of them in one process.

    >>> releases = Recall[str](1024)
    >>> releases["answer 1"] = "r1"
    >>> releases.get("answer 1"), releases.get("answer 2")
    ('r1', None)
    """

    __slots__ = ("_codes", "_known", "_slots")

    def __init__(self, count: int) -> None:
        self._slots = Slots(count, 2)
        self._codes: dict[V, bytes] = {}
        self._known: list[V] = []

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def size_bytes(self) -> int:
        """What it takes, empty or full, but for the few values."""
        return self._slots.size_bytes

    def __setitem__(self, thing: str, value: V) -> None:
        code = self._codes.get(value)
        if code is None:
            if len(self._known) >= VALUES_COUNT:
                self._slots.clear()
                self._codes, self._known = {}, []
            code = self._codes[value] = len(self._known).to_bytes(2, "big")
            self._known.append(value)
        self._slots.put(thing, code)

    def get(self, thing: str) -> V | None:
        """The value; None: never told, or forgotten."""
        code = self._slots.get(thing)
        return None if code is None else self._known[int.from_bytes(code, "big")]
