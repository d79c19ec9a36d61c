"""The semantic cache beside a worker that dies: what it was asked, and what the next one is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from guard.cache.near import COMPARING_COUNT, NearCache, NearConfig
from guard.cache.near_frames import decode_to_worker
from guard.checks.frames import Splitter
from tests.cache_kit import Counted, Wall

pytestmark = pytest.mark.anyio
CONFIG = NearConfig(frozenset({"chat"}), frozenset({"*"}), embedder="none")


class Restarted(NearCache):
    """Its workers are the other ends of socket pairs, which the test reads or closes."""

    def __init__(self, counters: Counted) -> None:
        super().__init__(CONFIG, lambda key, found: None, lambda hit: None, counters, Wall())
        self.theirs: socket.socket | None = None

    def restart(self) -> None:
        """The worker dies; the next one listens."""
        self.end()
        ours, self.theirs = socket.socketpair()
        for end in (ours, self.theirs):
            end.setblocking(False)
        self._link._socket, self._link._splitter = ours, Splitter()
        asyncio.get_running_loop().add_reader(ours, self._link._read)
        self._link._on_start()

    def end(self) -> None:
        self._link._disconnect()
        if self.theirs is not None:
            self.theirs.close()

    async def heard(self, count: int) -> list[Any]:
        """The first `count` messages that the worker was told."""
        assert self.theirs is not None
        splitter, found = Splitter(), []
        async with asyncio.timeout(30):
            while len(found) < count:
                data = await asyncio.get_running_loop().sock_recv(self.theirs, 1 << 16)
                found += [decode_to_worker(body) for body in splitter.feed(data)]
        return found


@asynccontextmanager
async def restarted(counters: Counted | None = None) -> AsyncIterator[Restarted]:
    near = Restarted(counters or Counted())
    near.restart()
    try:
        yield near
    finally:
        near.end()


async def test_comparisons_that_died_with_their_worker_are_told_and_make_room():
    counters, told = Counted(), []
    async with restarted(counters) as near:
        for _ in range(COMPARING_COUNT):
            near.compare("chat", "14 days", "7 days", told.append)
        assert told == []
        near.restart()
        assert told == [None] * COMPARING_COUNT
        assert counters.sums["sft_cache_semantic_rechecks_total", "chat", "unknown"] == COMPARING_COUNT
        near.compare("chat", "14 days", "7 days", told.append)
        assert len(told) == COMPARING_COUNT  # the next one is under way
