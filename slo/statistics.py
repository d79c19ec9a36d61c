"""Small honest statistics: bounds of shares and means, quantiles, bootstrap. Pure Python, no library.

All bounds are one-sided at 95 % unless `z` says otherwise: a rule asks "is it worse than the limit?", never "is it
different?".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, exp, floor, fsum, lgamma, log, sqrt

Z_95 = 1.6448536269514722
"""95 % quantile of the normal distribution: one-sided bounds."""
Z_CATASTROPHE = 4.753424308822899
"""The quantile at one in a million: for rules asked every few seconds on a few dozen events, that act at once."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value between two bounds, all in the same unit."""

    low: float
    estimate: float
    high: float


def wilson_lower(bad_count: float, count: float, z: float = Z_95) -> float:
    """Return the lower bound of a share of which `bad_count` of `count` were seen.

    Raises:
        ZeroDivisionError: count is 0; silence has no bound.
    Source:
        E. B. Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22.

    >>> round(wilson_lower(7, 20), 4), wilson_lower(0, 50)
    (0.2023, 0.0)
    """
    return _wilson(bad_count, count, z)[0]


def wilson_upper(bad_count: float, count: float, z: float = Z_95) -> float:
    """Return the upper bound of a share; see `wilson_lower`.

    >>> round(wilson_upper(0, 50), 4)
    0.0513
    """
    return _wilson(bad_count, count, z)[1]


def _wilson(bad_count: float, count: float, z: float) -> tuple[float, float]:
    share = bad_count / count
    scale = 1.0 + z * z / count
    centre = (share + z * z / (2.0 * count)) / scale
    half = z * sqrt(share * (1.0 - share) / count + z * z / (4.0 * count * count)) / scale
    # At the ends the formula gives the end itself, but floats leave noise of 1e-18 there.
    low = 0.0 if bad_count <= 0 else max(0.0, centre - half)
    return low, 1.0 if bad_count >= count else min(1.0, centre + half)


def t_quantile_95(freedom: float) -> float:
    """Return the one-sided 95 % quantile of Student's t.

    freedom: degrees of freedom, >= 3 (error < 0.001 there; below, the series is not good enough and infinity is
    returned, so that three values never convict anybody).

    Source:
        Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5 (four correction terms).

    >>> round(t_quantile_95(5), 3), round(t_quantile_95(1e9), 3)
    (2.015, 1.645)
    """
    if freedom < 3:
        return float("inf")
    z = Z_95
    z2 = z * z
    terms = (
        z * (z2 + 1) / 4,
        z * (5 * z2**2 + 16 * z2 + 3) / 96,
        z * (3 * z2**3 + 19 * z2**2 + 17 * z2 - 15) / 384,
        z * (79 * z2**4 + 776 * z2**3 + 1482 * z2**2 - 1920 * z2 - 945) / 92160,
    )
    return z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))


def mean_interval(value_sum: float, value_sq_sum: float, count: float) -> Interval | None:
    """Return mean and one-sided 95 % bounds on either side, from sums; None with fewer than two values.

    Source:
        Student's t interval of a mean, mean +- t * s / sqrt(n).

    >>> mean_interval(value_sum=4.0, value_sq_sum=8.0, count=2) is not None
    True
    """
    if count < 2:
        return None
    mean = value_sum / count
    # The textbook difference can be a hair below 0 for equal values.
    variance = max(0.0, (value_sq_sum - count * mean * mean) / (count - 1))
    if variance <= 1e-12 * mean * mean:
        return Interval(mean, mean, mean)
    half = t_quantile_95(count - 1) * sqrt(variance / count)
    return Interval(mean - half, mean, mean + half)


def poisson_interval(count: int) -> Interval:
    """Return a count between the bounds of the mean it may come from: two-sided 95 %, or one-sided for a count of 0.

    With nothing seen the upper bound is 3.0 ("rule of three"): no false alarm in a month is compatible with three.

    Source:
        F. Garwood (1936), Fiducial limits for the Poisson distribution, Biometrika 28; the bounds solve
        P(X >= count; low) = P(X <= count; high) = 2.5 %.

    >>> [round(x, 3) for x in (poisson_interval(0).high, poisson_interval(3).low, poisson_interval(3).high)]
    [2.996, 0.619, 8.767]
    """
    if count <= 0:
        return Interval(0.0, 0.0, -log(0.05))
    widest = count + 10.0 * sqrt(count) + 20.0
    low = _solve(lambda mean: 1.0 - _poisson_up_to(count - 1, mean) >= 0.025, 0.0, float(count))
    high = _solve(lambda mean: _poisson_up_to(count, mean) <= 0.025, float(count), widest)
    return Interval(low, float(count), high)


def _poisson_up_to(count: int, mean: float) -> float:
    """P(X <= count). Terms by their logarithm: exp(-mean) alone is 0 from 746 on."""
    if mean <= 0:
        return 1.0
    return min(1.0, fsum(exp(k * log(mean) - mean - lgamma(k + 1)) for k in range(count + 1)))


def _solve(is_past: Callable[[float], bool], low: float, high: float) -> float:
    """The border between not past and past, by halving."""
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (low, middle) if is_past(middle) else (middle, high)
    return high


def quantile(ordered: Sequence[float], q: float) -> float:
    """Return the q-quantile of sorted values, linear between neighbours (type 7 of Hyndman and Fan, 1996).

    Raises:
        ValueError: no values.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5), quantile([1.0, 2.0, 3.0, 4.0], 0.95)
    (2.5, 3.8499999999999996)
    """
    if not ordered:
        raise ValueError("quantile of no values")
    position = q * (len(ordered) - 1)
    below, above = floor(position), ceil(position)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def split_mix(seed: int) -> Callable[[], float]:
    """Return a generator of numbers in [0, 1): the same for the same seed on every machine.

    Source:
        Steele, Lea, Flood (2014), Fast splittable pseudorandom number generators, OOPSLA (SplitMix64).
    """
    mask = (1 << 64) - 1
    state = seed & mask

    def chance() -> float:
        nonlocal state
        state = (state + 0x9E3779B97F4A7C15) & mask
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
        return ((mixed ^ (mixed >> 31)) >> 11) / (1 << 53)

    return chance


def bootstrap_intervals(
    blocks: Sequence[Sequence[float]],
    statistics: Sequence[Callable[[Sequence[float]], float]],
    chance: Callable[[], float],
    *,
    resample_count: int = 200,
) -> list[Interval]:
    """Return a two-sided 95 % percentile interval of each statistic over all values of `blocks`.

    Whole blocks (days, say) are drawn with replacement, because the values inside one are alike: drawing single hours
    would pretend to know more than was seen.

    Args:
        blocks: groups of values; at least one value in all.
        statistics: functions of the sorted values.
        chance: numbers in [0, 1); the same sequence gives the same intervals.
    Source:
        Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 8.6 (blocks) and 13 (percentiles).
    """
    filled = [block for block in blocks if block]
    everything = sorted(value for block in filled for value in block)
    replicates: list[list[float]] = [[] for _ in statistics]
    for _ in range(resample_count):
        drawn = sorted(value for _ in filled for value in filled[int(chance() * len(filled))])
        for kept, statistic in zip(replicates, statistics, strict=True):
            kept.append(statistic(drawn))
    intervals = []
    for kept, statistic in zip(replicates, statistics, strict=True):
        kept.sort()
        estimate = statistic(everything)
        low, high = quantile(kept, 0.025), quantile(kept, 0.975)
        intervals.append(Interval(min(low, estimate), estimate, max(high, estimate)))
    return intervals
