"""One rollback, carried through whatever breaks on the way.

    INTENT (fsync, preallocated) -> local weight 0 -> state and incident recorded -> one compare-and-set on the control
    document -> registry pointer, fenced by epoch -> webhooks into the outbox -> DONE

Every step is safe to repeat, so a restart simply runs `finish` again: the intent carries everything, ids are hashes of
the decision, the pointer move carries a key, and the outbox takes a message once per target. A registry that does not
answer delays the pointer, never the end of the exposure and never the message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from guard.release.control import control_of, may_replace
from guard.release.incident import Incident, IncidentKind, note
from guard.release.journal import Journal, JournalError
from guard.release.outbox import Offload, Outbox, in_thread
from guard.release.payload import event_kind, message_id, webhook_body
from guard.release.pointer import ReleaseRegistry
from guard.release.records import Intent, SagaStep
from guard.release.state import ReleaseState, finish_rollback
from registry.model import Control
from slo.clock import Clock
from slo.errors import GuardError, RefusedError, UpstreamError

INTENT_BUDGET_S = 0.1
"""How long weight 0 waits for a disk that hangs. A weight in memory needs no promise to be safe: a crash before the
promise is durable brings back the last committed split, and the next verdict."""

POINTS = (
    "intent:begin", "intent:effect", "weight_zero:effect", "recorded:begin", "recorded:effect", "control:begin",
    "control:effect", "control:recorded", "pointer:begin", "pointer:effect", "pointer:recorded", "notify:begin",
    "notify:effect", "done:begin", "done:effect", "done:cleared",
)  # fmt: skip
"""Where a process may die; tests kill it at each."""


@dataclass(frozen=True, slots=True)
class SagaResult:
    """status: done | pending (repeat `finish`) | superseded (obey `winner`)."""

    status: str
    state: ReleaseState
    incident: Incident
    winner: Control | None = None


class Rollback:
    """Carries out one `Intent` at a time.

    apply: makes a state effective in this process at once; must not fail or wait. usable: whether a version can be
    served, so that the pointer never goes to something missing. at: told every point passed (tests kill there).
    """

    def __init__(
        self,
        *,
        journal: Journal,
        registry: ReleaseRegistry | None,
        apply: Callable[[ReleaseState], None],
        outbox: Outbox,
        clock: Clock,
        usable: Callable[[str], bool] = lambda _name: True,
        offload: Offload = in_thread,
        at: Callable[[str], None] = lambda _point: None,
    ) -> None:
        self._journal, self._registry, self._apply, self._outbox = journal, registry, apply, outbox
        self._clock, self._usable, self._offload, self._at = clock, usable, offload, at

    async def begin(self, intent: Intent) -> SagaResult:
        """Promise, take the weight away, then finish as far as possible now."""
        self._at("intent:begin")
        promise = asyncio.ensure_future(self._offload(lambda: self._journal.write_intent(intent)))
        await asyncio.wait({promise}, timeout=INTENT_BUDGET_S)
        self._at("intent:effect")
        self._apply(intent.state)
        self._at("weight_zero:effect")
        intent = self._noted(intent, f"weight 0 for {intent.incident.bad.name} in this process")
        try:
            await promise
        except JournalError:
            pass  # Counted by the journal. Exposure has ended; what follows may still be recorded elsewhere.
        return await self.finish(intent)

    async def finish(self, intent: Intent) -> SagaResult:
        """Do, or do again, everything after the promise."""
        self._apply(intent.state)
        taken = await self._steps_of(intent)
        incident = intent.incident
        if SagaStep.RECORDED in taken:
            incident = await self._stored(incident)
        else:
            self._at("recorded:begin")
            await self._save(incident, SagaStep.RECORDED, state=intent.state)
            self._at("recorded:effect")
        status, winner = await self._control(intent, taken)
        if status == "done":
            self._at("pointer:begin")
            pointer = await self._pointer(intent, taken)
            self._at("pointer:effect")
            if pointer != "pending":
                incident = self._pointed(intent, incident, pointer)
                await self._save(incident, SagaStep.POINTER, detail=pointer)
                self._at("pointer:recorded")
        else:
            pointer = status
            if status == "superseded":
                incident = note(replace(incident, pointer=pointer), self._wall_s(), "a later epoch won; obeyed")
        incident = await self._notify(intent, incident, taken, winner)
        if pointer == "pending":
            return SagaResult("pending", intent.state, incident)
        return await self._done(intent, incident, pointer, winner)

    # -- steps --------------------------------------------------------------------------------------------------

    async def _control(self, intent: Intent, taken: frozenset[SagaStep]) -> tuple[str, Control | None]:
        if self._registry is None or SagaStep.CONTROL in taken:
            return "done", None
        document = control_of(
            replace(finish_rollback(intent.state), incident_id=intent.saga_id), intent.incident.outbox_id
        )
        self._at("control:begin")
        for _ in range(3):  # Each lost race is a newer document; two of them in a row are somebody at work.
            try:
                now = await self._registry.control()
                if now is not None and now.incident_id == intent.saga_id:
                    break  # An earlier try of ours whose answer was lost, or a replica with the same decision.
                if now is not None and not _decided_on(intent, now):
                    return "superseded", now
                await self._registry.commit(document, now.epoch if now else 0)
                break
            except RefusedError as error:
                if error.reason != "conflict":
                    return "pending", None
            except UpstreamError:
                return "pending", None
        else:
            return "pending", None
        self._at("control:effect")
        await self._save(None, SagaStep.CONTROL, detail=f"epoch {document.epoch}", saga_id=intent.saga_id)
        self._at("control:recorded")
        return "done", None

    async def _pointer(self, intent: Intent, taken: frozenset[SagaStep]) -> str:
        incident = intent.incident
        if SagaStep.POINTER in taken:
            return (await self._stored(incident)).pointer
        if not self._usable(incident.target.name):
            return "no_target"
        if self._registry is None:
            return "local"
        try:
            return await self._registry.move_back(
                incident.bad.name,
                incident.target.name,
                epoch=intent.state.epoch,
                key=intent.saga_id,
                actor=incident.actor,
                detail=f"{incident.rule}: {incident.reason}"[:500],
            )
        except UpstreamError:
            return "pending"

    async def _notify(
        self, intent: Intent, incident: Incident, taken: frozenset[SagaStep], winner: Control | None
    ) -> Incident:
        if SagaStep.NOTIFY in taken:
            return await self._correct(intent, incident)
        self._at("notify:begin")
        out = winner is not None and winner.canary_ratio == 0 and winner.canary == incident.bad.name
        if out and winner is not None and winner.epoch <= intent.state.epoch:
            # Another replica took the same version out and tells of it under its own incident. A later epoch is
            # another story: between the two somebody started the version again, and ours is told of by nobody else.
            return incident
        event = "release.rollback_superseded" if incident.pointer == "superseded" else ""
        incident = note(incident, self._wall_s(), "told the receivers")
        await self._send(incident, message_id(incident), event, SagaStep.NOTIFY)
        self._at("notify:effect")
        return incident

    async def _correct(self, intent: Intent, incident: Incident) -> Incident:
        """The first message went out while the registry was silent; say so if it ended otherwise."""
        if incident.pointer in ("no_target", "superseded") and (await self._told_pending(incident)):
            event = "release.no_target" if incident.pointer == "no_target" else "release.rollback_superseded"
            await self._send(incident, message_id(incident, "-2"), event, None)
        return incident

    async def _done(self, intent: Intent, incident: Incident, pointer: str, winner: Control | None) -> SagaResult:
        self._at("done:begin")
        state = replace(finish_rollback(intent.state, no_target=pointer == "no_target"), incident_id=intent.saga_id)
        incident = note(incident, self._wall_s(), "done")
        if pointer == "superseded" or incident.drill:
            incident = replace(incident, closed_s=incident.closed_s or self._wall_s())
        superseded = pointer == "superseded" and winner is not None
        result = SagaResult("superseded" if superseded else "done", state, incident, winner)
        # Superseded: the winner's state is recorded by whoever adopts it, before the promise is forgotten there.
        saved = await self._save(incident, SagaStep.DONE, state=None if superseded else state, detail=pointer)
        self._at("done:effect")
        if not saved:  # Owed again; a winner is obeyed meanwhile.
            return SagaResult("pending", state, incident, winner)
        try:
            await self._offload(lambda: self._journal.clear_intent(drill=incident.drill))
        except JournalError:
            pass  # The promise is read again after a restart, found to be kept, and cleared then.
        self._at("done:cleared")
        return result

    # -- inside -------------------------------------------------------------------------------------------------

    async def _send(self, incident: Incident, ident: str, event: str, step: SagaStep | None) -> None:
        items = self._outbox.items(
            ident, incident.incident_id, webhook_body(incident, event=event), event=event_kind(incident)
        )
        row = None if step is None else (incident.incident_id, step, self._wall_s(), ident)
        try:
            await self._offload(lambda: self._journal.record(incident=incident, step=row, outbox=items))
            saved = True
        except JournalError:
            saved = False  # Told all the same; the outbox keeps them in memory until the disk takes them.
        self._outbox.add(items, saved=saved)

    def _pointed(self, intent: Intent, incident: Incident, pointer: str) -> Incident:
        words = {
            "at_target": f"registry points to {incident.target.name}",
            "no_target": f"{incident.target.name} cannot be served; the pointer was not moved",
            "superseded": "a later epoch holds the pointer; not moved",
            "elsewhere": "the registry's pointer is held by somebody else; it was not moved",
            "local": "no registry; this process serves " + incident.target.name,
        }
        kind = IncidentKind.NO_TARGET if pointer == "no_target" and not incident.drill else incident.kind
        incident = replace(incident, pointer=pointer, kind=kind)
        if self._registry is not None:
            incident = note(incident, self._wall_s(), f"control document at epoch {intent.state.epoch}, weight 0")
        return note(incident, self._wall_s(), words.get(pointer, pointer))

    async def _save(
        self,
        incident: Incident | None,
        step: SagaStep,
        *,
        state: ReleaseState | None = None,
        detail: str = "",
        saga_id: str = "",
    ) -> bool:
        saga_id = saga_id or (incident.incident_id if incident else "")
        row = (saga_id, step, self._wall_s(), detail)
        try:
            await self._offload(lambda: self._journal.record(state=state, incident=incident, step=row))
        except JournalError:
            return False  # The promise on disk stands for it; counted by the journal.
        return True

    async def _steps_of(self, intent: Intent) -> frozenset[SagaStep]:
        try:
            rows = await self._offload(lambda: self._journal.steps(intent.saga_id))
        except GuardError:
            return frozenset()
        return frozenset(row.step for row in rows)

    async def _stored(self, incident: Incident) -> Incident:
        try:
            stored: Incident | None = await self._offload(lambda: self._journal.incident(incident.incident_id))
        except GuardError:
            return incident
        return stored or incident

    async def _told_pending(self, incident: Incident) -> bool:
        try:
            items = await self._offload(lambda: self._journal.outbox(message_id(incident)))
        except GuardError:
            return False
        return any(b'"pointer":"pending"' in item.body for item in items)

    def _noted(self, intent: Intent, what: str) -> Intent:
        return replace(intent, incident=note(intent.incident, self._wall_s(), what))

    def _wall_s(self) -> float:
        return self._clock.wall_s()


def _decided_on(intent: Intent, now: Control) -> bool:
    """The rollback was decided on this document, or on one that came after it here."""
    if not intent.state.own_changes:  # of a rehearsal, or promised by an earlier version
        return now.epoch <= intent.from_epoch
    return may_replace(intent.state, now)
