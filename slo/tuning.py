"""Which factor, window and min_events give a wanted rate of false alarms, and what each costs in detection delay. Pure.

Every candidate is back-tested on the recorded traffic (false alarms) and on the same traffic made worse by a step from
a random moment on (delay). Days are drawn with replacement for the interval of the false-alarm rate, because the hours
of one day are alike; with no false alarm at all the rule of three bounds it instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log, log1p, sqrt
from typing import Any

from slo.artefact import DAY_S, Baseline
from slo.backtest import MONTH_DAYS, Incident, healthy_days_of, incident_of, per_month
from slo.evaluation import BURN_PAIRS
from slo.indicators import LATENCY
from slo.metric_names import INDICATORS
from slo.replay import Lane, Rule, moments_of, replay, rules_of, run_track
from slo.statistics import Interval, quantile, split_mix, wilson_upper
from slo.traffic import Life, Quantity, Track, Traffic, grain
from slo.types import Slo, Threshold, Window

FORMS_WITH_FACTOR = frozenset({"baseline", "current", "limit", "budget", "previous"})
STEP_RATIO = 2.0
ONSETS = 40
RESAMPLES = 500
MAX_MISSED_RATIO = 0.05
MAX_UNKNOWN_RATIO = 0.1
MAX_HORIZON_S = 24 * 3600.0
_NORMAL_FROM = 60.0  # expected events from which a binomial is drawn as a normal


@dataclass(frozen=True, slots=True)
class Grid:
    """What is tried: every combination. factors: of the limit as written (or of the limit itself, see `scaled`)."""

    factors: tuple[float, ...]
    windows_s: tuple[float, ...]
    min_events: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One combination as a rule. present: it is the rule as it stands in the file."""

    factor: float
    rule: Rule
    present: bool


@dataclass(frozen=True, slots=True)
class Tried:
    """What a candidate did. Delays are seconds from the step to the firing; None: more than 50 % (95 %) missed it."""

    candidate: Candidate
    false_count: int
    false_per_month: Interval
    unknown_ratio: float
    median_delay_s: float | None
    p95_delay_s: float | None
    missed_ratio: float
    onset_count: int


def default_grid(slo: Slo) -> Grid:
    """Return a grid around the rule as it is: stricter and kinder limits, half and double windows, fewer events."""
    own = _own_factor(slo)
    kinder = (0.7, 0.85, 1.0, 1.25, 1.5, 2.0)
    if own < 1.0 and INDICATORS[slo.indicator].worse == "down":  # 0.9 of the value: kinder is further below 1
        factors = [round(1.0 - (1.0 - own) * k, 4) for k in kinder]
    else:
        factors = [round(own * k, 4) for k in kinder]
    windows = {max(60.0, slo.window.length_s / 2), slo.window.length_s, min(30 * DAY_S, slo.window.length_s * 2)}
    events = {max(1, round(slo.min_events * k)) for k in (0.25, 0.5, 1.0, 2.0)}
    return Grid(tuple(f for f in factors if f > 0), tuple(sorted(windows)), tuple(sorted(events)))


def candidates_of(
    slo: Slo, grid: Grid, baseline: Baseline | None = None, previous: Baseline | None = None
) -> tuple[list[Candidate], list[str]]:
    """Return the combinations that have a limit, and why others have none (each reason once)."""
    found, reasons = [], []
    own = _own_factor(slo)
    for window_s in grid.windows_s if not slo.burn_rate else (slo.window.length_s,):
        for factor in grid.factors:
            changed = replace(scaled(slo, factor), window=Window(window_s))
            (rule,) = rules_of([changed], baseline, previous)
            if any(limit.value is None for limit in rule.limits):
                reasons.append(rule.limits[0].reason)
                continue
            for events in grid.min_events:
                present = factor == own and window_s == slo.window.length_s and events == slo.min_events
                found.append(Candidate(factor, replace(rule, slo=replace(changed, min_events=events)), present))
    return found, list(dict.fromkeys(reasons))


def scaled(slo: Slo, factor: float) -> Slo:
    """Return the objective with another factor.

    Forms without one (absolute, sla, tier) become `absolute`: the limit x factor, and for a success rate the allowed
    share of failures x factor.

    >>> slo = Slo("up", "sft_availability_success_rate", Window(3600.0), Threshold("tier", {"tier": "general"}))
    >>> scaled(slo, 2.0).threshold.params["absolute"]
    0.98
    """
    if slo.threshold.form in FORMS_WITH_FACTOR:
        return replace(slo, threshold=replace(slo.threshold, params={**slo.threshold.params, "factor": factor}))
    limit = rules_of([slo])[0].limits[0].value
    assert limit is not None, "these forms always have a limit"
    indicator = INDICATORS[slo.indicator]
    if indicator.kind == "ratio" and indicator.worse == "down":
        value = 1.0 - (1.0 - limit) * factor
    elif indicator.worse == "down":
        value = limit / factor
    else:
        value = limit * factor
    bounded = min(1.0, max(0.0, value)) if indicator.unit == "ratio" else value
    return replace(slo, threshold=Threshold("absolute", {"absolute": round(bounded, 9)}))


def _own_factor(slo: Slo) -> float:
    return float(slo.threshold.params["factor"]) if slo.threshold.form in FORMS_WITH_FACTOR else 1.0


def quantities_of(candidates: Sequence[Candidate], step_ratio: float) -> list[Quantity]:
    """Return what must be counted: for latency also what would be over the limit if all took `step_ratio` as long."""
    found = []
    for candidate in candidates:
        found += [candidate.rule.quantity, _worse_quantity(candidate.rule.quantity, step_ratio)]
    return list(dict.fromkeys(found))


def _worse_quantity(quantity: Quantity, step_ratio: float) -> Quantity:
    """An answer that takes twice as long is over L when it was over L / 2."""
    if quantity.indicator != LATENCY:
        return quantity
    return replace(quantity, over_s=tuple(limit / step_ratio for limit in quantity.over_s))


def tune(
    traffic: Traffic,
    candidates: Sequence[Candidate],
    incidents: Sequence[Incident] = (),
    *,
    step_ratio: float = STEP_RATIO,
    onset_count: int = ONSETS,
    seed: int = 1,
    every_s: float = 10.0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[Tried]:
    """Back-test every candidate; the same seed gives the same numbers. on_progress: told how many are done."""
    life = max(traffic.lives, key=lambda each: each.exchange_count)
    longest_s = max(c.rule.slo.window.length_s for c in candidates)
    horizon_s = min(MAX_HORIZON_S, max(6 * 3600.0, 2 * longest_s + candidates[0].rule.slo.for_s))
    if candidates[0].rule.slo.burn_rate:
        longest_s = max(pair.long_s for pair in BURN_PAIRS)
    onsets = _onsets(traffic, life, incidents, horizon_s, onset_count, split_mix(seed))
    worse: dict[Quantity, list[Track]] = {}
    tried = []
    for done, candidate in enumerate(candidates, 1):
        lanes = replay(traffic, [candidate.rule], every_s)
        quantity = candidate.rule.quantity
        if quantity not in worse:
            worse[quantity] = [
                _worsened(traffic, life, quantity, onset, horizon_s, longest_s, step_ratio, split_mix(seed + 7919 * n))
                for n, onset in enumerate(onsets, 1)
            ]
        delays = _delays(candidate.rule, life, lanes, onsets, worse[quantity], horizon_s, every_s, traffic.tick_s)
        tried.append(_tried(candidate, traffic, lanes, incidents, delays, seed))
        on_progress(done)
    return tried


def _onsets(
    traffic: Traffic, life: Life, incidents: Sequence[Incident], horizon_s: float, count: int,
    chance: Callable[[], float],
) -> list[int]:  # fmt: skip
    """Random moments of the busiest release with a whole horizon after them, outside incidents."""
    last = life.last - round(horizon_s / traffic.tick_s)
    if last <= life.first:
        return []
    found: list[int] = []
    for _ in range(20 * count):
        moment = life.first + int(chance() * (last - life.first))
        begin_s, end_s = moment * traffic.tick_s, moment * traffic.tick_s + horizon_s
        if not any(i.from_s < end_s and i.to_s > begin_s for i in incidents):
            found.append(moment)
        if len(found) == count:
            break
    return sorted(found)


def _worsened(
    traffic: Traffic, life: Life, quantity: Quantity, onset: int, horizon_s: float, longest_s: float, step_ratio: float,
    chance: Callable[[], float],
) -> Track:  # fmt: skip
    """The track around `onset`, made worse from there on: bad shares and means x `step_ratio`, durations too."""
    track = traffic.track(life.release, quantity)
    per_bucket, buckets = grain(longest_s, traffic.tick_s)
    begin = max(track.first, onset - per_bucket * (buckets + 1))
    end = min(onset + round(horizon_s / traffic.tick_s), track.first + len(track.count) - 1)
    count, bad = _steps(track, track.count, begin, end), _steps(track, track.bad, begin, end)
    total, squares = _steps(track, track.total, begin, end), _steps(track, track.squares, begin, end)
    at = onset - begin
    if quantity.indicator == LATENCY:
        over = traffic.track(life.release, _worse_quantity(quantity, step_ratio))
        later = _steps(over, over.bad, onset, end)
        bad[at:] = [min(b, n) for b, n in zip(later, count[at:], strict=True)]
    elif INDICATORS[quantity.indicator].kind == "mean":
        scale = 1.0 / step_ratio if INDICATORS[quantity.indicator].worse == "down" else step_ratio
        total[at:] = [value * scale for value in total[at:]]
        squares[at:] = [value * scale * scale for value in squares[at:]]
    else:
        more = _more_bad(track, step_ratio)
        bad[at:] = [b + binomial(n - b, more, chance) for n, b in zip(count[at:], bad[at:], strict=True)]
    return Track.of_columns(begin, bad, count, _steps(track, track.unjudged, begin, end), total, squares)


def _steps(track: Track, totals: Sequence[Any], begin: int, end: int) -> list[Any]:
    """What each tick between two moments counted."""
    low, high = track.place(begin), track.place(end)
    return [totals[i + 1] - totals[i] for i in range(low, high)]


def _more_bad(track: Track, step_ratio: float) -> float:
    """Chance with which a good event turns bad so that the bad share becomes `step_ratio` x as large."""
    count, bad = track.count[-1], track.bad[-1]
    if not count:
        return 0.0
    share = bad / count if bad else wilson_upper(0, count)  # nothing bad yet: twice of what that can hide
    return min(1.0, max(0.0, (step_ratio - 1.0) * share / (1.0 - share))) if share < 1.0 else 0.0


def binomial(count: float, chance_each: float, chance: Callable[[], float]) -> int:
    """Return how many of `count` events happen, each with `chance_each`.

    Counted by the gaps between two that happen, which are geometric; large numbers as a rounded normal.

    Source:
        L. Devroye (1986), Non-Uniform Random Variate Generation, chapter X.4.3 (second waiting time method).
    """
    n = int(count)
    if n <= 0 or chance_each < 1e-12:  # 1 - p is 1 in floats, and nothing would ever happen anyway
        return 0
    if chance_each >= 1.0:
        return n
    mean = n * chance_each
    if mean > _NORMAL_FROM and n - mean > _NORMAL_FROM:
        # Irwin-Hall: the sum of twelve uniform numbers less six is normal enough for counts of this size.
        deviate = sum(chance() for _ in range(12)) - 6.0
        return min(n, max(0, round(mean + deviate * sqrt(mean * (1.0 - chance_each)))))
    scale = log1p(-chance_each)
    happened, place = 0, 0.0
    while True:
        place += int(log(1.0 - chance()) / scale) + 1
        if place > n:
            return happened
        happened += 1


def _delays(
    rule: Rule, life: Life, lanes: Sequence[Lane], onsets: Sequence[int], worse: Sequence[Track], horizon_s: float,
    every_s: float, tick_s: float,
) -> list[float | None]:  # fmt: skip
    """Seconds to the firing for each onset, None when it did not come; onsets in a firing of their own are left out."""
    firings = [(f.since_s, f.end_s) for lane in lanes if lane.life == life for f in lane.firings]
    found: list[float | None] = []
    for onset, track in zip(onsets, worse, strict=True):
        begin_s = onset * tick_s
        if any(since_s <= begin_s and (end_s is None or begin_s < end_s) for since_s, end_s in firings):
            continue
        part = replace(life, first=onset, last=onset + round(horizon_s / tick_s) - 1)
        lane = run_track(track, rule, part, moments_of(part, every_s, tick_s), every_s, tick_s, first_only=True)
        found.append(lane.firings[0].start_s - begin_s if lane.firings else None)
    return found


def _tried(
    candidate: Candidate, traffic: Traffic, lanes: Sequence[Lane], incidents: Sequence[Incident],
    delays: Sequence[float | None], seed: int,
) -> Tried:  # fmt: skip
    false = [f for lane in lanes for f in lane.firings if incident_of(f, incidents) is None]
    seconds = sum(lane.ok_s + lane.breach_s + lane.unknown_s for lane in lanes)
    hits = sorted(delay for delay in delays if delay is not None)
    missed_ratio = 1.0 - len(hits) / len(delays) if delays else 0.0
    waited = hits + [float("inf")] * (len(delays) - len(hits))
    return Tried(
        candidate=candidate,
        false_count=len(false),
        false_per_month=false_rate(traffic, [f.start_s for f in false], incidents, seed),
        unknown_ratio=sum(lane.unknown_s for lane in lanes) / seconds if seconds else 1.0,
        median_delay_s=_finite(waited, 0.5),
        p95_delay_s=_finite(waited, 0.95),
        missed_ratio=missed_ratio,
        onset_count=len(delays),
    )


def _finite(waited: Sequence[float], q: float) -> float | None:
    """The quantile, None where it falls among those that were missed (or nothing was injected)."""
    if not waited or (waited[-1] == float("inf") and waited[int(q * (len(waited) - 1) + 0.9999)] == float("inf")):
        return None
    return quantile(waited, q)


def false_rate(
    traffic: Traffic, starts_s: Sequence[float], incidents: Sequence[Incident], seed: int, resamples: int = RESAMPLES
) -> Interval:
    """Return false alarms per 30 days with a 95 % interval: days drawn with replacement, or the rule of three for none.

    Source:
        Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 8.6 (blocks).
    """
    healthy_days = healthy_days_of(traffic, incidents)
    plain = per_month(len(starts_s), healthy_days)
    days = _healthy_by_day(traffic, incidents)
    if not starts_s or len(days) < 2:
        return plain
    counts = [0] * len(days)
    for start_s in starts_s:
        counts[min(len(days) - 1, max(0, int((start_s - traffic.first_s) // DAY_S)))] += 1
    chance = split_mix(seed)
    rates = []
    for _ in range(resamples):
        drawn = [int(chance() * len(days)) for _ in days]
        healthy = sum(days[day] for day in drawn)
        if healthy > 0:
            rates.append(sum(counts[day] for day in drawn) / healthy * MONTH_DAYS)
    rates.sort()
    # All on one day, drawn days may miss it; the Poisson bound keeps the interval from claiming more than was seen.
    high = max(quantile(rates, 0.975), plain.estimate)
    return Interval(min(quantile(rates, 0.025), plain.estimate), plain.estimate, max(high, plain.high))


def _healthy_by_day(traffic: Traffic, incidents: Sequence[Incident]) -> list[float]:
    """Healthy share of each day of the log, counted from its begin."""
    days, begin_s = [], traffic.first_s
    while begin_s < traffic.last_s:
        end_s = min(begin_s + DAY_S, traffic.last_s)
        inside = sum(max(0.0, min(i.to_s, end_s) - max(i.from_s, begin_s)) for i in incidents)
        days.append(max(0.0, end_s - begin_s - inside) / DAY_S)
        begin_s += DAY_S
    return days


def frontier(tried: Sequence[Tried]) -> list[Tried]:
    """Return those that no other beats in both false alarms and delay, from the fewest false alarms to the most."""
    able = [t for t in tried if t.median_delay_s is not None]
    kept = [t for t in able if not any(_beats(other, t) for other in able)]
    shown: dict[tuple[float, float | None], Tried] = {}
    for one in sorted(kept, key=_cost):
        shown.setdefault((one.false_per_month.estimate, one.median_delay_s), one)
    return list(shown.values())


def _beats(one: Tried, other: Tried) -> bool:
    assert one.median_delay_s is not None
    assert other.median_delay_s is not None
    mine = one.false_per_month.estimate, one.median_delay_s
    theirs = other.false_per_month.estimate, other.median_delay_s
    return mine != theirs and mine[0] <= theirs[0] and mine[1] <= theirs[1]


def _cost(one: Tried) -> tuple[float, ...]:
    """Few false alarms, then quick, then seldom unknown, then near to the rule as it is."""
    delay_s = one.median_delay_s if one.median_delay_s is not None else float("inf")
    return (one.false_per_month.estimate, delay_s, one.missed_ratio, one.unknown_ratio, not one.candidate.present)


def choose(tried: Sequence[Tried], wanted_per_month: float) -> Tried | None:
    """Return the quickest that has no more false alarms than wanted and misses at most 5 % of the steps.

    It may be unknown for a tenth of the time, or as long as the rule is now: being quick in the other hours is no gain.
    """
    blind = max([MAX_UNKNOWN_RATIO, *(t.unknown_ratio for t in tried if t.candidate.present)])
    able = [
        t for t in tried
        if t.false_per_month.estimate <= wanted_per_month
        and t.median_delay_s is not None
        and t.missed_ratio <= MAX_MISSED_RATIO
        and t.unknown_ratio <= blind
    ]  # fmt: skip
    return min(able, key=lambda t: (t.median_delay_s or 0.0, *_cost(t)), default=None)
