"""Release state to control document and back. Pure."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from guard.release.plan import plan_from_text
from guard.release.state import Advance, Phase, ReleaseState, lasting
from registry.model import Control

OWN_CHANGES_COUNT = 16
"""Decisions made here without an answer of the registry that are remembered; more in a row are not plausible."""


def control_of(state: ReleaseState, outbox_id: str = "") -> Control:
    """The document that tells every replica what this state means."""
    return Control(
        service=state.service,
        epoch=state.epoch,
        stable=state.stable,
        canary=state.canary,
        previous=state.previous,
        canary_ratio=state.canary_ratio,
        stage=state.stage,
        plan=state.plan.text,
        advance=state.advance.value,
        phase=state.phase.value,
        cache_epoch=state.cache_epoch,
        incident_id=state.incident_id,
        outbox_id=outbox_id,
        mode=state.mode.value,
    )


def adopt(state: ReleaseState, control: Control, now_s: float) -> ReleaseState:
    """Obey a document that somebody else wrote: the later epoch wins.

    The mode stays: it says how far *this* process may go, and its own configuration decides that. A phase or an
    advance of a newer version is read as the careful one (paused, manual).
    """
    plan = plan_from_text(control.plan)
    same_stage = (control.canary, control.stage, plan) == (state.canary, state.stage, state.plan) and state.in_traffic
    same_promotion = control.phase == state.phase == "promoted" and control.stable == state.stable
    phase = Phase(control.phase) if control.phase in set(Phase) else Phase.PAUSED
    barred = state.barred
    if phase is Phase.ROLLED_BACK and control.canary and control.canary not in barred:
        barred = (*barred, control.canary)
    elif control.canary_ratio > 0:  # A person started it again elsewhere.
        barred = tuple(name for name in barred if name != control.canary)
    return replace(
        state,
        stable=control.stable,
        canary=control.canary,
        previous=control.previous,
        canary_ratio=control.canary_ratio,
        plan=plan,
        stage=min(control.stage, len(plan.stages) - 1),
        stage_started_s=state.stage_started_s if same_stage or same_promotion else now_s,
        stage_events=state.stage_events if same_stage else 0,
        epoch=control.epoch,
        cache_epoch=control.cache_epoch,
        advance=Advance(control.advance) if control.advance in set(Advance) else Advance.MANUAL,
        phase=phase,
        incident_id=control.incident_id,
        barred=barred,
        unknown_since_s=None,
        conditions=lasting(state),
        recommendation="",
        base_epoch=control.epoch,
        own_changes=(),
    )


def stands_beside(state: ReleaseState, now: Control) -> bool:
    """Whether `now` is obeyed here, and yet other versions answer: it names some that this process cannot serve.

    What such a state decides would take back unseen what the document says.
    """
    obeyed = now.epoch == state.base_epoch and not state.own_changes
    served = (state.stable, state.canary if state.in_traffic else "")
    return obeyed and served != (now.stable, now.canary if now.canary_ratio > 0.0 else "")


def digest(control: Control) -> str:
    """What replicas obey of a document, as a short hash. Mode and ids are not part of it: they differ by replica."""
    c = control
    parts = (c.epoch, c.stable, c.canary, c.previous, f"{c.canary_ratio:.9g}", c.stage, c.plan, c.advance, c.phase)
    return sha256("\x1f".join(map(str, (*parts, c.cache_epoch))).encode()).hexdigest()[:16]


def same(first: Control, second: Control) -> bool:
    """Both say the same to a replica."""
    return digest(first) == digest(second)


def descended(before: ReleaseState, moved: ReleaseState) -> ReleaseState:
    """`moved`, remembering that it was decided here on top of `before`."""
    own = (*before.own_changes, digest(control_of(before)), digest(control_of(moved)))
    return replace(moved, base_epoch=before.base_epoch, own_changes=tuple(dict.fromkeys(own))[-OWN_CHANGES_COUNT:])


def confirmed(state: ReleaseState) -> ReleaseState:
    """The registry has the document of this state."""
    return replace(state, base_epoch=state.epoch, own_changes=())


def may_replace(state: ReleaseState, now: Control | None) -> bool:
    """Whether the document in force is one that `state` was decided on, so that nobody's change is undone unseen.

    It is when there is none, when it is no later than the one this state comes from, and when it is a decision made
    here whose answer was lost. Epochs alone do not tell: a replica that was cut off counts on for itself, and its
    third change has a later epoch than the promotion that somebody made meanwhile.
    """
    return now is None or now.epoch <= state.base_epoch or digest(now) in state.own_changes
