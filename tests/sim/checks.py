"""What must hold at every moment, and what must be true when the weather has been calm for a while.

At every moment
  * traffic of a version is raised only to what a control document says, at that document's epoch (so a replica that is
    cut off can set its own weight 0, return to the version before a promotion, and nothing else);
  * a version that a replica has promised to take out gets traffic there again only by a document that the decision
    did not know: a later one, or one that somebody wrote meanwhile;
  * control documents have growing epochs, and none is replaced by a decision that did not know it;
  * the pointer moves at most once per rollback, and never against a later document;
  * the same decision (rule, version, epoch) has the same incident id everywhere.

In the end
  * everybody serves what the control document says, and the pointer shows its stable version;
  * every promise was kept: done, nothing owed, nothing waiting in an outbox;
  * of every rollback that won the receiver has exactly one message (by id), and the pointer was moved exactly once
    unless a later document came first;
  * no version that somebody is sure is bad is left in traffic, as far as a rollback can take it out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from guard.release.control import control_of
from guard.release.incident import Incident, IncidentKind
from guard.release.records import Intent, OutboxItem, SagaStep
from guard.release.state import Phase, ReleaseState
from registry.model import Control
from tests.release_kit import BAD, SERVICE
from tests.sim.disk import Disk
from tests.sim.registry import MemoryRegistry

_ROLLED = (Phase.ROLLING_BACK, Phase.ROLLED_BACK)


def content(c: Control) -> tuple[Any, ...]:
    """What replicas obey of a document."""
    return c.epoch, c.stable, c.canary, c.canary_ratio


class Watch:
    """Sees everything."""

    def __init__(self, registry: MemoryRegistry) -> None:
        self._registry = registry
        self.violations: list[str] = []
        self.trace: Callable[[Any, str], None] = lambda _who, _what: None
        self.got: list[OutboxItem] = []
        self.decided: set[str] = set()  # messages of incidents that a replica ever had
        self.superseded_count = 0
        self._epochs: dict[str, int] = {}  # of incidents
        self._decisions: set[tuple[int, str]] = set()  # replica and saga, weight taken away on a sound disk
        self._last: dict[int, ReleaseState | None] = {}
        self._fresh: set[int] = set()
        self._known: dict[int, set[int]] = {}  # epochs of documents that a replica has obeyed or written
        self._ids: dict[tuple[str, str, str], str] = {}
        self._knew: dict[str, dict[int, frozenset[tuple[Any, ...]]]] = {}  # saga -> replica -> documents it knew
        self._history_seen = 0
        self._own: dict[int, set[tuple[Any, ...]]] = {}  # contents that a replica has served

    def violated(self, what: str) -> None:
        self.trace(None, f"VIOLATION {what}")
        self.violations.append(what)

    # -- while it runs --------------------------------------------------------------------------------------------

    def starts(self, index: int, disk: Disk) -> None:
        """A life begins; the first state it applies comes from its disk, and it knows nothing later than that."""
        self._fresh.add(index)
        recorded, intent = disk.states.get(SERVICE), disk.intents.get(False)
        newest = max(recorded[0].epoch if recorded else 0, intent.from_epoch if intent else 0)
        self._known[index] = {epoch for epoch in self._known.get(index, ()) if epoch <= newest}
        self._own[index] = {each for each in self._own.get(index, ()) if each[0] <= newest}

    def applied(self, index: int, disk: Disk, state: ReleaseState) -> None:
        """A replica serves this from now on."""
        self._documents()
        document = next((c for c in reversed(self._registry.history) if c.epoch == state.epoch), None)
        said = document is not None and content(document) == content(control_of(state))
        known = self._known.setdefault(index, set())
        if said:
            known.add(state.epoch)
        fresh = index in self._fresh
        before = None if fresh else self._last.get(index)
        if fresh:
            self._fresh.discard(index)
            self._restored(index, disk, state)
        elif before is not None and not said:
            if state.canary_ratio > (before.canary_ratio if before.canary == state.canary else 0.0):
                self.violated(f"{index} raised {state.canary} to {state.canary_ratio:g} at {state.epoch}: no document")
            if state.stable != before.stable and state.phase not in _ROLLED:
                self.violated(f"{index} serves {state.stable} as stable at {state.epoch}: no document says so")
        self._last[index] = state
        own = self._own.setdefault(index, set())
        if state.phase is Phase.ROLLING_BACK:
            self._epochs.setdefault(state.incident_id, state.epoch)
            deciders = self._knew.setdefault(state.incident_id, {})
            if index not in deciders:
                deciders[index] = frozenset(own) | {content(c) for c in self._registry.history if c.epoch in known}
        own.add(content(control_of(state)))
        kept = before is not None and before.stable == state.stable == BAD.name  # more of it, by taking another out
        if fresh and disk.intents.get(False) is None:
            return  # as it was recorded: `_restored` has looked, and no promise stands
        if kept or (before is not None and _share(before, BAD.name) >= _share(state, BAD.name)):
            return
        served = {state.stable} | ({state.canary} if state.in_traffic else set())
        for intent in disk.promised:
            bad = intent.incident.bad.name
            if bad not in served or intent.incident.drill:
                continue
            decided_on = self._knew.get(intent.saga_id, {}).get(index, frozenset())
            if document is None or not _serves(document, bad) or content(document) in decided_on:
                self.violated(f"{index} gives {bad} traffic at epoch {state.epoch} after promising to take it out")

    def _restored(self, index: int, disk: Disk, state: ReleaseState) -> None:
        recorded = disk.states.get(SERVICE)
        intent = disk.intents.get(False)
        allowed = {(recorded[0].stable, recorded[0].canary, recorded[0].canary_ratio)} if recorded else set()
        if intent is not None:
            allowed.add((intent.state.stable, intent.state.canary, 0.0))
        if recorded is None and intent is None:
            return
        if (state.stable, state.canary, state.canary_ratio) not in allowed:
            self.violated(f"{index} came back with a split that was never committed: {state}")

    def passed(self, index: int, point: str, sound: bool) -> None:
        """A saga passes a point. sound: its disk takes what it is given, at once."""
        state = self._last.get(index)
        if point not in ("weight_zero:effect", "control:begin") or state is None:
            return
        if state.phase not in _ROLLED:
            self.violated(f"{index} is at {point} and still serves {_brief(state)}")
        elif point == "weight_zero:effect" and sound:
            self._decisions.add((index, state.incident_id))

    def told(self, index: int, incident: Incident) -> None:
        """An incident opened or changed."""
        self.decided.add(incident.outbox_id)
        self._epochs[incident.incident_id] = incident.epoch
        if incident.kind is not IncidentKind.ROLLBACK or incident.pointer != "at_target":
            return
        pointer = self._registry.production(SERVICE)
        moved = any(
            m.rollback_to and incident.epoch in (m.epoch, self._epochs.get(m.key)) for m in self._registry.moves
        )
        if not moved and (pointer is None or pointer.version != incident.target.name):
            self.violated(f"{index} says that the pointer shows {incident.target.name}; it was never moved")

    def received(self, item: OutboxItem) -> None:
        self.got.append(item)

    def _documents(self) -> None:
        """Look at documents that are new."""
        history = self._registry.history
        for at in range(self._history_seen, len(history)):
            now, before = history[at], history[at - 1] if at else None
            if before is not None and now.epoch <= before.epoch:
                self.violated(f"control went from epoch {before.epoch} to {now.epoch}")
            knew = self._knew.get(now.incident_id) if now.phase == "rolled_back" else None
            if before is not None and knew and not any(content(before) in each for each in knew.values()):
                self.violated(f"rollback at {now.epoch} replaced epoch {before.epoch}, which its decider did not know")
        self._history_seen = len(history)

    # -- in the end -----------------------------------------------------------------------------------------------

    def end(self, disks: list[Disk], lives: list[tuple[int, Any, Any]]) -> None:
        self._documents()
        intents = [i for disk in disks for i in disk.promised if not i.incident.drill]
        self._same_ids(intents)
        self._one_move_each()
        control = self._registry.control(SERVICE)
        if control is None:
            self.violated("the control document is gone")
            return
        for index, controller, outbox in lives:
            state = controller.state
            if content(control_of(state)) != content(control):
                self.violated(f"{index} ends at {_brief(state)}, the document says {content(control)}")
            if controller.status().pending:
                self.violated(f"{index} still owes: {controller.status().pending}")
            if outbox.waiting_count:
                self.violated(f"{index} has {outbox.waiting_count} messages waiting")
            self._nothing_bad_left(index, controller)
        pointer = self._registry.production(SERVICE)
        if pointer is None or pointer.version != control.stable:
            self.violated(f"the pointer is at {pointer.version if pointer else None}, stable is {control.stable}")
        for index, disk in enumerate(disks):
            self._promises_kept(index, disk)
        self._told_once(disks)

    def _same_ids(self, intents: list[Intent]) -> None:
        for intent in intents:
            key = (intent.incident.rule, intent.incident.bad.name, intent.state.own_changes[-2])  # decided on
            if self._ids.setdefault(key, intent.saga_id) != intent.saga_id:
                self.violated(f"{key} has the incidents {self._ids[key]} and {intent.saga_id}")

    def _one_move_each(self) -> None:
        """Counted by the decision, whatever a move carries as its epoch or key."""
        history = self._registry.history
        moved: dict[tuple[str, int], int] = {}
        for move in self._registry.moves:
            if move.rollback_to is None:
                continue
            epoch = self._epochs.get(move.key, move.epoch or 0)
            moved[move.version, epoch] = moved.get((move.version, epoch), 0) + 1
            control = move.control
            if control is not None and control.epoch > epoch and control.stable != move.rollback_to:
                self.violated(f"a rollback of epoch {epoch} moved the pointer against epoch {control.epoch}")
        for key, count in moved.items():
            if count > 1:
                self.violated(f"the pointer was moved {count} times for {key}")
        if not history or history[-1].phase != "rolled_back":
            return  # a later document may have come before the pointer
        if not any(epoch == history[-1].epoch for _, epoch in moved):
            self.violated(f"the rollback at epoch {history[-1].epoch} never moved the pointer")

    def _nothing_bad_left(self, index: int, controller: Any) -> None:
        action = controller._last[0] if controller._last else None
        state = controller.state
        rolls = action is not None and action.kind.value == "roll_back"
        if rolls and (state.canary if state.in_traffic else state.stable) == BAD.name:
            self.violated(f"{index} is sure that {BAD.name} is bad and serves it in the end: {_brief(state)}")

    def _promises_kept(self, index: int, disk: Disk) -> None:
        left = disk.intents.get(False)
        if left is not None and not any(r.saga_id == left.saga_id and r.step is SagaStep.DONE for r in disk.steps):
            self.violated(f"{index} still has a promise on its disk that was not kept")
        for intent in disk.promised:
            steps = {row.step for row in disk.steps if row.saga_id == intent.saga_id}
            if SagaStep.DONE not in steps:
                self.violated(f"{index} promised {intent.saga_id} and never finished it (steps {sorted(steps)})")
            incident = disk.incidents.get(intent.saga_id)
            if incident is None:
                self.violated(f"{index} lost the incident {intent.saga_id}")
            elif incident.pointer == "superseded":
                self.superseded_count += 1

        for who, saga_id in sorted(self._decisions):
            if who == index and not any(r.saga_id == saga_id and r.step is SagaStep.DONE for r in disk.steps):
                self.violated(f"{index} decided {saga_id} and it is lost")

    def _told_once(self, disks: list[Disk]) -> None:
        """By message id: exactly one of each rollback that won. Corrections (`-2`) belong to it."""
        ids = {item.message_id.removesuffix("-2") for item in self.got}
        won = [c for c in self._registry.history if c.phase == "rolled_back"]
        for document in won:
            if document.outbox_id not in ids:
                self.violated(f"the rollback at epoch {document.epoch} was told to nobody")
        allowed = {i.incident.outbox_id for disk in disks for i in disk.promised}
        allowed |= {incident.outbox_id for disk in disks for incident in disk.incidents.values()} | self.decided
        for extra in sorted(ids - allowed):
            self.violated(f"a message {extra} that belongs to no decision")
        by_incident: dict[str, set[str]] = {}
        for item in self.got:
            by_incident.setdefault(item.incident_id, set()).add(item.message_id.removesuffix("-2"))
        for incident_id, found in by_incident.items():
            if len(found) > 1:
                self.violated(f"{incident_id} was told {len(found)} times: {sorted(found)}")


def _serves(control: Control, name: str) -> bool:
    return control.stable == name or (control.canary == name and control.canary_ratio > 0)


def _share(state: ReleaseState, name: str) -> float:
    """Share of the sessions that a version answers."""
    return (1.0 - state.canary_ratio if state.stable == name else 0.0) + (
        state.canary_ratio if state.canary == name else 0.0
    )


def _brief(state: ReleaseState) -> str:
    return f"epoch {state.epoch} {state.phase} stable {state.stable} canary {state.canary}@{state.canary_ratio:g}"
