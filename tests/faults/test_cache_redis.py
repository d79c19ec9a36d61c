"""The cache on a real Redis that is refused, stalled, slow, full, read-only, restarted, corrupt or wired crosswise.

Whatever it is, no client sees a failure: every answer is a 200 with the right bytes.
"""

# ruff: noqa: SIM117, ASYNC110 - nested blocks read as a picture of what is between whom; polling is what is tested
from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from guard.cache.envelope import Crosstalk, InvalidValue, seal
from guard.cache.examine import examine_redis
from guard.cache.types import Entry, Namespace, key_in
from guard.settings import load_settings
from tests.cache_kit import REDIS_SECRET, CheckedBy, RedisCache, RedisServer, redis_cache, redis_server
from tests.faults.path_kit import Answer, Running, ask, chat, post, running, settled, take_apart, target, tell
from tests.faults.scripted_upstream import Script, Seen, Upstream, chat_stream, chunked, completion, http, refused_port
from tests.faults.tcp_proxy import RedisProxy

pytestmark = pytest.mark.anyio
ROOMY_S = 5.0
"""Budget of a lookup in tests that want hits, so that a busy machine does not turn them into misses."""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _empty(redis: RedisServer) -> None:
    redis.tell("FLUSHALL")


def says(seen: Seen) -> Script:
    """An answer that repeats the question, so that a wrong one is seen."""
    asked = seen.json()
    words = asked["messages"][-1]["content"]
    if asked.get("stream"):
        return Script(chunked(chat_stream([words], usage=True)))
    return Script(http(completion(words)))


@asynccontextmanager
async def guarded(port: int, **more: Any) -> AsyncIterator[tuple[Running, Upstream, RedisCache]]:
    async with redis_cache(port, **more) as cached:
        sink = CheckedBy(cache=cached.cache)
        async with Upstream(says) as upstream:
            async with running(target(upstream.port), cache=cached.cache, sink=sink) as guard:
                yield guard, upstream, cached


def question(number: int = 0, *, stream: bool = False) -> dict[str, Any]:
    return chat(stream, temperature=0, messages=[{"role": "user", "content": f"question {number}"}])


async def right(guard: Running, number: int, *, stream: bool = False) -> Answer:
    """Ask and see that the answer is that of this question."""
    answer = take_apart(await tell(guard.port, post(question(number, stream=stream)), within_s=20.0))
    assert answer.status == 200
    assert answer.ended
    assert answer.body == (chat_stream([f"question {number}"]) if stream else completion(f"question {number}"))
    return answer


async def stored(redis: RedisServer, count: int) -> None:
    """Wait until so many entries are in Redis."""
    await settled(lambda: redis.tell("DBSIZE") == b":%d\r\n" % count, 10.0)


async def hit(guard: Running, number: int) -> None:
    """Ask until the answer comes from the cache."""
    async with asyncio.timeout(20):
        while (await right(guard, number)).header("x-guard-cache") != "hit":
            await asyncio.sleep(0.05)


async def test_two_replicas_share_their_answers_and_nothing_readable_of_the_questions(redis: RedisServer):
    async with guarded(redis.port, budget_s=ROOMY_S) as (one, upstream, _), guarded(redis.port, budget_s=ROOMY_S) as (
        other, upstream_2, _,
    ):  # fmt: skip
        secret = "authorization: Bearer sk-very-secret"
        for stream in (False, True):
            assert (await right(one, 1, stream=stream)).header("x-guard-cache") == "miss"
        await ask(one.port, chat(temperature=0, messages=[{"role": "user", "content": "my own words"}]), secret)
        await stored(redis, 3)
        for stream in (False, True):
            assert (await right(other, 1, stream=stream)).header("x-guard-cache") == "hit"
        assert (len(upstream.requests), len(upstream_2.requests)) == (3, 0)
        redis.tell("SAVE")
        dump = (redis.directory / "dump.rdb").read_bytes()
        assert b"sk-very-secret" not in dump
        assert b"temperature" not in dump


@pytest.mark.parametrize("stream", [False, True])
async def test_refused(redis: RedisServer, stream: bool):
    async with guarded(refused_port()) as (guard, upstream, cached):
        for number in range(10):
            assert (await right(guard, number, stream=stream)).header("x-guard-cache") == "miss"
    assert len(upstream.requests) == 10
    assert cached.passed == {"open": 10}


async def test_killed_in_the_middle_and_back_again():
    with redis_server() as own:
        async with guarded(own.port, probe_every_s=0.1, budget_s=ROOMY_S) as (guard, _, cached):
            await hit(guard, 1)
            own.stop()
            for number in range(20):
                await right(guard, number)
            assert cached.store.breaker.open
            assert sum(cached.passed.values()) == 20
            assert set(cached.passed) <= {"closed", "refused", "open"}
            own.start()
            await settled(lambda: not cached.store.breaker.open, 20.0)
            await hit(guard, 1)


async def test_stalled(redis: RedisServer):
    async with guarded(redis.port, probe_every_s=0.1) as (guard, _, cached):
        await right(guard, 1)
        assert redis.process is not None
        os.kill(redis.process.pid, signal.SIGSTOP)
        try:
            for number in range(30):
                await right(guard, number, stream=number % 2 == 0)
            await settled(lambda: cached.store.breaker.open, 20.0)
            assert cached.passed["timeout"] >= 1
            assert set(cached.passed) <= {"timeout", "open"}
            await asyncio.gather(*(right(guard, number) for number in range(50)))
        finally:
            os.kill(redis.process.pid, signal.SIGCONT)
        await settled(lambda: not cached.store.breaker.open, 20.0)
        await hit(guard, 1)


@pytest.mark.parametrize("mode", ["delay", "blackhole", "garbage", "reset"])
async def test_a_network_that_misbehaves(redis: RedisServer, mode: str):
    async with RedisProxy(redis.port) as proxy, guarded(proxy.port, probe_every_s=0.1) as (guard, _, cached):
        await settled(lambda: not cached.store.breaker.open, 20.0)
        proxy.mode, proxy.delay_s = mode, 5.0
        for number in range(20):
            await right(guard, number)
        await settled(lambda: cached.store.breaker.open, 20.0)
        assert sum(cached.passed.values()) == 20
        await asyncio.gather(*(right(guard, number) for number in range(50)))
        proxy.mode = "pass"
        await settled(lambda: not cached.store.breaker.open, 20.0)
        await hit(guard, 1)
    assert proxy.open_count == 0


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru"])
async def test_full(policy: str):
    with redis_server("--maxmemory", "2mb", "--maxmemory-policy", policy) as own:
        async with redis_cache(own.port, budget_s=ROOMY_S) as cached:
            entries = [made(number, body=b"x" * 50_000) for number in range(60)]
            for one in entries:
                while not cached.store.put(one):
                    await asyncio.sleep(0.01)
            await settled(lambda: not cached.store._queue.qsize(), 20.0)
            await asyncio.sleep(0.1)
            assert not cached.store.breaker.open
            found = [one for one in entries if await cached.store.read(one.key) == one]
            assert 0 < len(found) < 60
            dropped = cached.counted("sft_cache_write_dropped_total", "full")
            assert (dropped > 0) == (policy == "noeviction")
            assert not cached.passed


async def test_read_only_goes_on_reading():
    with redis_server() as own:
        async with guarded(own.port, budget_s=ROOMY_S) as (guard, _, cached):
            await hit(guard, 1)
            own.tell("REPLICAOF", "127.0.0.1", str(refused_port()))
            assert (await right(guard, 1)).header("x-guard-cache") == "hit"
            await right(guard, 2)
            await settled(lambda: cached.counted("sft_cache_write_dropped_total", "readonly") > 0, 10.0)
            assert (await right(guard, 1)).header("x-guard-cache") == "hit"
            assert not cached.store.breaker.open
            assert not cached.passed


async def test_a_wrong_password_is_said_and_costs_no_answer():
    with redis_server("--requirepass", "right") as own:
        async with guarded(own.port, password="wrong") as (guard, _, cached):
            await right(guard, 1)
            assert cached.passed == {"open": 1}
        async with guarded(own.port, password="right", budget_s=ROOMY_S) as (guard, _, cached):
            await hit(guard, 1)


ACL = ("on", ">pw", "~sft:test:*", "resetchannels", "-@all", "+get", "+set", "+unlink", "+xadd", "+xrange", "+ping")
"""The line of docs/cache.md."""


async def test_the_documented_rights_are_enough_and_nothing_else_is_allowed(redis: RedisServer):
    assert redis.tell("ACL", "SETUSER", "cache", *ACL) == b"+OK\r\n"
    async with guarded(redis.port, username="cache", password="pw", budget_s=ROOMY_S) as (guard, _, cached):
        await hit(guard, 1)
        cached.cache.invalidate("document", "d1")
        await cached.store.beat()
        assert not cached.store._unshared
        dropped = {name[1] for name in cached.counters.sums if name[0] == "sft_cache_write_dropped_total"}
        assert not dropped
        with pytest.raises(Exception, match="no permissions"):
            await cached.store.reads.call("KEYS", "*", read=list)


def made(number: int, **more: Any) -> Entry:
    key = key_in(Namespace("r1", 1, f"t:{number}", "chat"), number.to_bytes(32, "big"))
    fields: dict[str, Any] = {
        "key": key, "body": completion(f"answer {number}"), "headers": ((b"content-type", b"application/json"),),
        "stream": False, "exchange_id": f"e{number}", "document_ids": (f"d{number}",), "model": "m", "input_tokens": 1,
        "output_tokens": 1, "cost_usd": 0.1, "generation_s": 1.0, "asked_wall_s": 1e9, "stored_wall_s": 1e9,
        "ttl_s": 3600.0, **more,
    }  # fmt: skip
    return Entry(**fields)


def name(entry: Entry) -> bytes:
    return b"sft:test:a:" + entry.key.text.encode()


def sealed(entry: Entry) -> bytes:
    return seal(entry, REDIS_SECRET)


def mutated(value: bytes, dice: random.Random) -> bytes:
    """Something else than `value`."""
    raw = bytearray(value)
    for _ in range(dice.choice((1, 1, 2, 8))):
        how, at = dice.randrange(5), dice.randrange(len(raw) or 1)
        if how == 0 and raw:
            raw[at] ^= dice.randrange(1, 256)
        elif how == 1:
            del raw[at:]
        elif how == 2:
            raw[at:at] = dice.randbytes(dice.randrange(1, 40))
        elif how == 3:
            raw[at : at + 8] = dice.randbytes(8)
        else:
            raw = bytearray(dice.randbytes(dice.randrange(200)))
    return bytes(raw) if bytes(raw) != value else value + b"x"


async def served(cached: RedisCache, entries: Sequence[Entry]) -> list[bool]:
    """Which of the entries the cache would give out."""
    found = [await cached.store.read(entry.key) for entry in entries]
    return [e is not None and cached.cache.revocations.forbids(e) is None for e in found]


async def test_corrupt_values_are_never_served_and_go(redis: RedisServer):
    dice = random.Random(1)
    async with redis_cache(redis.port, budget_s=ROOMY_S, write_budget_s=ROOMY_S) as cached:
        for number in range(1000):
            entry = made(number)
            await cached.store._writes.call("SET", name(entry), mutated(sealed(entry), dice), read=bool)
            with pytest.raises((InvalidValue, Crosstalk)):
                await cached.store.read(entry.key)
        assert cached.counted("sft_cache_invalid_total") == 1000
        await settled(lambda: redis.tell("DBSIZE") == b":0\r\n", 10.0)
        other = made(2)
        redis.tell("LPUSH", name(entry), "a list")
        with pytest.raises(InvalidValue):
            await cached.store.read(entry.key)
        await cached.store._writes.call("SET", name(other), sealed(entry), read=bool)
        with pytest.raises(Crosstalk):  # genuine, and somebody else's
            await cached.store.read(other.key)
        assert cached.counted("sft_cache_crosstalk_total") == 1


async def test_replies_that_change_places_are_noticed_and_never_served(redis: RedisServer):
    async with RedisProxy(redis.port) as proxy, guarded(proxy.port, probe_every_s=0.05, budget_s=1.0) as (
        guard, _, cached,
    ):  # fmt: skip
        for number in range(8):
            await hit(guard, number)
        proxy.mode = "swap"
        for _ in range(12):
            await asyncio.gather(*(right(guard, number) for number in range(8)))
            await settled(lambda: not cached.store.breaker.open, 20.0)
        assert proxy.swapped_count > 0
        assert cached.counted("sft_cache_crosstalk_total") > 0


async def test_a_storm_of_lookups_given_up_leaves_no_reply_to_a_stranger(redis: RedisServer):
    async with RedisProxy(redis.port, mode="delay", delay_s=0.004) as proxy:
        async with guarded(proxy.port, probe_every_s=0.02, budget_s=0.004) as (guard, _, cached):
            for _ in range(15):
                await asyncio.gather(*(right(guard, number) for number in range(12)))
                await asyncio.sleep(0.02)
            proxy.mode = "pass"
            await settled(lambda: not cached.store.breaker.open, 20.0)
            await asyncio.gather(*(right(guard, number) for number in range(12)))
            assert cached.store.reads.busy_count == 0
    assert cached.counted("sft_cache_crosstalk_total") == 0


async def test_what_one_replica_takes_back_no_replica_serves_not_even_from_an_old_snapshot():
    with redis_server() as own:
        async with redis_cache(own.port, budget_s=ROOMY_S) as one, redis_cache(own.port, budget_s=ROOMY_S) as other:
            entries = [made(number) for number in range(4)]
            for entry in entries:
                one.store.put(entry)
            await stored(own, 4)
            own.tell("SAVE")
            saved = (own.directory / "dump.rdb").read_bytes()
            one.cache.invalidate("exchange", "e0")
            one.cache.invalidate_documents(["d1"])
            one.cache.invalidate("tenant", "t:2")
            await one.store.beat()
            await other.store.beat()

            assert await served(one, entries) == await served(other, entries) == [False, False, False, True]
            own.stop()
            (own.directory / "dump.rdb").write_bytes(saved)
            own.start()
            for cached in (one, other, one, other):
                await cached.store.beat()
            await settled(lambda: not (one.store.breaker.open or other.store.breaker.open), 20.0)
            assert await served(one, entries) == await served(other, entries) == [False, False, False, True]
            # A replica that starts only now hears it from the others, although the snapshot knew nothing of it.
            async with redis_cache(own.port, budget_s=ROOMY_S) as third:
                await settled(lambda: not third.store.breaker.open, 20.0)
                assert await served(third, entries) == [False, False, False, True]


async def test_a_line_that_nobody_of_us_wrote_takes_nothing_back(redis: RedisServer):
    async with redis_cache(redis.port, budget_s=ROOMY_S) as cached:
        redis.tell("XADD", "sft:test:revoked", "*", "l", "forged")
        redis.tell("XADD", "sft:test:revoked", "*", "other", "field")
        await cached.store.beat()
        assert not cached.store.breaker.open
        assert len(cached.cache.revocations) == 0
        assert cached.counted("sft_cache_invalid_total") == 2


GUARD = """\
service: test
slo: null
routes: [{{name: chat, path: /v1/chat/completions, adapter: openai-chat}}]
versions: {{v1: {{upstreams: ["http://127.0.0.1:1"]}}}}
release: {{stable: v1}}
cache:
  store: redis
  redis: {{url: "redis://127.0.0.1:{port}", username: doctor, password_env: PW, hmac_key_env: KEY}}
"""


async def test_the_doctor_tries_every_command_and_names_the_cure(redis: RedisServer, tmp_path: Path):
    async def found(port: int, password: str = "pw") -> list[tuple[str, ...]]:
        (tmp_path / "guard.yaml").write_text(GUARD.format(port=port))
        settings = load_settings(tmp_path / "guard.yaml", {"PW": password, "KEY": "sixteen bytes or more"})
        return list(await examine_redis(settings))

    redis.tell("ACL", "SETUSER", "doctor", *ACL, "-xadd")
    [fault, note] = await found(redis.port)
    assert fault[0] == "fault"
    assert "+xadd on sft:test:*" in fault[3]
    assert note[0] == "ok"
    redis.tell("ACL", "SETUSER", "doctor", "+xadd")
    assert [line[0] for line in await found(redis.port)] == ["ok", "ok"]
    redis.tell("ACL", "SETUSER", "doctor", "+config|get")
    assert (await found(redis.port))[-1][0] == "warn"  # noeviction without a limit
    [denied] = await found(redis.port, "wrong")
    assert "password_env" in denied[3]
    [refused] = await found(refused_port())
    assert refused[3] == "start Redis, or correct the address"
    assert redis.tell("DBSIZE") == b":0\r\n"  # it leaves nothing behind
