"""How a release answers, and how that changes over time. Plain numbers: a scenario is a list of changes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import exp, log, sqrt
from statistics import NormalDist

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A healthy release, unless told otherwise. Shares are of what could be so: see `counting`.

    The background noise is 1 % of the exchanges: 0.5 % errors of callers, 0.4 % clients that go away, 0.1 % failed
    calls. coverage_ratio: answers that the checks manage to judge. empty_ratio: answers without text.
    """

    hallucination_ratio: float = 0.03
    zero_hit_ratio: float = 0.02
    failed_ratio: float = 0.001
    client_error_ratio: float = 0.005
    cancelled_ratio: float = 0.004
    p50_s: float = 0.20
    p95_s: float = 0.35
    similarity_mean: float = 0.92
    similarity_sd: float = 0.06
    cost_usd: float = 0.03
    cache_hit_ratio: float = 0.0  # 0: there is no cache
    empty_ratio: float = 0.0
    coverage_ratio: float = 1.0
    thumb_ratio: float = 0.02
    thumbs_up_ratio: float = 0.9

    def over_ratio(self, limit_s: float, latency_factor: float = 1.0) -> float:
        """Return the share of answers slower than `limit_s`; latencies are log-normal through p50 and p95.

        >>> round(Behaviour(p50_s=0.2, p95_s=0.5).over_ratio(0.5), 4)
        0.05
        """
        return 1.0 - _NORMAL.cdf((log(limit_s) - log(self.p50_s * latency_factor)) / self.latency_sigma)

    @property
    def latency_sigma(self) -> float:
        """Standard deviation of the logarithm of the latency."""
        return (log(self.p95_s) - log(self.p50_s)) / _Z95

    @property
    def mean_s(self) -> float:
        """Mean latency."""
        return self.p50_s * exp(self.latency_sigma**2 / 2.0)


_Z95 = _NORMAL.inv_cdf(0.95)
COST_SPREAD = 0.5
"""Standard deviation of the cost of one answer, as a share of its mean: questions are short and long."""
COST_SIGMA = sqrt(log(1.0 + COST_SPREAD**2))
HEALTHY = Behaviour()


@dataclass(frozen=True, slots=True)
class Change:
    """From `at_s` on (seconds of the simulation) some numbers become others, at once or along a ramp; for good, or
    until `until_s`. values: field of Behaviour -> its new value."""

    at_s: float
    values: tuple[tuple[str, float], ...]
    ramp_s: float = 0.0
    until_s: float = float("inf")

    def share(self, t_s: float) -> float:
        """How far the change has come, 0..1."""
        if not self.at_s <= t_s < self.until_s:
            return 0.0
        return 1.0 if self.ramp_s <= 0.0 else min(1.0, (t_s - self.at_s) / self.ramp_s)


def change(at_s: float, *, ramp_s: float = 0.0, until_s: float = float("inf"), **values: float) -> Change:
    """Return a change of the named numbers.

    Raises:
        TypeError: not a number of a Behaviour.
    """
    unknown = values.keys() - {f.name for f in fields(Behaviour)}
    if unknown:
        raise TypeError(f"a Behaviour has no {', '.join(sorted(unknown))}")
    return Change(at_s, tuple(values.items()), ramp_s, until_s)


@dataclass(frozen=True, slots=True)
class Course:
    """A behaviour and its changes over time; later changes win."""

    start: Behaviour = HEALTHY
    changes: tuple[Change, ...] = ()

    def at(self, t_s: float) -> Behaviour:
        """Return the behaviour at `t_s`.

        >>> Course(changes=(change(0.0, ramp_s=10.0, hallucination_ratio=0.08),)).at(5.0).hallucination_ratio
        0.055
        """
        now = self.start
        for one in self.changes:
            share = one.share(t_s)
            if share > 0.0:
                moved = {name: _between(getattr(now, name), value, share) for name, value in one.values}
                now = replace(now, **moved)
        return now


ALWAYS_HEALTHY = Course()


def _between(before: float, after: float, share: float) -> float:
    return before + (after - before) * share
