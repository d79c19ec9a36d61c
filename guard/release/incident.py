"""What happened, with the evidence, as one record: for the webhook, the console and the post-mortem.

Facts only. Causes and follow-ups are left to people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256

from guard.release.aftermath import Aftermath, Recovery
from slo.metric_names import INDICATORS
from slo.types import State, Verdict, Version


class IncidentKind(StrEnum):
    """Closed set: part of webhooks, alerts and file names."""

    ROLLBACK = "rollback"
    NO_TARGET = "no_target"
    SHARED_UPSTREAM = "shared_upstream"
    PAGE = "page"  # a rule with `action: page` fires; `rule` says which
    CONDITION = "condition"  # the guard cannot do its work; `rule` says why: a word of `state.Condition`
    DRILL = "drill"


STANDING = frozenset({IncidentKind.SHARED_UPSTREAM, IncidentKind.PAGE, IncidentKind.CONDITION})
"""Nothing was moved; they close by themselves when what they tell of is over."""


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One moment. wall_s: Unix seconds."""

    wall_s: float
    what: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """One verdict as it stood, in the indicator's own unit. None: not measured.

    interval: one-sided 95 % bound and the side it bounds from, as (low, high) with None for the open side.
    """

    rule: str
    indicator: str
    release: str
    state: str
    window_s: float
    n: int
    bad_count: int
    estimate: float | None
    interval: tuple[float | None, float | None]
    threshold: float | None
    reason: str
    fast: bool = False
    baseline_hash: str = ""
    more: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """One part of the release tuple, or one detail of it, that is not the same in both versions."""

    part: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One bad answer to look at."""

    exchange_id: str
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident. closed_s None: open.

    bad: the version that it is about. target: what was returned to; of a standing incident, the stable version.
    began_s: of a rollback, when the rollout of `bad` took effect here; None while unknown.
    mttr_s: of a rehearsal that passed, how long it took until every receiver was told; None for all others.
    """

    incident_id: str
    kind: IncidentKind
    service: str
    opened_s: float
    rule: str
    reason: str
    bad: Version
    target: Version
    epoch: int
    automatic: bool = True
    actor: str = "guard"
    outbox_id: str = ""
    closed_s: float | None = None
    # pending | at_target | no_target | elsewhere | superseded | local (there is no registry) | untouched
    pointer: str = "pending"
    timeline: tuple[TimelineEntry, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    differences: tuple[Difference, ...] = ()
    exemplars: tuple[Exemplar, ...] = ()
    notes: tuple[str, ...] = field(default=())
    aftermath: Aftermath | None = None
    began_s: float | None = None
    mttr_s: float | None = None

    @property
    def drill(self) -> bool:
        """A rehearsal: no traffic was touched."""
        return self.kind is IncidentKind.DRILL


def rule_of(verdicts: tuple[Verdict, ...]) -> str:
    """Name of the rule that spoke: the first that fires, else the first in breach, else `none`."""
    breaches = [v for v in verdicts if v.state is State.BREACH]
    firing = [v for v in breaches if v.firing]
    return (firing or breaches)[0].slo.name if breaches else "none"


def stable_id(rule: str, version: str, epoch: int) -> str:
    """Hash that every replica and every retry arrives at for the same decision.

    >>> stable_id("hallucination", "v1.2.1", 7) == stable_id("hallucination", "v1.2.1", 7)
    True
    """
    return sha256("\x1f".join((rule, version, str(epoch))).encode()).hexdigest()[:24]


def note(incident: Incident, wall_s: float, what: str) -> Incident:
    """Add a moment to the timeline; the same words twice are one moment, so a repeated step leaves one line."""
    if any(entry.what == what for entry in incident.timeline):
        return incident
    return replace(incident, timeline=(*incident.timeline, TimelineEntry(wall_s, what)))


def evidence_of(verdict: Verdict) -> Evidence:
    """Freeze what a verdict rested on."""
    reading, slo = verdict.reading, verdict.slo
    known = dict(verdict.evidence)
    low = verdict.bound if _worse_up(slo.indicator) else None
    high = None if _worse_up(slo.indicator) else verdict.bound
    return Evidence(
        rule=slo.name,
        indicator=slo.indicator,
        release=verdict.release,
        state=str(verdict.state),
        window_s=(slo.fast.window if verdict.fast and slo.fast else slo.window).length_s,
        n=reading.count if reading else 0,
        bad_count=reading.bad_count if reading else 0,
        estimate=verdict.value,
        interval=(low, high),
        threshold=verdict.threshold,
        reason=verdict.reason,
        fast=verdict.fast,
        baseline_hash=known.get("baseline_hash", ""),
        more=tuple(pair for pair in verdict.evidence if pair[0] != "baseline_hash"),
    )


def diff_versions(
    before: Version,
    after: Version,
    before_details: Mapping[str, str] | None = None,
    after_details: Mapping[str, str] | None = None,
) -> tuple[Difference, ...]:
    """What changed between two versions: parts of the tuple first, then details by name (a KB profile, say).

    >>> [d.part for d in diff_versions(Version("v1.2.0", kb="600/100"), Version("v1.2.1", kb="350/50"))]
    ['kb']
    """
    parts = [
        Difference(part, getattr(before, part), getattr(after, part))
        for part in ("model", "adapter", "kb", "prompt", "policy")
        if getattr(before, part) != getattr(after, part)
    ]
    old, new = dict(before_details or {}), dict(after_details or {})
    details = [
        Difference(name, old.get(name, ""), new.get(name, ""))
        for name in sorted(old.keys() | new.keys())
        if old.get(name, "") != new.get(name, "")
    ]
    return (*parts, *details)


def postmortem(incident: Incident) -> str:
    """Markdown with every fact filled in; what only people know is left open.

    All text from outside is escaped: it is shown, never interpreted.
    """
    lasted = "open" if incident.closed_s is None else f"{incident.closed_s - incident.opened_s:.0f} s"
    title = "Drill" if incident.drill else "Incident"
    standing = incident.kind in STANDING
    lines = [
        f"# {title} {_md(incident.incident_id)}: {_md(incident.kind)} of {_md(incident.bad.name)}",
        "",
        "| | |",
        "|---|---|",
        f"| service | {_md(incident.service)} |",
        f"| began | {utc(incident.opened_s)} |",
        *_since(incident),
        f"| lasted | {lasted} |",
        f"| {'about' if standing else 'taken out'} | {_md(incident.bad.name)} ({incident.bad.release_id}) |",
        f"| {'stable' if standing else 'returned to'} | {_md(incident.target.name)} ({incident.target.release_id}) |",
        f"| registry pointer | {_md(incident.pointer)} |",
        f"| decided by | {_md(incident.actor)}{', automatically' if incident.automatic else ''} |",
        f"| reason | {_md(incident.reason)} |",
        "",
        "## Timeline",
        "",
    ]
    lines += [f"- {utc(e.wall_s)} {_md(e.what)}" for e in incident.timeline] or ["- nothing was recorded"]
    if not standing:
        lines += ["", "## Did it help?", "", _helped(incident)]
    lines += ["", "## Evidence", ""]
    if incident.evidence:
        lines += [
            "| rule | state | window | bad of n | estimate | bound | threshold | why |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [_evidence_row(e) for e in incident.evidence]
    else:
        lines.append("No rule spoke." if standing else "No rule spoke; a person decided.")
    lines += ["", "## What changed between the versions", ""]
    if incident.differences:
        lines += ["| part | before | after |", "|---|---|---|"]
        lines += [f"| {_md(d.part)} | {_md(d.before)} | {_md(d.after)} |" for d in incident.differences]
    else:
        lines.append("Nothing that the release tuple records.")
    lines += ["", "## Answers to look at", ""]
    lines += [
        f"- exchange `{_code(x.exchange_id)}`" + (f", trace `{_code(x.trace_id)}`" if x.trace_id else "")
        for x in incident.exemplars
    ] or ["- none were kept"]
    lines += ["", "## Causes", "", "_To be written by people._", "", "## Follow-ups", "", "- [ ] _owner, date_", ""]
    return "\n".join(lines)


def _since(incident: Incident) -> list[str]:
    since_s = incident.aftermath.since_s if incident.aftermath else None
    if since_s is None:
        return []
    return [f"| bad since | {utc(since_s)}, {incident.opened_s - since_s:.0f} s before the verdict |"]


def _helped(incident: Incident) -> str:
    if incident.drill:
        return "A rehearsal: no traffic was touched."
    after = incident.aftermath
    if after is None or after.recovery is Recovery.PENDING:
        return "Not known yet: too little was asked since. Look again in some minutes."
    return _md(after.words)


def _evidence_row(e: Evidence) -> str:
    bound = next((b for b in e.interval if b is not None), None)
    baseline = f" (baseline {e.baseline_hash[:12]})" if e.baseline_hash else ""
    cells = (
        e.rule,
        e.state,
        f"{e.window_s:g} s{' (fast)' if e.fast else ''}",
        f"{e.bad_count} of {e.n}",
        _number(e.estimate),
        _number(bound),
        _number(e.threshold) + baseline,
        e.reason,
    )
    return "| " + " | ".join(_md(cell) for cell in cells) + " |"


def _worse_up(indicator: str) -> bool:
    known = INDICATORS.get(indicator)
    return known is None or known.worse == "up"  # of an unknown name "larger is worse" is the cautious reading


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def utc(wall_s: float) -> str:
    """A moment as people write it in a report."""
    return datetime.fromtimestamp(wall_s, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _md(text: object) -> str:
    """One line of Markdown text that cannot become markup, a link or HTML."""
    line = " ".join(str(text).split())
    for char in "\\`*_[]<>|#!":
        line = line.replace(char, "\\" + char)
    return line


def _code(text: str) -> str:
    return "".join(char for char in text if char.isalnum() or char in "-_.:")[:100]
