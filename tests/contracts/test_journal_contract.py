"""The simulated journal answers as the real one: what the fleet simulation finds holds for files, too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guard.release.incident import Incident, IncidentKind
from guard.release.journal import Journal
from guard.release.records import AuditLine, Intent, OutboxItem, OutboxState, SagaStep
from guard.release.state import Phase, ReleaseState
from tests.release_kit import BAD, GOOD, SERVICE
from tests.sim.disk import Disk, MemoryJournal

STATE = ReleaseState(SERVICE, GOOD.name, canary=BAD.name, epoch=2, phase=Phase.ROLLING_BACK, barred=(BAD.name,),
                     base_epoch=1, own_changes=("ab" * 8,))  # fmt: skip
INCIDENT = Incident("inc-1", IncidentKind.ROLLBACK, SERVICE, 100.0, "errors", "8 %", BAD, GOOD, 2)
INTENT = Intent("inc-1", 1, False, STATE, INCIDENT)
ITEM = OutboxItem("msg_1", "pager", "inc-1", b"{}", 100.0)


class Place:
    """A journal that can be closed and opened again."""

    def __init__(self, kind: str, directory: Path) -> None:
        self._disk = Disk() if kind == "simulated" else None
        self._directory = directory
        self.journal: Any = self._open()

    def _open(self) -> Any:
        return Journal(self._directory / "state") if self._disk is None else MemoryJournal(self._disk)

    def again(self) -> Any:
        self.journal.close()
        self.journal = self._open()
        return self.journal


@pytest.fixture(params=["files", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(request.param, tmp_path)
    yield made
    made.journal.close()


def test_a_promise_is_there_until_it_is_cleared(place: Place) -> None:
    assert place.journal.read_intent() is None
    place.journal.write_intent(INTENT)
    assert place.again().read_intent() == INTENT
    assert place.journal.read_intent(drill=True) is None
    place.journal.clear_intent()
    assert place.again().read_intent() is None


def test_the_last_state_counts_and_a_repeated_step_keeps_its_first_line(place: Place) -> None:
    assert place.journal.load_state(SERVICE) is None
    place.journal.record(state=replace(STATE, epoch=1), step=("inc-1", SagaStep.RECORDED, 1.0, "first"))
    place.journal.record(state=STATE, held_s=4.0, step=("inc-1", SagaStep.RECORDED, 2.0, "second"))
    place.journal.record(step=("inc-2", SagaStep.CONTROL, 3.0, "other"))
    place.journal.record(step=("inc-1", SagaStep.POINTER, 4.0, "at_target"))
    journal = place.again()
    assert journal.load_state(SERVICE) == (STATE, 4.0)
    assert [(r.step, r.wall_s, r.detail) for r in journal.steps("inc-1")] == [
        (SagaStep.RECORDED, 1.0, "first"),
        (SagaStep.POINTER, 4.0, "at_target"),
    ]


def test_incidents_are_replaced_and_come_newest_first(place: Place) -> None:
    closed = replace(INCIDENT, incident_id="inc-2", opened_s=200.0, closed_s=300.0)
    for incident in (INCIDENT, closed, replace(INCIDENT, pointer="at_target")):
        place.journal.record(incident=incident)
    journal = place.again()
    assert [i.incident_id for i in journal.incidents()] == ["inc-2", "inc-1"]
    assert journal.incidents(only_open=True) == (replace(INCIDENT, pointer="at_target"),)
    assert journal.incidents(1) == (closed,)
    assert journal.incident("inc-3") is None


def test_the_outbox_takes_a_message_once_per_target(place: Place) -> None:
    other = replace(ITEM, target="mail")
    place.journal.record(outbox=(ITEM, other))
    place.journal.record(outbox=(replace(ITEM, body=b"changed"),))
    assert [(i.message_id, i.target, i.body, i.number) for i in place.again().pending()] == [
        ("msg_1", "pager", b"{}", 1), ("msg_1", "mail", b"{}", 2),
    ]  # fmt: skip
    place.journal.settle(replace(ITEM, attempts=2, state=OutboxState.DELIVERED))
    place.journal.settle(replace(ITEM, message_id="msg_9", state=OutboxState.DELIVERED))
    journal = place.again()
    assert [i.target for i in journal.pending()] == ["mail"]
    assert [(i.target, i.state, i.attempts) for i in journal.outbox("msg_1")] == [
        ("pager", OutboxState.DELIVERED, 2), ("mail", OutboxState.PENDING, 0),
    ]  # fmt: skip
    assert journal.outbox("msg_9") == ()


def test_audit_lines_come_newest_first_and_a_target_that_is_gone_stays_gone(place: Place) -> None:
    for number in range(3):
        place.journal.record(audit=AuditLine(float(number), "start", "ann", "a", "b"))
    place.journal.disable_target("pager 0123", 5.0)
    journal = place.again()
    assert [line.wall_s for line in journal.audit(2)] == [2.0, 1.0]
    assert journal.disabled_targets() == frozenset({"pager 0123"})
