"""A change in one arm: after a promotion nothing answers beside it, so it is compared with its baseline. Pure.

A CUSUM: every bad event adds the log odds of "factor times as bad as usual" against "as usual", every good one takes a
little away, and below 0 it starts again, because a change may begin at any time. It alarms at a threshold. What is
usual is the baseline's share at this hour of the week, so a daily cycle is no change.

On events that are independent the chance of a false alarm follows from theory. Real traffic wobbles more than that from
hour to hour, so the threshold is found by replaying days drawn from the baseline's own wobble (bootstrap), with the
profile of the week removed.

Sources:
    Page (1954), Continuous inspection schemes, Biometrika 41 (CUSUM); Moustakides (1986), Ann. Statist. 14 (no other
    detector is faster at the same run length); Shin, Ramdas, Rinaldo (2023), E-detectors, NEJSDS 2 (its run length is
    at least e^threshold whatever the truth is, as long as it is no worse than usual).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, exp, log, log1p, sqrt
from statistics import NormalDist, fmean, pvariance

from slo.artefact import QUANTILES, IndicatorBaseline, hour_of_week
from slo.metric_names import INDICATORS
from slo.statistics import quantile, split_mix, wilson_upper

MIN_HOUR_WINDOWS = 2
MAX_WORSE = 0.9
"""Whatever the factor, no more bad events than this are listened for: at 1 a single good one would refute it."""
PATH_COUNT = 100
STEPS_PER_PATH = 288
MIN_WOBBLE_S = 900.0
SCORE_STAKE = 0.5
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Usual:
    """What a baseline says of one indicator now. share: of bad events, > 0; None for scores. score: the mean."""

    share: float | None
    score: float | None


def usual_now(values: IndicatorBaseline, wall_s: float) -> Usual:
    """Return what is usual at this hour of the week; of all hours where the hour has too few windows.

    A share is never taken for smaller than the baseline's events can tell: with none bad of n, the upper bound.
    """
    indicator = INDICATORS[values.indicator]
    hour = values.hour(hour_of_week(wall_s))
    value = hour.mean if hour is not None and hour.window_count >= MIN_HOUR_WINDOWS else values.overall
    if indicator.kind == "mean":
        low = values.statistic("p05")
        return Usual(None, value if low is None else min(value, low.estimate))
    share = value if indicator.worse == "up" else 1.0 - value
    return Usual(min(0.5, max(share, wilson_upper(0, max(1, values.event_count)))), None)


def worse_share(usual: float, factor: float) -> float:
    """Return the share that is listened for.

    >>> worse_share(0.03, 2.0), worse_share(0.5, 3.0)
    (0.06, 0.9)
    """
    return max(min(factor * usual, MAX_WORSE), min(1.1 * usual, 0.99))


def gain(bad: float, good: float, usual: float, worse: float) -> float:
    """Return what some events add to the sum: the log odds of `worse` against `usual`.

    >>> round(gain(1, 0, 0.03, 0.06), 4), round(gain(0, 1, 0.03, 0.06), 4)
    (0.6931, -0.0314)
    """
    return bad * log(worse / usual) + good * (log1p(-worse) - log1p(-usual))


def score_gain(count: float, total: float, spread: float, usual: float, stake: float = SCORE_STAKE) -> float:
    """Return what some scores in [0, 1] add to the sum: a bet at `stake` that their mean is below `usual`.

    spread: of `slo.confidence.ScoreSums`. On average e^gain is at most 1 while the mean is `usual` or more, whatever
    the scores are like: Howard et al. (2021), theorem 4, see `slo.confidence`.

    >>> round(score_gain(count=10.0, total=5.0, spread=0.1, usual=0.9), 3)
    1.981
    """
    return stake * (count * usual - total) - spread * (-log1p(-stake) - stake)


def cusum(sum_now: float, more: float) -> float:
    """Return the sum after some more events; several at once alarm no earlier than one by one.

    >>> cusum(-1.0, 0.5), cusum(2.0, 0.5)
    (0.5, 2.5)
    """
    return max(0.0, sum_now) + more


def guaranteed_threshold(run_length: float) -> float:
    """Return the threshold with at least `run_length` steps between false alarms on average, with no calibration."""
    return log(run_length)


def wobble(values: IndicatorBaseline) -> Callable[[float], float]:
    """Return how many times as bad as usual a window of the baseline was, by quantile in [0, 1], profile removed.

    The artefact keeps quantiles of the windows' values and their means by hour of the week. The part of the variance
    that lies between hours belongs to the profile; what remains is spread about 1 in the shape of the quantiles.
    Chance within a window is in it too, so the wobble is over-, never underestimated.
    """
    down = INDICATORS[values.indicator].worse == "down"

    def bad(value: float) -> float:
        return 1.0 - value if down else value

    known = [(q, bad(s.estimate)) for name, q in QUANTILES.items() if (s := values.statistic(name)) is not None]
    mean = values.statistic("mean")
    if len(known) < 3 or mean is None or bad(mean.estimate) <= 0.0:
        return lambda _: 1.0
    points = [(1.0 - q, value) for q, value in reversed(known)] if down else known
    middle = bad(mean.estimate)
    whole = fmean((_between(points, (step + 0.5) / 100) - middle) ** 2 for step in range(100))
    hours = [h for h in values.profile if h.window_count >= MIN_HOUR_WINDOWS]
    kept = 1.0
    if len(hours) >= 3 and whole > 0.0:
        # One-way analysis of variance: means of m windows still hold 1/m of the variance that is not between hours.
        m = fmean(h.window_count for h in hours)
        kept = sqrt(min(1.0, max(0.0, 1.0 - pvariance([bad(h.mean) for h in hours]) / whole) * m / (m - 1.0)))
    return lambda q: max(0.0, 1.0 + kept * (_between(points, q) / middle - 1.0))


def _between(points: Sequence[tuple[float, float]], q: float) -> float:
    """Value at quantile q, linear between the points (quantile, value) and on beyond the outer ones."""
    place = 1
    while place < len(points) - 1 and points[place][0] < q:
        place += 1
    (q0, low), (q1, high) = points[place - 1], points[place]
    return low + (high - low) * (q - q0) / (q1 - q0)


def calibrated_threshold(
    values: IndicatorBaseline,
    *,
    usual: float,
    factor: float,
    events_per_s: float,
    length_s: float,
    false_alarm: float,
    step_s: float = 5.0,
) -> float:
    """Return the threshold that a healthy time of `length_s`, looked at every `step_s`, crosses with `false_alarm`.

    Times are drawn: for each window a wobble of the baseline, and chance events at that share. Their highest sums have
    an exponential tail, of which the threshold is read off beyond what the drawn ones show. It is never lower than
    what independent events need at as many steps. Same input, same threshold.
    """
    chance = split_mix(values.event_count * 31 + values.window_count)
    drawn, worse = wobble(values), worse_share(usual, factor)
    window_count = max(1, ceil(length_s / max(values.window_s, MIN_WOBBLE_S)))
    steps = max(1, STEPS_PER_PATH // window_count)
    events = events_per_s * length_s / (window_count * steps)
    highest = sorted(_highest(window_count, steps, events, usual, worse, drawn, chance) for _ in range(PATH_COUNT))
    middle = quantile(highest, 0.5)
    above = [value - middle for value in highest if value > middle]
    # Independent events have a tail of exactly 1; wobble makes it longer, and luck must not make it shorter.
    tail = max(1.0, fmean(above)) if above else 1.0
    step_count = max(1.0, min(length_s / step_s, events_per_s * length_s))
    drawn_threshold = middle + tail * log(0.5 / min(0.5, false_alarm))
    return max(drawn_threshold, guaranteed_threshold(step_count / false_alarm))


def _highest(
    window_count: int,
    steps: int,
    events: float,
    usual: float,
    worse: float,
    drawn: Callable[[float], float],
    chance: Callable[[], float],
) -> float:
    """The highest sum of one drawn time. A step may hold thousands of events, and the sum moves within it: its way is
    drawn as a Brownian bridge, whose lowest and highest points are known (Karatzas and Shreve, 2.8.6)."""
    sum_now = highest = 0.0
    unit = gain(1.0, 0.0, usual, worse) - gain(0.0, 1.0, usual, worse)
    for _ in range(window_count):
        share = min(0.99, usual * drawn(chance()))
        twice_variance = 2.0 * events * share * (1.0 - share) * unit * unit
        for _ in range(steps):
            bad = min(events, _some(events * share, share, chance))
            more = gain(bad, events - bad, usual, worse)
            lowest = (more - sqrt(more * more - twice_variance * log(1.0 - chance()))) / 2.0
            after = max(sum_now + more, more - lowest)
            way = sqrt((after - sum_now) ** 2 - twice_variance * log(1.0 - chance()))
            highest = max(highest, (sum_now + after + way) / 2.0)
            sum_now = after
    return highest


def _some(mean: float, share: float, chance: Callable[[], float]) -> float:
    """A number of bad events: Poisson below 10 (a little wider than binomial), normal above."""
    if mean >= 10.0:
        u = min(max(chance(), 1e-12), 1.0 - 1e-12)
        return max(0.0, round(mean + sqrt(mean * (1.0 - share)) * _NORMAL.inv_cdf(u)))
    count, product, end = 0, chance(), exp(-mean)
    while product > end:
        count += 1
        product *= chance()
    return float(count)
