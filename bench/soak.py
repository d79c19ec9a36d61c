"""Whether anything grows: `python -m bench.soak --minutes 30`.

    .venv/bin/python -m bench.soak --minutes 30      # as `make soak`
    .venv/bin/python -m bench.soak --minutes 1440    # a day: the figure of a release

A real guard with every dependency (`tests/faults/rig.py`) is asked at 60 % of what this machine can do with it, JSON
and streams, new and repeated questions; some clients hang up, some ask nonsense. One dependency after the other breaks
for a while, the check worker is killed, the configuration is reloaded, canaries come and go. Every ten seconds memory,
descriptors, threads and tasks are read. From the tenth minute on (or a third of the run) a straight line is fitted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.faults.dead_dependencies import DEPENDENCIES, busy_hands, worker_of
from tests.faults.rig import MODES, Rig

EXTRA = "exchange_log: {segment: 8MiB, max_total: 64MiB}\nlimits: {concurrent_requests: 500}\n"
SAMPLE_S = 10.0
FAULT_S, WELL_S = 8.0, 12.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the guard holds at one moment. children_mib: its check worker and the converter of its log."""

    at_s: float
    rss_mib: float
    children_mib: float
    descriptors: int
    threads: int
    tasks: float


def fitted(points: list[tuple[float, float]]) -> tuple[float, float]:
    """(slope per second, half width of its 95 % interval) of the least-squares line; errors taken as independent.

    >>> fitted([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)])
    (2.0, 0.0)
    """
    n = len(points)
    mean_x, mean_y = (sum(p[i] for p in points) / n for i in (0, 1))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    return slope, 1.96 * math.sqrt(rest / max(1, n - 2) / spread)


class Soak:
    """One run. Answers that were not whole and right are counted by what was wrong with them."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig, self.dice = rig, random.Random(seed)
        self.asked: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self.faults: Counter[str] = Counter()
        self.began_s = time.monotonic()
        self._numbers = itertools.count(1)

    async def one(self) -> None:
        """A client: mostly a good one."""
        kind = self.dice.choices(("json", "stream", "leaves", "nonsense"), (60, 32, 5, 3))[0]
        self.asked[kind] += 1
        if kind == "nonsense":
            await self.rig.request(self.rig.data_port, "POST", "/v1/chat/completions", b'{"messages": 7}')
            await self.rig.request(self.rig.data_port, "BREW", "/../x")
            return
        number = self.dice.randrange(200) if self.dice.random() < 0.5 else next(self._numbers)
        question = self.rig.ask(number, stream=kind != "json", headers=f"x-guard-session: s{number % 997}\r\n")
        if kind == "leaves":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(question, self.dice.random() * 0.01)
            return
        answer = await question
        if answer.error:
            self.wrong[answer.error[:120]] += 1

    async def capacity_per_s(self, seconds: float) -> float:
        """Answers per second of a closed loop with 24 clients."""
        end_s = time.monotonic() + seconds

        async def client() -> int:
            done = 0
            while time.monotonic() < end_s:
                await self.rig.ask(next(self._numbers), stream=done % 3 == 0)
                done += 1
            return done

        return sum(await asyncio.gather(*(client() for _ in range(24)))) / seconds

    async def traffic(self, rate: float, end_s: float) -> None:
        tasks: set[asyncio.Task[None]] = set()
        due_s = time.monotonic()
        while (due_s := due_s + self.dice.expovariate(rate)) < end_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            if len(tasks) > 400:  # the machine stands still: an open loop would only drown it
                self.asked["left out"] += 1
                continue
            task = asyncio.create_task(self.one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def weather(self) -> None:
        """Faults, one after the other, with good times between them."""
        kinds = [*itertools.product(DEPENDENCIES, MODES), *[("worker", "killed"), ("guard", "reloaded")] * 3]
        while True:
            self.dice.shuffle(kinds)
            for name, how in kinds:
                self.faults[name] += 1
                if name == "worker":
                    worker = worker_of(self.rig)
                    if worker is not None:
                        with contextlib.suppress(psutil.Error):
                            worker.kill()
                elif name == "guard":
                    self.rig.process.send_signal(signal.SIGHUP)
                else:
                    await self.rig.faults[name].set(how)
                    await asyncio.sleep(FAULT_S)
                    await self.rig.faults[name].set("pass")
                await asyncio.sleep(WELL_S)

    async def watch(self) -> None:
        guard = psutil.Process(self.rig.process.pid)
        while True:
            await asyncio.sleep(SAMPLE_S)
            tasks = await self.rig.metric("sft_guard_tasks")
            children = 0.0
            for child in guard.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    children += child.memory_info().rss
            at_s = time.monotonic() - self.began_s
            now = Sample(
                at_s,
                guard.memory_info().rss / 2**20,
                children / 2**20,
                guard.num_fds(),
                guard.num_threads(),
                tasks or 0.0,
            )
            self.samples.append(now)
            print(
                f"{at_s:6.0f} s  rss {now.rss_mib:.1f} MiB  children {now.children_mib:.0f}  fds {now.descriptors}  "
                f"threads {now.threads}  tasks {now.tasks:.0f}  asked {self.asked.total()}  wrong {self.wrong.total()}",
                file=sys.stderr, flush=True,
            )  # fmt: skip

    def result(self, rate: float, capacity: float, minutes: float) -> dict[str, Any]:
        """What is printed. The slope counts from the tenth minute on, or from a third of a shorter run."""
        settled_s = min(600.0, 20.0 * minutes)
        late = [s for s in self.samples if s.at_s >= settled_s]
        slope, half = fitted([(s.at_s, s.rss_mib) for s in late])
        mean = sum(s.rss_mib for s in late) / len(late)
        third = max(1, len(late) // 3)

        def mid(values: list[float]) -> float:
            return sorted(values)[len(values) // 2]

        def ends(field: str) -> list[float]:
            return [round(mid([getattr(s, field) for s in part]), 1) for part in (late[:third], late[-third:])]

        hourly = 360_000 * slope / mean
        return {
            "minutes": minutes, "capacity_per_s": round(capacity), "rate_per_s": round(rate), "asked": dict(self.asked),
            "wrong": dict(self.wrong.most_common(5)), "wrong_count": self.wrong.total(), "faults": dict(self.faults),
            "rss_mib": ends("rss_mib"), "rss_slope_percent_per_hour": round(hourly, 2),
            "rss_slope_half_width": round(360_000 * half / mean, 2), "children_mib": ends("children_mib"),
            "descriptors": ends("descriptors"), "threads": ends("threads"), "tasks": ends("tasks"),
            "ok": hourly < 1.0 and not self.wrong,
        }  # fmt: skip


async def soak(minutes: float, seed: int, share: float) -> dict[str, Any]:
    """Run for so many minutes."""
    with tempfile.TemporaryDirectory(prefix="sft-guard-soak-") as directory:
        async with Rig(Path(directory), extra=EXTRA) as rig:
            run = Soak(rig, seed)
            await run.capacity_per_s(3.0)
            capacity = await run.capacity_per_s(10.0)
            rate = share * capacity
            print(f"capacity {capacity:.0f}/s, asking {rate:.0f}/s", file=sys.stderr, flush=True)
            run.began_s = time.monotonic()
            async with busy_hands(rig, every_s=20.0):
                besides = [asyncio.create_task(run.weather()), asyncio.create_task(run.watch())]
                await run.traffic(rate, run.began_s + 60.0 * minutes)
                for task in besides:
                    task.cancel()
                for error in await asyncio.gather(*besides, return_exceptions=True):
                    if isinstance(error, Exception):
                        raise error
            return run.result(rate, capacity, minutes)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.6, help="of the capacity measured at the start")
    args = parser.parse_args()
    result = asyncio.run(soak(args.minutes, args.seed, args.share))
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
