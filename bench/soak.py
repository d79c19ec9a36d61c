"""Whether anything grows: `python -m bench.soak --minutes 30`.

    .venv/bin/python -m bench.soak --minutes 30      # as `make soak`
    .venv/bin/python -m bench.soak --minutes 1440    # a day: the figure of a release

A real guard with every dependency (`tests/faults/rig.py`) is asked at 60 % of what this machine can do with it, JSON
and streams, new and repeated questions; some clients hang up, some ask nonsense. One dependency after the other breaks
for a while, the disk under the state directory too (where there is a C compiler), the check worker is killed, the
configuration is reloaded, canaries come and go; after ten minutes all of it has been, and begins anew in another
order. Every ten seconds memory, descriptors, threads and tasks are read, and how full the bounded tables are. From the
tenth minute on (or a third of the run) straight lines are fitted: what comes before fills tables and queues for the
first time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from bench.soak_report import GUARD, OTHERS, WORKER, Sample, said
from tests.faults.dead_dependencies import (
    DEPENDENCIES,
    DISK,
    BrokenDisk,
    broken_disk,
    built_shim,
    busy_hands,
    worker_of,
)
from tests.faults.rig import Rig
from tests.faults.tcp_proxy import MODES

EXTRA = "exchange_log: {segment: 8MiB, max_total: 64MiB}\nlimits: {concurrent_requests: 500}\n"
SAMPLE_S, READINGS = 10.0, 5
FAULT_S, WELL_S = 7.5, 6.5
"""40 faults and six other events take 599 s: each has been once when the tenth minute begins."""


def kind_of(process: psutil.Process) -> str:
    """Which of the guard's children this is."""
    return WORKER if "guard.checks.worker" in process.cmdline() else OTHERS


def sizes_mib(guard: psutil.Process) -> dict[str, float]:
    """Resident memory of the guard and of its children, by kind."""
    found = {GUARD: guard.memory_info().rss / 2**20}
    for child in guard.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            kind = kind_of(child)
            found[kind] = found.get(kind, 0.0) + child.memory_info().rss / 2**20
    return found


def figures(text: str) -> dict[str, float]:
    """`name{labels}` -> value of a metrics page."""
    return {name: float(value) for name, value in re.findall(r"^(sft_\S+) (\S+)$", text, re.MULTILINE)}


class Soak:
    """One run. Answers that were not whole and right are counted by what was wrong with them. disk: None stays well."""

    def __init__(self, rig: Rig, disk: BrokenDisk | None, seed: int) -> None:
        self.rig, self.disk, self.dice = rig, disk, random.Random(seed)
        self.asked: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self.faults: Counter[str] = Counter()
        self.began_s = time.monotonic()
        self.state = ""
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
        if self.disk is not None:
            kinds += [("disk", how) for how in DISK]
        while True:
            self.dice.shuffle(kinds)
            for name, how in kinds:
                self.faults[name] += 1
                self.state = f"{name} {how}"
                if name == "worker":
                    worker = worker_of(self.rig)
                    if worker is not None:
                        with contextlib.suppress(psutil.Error):
                            worker.kill()
                elif name == "guard":
                    self.rig.process.send_signal(signal.SIGHUP)
                elif name == "disk" and self.disk is not None:
                    self.disk.set(how)
                    await asyncio.sleep(FAULT_S)
                    self.disk.set("well")
                else:
                    await self.rig.faults[name].set(how)
                    await asyncio.sleep(FAULT_S)
                    await self.rig.faults[name].set("pass")
                self.state = ""
                await asyncio.sleep(WELL_S)

    async def watch(self) -> None:
        guard = psutil.Process(self.rig.process.pid)
        while True:
            seen: dict[str, list[float]] = {}
            for _ in range(READINGS):  # their mean: a burst of two seconds weighs two seconds
                await asyncio.sleep(SAMPLE_S / READINGS)
                for name, size in sizes_mib(guard).items():
                    seen.setdefault(name, []).append(size)
            rss_mib = {name: sum(sizes) / len(sizes) for name, sizes in seen.items()}
            page = figures((await self.rig.request(self.rig.admin_port, "GET", "/metrics")).body.decode())
            held = {}
            for name, value in page.items():
                if name.startswith("sft_guard_held_entries{") and (table := re.search(r'table="(\w+)"', name)):
                    held[table[1]] = value
            at_s = time.monotonic() - self.began_s
            one = {name.partition("{")[0]: value for name, value in page.items()}
            now = Sample(
                at_s, rss_mib, guard.num_fds(), guard.num_threads(), one.get("sft_guard_tasks"),
                one.get("sft_guard_allocated_blocks"), held,
            )  # fmt: skip
            self.samples.append(now)
            sizes = "  ".join(f"{name} {size:.1f}" for name, size in rss_mib.items())
            print(
                f"{at_s:6.0f} s  MiB: {sizes}  blocks {now.blocks or 0:.0f}  fds {now.descriptors}  "
                f"threads {now.threads}  tasks {now.tasks or 0:.0f}  asked {self.asked.total()}  "
                f"wrong {self.wrong.total()}  {self.state}",
                file=sys.stderr, flush=True,
            )  # fmt: skip

    def result(self, rate: float, capacity: float, minutes: float) -> dict[str, Any]:
        """What is printed."""
        found = said(self.samples, minutes)
        return {
            "minutes": minutes, "capacity_per_s": round(capacity), "rate_per_s": round(rate), "asked": dict(self.asked),
            "wrong": dict(self.wrong.most_common(5)), "wrong_count": self.wrong.total(), "faults": dict(self.faults),
            **found, "ok": found["ok"] and not self.wrong,
        }  # fmt: skip


async def soak(minutes: float, seed: int, share: float, fixed_rate: float | None = None) -> dict[str, Any]:
    """Run for so many minutes."""
    with tempfile.TemporaryDirectory(prefix="sft-guard-soak-") as directory:
        shim = built_shim(Path(directory))
        disk = broken_disk(Path(directory), shim) if shim is not None else None
        if disk is None:
            print("the disk stays well: no C compiler (Debian package gcc)", file=sys.stderr, flush=True)
        async with Rig(Path(directory), extra=EXTRA, environment=disk.environment if disk is not None else {}) as rig:
            run = Soak(rig, disk, seed)
            await run.capacity_per_s(3.0)
            capacity = await run.capacity_per_s(10.0)
            rate = share * capacity if fixed_rate is None else fixed_rate
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
    parser.add_argument("--rate", type=float, help="requests per second, whatever the capacity: to compare runs")
    args = parser.parse_args()
    result = asyncio.run(soak(args.minutes, args.seed, args.share, args.rate))
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
