"""Closed buckets of events, in memory that is whole from the first one on: a ring of flat arrays.

As objects in a dict a bucket took some 280 bytes, so that a guard went on growing for the 30 days its longest windows
reach: by 5 MiB in its first hour, for two releases. Here it is 24 bytes, 40 where values are summed, and bins.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from itertools import compress
from itertools import count as count_from
from typing import Any, TypeAlias

_FREE = -(2**63)
_KINDS = (("B", 2.0**8), ("H", 2.0**16), ("I", 2.0**32))


class PackedBins:
    """Bins that do not change: counts from the lowest key to the highest, in as few bytes as they need.

    Where they lie far apart, or are fractions, keys are kept beside them. Of latencies it is 1 byte for each bin of a
    10 s bucket; in a dict it is 100.

    >>> packed = PackedBins({-7: 2.0, 30: 1.0})
    >>> dict(packed.items()), len(packed), PackedBins({1: 0.5, 9000: 300.0}) == {1: 0.5, 9000: 300.0}
    ({-7: 2.0, 30: 1.0}, 2, True)
    """

    __slots__ = ("_counts", "_keys", "_kind")

    def __init__(self, bins: dict[int, float]) -> None:
        highest = max(bins.values(), default=0.0)
        whole = all(count.is_integer() and count >= 0.0 for count in bins.values())
        self._kind = next((kind for kind, limit in _KINDS if whole and highest < limit), "d")
        lowest = min(bins, default=0)
        span = max(bins, default=-1) - lowest + 1
        width = array(self._kind).itemsize
        self._keys: int | bytes = lowest
        counts: Iterable[float] = bins.values()
        if span * width <= len(bins) * (4 + width) + 32:
            spread = [0.0] * span
            for key, count in bins.items():
                spread[key - lowest] = count
            counts = spread
        else:
            self._keys = array("i", bins).tobytes()
        self._counts = array(self._kind, counts if self._kind == "d" else map(int, counts)).tobytes()

    def __len__(self) -> int:
        return sum(1 for _ in self.items())

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __eq__(self, other: object) -> bool:
        return dict(self.items()) == (dict(other.items()) if isinstance(other, PackedBins) else other)

    __hash__ = None  # type: ignore[assignment]

    def items(self) -> Iterable[tuple[int, float]]:
        """(bin key, count) of each that is not empty."""
        counts: Any = memoryview(self._counts).cast(self._kind)  # type: ignore[call-overload]
        keys = self._keys
        numbers = count_from(keys) if isinstance(keys, int) else memoryview(keys).cast("i")
        return zip(compress(numbers, counts), map(float, compress(counts, counts)), strict=False)


Bins: TypeAlias = dict[int, float] | PackedBins


class Bucket:
    """Counts and sums of one span; `bins` (bin key -> count) only where quantiles are kept."""

    __slots__ = ("bad", "bins", "count", "squares", "total")

    def __init__(self, bins: Bins | None) -> None:
        self.count = 0.0
        self.bad = 0.0
        self.total = 0.0
        self.squares = 0.0
        self.bins = bins

    def merge(self, other: Bucket) -> None:
        """Add `other` to this one."""
        self.count += other.count
        self.bad += other.bad
        self.total += other.total
        self.squares += other.squares
        if other.bins and self.bins is not None:
            bins = self._unpacked(self.bins)
            for key, count in list(other.bins.items()):  # a copy: a scrape reads in another thread
                bins[key] = bins.get(key, 0.0) + count

    def _unpacked(self, bins: Bins) -> dict[int, float]:
        if isinstance(bins, PackedBins):
            bins = self.bins = dict(bins.items())
        return bins


class Ring:
    """Buckets by number, the last `count` numbers at most; the newest may grow, the others are packed.

    One thread adds, any may read: what it overwrites is `count` numbers old, which no reader asks for any more.

    >>> ring, one = Ring(3, quantiles=False), Bucket(None)
    >>> one.count = 1.0
    >>> for number in (7, 7, 9, 12, 9):
    ...     ring.add(number, one)
    >>> [(number, bucket.count) for number, bucket in ring.items()], 9 in ring, ring.newest
    ([(12, 1.0)], False, 12)
    """

    __slots__ = ("_bins", "_count", "_events", "_first", "_numbers", "_top", "_values")

    def __init__(self, count: int, *, quantiles: bool) -> None:
        self._count = count
        self._first = 0  # no older number is here; of any use once there is a newest one
        # (the highest number, its bucket); replaced as one, so that a reader never has the one without the other
        self._top: tuple[int, Bucket] | None = None
        self._numbers = array("q", (_FREE,)) * count
        self._events = array("d", bytes(16 * count))  # count, bad
        self._values: array[float] | None = None  # sum, sum of squares; made when there is any
        self._bins: list[PackedBins | None] | None = [None] * count if quantiles else None

    @property
    def size_bytes(self) -> int:
        """What it takes, bins left out."""
        per_slot = 24 + (16 if self._values is not None else 0) + (8 if self._bins is not None else 0)
        return per_slot * self._count

    @property
    def newest(self) -> int | None:
        """The highest number, None where there is none."""
        top = self._top
        return None if top is None else top[0]

    def __len__(self) -> int:
        return len(self.numbers())

    def __contains__(self, number: int) -> bool:
        return self.get(number) is not None

    def get(self, number: int) -> Bucket | None:
        """The bucket: the newest itself, of others a copy."""
        top = self._top
        if top is None or number >= top[0]:
            return top[1] if top is not None and number == top[0] else None
        return self._copy(number) if self._holds(number) else None

    def numbers(self) -> list[int]:
        """Of all buckets, oldest first."""
        top = self._top
        if top is None:
            return []
        newest = top[0]
        found = [n for n in range(max(self._first, newest - self._count + 1), newest) if self._holds(n)]
        return [*found, newest]

    def copy(self) -> Ring:
        """What is here now, to be read while this one goes on; only the newest bucket is shared."""
        twin = Ring(self._count, quantiles=self._bins is not None)
        twin._first, twin._top = self._first, self._top
        twin._numbers, twin._events = self._numbers[:], self._events[:]
        twin._values = None if self._values is None else self._values[:]
        twin._bins = None if self._bins is None else list(self._bins)
        return twin

    def items(self) -> Iterator[tuple[int, Bucket]]:
        """(number, bucket) of each, oldest first."""
        for number in self.numbers():
            bucket = self.get(number)
            if bucket is not None:
                yield number, bucket

    def add(self, number: int, events: Bucket) -> None:
        """Merge events into the bucket of this number; those older than the ring reaches are dropped."""
        top = self._top
        if self._values is None and (events.total or events.squares):
            self._values = array("d", bytes(16 * self._count))
        if top is not None and number == top[0]:
            top[1].merge(events)
        elif top is not None and number < top[0]:
            if number > top[0] - self._count:
                before = self._copy(number) if self._holds(number) else self._new()
                before.merge(events)
                self._settle(number, before)
                self._first = min(self._first, number)
        else:
            if top is not None:
                self._settle(*top)
                self.forget(number - self._count)
            if self._top is None:
                self._first = number
            made = self._new()
            made.merge(events)
            self._top = (number, made)

    def forget(self, oldest: int) -> None:
        """Let go of this number and all before it."""
        top = self._top
        if top is None:
            return
        for number in range(self._first, min(oldest, top[0], self._first + self._count - 1) + 1):
            place = number % self._count
            if self._numbers[place] <= oldest:
                self._numbers[place] = _FREE
                if self._bins is not None:
                    self._bins[place] = None
        if oldest >= top[0]:
            self._top = None
        self._first = max(self._first, oldest + 1)

    def _new(self) -> Bucket:
        return Bucket({} if self._bins is not None else None)

    def _holds(self, number: int) -> bool:
        return self._numbers[number % self._count] == number

    def _copy(self, number: int) -> Bucket:
        place = number % self._count
        bucket = Bucket(None if self._bins is None else self._bins[place] or {})
        bucket.count, bucket.bad = self._events[2 * place], self._events[2 * place + 1]
        if self._values is not None:
            bucket.total, bucket.squares = self._values[2 * place], self._values[2 * place + 1]
        return bucket

    def _settle(self, number: int, bucket: Bucket) -> None:
        place = number % self._count
        self._events[2 * place], self._events[2 * place + 1] = bucket.count, bucket.bad
        if self._values is not None:
            self._values[2 * place], self._values[2 * place + 1] = bucket.total, bucket.squares
        if self._bins is not None:
            bins: Any = bucket.bins
            self._bins[place] = bins if isinstance(bins, PackedBins) else PackedBins(bins or {})
        self._numbers[place] = number
