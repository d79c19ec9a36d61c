"""Sums over a sliding span of closed buckets, carried on from one reading to the next.

A window of a month has 720 buckets, and between two readings one leaves and one comes. Adding all of them each time was
nine tenths of the cost of an evaluation.

Entries are replaced, never changed: any thread may ask, and two that ask at once do the same work twice. Every
`RENEW_AFTER` steps the sums are added up anew, so that rounding cannot pile up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

SPARE = 16
"""Buckets a ring keeps beyond its longest window, so that what left a window can still be taken out of its sums."""
RENEW_AFTER = 256
MAX_SPANS = 24


class Binned(Protocol):
    """Bin keys and their counts."""

    def __len__(self) -> int: ...

    def items(self) -> Iterable[tuple[int, float]]:
        """All of them."""
        ...


class Counted(Protocol):
    """A bucket; `bins` where quantiles are kept."""

    count: float
    bad: float
    total: float
    squares: float

    @property
    def bins(self) -> Binned | None:
        """None: no quantiles are kept."""
        ...


class Ring(Protocol):
    """Closed buckets by number."""

    def get(self, number: int) -> Counted | None:
        """None: nothing happened then."""
        ...

    def items(self) -> Iterable[tuple[int, Counted]]:
        """All of them."""
        ...


@dataclass(frozen=True, slots=True)
class Sums:
    """Of the buckets with `first` < number < `newest`. age: readings since they were added up from nothing."""

    first: int
    newest: int
    age: int
    count: float = 0.0
    bad: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    bins: Mapping[int, float] | None = None


class Running:
    """Running sums of one ring of buckets, one entry for each length that is asked for."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[float, Sums] = {}

    def sums(self, ring: Ring, length_s: float, first: int, newest: int, *, bins: bool) -> Sums:
        """Return the sums of the buckets with first < number < newest; these may not change any more.

        length_s: which window asks; the same one asks with growing numbers.
        """
        kept = self._kept.get(length_s)
        if kept is not None and kept.first == first and kept.newest == newest and (kept.bins is not None or not bins):
            return kept
        if kept is None or not _can_go_on(kept, first, newest, bins):
            made = _added_up(ring, first, newest, bins)
        else:
            made = _moved(kept, ring, first, newest)
        if len(self._kept) >= MAX_SPANS and length_s not in self._kept:
            self._kept = {}
        self._kept[length_s] = made
        return made


def _can_go_on(kept: Sums, first: int, newest: int, bins: bool) -> bool:
    steps = first - kept.first, newest - kept.newest
    return all(0 <= step < SPARE for step in steps) and kept.age < RENEW_AFTER and (kept.bins is not None or not bins)


def _added_up(ring: Ring, first: int, newest: int, bins: bool) -> Sums:
    count = bad = total = squares = 0.0
    merged: dict[int, float] | None = {} if bins else None
    for number, bucket in list(ring.items()):
        if first < number < newest:
            count += bucket.count
            bad += bucket.bad
            total += bucket.total
            squares += bucket.squares
            if merged is not None and bucket.bins:
                for key, some in bucket.bins.items():
                    merged[key] = merged.get(key, 0.0) + some
    return Sums(first, newest, 0, count, bad, total, squares, merged)


def _moved(kept: Sums, ring: Ring, first: int, newest: int) -> Sums:
    count, bad, total, squares = kept.count, kept.bad, kept.total, kept.squares
    gone = (ring.get(number) for number in range(kept.first + 1, min(first, kept.newest - 1) + 1))
    come = (ring.get(number) for number in range(max(kept.newest, first + 1), newest))
    merged = dict(kept.bins) if kept.bins is not None else None
    for sign, buckets in ((-1.0, gone), (1.0, come)):
        for bucket in buckets:
            if bucket is None:
                continue
            count += sign * bucket.count
            bad += sign * bucket.bad
            total += sign * bucket.total
            squares += sign * bucket.squares
            if merged is not None and bucket.bins:
                for key, some in bucket.bins.items():
                    left = merged.get(key, 0.0) + sign * some
                    if left > 1e-9:
                        merged[key] = left
                    else:
                        merged.pop(key, None)
    # Rounding may leave a hair below 0 where nothing is left.
    return Sums(first, newest, kept.age + 1, max(0.0, count), max(0.0, bad), total, max(0.0, squares), merged)
