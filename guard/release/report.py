"""What the controller answers to commands: frozen results for the CLI, the admin API and the console."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from guard.release.incident import Incident, rule_of
from guard.release.records import AuditLine
from guard.release.state import Condition, Phase, ReleaseState, recent_rollbacks
from slo.types import Action, State, Verdict


@dataclass(frozen=True, slots=True)
class Judged:
    """What the last evaluation came to, whatever a person did since. rule: the one that spoke, "" without a breach."""

    ago_s: float
    action: str
    verdict: str
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseStatus:
    """The release as a person wants to see it. Durations in seconds, ratios 0..1.

    registry: ok | unreachable | refused | none. journal: ok | disk_full | disk_fault | busy. pending: what is still
    owed to the registry: "" | rollback | control | pointer.
    """

    service: str
    mode: str
    phase: str
    stable: str
    canary: str
    previous: str
    canary_ratio: float
    stage: int
    stage_count: int
    stage_weights: tuple[float, ...]
    stage_held_s: float
    stage_hold_s: float
    stage_events: int
    stage_min_events: int
    advance: str
    epoch: int
    cache_epoch: int
    incident_id: str
    rollbacks_24h: int
    rollbacks_allowed: int
    conditions: tuple[str, ...]
    recommendation: str
    shedding: bool
    last_action: str
    last_reason: str
    last_judged_ago_s: float | None
    judged: Judged | None
    last_deed: AuditLine | None
    verdicts: tuple[Verdict, ...]
    registry: str
    journal: str
    pending: str
    outbox_waiting_count: int


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A command was carried out. `message` is one line for a person."""

    command: str
    message: str
    status: ReleaseStatus
    incident_id: str = ""


@dataclass(frozen=True, slots=True)
class DrillResult:
    """A rehearsed rollback. mttr_s: from the verdict to the last receiver told; None when one was not reached.

    Each figure is seconds since the verdict. passed: all steps done within `target_s`.
    """

    incident_id: str
    passed: bool
    mttr_s: float | None
    target_s: float
    weight_zero_s: float
    done_s: float
    webhook_s: float | None
    pointer: str
    steps: tuple[tuple[str, float], ...]
    message: str


Last = tuple[Action, tuple[Verdict, ...], float]


def _nothing(*_words: object) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Hooks:
    """Who is told what, so that the controller knows no exporter. All are called on the event loop; none may block.

    on_rollback(rule, automatic), on_alert(condition or word, sentence), on_recommendation(sentence),
    on_incident(incident) when one opens or changes, on_state(state) after every change,
    on_new_life(canary, life) before a rollout takes effect here, whoever began it: nothing of an earlier one counts any
    more. life: a number that every replica has for it.
    """

    on_rollback: Callable[[str, bool], None] = _nothing
    on_alert: Callable[[Condition | str, str], None] = _nothing
    on_recommendation: Callable[[str], None] = _nothing
    on_incident: Callable[[Incident], None] = _nothing
    on_state: Callable[[ReleaseState], None] = _nothing
    on_new_life: Callable[[str, int], None] = _nothing


def alert_line(condition: Condition | str, text: str) -> str:
    """What the log says of an alert. An action's reason may begin with the condition itself, which is then said once.

    >>> alert_line(Condition.NO_TARGET, "no_target: stable was not promoted lately")
    'no_target: stable was not promoted lately'
    >>> alert_line("rollback_pending", "weight is 0 here; registry or journal did not take it yet")
    'rollback_pending: weight is 0 here; registry or journal did not take it yet'
    """
    return text if text.partition(":")[0] == condition else f"{condition}: {text}"


def _judged(last: Last | None, now_s: float) -> Judged | None:
    if last is None:
        return None
    action, verdicts, judged_s = last
    spoke = action.verdicts or verdicts
    rule = rule_of(spoke)
    said = "" if rule == "none" else rule
    return Judged(now_s - judged_s, action.kind.value, worst_of(spoke), said, action.reason)


def worst_of(verdicts: tuple[Verdict, ...]) -> str:
    """The gravest state among verdicts: breach, unknown, ok; "" without any."""
    said = {verdict.state for verdict in verdicts}
    return next((state.value for state in (State.BREACH, State.UNKNOWN, State.OK) if state in said), "")


def status_of(
    state: ReleaseState,
    last: Last | None,
    *,
    now_s: float,
    wall_s: float,
    registry: str,
    journal: str,
    pending: str,
    outbox_waiting_count: int,
    rollbacks_allowed: int,
    judged: Last | None = None,
    last_deed: AuditLine | None = None,
) -> ReleaseStatus:
    """Put the status together.

    last: what was decided last, also by a person; judged: by an evaluation. Each with verdicts and monotonic second.
    """
    stage = state.plan.stages[min(state.stage, len(state.plan.stages) - 1)]
    rolling = state.phase in (Phase.ROLLING_OUT, Phase.PAUSED)
    action, verdicts, judged_s = last or (None, (), None)
    return ReleaseStatus(
        service=state.service,
        mode=state.mode.value,
        phase=state.phase.value,
        stable=state.stable,
        canary=state.canary,
        previous=state.previous,
        canary_ratio=state.canary_ratio,
        stage=state.stage,
        stage_count=len(state.plan.stages),
        stage_weights=tuple(s.weight for s in state.plan.stages),
        stage_held_s=now_s - state.stage_started_s if rolling else 0.0,
        stage_hold_s=stage.hold_s,
        stage_events=state.stage_events,
        stage_min_events=stage.min_events,
        advance=state.advance.value,
        epoch=state.epoch,
        cache_epoch=state.cache_epoch,
        incident_id=state.incident_id,
        rollbacks_24h=len(recent_rollbacks(state, wall_s)),
        rollbacks_allowed=rollbacks_allowed,
        conditions=tuple(c.value for c in state.conditions),
        recommendation=state.recommendation,
        shedding=state.shedding,
        last_action=action.kind.value if action else "",
        last_reason=action.reason if action else "",
        last_judged_ago_s=None if judged_s is None else now_s - judged_s,
        judged=_judged(judged, now_s),
        last_deed=last_deed,
        verdicts=verdicts,
        registry=registry,
        journal=journal,
        pending=pending,
        outbox_waiting_count=outbox_waiting_count,
    )
