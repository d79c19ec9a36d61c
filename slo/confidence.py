"""Bounds that hold at every moment at once: confidence sequences for shares and for scores in [0, 1]. Pure.

An ordinary 95 % interval that is looked at after every event is wrong sooner or later. These are wrong, at any moment
of the whole time, with probability at most `alpha`: they are what no e-value has thrown out yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, log, log1p

from slo.betas import log_beta

_STEPS = 60
_PRIOR = 0.5
"""Jeffreys' prior: tightest where rare harms are, at 0 and 1."""

BETS = tuple(0.5 * 0.5 ** (step / 2) for step in range(24))
"""Stakes for scores, 0.5 down to 0.00017: one of them is within a factor 1.2 of the best for 5 to 10^7 scores."""
_BET_COSTS = tuple(log((step + 1) * (step + 2)) for step in range(len(BETS)))
"""Log of one over the money on each stake; 1 / (n (n + 1)) over all n adds up to 1."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A value certainly between `low` and `high`, at every moment at once with the probability asked for."""

    low: float
    high: float


def share_bounds(bad: float, count: float, alpha: float) -> Bounds:
    """Return bounds of the share of bad events; both hold together, at all times, but for probability `alpha`.

    Source:
        Robbins (1970), the beta-binomial mixture; every share p is kept while
        B(bad + 1/2, good + 1/2) / B(1/2, 1/2) / (p^bad (1-p)^good) < 1 / alpha.

    No bad one of 400, at 5 %: (1-p)^400 = B(1/2, 400.5) / B(1/2, 1/2) x 0.05 = 0.02821 x 0.05, so p = 1.628 %.

    >>> bounds = share_bounds(0, 400, 0.05)
    >>> bounds.low, round(bounds.high, 5)
    (0.0, 0.01628)
    """
    if count <= 0.0:
        return Bounds(0.0, 1.0)
    good = max(0.0, count - bad)
    mixed = log_beta(bad + _PRIOR, good + _PRIOR) - log_beta(_PRIOR, _PRIOR)
    wanted = mixed + log(alpha)  # kept while bad log p + good log (1-p) > this
    return Bounds(_lowest(bad, good, wanted), 1.0 - _lowest(good, bad, wanted))


def _lowest(hits: float, others: float, wanted: float) -> float:
    """Return the smallest p with hits log p + others log (1-p) >= `wanted`, which some p fulfil.

    Newton's steps: the curve is concave, so from a p below they climb towards the border and never pass it. They begin
    where `hits` alone would be.
    """
    if hits <= 0.0:
        return 0.0
    p = exp(wanted / hits)
    if p <= 0.0:  # a fraction of an event: the border is beyond floats
        return 0.0
    for _ in range(_STEPS):
        below = wanted - hits * log(p) - (others * log1p(-p) if others > 0.0 else 0.0)
        slope = hits / p - (others / (1.0 - p) if others > 0.0 else 0.0)
        if below <= 0.0 or slope <= 0.0:
            break
        nearer = p + below / slope
        if nearer - p <= 1e-12 * p:
            break
        p = nearer
    return p


@dataclass(frozen=True, slots=True)
class ScoreSums:
    """Scores in [0, 1] as sums, so that spans add up.

    spread: sum of (score - guess)^2, each guess made before its score (`guess`), weights as in `count`.
    """

    count: float = 0.0
    total: float = 0.0
    spread: float = 0.0

    @property
    def mean(self) -> float | None:
        """Mean of the scores, None of none."""
        return self.total / self.count if self.count else None


def guess(total: float, count: float) -> float:
    """Return what the next score is expected to be: the mean so far with one score of 1/2 added.

    >>> guess(0.0, 0.0), guess(2.7, 3.0)
    (0.5, 0.8)
    """
    return (0.5 + total) / (1.0 + count)


def mean_bounds(sums: ScoreSums, alpha: float) -> Bounds:
    """Return bounds of the mean of scores in [0, 1]; both hold together, at all times, but for probability `alpha`.

    For each stake s in [0, 1): exp(s (total - count m) - spread (-log(1-s) - s)) is on average at most 1 when the mean
    is m. All stakes of `BETS` are played with a part of the money each; the tightest bound counts. With the mean
    changing, m is the mean of the means so far.

    Source:
        Howard, Ramdas, McAuliffe, Sekhon (2021), Time-uniform, nonparametric, nonasymptotic confidence sequences,
        Ann. Statist. 49, theorem 4 (empirical Bernstein) and section 3.5 (discrete mixtures).

    >>> mean_bounds(ScoreSums(), 0.05)
    Bounds(low=0.0, high=1.0)
    >>> near = mean_bounds(ScoreSums(count=400.0, total=360.0, spread=4.0), 0.05)
    >>> round(near.low, 3), round(near.high, 3)
    (0.874, 0.926)
    """
    mean = sums.mean
    if mean is None:
        return Bounds(0.0, 1.0)
    wanted = log(2.0 / alpha)  # two sides
    width = inf
    for stake, cost in zip(BETS, _BET_COSTS, strict=True):
        width = min(width, (sums.spread * (-log1p(-stake) - stake) + wanted + cost) / (stake * sums.count))
    return Bounds(max(0.0, mean - width), min(1.0, mean + width))
