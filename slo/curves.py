"""One rule over time as a line to draw: value, limit, bound, events, state. Pure.

A line has some hundred points and a log a hundred thousand moments, so each point is the worst moment of its stretch: a
spike of one minute stays visible in a month.
"""

from __future__ import annotations

from dataclasses import dataclass

from slo.evaluation import BURN_PAIRS, allowed_share
from slo.metric_names import INDICATORS
from slo.replay import Rule, moments_of, verdict_at
from slo.statistics import wilson_lower
from slo.traffic import Life, Track, Traffic, reach
from slo.types import Slo, State, Verdict

MIN_DRAWN = 20
"""A value of fewer events is noise, and its line would hide the others; the gauges are absent there, too."""


@dataclass(frozen=True, slots=True)
class Point:
    """A moment. value, limit, bound None: unknown. For latency rules they are shares of requests over the limit; for
    `burn_rate` the burn of the pair of windows nearest to its factor, as a share of that factor (1 breaches).
    """

    wall_s: float
    value: float | None
    limit: float | None
    bound: float | None
    count: int
    state: State


def curve(
    traffic: Traffic,
    rule: Rule,
    life: Life,
    every_s: float = 10.0,
    most: int = 1200,
    between_s: tuple[float, float] = (float("-inf"), float("inf")),
) -> list[Point]:
    """Return about `most` points of one rule on one life, in the order of time; between_s: only of this stretch."""
    track = traffic.track(life.release, rule.quantity)
    moments = [
        m for m in moments_of(life, every_s, traffic.tick_s) if between_s[0] <= m * traffic.tick_s <= between_s[1]
    ]
    stride = max(1, len(moments) // most)
    points = []
    for begin in range(0, len(moments), stride):
        stretch = moments[begin : begin + stride]
        moment = max(stretch, key=lambda m: _harm(rule.slo, track, m, traffic.tick_s))
        verdict = verdict_at(traffic.tick_s, rule, life.release, track, moment)
        points.append(_point(rule, track, verdict, moment, traffic.tick_s))
    return points


def _harm(slo: Slo, track: Track, moment: int, tick_s: float) -> float:
    """How bad a moment is, to compare moments of one rule."""
    low, high = track.place(reach(moment, _length_s(slo), tick_s)), track.place(moment)
    count = track.count[high] - track.count[low]
    if not count:
        return float("-inf")
    indicator = INDICATORS[slo.indicator]
    if indicator.kind == "mean":
        mean = (track.total[high] - track.total[low]) / count
        return -mean if indicator.worse == "down" else mean
    return (track.bad[high] - track.bad[low]) / count


def _length_s(slo: Slo) -> float:
    return BURN_PAIRS[0].long_s if slo.burn_rate else slo.window.length_s


def _point(rule: Rule, track: Track, verdict: Verdict, moment: int, tick_s: float) -> Point:
    slo, wall_s = rule.slo, moment * tick_s
    limit = rule.limit_at(wall_s - tick_s).value
    indicator = INDICATORS[slo.indicator]
    reading = track.reading(reach(moment, _length_s(slo), tick_s), moment)
    if reading.count < MIN_DRAWN:
        drawn = 1.0 if slo.burn_rate else _latency_share(slo) if indicator.kind == "latency" else limit
        return Point(wall_s, None, drawn, None, reading.count, verdict.state)
    if slo.burn_rate:
        allowed = allowed_share(indicator, limit) if limit is not None else 0.0
        nearest = _nearest_burn(track, moment, tick_s, allowed)
        return Point(wall_s, nearest, 1.0 if allowed else None, None, reading.count, verdict.state)
    if indicator.kind == "latency":
        share = reading.bad_count / reading.count
        allowed = _latency_share(slo)
        bound = wilson_lower(reading.bad_count, reading.count)
        return Point(wall_s, share, allowed, bound, reading.count, verdict.state)
    if indicator.kind == "mean":
        known = verdict.value if not verdict.fast else None
        return Point(wall_s, reading.mean if known is None else known, limit, verdict.bound, reading.count,
                     verdict.state)  # fmt: skip
    bad = reading.bad_count / reading.count
    lower = wilson_lower(reading.bad_count, reading.count)
    down = indicator.worse == "down"
    return Point(
        wall_s, 1.0 - bad if down else bad, limit, 1.0 - lower if down else lower, reading.count, verdict.state
    )  # fmt: skip


def _latency_share(slo: Slo) -> float:
    """The share of requests that may be over a latency limit, whatever the limit."""
    return allowed_share(INDICATORS[slo.indicator], 0.0)


def _nearest_burn(track: Track, moment: int, tick_s: float, allowed: float) -> float | None:
    burns = []
    for pair in BURN_PAIRS:
        long = track.reading(reach(moment, pair.long_s, tick_s), moment)
        if long.count and allowed:
            burns.append(long.bad_count / long.count / allowed / pair.factor)
    return max(burns, default=None)
