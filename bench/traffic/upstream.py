"""What befalls every release at once: the model provider gets slower, fails more, or answers worse for a while.

A guard that compares a canary with yesterday takes this for the canary's fault.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from numpy.random import Generator

from bench.traffic.arrivals import DAY_S


@dataclass(frozen=True, slots=True)
class Disturbance:
    """From `at_s` to `until_s`, for every arm: factors on latency, failures and unsupported answers."""

    at_s: float
    until_s: float
    latency_factor: float = 1.0
    failed_factor: float = 1.0
    hallucination_factor: float = 1.0


NONE = Disturbance(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Upstream:
    """Disturbances in order of time, none overlapping."""

    disturbances: tuple[Disturbance, ...] = ()
    _starts: tuple[float, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", tuple(d.at_s for d in self.disturbances))

    def at(self, t_s: float) -> Disturbance:
        """Return what disturbs at `t_s`, NONE when nothing does."""
        near = bisect_right(self._starts, t_s) - 1
        return self.disturbances[near] if near >= 0 and t_s < self.disturbances[near].until_s else NONE


CALM = Upstream()


def wobbling(
    chance: Generator,
    days: float,
    *,
    per_day: float = 4.0,
    latency: tuple[float, float] = (1.0, 1.5),
    failed: tuple[float, float] = (1.0, 3.0),
    hallucination: tuple[float, float] = (1.0, 1.3),
    longest_s: float = 3600.0,
) -> Upstream:
    """Return an upstream with some bad spells a day, 2 minutes to `longest_s` each; factors uniform in their range."""
    found: list[Disturbance] = []
    for at_s in sorted(chance.uniform(0.0, days * DAY_S, size=chance.poisson(per_day * days)).tolist()):
        if found and at_s < found[-1].until_s:
            continue
        until_s = at_s + chance.uniform(120.0, longest_s)
        factors = (float(chance.uniform(*span)) for span in (latency, failed, hallucination))
        found.append(Disturbance(at_s, until_s, *factors))
    return Upstream(tuple(found))


def outages(chance: Generator, days: float, *, per_day: float) -> Upstream:
    """Return an upstream that now and then fails for a third of the calls during 1 to 10 minutes."""
    return wobbling(chance, days, per_day=per_day, latency=(1.0, 3.0), failed=(250.0, 350.0), longest_s=600.0)


def both(one: Upstream, other: Upstream) -> Upstream:
    """Return an upstream with the spells of two; where they overlap the later one wins until its end."""
    ordered = sorted((*one.disturbances, *other.disturbances), key=lambda d: d.at_s)
    kept: list[Disturbance] = []
    for spell in ordered:
        if kept and kept[-1].until_s > spell.at_s:
            last = kept[-1]
            kept[-1] = Disturbance(
                last.at_s, spell.at_s, last.latency_factor, last.failed_factor, last.hallucination_factor
            )
        kept.append(spell)
    return Upstream(tuple(kept))
