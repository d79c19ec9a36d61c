"""From the guard's own types to the shapes of the admin API. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from guard.admin.shapes import (
    ComparisonRow,
    Course,
    Deed,
    ExchangeRow,
    FindingRow,
    IncidentDetail,
    IncidentRow,
    Judged,
    SloRow,
    VersionView,
)
from guard.release.incident import Incident
from guard.release.report import ReleaseStatus as Status
from slo.evaluation import allowed_share
from slo.history import Point, thinned
from slo.metric_names import INDICATORS
from slo.types import Comparison, Exchange, Verdict, Version

COURSE_POINTS = 60


def version_view(version: Version) -> VersionView:
    """A release for people: its parts beside its id."""
    return VersionView(
        version.name, version.release_id, version.model, version.adapter, version.kb, version.prompt, version.policy
    )


def slo_row(verdict: Verdict, arm: str, budget_remaining_ratio: float | None = None) -> SloRow:
    """One verdict as a row of the table."""
    slo = verdict.slo
    indicator = INDICATORS.get(slo.indicator)
    return SloRow(
        slo=slo.name,
        indicator=slo.indicator,
        release=verdict.release,
        arm=arm,
        state=verdict.state.value,
        firing=verdict.firing,
        value=verdict.value,
        threshold=verdict.threshold,
        bound=verdict.bound,
        unit=indicator.unit if indicator else "",
        window_s=slo.window.length_s,
        events_count=verdict.reading.count if verdict.reading else 0,
        min_events_count=slo.min_events,
        action=slo.action.value,
        reason=verdict.reason,
        fast=verdict.fast,
        budget_remaining_ratio=budget_remaining_ratio,
        comparison=comparison_row(verdict.comparison) if verdict.comparison else None,
    )


def comparison_row(comparison: Comparison) -> ComparisonRow:
    """What canary against stable says of one objective."""
    return ComparisonRow(
        comparison.result.value,
        comparison.reason,
        comparison.e_value,
        comparison.e_needed,
        comparison.harm_low,
        comparison.harm_high,
        dict(comparison.evidence),
    )


def course(verdict: Verdict, arm: str, points: Sequence[Point]) -> Course:
    """An objective over time for a small picture: shares of bad events, or means."""
    indicator = INDICATORS.get(verdict.slo.indicator)
    limit = verdict.threshold
    if limit is not None and indicator is not None and indicator.kind != "mean":
        limit = allowed_share(indicator, limit)
    shown = tuple((p.wall_s, p.value) for p in thinned([p for p in points if p.count], COURSE_POINTS))
    return Course(verdict.slo.name, verdict.release, arm, limit, shown)


def exchange_row(exchange: Exchange) -> ExchangeRow:
    """One exchange without its words."""
    return ExchangeRow(
        exchange_id=exchange.exchange_id,
        wall_s=exchange.wall_s,
        route=exchange.route,
        release=exchange.release,
        arm=exchange.arm,
        outcome=exchange.outcome.value,
        status=exchange.status,
        reason=exchange.reason,
        duration_s=exchange.duration_s,
        first_token_s=exchange.first_token_s,
        stream=exchange.stream,
        cache=exchange.cache.value,
        input_tokens=exchange.input_tokens,
        output_tokens=exchange.output_tokens,
        usage=exchange.usage,
        cost_usd=exchange.cost_usd,
        findings=tuple(FindingRow(f.check, f.result.value, f.score, f.reason) for f in exchange.findings),
    )


def last_judged(status: Status, wall_s: float) -> Judged | None:
    """What the last evaluation came to; None before the first one."""
    said = status.judged
    return None if said is None else Judged(wall_s - said.ago_s, said.action, said.verdict, said.rule, said.reason)


def last_deed(status: Status) -> Deed | None:
    """What changed the release last; None when nothing ever did."""
    line = status.last_deed
    return None if line is None else Deed(line.wall_s, line.action, line.actor, line.detail)


def incident_title(incident: Incident) -> str:
    """One line that says what happened."""
    words = {
        "rollback": f"{incident.bad.name} rolled back to {incident.target.name}",
        "no_target": f"{incident.bad.name} taken out of traffic; nothing to go back to",
        "shared_upstream": f"{incident.bad.name} and {incident.target.name} breach together",
        "page": f"a rule of {incident.bad.name} wants a person",
        "condition": f"{incident.rule} of {incident.bad.name}",
        "drill": f"drill: {incident.bad.name} rolled back to {incident.target.name}",
    }
    what = words.get(incident.kind.value, incident.kind.value)
    return f"{what} ({incident.rule})" if incident.rule else what


def incident_row(incident: Incident) -> IncidentRow:
    """One incident in the list."""
    return IncidentRow(
        incident.incident_id,
        incident.kind.value,
        incident_title(incident),
        incident.opened_s,
        incident.closed_s,
        incident.automatic,
        incident.mttr_s,
    )


def incident_detail(incident: Incident) -> IncidentDetail:
    """One incident with its evidence."""
    return IncidentDetail(
        id=incident.incident_id,
        kind=incident.kind.value,
        title=incident_title(incident),
        service=incident.service,
        opened_wall_s=incident.opened_s,
        closed_wall_s=incident.closed_s,
        automatic=incident.automatic,
        actor=incident.actor,
        rule=incident.rule,
        reason=incident.reason,
        bad=version_view(incident.bad),
        target=version_view(incident.target),
        epoch=incident.epoch,
        pointer=incident.pointer,
        timeline=incident.timeline,
        evidence=incident.evidence,
        differences=incident.differences,
        exemplars=incident.exemplars,
        notes=incident.notes,
        aftermath=incident.aftermath,
    )
