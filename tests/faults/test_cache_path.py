"""The cache in the data path: what a client sees, what is recorded, and who asks the model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from guard.cache.service import AnswerCache
from slo.types import CacheStatus, Version
from tests.cache_kit import BLIND, FAILED, PASSED, CheckedBy, Counted, memory_cache
from tests.faults.path_kit import (
    BOTH_LOOPS,
    Answer,
    Running,
    ask,
    chat,
    post,
    running,
    settled,
    take_apart,
    target,
    tell,
)
from tests.faults.scripted_upstream import Script, Seen, Upstream, chat_stream, chunked, completion, http

pytestmark = pytest.mark.anyio
OK = http(completion())
STREAM = chunked(chat_stream(["Seven", " days", "."], usage=True))


@pytest.fixture(params=[loop for loop, _ in BOTH_LOOPS], ids=[name for _, name in BOTH_LOOPS])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


@asynccontextmanager
async def cached(
    answer: Any = OK, cache: AnswerCache | None = None, **more: Any
) -> AsyncIterator[tuple[Running, Upstream, CheckedBy]]:
    """A guard with a cache in front of one upstream."""
    cache = cache or memory_cache()
    sink = CheckedBy(cache=cache, findings=more.pop("findings", PASSED))
    script = answer if callable(answer) else lambda _: Script(answer)
    async with Upstream(script) as upstream, running(target(upstream.port, **more), cache=cache, sink=sink) as guard:
        yield guard, upstream, sink


def asked(stream: bool = False, **more: Any) -> dict[str, Any]:
    """A request whose answer may be repeated."""
    return chat(stream, **{"temperature": 0, **more})


async def states(guard: Running, *requests: Any) -> list[str | None]:
    return [(await ask(guard.port, body, *headers)).header("x-guard-cache") for body, *headers in requests]


async def test_the_second_time_the_model_is_not_asked_and_the_bytes_are_the_same():
    async with cached() as (guard, upstream, sink):
        first, second = [await ask(guard.port, asked()) for _ in range(2)]
    assert [a.header("x-guard-cache") for a in (first, second)] == ["miss", "hit"]
    assert len(upstream.requests) == 1
    assert second.body == first.body == completion()
    assert second.header("content-type") == "application/json"
    assert second.header("age") == "0"
    assert first.header("x-guard-exchange-id") != second.header("x-guard-exchange-id")
    fresh, repeated = sink.exchanges
    assert (fresh.cache, repeated.cache) == (CacheStatus.MISS, CacheStatus.HIT)
    assert (repeated.outcome, repeated.status, repeated.cost_usd, repeated.input_tokens) == ("ok", 200, None, None)
    assert fresh.cost_usd == 22e-6
    assert sink.captures[1] is None


async def test_a_stream_comes_back_as_the_same_events_one_by_one():
    async with cached(STREAM) as (guard, upstream, _):
        first, second = [await tell(guard.port, post(asked(stream=True))) for _ in range(2)]
        with_usage = await ask(guard.port, asked(stream=True, stream_options={"include_usage": True}))
    assert len(upstream.requests) == 1
    assert take_apart(second).body == take_apart(first).body == chat_stream(["Seven", " days", "."])
    assert take_apart(second).ended
    assert second.count(b"\r\ndata: ") == 6  # every event is a chunk of its own
    assert take_apart(second).header("content-type") == "text/event-stream"
    assert with_usage.header("x-guard-cache") == "hit"
    assert with_usage.body == chat_stream(["Seven", " days", "."], usage=True)


async def test_a_stream_and_a_whole_answer_are_two_answers():
    def answer(seen: Seen) -> Script:
        return Script(STREAM if seen.json().get("stream") else OK)

    async with cached(answer) as (guard, upstream, _):
        assert await states(guard, [asked(True)], [asked()], [asked()], [asked(True)]) == ["miss", "miss", "hit", "hit"]
    assert len(upstream.requests) == 2


async def test_an_http_1_0_client_gets_a_stream_from_the_cache_too():
    async with cached(STREAM) as (guard, _, _):
        await ask(guard.port, asked(True))
        raw = await tell(guard.port, post(asked(True)).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert b"transfer-encoding" not in raw
    assert take_apart(raw).header("x-guard-cache") == "hit"
    assert take_apart(raw).body == chat_stream(["Seven", " days", "."])


@pytest.mark.parametrize(
    ("other", "headers"),
    [
        ({"temperature": 1}, ()),
        ({"temperature": None}, ()),
        ({"n": 2}, ()),
        ({"tools": [{"type": "function"}]}, ()),
        ({"logprobs": True}, ()),
        ({}, ("cache-control: no-store",)),
        ({}, ("cache-control: no-cache",)),
        ({}, ("pragma: no-cache",)),
    ],
)
async def test_what_may_not_be_repeated_is_passed_on_untouched(other: dict[str, Any], headers: tuple[str, ...]):
    async with cached() as (guard, upstream, sink):
        await ask(guard.port, asked())
        again = await states(guard, [asked(**other), *headers], [asked(**other), *headers])
    assert again == ["bypass", "bypass"]
    assert len(upstream.requests) == 3
    assert {exchange.cache for exchange in sink.exchanges[1:]} == {CacheStatus.BYPASS}


async def test_tenants_credentials_epochs_and_releases_never_meet():
    async with cached() as (guard, upstream, _):
        assert (
            await states(
                guard,
                [asked()],
                [asked(), "x-guard-tenant: a"],
                [asked(), "x-guard-tenant: b"],
                [asked(), "authorization: Bearer one"],
                [asked(), "authorization: Bearer two"],
                [asked(), "x-guard-tenant: a", "x-role: admin"],
            )
            == ["miss"] * 6
        )
        assert (
            await states(guard, [asked(), "x-guard-tenant: b"], [asked(), "authorization: Bearer two"]) == ["hit"] * 2
        )
        stable = guard.split.assign(b"").target
        guard.split.set(stable, None, 0.0, cache_epoch=1)
        assert await states(guard, [asked()], [asked()]) == ["miss", "hit"]
        guard.split.set(target(upstream.port, version=Version("v2", model="m-2")), None, 0.0, cache_epoch=1)
        assert await states(guard, [asked()], [asked()]) == ["miss", "hit"]
        guard.split.set(stable, None, 0.0, cache_epoch=1)
        assert await states(guard, [asked()]) == ["hit"]
    assert len(upstream.requests) == 8


@pytest.mark.parametrize("findings", [FAILED, BLIND, ()])
async def test_an_answer_is_kept_only_when_its_checks_have_looked_and_found_nothing(findings: Any):
    async with cached(findings=findings) as (guard, upstream, _):
        assert await states(guard, [asked()], [asked()]) == ["miss", "miss"]
    assert len(upstream.requests) == 2


async def test_nothing_is_kept_before_the_checks_have_spoken():
    async with cached(findings=None) as (guard, _, sink):
        assert await states(guard, [asked()], [asked()]) == ["miss", "miss"]
        sink.findings = PASSED
        assert await states(guard, [asked()], [asked()]) == ["miss", "hit"]


async def test_a_thumb_down_on_a_hit_takes_the_answer_back():
    async with cached() as (guard, _, sink):
        await ask(guard.port, asked())
        hit = await ask(guard.port, asked())
        assert sink.cache.flag(hit.header("x-guard-exchange-id"))
        assert await states(guard, [asked()]) == ["miss"]
        assert not sink.cache.flag("somebody-else")


@pytest.mark.parametrize(
    "response",
    [
        http(b"{}", status="500 Oops"),
        http(b'{"error":{"message":"x"}}'),
        http(b"not json"),
        http(completion(), "Set-Cookie: a=1"),
        http(completion(), "Cache-Control: private"),
        http(completion(), "Vary: x-user"),
        http(completion().replace(b'"stop"', b'"content_filter"')),
    ],
)
async def test_what_is_not_a_whole_shareable_answer_is_not_kept(response: bytes):
    async with cached(response) as (guard, _, _):
        assert await states(guard, [asked()], [asked()]) == ["miss", "miss"]


@pytest.mark.parametrize("script", [{"cut_at": len(STREAM) - 60}, {"cut_at": 200}])
async def test_a_broken_stream_is_never_kept(script: dict[str, Any]):
    async with cached(lambda _: Script(STREAM, **script)) as (guard, upstream, sink):
        for _ in range(2):
            await tell(guard.port, post(asked(True)))
    assert len(upstream.requests) == 2
    assert {exchange.outcome for exchange in sink.exchanges} <= {"incomplete", "server_error"}


async def test_a_thousand_clients_with_one_new_question_are_one_call():
    gate = asyncio.Event()

    async def slow(guard: Running) -> list[Answer]:
        return await asyncio.gather(*(ask(guard.port, asked()) for _ in range(1000)))

    async with cached(lambda _: Script(OK, pause_s=0.5, drip_bytes=len(OK) - 5), memory_cache(wait_s=60.0)) as (
        guard, upstream, sink,
    ):  # fmt: skip
        answers = await slow(guard)
        gate.set()
    assert len(upstream.requests) == 1
    assert {answer.body for answer in answers} == {completion()}
    found = [answer.header("x-guard-cache") for answer in answers]
    assert (found.count("miss"), found.count("hit")) == (1, 999)
    assert sink.cache.stats().coalesced > 0
    assert len(sink.exchanges) == 1000


async def test_who_waits_too_long_asks_itself():
    async with cached(lambda _: Script(OK, pause_s=0.6, drip_bytes=len(OK) - 5), memory_cache(wait_s=0.05)) as (
        guard, upstream, _,
    ):  # fmt: skip
        answers = await asyncio.gather(*(ask(guard.port, asked()) for _ in range(4)))
    assert len(upstream.requests) == 4
    assert [answer.status for answer in answers] == [200] * 4


async def test_a_leader_that_fails_takes_nobody_with_it():
    count = 0

    def answer(_: Seen) -> Script:
        nonlocal count
        count += 1
        return Script(http(b"{}", status="500 Oops") if count == 1 else OK, pause_s=0.02, drip_bytes=20)

    async with cached(answer, memory_cache(wait_s=60.0)) as (guard, upstream, _):
        answers = await asyncio.gather(*(ask(guard.port, asked()) for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [200] * 19 + [500]
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("script", [{"cut_at": 300}, {"cut_at": 0}])
async def test_a_leader_whose_stream_breaks_takes_nobody_with_it(script: dict[str, Any]):
    count = 0

    def answer(_: Seen) -> Script:
        nonlocal count
        count += 1
        return Script(STREAM, **(script if count == 1 else {}), drip_bytes=100, pause_s=0.05)

    async with cached(answer, memory_cache(wait_s=60.0)) as (guard, upstream, _):
        raws = await asyncio.gather(*(tell(guard.port, post(asked(True))) for _ in range(10)))
    whole = [raw for raw in raws if take_apart(raw).ended and b"[DONE]" in raw]
    assert len(whole) >= 9  # the one that broke before its first byte was retried
    assert len(upstream.requests) == 2


async def test_a_leader_that_hangs_up_hands_over():
    async with cached(lambda _: Script(OK, pause_s=0.4, drip_bytes=len(OK) - 5), memory_cache(wait_s=60.0)) as (
        guard, upstream, sink,
    ):  # fmt: skip
        _, writer = await asyncio.open_connection("127.0.0.1", guard.port)
        writer.write(post(asked()))
        await settled(lambda: len(upstream.requests) == 1)
        followers = [asyncio.create_task(ask(guard.port, asked())) for _ in range(5)]
        await settled(lambda: guard.path.stats().in_flight == 6)
        writer.transport.abort()
        answers = await asyncio.gather(*followers)
    assert [answer.status for answer in answers] == [200] * 5
    assert len(upstream.requests) == 2
    assert "cancelled" in {exchange.outcome for exchange in sink.exchanges}


async def test_a_waiter_that_hangs_up_costs_nothing():
    async with cached(lambda _: Script(OK, pause_s=0.4, drip_bytes=len(OK) - 5), memory_cache(wait_s=60.0)) as (
        guard, upstream, sink,
    ):  # fmt: skip
        leader = asyncio.create_task(ask(guard.port, asked()))
        await settled(lambda: len(upstream.requests) == 1)
        _, writer = await asyncio.open_connection("127.0.0.1", guard.port)
        writer.write(post(asked()))
        await settled(lambda: guard.path.stats().in_flight == 2)
        writer.transport.abort()
        assert (await leader).status == 200
        await sink.arrived(2)
    cancelled = next(exchange for exchange in sink.exchanges if exchange.outcome == "cancelled")
    assert (cancelled.cost_usd, cancelled.input_tokens, cancelled.cache) == (None, None, CacheStatus.BYPASS)


async def test_what_is_taken_back_while_it_is_under_way_is_neither_kept_nor_shared():
    async with cached(lambda _: Script(OK, pause_s=0.3, drip_bytes=len(OK) - 5), memory_cache(wait_s=60.0)) as (
        guard, upstream, sink,
    ):  # fmt: skip
        leader = asyncio.create_task(ask(guard.port, asked()))
        await settled(lambda: len(upstream.requests) == 1)
        sink.cache.invalidate_documents(["leave-rules"])
        late = asyncio.create_task(ask(guard.port, asked()))
        await asyncio.gather(leader, late)
        assert late.result().header("x-guard-cache") == "miss"
        assert len(upstream.requests) == 2
        assert sink.cache.store.stats().entries == 1  # the second was asked after the change


async def test_a_redirected_or_compressed_answer_is_not_asked_for():
    async with cached() as (guard, upstream, _):
        await ask(guard.port, asked(), "accept-encoding: gzip, br")
        await ask(guard.port, chat(), "accept-encoding: gzip, br")
    assert upstream.requests[0].header(b"accept-encoding") is None
    assert upstream.requests[1].header(b"accept-encoding") == b"gzip, br"


async def test_hits_are_answered_while_load_is_shed():
    async with cached() as (guard, _, _):
        await ask(guard.port, asked())
        guard.path.shed_ratio = 1.0
        assert await states(guard, [asked()]) == ["hit"]
        shed = await ask(guard.port, asked(seed=1))
        assert (shed.status, shed.header("x-guard-cache")) == (503, "miss")


async def test_keep_alive_and_pipelining_work_through_hits():
    async with cached() as (guard, upstream, _):
        await ask(guard.port, asked())
        pieces = b"".join(post(asked(), close=n == 9) for n in range(10))
        raw = await tell(guard.port, pieces)
    assert raw.count(b"x-guard-cache: hit") == 10
    assert raw.count(completion()) == 10
    assert len(upstream.requests) == 1


async def test_json_routes_are_cached_when_their_operator_vouches_for_them():
    reply = json.dumps({"answer": "Seven days.", "contexts": []}).encode()
    for vouched, expected in ((False, ["bypass", "bypass"]), (True, ["miss", "hit"])):
        cache = memory_cache(assume_deterministic=vouched)
        async with cached(http(reply), cache) as (guard, _, _):
            got = [await ask(guard.port, {"question": "How many days?"}, path="/ask") for _ in range(2)]
        assert [answer.header("x-guard-cache") for answer in got] == expected


class Broken:
    """A store that raises whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"{name}: defect")


async def test_a_defect_of_the_cache_costs_no_answer():
    counters = Counted()
    cache = memory_cache(counters=counters)
    cache.store = Broken()  # type: ignore[assignment]
    async with cached(cache=cache, findings=None) as (guard, upstream, _):
        for _ in range(3):
            assert (await ask(guard.port, asked())).body == completion()
    assert len(upstream.requests) == 3
    assert counters.sums["sft_guard_failopen_total", "cache", "error"] >= 3


async def test_a_listener_that_raises_is_counted_and_the_others_hear_all_the_same():
    heard: list[str] = []

    class Hears:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: heard.append(name)

    counters = Counted()
    cache = memory_cache(counters=counters)
    cache.subscribe(Broken())  # type: ignore[arg-type]
    cache.subscribe(Hears())  # type: ignore[arg-type]
    async with cached(cache=cache) as (guard, _, _):
        assert await states(guard, [asked()], [asked()]) == ["miss", "hit"]
    assert heard == ["missed", "stored", "hit"]
    assert counters.sums["sft_guard_failopen_total", "cache", "error"] == 3


async def test_a_store_that_hands_out_somebody_elses_answer_is_not_believed():
    cache = memory_cache()
    real = cache.store

    class Lying:
        """The first entry there is, whatever was asked for."""

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def get(self, key: Any, found: Any) -> None:
            entries = real.entries()  # type: ignore[attr-defined]
            found(entries[0] if entries else None, "")

    async with cached(cache=cache) as (guard, upstream, _):
        cache.store = Lying()  # type: ignore[assignment]
        assert await states(guard, [asked()], [asked()]) == ["miss", "hit"]
        assert await states(guard, [asked(), "x-guard-tenant: b"], [asked(seed=1)]) == ["miss", "miss"]
    assert len(upstream.requests) == 3
