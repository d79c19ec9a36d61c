"""The journal of one replica in memory: what is recorded survives a crash, and nothing else does.

`MemoryJournal` answers as `guard.release.journal.Journal` does (the same tests run on both); values are frozen, so they
are kept as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from guard.release.incident import Incident
from guard.release.journal import JournalError
from guard.release.records import AuditLine, Intent, OutboxItem, OutboxState, SagaStep, StepRow
from guard.release.state import ReleaseState


@dataclass
class Disk:
    """What is there after a kill."""

    intents: dict[bool, Intent] = field(default_factory=dict)  # by "is a drill"
    states: dict[str, tuple[ReleaseState, float]] = field(default_factory=dict)
    steps: list[StepRow] = field(default_factory=list)
    audit: list[AuditLine] = field(default_factory=list)
    incidents: dict[str, Incident] = field(default_factory=dict)
    outbox: dict[tuple[str, str], OutboxItem] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    promised: list[Intent] = field(default_factory=list)  # every promise that was ever durable
    faulty: bool = False  # refuses to write


class MemoryJournal:
    """One life's way to the disk. check: raises when that life is over."""

    def __init__(self, disk: Disk, check: Callable[[], None] = lambda: None) -> None:
        self._disk, self._check = disk, check

    def close(self) -> None:
        """Nothing to close."""

    def _write(self) -> Disk:
        self._check()
        if self._disk.faulty:
            raise JournalError("disk_fault", "simulated: nothing was saved")
        return self._disk

    def _read(self) -> Disk:
        self._check()
        return self._disk

    def write_intent(self, intent: Intent) -> None:
        disk = self._write()
        disk.intents[intent.incident.drill] = intent
        disk.promised.append(intent)

    def read_intent(self, *, drill: bool = False) -> Intent | None:
        return self._read().intents.get(drill)

    def clear_intent(self, *, drill: bool = False) -> None:
        self._write().intents.pop(drill, None)

    def record(
        self,
        *,
        state: ReleaseState | None = None,
        held_s: float = 0.0,
        incident: Incident | None = None,
        step: tuple[str, SagaStep, float, str] | None = None,
        audit: AuditLine | None = None,
        outbox: Iterable[OutboxItem] = (),
    ) -> None:
        disk = self._write()
        if state is not None:
            disk.states[state.service] = (state, held_s)
        if incident is not None:
            disk.incidents[incident.incident_id] = incident
        if step is not None:
            saga_id, number, wall_s, detail = step
            if not any(row.saga_id == saga_id and row.step is number for row in disk.steps):
                disk.steps.append(StepRow(len(disk.steps) + 1, saga_id, number, wall_s, detail))
        if audit is not None:
            disk.audit.append(audit)
        for item in outbox:
            disk.outbox.setdefault((item.message_id, item.target), replace(item, number=len(disk.outbox) + 1))

    def load_state(self, service: str) -> tuple[ReleaseState, float] | None:
        return self._read().states.get(service)

    def steps(self, saga_id: str) -> tuple[StepRow, ...]:
        return tuple(row for row in self._read().steps if row.saga_id == saga_id)

    def audit(self, limit: int = 200) -> tuple[AuditLine, ...]:
        return tuple(reversed(self._read().audit[-limit:]))

    def incident(self, incident_id: str) -> Incident | None:
        return self._read().incidents.get(incident_id)

    def incidents(self, limit: int = 100, *, only_open: bool = False) -> tuple[Incident, ...]:
        found = [i for i in self._read().incidents.values() if not only_open or i.closed_s is None]
        return tuple(sorted(found, key=lambda i: -i.opened_s)[:limit])

    def pending(self) -> tuple[OutboxItem, ...]:
        return tuple(i for i in self._read().outbox.values() if i.state is OutboxState.PENDING)

    def outbox(self, message_id: str) -> tuple[OutboxItem, ...]:
        return tuple(i for i in self._read().outbox.values() if i.message_id == message_id)

    def settle(self, item: OutboxItem) -> None:
        disk, key = self._write(), (item.message_id, item.target)
        if key in disk.outbox:
            disk.outbox[key] = replace(
                disk.outbox[key], attempts=item.attempts, state=item.state, last_error=item.last_error[:500]
            )

    def disabled_targets(self) -> frozenset[str]:
        return frozenset(self._read().gone)

    def disable_target(self, target: str, wall_s: float) -> None:
        self._write().gone.add(target)
