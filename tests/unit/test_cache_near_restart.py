"""The semantic cache beside a worker that dies: what it was asked, and what the next one is told."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from guard.cache.near import COMPARING_COUNT, OUT_BYTES, NearCache, NearConfig
from guard.cache.near_frames import Add, Remove, decode_to_worker
from guard.cache.types import CacheRequest, Entry, Namespace, Removed, key_in
from guard.checks.frames import Splitter
from guard.ports import Route
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
        self.theirs.setblocking(False)
        self._link._listen(ours)

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


def asked(number: int, words: str) -> CacheRequest:
    body = {"messages": [{"role": "user", "content": words}]}
    key = key_in(Namespace("r1", 1, "t:a", "chat"), number.to_bytes(32, "big"))
    return CacheRequest(key, Route("chat", "/c", "openai-chat"), b"/c", json.dumps(body).encode(), False)


async def test_a_new_worker_hears_of_every_question_however_many_bytes_that_are():
    async with restarted() as near:
        near.end()
        requests = [asked(number, f"{number} " + "x" * 1500) for number in range(4000)]
        assert sum(len(r.body) for r in requests) > OUT_BYTES + 2**20
        for request in requests:
            near.stored(request, cast(Entry, Stored))
        near.restart()
        # What changes while it is being taught: one is gone, one is new.
        near.removed(requests[-1].key, Removed.FLAGGED)
        near.stored(asked(9000, "a new one?"), cast(Entry, Stored))
        told = await near.heard(1 + 4000 - 1 + 2)
    taught = [message.digest for message in told if isinstance(message, Add)]
    assert taught.index(asked(9000, "").key.digest) < len(taught) - 1  # it did not have to wait for all the others
    assert sorted(taught) == sorted([r.key.digest for r in requests[:-1]] + [asked(9000, "").key.digest])
    assert [message.digest for message in told if isinstance(message, Remove)] == [requests[-1].key.digest]


class Stored:
    """An entry whose answer is not asked for."""

    refusal = False
