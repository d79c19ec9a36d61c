"""Deliveries of Alertmanager on their way to the disk: those that wait together are written together.

A storm comes as hundreds of deliveries at once, and each forced write takes milliseconds. One transaction for all that
wait costs one of them, and everybody is answered when it is on the disk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from guard.admin.shapes import AlertBatch, AlertsStored
from guard.outside import OutsideAlerts
from guard.state_files import AlertStore
from slo.clock import Clock

MAX_TOGETHER = 4000
"""Alerts in one transaction, about: the first of a storm must not wait for all of it."""


@dataclass(slots=True)
class _Waiting:
    batch: AlertBatch
    about: str
    answer: asyncio.Future[AlertsStored]


class AlertIntake:
    """Stores deliveries, then hands them to the rules that name their alerts. One event loop."""

    def __init__(self, store: AlertStore, outside: OutsideAlerts, clock: Clock) -> None:
        self._store, self._outside, self._clock = store, outside, clock
        self._waiting: deque[_Waiting] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def take(self, batch: AlertBatch) -> AlertsStored:
        """Return when the delivery is on the disk.

        Raises:
            OSError: it could not be stored; nothing of it is known then.
        """
        loop = asyncio.get_running_loop()
        one = _Waiting(batch, self._outside.newest_release(), loop.create_future())
        self._waiting.append(one)
        if self._writer is None or self._writer.done():
            self._writer = loop.create_task(self._write())
        return await one.answer

    async def _write(self) -> None:
        while self._waiting:
            together: list[_Waiting] = []
            count = 0
            while self._waiting and (not together or count + len(self._waiting[0].batch.alerts) <= MAX_TOGETHER):
                one = self._waiting.popleft()
                together.append(one)
                count += len(one.batch.alerts)
            wall_s = self._clock.wall_s()
            deliveries = [(one.batch, one.about) for one in together]
            try:
                stored = await asyncio.to_thread(self._store.store_all, deliveries, wall_s)
            except BaseException as error:
                for one in together:
                    if not one.answer.done():
                        one.answer.set_exception(error if isinstance(error, OSError) else OSError(f"{error!r}"))
                if not isinstance(error, Exception):
                    raise
                continue
            for one, counts in zip(together, stored, strict=True):
                self._outside.take(one.batch.alerts, wall_s, one.about)
                if not one.answer.done():  # the sender may have gone away
                    one.answer.set_result(counts)
