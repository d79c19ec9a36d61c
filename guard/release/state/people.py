"""What a person may do with a release."""

from __future__ import annotations

from dataclasses import replace

from guard.release.plan import Plan
from guard.release.state.moves import at_stage, next_epoch, require_rollout, rollback_order, rolled_back
from guard.release.state.value import Advance, Phase, ReleaseState, RollbackOrder, lasting
from slo.errors import RefusedError


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
        next_epoch(state),
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
    require_rollout(state)
    if state.stage + 1 >= len(state.plan.stages):
        return promote(state, now_s)
    return at_stage(next_epoch(state), state.stage + 1, now_s)


def promote(state: ReleaseState, now_s: float) -> ReleaseState:
    """Make the canary stable; the old stable is kept as `previous`, to return to.

    The cache epoch stays: what answers has another release, so nothing of the old one can be reached, and what was
    warmed while it was a canary is of use to everybody now. A rollback moves it.

    Raises:
        RefusedError: no_rollout.
    """
    require_rollout(state)
    moved = next_epoch(state)
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
    require_rollout(state)
    moved = next_epoch(state)
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
    return replace(next_epoch(state), phase=Phase.PAUSED)


def resume(state: ReleaseState, now_s: float) -> ReleaseState:
    """Go on in the current stage, its hold starting anew. Raises RefusedError `no_rollout`."""
    if state.phase is not Phase.PAUSED:
        raise RefusedError("no_rollout", f"the release is {state.phase}; there is nothing to resume")
    return replace(at_stage(next_epoch(state), state.stage, now_s), phase=Phase.ROLLING_OUT)


def rollback(state: ReleaseState, reason: str, *, force: bool = False) -> tuple[ReleaseState, RollbackOrder]:
    """A person rolls back; never suppressed, in every mode.

    force: also from `idle` or `rolled_back` to the `previous` of an older promotion. Without it a second rollback,
    sent by two people or beside the automatic one, would take out the version that had just been returned to.

    Raises:
        RefusedError: nothing_to_roll_back, busy.
    """
    if state.phase is Phase.ROLLING_BACK:
        raise RefusedError("busy", "a rollback is running already; see `release status`")
    order = rollback_order(state, reason, automatic=False, force=force)
    if order is None:
        cure = (
            f"to return to {state.previous!r} all the same, repeat with --force"
            if state.previous
            else "no previous version is known: start a good one, then promote it with --now"
        )
        raise RefusedError(
            "nothing_to_roll_back", f"the release is {state.phase} and {state.stable!r} answers everybody; {cure}"
        )
    return rolled_back(state, order), order
