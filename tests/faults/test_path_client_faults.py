"""What happens to the guard, its upstreams and everybody else when a client misbehaves."""

# ruff: noqa: SIM117 - nested blocks read as a picture of what is between whom
from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from guard.ports import Limits, Route, Timeouts
from slo.types import Outcome
from tests.faults.path_kit import BOTH_LOOPS, ask, chat, post, running, settled, take_apart, target, tell
from tests.faults.scripted_upstream import DONE, Script, Seen, Upstream, chunk_event, chunked, completion, http

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[loop for loop, _ in BOTH_LOOPS], ids=[name for _, name in BOTH_LOOPS])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


OK = http(completion())
EVENT = chunk_event({"content": "word "})
LIVELY = Script(chunked(b"")[:-5], piece=b"%x\r\n%s\r\n" % (len(EVENT), EVENT), repeat=10_000, pause_s=0.005)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def hang_up_after(port: int, asked: dict[str, object], count: int) -> None:
    """Ask, read at least `count` bytes, vanish."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(post(asked, close=False))
    await writer.drain()
    await asyncio.sleep(0.005 if count else 0.02)
    got = 0
    while got < count and (piece := await reader.read(65536)):
        got += len(piece)
    writer.transport.abort()


async def test_a_disconnect_cancels_the_upstream_at_once_and_is_no_failure():
    async with Upstream(lambda _: LIVELY) as upstream, running(target(upstream.port)) as guard:
        await hang_up_after(guard.port, chat(stream=True), 2000)
        await settled(lambda: upstream.open_count == 0, within_s=1.0)
        exchange = await guard.sink.arrived()
        assert guard.path.stats().in_flight == 0
    assert (exchange.outcome, exchange.reason, exchange.status) == (Outcome.CANCELLED, "client_gone", 200)
    assert exchange.usage == "estimated"
    assert exchange.output_tokens is not None
    assert exchange.output_tokens > 0
    assert exchange.cost_usd is not None
    assert guard.sink.captures == [None]


async def test_a_disconnect_before_any_answer_has_no_status():
    async with Upstream(lambda _: Script(stall_at=0)) as upstream, running(target(upstream.port)) as guard:
        await hang_up_after(guard.port, chat(), 0)
        await settled(lambda: bool(upstream.requests) and upstream.open_count == 0)
        exchange = await guard.sink.arrived()
    assert (exchange.outcome, exchange.status) == (Outcome.CANCELLED, 0)


async def test_a_storm_of_cancels_leaves_the_whole_pool_usable():
    slow_enough_to_need_all = Script(OK, drip_bytes=len(OK) - 5, pause_s=0.1)

    def answer(seen: Seen) -> Script:
        return LIVELY if seen.json().get("stream") else slow_enough_to_need_all

    limits = Limits(upstream_connections=80)
    async with Upstream(answer) as upstream, running(target(upstream.port), limits=limits) as guard:
        await ask(guard.port, chat())
        files_before = open_files()
        for _ in range(9):
            # Some leave at once, some in the middle, so that connects, heads and bodies are all cancelled.
            counts = [0 if n % 3 == 0 else 300 * n for n in range(35)]
            await asyncio.gather(*(hang_up_after(guard.port, chat(stream=True), count) for count in counts))
        await settled(lambda: guard.path.stats().in_flight == 0)
        await settled(lambda: guard.path.stats().pools[0].busy + guard.path.stats().pools[0].connecting == 0)
        answers = await asyncio.gather(*(ask(guard.port, chat()) for _ in range(80)))
        assert {answer.body[:150] for answer in answers if answer.status != 200} == set()
        guard.path.upstreams.sweep(float("inf"))
        await settled(lambda: guard.path.stats().pools[0].open == 0)
        await settled(lambda: open_files() <= files_before)
    told = [exchange.outcome for exchange in guard.sink.exchanges]
    assert set(told) == {Outcome.CANCELLED, Outcome.OK}
    assert told.count(Outcome.OK) == 81
    assert told.count(Outcome.CANCELLED) > 270  # a few may be gone before their request was read


@pytest.mark.parametrize("stream", [True, False])
async def test_a_slow_reader_holds_the_upstream_back_and_memory_stays_bounded(stream: bool):
    piece = EVENT * 300 if stream else b"x" * 65536
    kind = "text/event-stream" if stream else "application/octet-stream"
    script = Script(chunked(b"", kind=kind)[:-5], piece=b"%x\r\n%s\r\n" % (len(piece), piece), repeat=4000)
    async with Upstream(lambda _: script) as upstream, running(target(upstream.port)) as guard:
        before = psutil.Process(os.getpid()).memory_info().rss
        reader, writer = await asyncio.open_connection("127.0.0.1", guard.port, limit=1024)
        writer.write(post(chat(stream=stream), path="/v1/chat/completions" if stream else "/files"))
        await reader.read(10)
        writer.transport.pause_reading()
        reached = -1
        while reached != upstream.sent_bytes:  # until nothing moves any more
            reached = upstream.sent_bytes
            await asyncio.sleep(0.2)
        assert 0 < reached < 60_000_000  # of 262 MB; kernel buffers take most of it
        assert psutil.Process(os.getpid()).memory_info().rss - before < 24 * 2**20
        writer.transport.abort()
        await settled(lambda: guard.path.stats().in_flight == 0)
    assert guard.sink.told() == [(Outcome.CANCELLED, "client_gone")]


async def test_a_reader_without_progress_is_dropped():
    script = Script(
        chunked(b"")[:-5],
        piece=b"10000\r\n" + EVENT * (65536 // len(EVENT)) + b" " * (65536 % len(EVENT)) + b"\r\n",
        repeat=4000,
    )
    timeouts = Timeouts(client_write_stall_s=0.4, drain_s=0.2)
    async with Upstream(lambda _: script) as upstream, running(target(upstream.port), timeouts=timeouts) as guard:
        reader, writer = await asyncio.open_connection("127.0.0.1", guard.port, limit=1024)
        writer.write(post(chat(stream=True)))
        await reader.read(10)
        writer.transport.pause_reading()
        await guard.sink.arrived()
        await settled(lambda: upstream.open_count == 0 and guard.path.stats().connections == 0)
        writer.transport.abort()
    assert guard.sink.told() == [(Outcome.CANCELLED, "client_slow")]


async def test_a_slow_reader_that_keeps_reading_gets_everything():
    stream = EVENT * 20_000 + DONE
    async with Upstream(lambda _: Script(chunked(stream, size=30_000))) as upstream:
        async with running(target(upstream.port), limits=Limits(client_buffer_bytes=16_384)) as guard:
            reader, writer = await asyncio.open_connection("127.0.0.1", guard.port, limit=4096)
            writer.write(post(chat(stream=True)))
            raw = b""
            while piece := await reader.read(100_000):
                raw += piece
                await asyncio.sleep(0)
            writer.close()
    answer = take_apart(raw)
    assert (answer.body, answer.ended) == (stream, True)
    assert guard.sink.told() == [(Outcome.OK, "")]
    assert guard.sink.captures[0].truncated


@pytest.mark.parametrize(
    "pieces",
    [
        [b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n", b"A: b\r\n"],
        [b"P", b"O"],
        [post(chat())[:-5], b"x"],
        [b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", b"l"],
    ],
)
async def test_a_client_that_trickles_is_told_so_and_closed(pieces: list[bytes]):
    timeouts = Timeouts(request_head_s=0.2, request_body_grace_s=0.2, request_body_min_bytes_per_s=10_000, drain_s=0.2)
    async with Upstream(lambda _: Script(OK)) as upstream, running(target(upstream.port), timeouts=timeouts) as guard:
        answer = take_apart(await tell(guard.port, *pieces, pause_s=0.05))
        assert (answer.status, answer.error_type) == (408, "slow_request")
        await settled(lambda: guard.path.stats().connections == 0)
    assert upstream.requests == []


async def test_very_many_slow_clients_at_once_are_closed_without_a_word():
    count = 300
    timeouts = Timeouts(request_head_s=0.3, drain_s=0.2)
    async with Upstream(lambda _: Script(OK)) as upstream, running(target(upstream.port), timeouts=timeouts) as guard:
        slow = [await asyncio.open_connection("127.0.0.1", guard.port) for _ in range(count)]
        for _, writer in slow:
            writer.write(b"POST /ask HT")

        async def end_of(reader: asyncio.StreamReader) -> bytes:
            try:
                return await reader.read(-1)
            except ConnectionResetError:
                return b""

        async with asyncio.timeout(20):
            ends = await asyncio.gather(*(end_of(reader) for reader, _ in slow))
        for _, writer in slow:
            writer.close()
        told = [end for end in ends if end]
        assert all(take_apart(end).status == 408 for end in told)
        assert 100 <= len(told) < count  # as many as a second has, and those of the time that it took
        await settled(lambda: guard.path.stats().connections == 0)
        assert guard.path.stats().refused == {"slow_request": count}
        assert (await ask(guard.port, chat())).status == 200


async def test_an_idle_connection_is_closed_after_a_while():
    async with running(target(1), timeouts=Timeouts(keep_alive_s=0.1, drain_s=0.1)) as guard:
        assert await tell(guard.port, b"", within_s=2.0) == b""


@pytest.mark.parametrize(
    ("request_bytes", "status", "reason"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "too_large"),
        (b"GET /" + b"a" * 70_000, 414, "too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 70_000 + b"\r\n\r\n", 431, "too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000, 431, "too_large"),
        (b"POST /ask HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000, 413, "too_large"),
        (b"POST /ask HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n", 413, "too_large"),
        (
            b"POST /ask HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"5\r\nhello\r\n" * 1000,
            413, "too_large",
        ),
        (
            b"POST /ask HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 9000,
            413, "too_large",
        ),
    ],
)  # fmt: skip
async def test_what_is_too_large_is_refused_before_it_is_collected(request_bytes: bytes, status: int, reason: str):
    async with Upstream(lambda _: Script(OK)) as upstream:
        async with running(target(upstream.port), limits=Limits(request_body_bytes=4000)) as guard:
            answer = take_apart(await tell(guard.port, request_bytes))
            assert (answer.status, answer.error_type, answer.header("connection")) == (status, reason, "close")
            if b"/ask" in request_bytes:  # its route is known, so it counts as an exchange
                assert [(e.route, e.outcome) for e in guard.sink.exchanges] == [("ask", Outcome.CLIENT_ERROR)]
            else:
                assert guard.path.stats().refused == {"too_large": 1}
    assert upstream.requests == []


async def test_too_many_connections_are_told_so():
    async with Upstream(lambda _: Script(OK)) as upstream:
        async with running(target(upstream.port), limits=Limits(connections=5)) as guard:
            held = [await asyncio.open_connection("127.0.0.1", guard.port) for _ in range(5)]
            await settled(lambda: guard.path.stats().connections == 5)
            refused = take_apart(await tell(guard.port, b""))
            assert (refused.status, refused.error_type) == (503, "conn_limit")
            assert refused.header("retry-after") in {"1", "2", "3", "4"}
            for _, writer in held:
                writer.close()
            await settled(lambda: guard.path.stats().connections == 0)
            assert (await ask(guard.port, chat())).status == 200
            assert guard.path.stats().refused == {"conn_limit": 1}


async def test_overload_is_refused_at_once_with_a_time_to_come_back():
    async with Upstream(lambda _: Script(OK, drip_bytes=len(OK) - 5, pause_s=0.15)) as upstream:
        async with running(target(upstream.port), limits=Limits(concurrent_requests=4)) as guard:
            answers = await asyncio.gather(*(ask(guard.port, chat()) for _ in range(20)))
    shed = [answer for answer in answers if answer.status == 503]
    assert len(shed) == 16
    assert {answer.error_type for answer in shed} == {"shed"}
    assert {int(answer.header("retry-after") or 0) for answer in shed} <= {1, 2, 3, 4}
    assert len({answer.header("retry-after") for answer in shed}) > 1
    assert sorted(guard.sink.told()) == [(Outcome.BLOCKED, "shed")] * 16 + [(Outcome.OK, "")] * 4


async def test_a_full_upstream_pool_sheds_instead_of_queueing():
    async with Upstream(lambda _: Script(OK, drip_bytes=len(OK) - 5, pause_s=0.15)) as upstream:
        async with running(target(upstream.port), limits=Limits(upstream_connections=3)) as guard:
            answers = await asyncio.gather(*(ask(guard.port, chat()) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] * 3 + [503] * 7


async def test_admission_sheds_the_lowest_priority_first():
    routes = (Route("low", "/low", "passthrough", priority=0), Route("high", "/high", "passthrough", priority=5))
    async with Upstream(lambda _: Script(OK)) as upstream, running(target(upstream.port), routes=routes) as guard:
        guard.path.shed_ratio = 0.25
        statuses: dict[str, list[int]] = {"/low": [], "/high": []}
        for n in range(80):
            path = ("/low", "/high")[n % 2]
            statuses[path].append((await ask(guard.port, b"{}", path=path)).status)
        assert statuses["/high"] == [200] * 40
        assert 18 <= statuses["/low"].count(503) <= 21
        guard.path.shed_ratio = 0.0
        assert (await ask(guard.port, b"{}", path="/low")).status == 200


async def test_a_client_that_pipelines_without_reading_is_held_back():
    big = http(b"x" * 200_000, kind="text/plain")
    limits = Limits(client_buffer_bytes=65_536)
    async with Upstream(lambda _: Script(big)) as upstream, running(target(upstream.port), limits=limits) as guard:
        reader, writer = await asyncio.open_connection("127.0.0.1", guard.port, limit=1024)
        writer.transport.pause_reading()
        writer.write(b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
        answered = -1
        while answered != len(upstream.requests):
            answered = len(upstream.requests)
            await asyncio.sleep(0.2)
        assert answered < 100
        writer.transport.resume_reading()
        total = 0
        while total < 500 * 200_000:
            total += len(await reader.read(1_000_000))
        writer.transport.abort()
    assert len(upstream.requests) == 500
