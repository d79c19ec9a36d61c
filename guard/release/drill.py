"""Rehearses a rollback: real files, real registry, real receivers; a shadow service instead of the users' traffic."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from guard.release import state as rules
from guard.release.control import control_of
from guard.release.incident import Incident, IncidentKind, diff_versions, note, stable_id
from guard.release.journal import Journal
from guard.release.outbox import Offload, Outbox
from guard.release.payload import event_kind, message_id
from guard.release.pointer import ReleaseRegistry
from guard.release.records import Intent
from guard.release.report import DrillResult
from guard.release.saga import Rollback
from guard.release.state import Mode, Phase, ReleaseState
from registry.model import Stage
from slo.clock import Clock
from slo.types import Version

WEIGHT = 0.1
DELIVERY_S = 30.0
POLL_S = 0.05


async def rehearse(
    *,
    journal: Journal,
    registry: ReleaseRegistry | None,
    outbox: Outbox,
    clock: Clock,
    offload: Offload,
    service: str,
    bad: Version,
    target: Version,
    actor: str,
    target_s: float,
) -> DrillResult:
    """Roll a shadow release back and time it.

    The shadow has a control document, a model with a Production pointer and a promise file of its own; its messages
    say `"drill": true`.

    Raises:
        RefusedError, UpstreamError, JournalError: the rehearsal could not even be set up; that is its result.
    """
    shadow = f"{service[:58]}.drill"
    if bad.name == target.name:
        bad = replace(bad, name="drill-canary", policy=f"{bad.policy}drill")
    own = registry.for_service(shadow) if registry is not None else None
    before = ReleaseState(
        shadow, target.name, canary=bad.name, canary_ratio=WEIGHT, epoch=1, mode=Mode.ENFORCE, phase=Phase.ROLLING_OUT
    )
    if own is not None:
        there = await own.control()
        before = replace(before, epoch=(there.epoch if there else 0) + 1)
        await own.ensure(target, Stage.PRODUCTION, actor)
        await own.ensure(bad, Stage.STAGING, actor)
        # The document first, as in earnest: a pointer moved at an epoch that never came to be would be in the way of
        # the next rehearsal, which would come to the same epoch with another version.
        await own.commit(control_of(before), there.epoch if there else 0, actor)
        # The pointer stands on the bad version, so that the rehearsal really moves it.
        await own.promote(bad.name, epoch=before.epoch, actor=actor)

    started_s, wall_s = clock.now_s(), clock.wall_s()
    passed_s: dict[str, float] = {}

    def passed(point: str) -> None:
        passed_s.setdefault(point, clock.now_s() - started_s)

    moved, order = rules.rollback(before, f"drill asked for by {actor}")
    incident = Incident(
        incident_id=f"inc-{stable_id(f'drill {wall_s:.6f}', bad.release_id, before.epoch)}",
        kind=IncidentKind.DRILL,
        service=service,
        opened_s=wall_s,
        rule="drill",
        reason=order.reason,
        bad=bad,
        target=target,
        epoch=moved.epoch,
        automatic=False,
        actor=actor,
        differences=diff_versions(target, bad),
    )
    incident = note(replace(incident, outbox_id=message_id(incident)), wall_s, "drill began")
    moved = replace(moved, incident_id=incident.incident_id)
    saga = Rollback(
        journal=journal,
        registry=own,
        apply=lambda _state: None,
        outbox=outbox,
        clock=clock,
        offload=offload,
        at=passed,
    )
    result = await saga.begin(Intent(incident.incident_id, before.epoch, False, moved, incident))
    done_s = clock.now_s() - started_s
    if result.status != "done":  # A rehearsal leaves no debt behind.
        await offload(lambda: journal.clear_intent(drill=True))
    receivers = outbox.targets_of(event_kind(incident))
    webhook_s = await _told(outbox, message_id(incident), clock, started_s) if receivers else None
    told = webhook_s is not None or not receivers
    mttr_s = max(done_s, webhook_s or 0.0) if result.status == "done" and told else None
    in_time = mttr_s is not None and mttr_s <= target_s and result.incident.pointer in ("at_target", "local")
    words = _sentence(in_time, mttr_s, target_s, result.status, told)
    kept = replace(note(result.incident, clock.wall_s(), words), mttr_s=mttr_s if in_time else None)
    await offload(lambda: journal.record(incident=kept))
    return DrillResult(
        incident_id=incident.incident_id,
        passed=in_time,
        mttr_s=mttr_s,
        target_s=target_s,
        weight_zero_s=passed_s.get("weight_zero:effect", done_s),
        done_s=done_s,
        webhook_s=webhook_s,
        pointer=result.incident.pointer,
        steps=tuple(passed_s.items()),
        message=words,
    )


async def _told(outbox: Outbox, ident: str, clock: Clock, started_s: float) -> float | None:
    """Seconds until every receiver had the message; None when one did not take it in time."""
    deadline_s = clock.now_s() + DELIVERY_S
    while clock.now_s() < deadline_s:
        await outbox.deliver_due()
        if await outbox.delivered(ident):
            return clock.now_s() - started_s
        await asyncio.sleep(POLL_S)
    return None


def _sentence(passed: bool, mttr_s: float | None, target_s: float, status: str, told: bool) -> str:
    if passed and mttr_s is not None:
        return f"rolled back and told in {mttr_s:.2f} s (target {target_s:g} s)"
    if status != "done":
        return f"the rollback ended as {status}; check the registry and the disk with `sft-guard doctor`"
    if not told:
        return f"a receiver did not take the webhook within {DELIVERY_S:g} s; check its URL and secret"
    return f"took {mttr_s or 0:.1f} s, target {target_s:g} s, or the pointer could not be moved"
