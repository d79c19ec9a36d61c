"""The moves that persons and automation share. Each gives a new value; who may make it is decided elsewhere."""

from __future__ import annotations

from dataclasses import replace

from guard.release.state.value import Advance, Condition, Phase, ReleaseState, RollbackOrder, lasting
from slo.errors import RefusedError

BARRED_COUNT = 50


def next_epoch(state: ReleaseState) -> ReleaseState:
    """The same release, one change later."""
    return replace(state, epoch=state.epoch + 1)


def at_stage(state: ReleaseState, stage: int, now_s: float) -> ReleaseState:
    """At the beginning of a stage of the plan, its hold and its count of events starting anew."""
    return replace(
        state,
        stage=stage,
        canary_ratio=state.plan.stages[stage].weight,
        stage_started_s=now_s,
        stage_events=0,
        unknown_since_s=None,
        recommendation="",
    )


def require_rollout(state: ReleaseState) -> None:
    """Raises RefusedError `no_rollout`."""
    if state.phase not in (Phase.ROLLING_OUT, Phase.PAUSED):
        raise RefusedError("no_rollout", f"the release is {state.phase}; start a canary first")


def rollback_order(state: ReleaseState, reason: str, *, automatic: bool, force: bool = False) -> RollbackOrder | None:
    """What a rollback would take out and return to; None when there is nothing to take back."""
    if state.phase in (Phase.ROLLING_OUT, Phase.PAUSED):
        return RollbackOrder(state.canary, state.stable, reason, promoted=False, automatic=automatic)
    # Without a rollout the only thing to take back is the promotion that is in force.
    if state.previous and (state.phase is Phase.PROMOTED or force):
        return RollbackOrder(state.stable, state.previous, reason, promoted=True, automatic=automatic)
    return None


def rolled_back(state: ReleaseState, order: RollbackOrder) -> ReleaseState:
    """The traffic is taken away; the saga has yet to finish."""
    moved = next_epoch(state)
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


def with_condition(state: ReleaseState, condition: Condition) -> tuple[ReleaseState, bool]:
    """Note a standing condition; True when it is new."""
    if condition in state.conditions:
        return state, False
    return replace(state, conditions=(*state.conditions, condition)), True


def without_condition(state: ReleaseState, condition: Condition) -> ReleaseState:
    """A standing condition is over."""
    if condition not in state.conditions:
        return state
    return replace(state, conditions=tuple(c for c in state.conditions if c is not condition))


def finish_rollback(state: ReleaseState, *, no_target: bool = False) -> ReleaseState:
    """The saga is done. no_target: traffic was taken away, and there was nothing sound to point to."""
    done = replace(state, phase=Phase.ROLLED_BACK)
    return with_condition(done, Condition.NO_TARGET)[0] if no_target else done


def count_events(state: ReleaseState, event_count: int) -> ReleaseState:
    """Add canary exchanges to the stage."""
    return replace(state, stage_events=state.stage_events + event_count) if event_count > 0 else state
