"""The stream of what was taken back, when it is long, slow, cut off in the middle or put back to an older one."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from guard.cache.redis import PAGE_COUNT, RedisStore
from guard.cache.revocations import Revocations
from guard.cache.types import Revocation
from tests.cache_kit import REDIS_SECRET, Counted, Wall, redis_cache, redis_server
from tests.faults.path_kit import settled
from tests.faults.test_cache_redis import made
from tests.virtual_time import VirtualLoop

HORIZON_S = 7200.0
Line = tuple[bytes, list[bytes]]


def signed(number: int, wall_s: float) -> bytes:
    payload = msgspec.msgpack.encode(("document", f"d{number}", wall_s))
    return hmac.digest(REDIS_SECRET, b"revoked" + payload, sha256) + payload


class Stream:
    """A Redis that knows PING, SET, XRANGE and XADD. page_s: how long a page takes; pages_left: then it hangs."""

    def __init__(self, count: int, wall_s: float) -> None:
        self.lines: list[Line] = [(b"%d-0" % (n + 1), [b"l", signed(n, wall_s)]) for n in range(count)]
        self.page_s, self.pages_left = 0.0, 10**9
        self.page_count = 0
        self.added: list[tuple[Any, ...]] = []

    def link(self) -> _Link:
        return _Link(self)

    async def reply(self, command: tuple[Any, ...]) -> Any:
        if command[0] == "PING":
            return b"PONG"
        if command[0] == "SET":
            return b"OK"
        if command[0] == "XADD":
            self.added.append(command)
            return b"9-9"
        if self.pages_left == 0:
            await asyncio.Event().wait()
        self.pages_left -= 1
        self.page_count += 1
        if self.page_s:
            await asyncio.sleep(self.page_s)
        start, count = command[2], command[5]
        after = start.lstrip(b"(-")
        first = int(after.partition(b"-")[0] or 0) + start.startswith(b"(")
        return [line for line in self.lines if int(line[0].partition(b"-")[0]) >= first][:count]


class _Link:
    is_connected = True

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def connect(self) -> None:
        """Always there."""

    async def disconnect(self, *, nowait: bool) -> None:
        """Nothing is open."""

    async def send_command(self, *command: Any) -> None:
        self._command = command

    async def read_response(self, *, disable_decoding: bool) -> Any:
        return await self._stream.reply(self._command)


def store_on(stream: Stream, wall: Wall, apply: Callable[[Revocation], object] | None = None) -> RedisStore:
    revocations = Revocations(HORIZON_S)
    return RedisStore(
        stream.link, REDIS_SECRET, "sft:test:", revocations, apply or revocations.add, Counted(), wall
    )  # fmt: skip


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.mark.anyio
async def test_a_long_stream_is_read_page_by_page_however_long_it_takes_in_all():
    wall = Wall()
    stream = Stream(PAGE_COUNT * 20 + 7, wall.wall_s())
    stream.page_s = 0.1  # each within its limit, all of them together ten times over it
    store = store_on(stream, wall)
    await store.beat()
    assert not store.breaker.open
    assert len(store._revocations) == len(stream.lines)


@pytest.mark.anyio
async def test_reading_that_breaks_off_goes_on_where_it_was_and_reads_no_line_twice():
    wall, heard = Wall(), []
    stream = Stream(PAGE_COUNT * 8 + 7, wall.wall_s())
    store = store_on(stream, wall, heard.append)
    beats = 0
    while store.breaker.open:
        stream.pages_left = 3  # then it hangs, until the next beat
        await store.beat()
        beats += 1
        assert beats < 10
    assert beats == 3
    assert [line.value for line in heard] == [f"d{n}" for n in range(len(stream.lines))]
    assert not stream.added


@pytest.mark.anyio
async def test_an_older_stream_in_the_middle_of_it_is_read_from_its_beginning_and_told_what_it_forgot():
    wall = Wall()
    stream = Stream(PAGE_COUNT * 3, wall.wall_s())
    whole = stream.lines
    store = store_on(stream, wall)
    stream.pages_left = 2
    await store.beat()
    assert store.breaker.open
    # A snapshot that ends before the place where reading broke off, and a line that was written since.
    late = (b"9000-0", [b"l", signed(9000, wall.wall_s())])
    stream.lines, stream.pages_left = [*whole[:100], late], 10**9
    await store.beat()
    assert not store.breaker.open
    assert len(store._revocations) == 2 * PAGE_COUNT + 1
    assert len(stream.added) == 2 * PAGE_COUNT - 100


@pytest.mark.anyio
async def test_what_no_entry_can_be_older_than_is_not_told_again():
    wall = Wall()
    stream = Stream(0, 0.0)
    store = store_on(stream, wall)
    store._revocations.add(Revocation("document", "old", wall.wall_s() - HORIZON_S - 1))
    store._revocations.add(Revocation("document", "new", wall.wall_s() - HORIZON_S + 1))
    await store.beat()
    assert len(stream.added) == 1


@pytest.mark.anyio
async def test_writes_that_wait_for_a_redis_that_hangs_are_bounded_in_bytes_and_the_rest_is_counted():
    stream, wall = Stream(0, 0.0), Wall()
    stream.pages_left = 1  # enough to be used, then it hangs
    store = store_on(stream, wall)
    await store.beat()
    assert not store.breaker.open
    entries = [made(number, body=b"x" * 200_000) for number in range(200)]
    taken = [store.put(entry) for entry in entries]
    assert taken == [True] * 83 + [False] * 117  # 83 envelopes of 200 kB are 16 MiB
    assert store._counters.sums["sft_cache_write_dropped_total", "busy"] == 117
    # What has been written makes room.
    writing = asyncio.create_task(store._write_on())
    await settled(lambda: not store._queue.qsize())
    assert store._queued_bytes == 0
    assert store.put(entries[-1])
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_old_lines_are_trimmed_from_a_real_stream_and_young_ones_stay():
    with redis_server() as own:
        now_s = int(own.tell("TIME").split(b"\r\n")[2])
        for n in range(1, 401):
            own.tell("XADD", "sft:test:revoked", f"{(now_s - 30 * 86_400) * 1000 + n}-0", "l", signed(n, 1.0))
        for n in range(1, 201):
            own.tell("XADD", "sft:test:revoked", f"{(now_s - 60) * 1000 + n}-0", "l", signed(n, now_s - 60.0))
        async with redis_cache(own.port, write_budget_s=5.0) as cached:
            for n in range(2):
                cached.cache.invalidate("document", f"mine-{n}")
            while cached.store._unshared:
                await cached.store.beat()
        left = int(own.tell("XLEN", "sft:test:revoked")[1:])
    assert 202 <= left < 202 + 100 + 100  # nodes of 100 lines go as a whole
