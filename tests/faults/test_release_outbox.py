"""The outbox in virtual time: schedule, order, 410, outages of a day, restarts, full disks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from guard.release.journal import Journal, JournalError
from guard.release.outbox import Outbox
from guard.release.records import OutboxItem, OutboxState
from guard.release.webhook import Delivery, Sent
from slo.clock import LoopClock
from tests.conftest import VIRTUAL
from tests.release_kit import Receiver, inline

pytestmark = pytest.mark.anyio
DAY = 86_400.0


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path)
    yield made
    made.close()


class Box:
    """An outbox with one receiver and everything it says."""

    def __init__(self, journal: Journal, *receivers: Receiver) -> None:
        self.journal = journal
        self.results: list[str] = []
        self.pages: list[tuple[str, str]] = []
        self.clock = LoopClock()
        self.outbox = Outbox(
            journal,
            {r.identity.split()[0]: r for r in receivers},
            self.clock,
            on_delivery=self.results.append,
            on_page=lambda reason, item: self.pages.append((reason, item.message_id)),
            offload=inline,
        )
        self.task = asyncio.create_task(self.outbox.run())

    def send(self, message_id: str, incident: str = "inc-1", *, urgent: bool = True) -> None:
        items = self.outbox.items(message_id, incident, b"{}", urgent=urgent)
        self.journal.record(outbox=items)
        self.outbox.add(items, saved=True)


def tries(receiver: Receiver) -> list[float]:
    return [round(at_s, 3) for at_s, _ in receiver.tried]


async def test_a_rollback_is_tried_at_0_1_2_5_10_30_then_paged_and_goes_on_for_a_day(journal: Journal) -> None:
    receiver = Receiver(forever=Delivery.HTTP_ERROR)
    box = Box(journal, receiver)
    box.send("msg_1")
    await asyncio.sleep(29)
    assert (tries(receiver), box.pages) == ([0, 1, 2, 5, 10], [])
    assert box.outbox.late_count == 0
    await asyncio.sleep(2)
    assert (box.pages, box.outbox.late_count) == ([("webhook_late", "msg_1")], 1)
    await asyncio.sleep(2 * DAY)
    assert tries(receiver) == [0, 1, 2, 5, 10, 30, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400, 86700]
    assert box.pages == [("webhook_late", "msg_1"), ("webhook_expired", "msg_1")]
    assert box.results[-1] == "expired"
    assert journal.outbox("msg_1")[0].state is OutboxState.EXPIRED
    box.task.cancel()


async def test_a_receiver_that_was_away_for_a_day_gets_everything_in_order(journal: Journal) -> None:
    receiver = Receiver(forever=Delivery.CONNECT_ERROR)
    box = Box(journal, receiver)
    for n in range(3):
        box.send(f"msg_{n}")
        await asyncio.sleep(1)
    await asyncio.sleep(DAY - 3)
    assert {ident for _, ident in receiver.tried} == {"msg_0"}  # later ones wait for the first
    receiver.forever = None
    await asyncio.sleep(400)
    assert [item.message_id for item in receiver.got] == ["msg_0", "msg_1", "msg_2"]
    assert box.outbox.waiting_count == 0
    box.task.cancel()


async def test_incidents_and_receivers_do_not_wait_for_each_other(journal: Journal) -> None:
    bad, good = Receiver("bad", forever=Delivery.TIMEOUT), Receiver("good")
    box = Box(journal, bad, good)
    box.send("msg_a", "inc-a")
    box.send("msg_b", "inc-b")
    await asyncio.sleep(0.5)
    assert [i.message_id for i in good.got] == ["msg_a", "msg_b"]
    assert [ident for _, ident in bad.tried] == ["msg_a", "msg_b"]
    assert not await box.outbox.delivered("msg_a")
    box.task.cancel()


class Hanging(Receiver):
    """Takes the connection and says nothing for 15 s."""

    async def send(self, item: OutboxItem) -> Sent:
        sent = await super().send(item)
        await asyncio.sleep(15)
        return sent


async def test_what_happens_while_a_receiver_hangs_is_told_to_the_others_at_once(journal: Journal) -> None:
    hangs, good = Hanging("hangs", forever=Delivery.TIMEOUT), Receiver("good")
    box = Box(journal, hangs, good)
    box.send("msg_page", "inc-page")
    await asyncio.sleep(1)
    box.send("msg_rollback", "inc-rollback")
    await asyncio.sleep(1)
    assert [i.message_id for i in good.got] == ["msg_page", "msg_rollback"]
    assert tries(hangs) == [0, 1]  # of two incidents, each on its own
    await box.outbox.deliver_due()  # a rehearsal beside it sends nothing twice
    assert tries(hangs) == [0, 1]
    await asyncio.sleep(30)
    assert tries(hangs) == [0, 1, 30, 31]
    box.task.cancel()


async def test_410_disables_the_receiver_and_alerts_and_a_restart_remembers(journal: Journal) -> None:
    receiver = Receiver("pager", Delivery.GONE)
    box = Box(journal, receiver)
    box.send("msg_1")
    box.send("msg_2")
    await asyncio.sleep(1)
    assert box.pages == [("webhook_disabled", "msg_1")]
    assert len(receiver.tried) == 1
    assert [journal.outbox(m)[0].state for m in ("msg_1", "msg_2")] == [OutboxState.DISABLED] * 2
    assert (box.outbox.disabled, box.outbox.waiting_count) == (("pager",), 0)
    box.task.cancel()
    again = Box(journal, receiver)
    again.send("msg_3")
    await asyncio.sleep(1)
    assert len(receiver.tried) == 1
    assert again.outbox.disabled == ("pager",)
    again.task.cancel()
    moved = Receiver("pager")
    moved.identity = "pager another-url"
    third = Box(journal, moved)
    third.send("msg_4")
    await asyncio.sleep(1)
    assert [i.message_id for i in moved.got] == ["msg_4"]
    assert third.outbox.disabled == ()
    third.task.cancel()


async def test_after_a_restart_what_is_pending_goes_out_at_once(journal: Journal) -> None:
    receiver = Receiver(forever=Delivery.HTTP_ERROR)
    box = Box(journal, receiver)
    box.send("msg_1")
    await asyncio.sleep(4000)
    box.task.cancel()
    receiver.forever = None
    again = Box(journal, receiver)
    started_s = again.clock.now_s()
    await asyncio.sleep(0.1)
    assert (receiver.tried[-1][0] - started_s, [i.message_id for i in receiver.got]) == (0.0, ["msg_1"])
    assert journal.pending() == ()
    again.task.cancel()


async def test_calm_messages_are_not_hammered(journal: Journal) -> None:
    receiver = Receiver(forever=Delivery.HTTP_ERROR)
    box = Box(journal, receiver)
    box.send("msg_1", urgent=False)
    await asyncio.sleep(2000)
    assert (tries(receiver), box.pages) == ([0, 5, 300, 1800], [])
    box.task.cancel()


async def test_a_disk_that_refuses_costs_no_message(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver("pager", *[Delivery.HTTP_ERROR] * 3)
    box = Box(journal, receiver)

    def full(**_words: object) -> None:
        raise JournalError("disk_full", "release.db: writing failed")

    monkeypatch.setattr(journal, "record", full)
    box.outbox.add(box.outbox.items("msg_1", "inc-1", b"{}"), saved=False)
    await asyncio.sleep(3)
    monkeypatch.undo()
    await asyncio.sleep(10)
    assert [i.message_id for i in receiver.got] == ["msg_1"]
    assert journal.outbox("msg_1")[0].state is OutboxState.DELIVERED
    box.task.cancel()


async def test_a_message_is_taken_once_however_often_it_is_added(journal: Journal) -> None:
    receiver = Receiver()
    box = Box(journal, receiver)
    box.send("msg_1")
    box.send("msg_1")
    await asyncio.sleep(1)
    assert len(receiver.got) == 1
    assert len(journal.outbox("msg_1")) == 1
    box.task.cancel()
