"""From the eight forms of slo.yaml to a limit, or to the reason why there is none. Pure.

    baseline  quantile over the baseline's window-sized values x factor
    current   value measured on the evaluation set (or the baseline's overall value) x factor
    limit     capacity limit of a load test x factor
    sla       agreement - margin
    budget    budget / requests x factor
    tier      internal 95 %, general 99 %, critical 99.9 %
    previous  as `baseline`, from the previous release, scaled to this hour of the week
    absolute  the number itself

Relative rules (baseline, current, previous) without a usable baseline have no limit and say why; the others always
have one. A relative limit of a share is never stricter than what the events behind it can tell: a week without any
zero-hit does not prove that there are none, and a limit of 0 would make the first one a breach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from slo.artefact import Baseline, IndicatorBaseline, hour_of_week
from slo.metric_names import INDICATORS
from slo.statistics import wilson_lower, wilson_upper
from slo.types import Slo
from slo.wording import show_duration, show_value

RELATIVE = frozenset({"baseline", "current", "previous"})
TIERS = {"internal": 0.95, "general": 0.99, "critical": 0.999}
CLOCK_SLACK_S = 300.0
"""A baseline made later than this after now was made by a wrong clock, or ours is wrong: either way unusable."""
MIN_HOUR_WINDOWS = 2


@dataclass(frozen=True, slots=True)
class Limit:
    """value: in the indicator's inside unit (ratio, seconds, USD), None when there is none and `reason` says why.

    source: where the number comes from, in words.
    """

    value: float | None
    reason: str
    source: str


@dataclass(frozen=True, slots=True)
class Known:
    """What limits may be taken from. wall_s: now, Unix seconds. Empty embedder or config_hash: not compared."""

    wall_s: float = 0.0
    baseline: Baseline | None = None
    previous: Baseline | None = None
    embedder: str = ""
    config_hash: str = ""


NOTHING_KNOWN = Known()


def limit_for(slo: Slo, known: Known = NOTHING_KNOWN) -> Limit:
    """Return the limit of an objective now.

    >>> from slo.types import Threshold, Window
    >>> p99 = Slo("p99", "sft_perf_latency_p99_ms", Window(3600.0), Threshold("sla", {"sla": 2.0, "margin": 0.2}))
    >>> limit_for(p99)
    Limit(value=1.8, reason='', source='agreement 2000 ms - 200 ms')
    """
    form = slo.threshold.form
    if form == "baseline":
        return _from_baseline(slo, known, known.baseline, "baseline")
    if form == "previous":
        return _from_baseline(slo, known, known.previous, "baseline of the previous release")
    if form == "current":
        return _from_current(slo, known)
    return _fixed(slo)


def latency_bounds_s(slos: tuple[Slo, ...], known: Known = NOTHING_KNOWN) -> tuple[float, ...]:
    """Return every latency limit, seconds, sorted: each must be a bound of the generated histogram."""
    limits = (limit_for(slo, known).value for slo in slos if INDICATORS[slo.indicator].kind == "latency")
    return tuple(sorted({limit for limit in limits if limit is not None}))


def _fixed(slo: Slo) -> Limit:
    params, form = slo.threshold.params, slo.threshold.form
    indicator = INDICATORS[slo.indicator]
    if form == "tier":
        tier = str(params["tier"])
        return Limit(TIERS[tier], "", f"tier {tier}")
    if form == "budget":
        value = _number(params, "budget_usd") / _number(params, "requests") * _number(params, "factor")
        return Limit(
            value, "", f"{params['budget_usd']:g} USD / {params['requests']:g} requests x {params['factor']:g}"
        )
    if form == "sla":
        # 2.0 - 0.2 is 1.8 to people; floats may leave 1.7999999999999998.
        value = round(_number(params, "sla") - _number(params, "margin"), 9)
        shown = (show_value(indicator, _number(params, name)) for name in ("sla", "margin"))
        return Limit(value, "", "agreement {} - {}".format(*shown))
    if form == "limit":
        value = round(_number(params, "limit") * _number(params, "factor"), 9)
        return Limit(
            value, "", f"capacity limit {show_value(indicator, _number(params, 'limit'))} x {params['factor']:g}"
        )
    return Limit(_number(params, "absolute"), "", "absolute")


def _from_baseline(slo: Slo, known: Known, baseline: Baseline | None, what: str) -> Limit:
    params = slo.threshold.params
    form = slo.threshold.form
    name, factor = str(params[form]), _number(params, "factor")
    source = f"{name} of the {what} x {factor:g}"
    reason = why_unusable(slo, baseline, known, what, same_config=form != "previous")
    if baseline is None or reason:
        return Limit(None, reason, source)
    values = baseline.of(slo.indicator, slo.window.length_s)
    if values is None:
        return Limit(None, _no_values(slo, baseline, what), source)
    statistic = values.statistic(name)
    if statistic is None:
        return Limit(None, f"the {what} keeps no {name}", source)
    scale, hours = _hour_scale(values, known.wall_s) if form == "previous" else (1.0, "")
    value, raised = _resolvable(
        slo,
        statistic.estimate * scale * factor,
        values.overall,
        values.event_count,
        factor,
        "baseline's windows resolve",
    )
    low, high = (show_value(INDICATORS[slo.indicator], bound) for bound in (statistic.low, statistic.high))
    forced = ", forced" if baseline.forced else ""
    sample = f"interval {low} to {high}, {values.window_count} windows, hash {baseline.sha256[:12]}"
    return Limit(value, "", f"{source} ({sample}{forced}{hours}){raised}")


def _hour_scale(values: IndicatorBaseline, wall_s: float) -> tuple[float, str]:
    """How this hour of the week compares with the mean of all, and how to say it."""
    mean = values.statistic("mean")
    hour = values.hour(hour_of_week(wall_s))
    if hour is None or mean is None or hour.window_count < MIN_HOUR_WINDOWS or mean.estimate <= 0:
        return 1.0, ", all hours: too few windows in this hour of the week"
    return hour.mean / mean.estimate, f", hour {hour.hour_of_week} of the week"


def _from_current(slo: Slo, known: Known) -> Limit:
    factor = _number(slo.threshold.params, "factor")
    source = f"current value x {factor:g}"
    reason = why_unusable(slo, known.baseline, known, "baseline", same_config=True)
    if known.baseline is None or reason:
        return Limit(None, reason, source)
    indicator = INDICATORS[slo.indicator]
    found = [m for m in known.baseline.measured if m.indicator == slo.indicator]
    if found:
        latest = max(found, key=lambda m: m.wall_s)
        day = datetime.fromtimestamp(latest.wall_s, UTC).date().isoformat()
        source = f"evaluation set of {day}, n {latest.event_count}: {show_value(indicator, latest.value)} x {factor:g}"
        return _measured(slo, latest.value, latest.event_count, factor, source, "evaluation set resolves")
    collected = next((i for i in known.baseline.indicators if i.indicator == slo.indicator), None)
    if collected is None:
        return Limit(None, f"neither an evaluation set nor the baseline measured {slo.indicator}", source)
    source = (
        f"baseline's overall value, n {collected.event_count}: {show_value(indicator, collected.overall)} x {factor:g}"
    )
    return _measured(slo, collected.overall, collected.event_count, factor, source, "baseline resolves")


def _measured(slo: Slo, value: float, event_count: int, factor: float, source: str, what: str) -> Limit:
    """Limit from one value. Its own uncertainty is what the factor is for; only what n events cannot tell from perfect
    is raised, so the floor is that of no bad event among them."""
    perfect = 0.0 if INDICATORS[slo.indicator].worse == "up" else 1.0
    limit, raised = _resolvable(slo, value * factor, perfect, event_count, factor, what)
    return Limit(limit, "", f"{source}{raised}")


def _resolvable(
    slo: Slo, value: float, overall: float, event_count: int, factor: float, what: str
) -> tuple[float, str]:
    """Return the limit `value`, for shares moved to where the worst `overall` share that fits the events would put it
    when that is kinder, and what to say then.

    overall: the indicator's own share of `event_count` events. A kinder-than-perfect factor (over 1 on a share that
    should be high) moves nothing: a success rate must not be limited to 100 %.
    """
    indicator = INDICATORS[slo.indicator]
    value = _bounded(slo, value)
    if indicator.kind != "ratio":
        return value, ""
    count = max(1, event_count)  # no events resolve nothing, as one does nearly
    seen = min(max(round(overall * count), 0), count)
    if indicator.worse == "up":
        kinder = min(1.0, wilson_upper(seen, count) * factor)
        return (kinder, f", raised to {_share(kinder)}: the {what} no smaller share") if kinder > value else (value, "")
    kinder = wilson_lower(seen, count) * min(1.0, factor)
    return (kinder, f", lowered to {_share(kinder)}: the {what} no smaller share") if kinder < value else (value, "")


def _share(ratio: float) -> str:
    """In percent, with the digits that tell it from 0 and 100."""
    return f"{ratio * 100:.3g} %" if ratio < 0.5 else f"{100 - float(f'{(1 - ratio) * 100:.3g}'):.12g} %"


def why_unusable(slo: Slo, baseline: Baseline | None, known: Known, what: str, *, same_config: bool) -> str:
    """Return why no limit may be taken from a baseline, "" when it may."""
    if baseline is None:
        return f"no {what}: collect one with `sft-guard baseline collect`"
    if baseline.created_wall_s > known.wall_s + CLOCK_SLACK_S:
        return f"the {what} was made in the future: check the clock"
    if baseline.expires_wall_s <= known.wall_s:
        past_days = (known.wall_s - baseline.expires_wall_s) / 86_400.0
        return f"the {what} expired {past_days:.1f} days ago: collect it again"
    # Only what an embedder scores depends on it; a latency is a latency.
    scored = slo.indicator.startswith("sft_quality_")
    if scored and known.embedder and baseline.embedder and known.embedder != baseline.embedder:
        return f"the {what} was made with embedder {baseline.embedder}, now {known.embedder}: collect it again"
    if same_config and known.config_hash and baseline.config_hash and known.config_hash != baseline.config_hash:
        return f"the {what} was made for config {baseline.config_hash}, now {known.config_hash}: collect it again"
    return ""


def _no_values(slo: Slo, baseline: Baseline, what: str) -> str:
    others = baseline.windows_of(slo.indicator)
    if not others:
        return f"the {what} has no values of {slo.indicator}"
    shown = ", ".join(show_duration(w) for w in others)
    wanted = show_duration(slo.window.length_s)
    return f"the {what} has windows of {shown}, this rule uses {wanted}: collect it with --window {wanted}"


def _bounded(slo: Slo, value: float) -> float:
    """A share over 1 can never be passed; keep the limit a share."""
    return min(1.0, value) if INDICATORS[slo.indicator].unit == "ratio" else value


def _number(params: Mapping[str, float | str], name: str) -> float:
    value = params[name]
    assert isinstance(value, int | float), f"{name} is checked where slo.yaml is read"
    return float(value)
