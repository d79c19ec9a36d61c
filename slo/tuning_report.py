"""What tuning found: the frontier, the proposal as YAML, and what a short log cannot tell. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slo.backtest import MONTH_DAYS
from slo.metric_names import INDICATORS
from slo.statistics import Interval, poisson_interval
from slo.tuning import Candidate, Tried, choose, frontier
from slo.types import Slo
from slo.wording import show_duration, show_ratio, show_value


def as_json(
    slo: Slo, tried: Sequence[Tried], wanted: float, healthy_days: float, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the result for `--json`."""
    chosen = choose(tried, wanted)
    present = next((t for t in tried if t.candidate.present), None)
    return {
        "rule": slo.name,
        "wanted_false_alarms_per_month": wanted,
        "proposal": None if chosen is None else {**_tried_json(chosen), "yaml": yaml_lines(chosen.candidate)},
        "present": None if present is None else _tried_json(present),
        "frontier": [_tried_json(t) for t in frontier(tried)],
        "tried": [_tried_json(t) for t in tried],
        "healthy_days": round(healthy_days, 3),
        "notes": [*notes, *warnings(tried, wanted, healthy_days)],
    }


def _tried_json(tried: Tried) -> dict[str, Any]:
    slo, rate = tried.candidate.rule.slo, tried.false_per_month
    return {
        "factor": tried.candidate.factor,
        "window_s": slo.window.length_s,
        "min_events": slo.min_events,
        "limit": tried.candidate.rule.limits[0].value,
        "false_alarm_count": tried.false_count,
        "false_alarms_per_month": float(f"{rate.estimate:.4g}"),
        "false_alarms_per_month_95": [float(f"{rate.low:.4g}"), float(f"{rate.high:.4g}")],
        "median_delay_s": tried.median_delay_s,
        "p95_delay_s": tried.p95_delay_s,
        "missed_ratio": round(tried.missed_ratio, 4),
        "onset_count": tried.onset_count,
        "unknown_ratio": round(tried.unknown_ratio, 5),
    }


def warnings(tried: Sequence[Tried], wanted: float, healthy_days: float) -> list[str]:
    """Return what the numbers cannot tell."""
    said = []
    needed_days = poisson_interval(0).high / wanted * MONTH_DAYS if wanted > 0 else float("inf")
    if healthy_days < needed_days:
        most = poisson_interval(0).high / healthy_days * MONTH_DAYS if healthy_days > 0 else float("inf")
        proof = f"{needed_days:.0f} days" if wanted > 0 else "no log, however long,"
        said.append(
            f"too short to prove {wanted:g} a month: after {healthy_days:.1f} healthy days without any false alarm "
            f"up to {most:.2g} a month are possible (rule of three); {proof} would be needed"
        )
    quiet = sum(t.false_count == 0 for t in tried)
    if quiet > 1:
        said.append(
            f"{quiet} of {len(tried)} candidates had no false alarm; the quickest of many looks better than it is, so "
            "watch the first weeks"
        )
    if tried and tried[0].onset_count == 0:
        said.append("the log is shorter than the time a step is watched for: delays are unknown")
    return said


def yaml_lines(candidate: Candidate) -> list[str]:
    """Return the three lines to paste into the objective."""
    slo = candidate.rule.slo
    return [
        f"    window: {show_duration(slo.window.length_s)}",
        f"    threshold: {{{', '.join(f'{key}: {value}' for key, value in _border(slo).items())}}}",
        f"    min_events: {slo.min_events}",
    ]


def _border(slo: Slo) -> dict[str, str]:
    """The threshold's parameters in the units of slo.yaml."""
    indicator = INDICATORS[slo.indicator]
    written = {}
    for key, value in slo.threshold.params.items():
        if isinstance(value, str):
            written[key] = value
        elif indicator.kind == "latency" and key in ("limit", "sla", "margin", "absolute"):
            written[key] = f"{value * indicator.scale:g}"
        else:
            written[key] = f"{value:.6g}"
    return written


def as_text(slo: Slo, tried: Sequence[Tried], wanted: float, step_ratio: float, healthy_days: float) -> str:
    """Return the result as a page."""
    chosen = choose(tried, wanted)
    present = next((t for t in tried if t.candidate.present), None)
    what = {"latency": f"all answers take {step_ratio:g} x as long", "mean": f"the mean is {step_ratio:g} x worse"}
    step = what.get(INDICATORS[slo.indicator].kind, f"{step_ratio:g} x as many bad events")
    lines = [
        f"{slo.name}: {len(tried)} candidates over {healthy_days:.1f} healthy days; step to be found: {step}",
        "",
        *_table(slo, frontier(tried), present, chosen),
        "",
    ]
    if chosen is None:
        lines.append(
            f"none of them has at most {wanted:g} false alarms a month and finds the step in 95 % of the cases; "
            "try kinder --factors or longer --windows, or a larger --step"
        )
    else:
        rate = chosen.false_per_month
        lines += [
            f"proposal for at most {wanted:g} a month: {rate.estimate:.3g} seen ({_shown(rate)}), "
            f"step found after {_delay(chosen.median_delay_s)} (median), {_delay(chosen.p95_delay_s)} (P95)",
            f"  - name: {slo.name}",
            *yaml_lines(chosen.candidate),
        ]
    lines += [f"note: {note}" for note in warnings(tried, wanted, healthy_days)]
    return "\n".join(lines)


def _table(slo: Slo, rows: Sequence[Tried], present: Tried | None, chosen: Tried | None) -> list[str]:
    head = ("", "factor", "limit", "window", "min_events", "false/month (95 %)", "median delay", "P95", "missed",
            "unknown")  # fmt: skip
    cells: list[tuple[str, ...]] = [head]
    shown = list(rows)
    for extra in (chosen, present):
        if extra is not None and extra not in shown:
            shown.append(extra)
    for one in shown:
        rule = one.candidate.rule
        mark = "*" if one is chosen else "now" if one is present else ""
        limit = show_value(INDICATORS[slo.indicator], rule.limits[0].value) if len(rule.limits) == 1 else "by hour"
        cells.append(
            (mark, f"{one.candidate.factor:g}", limit, show_duration(rule.slo.window.length_s),
             str(rule.slo.min_events), f"{one.false_per_month.estimate:.3g} ({_shown(one.false_per_month)})",
             _delay(one.median_delay_s), _delay(one.p95_delay_s), show_ratio(round(one.missed_ratio, 3)),
             show_ratio(round(one.unknown_ratio, 3)))
        )  # fmt: skip
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def _shown(rate: Interval) -> str:
    return f"under {rate.high:.2g}" if rate.estimate == 0 else f"{rate.low:.2g} to {rate.high:.2g}"


def _delay(seconds: float | None) -> str:
    return "not found" if seconds is None else show_duration(round(seconds)) if seconds >= 1 else "0s"
