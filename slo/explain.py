"""What each rule means now, in words, with its present limit: the page a person reads before trusting the guard."""

from __future__ import annotations

from typing import Any

from slo.artefact import Baseline
from slo.comparison import PASS_ALPHA, margin_of
from slo.evaluation import BURN_PAIRS
from slo.metric_names import INDICATORS
from slo.outside import OutsideRule
from slo.spec import SloFile
from slo.thresholds import Known, Limit, limit_for
from slo.types import OnBreach, Slo
from slo.wording import show_duration, show_ratio, show_value

_ACTIONS = {
    OnBreach.TRACK: "is recorded and reported, nothing else",
    OnBreach.PAGE: "pages a person and stops the release from advancing",
    OnBreach.SHED: "takes traffic away: the canary goes one stage down, without one the lowest priority is refused",
    OnBreach.ROLLBACK: "rolls the canary back to stable at once",
}


def explain(
    slo_file: SloFile,
    baseline: Baseline | None = None,
    *,
    now_wall_s: float | None = None,
    previous: Baseline | None = None,
) -> str:
    """Return a page of text.

    now_wall_s: Unix seconds, to tell whether the baseline has expired; without it, the moment it was made.
    """
    when_s = now_wall_s if now_wall_s is not None else baseline.created_wall_s if baseline else 0.0
    known = Known(when_s, baseline, previous)
    preset = f", preset {slo_file.preset}" if slo_file.preset else ""
    head = f"{slo_file.service}: {len(slo_file.objectives)} objectives{preset}"
    if baseline is not None:
        forced = f" (forced: {baseline.forced_reason})" if baseline.forced else ""
        size = f"{baseline.exchange_count} exchanges, {baseline.days:.1f} days"
        head += f"\nbaseline {baseline.sha256[:12]}: {size}{forced}"
    objectives = (explain_one(slo, limit_for(slo, known)) for slo in slo_file.objectives)
    return "\n\n".join([head, *objectives, *map(explain_outside, slo_file.outside)])


def as_rows(slo_file: SloFile, baseline: Baseline | None = None, *, now_wall_s: float) -> list[dict[str, Any]]:
    """Return the same for machines: a row of each objective.

    limit: in `unit` (ratio, seconds, usd), None while `unknown` says why. now_wall_s: Unix seconds.
    """
    known = Known(now_wall_s, baseline)
    rows = []
    for slo in slo_file.objectives:
        limit = limit_for(slo, known)
        rows.append(
            {
                "name": slo.name,
                "indicator": slo.indicator,
                "action": slo.action.value,
                "window_s": slo.window.length_s,
                "for_s": slo.for_s,
                "min_events": slo.min_events,
                "limit": limit.value,
                "unit": INDICATORS[slo.indicator].unit,
                "limit_source": limit.source,
                "unknown": limit.reason,
                "text": explain_one(slo, limit),
            }
        )
    return rows


def explain_outside(rule: OutsideRule) -> str:
    """Return one rule on an outside alert as a paragraph of indented lines."""
    labels = ", ".join(f"{name}={value}" for name, value in sorted(rule.labels.items()))
    held = f" and is known to fire for {show_duration(rule.for_s)}" if rule.for_s else ""
    return "\n    ".join([
        f"{rule.name}: the alert {rule.alert}{f' with {labels}' if labels else ''}, raised by others",
        f"breached while Alertmanager says that it fires{held}",
        f"unknown when nobody repeated it for {show_duration(rule.max_age_s)}",
        f"a breach {_ACTIONS[rule.action]}",
    ])  # fmt: skip


def explain_one(slo: Slo, limit: Limit) -> str:
    """Return one rule as a paragraph of indented lines."""
    indicator = INDICATORS[slo.indicator]
    lines = [f"{slo.name}: {indicator.help} ({slo.indicator})"]
    if slo.routes:
        lines.append(f"only on the routes {', '.join(slo.routes)}")
    if limit.value is None:
        lines.append(f"UNKNOWN now: {limit.reason}. It neither rolls back nor lets a release advance.")
        lines.append(f"its limit will be the {limit.source}")
    else:
        lines.append(f"limit {show_value(indicator, limit.value)} = {limit.source}")
    lines.append(_condition(slo, limit))
    if slo.fast:
        share, span = show_ratio(slo.fast.over_ratio), show_duration(slo.fast.window.length_s)
        events = f"with 95 % confidence, on at least {slo.fast.min_events} events"
        lines.append(f"or at once when more than {share} within {span} are bad, {events}")
    kept = f", and keeps firing {show_duration(slo.keep_firing_for_s)} after its end" if slo.keep_firing_for_s else ""
    lines.append(f"a breach {_ACTIONS[slo.action]}{kept}")
    lines += _canary(slo, limit)
    return "\n    ".join(lines)


def _condition(slo: Slo, limit: Limit) -> str:
    """When the rule is breached."""
    indicator = INDICATORS[slo.indicator]
    span = show_duration(slo.window.length_s)
    shown = "the limit" if limit.value is None else show_value(indicator, limit.value)
    held = f", found at every evaluation for {show_duration(slo.for_s)}" if slo.for_s else ""
    if slo.burn_rate:
        pairs = "; ".join(
            f"{p.factor:g} x over {show_duration(p.long_s)} and {show_duration(p.short_s)} ({p.severity})"
            for p in BURN_PAIRS
        )
        events = f"at least {slo.min_events} events in the long window"
        ticket = "" if slo.action is OnBreach.TRACK else "; a ticket only stops the release from advancing"
        return f"breached when its error budget over {span} burns too fast: {pairs}{ticket}; {events}{held}"
    side = "below" if indicator.worse == "down" else "above"
    if indicator.kind == "latency":
        share = show_ratio(round(1.0 - (indicator.quantile or 0.0), 9))
        what = f"more than {share} of the requests take longer than {shown}"
    elif indicator.kind == "mean":
        what = f"the mean is {side} {shown}"
    else:
        what = f"the share is {side} {shown}"
    return f"breached when over {span} {what}, with 95 % confidence, on at least {slo.min_events} events{held}"


def _canary(slo: Slo, limit: Limit) -> list[str]:
    """How a canary is compared with stable."""
    rule = slo.canary
    if rule is None:
        return []
    margin, alpha = margin_of(slo, limit.value), f"false at most once in {1 / rule.alpha:.0f} rollouts"
    stable = "stable at the same time"
    if INDICATORS[slo.indicator].kind == "mean":
        fails = f"more than {margin:g} worse than {stable}"
        passes = f"less than {margin:g} worse"
    else:
        fails = f"more than {rule.factor:g} x as bad as {stable}"
        passes = f"less than {show_ratio(margin)} worse, or less than {rule.factor:g} x as bad"
    return [
        f"a canary fails, as by a breach, as soon as it is certainly {fails} ({alpha})",
        f"it passes a stage when it is certainly {passes} ({1 - PASS_ALPHA:.0%}); between the two it is held",
    ]
