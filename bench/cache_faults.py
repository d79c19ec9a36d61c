"""What a broken Redis costs: added latency and failures, state by state: `python -m bench.cache_faults`.

Two guards before one model server, alike but for the cache: one without, one on a Redis that is then refused, stalled,
slow, full... Both are asked the same new questions in turn at an open-loop rate, so that the noise of the machine is in
both. Added p99 is the difference of the two p99 in the same second. Model server, both guards and the load are
processes of their own. Answers are compared byte for byte; a status other than 200 or another body is a failure.

    .venv/bin/python -m bench.cache_faults --rate 200 --seconds 4 --mutations 100000

On a machine that does other work as well, start it under `chrt -f 5`: a tail of 25 ms cannot be seen behind a queue of
processes that wait for a core.

Needs the Debian package redis-server; says so and ends with 0 when it is not there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bench.instant_model import BODY, serve_model
from guard.cache.envelope import Crosstalk, InvalidValue
from guard.ports import Route
from guard.proxy import DataPath
from guard.split import WeightedSplit
from tests.cache_kit import CheckedBy, RedisServer, redis_cache, redis_server
from tests.faults.path_kit import Prices, target
from tests.faults.scripted_upstream import unused_port
from tests.faults.tcp_proxy import RedisProxy
from tests.faults.test_cache_redis import made, mutated, name, sealed

WARM_UP_S = 1.0
HEALTHY_S = 1.0
FIRST_S = 1.0
OPEN_FROM_S = 1.5


def _p(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


# The processes under test ---------------------------------------------------------------------------------------------


async def _serve_guard(model_port: int, redis_port: int) -> None:
    """A data path; redis_port 0: without a cache."""
    async with AsyncExitStack() as stack:
        cache = None
        sink = CheckedBy()
        if redis_port:
            cached = await stack.enter_async_context(redis_cache(redis_port))
            cache = sink.cache = cached.cache
        route = Route("chat", "/v1/chat/completions", "openai-chat")
        path = DataPath((route,), WeightedSplit(target(model_port)), sink, Prices(), cache=cache)
        print(await path.start("127.0.0.1", 0), flush=True)

        async def forget() -> None:
            while True:
                await asyncio.sleep(1)
                sink.exchanges.clear()
                sink.captures.clear()

        await forget()


@asynccontextmanager
async def _process(*arguments: str) -> AsyncIterator[int]:
    """One of ours; its port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.cache_faults", *arguments, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


# Load -----------------------------------------------------------------------------------------------------------------


@dataclass
class _Sample:
    at_s: float
    cached: bool
    took_s: float
    failed: bool


class _Client:
    """Keep-alive connections to one guard."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, number: int) -> bool:
        """Whether the answer was whole and right."""
        body = b'{"model":"m-1","temperature":0,"messages":[{"role":"user","content":"question %d"}]}' % number
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        got = await reader.readexactly(length)
        self._idle.append((reader, writer))
        return head.startswith(b"HTTP/1.1 200") and got == BODY

    def close(self) -> None:
        for _, writer in self._idle:
            writer.transport.abort()


async def _load(
    ports: tuple[int, int], rate: float, seconds: float, fault: Callable[[], Awaitable[None]]
) -> list[_Sample]:
    """Ask both in turn, open loop; the fault comes after a warm-up and `HEALTHY_S`, and `at_s` counts from it."""
    clients = tuple(_Client(port) for port in ports)
    samples: list[_Sample] = []
    dice = random.Random(7)
    tasks: set[asyncio.Task[None]] = set()
    began_s = time.perf_counter()
    fault_s = began_s + WARM_UP_S + HEALTHY_S
    broken = False

    async def one(number: int, due_s: float, cached: bool) -> None:
        try:
            async with asyncio.timeout(20):
                right = await clients[cached].ask(number)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            right = False
        samples.append(_Sample(due_s - fault_s, cached, time.perf_counter() - due_s, not right))

    due_s, number = began_s, random.randrange(10**9)
    while due_s < fault_s + seconds:
        due_s += dice.expovariate(rate)
        if not broken and due_s >= fault_s:
            broken = True
            await fault()
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        for cached in (False, True):
            number += 1
            task = asyncio.create_task(one(number, time.perf_counter(), cached))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for client in clients:
        client.close()
    return samples


def _figures(samples: list[_Sample]) -> dict[str, Any]:
    def p99(cached: bool, low_s: float, high_s: float) -> float:
        return _p([s.took_s for s in samples if s.cached == cached and low_s <= s.at_s < high_s], 0.99)

    def added_ms(low_s: float, high_s: float) -> float:
        return round(1000 * (p99(True, low_s, high_s) - p99(False, low_s, high_s)), 2)

    return {
        "requests": sum(s.cached for s in samples),
        "failures": sum(s.failed for s in samples if s.cached),
        "failures_without_cache": sum(s.failed for s in samples if not s.cached),
        "added_p99_healthy_ms": added_ms(-HEALTHY_S, 0),
        "added_p99_first_second_ms": added_ms(0, FIRST_S),
        "added_p99_later_ms": added_ms(OPEN_FROM_S, float("inf")),
        "p99_without_cache_ms": round(1000 * p99(False, -HEALTHY_S, float("inf")), 2),
    }


# States ---------------------------------------------------------------------------------------------------------------

STATES = (
    "healthy", "refused", "stalled", "slow", "blackhole", "garbage", "reset", "no-rights", "full", "evicting",
    "read-only",
)  # fmt: skip


async def _measure(state: str, model: int, plain: int, rate: float, seconds: float) -> list[_Sample]:
    options = {
        "full": ("--maxmemory", "3mb", "--maxmemory-policy", "noeviction"),
        "evicting": ("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru"),
    }.get(state, ())
    with redis_server(*options) as redis:
        async with AsyncExitStack() as stack:
            proxy = await stack.enter_async_context(RedisProxy(redis.port))
            proxied = state in ("slow", "blackhole", "garbage", "reset")
            port = proxy.port if proxied else redis.port
            guard = await stack.enter_async_context(_process("--serve-guard", str(model), str(port)))
            stack.callback(_wake, redis)

            async def fault() -> None:
                await _break(state, redis, proxy)

            return await _load((plain, guard), rate, seconds, fault)
    raise AssertionError


def _wake(redis: RedisServer) -> None:
    if redis.process is not None:
        os.kill(redis.process.pid, signal.SIGCONT)


async def _break(state: str, redis: RedisServer, proxy: RedisProxy) -> None:
    if state == "refused":
        redis.stop()
    elif state == "stalled":
        assert redis.process is not None
        os.kill(redis.process.pid, signal.SIGSTOP)
    elif state == "slow":
        proxy.mode, proxy.delay_s = "delay", 5.0
    elif state in ("blackhole", "garbage", "reset"):
        proxy.mode = state
    elif state == "no-rights":
        redis.tell("ACL", "SETUSER", "default", "-get")
    elif state in ("full", "evicting"):
        for number in range(40):
            redis.tell("SET", f"filler:{number}", "x" * 50_000)
    elif state == "read-only":
        redis.tell("REPLICAOF", "127.0.0.1", str(unused_port()))


async def _mutations(count: int, seed: int) -> dict[str, int]:
    """Damaged values read back by the store; how many were served."""
    dice = random.Random(seed)
    served = 0
    with redis_server() as redis:
        async with redis_cache(redis.port, budget_s=5.0, write_budget_s=5.0) as cached:
            for number in range(count):
                entry = made(number)
                bad = mutated(sealed(entry), dice)
                await cached.store._writes.call("SET", name(entry), bad, "PX", 60_000, read=bool)
                try:
                    served += await cached.store.read(entry.key) is not None
                except (InvalidValue, Crosstalk):
                    pass
                if number % 10_000 == 9_999:
                    print(f"  {number + 1} mutations, {served} served", file=sys.stderr)
    return {"mutations": count, "served": served}


async def _run(args: argparse.Namespace) -> int:
    results: dict[str, Any] = {}
    async with _process("--serve-model") as model, _process("--serve-guard", str(model), "0") as plain:
        for state in args.states.split(","):
            samples = [
                sample
                for _ in range(args.repeats)
                for sample in await _measure(state, model, plain, args.rate, args.seconds)
            ]
            results[state] = figures = _figures(samples)
            added = [figures[f"added_p99_{when}_ms"] for when in ("healthy", "first_second", "later")]
            print(
                f"{state:10} {figures['requests']:5} requests, {figures['failures']} failures; added p99 healthy "
                "{:6.2f} ms, first second {:6.2f} ms, later {:6.2f} ms".format(*added),
                file=sys.stderr,
            )
    if args.mutations:
        results["corrupt"] = await _mutations(args.mutations, args.seed)
        print(f"corrupt    {results['corrupt']}", file=sys.stderr)
    print(json.dumps(results))
    bad = sum(r.get("failures", 0) + r.get("served", 0) for r in results.values())
    return 1 if bad else 0


def main(argv: list[str] | None = None) -> int:
    """Measure every state and print one line each; with the figures as JSON at the end."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.cache_faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=200.0, help="requests/s to each guard")
    parser.add_argument("--seconds", type=float, default=4.0, help="after the fault")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each state, pooled")
    parser.add_argument("--states", default=",".join(STATES))
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve-model", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve-guard", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if shutil.which("redis-server") is None:
        print("bench.cache_faults: SKIPPED, needs redis-server (Debian package redis-server)")
        return 0
    loop: Any = None
    try:
        import uvloop
    except ImportError:
        pass
    else:
        loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop) as runner:
        if args.serve_model:
            runner.run(serve_model())
            return 0
        if args.serve_guard:
            runner.run(_serve_guard(*args.serve_guard))
            return 0
        return runner.run(_run(args))


if __name__ == "__main__":
    raise SystemExit(main())
