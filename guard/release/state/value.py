"""The release as a value, what a step may ask of the outside, and what can be read from either."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from guard.release.plan import DEFAULT, Plan, Stage
from slo.types import Action, ActionKind, State

DAY_S = 86_400.0


class Mode(StrEnum):
    """How far automation may go. Only `enforce` touches traffic."""

    OBSERVE = "observe"
    RECOMMEND = "recommend"
    ENFORCE = "enforce"


class Advance(StrEnum):
    """Who raises the weight."""

    MANUAL = "manual"
    AUTO = "auto"


class Phase(StrEnum):
    """Where the release is."""

    IDLE = "idle"
    ROLLING_OUT = "rolling_out"
    PAUSED = "paused"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    PROMOTED = "promoted"


class Condition(StrEnum):
    """Standing conditions that alert once, when they begin."""

    UNKNOWN_TOO_LONG = "unknown_too_long"
    ROLLBACK_SUPPRESSED = "rollback_suppressed"
    SHARED_UPSTREAM = "shared_upstream"
    NO_TARGET = "no_target"


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """Who answers, and how the release goes on. Names are `Version.name`.

    canary_ratio: share of sessions sent to `canary`, 0..1. stage_started_s, unknown_since_s: monotonic seconds;
    in phase `promoted` the former is when the promotion was.
    stage_events: canary exchanges in this stage. epoch: grows with every change of exposure or phase.
    rollbacks_s: Unix seconds of automatic rollbacks of the last day. barred: versions that were rolled back.
    shedding: the lowest priority gets 503 + Retry-After because a rule asked to shed and there is no canary.
    shared_rules: rules that stable was found to breach too; stands with the condition `shared_upstream`.
    began_wall_s: Unix seconds at which the rollout of `canary` took effect here; None while unknown.
    base_epoch, own_changes: the control document this state comes from, and digests of what was decided here since (see
    `control.may_replace`).
    """

    service: str
    stable: str
    canary: str = ""
    previous: str = ""
    canary_ratio: float = 0.0
    plan: Plan = DEFAULT
    stage: int = 0
    stage_started_s: float = 0.0
    stage_events: int = 0
    epoch: int = 0
    cache_epoch: int = 0
    mode: Mode = Mode.RECOMMEND
    advance: Advance = Advance.MANUAL
    phase: Phase = Phase.IDLE
    incident_id: str = ""
    rollbacks_s: tuple[float, ...] = ()
    barred: tuple[str, ...] = ()
    unknown_since_s: float | None = None
    conditions: tuple[Condition, ...] = ()
    recommendation: str = ""
    shedding: bool = False
    shared_rules: tuple[str, ...] = ()
    base_epoch: int = 0
    own_changes: tuple[str, ...] = ()
    began_wall_s: float | None = None

    @property
    def in_traffic(self) -> bool:
        """A canary answers some sessions."""
        return self.canary_ratio > 0.0


@dataclass(frozen=True, slots=True)
class RollbackOrder:
    """Take `bad` out of traffic and point to `target`. promoted: `bad` had been promoted already."""

    bad: str
    target: str
    reason: str
    promoted: bool = False
    automatic: bool = True


@dataclass(frozen=True, slots=True)
class Effects:
    """What one step asks the outside to do. Nothing set: nothing to do.

    exposure: weights, phase or pointers changed, so commit and apply. rollback: carry out the saga first.
    alerts: conditions that began now. recommendation: what `enforce` would have done; set when it is new.
    """

    exposure: bool = False
    rollback: RollbackOrder | None = None
    promoted: bool = False
    alerts: tuple[Condition, ...] = ()
    recommendation: str = ""
    reason: str = ""


NOTHING = Effects()


def hold_satisfied(state: ReleaseState, now_s: float) -> bool:
    """The stage has lasted its minimum hold."""
    return now_s - state.stage_started_s >= _stage_of(state).hold_s


def events_satisfied(state: ReleaseState) -> bool:
    """The stage has seen its minimum of canary exchanges."""
    return state.stage_events >= _stage_of(state).min_events


def unknown_for_s(state: ReleaseState, now_s: float) -> float:
    """Seconds since nobody could judge the canary; 0 while somebody can."""
    return 0.0 if state.unknown_since_s is None else max(0.0, now_s - state.unknown_since_s)


def recent_rollbacks(state: ReleaseState, wall_s: float) -> tuple[float, ...]:
    """Automatic rollbacks of the last 24 h. One dated in the future counts: a clock may have jumped back."""
    return tuple(t for t in state.rollbacks_s if wall_s - t < DAY_S)


def can_tell(action: Action) -> bool:
    """The evaluation could see whether stable is well: it was not blind, and stable is not known to be breaching."""
    return not is_blind(action) and not action.reason.startswith((Condition.SHARED_UPSTREAM, Condition.NO_TARGET))


def lasting(state: ReleaseState) -> tuple[Condition, ...]:
    """Conditions that are about stable, not about the rollout: they outlast it."""
    return tuple(c for c in state.conditions if c is Condition.SHARED_UPSTREAM)


def is_blind(action: Action) -> bool:
    """The action was decided without knowledge: nothing could be judged."""
    if action.kind is not ActionKind.HOLD:
        return False
    if action.reason.startswith(("unknown", "sick")):
        return True
    return bool(action.verdicts) and all(v.state is State.UNKNOWN for v in action.verdicts)


def _stage_of(state: ReleaseState) -> Stage:
    return state.plan.stages[min(state.stage, len(state.plan.stages) - 1)]


def weight_of(state: ReleaseState, stage: int) -> float:
    """Share of the sessions at a stage of the plan; 0 beyond its ends."""
    return state.plan.stages[stage].weight if 0 <= stage < len(state.plan.stages) else 0.0
