"""A real guard before the kit's fake upstream: a Zipf stream at 500 requests/s, and 1,000 clients with one question.

Both need the bench kit (`--bench-dir`) and the Debian packages nginx-light and libnginx-mod-http-lua; without them they
are skipped visibly.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import aiohttp

from bench.proxy import children, free_port, load_cores, process, upstream, wait_ready, what_is_missing
from guard.capacity.open_loop import Answer, OpenLoop, Shape
from slo.statistics import quantile, split_mix

RATE_PER_S = 500.0
QUESTION_COUNT, EXPONENT = 5000, 1.0
CLIENT_COUNT = 1000
SPEC = "fake-l50"
"""The upstream answers after 50 ms."""

GUARD_YAML = """service: bench
listen: {{data: "127.0.0.1:{port}", admin: "127.0.0.1:{admin}"}}
state_dir: {state}
slo: null
routes:
  - {{name: chat, path: /v1/chat/completions, adapter: openai-chat}}
versions:
  v1: {{upstreams: ["http://127.0.0.1:{upstream}"], model: gpt-4o-mini}}
release: {{stable: v1}}
checks: {{enabled: false}}
cache: {{admit: complete, wait: 10s, ttl: 1h}}
"""


def main(args: argparse.Namespace, parts: list[str]) -> dict[str, Any]:
    """Run the parts, or say what is missing."""
    missing = what_is_missing(args.bench_dir)
    if missing:
        print(f"\nbench.cache --{' --'.join(parts)}: SKIPPED, {missing}")
        return {part: {"skipped": missing} for part in parts}
    results = {}
    with tempfile.TemporaryDirectory(prefix="sft-bench-") as scratch, upstream(args.bench_dir, scratch) as direct:
        for part in parts:
            with guard(direct, Path(scratch) / part) as (port, admin):
                run = stampede(port, admin) if part == "stampede" else zipf(port, direct, args.duration, args.seed)
                results[part] = asyncio.run(run)
    return results


@contextmanager
def guard(upstream_port: int, scratch: Path) -> Iterator[tuple[int, int]]:
    """(data port, admin port) of `sft-guard serve` with a cache."""
    scratch.mkdir()
    port, admin = free_port(), free_port()
    values = {"port": port, "admin": admin, "state": scratch / "state", "upstream": upstream_port}
    (scratch / "guard.yaml").write_text(GUARD_YAML.format(**values))
    command = [str(Path(sys.executable).parent / "sft-guard"), "serve", "--config", str(scratch / "guard.yaml")]
    with process(["taskset", "-c", "0", *command], scratch / "guard.log") as child:
        wait_ready(port, scratch / "guard.log")
        for pid in children(child.pid):
            os.sched_setaffinity(pid, load_cores())
        yield port, admin


def body_of(question: int) -> bytes:
    """A deterministic request; the fake upstream reads its behaviour from `user`."""
    messages = [{"role": "user", "content": f"How do I file form {question}?"}]
    return json.dumps({"model": "gpt-4o-mini", "temperature": 0, "user": SPEC, "messages": messages}).encode()


async def zipf(port: int, direct_port: int, duration_s: float, seed: int) -> dict[str, Any]:
    """The same stream to the upstream and to the guard, one after the other in the same run."""
    weights = list(accumulate(rank**-EXPONENT for rank in range(1, QUESTION_COUNT + 1)))
    results: dict[str, Any] = {}
    what = f"{QUESTION_COUNT} questions, {RATE_PER_S:.0f} requests/s for {duration_s:.0f} s, open loop"
    print(f"\nZipf({EXPONENT:g}) over {what}")
    print(f"{'':<16}{'requests':>9}{'p50 ms':>9}{'p99 ms':>9}{'of direct: p50':>16}{'p99':>8}")
    base: list[float] = []
    for name, target in (("direct", direct_port), ("guard", port)):
        waited, step = await stream(target, weights, duration_s, seed)
        lag_ms = 1000 * step.lag_p95_s
        for row in ("bypass", "hit", "miss"):
            values = sorted(waited.get(row, ()))
            if not values:
                continue
            p50, p99 = quantile(values, 0.5), quantile(values, 0.99)
            base = base or [p50, p99]
            label = "direct" if name == "direct" else row
            ratios = f"{p50 / base[0]:>16.3f}{p99 / base[1]:>8.3f}" if label != "direct" else ""
            print(f"{label:<16}{len(values):>9}{1000 * p50:>9.2f}{1000 * p99:>9.2f}{ratios}")
            results[label] = {"count": len(values), "p50_ms": 1000 * p50, "p99_ms": 1000 * p99}
        results[f"{name}_errors"] = dict(step.errors)
        results[f"{name}_client_lag_p95_ms"] = lag_ms
    hits, misses = (results.get(row, {"count": 0})["count"] for row in ("hit", "miss"))
    results["hit_ratio"] = hits / max(1, hits + misses)
    print(
        f"hit ratio {results['hit_ratio']:.3f}; errors {results['direct_errors'] or 0} and "
        f"{results['guard_errors'] or 0}; the client itself was late by {lag_ms:.1f} ms (p95)"
    )
    return results


async def stream(port: int, weights: list[float], duration_s: float, seed: int) -> tuple[dict[str, list[float]], Any]:
    """(waiting times by what the cache said, from sending to the last byte, s; the step as the load loop saw it)."""
    chance, waited = split_mix(seed), defaultdict(list)
    loop = asyncio.get_running_loop()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send(number: int) -> Answer:
            question = bisect(weights, chance() * weights[-1])
            began_s = loop.time()
            try:
                async with session.post(
                    f"http://127.0.0.1:{port}/v1/chat/completions", data=body_of(question),
                    headers={"content-type": "application/json"},
                ) as response:  # fmt: skip
                    await response.read()
                    state = response.headers.get("x-guard-cache", "bypass")
                    waited[state].append(loop.time() - began_s)
                    return Answer() if response.status == 200 else Answer(f"status {response.status}")
            except (aiohttp.ClientError, OSError) as error:
                return Answer(type(error).__name__)

        shape = Shape(step_s=duration_s, warmup_ratio=0.0, max_count=10**9, poisson=True)
        step = await OpenLoop(send, shape, split_mix(seed + 1)).step(RATE_PER_S)
    return waited, step


async def stampede(port: int, admin: int) -> dict[str, Any]:
    """A thousand clients ask one new question at once; what the guard counted as misses went to the model."""
    connector = aiohttp.TCPConnector(limit=0)
    start, states = asyncio.Event(), defaultdict(int)
    async with aiohttp.ClientSession(connector=connector) as session:
        before = await _lookups(session, admin)

        async def one() -> None:
            await start.wait()
            async with session.post(
                f"http://127.0.0.1:{port}/v1/chat/completions", data=body_of(10**6),
                headers={"content-type": "application/json"},
            ) as response:  # fmt: skip
                await response.read()
                states[f"{response.status} {response.headers.get('x-guard-cache')}"] += 1

        tasks = [asyncio.create_task(one()) for _ in range(CLIENT_COUNT)]
        await asyncio.sleep(0)
        start.set()
        await asyncio.gather(*tasks)
        after = await _lookups(session, admin)
    calls = after["misses"] - before["misses"]
    coalesced = after["coalesced"] - before["coalesced"]
    print(f"\n{CLIENT_COUNT} clients, one new question: {calls} upstream call(s), {coalesced} waited; {dict(states)}")
    return {"clients": CLIENT_COUNT, "upstream_calls": calls, "coalesced": coalesced, "answers": dict(states)}


async def _lookups(session: aiohttp.ClientSession, admin: int) -> dict[str, int]:
    async with session.get(f"http://127.0.0.1:{admin}/api/v1/cache") as response:
        report: dict[str, int] = await response.json()
        return report
