"""One objective, one release, one moment: ok, breach or unknown. Pure.

A breach needs all of: the estimate past the limit, its one-sided 95 % bound past it, and enough events. A naive "over
0.5 % for ten minutes" fires falsely on 92 % of days at 200 requests per window and a true rate of 0.1 %.

Beside the slow rule runs a fast path for catastrophes, held to the same three conditions with its own numbers. Its
bound is one in a million: it looks at a new handful of events every few seconds, and at 95 % a healthy release with
6 % unsupported answers is convicted once a day (7 of 20 bad suffice; measured with `bench/traffic`). A real catastrophe
does not notice the difference. Silence, too few events and less than half coverage are unknown, never ok.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from slo.metric_names import INDICATORS, Indicator
from slo.statistics import Z_95, Z_CATASTROPHE, mean_interval, wilson_lower
from slo.thresholds import Limit
from slo.types import Reading, Slo, State, Verdict
from slo.wording import show_duration, show_ratio, show_value

MIN_COVERAGE_RATIO = 0.5
MIN_SHOWN_EVENTS = 20
"""Of fewer events neither a value nor a budget is shown: a gauge that is unknown is absent."""
MAX_SUSPENDED_S = 60.0
"""How long we may be unable to measure before what was found earlier no longer says anything about the time since."""

Read = Callable[[float], Reading]
"""Reading of the last so many seconds."""


@dataclass(frozen=True, slots=True)
class BurnPair:
    """Two windows that must both burn the budget `factor` times too fast; the short one ends the alarm soon."""

    factor: float
    long_s: float
    short_s: float
    severity: str  # page | ticket


BURN_PAIRS = (
    BurnPair(14.4, 3600.0, 300.0, "page"),
    BurnPair(6.0, 6 * 3600.0, 1800.0, "page"),
    BurnPair(3.0, 86_400.0, 2 * 3600.0, "ticket"),
    BurnPair(1.0, 3 * 86_400.0, 6 * 3600.0, "ticket"),
)
"""Source: Google, The Site Reliability Workbook, chapter 5, multiwindow, multi-burn-rate alerts."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is remembered of one objective and release between evaluations.

    since_s: when the present unbroken breach began. last_s: when it was last seen firing. seen_s: the last healthy
    evaluation that found it. suspended: whether any evaluation since then could not be trusted.
    """

    since_s: float | None = None
    firing: bool = False
    last_s: float = 0.0
    seen_s: float | None = None
    suspended: bool = False


NOT_HELD = Held()


def judge(slo: Slo, release: str, read: Read, limit: Limit, value: float | None = None) -> Verdict:
    """Evaluate an objective of either kind: takes the readings it needs from `read`.

    value: the present quantile in seconds, for latency objectives, to be shown; decisions use counts only.
    """
    fast_reading = read(slo.fast.window.length_s) if slo.fast else None
    if slo.burn_rate:
        return evaluate_burn(slo, release, read, fast_reading, limit)
    # First: a catastrophe must not wait for a long window that cannot be had now.
    fast = _fast_breach(slo, release, INDICATORS[slo.indicator], fast_reading, limit)
    return fast if fast is not None else evaluate(slo, release, read(slo.window.length_s), fast_reading, limit, value)


def evaluate(
    slo: Slo, release: str, reading: Reading, fast_reading: Reading | None, limit: Limit, value: float | None = None
) -> Verdict:
    """Return the verdict of one objective from its window and its fast window.

    Units of `value`, `threshold` and `bound` are the indicator's (ratio, seconds, USD). For latency objectives the
    bound is on the share over the limit, so it stands in `evidence` and `bound` is None.

    >>> from slo.types import Threshold, Window
    >>> one_percent = Threshold("absolute", {"absolute": 0.01})
    >>> errors = Slo("errors", "sft_availability_http_error_rate", Window(300.0), one_percent)
    >>> evaluate(errors, "r1", Reading(30, 1000), None, Limit(0.01, "", "absolute")).state.value
    'breach'
    """
    indicator = INDICATORS[slo.indicator]
    fast = _fast_breach(slo, release, indicator, fast_reading, limit)
    if fast is not None:
        return fast
    return _slow(slo, release, indicator, reading, fast_reading, limit, value)


def is_ticket(verdict: Verdict) -> bool:
    """Return whether a breach is a slow burn: it holds a release and asks for a person; it never moves traffic."""
    return ("severity", "ticket") in verdict.evidence


def allowed_share(indicator: Indicator, limit: float) -> float:
    """Return the share of bad events that the limit allows.

    >>> allowed_share(INDICATORS["sft_availability_success_rate"], 0.999)
    0.001
    """
    if indicator.kind == "latency":
        assert indicator.quantile is not None
        # 1 - 0.95 is 0.050000000000000044 in floats; rounding keeps that noise out of verdicts.
        return round(1.0 - indicator.quantile, 9)
    return limit if indicator.worse == "up" else round(1.0 - limit, 9)


def is_harmful(slo: Slo, reading: Reading, share: float, min_events: int, z: float = Z_95) -> bool:
    """Return whether the bad share is past `share` by estimate and by its lower bound at `z`, on enough events."""
    if reading.count < max(1, min_events) or reading.coverage_ratio < MIN_COVERAGE_RATIO:
        return False
    return reading.bad_count / reading.count > share and wilson_lower(reading.bad_count, reading.count, z) > share


def budget_remaining_ratio(slo: Slo, reading: Reading, limit: Limit) -> float | None:
    """Return the share of the error budget that is left, below 0 when overspent; None while unknown or for means.

    reading: of the objective's own window. An hour that burns the budget of a month says how fast, not what is left.
    """
    indicator = INDICATORS[slo.indicator]
    if indicator.kind == "mean" or limit.value is None:
        return None
    if reading.count < MIN_SHOWN_EVENTS or reading.coverage_ratio < MIN_COVERAGE_RATIO:
        return None
    allowed = allowed_share(indicator, limit.value)
    return 1.0 - reading.bad_count / reading.count / allowed if allowed > 0 else None


def current_value(indicator: Indicator, reading: Reading) -> float | None:
    """Return the indicator's own value of a reading (a success rate, not its bad share); None on silence.

    Latency indicators have no value in a reading of counts; ask the windows for the quantile.
    """
    if not reading.count or indicator.kind == "latency":
        return None
    if indicator.kind == "mean":
        return reading.mean
    bad_ratio = reading.bad_count / reading.count
    return bad_ratio if indicator.worse == "up" else 1.0 - bad_ratio


def _fast_breach(slo: Slo, release: str, indicator: Indicator, reading: Reading | None, limit: Limit) -> Verdict | None:
    """A catastrophe, or None. Needs no baseline: its limit is its own, so a missing one does not silence it."""
    if slo.fast is None or reading is None or indicator.kind == "mean":
        return None
    if indicator.kind == "latency" and limit.value is None:
        return None  # without a limit no request is over it
    share = slo.fast.over_ratio
    if limit.value is not None:
        share = max(share, allowed_share(indicator, limit.value))  # never stricter than the slow rule
    if not is_harmful(slo, reading, share, slo.fast.min_events, Z_CATASTROPHE):
        return None
    bad_ratio = reading.bad_count / reading.count
    bound = wilson_lower(reading.bad_count, reading.count, Z_CATASTROPHE)
    reason = (
        f"{slo.name}: {show_ratio(bad_ratio)} bad of {reading.count} in {show_duration(slo.fast.window.length_s)} "
        f"(at least {show_ratio(bound)}), catastrophe limit {show_ratio(share)}"
    )
    down = indicator.worse == "down"
    plain = indicator.kind == "ratio"
    return Verdict(
        slo, release, State.BREACH,
        value=current_value(indicator, reading),
        threshold=(1.0 - share if down else share) if plain else limit.value,
        reason=reason,
        bound=(1.0 - bound if down else bound) if plain else None,
        reading=reading, fast=True, fast_reading=reading,
        evidence=_evidence(reading, slo.fast.window.length_s, bad_ratio, bound, share, "fast path", level="999999"),
    )  # fmt: skip


def _slow(
    slo: Slo, release: str, indicator: Indicator, reading: Reading, fast_reading: Reading | None, limit: Limit,
    value: float | None,
) -> Verdict:  # fmt: skip
    """The rule itself."""
    span = show_duration(slo.window.length_s)
    unknown = _why_unknown(slo, reading, limit, span)
    if unknown or limit.value is None:
        return Verdict(
            slo, release, State.UNKNOWN, None, limit.value, unknown, reading=reading, fast_reading=fast_reading
        )
    if indicator.kind == "mean":
        return _mean(slo, release, indicator, reading, limit.value, limit.source)
    allowed = allowed_share(indicator, limit.value)
    bad_ratio, bound = reading.bad_count / reading.count, wilson_lower(reading.bad_count, reading.count)
    state = State.BREACH if is_harmful(slo, reading, allowed, slo.min_events) else State.OK
    down = indicator.worse == "down"
    shown = current_value(indicator, reading) if indicator.kind == "ratio" else value
    if indicator.kind == "latency":
        reason = (
            f"{slo.name}: {show_ratio(bad_ratio)} of {reading.count} in {span} "
            f"over {show_value(indicator, limit.value)} (at least {show_ratio(bound)}), allowed {show_ratio(allowed)}"
        )
    else:
        reason = (
            f"{slo.name}: {show_value(indicator, shown)} of {reading.count} in {span} "
            f"({'at most' if down else 'at least'} {show_ratio(1.0 - bound if down else bound)}), "
            f"limit {show_ratio(limit.value)}"
        )
    return Verdict(
        slo, release, state,
        value=shown, threshold=limit.value, reason=reason,
        bound=None if indicator.kind == "latency" else 1.0 - bound if down else bound,
        reading=reading, fast_reading=fast_reading,
        evidence=_evidence(reading, slo.window.length_s, bad_ratio, bound, allowed, limit.source),
    )  # fmt: skip


def _mean(slo: Slo, release: str, indicator: Indicator, reading: Reading, limit: float, source: str) -> Verdict:
    """Means: the estimate and its bound on the harmless side must both be past the limit."""
    interval = mean_interval(reading.value_sum, reading.value_sq_sum, reading.count)
    if interval is None:
        return Verdict(
            slo, release, State.UNKNOWN, None, limit, f"{slo.name}: one value has no spread", reading=reading
        )
    down = indicator.worse == "down"
    bound = interval.high if down else interval.low
    breached = (interval.estimate < limit and bound < limit) if down else (interval.estimate > limit and bound > limit)
    reason = (
        f"{slo.name}: mean {show_value(indicator, interval.estimate)} of {reading.count} "
        f"in {show_duration(slo.window.length_s)} ({'at most' if down else 'at least'} "
        f"{show_value(indicator, bound)}), limit {show_value(indicator, limit)}"
    )
    evidence = _evidence(reading, slo.window.length_s, interval.estimate, bound, limit, source)
    state = State.BREACH if breached else State.OK
    return Verdict(
        slo, release, state, interval.estimate, limit, reason, bound=bound, reading=reading, evidence=evidence
    )


def _why_unknown(slo: Slo, reading: Reading, limit: Limit, span: str) -> str:
    """Why nothing can be said, "" when something can."""
    if limit.value is None:
        return f"{slo.name}: {limit.reason}"
    if not reading.count:
        return f"{slo.name}: no events in {span}; silence is not health"
    if reading.count < slo.min_events:
        return f"{slo.name}: {reading.count} events in {span}, {slo.min_events} needed"
    if reading.coverage_ratio < MIN_COVERAGE_RATIO:
        judged, needed = show_ratio(reading.coverage_ratio), show_ratio(MIN_COVERAGE_RATIO)
        return f"{slo.name}: only {judged} of the answers could be judged, {needed} needed"
    return ""


def evaluate_burn(slo: Slo, release: str, read: Read, fast_reading: Reading | None, limit: Limit) -> Verdict:
    """Return the verdict of an objective with `burn_rate`: the budget is spent too fast in two windows at once.

    A ticket pair (slow burn) is marked ("severity", "ticket") in the evidence: see `is_ticket`.
    Without enough events in the last hour the verdict is unknown, unless a longer pair burns.
    """
    indicator = INDICATORS[slo.indicator]
    fast = _fast_breach(slo, release, indicator, fast_reading, limit)
    if fast is not None:
        return fast
    if limit.value is None:
        return Verdict(
            slo, release, State.UNKNOWN, None, None, f"{slo.name}: {limit.reason}", fast_reading=fast_reading
        )
    allowed = allowed_share(indicator, limit.value)
    for pair in BURN_PAIRS:
        long, short = read(pair.long_s), read(pair.short_s)
        share = pair.factor * allowed
        if short.count and short.bad_count / short.count > share and is_harmful(slo, long, share, slo.min_events):
            return _burning(slo, release, indicator, pair, long, short, allowed, limit, fast_reading)
    hour = read(BURN_PAIRS[0].long_s)
    unknown = _why_unknown(slo, hour, limit, show_duration(BURN_PAIRS[0].long_s))
    if unknown:
        return Verdict(slo, release, State.UNKNOWN, None, limit.value, unknown, reading=hour, fast_reading=fast_reading)
    burn = hour.bad_count / hour.count / allowed if allowed else 0.0
    value = current_value(indicator, hour)
    reason = f"{slo.name}: {show_value(indicator, value)} of {hour.count} in 1h, burns {burn:.2g} x the budget"
    return Verdict(
        slo,
        release,
        State.OK,
        current_value(indicator, hour),
        limit.value,
        reason,
        reading=hour,
        fast_reading=fast_reading,
    )


def _burning(
    slo: Slo, release: str, indicator: Indicator, pair: BurnPair, long: Reading, short: Reading, allowed: float,
    limit: Limit, fast_reading: Reading | None,
) -> Verdict:  # fmt: skip
    bad_ratio, bound = long.bad_count / long.count, wilson_lower(long.bad_count, long.count)
    burn = f"{bad_ratio / allowed:.1f}" if allowed else "without end"
    reason = (
        f"{slo.name}: burns {burn} x the budget over {show_duration(pair.long_s)} and still over "
        f"{show_duration(pair.short_s)} ({pair.severity} at {pair.factor:g} x), {long.bad_count} bad of {long.count}"
    )
    evidence = (
        *_evidence(long, pair.long_s, bad_ratio, bound, pair.factor * allowed, limit.source),
        ("burn_factor", f"{pair.factor:g}"),
        ("severity", pair.severity),
        ("short_bad_count", str(short.bad_count)),
        ("short_count", str(short.count)),
    )
    down = indicator.worse == "down"
    return Verdict(
        slo, release, State.BREACH,
        value=current_value(indicator, long), threshold=limit.value, reason=reason,
        bound=1.0 - bound if down else bound, reading=long, evidence=evidence, fast_reading=fast_reading,
    )  # fmt: skip


def _evidence(
    reading: Reading, window_s: float, estimate: float, bound: float, threshold: float, source: str, level: str = "95"
) -> tuple[tuple[str, str], ...]:
    """What a webhook or incident shows beside the reason; shares for ratio and latency rules, values for means."""
    return (
        ("window_s", f"{window_s:g}"),
        ("bad_count", str(reading.bad_count)),
        ("count", str(reading.count)),
        ("estimate", f"{estimate:.6g}"),
        (f"bound_{level}", f"{bound:.6g}"),
        ("threshold", f"{threshold:.6g}"),
        ("threshold_source", source),
        ("coverage_ratio", f"{reading.coverage_ratio:.3g}"),
    )


def advance(held: Held, verdict: Verdict, now_s: float) -> tuple[Held, Verdict]:
    """Add time to a verdict: `for_s` before it fires, `keep_firing_for_s` after it was last seen.

    A breach fires when it was found at every evaluation of `for_s`; anything else in between, unknown included, starts
    the count again, and so does a time longer than `MAX_SUSPENDED_S` in which we could not measure. The fast path
    fires at once. While a firing rule is kept its state is what is measured now, so nobody acts on a state that is
    not `breach`.
    """
    slo = verdict.slo
    if verdict.state is State.BREACH:
        unseen = held.suspended and _is_long_unseen(held, now_s)
        since_s = now_s if held.since_s is None or unseen else held.since_s
        kept = held.firing and now_s - held.last_s < slo.keep_firing_for_s
        firing = verdict.fast or kept or now_s - since_s >= slo.for_s
        if not firing:
            reason = f"{verdict.reason}; held {show_duration(now_s - since_s)} of {show_duration(slo.for_s)}"
            return Held(since_s, seen_s=now_s), replace(verdict, reason=reason)
        return Held(since_s, True, now_s, now_s), replace(verdict, firing=True)
    if held.firing and now_s - held.last_s < slo.keep_firing_for_s:
        return Held(None, True, held.last_s), replace(verdict, firing=True)
    return NOT_HELD, verdict


def suspend(held: Held, verdict: Verdict, now_s: float) -> tuple[Held, Verdict]:
    """Instead of `advance` while our own measurement is sick: nothing is said, and nothing found before is forgotten.

    The verdict becomes unknown and does not fire. A breach that was being held stays held: the next healthy evaluation
    must find it again, and the time in between then counts, unless it was longer than `MAX_SUSPENDED_S`.

    >>> from slo.types import Threshold, Window
    >>> slo = Slo("p99", "sft_perf_latency_p99_ms", Window(60.0), Threshold("absolute", {"absolute": 1.0}))
    >>> breach = Verdict(slo, "r1", State.BREACH, None, None, "")
    >>> held, verdict = suspend(Held(since_s=0.0, seen_s=500.0), breach, 510.0)
    >>> held.since_s, verdict.state.value, suspend(held, breach, 561.0)[0].since_s
    (0.0, 'unknown', None)
    """
    since_s = None if _is_long_unseen(held, now_s) else held.since_s
    return (
        replace(held, since_s=since_s, suspended=True),
        replace(verdict, state=State.UNKNOWN, firing=False, fast=False),
    )


def _is_long_unseen(held: Held, now_s: float) -> bool:
    return held.seen_s is None or now_s - held.seen_s > MAX_SUSPENDED_S
