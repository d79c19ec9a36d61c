"""An indicator over time, and since when it was bad. Pure.

The points are what the windows hold: counts of short spans, so a plot and an estimate need no second memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_BEFORE = 20
"""Fewer events than this before a change say nothing about what was normal."""


@dataclass(frozen=True, slots=True)
class Point:
    """What happened in one span. wall_s: Unix seconds of its start. mean: of the measured values, None for counts."""

    wall_s: float
    bad_count: float
    count: float
    mean: float | None = None

    @property
    def value(self) -> float:
        """Mean of the values, else the share of bad events. Only of a point with events."""
        return self.bad_count / self.count if self.mean is None else self.mean


def change_at(points: Sequence[Point], *, worse_up: bool = True) -> int | None:
    """Return the index of the point from which the values are worse; None when they get no worse anywhere.

    Least squares: the split that explains most of the variance by two means, n0 n1 / n (m1 - m0)^2, among those where
    the later mean is the worse one. Points are weighed by their events.

    Source: Hinkley, Inference about the change-point in a sequence of random variables, Biometrika 57, 1970.

    >>> change_at([Point(0, 0, 10), Point(10, 1, 10), Point(20, 6, 10), Point(30, 5, 10)])
    2
    """
    whole = sum(p.count for p in points)
    total = sum(p.count * p.value for p in points if p.count)
    best, found = 0.0, None
    count_before = sum_before = 0.0
    for index, point in enumerate(points):
        count_after, sum_after = whole - count_before, total - sum_before
        if count_before > 0 and count_after > 0:
            step = sum_after / count_after - sum_before / count_before
            gain = count_before * count_after / whole * step * step
            if (step > 0) is worse_up and gain > best * (1.0 + 1e-9):
                best, found = gain, index
        if point.count:
            count_before += point.count
            sum_before += point.count * point.value
    return found


def first_bad_s(points: Sequence[Point], limit: float, *, worse_up: bool = True) -> float | None:
    """Return since when a release was past the limit, Unix seconds; None without events.

    A release that was past it from its first events on was bad from the start: only what was within the limit before,
    on enough events, makes a later moment the beginning.
    """
    known = [p for p in points if p.count > 0]
    if not known:
        return None
    at = change_at(known, worse_up=worse_up)
    if at is None:
        return known[0].wall_s
    before = known[:at]
    count = sum(p.count for p in before)
    mean = sum(p.count * p.value for p in before) / count
    was_well = mean <= limit if worse_up else mean >= limit
    return known[at].wall_s if was_well and count >= MIN_BEFORE else known[0].wall_s


def thinned(points: Sequence[Point], at_most: int) -> tuple[Point, ...]:
    """Return at most so many points by adding neighbours up.

    >>> thinned([Point(0, 1, 2), Point(10, 0, 2), Point(20, 1, 1)], 2)
    (Point(wall_s=0, bad_count=1, count=4, mean=None), Point(wall_s=20, bad_count=1, count=1, mean=None))
    """
    width = -(-len(points) // at_most) if points else 1
    return tuple(_added(points[at : at + width]) for at in range(0, len(points), width)) if width > 1 else tuple(points)


def _added(points: Sequence[Point]) -> Point:
    count = sum(p.count for p in points)
    means = [p for p in points if p.mean is not None and p.count]
    mean = sum(p.count * (p.mean or 0.0) for p in means) / sum(p.count for p in means) if means else None
    return Point(points[0].wall_s, sum(p.bad_count for p in points), count, mean)
