"""How many questions come at a moment: a daily cycle, a weekly profile, bursts, and sessions that ask several."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from math import cos, pi

from numpy.random import Generator

DAY_S = 86_400.0
WEEK = (1.15, 1.15, 1.15, 1.10, 1.05, 0.75, 0.65)
"""Share of the mean day, Monday first; they add up to 7."""


@dataclass(frozen=True, slots=True)
class Burst:
    """From `at_s` to `until_s` the rate is `factor` times as high: a mail to all staff, a broken page elsewhere."""

    at_s: float
    until_s: float
    factor: float


@dataclass(frozen=True, slots=True)
class Load:
    """Questions per second over time; t = 0 is a Monday, 00:00.

    mean_rate: questions/s over the week. swing: 0 is flat, 0.8 means peak 1.8 x and night 0.2 x the day's mean.
    peak_hour: busiest hour. session_questions: mean questions of a session; they come within minutes of each other.
    """

    mean_rate: float
    swing: float = 0.8
    peak_hour: float = 14.0
    weekly: bool = True
    session_questions: float = 3.0
    bursts: tuple[Burst, ...] = ()
    _starts: tuple[float, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", tuple(b.at_s for b in self.bursts))

    def rate(self, t_s: float) -> float:
        """Return the questions per second that may be expected at `t_s`.

        >>> round(Load(10.0, weekly=False).rate(14 * 3600.0), 3), round(Load(10.0, weekly=False).rate(2 * 3600.0), 3)
        (18.0, 2.0)
        """
        rate = self.mean_rate
        if self.swing:
            rate *= 1.0 + self.swing * cos(2.0 * pi * (t_s / 3600.0 - self.peak_hour) / 24.0)
        if self.weekly:
            rate *= WEEK[int(t_s // DAY_S) % 7]
        near = bisect_right(self._starts, t_s) - 1
        if near >= 0 and t_s < self.bursts[near].until_s:
            rate *= self.bursts[near].factor
        return rate


def flat(rate: float) -> Load:
    """Return a load without cycle and bursts."""
    return Load(rate, swing=0.0, weekly=False)


def random_bursts(chance: Generator, days: float, *, per_day: float = 2.0) -> tuple[Burst, ...]:
    """Return bursts of 2 to 15 minutes at 1.5 to 4 times the rate, at random times, none overlapping."""
    starts = sorted(chance.uniform(0.0, days * DAY_S, size=chance.poisson(per_day * days)).tolist())
    bursts: list[Burst] = []
    for at_s in starts:
        if not bursts or at_s > bursts[-1].until_s:
            bursts.append(Burst(at_s, at_s + chance.uniform(120.0, 900.0), chance.uniform(1.5, 4.0)))
    return tuple(bursts)
