"""What a replay says about the rules: true and false alarms against marked incidents, delays, monthly rates. Pure.

A firing that overlaps a marked incident is a true one, any other is a false alarm. An incident during which nothing
fired is missed. Rates are per 30 days of healthy time (the log's span without its incidents) with a Poisson interval:
ten quiet days do not prove that a rule is quiet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from slo.artefact import DAY_S
from slo.metric_names import INDICATORS
from slo.replay import Firing, Lane, Rule
from slo.statistics import Interval, poisson_interval
from slo.traffic import Traffic
from slo.wording import show_duration, show_ratio, show_value

MONTH_DAYS = 30.0


@dataclass(frozen=True, slots=True)
class Incident:
    """A time in which something was wrong, as a person marked it. Unix seconds, `to_s` excluded."""

    from_s: float
    to_s: float
    name: str = ""

    def overlaps(self, firing: Firing) -> bool:
        """Whether a firing falls into it, at least in part."""
        return firing.start_s < self.to_s and (firing.end_s is None or firing.end_s > self.from_s)


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule over all releases. found: (place in the incidents, seconds from its begin to the first firing)."""

    rule: Rule
    ok_s: float
    breach_s: float
    unknown_s: float
    firings: tuple[Firing, ...]
    false_firings: tuple[Firing, ...]
    found: tuple[tuple[int, float], ...]
    false_per_month: Interval


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a replay found. healthy_days: the log's span without the incidents in it."""

    rules: tuple[RuleResult, ...]
    incidents: tuple[Incident, ...]
    missed: tuple[int, ...]
    log_days: float
    healthy_days: float
    false_per_month: Interval
    exchange_count: int
    notes: tuple[str, ...]


def per_month(count: int, healthy_days: float) -> Interval:
    """Return events per 30 days, with a 95 % interval; without healthy time nothing bounds them.

    >>> per_month(0, 15.0).high, per_month(2, 60.0).estimate
    (5.991464547107982, 1.0)
    """
    if healthy_days <= 0:
        return Interval(0.0, 0.0, float("inf"))
    seen, scale = poisson_interval(count), MONTH_DAYS / healthy_days
    return Interval(seen.low * scale, seen.estimate * scale, seen.high * scale)


def healthy_days_of(traffic: Traffic, incidents: Sequence[Incident]) -> float:
    """Return the days of the log outside its incidents."""
    first_s, last_s = traffic.first_s, traffic.last_s
    inside, reached_s = 0.0, first_s
    for incident in sorted(incidents, key=lambda i: i.from_s):
        begin_s, end_s = max(incident.from_s, reached_s), min(incident.to_s, last_s)
        if end_s > begin_s:
            inside, reached_s = inside + end_s - begin_s, end_s
    return (last_s - first_s - inside) / DAY_S


def report(
    traffic: Traffic, lanes: Sequence[Lane], incidents: Sequence[Incident] = (), notes: Sequence[str] = ()
) -> Report:
    """Hold what would have fired against what a person marked."""
    healthy_days = healthy_days_of(traffic, incidents)
    by_rule: dict[str, list[Lane]] = {}
    for lane in lanes:
        by_rule.setdefault(lane.rule.slo.name, []).append(lane)
    rules = tuple(_result(found, incidents, healthy_days) for found in by_rule.values())
    in_log = [n for n, i in enumerate(incidents) if i.from_s < traffic.last_s and i.to_s > traffic.first_s]
    found = {place for rule in rules for place, _ in rule.found}
    said = list(notes) + list(traffic.notes)
    if not incidents and any(rule.firings for rule in rules):
        said.append("no incident is marked, so every firing counts as a false alarm: mark them with --mark FROM/TO")
    blind = [rule.rule.slo.name for rule in rules if rule.unknown_s > (rule.ok_s + rule.breach_s)]
    if blind:
        cure = "lengthen the window or lower min_events"
        said.append(f"unknown for more than half of the time, so few firings prove little: {', '.join(blind)}; {cure}")
    outside = len(incidents) - len(in_log)
    if outside:
        said.append(f"{outside} of {len(incidents)} marked incidents lie outside the log")
    return Report(
        rules=rules,
        incidents=tuple(incidents),
        missed=tuple(place for place in in_log if place not in found),
        log_days=(traffic.last_s - traffic.first_s) / DAY_S,
        healthy_days=healthy_days,
        false_per_month=per_month(sum(len(rule.false_firings) for rule in rules), healthy_days),
        exchange_count=traffic.exchange_count,
        notes=tuple(said),
    )


def incident_of(firing: Firing, incidents: Sequence[Incident]) -> int | None:
    """Place of the first incident that a firing falls into."""
    return next((place for place, incident in enumerate(incidents) if incident.overlaps(firing)), None)


def _result(lanes: Sequence[Lane], incidents: Sequence[Incident], healthy_days: float) -> RuleResult:
    firings = tuple(sorted((f for lane in lanes for f in lane.firings), key=lambda f: f.start_s))
    false = tuple(f for f in firings if incident_of(f, incidents) is None)
    delays: list[tuple[int, float]] = []
    for place, incident in enumerate(incidents):
        starts = [f.start_s for f in firings if incident.overlaps(f)]
        if starts:
            delays.append((place, max(0.0, min(starts) - incident.from_s)))
    return RuleResult(
        rule=lanes[0].rule,
        ok_s=sum(lane.ok_s for lane in lanes),
        breach_s=sum(lane.breach_s for lane in lanes),
        unknown_s=sum(lane.unknown_s for lane in lanes),
        firings=firings,
        false_firings=false,
        found=tuple(delays),
        false_per_month=per_month(len(false), healthy_days),
    )


# For machines


def as_json(report: Report) -> dict[str, Any]:
    """Return the report for `--json`. Values are in the indicator's inside unit: ratios, seconds, USD."""
    firings = sorted((f for rule in report.rules for f in rule.firings), key=lambda f: (f.start_s, f.rule.slo.name))
    return {
        "firings": [_firing_json(f, report.incidents) for f in firings],
        "false_alarms_per_month": _short(report.false_per_month.estimate),
        "false_alarms_per_month_95": _interval_json(report.false_per_month),
        "false_alarm_count": sum(len(rule.false_firings) for rule in report.rules),
        "missed_incidents": [_incident_json(report.incidents[place]) for place in report.missed],
        "incidents": [
            {
                **_incident_json(incident),
                "missed": place in report.missed,
                "found_by": [
                    {"rule": rule.rule.slo.name, "delay_s": delay_s}
                    for rule in report.rules
                    for at, delay_s in rule.found
                    if at == place
                ],
            }
            for place, incident in enumerate(report.incidents)
        ],
        "rules": [_rule_json(rule) for rule in report.rules],
        "log_days": round(report.log_days, 3),
        "healthy_days": round(report.healthy_days, 3),
        "exchange_count": report.exchange_count,
        "notes": list(report.notes),
    }


def _firing_json(firing: Firing, incidents: Sequence[Incident]) -> dict[str, Any]:
    slo, verdict = firing.rule.slo, firing.verdict
    place = incident_of(firing, incidents)
    reading = verdict.reading
    return {
        "rule": slo.name,
        "indicator": slo.indicator,
        "action": slo.action.value,
        "release": firing.release,
        "arm": firing.arm,
        "since": iso(firing.since_s),
        "start": iso(firing.start_s),
        "end": None if firing.end_s is None else iso(firing.end_s),
        "duration_s": None if firing.end_s is None else round(firing.end_s - firing.start_s, 3),
        "fast": verdict.fast,
        "value": verdict.value,
        "threshold": verdict.threshold,
        "bound": verdict.bound,
        "unit": INDICATORS[slo.indicator].unit,
        "bad_count": reading.bad_count if reading else None,
        "count": reading.count if reading else None,
        "reason": verdict.reason,
        "worst": firing.worst.reason,
        "evidence": dict(verdict.evidence),
        "false_alarm": place is None,
        "incident": None if place is None else incidents[place].name or iso(incidents[place].from_s),
    }


def _rule_json(result: RuleResult) -> dict[str, Any]:
    slo, limit = result.rule.slo, result.rule.limits[0]
    return {
        "name": slo.name,
        "indicator": slo.indicator,
        "action": slo.action.value,
        "limit": limit.value,
        "limit_source": limit.source if limit.value is not None else limit.reason,
        "firing_count": len(result.firings),
        "false_alarm_count": len(result.false_firings),
        "false_alarms_per_month": _short(result.false_per_month.estimate),
        "false_alarms_per_month_95": _interval_json(result.false_per_month),
        "ok_s": result.ok_s,
        "breach_s": result.breach_s,
        "unknown_s": result.unknown_s,
    }


def _incident_json(incident: Incident) -> dict[str, Any]:
    return {"name": incident.name, "from": iso(incident.from_s), "to": iso(incident.to_s)}


def _interval_json(interval: Interval) -> list[float | None]:
    return [_short(interval.low), None if interval.high == float("inf") else _short(interval.high)]


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def iso(wall_s: float) -> str:
    """A moment in UTC, to the second, as ISO 8601.

    >>> iso(1750000000.0)
    '2025-06-15T15:06:40Z'
    """
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# For people


def as_text(report: Report, service: str, most: int = 20) -> str:
    """Return the report as a page; `most` firings are listed."""
    lines = [
        f"{service}: {len(report.rules)} rules over {report.log_days:.1f} days, {report.exchange_count} exchanges"
        + (
            f", {len(report.incidents)} incident{'s' if len(report.incidents) > 1 else ''} marked"
            if report.incidents
            else ""
        ),
        "",
        *_table(report),
        "",
        f"false alarms a month, all rules: {_shown_rate(report.false_per_month)}",
    ]
    firings = sorted((f for rule in report.rules for f in rule.firings), key=lambda f: f.start_s)
    if firings:
        lines += ["", "would have fired:"]
        for firing in firings[:most]:
            lines += _firing_lines(firing, report.incidents)
        if len(firings) > most:
            lines.append(f"  ... and {len(firings) - most} more (all with --json)")
    if report.incidents:
        lines += ["", "incidents:", *_incident_lines(report)]
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join(lines)


def _table(report: Report) -> list[str]:
    rows: list[tuple[str, ...]] = [
        ("rule", "action", "limit", "fired", "false", "false/month (95 %)", "ok", "breach", "unknown")
    ]
    for result in report.rules:
        slo, limit = result.rule.slo, result.rule.limits[0]
        seconds = result.ok_s + result.breach_s + result.unknown_s
        shares = (show_ratio(round(s / seconds, 5)) if seconds else "-" for s in _seconds(result))
        shown = show_value(INDICATORS[slo.indicator], limit.value)
        if len(result.rule.limits) > 1:
            shown = "by hour"
        counts = (str(len(result.firings)), str(len(result.false_firings)), _shown_rate(result.false_per_month))
        rows.append((slo.name, slo.action.value, shown, *counts, *shares))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _seconds(result: RuleResult) -> tuple[float, float, float]:
    return result.ok_s, result.breach_s, result.unknown_s


def _shown_rate(rate: Interval) -> str:
    if rate.estimate == 0:
        return "0 (any number)" if rate.high == float("inf") else f"0 (under {rate.high:.2g})"
    return f"{rate.estimate:.3g} ({rate.low:.2g} to {rate.high:.2g})"


def _firing_lines(firing: Firing, incidents: Sequence[Incident]) -> list[str]:
    place = incident_of(firing, incidents)
    mark = "false alarm" if place is None else f"incident {incidents[place].name or iso(incidents[place].from_s)}"
    lasted = "still firing at the end" if firing.end_s is None else show_duration(firing.end_s - firing.start_s)
    reason = firing.verdict.reason
    return [
        f"  {iso(firing.start_s)}  {firing.rule.slo.name} ({firing.rule.slo.action.value}) on {firing.arm} "
        f"{firing.release}, {lasted}, {'fast path, ' if firing.verdict.fast else ''}{mark}",
        f"      {reason}",
    ]


def _incident_lines(report: Report) -> list[str]:
    lines = []
    for place, incident in enumerate(report.incidents):
        found = sorted((d, r.rule.slo.name) for r in report.rules for at, d in r.found if at == place)
        said = ", ".join(f"{name} after {show_duration(delay_s) if delay_s else '0s'}" for delay_s, name in found)
        if not found:
            said = "MISSED: no rule fired" if place in report.missed else "outside the log"
        name = f"{incident.name}: " if incident.name else ""
        lines.append(f"  {name}{iso(incident.from_s)} to {iso(incident.to_s)}: {said}")
    return lines
