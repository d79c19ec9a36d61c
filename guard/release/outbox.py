"""Messages that must arrive: on disk until delivered, in order per incident, for 24 hours.

Tries happen at fixed ages of the message: 0, 1, 2, 5, 10 and 30 s for urgent ones, then a person is paged while the
tries go on at 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h. After a restart everything pending is tried at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from guard.release.journal import Journal, JournalError
from guard.release.records import OutboxItem, OutboxState
from guard.release.webhook import Delivery, Sender
from slo.clock import Clock

T = TypeVar("T")
Offload = Callable[[Callable[[], Any]], Awaitable[Any]]

URGENT_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
# The last try is past 24 h, so that a receiver that was away for exactly a day still gets the message.
BACKOFF_S = (300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0, 86_700.0)
CALM_S = (0.0, 5.0, *BACKOFF_S)


async def in_thread(call: Callable[[], T]) -> T:
    """Run a call that waits for the disk off the event loop."""
    return await asyncio.to_thread(call)


@dataclass(slots=True)
class _Waiting:
    """An item and when it was first seen by this process; its age goes on from there on the monotonic clock."""

    item: OutboxItem
    origin_s: float  # monotonic second at which the item's age was 0
    due_s: float
    paged: bool = False
    saved: bool = True
    busy: bool = False


class Outbox:
    """Delivers what the journal holds.

    senders: target name -> sender. wants: target name -> event kinds (see `payload.event_kind`) that it is told of; a
    target without an entry is told of all. on_delivery: told the result of every try. on_page: (reason, item) when a
    person has to know: `webhook_late` (fast tries used up), `webhook_disabled` (410), `webhook_expired`.
    """

    def __init__(
        self,
        journal: Journal,
        senders: Mapping[str, Sender],
        clock: Clock,
        *,
        wants: Mapping[str, Collection[str]] | None = None,
        on_delivery: Callable[[str], None] = lambda _result: None,
        on_page: Callable[[str, OutboxItem], None] = lambda _reason, _item: None,
        offload: Offload = in_thread,
    ) -> None:
        self._journal, self._senders, self._clock = journal, dict(senders), clock
        self._wants = {name: frozenset(events) for name, events in (wants or {}).items()}
        self._on_delivery, self._on_page, self._offload = on_delivery, on_page, offload
        self._waiting: dict[tuple[str, str], _Waiting] = {}
        self._settled: dict[str, OutboxState] = {}
        self._gone: frozenset[str] = frozenset()
        self._loaded = False
        self._changed = asyncio.Event()

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the configured targets."""
        return tuple(self._senders)

    @property
    def waiting_count(self) -> int:
        """Messages not delivered yet."""
        return len(self._waiting)

    @property
    def late_count(self) -> int:
        """Of these the urgent ones whose fast tries are used up."""
        return sum(waiting.paged for waiting in self._waiting.values())

    @property
    def disabled(self) -> tuple[str, ...]:
        """Names of targets that answered 410: not called again until their URL changes."""
        return tuple(name for name, sender in self._senders.items() if sender.identity in self._gone)

    def targets_of(self, event: str) -> tuple[str, ...]:
        """Names of the targets that are told of this kind of event; of an event without a kind all are."""
        return tuple(n for n in self._senders if not event or n not in self._wants or event in self._wants[n])

    def items(
        self, message_id: str, incident_id: str, body: bytes, *, event: str = "", urgent: bool = True
    ) -> tuple[OutboxItem, ...]:
        """One item per target that wants the event, to be recorded with the step that causes them."""
        now_s = self._clock.wall_s()
        return tuple(OutboxItem(message_id, name, incident_id, body, now_s, urgent) for name in self.targets_of(event))

    async def load(self) -> None:
        """Take over what an earlier process left; it is due at once."""
        pending = await self._offload(self._journal.pending)
        self._gone = await self._offload(self._journal.disabled_targets)
        self._loaded = True
        for item in pending:
            age_s = max(0.0, self._clock.wall_s() - item.created_s)
            self._take(item, origin_s=self._clock.now_s() - age_s, saved=True)

    def add(self, items: Iterable[OutboxItem], *, saved: bool) -> None:
        """Deliver these from now on. saved False: the disk refused them, they live here until it takes them."""
        for item in items:
            self._take(item, origin_s=self._clock.now_s(), saved=saved)
        self._changed.set()

    async def run(self) -> None:
        """Deliver forever; cancel to stop. Whatever is unfinished is on disk.

        Tries are tasks of their own: a receiver that says nothing for 15 s must not keep what happens meanwhile from
        all others.
        """
        if not self._loaded:
            await self.load()
        async with asyncio.TaskGroup() as tries:
            while True:
                self._changed.clear()
                for waiting in self._take_due():
                    tries.create_task(self._try(waiting))
                due_s = min((w.due_s for w in self._heads() if not w.busy), default=None)
                if due_s is None:
                    await self._changed.wait()
                    continue
                try:
                    async with asyncio.timeout(max(0.0, due_s - self._clock.now_s())):
                        await self._changed.wait()
                except TimeoutError:
                    pass  # Something is due.

    async def deliver_due(self) -> None:
        """Try every message that is due and first in its incident's order, and wait for all of these tries."""
        due = self._take_due()
        try:
            await asyncio.gather(*(self._try(waiting) for waiting in due))
        except asyncio.CancelledError:
            for waiting in due:  # also of a try that had not begun
                waiting.busy = False
            raise

    async def delivered(self, message_id: str) -> bool:
        """Every target has the message."""
        if any(key[0] == message_id for key in self._waiting):
            return False
        items = await self._offload(lambda: self._journal.outbox(message_id))
        return bool(items) and all(item.state is OutboxState.DELIVERED for item in items)

    # -- inside -------------------------------------------------------------------------------------------------

    def _take(self, item: OutboxItem, *, origin_s: float, saved: bool) -> None:
        key = (item.message_id, item.target)
        if key in self._waiting or item.target not in self._senders:
            return
        self._waiting[key] = _Waiting(item, origin_s, due_s=self._clock.now_s(), saved=saved)

    def _heads(self) -> list[_Waiting]:
        """The oldest message of each incident at each target; later ones wait for it."""
        heads: dict[tuple[str, str], _Waiting] = {}
        for waiting in self._waiting.values():  # insertion order is the order of events
            heads.setdefault((waiting.item.target, waiting.item.incident_id), waiting)
        return list(heads.values())

    def _take_due(self) -> list[_Waiting]:
        """What is due and nobody is trying; from now on it is being tried."""
        now_s = self._clock.now_s()
        due = [waiting for waiting in self._heads() if waiting.due_s <= now_s and not waiting.busy]
        for waiting in due:
            waiting.busy = True
        return due

    async def _try(self, waiting: _Waiting) -> None:
        try:
            await self._try_once(waiting)
        finally:
            waiting.busy = False
            self._changed.set()  # The next of the same incident may go now.

    async def _try_once(self, waiting: _Waiting) -> None:
        item = waiting.item
        sender = self._senders[item.target]
        if sender.identity in self._gone:
            await self._finish(waiting, OutboxState.DISABLED, "HTTP 410 before; change the URL to send again")
            return
        sent = await sender.send(item)
        self._on_delivery(sent.result.value)
        waiting.item = item = replace(item, attempts=item.attempts + 1, last_error=sent.detail)
        if sent.result is Delivery.DELIVERED:
            await self._finish(waiting, OutboxState.DELIVERED, "")
        elif sent.result is Delivery.GONE:
            self._gone |= {sender.identity}
            await self._save(lambda: self._journal.disable_target(sender.identity, self._clock.wall_s()))
            self._on_page("webhook_disabled", item)
            await self._finish(waiting, OutboxState.DISABLED, sent.detail)
        else:
            await self._again(waiting)

    async def _again(self, waiting: _Waiting) -> None:
        ages = (*URGENT_S, *BACKOFF_S) if waiting.item.urgent else CALM_S
        age_s = self._clock.now_s() - waiting.origin_s
        # By age alone: a slow receiver skips tries it had no time for, and restarts use none up. The small allowance
        # keeps a timer that fires a hair early from doubling a try.
        left = [at for at in ages if at > age_s + 0.05]
        fast_used_up = age_s + 0.05 >= URGENT_S[-1]
        if waiting.item.urgent and fast_used_up and not waiting.paged:
            waiting.paged = True
            self._on_page("webhook_late", waiting.item)
        if not left:
            self._on_delivery(Delivery.EXPIRED.value)
            self._on_page("webhook_expired", waiting.item)
            await self._finish(waiting, OutboxState.EXPIRED, waiting.item.last_error)
            return
        waiting.due_s = waiting.origin_s + left[0]
        await self._keep(waiting)

    async def _finish(self, waiting: _Waiting, state: OutboxState, error: str) -> None:
        waiting.item = replace(waiting.item, state=state, last_error=error)
        await self._keep(waiting)
        self._waiting.pop((waiting.item.message_id, waiting.item.target), None)

    async def _keep(self, waiting: _Waiting) -> None:
        item = waiting.item
        if not waiting.saved:
            waiting.saved = await self._save(lambda: self._journal.record(outbox=(item,)))
        if waiting.saved:
            # A settle that is lost costs one more try with the same id, which the receiver drops.
            await self._save(lambda: self._journal.settle(item))

    async def _save(self, write: Callable[[], None]) -> bool:
        try:
            await self._offload(write)
        except JournalError:
            return False  # Counted by the journal's on_fault; the message stays in memory.
        return True
