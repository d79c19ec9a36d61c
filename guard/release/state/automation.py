"""What automation may do with a release: follow one action of the evaluation by at most one step."""

from __future__ import annotations

from dataclasses import replace

from guard.release.state.moves import (
    at_stage,
    next_epoch,
    rollback_order,
    rolled_back,
    with_condition,
    without_condition,
)
from guard.release.state.people import advance
from guard.release.state.value import (
    NOTHING,
    Advance,
    Condition,
    Effects,
    Mode,
    Phase,
    ReleaseState,
    can_tell,
    events_satisfied,
    hold_satisfied,
    is_blind,
    recent_rollbacks,
    weight_of,
)
from slo.types import Action, ActionKind, State, Verdict

ROLLBACKS_PER_DAY = 3
UNKNOWN_LIMIT_S = 300.0
SHED_SETTLE_S = 60.0  # A lower weight needs time to show in the windows before it is lowered again.


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


def _automatic_rollback(
    state: ReleaseState, action: Action, wall_s: float, max_rollbacks_per_day: int
) -> tuple[ReleaseState, Effects]:
    order = rollback_order(state, action.reason, automatic=True)
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
    moved = replace(rolled_back(state, order), rollbacks_s=(*recent, wall_s))
    return moved, Effects(exposure=True, rollback=order, reason=action.reason)


def _automatic_advance(state: ReleaseState, now_s: float) -> tuple[ReleaseState, Effects]:
    was_shedding = state.shedding
    state = replace(state, shedding=False) if was_shedding else state
    if state.phase is not Phase.ROLLING_OUT or not (hold_satisfied(state, now_s) and events_satisfied(state)):
        return state, Effects(exposure=was_shedding)
    last = state.stage + 1 >= len(state.plan.stages)
    words = f"promote {state.canary}" if last else f"raise {state.canary} to {weight_of(state, state.stage + 1):.0%}"
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
    to = f"{weight_of(state, state.stage - 1):.0%}"
    if state.mode is not Mode.ENFORCE:
        return _recommend(state, f"lower {state.canary} to {to}: {action.reason}")
    if now_s - state.stage_started_s < SHED_SETTLE_S:
        return state, NOTHING
    # From here on a person raises the weight again: climbing by itself into the same wall would be flapping.
    lower = replace(next_epoch(state), advance=Advance.MANUAL)
    if state.stage == 0:
        lower = replace(lower, canary_ratio=0.0, phase=Phase.PAUSED, stage_started_s=now_s, stage_events=0)
    else:
        lower = at_stage(lower, state.stage - 1, now_s)
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
    drained = replace(next_epoch(state), canary_ratio=0.0, phase=Phase.PAUSED, stage_started_s=now_s, stage_events=0)
    return drained, Effects(exposure=True, alerts=alerts, reason=f"drained {state.canary}: {action.reason}")


def _recommend(state: ReleaseState, text: str) -> tuple[ReleaseState, Effects]:
    return replace(state, recommendation=text), Effects(recommendation=text, reason=text)


def _deed(text: str) -> str:
    """The reason carries figures that move with every evaluation; the deed before the colon says whether it is new."""
    return text.split(":", 1)[0]


def _known(state: ReleaseState) -> ReleaseState:
    state = without_condition(state, Condition.UNKNOWN_TOO_LONG)
    return state if state.unknown_since_s is None else replace(state, unknown_since_s=None)


def _watch(
    state: ReleaseState, action: Action, stable: tuple[Verdict, ...]
) -> tuple[ReleaseState, tuple[Condition, ...]]:
    """Conditions that an action names in its first word: begin, tell once, end when somebody saw that it is over."""
    if is_blind(action):
        return state, ()
    told: tuple[Condition, ...] = ()
    if action.kind is not ActionKind.ROLL_BACK:
        state = without_condition(state, Condition.ROLLBACK_SUPPRESSED)
    if action.reason.startswith(Condition.NO_TARGET):
        state, fresh = with_condition(state, Condition.NO_TARGET)
        told = (Condition.NO_TARGET,) if fresh else ()
    elif action.kind is not ActionKind.ROLL_BACK:  # a rollback finds out for itself whether there is a target
        state = without_condition(state, Condition.NO_TARGET)
    if action.reason.startswith(Condition.SHARED_UPSTREAM):
        found = {v.slo.name for v in action.verdicts if v.state is State.BREACH}
        state, fresh = with_condition(state, Condition.SHARED_UPSTREAM)
        state = replace(state, shared_rules=tuple(sorted({*state.shared_rules, *found})))
        told = (*told, Condition.SHARED_UPSTREAM) if fresh else told
    elif can_tell(action) and not _still_shared(state, stable):
        state = without_condition(state, Condition.SHARED_UPSTREAM)
        state = replace(state, shared_rules=()) if state.shared_rules else state
    return state, told


def _still_shared(state: ReleaseState, stable: tuple[Verdict, ...]) -> bool:
    """Stable breaches one of the shared rules yet, or nobody knows."""
    return any(v.slo.name in state.shared_rules and (v.firing or v.state is not State.OK) for v in stable)
