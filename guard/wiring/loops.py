"""What runs beside the requests: loops whose end is noticed, lag, free memory, windows that outlast the process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from exporters.prometheus import PrometheusExporter
from guard.judge import Vitals
from guard.state_files import load_windows, save_windows
from slo.clock import Clock
from slo.errors import DataError
from slo.sources.memory import MemorySource

log = logging.getLogger("sft-guard")

SAVE_EVERY_S = 30.0
LAG_EVERY_S = 0.05
GIVE_BACK_EVERY_S = 30.0


class Loops:
    """The background tasks of one guard."""

    def __init__(self, exporter: PrometheusExporter) -> None:
        self._exporter = exporter
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False

    def begin(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        """Run it until `cancel`; it is not meant to end by itself."""
        task = asyncio.create_task(loop, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def dead(self) -> tuple[str, ...]:
        """Names of loops that ended all the same; nothing while a guard stops, which ends them on purpose."""
        return () if self._ending else tuple(task.get_name() for task in self._tasks if task.done())

    async def cancel(self) -> None:
        """End them all and wait for it."""
        self._ending = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            # The answers go on without it; a silent end would be the worst of both.
            log.error("the loop %s ended: %r", task.get_name(), error)
            self._exporter.fail_open("loop", task.get_name())


async def watch_lag(vitals: Vitals, clock: Clock) -> None:
    """For ever: tell the vitals by how much this event loop wakes up late."""
    while True:
        due_s = clock.now_s() + LAG_EVERY_S
        await clock.sleep(LAG_EVERY_S)
        vitals.lagged(clock.now_s() - due_s)


async def give_memory_back(give_back: Callable[[], bool], clock: Clock) -> None:
    """For ever: return what is free in the C heap to the system, in another thread."""
    while True:
        await clock.sleep(GIVE_BACK_EVERY_S)
        with contextlib.suppress(RuntimeError):  # no thread to be had now
            await asyncio.to_thread(give_back)


class KeptWindows:
    """The windows of this process with their files in the state directory."""

    def __init__(self, state_dir: Path, memory: MemorySource, exporter: PrometheusExporter, clock: Clock) -> None:
        self._state_dir, self._memory, self._exporter, self._clock = state_dir, memory, exporter, clock

    def load(self) -> None:
        """Go on where the last process ended; without its files the windows begin empty."""
        try:
            pieces = load_windows(self._state_dir)
            if pieces:
                self._memory.load_pieces(pieces)
        except (DataError, ValueError) as error:
            log.warning("windows: %s", error)

    async def run(self) -> None:
        """For ever: write them down every half minute."""
        while True:
            await self._clock.sleep(SAVE_EVERY_S)
            try:
                await asyncio.to_thread(self._save)
            except OSError as error:
                self._exporter.fail_open("disk", "windows")
                log.warning("windows cannot be saved: %s", error.strerror)

    def close(self) -> None:
        """Write them a last time; waits for the disk."""
        with contextlib.suppress(OSError):  # a full disk costs history only
            self._save()

    def _save(self) -> None:
        save_windows(self._state_dir, self._memory.dump_pieces())
