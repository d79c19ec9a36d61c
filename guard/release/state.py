"""The release as a value, and every way it may change. Pure: time comes in as a number.

    idle ──start──► rolling_out ──promote──► promoted
                     │  ▲   │                    │
               pause │  │   └──rollback──┐       │ rollback (while `previous` is known)
                     ▼  │ resume         ▼       ▼
                    paused ─────────► rolling_back ──► rolled_back

Automation may only reduce exposure. It raises the weight along a plan that a person started with `advance: auto`, one
stage at a time, on a pass, after the hold and the minimum of events, and only in mode `enforce`. A version that was
rolled back gets no traffic again unless a person starts it again and says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from guard.release.plan import DEFAULT, Plan, Stage, parse_plan
from slo.errors import RefusedError
from slo.types import Action, ActionKind, State, Verdict

ROLLBACKS_PER_DAY = 3
DAY_S = 86_400.0
UNKNOWN_LIMIT_S = 300.0
SHED_SETTLE_S = 60.0  # A lower weight needs time to show in the windows before it is lowered again.
BARRED_COUNT = 50


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


# -- what a person may do -------------------------------------------------------------------------------------------


def start(
    state: ReleaseState,
    canary: str,
    plan: Plan,
    now_s: float,
    *,
    advance: Advance = Advance.MANUAL,
    again: bool = False,
) -> ReleaseState:
    """Begin a rollout at the plan's first stage.

    Raises:
        RefusedError: busy, same_version, rolled_back (a person repeats with `again`).
    """
    if state.phase in (Phase.ROLLING_OUT, Phase.PAUSED, Phase.ROLLING_BACK):
        raise RefusedError("busy", f"{state.canary!r} is {state.phase}; promote, abort or roll it back first")
    if canary == state.stable:
        raise RefusedError("same_version", f"{canary!r} is the stable version already; name another canary")
    if canary in state.barred and not again:
        raise RefusedError("rolled_back", f"{canary!r} was rolled back; release a fixed version, or start it --again")
    return replace(
        _next_epoch(state),
        canary=canary,
        plan=plan,
        stage=0,
        canary_ratio=plan.stages[0].weight,
        stage_started_s=now_s,
        stage_events=0,
        advance=advance,
        phase=Phase.ROLLING_OUT,
        incident_id="",
        barred=tuple(name for name in state.barred if name != canary),
        unknown_since_s=None,
        conditions=lasting(state),
        recommendation="",
    )


def advance(state: ReleaseState, now_s: float) -> ReleaseState:
    """Raise the weight by one stage; past the last stage this promotes.

    Raises:
        RefusedError: no_rollout.
    """
    _require_rollout(state)
    if state.stage + 1 >= len(state.plan.stages):
        return promote(state, now_s)
    return _at_stage(_next_epoch(state), state.stage + 1, now_s)


def promote(state: ReleaseState, now_s: float) -> ReleaseState:
    """Make the canary stable; the old stable is kept as `previous`, to return to.

    The cache epoch stays: what answers has another release, so nothing of the old one can be reached, and what was
    warmed while it was a canary is of use to everybody now. A rollback moves it.

    Raises:
        RefusedError: no_rollout.
    """
    _require_rollout(state)
    moved = _next_epoch(state)
    return replace(
        moved,
        stable=state.canary,
        previous=state.stable,
        canary="",
        canary_ratio=0.0,
        phase=Phase.PROMOTED,
        stage_started_s=now_s,  # from here on: how long ago the promotion was
        unknown_since_s=None,
        conditions=lasting(state),
        recommendation="",
    )


def abort(state: ReleaseState) -> ReleaseState:
    """End the rollout without blame: all traffic to stable, no incident.

    Raises:
        RefusedError: no_rollout.
    """
    _require_rollout(state)
    moved = _next_epoch(state)
    return replace(
        moved,
        canary="",
        canary_ratio=0.0,
        phase=Phase.IDLE,
        cache_epoch=moved.epoch,
        unknown_since_s=None,
        conditions=lasting(state),
        recommendation="",
    )


def pause(state: ReleaseState) -> ReleaseState:
    """Keep the weight where it is and stop advancing. Raises RefusedError `no_rollout`."""
    if state.phase is not Phase.ROLLING_OUT:
        raise RefusedError("no_rollout", f"the release is {state.phase}; there is nothing to pause")
    return replace(_next_epoch(state), phase=Phase.PAUSED)


def resume(state: ReleaseState, now_s: float) -> ReleaseState:
    """Go on in the current stage, its hold starting anew. Raises RefusedError `no_rollout`."""
    if state.phase is not Phase.PAUSED:
        raise RefusedError("no_rollout", f"the release is {state.phase}; there is nothing to resume")
    return replace(_at_stage(_next_epoch(state), state.stage, now_s), phase=Phase.ROLLING_OUT)


def rollback(state: ReleaseState, reason: str, *, force: bool = False) -> tuple[ReleaseState, RollbackOrder]:
    """A person rolls back; never suppressed, in every mode.

    force: also from `idle` or `rolled_back` to the `previous` of an older promotion. Without it a second rollback,
    sent by two people or beside the automatic one, would take out the version that had just been returned to.

    Raises:
        RefusedError: nothing_to_roll_back, busy.
    """
    if state.phase is Phase.ROLLING_BACK:
        raise RefusedError("busy", "a rollback is running already; see `release status`")
    order = _order(state, reason, automatic=False, force=force)
    if order is None:
        cure = (
            f"to return to {state.previous!r} all the same, repeat with force"
            if state.previous
            else "no previous version is known"
        )
        raise RefusedError(
            "nothing_to_roll_back", f"the release is {state.phase} and {state.stable!r} answers everybody; {cure}"
        )
    return _rolled(state, order), order


# -- what automation may do -----------------------------------------------------------------------------------------


def step(
    state: ReleaseState,
    action: Action,
    now_s: float,
    wall_s: float,
    *,
    stable: tuple[Verdict, ...] = (),
    drain_unknown: bool = False,
    max_rollbacks_per_day: int = ROLLBACKS_PER_DAY,
    unknown_after_s: float = UNKNOWN_LIMIT_S,
) -> tuple[ReleaseState, Effects]:
    """Follow one action by at most one step.

    now_s: monotonic seconds. wall_s: Unix seconds, for the rollbacks a day only. stable: what was said of the stable
    version at this evaluation. drain_unknown: a canary nobody can judge for `unknown_after_s` loses its traffic (the
    pointer stays) instead of being held.
    """
    if state.phase is Phase.ROLLING_BACK:
        return state, NOTHING  # The saga finishes first; whatever is decided meanwhile is about the past.
    said = state.recommendation
    state, told = _watch(state, action, stable)
    if said and not is_blind(action):
        state = replace(state, recommendation="")  # Said again below while it is still what should be done.
    if action.kind is ActionKind.ROLL_BACK:
        state, effects = _automatic_rollback(_known(state), action, wall_s, max_rollbacks_per_day)
    elif action.kind is ActionKind.ADVANCE:
        state, effects = _automatic_advance(_known(state), now_s)
    elif action.kind is ActionKind.SHED:
        state, effects = _shed(_known(state), action, now_s)
    else:
        state, effects = _hold(state, action, now_s, unknown_after_s, drain_unknown)
    if effects.recommendation and _deed(effects.recommendation) == _deed(said):
        effects = replace(effects, recommendation="", reason="")
    return state, replace(effects, alerts=(*told, *effects.alerts))


def finish_rollback(state: ReleaseState, *, no_target: bool = False) -> ReleaseState:
    """The saga is done. no_target: traffic was taken away, and there was nothing sound to point to."""
    done = replace(state, phase=Phase.ROLLED_BACK)
    return with_condition(done, Condition.NO_TARGET)[0] if no_target else done


def count_events(state: ReleaseState, event_count: int) -> ReleaseState:
    """Add canary exchanges to the stage."""
    return replace(state, stage_events=state.stage_events + event_count) if event_count > 0 else state


# -- questions ------------------------------------------------------------------------------------------------------


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


# -- inside ---------------------------------------------------------------------------------------------------------


def _automatic_rollback(
    state: ReleaseState, action: Action, wall_s: float, max_rollbacks_per_day: int
) -> tuple[ReleaseState, Effects]:
    order = _order(state, action.reason, automatic=True)
    if order is None:
        # After a promotion without a previous version there is nothing to return to: a person has to know.
        if state.phase is Phase.PROMOTED:
            state, fresh = with_condition(state, Condition.NO_TARGET)
            return state, Effects(alerts=(Condition.NO_TARGET,) if fresh else (), reason=action.reason)
        return state, NOTHING
    if state.mode is not Mode.ENFORCE:
        return _recommend(state, f"roll back {order.bad} to {order.target}: {action.reason}")
    recent = recent_rollbacks(state, wall_s)
    if len(recent) >= max_rollbacks_per_day:
        state, fresh = with_condition(state, Condition.ROLLBACK_SUPPRESSED)
        return state, Effects(alerts=(Condition.ROLLBACK_SUPPRESSED,) if fresh else (), reason=action.reason)
    moved = replace(_rolled(state, order), rollbacks_s=(*recent, wall_s))
    return moved, Effects(exposure=True, rollback=order, reason=action.reason)


def _automatic_advance(state: ReleaseState, now_s: float) -> tuple[ReleaseState, Effects]:
    was_shedding = state.shedding
    state = replace(state, shedding=False) if was_shedding else state
    if state.phase is not Phase.ROLLING_OUT or not (hold_satisfied(state, now_s) and events_satisfied(state)):
        return state, Effects(exposure=was_shedding)
    last = state.stage + 1 >= len(state.plan.stages)
    words = f"promote {state.canary}" if last else f"raise {state.canary} to {_weight(state, state.stage + 1):.0%}"
    if state.advance is not Advance.AUTO or state.mode is not Mode.ENFORCE:
        state, effects = _recommend(state, f"{words}: stage {state.stage + 1} passed")
        return state, replace(effects, exposure=was_shedding)
    moved = advance(state, now_s)
    return moved, Effects(exposure=True, promoted=last, reason=f"{words}: stage {state.stage + 1} passed")


def _shed(state: ReleaseState, action: Action, now_s: float) -> tuple[ReleaseState, Effects]:
    if not state.in_traffic:
        if state.mode is not Mode.ENFORCE:
            was_shedding = state.shedding
            state, effects = _recommend(replace(state, shedding=False), f"shed the lowest priority: {action.reason}")
            return state, replace(effects, exposure=was_shedding)
        if state.shedding:
            return state, NOTHING
        return replace(state, shedding=True), Effects(exposure=True, reason=action.reason)
    to = f"{_weight(state, state.stage - 1):.0%}"
    if state.mode is not Mode.ENFORCE:
        return _recommend(state, f"lower {state.canary} to {to}: {action.reason}")
    if now_s - state.stage_started_s < SHED_SETTLE_S:
        return state, NOTHING
    # From here on a person raises the weight again: climbing by itself into the same wall would be flapping.
    lower = replace(_next_epoch(state), advance=Advance.MANUAL)
    if state.stage == 0:
        lower = replace(lower, canary_ratio=0.0, phase=Phase.PAUSED, stage_started_s=now_s, stage_events=0)
    else:
        lower = _at_stage(lower, state.stage - 1, now_s)
    return lower, Effects(exposure=True, reason=f"lower {state.canary} to {to}: {action.reason}")


def _hold(
    state: ReleaseState, action: Action, now_s: float, unknown_after_s: float, drain_unknown: bool
) -> tuple[ReleaseState, Effects]:
    blind = is_blind(action)
    # Whoever cannot see does not know that the overload is over.
    ended = state.shedding and not (blind and state.mode is Mode.ENFORCE)
    state = replace(state, shedding=False) if ended else state
    if not (state.in_traffic and blind):
        return _known(state), Effects(exposure=ended)
    if state.unknown_since_s is None:
        return replace(state, unknown_since_s=now_s), Effects(exposure=ended)
    if now_s - state.unknown_since_s < unknown_after_s:
        return state, Effects(exposure=ended)
    state, fresh = with_condition(state, Condition.UNKNOWN_TOO_LONG)
    alerts = (Condition.UNKNOWN_TOO_LONG,) if fresh else ()
    if not (drain_unknown and state.mode is Mode.ENFORCE):
        return state, Effects(exposure=ended, alerts=alerts, reason=action.reason)
    drained = replace(_next_epoch(state), canary_ratio=0.0, phase=Phase.PAUSED, stage_started_s=now_s, stage_events=0)
    return drained, Effects(exposure=True, alerts=alerts, reason=f"drained {state.canary}: {action.reason}")


def _recommend(state: ReleaseState, text: str) -> tuple[ReleaseState, Effects]:
    return replace(state, recommendation=text), Effects(recommendation=text, reason=text)


def _deed(text: str) -> str:
    """The reason carries figures that move with every evaluation; the deed before the colon says whether it is new."""
    return text.split(":", 1)[0]


def _order(state: ReleaseState, reason: str, *, automatic: bool, force: bool = False) -> RollbackOrder | None:
    if state.phase in (Phase.ROLLING_OUT, Phase.PAUSED):
        return RollbackOrder(state.canary, state.stable, reason, promoted=False, automatic=automatic)
    # Without a rollout the only thing to take back is the promotion that is in force.
    if state.previous and (state.phase is Phase.PROMOTED or force):
        return RollbackOrder(state.stable, state.previous, reason, promoted=True, automatic=automatic)
    return None


def _rolled(state: ReleaseState, order: RollbackOrder) -> ReleaseState:
    moved = _next_epoch(state)
    return replace(
        moved,
        stable=order.target,
        canary=order.bad,
        previous="" if order.promoted else state.previous,
        canary_ratio=0.0,
        phase=Phase.ROLLING_BACK,
        advance=Advance.MANUAL,
        cache_epoch=moved.epoch,  # Derived, never incremented on its own: a repeated step gives the same namespace.
        barred=(*(b for b in state.barred if b != order.bad), order.bad)[-BARRED_COUNT:],
        unknown_since_s=None,
        conditions=lasting(state),
        recommendation="",
        shedding=False,
    )


def _require_rollout(state: ReleaseState) -> None:
    if state.phase not in (Phase.ROLLING_OUT, Phase.PAUSED):
        raise RefusedError("no_rollout", f"the release is {state.phase}; start a canary first")


def _next_epoch(state: ReleaseState) -> ReleaseState:
    return replace(state, epoch=state.epoch + 1)


def _at_stage(state: ReleaseState, stage: int, now_s: float) -> ReleaseState:
    return replace(
        state,
        stage=stage,
        canary_ratio=state.plan.stages[stage].weight,
        stage_started_s=now_s,
        stage_events=0,
        unknown_since_s=None,
        recommendation="",
    )


def _stage_of(state: ReleaseState) -> Stage:
    return state.plan.stages[min(state.stage, len(state.plan.stages) - 1)]


def _weight(state: ReleaseState, stage: int) -> float:
    return state.plan.stages[stage].weight if 0 <= stage < len(state.plan.stages) else 0.0


def _known(state: ReleaseState) -> ReleaseState:
    state = _without(state, Condition.UNKNOWN_TOO_LONG)
    return state if state.unknown_since_s is None else replace(state, unknown_since_s=None)


def _watch(
    state: ReleaseState, action: Action, stable: tuple[Verdict, ...]
) -> tuple[ReleaseState, tuple[Condition, ...]]:
    """Conditions that an action names in its first word: begin, tell once, end when somebody saw that it is over."""
    if is_blind(action):
        return state, ()
    told: tuple[Condition, ...] = ()
    if action.kind is not ActionKind.ROLL_BACK:
        state = _without(state, Condition.ROLLBACK_SUPPRESSED)
    if action.reason.startswith(Condition.NO_TARGET):
        state, fresh = with_condition(state, Condition.NO_TARGET)
        told = (Condition.NO_TARGET,) if fresh else ()
    elif action.kind is not ActionKind.ROLL_BACK:  # a rollback finds out for itself whether there is a target
        state = _without(state, Condition.NO_TARGET)
    if action.reason.startswith(Condition.SHARED_UPSTREAM):
        found = {v.slo.name for v in action.verdicts if v.state is State.BREACH}
        state, fresh = with_condition(state, Condition.SHARED_UPSTREAM)
        state = replace(state, shared_rules=tuple(sorted({*state.shared_rules, *found})))
        told = (*told, Condition.SHARED_UPSTREAM) if fresh else told
    elif can_tell(action) and not _still_shared(state, stable):
        state = _without(state, Condition.SHARED_UPSTREAM)
        state = replace(state, shared_rules=()) if state.shared_rules else state
    return state, told


def _still_shared(state: ReleaseState, stable: tuple[Verdict, ...]) -> bool:
    """Stable breaches one of the shared rules yet, or nobody knows."""
    return any(v.slo.name in state.shared_rules and (v.firing or v.state is not State.OK) for v in stable)


def with_condition(state: ReleaseState, condition: Condition) -> tuple[ReleaseState, bool]:
    """Note a standing condition; True when it is new."""
    if condition in state.conditions:
        return state, False
    return replace(state, conditions=(*state.conditions, condition)), True


def _without(state: ReleaseState, condition: Condition) -> ReleaseState:
    if condition not in state.conditions:
        return state
    return replace(state, conditions=tuple(c for c in state.conditions if c is not condition))


__all__ = [
    "NOTHING", "Advance", "Condition", "Effects", "Mode", "Phase", "Plan", "ReleaseState", "RollbackOrder", "Stage",
    "abort", "advance", "can_tell", "count_events", "events_satisfied", "finish_rollback", "hold_satisfied", "is_blind",
    "lasting", "parse_plan", "pause", "promote", "recent_rollbacks", "resume", "rollback", "start", "step",
    "unknown_for_s", "with_condition",
]  # fmt: skip
