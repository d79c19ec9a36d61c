"""Recorded traffic as the windows would have counted it: sums per tick of all that some rule looks at. Pure.

    exchanges ─ slo.sources.log_ticks ─► Traffic ─ slo.replay ─► what the rules would have said

A tick is the smallest span that is told apart: 10 s as in the finest ring of `slo.windows`, or a whole part of it.
Tick number k holds what ended in [k, k + 1) x tick_s, Unix time. A moment h, at which something is read or evaluated,
is the end of tick h - 1: everything before it is counted, nothing after it.

Sums are kept as running totals, so that a window of any length is one subtraction.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil

from slo.types import Reading
from slo.windows import FINE_S, RINGS, ring_place


@dataclass(frozen=True, slots=True)
class Quantity:
    """What is counted: an indicator (or `slo.indicators.LATENCY`), on some routes (none: all).

    over_s: for latency, the limits in seconds over which an exchange is bad: one, or one for each of the 168 hours of
    the week, taken by the hour in which the exchange ended.
    """

    indicator: str
    routes: tuple[str, ...] = ()
    over_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Sums:
    """What one quantity counted in one tick."""

    bad: int = 0
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    unjudged: int = 0


class Track:
    """Running totals of one quantity of one release. first: number of its first tick."""

    __slots__ = ("bad", "count", "first", "squares", "total", "unjudged")

    def __init__(self, first: int, sums: Sequence[Sums]) -> None:
        self.first = first
        self.bad = array("q", accumulate((s.bad for s in sums), initial=0))
        self.count = array("q", accumulate((s.count for s in sums), initial=0))
        self.unjudged = array("q", accumulate((s.unjudged for s in sums), initial=0))
        self.total = array("d", accumulate((s.total for s in sums), initial=0.0))
        self.squares = array("d", accumulate((s.squares for s in sums), initial=0.0))

    @classmethod
    def of_columns(
        cls,
        first: int,
        bad: Iterable[int],
        count: Iterable[int],
        unjudged: Iterable[int],
        total: Iterable[float],
        squares: Iterable[float],
    ) -> Track:
        """From one value per tick and column; the same as from `Sums`, without an object per tick."""
        track = cls(first, ())
        track.bad = array("q", accumulate(bad, initial=0))
        track.count = array("q", accumulate(count, initial=0))
        track.unjudged = array("q", accumulate(unjudged, initial=0))
        track.total = array("d", accumulate(total, initial=0.0))
        track.squares = array("d", accumulate(squares, initial=0.0))
        return track

    def place(self, moment: int) -> int:
        """Index of a moment in the running totals."""
        return min(max(moment - self.first, 0), len(self.count) - 1)

    def reading(self, since: int, until: int) -> Reading:
        """What was counted between two moments, as `MemorySource.reading` would say it."""
        low, high = self.place(since), self.place(until)
        count = self.count[high] - self.count[low]
        missed = self.unjudged[high] - self.unjudged[low]
        return Reading(
            self.bad[high] - self.bad[low],
            count,
            self.total[high] - self.total[low],
            self.squares[high] - self.squares[low],
            count / (count + missed) if missed else 1.0,
        )


NO_TRACK = Track(0, ())
"""Nothing was counted: every reading is silence."""


@dataclass(frozen=True, slots=True)
class Life:
    """When one release answered in one arm: from its first tick with an exchange to its last one."""

    release: str
    arm: str
    first: int
    last: int
    exchange_count: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """Everything counted. notes: what was left out or approximated, one line each, for the person who reads it."""

    tick_s: float
    lives: tuple[Life, ...]
    tracks: dict[tuple[str, Quantity], Track]
    exchange_count: int
    notes: tuple[str, ...] = ()

    def track(self, release: str, quantity: Quantity) -> Track:
        """The track of a quantity, an empty one when nothing was counted."""
        return self.tracks.get((release, quantity), NO_TRACK)

    @property
    def first_s(self) -> float:
        """Unix seconds at which the first tick began."""
        return min((life.first for life in self.lives), default=0) * self.tick_s

    @property
    def last_s(self) -> float:
        """Unix seconds at which the last tick ended."""
        return (max((life.last for life in self.lives), default=-1) + 1) * self.tick_s


def tick_of(every_s: float) -> float:
    """Return the tick that an evaluation every so many seconds needs.

    Raises:
        ValueError: neither a whole fraction of 10 s in whole seconds nor a multiple of 10 s.

    >>> tick_of(5.0), tick_of(10.0), tick_of(60.0)
    (5.0, 10.0, 10.0)
    """
    if every_s >= 1 and every_s == int(every_s):
        if FINE_S % every_s == 0:
            return every_s
        if every_s % FINE_S == 0:
            return FINE_S
    raise ValueError(f"{every_s:g} s: write 1s, 2s, 5s, 10s or a multiple of 10s; windows are made of 10 s buckets")


def reach(moment: int, length_s: float, tick_s: float) -> int:
    """Return the moment at which a window that ends at `moment` begins, in the buckets that `slo.windows` has.

    >>> reach(360, 3600.0, 10.0), reach(361, 3600.0, 10.0), reach(8641, 7200.0, 10.0)  # 2 h: buckets of 5 minutes
    (0, 1, 7950)
    """
    per_bucket, buckets = grain(length_s, tick_s)
    return ((moment - 1) // per_bucket - buckets + 1) * per_bucket


def grain(length_s: float, tick_s: float) -> tuple[int, int]:
    """Return (ticks in one bucket, buckets in the window) of the ring that answers for this length."""
    width_s, longest_s = RINGS[ring_place(length_s)]
    return round(width_s / tick_s), ceil(min(length_s, longest_s) / width_s)
