"""What the admin listener asks of the guard, and the shapes it answers in. `guard.wiring` implements the port.

Every dataclass here is a JSON object on the wire, field for field: snake_case, units in the names, None = unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from guard.probing.results import ProbeRow
from guard.quality_rows import IntentRow, UserRow
from guard.release.aftermath import Aftermath
from guard.release.incident import Difference, Evidence, Exemplar, TimelineEntry


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the process. status: ok | degraded | off."""

    name: str
    status: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """The process lives. status: ok, or degraded when a part fails open."""

    status: str
    version: str
    uptime_s: float
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the data listener takes traffic, and why not."""

    ready: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One objective of the canary beside stable since the rollout began, or of stable since its promotion.

    e_value: evidence for harm, a fail at `e_needed`; None for scores. harm_low, harm_high: how much worse it is at
    least and at most, share of events or score. figures: all of them as text.
    """

    result: str  # pass | fail | inconclusive | unknown
    reason: str
    e_value: float | None
    e_needed: float | None
    harm_low: float | None
    harm_high: float | None
    figures: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SloRow:
    """One objective for one release. value, threshold, bound: in `unit` (ratio, seconds, usd)."""

    slo: str
    indicator: str
    release: str
    arm: str
    state: str  # ok | breach | unknown
    firing: bool
    value: float | None
    threshold: float | None
    bound: float | None
    unit: str
    window_s: float
    events_count: int
    min_events_count: int
    action: str
    reason: str
    fast: bool = False
    budget_remaining_ratio: float | None = None
    comparison: ComparisonRow | None = None


@dataclass(frozen=True, slots=True)
class SloReport:
    """All objectives as they stood at the last evaluation; evaluated_wall_s None: not yet."""

    service: str
    evaluated_wall_s: float | None
    objectives: tuple[SloRow, ...]


@dataclass(frozen=True, slots=True)
class VersionView:
    """A release: its name, its short id and its five parts."""

    name: str
    release: str
    model: str = ""
    adapter: str = ""
    kb: str = ""
    prompt: str = ""
    policy: str = ""


@dataclass(frozen=True, slots=True)
class CorrectedRow:
    """Hallucination rate of a release as people's labels correct it; shares. rate, low, high None: too few labels."""

    name: str
    release: str
    measured_ratio: float | None
    label_count: int
    label_needed_count: int
    rate_ratio: float | None = None
    low_ratio: float | None = None
    high_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What the last evaluation came to. rule: the one that spoke, "" when none is in breach."""

    wall_s: float
    action: str  # hold | advance | shed | roll_back
    verdict: str  # breach | unknown | ok, the gravest of all rules; "" when nothing was judged
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Deed:
    """What changed the release last. actor: `guard`, or a person and the id of the token."""

    wall_s: float
    action: str  # start | advance | promote | abort | rollback | pause | resume | shed | hold
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseStatus:
    """Who answers, how far the canary is, and what is holding it."""

    service: str
    mode: str  # observe | recommend | enforce
    phase: str  # idle | rolling_out | paused | rolling_back | rolled_back | promoted
    advance: str  # manual | auto
    stable: VersionView
    canary: VersionView | None
    previous: VersionView | None
    canary_ratio: float
    stage_number: int  # 1 is the first; 0 without a canary
    stage_count: int
    stage_held_s: float
    stage_hold_s: float
    stage_events_count: int
    stage_min_events_count: int
    epoch: int
    cache_epoch: int
    reason: str = ""
    recommendation: str = ""
    incident_id: str = ""
    conditions: tuple[str, ...] = ()
    rollbacks_24h_count: int = 0
    shedding: bool = False
    hallucination: tuple[CorrectedRow, ...] = ()
    last_judged: Judged | None = None
    last_deed: Deed | None = None


@dataclass(frozen=True, slots=True)
class ReleaseCommand:
    """What a person asks of the release; fields a command does not know are empty."""

    version: str = ""
    plan: str = ""
    advance: Literal["", "manual", "auto"] = ""
    reason: str = ""
    actor: str = ""
    force: bool = False
    expected_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A command was carried out. mttr_s: of a drill."""

    message: str
    status: ReleaseStatus
    incident_id: str = ""
    mttr_s: float | None = None


@dataclass(frozen=True, slots=True)
class FindingRow:
    """What one check said."""

    check: str
    result: str
    score: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ExchangeRow:
    """One recent exchange: numbers and labels, no words."""

    exchange_id: str
    wall_s: float
    route: str
    release: str
    arm: str
    outcome: str
    status: int
    reason: str
    duration_s: float
    first_token_s: float | None
    stream: bool
    cache: str
    input_tokens: int | None
    output_tokens: int | None
    usage: str
    cost_usd: float | None
    findings: tuple[FindingRow, ...] = ()


@dataclass(frozen=True, slots=True)
class ExchangeList:
    """Newest first."""

    exchanges: tuple[ExchangeRow, ...]


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """One incident in the list. closed_wall_s None: open."""

    id: str
    kind: str
    title: str
    opened_wall_s: float
    closed_wall_s: float | None
    automatic: bool


@dataclass(frozen=True, slots=True)
class IncidentClosed:
    """An incident is closed. changed: it was open before."""

    id: str
    message: str
    closed_wall_s: float
    changed: bool


@dataclass(frozen=True, slots=True)
class IncidentList:
    """Newest first."""

    incidents: tuple[IncidentRow, ...]


@dataclass(frozen=True, slots=True)
class IncidentDetail:
    """One incident with its evidence."""

    id: str
    kind: str
    title: str
    service: str
    opened_wall_s: float
    closed_wall_s: float | None
    automatic: bool
    actor: str
    rule: str
    reason: str
    bad: VersionView
    target: VersionView
    epoch: int
    pointer: str
    timeline: tuple[TimelineEntry, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    differences: tuple[Difference, ...] = ()
    exemplars: tuple[Exemplar, ...] = ()
    notes: tuple[str, ...] = ()
    aftermath: Aftermath | None = None


@dataclass(frozen=True, slots=True)
class DriftRow:
    """Drift of one component. score: effect size, in spreads of ordinary windows; None: not measured.

    state: unavailable | learning | steady | signal | alarm. clusters: the questions that moved most, redacted.
    """

    release: str
    component: str
    score: float | None
    state: str = "unknown"
    reason: str = ""
    clusters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What users make of the answers since the start, and what the last round of probes found."""

    intents: tuple[IntentRow, ...] = ()
    users: tuple[UserRow, ...] = ()
    probes: tuple[ProbeRow, ...] = ()
    probes_note: str = ""


@dataclass(frozen=True, slots=True)
class DriftReport:
    """All components of all releases in traffic."""

    components: tuple[DriftRow, ...]


@dataclass(frozen=True, slots=True)
class BaselineValue:
    """One indicator of the baseline."""

    indicator: str
    count: int
    quantiles: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class BaselineInfo:
    """The baseline in use. present False: none, and `reason` says why and what to do."""

    present: bool
    reason: str = ""
    hash: str = ""
    created_wall_s: float | None = None
    expires_wall_s: float | None = None
    window_s: float | None = None
    forced: bool = False
    values: tuple[BaselineValue, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigView:
    """The running configuration. settings: guard.yaml as read, secrets removed."""

    hash: str
    path: str
    last_reload_ok: bool
    last_reload_wall_s: float | None
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AlertIn:
    """One alert of Alertmanager. (fingerprint, starts_at, status) is what makes it the same alert again."""

    fingerprint: str
    status: str  # firing | resolved
    starts_at: str  # RFC 3339, as sent
    ends_at: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    generator_url: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Equal keys are one alert, however often it is sent."""
        return self.fingerprint, self.starts_at, self.status


@dataclass(frozen=True, slots=True)
class AlertBatch:
    """One delivery of Alertmanager."""

    receiver: str
    group_key: str
    status: str
    truncated_count: int
    alerts: tuple[AlertIn, ...]


@dataclass(frozen=True, slots=True)
class AlertsStored:
    """How many of a delivery were new, how many were known, and how many the sender left out (`max_alerts`)."""

    stored_count: int
    duplicate_count: int
    truncated_count: int = 0


@dataclass(frozen=True, slots=True)
class GateData:
    """pass: advance. fail: roll back. inconclusive: hold."""

    verdict: Literal["pass", "fail", "inconclusive"]
    reason: str = ""
    release: str = ""


@dataclass(frozen=True, slots=True)
class Gate:
    """In the form that the web metric of Argo Rollouts reads: `{$.data.verdict}`."""

    data: GateData


@dataclass(frozen=True, slots=True)
class Course:
    """One objective of one release over the last hour. points: (Unix seconds, value), shares of bad events or means.

    limit: what the points are held against; None while unknown.
    """

    slo: str
    release: str
    arm: str
    limit: float | None
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class History:
    """All objectives of the releases in traffic."""

    courses: tuple[Course, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """What was said in one exchange, redacted as in the exchange log."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Stats:
    """Sizes of what is bounded, for people who look for the tight one."""

    values: Mapping[str, float]


class AdminBackend(Protocol):
    """The guard as the admin listener sees it. Plain methods answer from memory; `async` ones may touch a disk.

    Raises (any method): RefusedError: understood and not allowed now. ConfigError: a value in the request is wrong.
    SourceError, UpstreamError, OSError: something needed cannot be reached.
    """

    async def metrics(self, *, openmetrics: bool) -> bytes: ...
    def health(self) -> Health: ...
    def ready(self) -> Readiness: ...
    def slo(self) -> SloReport: ...
    def release_status(self) -> ReleaseStatus: ...

    async def release_command(self, name: str, body: ReleaseCommand, actor: str) -> CommandResult:
        """Carry out start | promote | abort | rollback | pause | resume | drill; `actor` is for the audit."""
        ...

    def exchanges(self, limit: int) -> ExchangeList: ...
    async def incidents(self) -> IncidentList: ...

    async def incident(self, incident_id: str) -> IncidentDetail | None:
        """None: there is no such incident."""
        ...

    async def close_incident(self, incident_id: str, reason: str, actor: str) -> IncidentClosed:
        """Raises RefusedError: `unknown_incident`, or `busy` while its rollback is not finished."""
        ...

    async def postmortem(self, incident_id: str) -> str | None:
        """Markdown, or None: there is no such incident."""
        ...

    def drift(self) -> DriftReport: ...
    def quality(self) -> QualityReport: ...
    def baseline(self) -> BaselineInfo: ...
    def config(self) -> ConfigView: ...

    async def alerts_in(self, batch: AlertBatch) -> AlertsStored:
        """Store the alerts durably, duplicates by `AlertIn.key` left out, before returning."""
        ...

    def gate(self, release: str) -> Gate:
        """Verdict on `release` (name or short id; empty: the canary)."""
        ...

    def stats(self) -> Stats: ...

    def history(self) -> History:
        """May take some milliseconds: call it beside the loop."""
        ...

    def exchange_words(self, exchange_id: str) -> Words | None:
        """None: too long ago, or no words are kept."""
        ...

    async def saved_usd(self) -> float | None:
        """What the cache saved today; None without a cache."""
        ...
