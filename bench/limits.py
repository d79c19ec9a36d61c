"""What bad clients cost the good ones: `python -m bench.limits`.

    .venv/bin/python -m bench.limits                        # all four, about five minutes
    .venv/bin/python -m bench.limits --only idle,overload --scale 0.1

A real `sft-guard serve` with checks on, one model server, the clients: each a process of its own, all on loopback.

cancels   100,000 requests given up at a random moment: then as many requests at once as the pool holds, and descriptors
slow      2,000 clients that send a byte of their head a second: p99 of the others, in turns while the slow ones are at
          the guard and at a server that nobody else asks, so that their work is on the machine both times
idle      10,000 connections that say nothing: resident memory
overload  three times the capacity, open loop: answers per second, and how soon all is well afterwards
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from bench.instant_model import serve_model
from tests.faults.rig import Bare

POOL = 256
_REUSE_S = 15.0  # the guard closes idle connections after 30


# Processes ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """One of the roles below as a process; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.limits", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


@asynccontextmanager
async def _guard(extra: str = "") -> AsyncIterator[Bare]:
    with tempfile.TemporaryDirectory(prefix="sft-guard-limits-") as directory:
        async with _process("--model") as model:
            port = int(await _line(model))
            guard = Bare(Path(directory))
            async with guard.before(port, extra=extra):
                yield guard


# Clients --------------------------------------------------------------------------------------------------------------


def _request(wait_s: float, number: int) -> bytes:
    asked = {"wait_s": wait_s, "model": "m", "messages": [{"role": "user", "content": f"question {number}"}]}
    body = json.dumps(asked).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    )
    return (head % len(body)).encode() + body


class _Client:
    """Keep-alive connections to the guard."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            since_s, reader, writer = self._idle.pop()
            if time.monotonic() - since_s < _REUSE_S:
                return reader, writer
            writer.transport.abort()
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def ask(self, number: int, wait_s: float = 0.0) -> int:
        """The status; 0: none came."""
        try:
            async with asyncio.timeout(30):
                reader, writer = await self._connection()
                writer.write(_request(wait_s, number))
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return 0
        if b"connection: close" in head.lower():
            writer.close()
        else:
            self._idle.append((time.monotonic(), reader, writer))
        return int(head[9:12])

    def close(self) -> None:
        for _, _, writer in self._idle:
            writer.transport.abort()


async def _paced(client: _Client, rate: float, seconds: float, wait_s: float = 0.0) -> list[tuple[float, float, int]]:
    """Open loop: (due second, seconds it took from then on, status) of every request."""
    told: list[tuple[float, float, int]] = []
    tasks: set[asyncio.Task[None]] = set()
    dice = random.Random(3)
    began_s = time.perf_counter()

    async def one(number: int, due_s: float) -> None:
        status = await client.ask(number, wait_s)
        told.append((due_s - began_s, time.perf_counter() - due_s, status))

    due_s, number = began_s, 0
    while (due_s := due_s + dice.expovariate(rate)) < began_s + seconds:
        number += 1
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        task = asyncio.create_task(one(number, due_s))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return told


def _p(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


# Measurements ---------------------------------------------------------------------------------------------------------


async def cancels(scale: float) -> dict[str, Any]:
    """Requests given up at any moment; then the pool and the descriptors."""
    count = int(100_000 * scale)
    # Idle connections to the upstream would be descriptors too: none are kept here.
    limits = f"limits: {{upstream_connections: {POOL}, upstream_idle: 0}}\n"
    async with _guard(limits) as guard:
        process = psutil.Process(guard.process.pid)
        client = _Client(guard.data_port)
        await client.ask(0)
        client.close()
        before_count = await _settled(process.num_fds)
        dice = random.Random(5)
        left = iter(range(count))

        async def giver_up() -> None:
            for number in left:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", guard.data_port)
                    writer.write(_request(dice.choice((0.0, 0.005, 0.05, 5.0)), number))
                    await asyncio.sleep(dice.random() * 0.02)
                    writer.transport.abort()

        began_s = time.perf_counter()
        await asyncio.gather(*(giver_up() for _ in range(100)))
        took_s = time.perf_counter() - began_s
        after_count = await _settled(process.num_fds)
        last = _Client(guard.data_port)
        statuses = await asyncio.gather(*(last.ask(n, 3.0) for n in range(POOL)))
        last.close()
        return {
            "cancelled": count, "seconds": round(took_s, 1), "pool": POOL, "usable": statuses.count(200),
            "usable_ratio": statuses.count(200) / POOL, "descriptors_before": before_count,
            "descriptors_after": after_count, "ok": statuses.count(200) == POOL and after_count <= before_count,
        }  # fmt: skip


async def _settled(count: Callable[[], int]) -> int:
    """The count once it has not changed for three seconds: what is being closed is closed then."""
    last, since_s = count(), time.monotonic()
    while time.monotonic() - since_s < 3.0:
        await asyncio.sleep(0.1)
        now = count()
        if now != last:
            last, since_s = now, time.monotonic()
    return last


async def slow(scale: float) -> dict[str, Any]:
    """The others' latency beside clients that trickle; in turns, because the machine is never twice the same."""
    count, seconds, rate = int(2000 * scale), 10.0, 200.0
    turns = 8 if scale >= 1 else 2
    took_s: dict[str, list[float]] = {"elsewhere": [], "here": []}
    lives_s: list[float] = []
    ratios: list[float] = []
    wrong = 0
    cpu_s = {"elsewhere": 0.0, "here": 0.0}
    async with _guard() as guard, _process("--model") as other:
        other_port = int(await _line(other))
        process = psutil.Process(guard.process.pid)
        client = _Client(guard.data_port)
        await _paced(client, rate, 3.0)
        for _ in range(turns):
            p99_s = {}
            for where, port in (("elsewhere", other_port), ("here", guard.data_port)):
                async with _process("--slow", str(count), str(port)) as slow_ones:
                    await _line(slow_ones)
                    before_s = sum(process.cpu_times()[:2])
                    told = await _paced(client, rate, seconds)
                    cpu_s[where] += sum(process.cpu_times()[:2]) - before_s
                    slow_ones.terminate()
                    lives = json.loads(await _line(slow_ones))
                lives_s += lives if where == "here" else []
                wrong += sum(status != 200 for _, _, status in told)
                took_s[where] += [took for _, took, _ in told]
                p99_s[where] = _p([took for _, took, _ in told], 0.99)
            ratios.append(p99_s["here"] / p99_s["elsewhere"])
        client.close()
    ms = {f"{name}_{where}_ms": round(1000 * _p(took, share), 2) for where, took in took_s.items()
          for name, share in (("p50", 0.5), ("p99", 0.99))}  # fmt: skip
    ratio = sorted(ratios)[turns // 2]
    return {
        "slow_clients": count, "requests": len(took_s["here"]), "wrong": wrong, **ms,
        # Of one core, whatever else the machine does: what the slow ones take by themselves.
        "cpu_elsewhere_ratio": round(cpu_s["elsewhere"] / seconds / turns, 3),
        "cpu_here_ratio": round(cpu_s["here"] / seconds / turns, 3),
        "p99_ratio_of_turns": [round(r, 2) for r in ratios], "median_p99_ratio": round(ratio, 3),
        "longest_life_s": round(max(lives_s, default=0.0), 1), "closed": len(lives_s),
        "ok": not wrong and ratio <= 1.1,
    }  # fmt: skip


async def _be_slow(count: int, port: int) -> None:
    """Clients that send a byte of a head each second, and come back when closed. Prints how long each lived."""
    lives_s: list[float] = []
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nx-padding: " + b"a" * 1000

    async def one(start_s: float) -> None:
        await asyncio.sleep(start_s)
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                began_s = time.monotonic()
                ended = asyncio.ensure_future(reader.read(-1))
                for byte in head:
                    writer.write(bytes((byte,)))
                    done, _ = await asyncio.wait({ended}, timeout=1.0)
                    if done:
                        break
                lives_s.append(time.monotonic() - began_s)
                ended.cancel()
                await asyncio.gather(ended, return_exceptions=True)
                writer.transport.abort()
            except OSError:
                await asyncio.sleep(0.5)

    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(15, ended.set)
    tasks = [asyncio.create_task(one(2.0 * n / count)) for n in range(count)]
    await asyncio.sleep(2.5)
    print("all there", flush=True)
    await ended.wait()
    for task in tasks:
        task.cancel()
    print(json.dumps([round(life, 1) for life in lives_s]), flush=True)


async def idle(scale: float) -> dict[str, Any]:
    """Resident memory of the guard with connections that say nothing."""
    count = int(10_000 * scale)
    async with _guard() as guard:
        process = psutil.Process(guard.process.pid)
        client = _Client(guard.data_port)
        await asyncio.gather(*(client.ask(n) for n in range(50)))
        await _paced(client, 200.0, 5.0)
        before, calm = process.memory_info().rss, await _paced(client, 200.0, 5.0)
        async with _process("--idle", str(count), str(guard.data_port)) as idlers:
            opened = int(await _line(idlers))
            busy = await _paced(client, 200.0, 5.0)
            after = process.memory_info().rss
        client.close()
        wrong = sum(status != 200 for _, _, status in calm + busy)
        return {
            "connections": opened,
            "rss_before_mib": round(before / 2**20, 1),
            "rss_after_mib": round(after / 2**20, 1),
            "added_mib": round((after - before) / 2**20, 1), "kib_each": round((after - before) / 1024 / opened, 2),
            "p99_before_ms": round(1000 * _p([t for _, t, _ in calm], 0.99), 2),
            "p99_with_ms": round(1000 * _p([t for _, t, _ in busy], 0.99), 2),
            "wrong": wrong, "ok": opened == count and after - before <= 100 * 2**20 and not wrong,
        }  # fmt: skip


async def _be_idle(count: int, port: int) -> None:
    held = []
    for _ in range(count):
        held.append(await asyncio.open_connection("127.0.0.1", port))
    print(len(held), flush=True)
    await asyncio.Event().wait()


async def overload(scale: float) -> dict[str, Any]:
    """Three times what `limits.concurrent_requests` lets through, then half of it."""
    at_once, wait_s, seconds = 40, 0.1, max(3.0, 20.0 * scale)
    async with _guard(f"limits: {{concurrent_requests: {at_once}}}\n") as guard:
        client = _Client(guard.data_port)
        end_s = time.perf_counter() + 4.0

        async def closed_loop() -> int:
            done = 0
            while time.perf_counter() < end_s:
                done += await client.ask(done, wait_s) == 200
            return done

        capacity = sum(await asyncio.gather(*(closed_loop() for _ in range(at_once)))) / 4.0
        during = await _paced(client, 3.0 * capacity, seconds, wait_s)
        good = [t for t in during if t[2] == 200 and t[0] + t[1] <= seconds]
        after = await _paced(client, 0.5 * capacity, 12.0, wait_s)
        client.close()
        bad = [due for due, took, status in sorted(after) if status != 200 or took > 5 * wait_s]
        others = {status for _, _, status in during} - {200, 503}
        goodput = len(good) / seconds / capacity
        recovery_s = max(bad, default=0.0)
        return {
            "capacity_per_s": round(capacity), "offered_per_s": round(3 * capacity), "seconds": seconds,
            "goodput_ratio": round(goodput, 3), "refused_at_once": sum(s == 503 for _, _, s in during),
            "other_statuses": sorted(others), "p99_of_answers_ms": round(1000 * _p([t for _, t, _ in good], 0.99)),
            "p99_of_refusals_ms": round(1000 * _p([t for _, t, s in during if s == 503] or [0.0], 0.99)),
            "recovery_s": round(recovery_s, 2), "ok": goodput >= 0.9 and recovery_s <= 10 and not others,
        }  # fmt: skip


MEASUREMENTS: dict[str, Callable[[float], Awaitable[dict[str, Any]]]] = {
    "cancels": cancels, "slow": slow, "idle": idle, "overload": overload,
}  # fmt: skip


async def _measure(names: list[str], scale: float) -> dict[str, Any]:
    results = {}
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = await MEASUREMENTS[name](scale)
        print(f"{name}: " + ", ".join(f"{k} {v}" for k, v in results[name].items()), flush=True)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.limits", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(MEASUREMENTS), help="names, comma-separated")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full numbers of clients and requests")
    parser.add_argument("--model", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--slow", nargs=2, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--idle", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.model:
        asyncio.run(serve_model())
    elif args.slow:
        asyncio.run(_be_slow(*args.slow))
    elif args.idle:
        asyncio.run(_be_idle(*args.idle))
    else:
        names = args.only.split(",")
        if unknown := set(names) - set(MEASUREMENTS):
            parser.error(f"--only {','.join(sorted(unknown))}: choose of {', '.join(MEASUREMENTS)}")
        results = asyncio.run(_measure(names, args.scale))
        print(json.dumps(results))
        return 0 if all(result["ok"] for result in results.values()) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
