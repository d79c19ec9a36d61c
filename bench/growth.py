"""What is left in memory by each thing that happens to a guard: `python -m bench.growth`.

    .venv/bin/python -m bench.growth                   # about ten minutes; --rounds 1: half of it

A real guard with every dependency (`tests/faults/rig.py`) answers, repeats, is left, reloads, starts canaries, loses
its worker and each of its dependencies, each many times; after each kind the C heap and the small blocks in use are
read from /metrics and the difference is printed. What the first round leaves may fill tables for the first time; what
the second leaves again, and in proportion to its count, is a leak.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil

from bench.soak import EXTRA, figures
from tests.faults.dead_dependencies import DEPENDENCIES, worker_of
from tests.faults.rig import Rig

Act = Callable[[int], Awaitable[object]]
SETTLE_S = 1.5
STATES = ("refused", "rst", "garbage")


class Acts:
    """What may happen to a guard, once each."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self._dice = rig, random.Random(1)
        self._numbers = itertools.count(1000)

    async def new_json(self, number: int) -> None:
        await self._rig.ask(next(self._numbers), headers=f"x-guard-session: s{number % 997}\r\n")

    async def new_stream(self, number: int) -> None:
        await self._rig.ask(next(self._numbers), stream=True, headers=f"x-guard-session: s{number % 997}\r\n")

    async def repeated(self, number: int) -> None:
        await self._rig.ask(number % 200, stream=number % 3 == 0, headers=f"x-guard-session: s{number % 997}\r\n")

    async def left(self, number: int) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._rig.ask(next(self._numbers)), self._dice.random() * 0.01)

    async def nonsense(self, number: int) -> None:
        await self._rig.request(self._rig.data_port, "POST", "/v1/chat/completions", b'{"messages": 7}')
        await self._rig.request(self._rig.data_port, "BREW", "/../x")

    async def canary(self, number: int) -> None:
        plan = {"version": "v2", "plan": "20% for 2h", "force": True}
        await self._rig.admin("POST", "/api/v1/release/start", plan)
        for other in range(8):
            await self.repeated(other)
        await self._rig.admin("POST", "/api/v1/release/rollback", {"reason": "growth"})

    async def reload(self, number: int) -> None:
        self._rig.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.4)

    async def killed_worker(self, number: int) -> None:
        worker = worker_of(self._rig)
        if worker is not None:
            with contextlib.suppress(psutil.Error):
                worker.kill()
        await asyncio.sleep(2.5)
        await many(20, self.new_json, 16)

    async def scrape(self, number: int) -> None:
        await self._rig.request(self._rig.admin_port, "GET", "/metrics")

    def fault(self, name: str, state: str) -> Act:
        """A dependency breaks for a while and is well again."""

        async def act(number: int) -> None:
            await self._rig.faults[name].set(state)
            await many(60, self.new_json, 16)
            await asyncio.sleep(0.6)
            await self._rig.faults[name].set("pass")
            await many(30, self.new_json, 16)
            await asyncio.sleep(0.3)

        return act


async def many(count: int, act: Act, at_once: int) -> None:
    """`act` so often, by so many at a time."""
    left = iter(range(count))

    async def one() -> None:
        for number in left:
            await act(number)

    await asyncio.gather(*(one() for _ in range(at_once)))


async def heap(rig: Rig) -> tuple[float, float]:
    """(KiB in use in the C heap, small blocks in use): the least of a few readings, as queues come and go."""
    seen: list[tuple[float, float]] = []
    for _ in range(5):
        page = figures((await rig.request(rig.admin_port, "GET", "/metrics")).body.decode())
        named = {(name.partition("{")[0], 'state="used"' in name): value for name, value in page.items()}
        seen.append((named["sft_guard_heap_bytes", True] / 1024, named["sft_guard_allocated_blocks", False]))
        await asyncio.sleep(0.2)
    return min(kib for kib, _ in seen), min(blocks for _, blocks in seen)


async def measure(rounds: int) -> None:
    """Print a line for each kind."""
    with tempfile.TemporaryDirectory(prefix="sft-guard-growth-") as directory:
        async with Rig(Path(directory), extra=EXTRA) as rig:
            acts = Acts(rig)
            kinds: list[tuple[str, int, Act, int]] = [
                ("new questions", 8000, acts.new_json, 16), ("new streams", 6000, acts.new_stream, 16),
                ("repeated questions", 8000, acts.repeated, 16), ("clients that leave", 4000, acts.left, 16),
                ("nonsense", 2000, acts.nonsense, 16), ("canaries", 60, acts.canary, 1),
                ("reloads", 30, acts.reload, 1),
                ("killed workers", 6, acts.killed_worker, 1), ("scrapes", 200, acts.scrape, 2),
            ]  # fmt: skip
            for name, state in itertools.product(DEPENDENCIES, STATES):
                kinds.append((f"{name} {state}", 6, acts.fault(name, state), 1))
            for _ in range(3):  # tables, caches and threads are there
                for count, act in ((3000, acts.new_json), (3000, acts.repeated), (1500, acts.new_stream)):
                    await many(count, act, 16)
            await many(5, acts.canary, 1)
            first = before = await heap(rig)
            for number in range(rounds):
                for name, count, act, at_once in kinds:
                    await many(count, act, at_once)
                    await asyncio.sleep(SETTLE_S)
                    now = await heap(rig)
                    print(
                        f"round {number + 1}  {name:<22}{count:6d}  {now[0] - before[0]:+8.1f} KiB  "
                        f"{now[1] - before[1]:+8.0f} blocks", flush=True,
                    )  # fmt: skip
                    before = now
                print(f"round {number + 1}  whole: {before[0] - first[0]:+.1f} KiB, {before[1] - first[1]:+.0f} blocks")
                first = before


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2, help="times that each kind happens so often as the table says")
    asyncio.run(measure(parser.parse_args().rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
