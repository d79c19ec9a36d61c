"""However often a reload is asked for, one runs at a time, the last wish is fulfilled, and no fault ends it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from guard import app
from slo.errors import ConfigError


class Counting:
    """Stands for the guard: a reload takes a few turns."""

    def __init__(self, faults: tuple[Exception | None, ...] = ()) -> None:
        self.faults = list(faults)
        self.running = self.most = self.ended = self.refused = 0
        self.settings = SimpleNamespace(path="guard.yaml")

    async def reload(self, _: Any) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        for _ in range(5):
            await asyncio.sleep(0)
        self.running -= 1
        self.ended += 1
        if self.faults and (fault := self.faults.pop(0)) is not None:
            raise fault

    def reload_failed(self) -> None:
        self.refused += 1


async def asked_for(guard: Counting, times: int, apart: int) -> None:
    asked = asyncio.Event()
    task = asyncio.create_task(app._reload_when(asked, guard))  # type: ignore[arg-type]
    for _ in range(times):
        asked.set()
        for _ in range(apart):
            await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not asked.is_set()


@pytest.fixture(autouse=True)
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    loaded = SimpleNamespace(path="guard.yaml", config_hash="h")
    monkeypatch.setattr(app, "load_settings", lambda _: loaded)
    monkeypatch.setattr(asyncio, "to_thread", at_once)


def test_a_hail_of_signals_is_one_reload_at_a_time_and_one_more():
    guard = Counting()
    asyncio.run(asked_for(guard, 100, apart=0))
    assert (guard.most, guard.ended) == (1, 1)
    asyncio.run(asked_for(guard, 1, apart=0))
    assert guard.ended == 2
    guard = Counting()
    asyncio.run(asked_for(guard, 200, apart=1))
    assert guard.most == 1
    assert 2 <= guard.ended <= 200


def test_a_refused_file_and_a_fault_of_ours_leave_the_next_reload_possible():
    guard = Counting((ConfigError("guard.yaml", "x", "mend it"), RuntimeError("a fault"), None))
    for _ in range(3):
        asyncio.run(asked_for(guard, 1, apart=0))
    assert (guard.ended, guard.refused) == (3, 2)
