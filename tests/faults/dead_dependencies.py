"""What a dead dependency costs the users: every one of them in every state, JSON and streams, against a real guard.

Everything that is optional is configured at once, each dependency behind its own fault proxy; one after the other is
broken while questions are asked. An answer counts as failed unless it is a 200 with the bytes of the model. Beside the
questions the releaser's hand starts a canary and takes it back, so that registry, webhook and Alertmanager have work.

The disk is broken underneath the state directory by a preloaded shim (`disk_shim.c`), the check worker by signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from bench.report_section import table
from tests.faults.rig import Rig, until
from tests.faults.tcp_proxy import STATES

DEPENDENCIES = ("redis", "checks", "registry", "otel", "alertmanager", "webhook")
DISK = {"full": b"S", "io_error": b"E", "read_only": b"R", "slow": b"L"}
WORKER = ("killed", "stopped")
SHIM = Path(__file__).with_name("disk_shim.c")


@dataclass(frozen=True, slots=True)
class Cell:
    """One state. failures: the first words of the first few answers that were not right. reached: how often the
    guard spoke to each broken dependency, where that can be seen; empty where nobody listens."""

    dependency: str
    state: str
    stream: bool
    asked_count: int
    failed_count: int
    failures: tuple[str, ...]
    p50_s: float
    p99_s: float
    reached: tuple[int, ...] = ()


Numbers = itertools.count(1)


async def ask_many(rig: Rig, count: int, *, stream: bool, at_once: int) -> tuple[list[float], list[str]]:
    """`count` questions by `at_once` askers; some were asked before, so that the cache has work. Seconds, failures."""
    took: list[float] = []
    failures: list[str] = []
    left = iter(range(count))

    async def asker() -> None:
        for number in left:
            wanted = number % 5 if number % 3 == 0 else next(Numbers)
            began_s = time.perf_counter()
            answer = await rig.ask(wanted, stream=stream, headers=f"x-guard-session: s{number}\r\n")
            took.append(time.perf_counter() - began_s)
            if answer.error:
                failures.append(answer.error[:300])

    await asyncio.gather(*(asker() for _ in range(at_once)))
    return took, failures


async def cell(rig: Rig, dependency: str, state: str, *, stream: bool, count: int, at_once: int) -> Cell:
    took, failures = await ask_many(rig, count, stream=stream, at_once=at_once)
    took.sort()
    at = lambda share: took[min(len(took) - 1, int(share * len(took)))]  # noqa: E731
    return Cell(dependency, state, stream, count, len(failures), tuple(failures[:5]), at(0.5), at(0.99))


async def hands(rig: Rig, every_s: float) -> None:
    """A canary comes and goes, again and again: work for registry, webhook and Alertmanager, which may refuse it."""
    while True:
        with contextlib.suppress(AssertionError):
            await rig.admin("POST", "/api/v1/release/start", {"version": "v2", "plan": "20% for 2h", "force": True})
            status, answer = await rig.admin("POST", "/api/v1/release/rollback", {"reason": "matrix"})
            if status == 200 and answer["status"]["canary_ratio"] != 0.0:
                raise RuntimeError(f"a rollback left {answer['status']['canary_ratio']} with the canary")
        await asyncio.sleep(every_s)


@asynccontextmanager
async def busy_hands(rig: Rig, every_s: float = 0.3) -> AsyncIterator[None]:
    task = asyncio.create_task(hands(rig, every_s))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if not task.cancelled() and (error := task.exception()):
        raise error


async def measured(
    rig: Rig, names: tuple[str, ...], state: str, count: int, at_once: int, limit_s: float
) -> list[Cell]:
    """Break them, ask `count` questions of each kind, go on until each was spoken to (at most `limit_s`), mend them."""
    proxies = [rig.faults[name] for name in names if name in rig.faults]
    for proxy in proxies:
        await proxy.set(state)
        proxy.seen_count = 0
    visible = bool(proxies) and state not in ("refused", "blackhole")
    cells = []
    for stream in (False, True):
        end_s = time.monotonic() + limit_s / 2
        one = await cell(rig, " + ".join(names), state, stream=stream, count=count, at_once=at_once)
        while visible and not all(proxy.seen_count for proxy in proxies) and time.monotonic() < end_s:
            more = await cell(rig, one.dependency, state, stream=stream, count=at_once, at_once=at_once)
            one = replace(
                one, asked_count=one.asked_count + at_once, failed_count=one.failed_count + more.failed_count,
                failures=one.failures + more.failures, p99_s=max(one.p99_s, more.p99_s),
            )  # fmt: skip
            await asyncio.sleep(0.05)
        cells.append(one)
    if visible:
        cells = [replace(c, reached=tuple(proxy.seen_count for proxy in proxies)) for c in cells]
    for proxy in proxies:
        await proxy.set("pass")
        proxy.seen_count = 0
    if proxies:
        await at_work(rig, names, limit_s)
    return cells


async def at_work(rig: Rig, names: tuple[str, ...], limit_s: float) -> None:
    """Ask until each of them was spoken to again, so that its next fault meets it at work; at most `limit_s`."""
    end_s = time.monotonic() + limit_s
    while not all(rig.faults[name].seen_count for name in names) and time.monotonic() < end_s:
        await ask_many(rig, 3, stream=False, at_once=1)
        await asyncio.sleep(0.05)


def worker_of(rig: Rig) -> psutil.Process | None:
    for child in psutil.Process(rig.process.pid).children():
        with contextlib.suppress(psutil.Error):
            if "guard.checks.worker" in child.cmdline():
                return child
    return None


@asynccontextmanager
async def worker_harassed(rig: Rig, how: str) -> AsyncIterator[None]:
    async def harass() -> None:
        while True:
            worker = worker_of(rig)
            if worker is not None:
                with contextlib.suppress(psutil.Error):
                    worker.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(harass())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        worker = worker_of(rig)
        if worker is not None:
            worker.send_signal(signal.SIGCONT)


async def network_cells(
    directory: Path, count: int, at_once: int, *, together: bool, limit_s: float, tell: Callable[[str], None] = str
) -> list[Cell]:
    """Every TCP dependency in every state, one by one or all `together`; the check worker killed and stopped."""
    broken = [DEPENDENCIES] if together else [(name,) for name in DEPENDENCIES]
    cells: list[Cell] = []
    async with Rig(directory) as rig, busy_hands(rig):
        await at_work(rig, DEPENDENCIES, 60.0)
        if never := [name for name, proxy in rig.faults.items() if not proxy.seen_count]:
            raise RuntimeError(f"{', '.join(never)}: never asked even when all is well; nothing would be shown of it")
        cells += await measured(rig, (), "healthy", count, at_once, 0.0)
        for names, mode in itertools.product(broken, STATES):
            cells += await measured(rig, names, mode, count, at_once, limit_s)
            tell(f"{' + '.join(names)} {mode}: {sum(c.failed_count for c in cells[-2:])} failures")
        for how in WORKER:
            async with worker_harassed(rig, how):
                cells += await measured(rig, ("check worker",), how, count, at_once, 0.0)
            tell(f"check worker {how}: {sum(c.failed_count for c in cells[-2:])} failures")
        cells += await measured(rig, (), "healthy again", count, at_once, 0.0)
    return cells


def built_shim(directory: Path) -> Path | None:
    """The disk shim; None where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    made = directory / "disk_shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(SHIM), "-ldl"], check=True)
    return made


def put(control: Path, letter: bytes) -> None:
    """Tell the shim. The file is mapped by the process under test: it may never be shorter than its one byte."""
    with control.open("r+b") as file:
        file.write(letter)


@dataclass(frozen=True, slots=True)
class BrokenDisk:
    """The state directory of a rig on a disk that breaks on demand. environment: of its guard, from the start."""

    control: Path
    environment: dict[str, str]

    def set(self, state: str) -> None:
        """One of `DISK`, or "well"."""
        put(self.control, DISK.get(state, b"."))


def broken_disk(directory: Path, shim: Path) -> BrokenDisk:
    """For the rig in `directory`; well until it is told otherwise."""
    control = directory / "disk.state"
    control.write_bytes(b".")
    below = str(directory / "state")
    return BrokenDisk(control, {"LD_PRELOAD": str(shim), "DISK_STATE": str(control), "DISK_BELOW": below})


async def disk_cells(
    directory: Path, shim: Path, count: int, at_once: int, tell: Callable[[str], None] = str
) -> list[Cell]:
    """The state directory on a disk that is full, broken, read-only, slow."""
    disk = broken_disk(directory, shim)
    cells: list[Cell] = []
    async with Rig(directory, parts=("redis",), environment=disk.environment) as rig, busy_hands(rig):
        for name in DISK:
            disk.set(name)
            cells += await measured(rig, ("disk",), name, count, at_once, 0.0)
            disk.set("well")
            tell(f"disk {name}: {sum(c.failed_count for c in cells[-2:])} failures")
        await until(lambda: writes_again(rig))
    return cells


async def writes_again(rig: Rig) -> bool:
    """The disk is well again and the guard has noticed."""
    await rig.ask(next(Numbers))
    status, _ = await rig.admin("POST", "/api/v1/release/start", {"version": "v2", "plan": "20% for 2h", "force": True})
    await rig.admin("POST", "/api/v1/release/rollback", {"reason": "matrix"})
    return status == 200


def tables(cells: list[Cell]) -> str:
    """Per dependency and state what was asked, what failed and how long it took."""
    rows = []
    for key, group in itertools.groupby(cells, key=lambda c: (c.dependency, c.state)):
        both = list(group)
        shown = [f"{1000 * c.p50_s:.1f} / {1000 * c.p99_s:.1f}" for c in both]
        failed = sum(c.failed_count for c in both)
        reached = ", ".join(map(str, both[0].reached)) or "-"
        rows.append([key[0] or "none", key[1], reached, str(sum(c.asked_count for c in both)), str(failed), *shown])
    head = ["dependency", "state", "reached", "requests", "added failures", "JSON p50 / p99 ms", "SSE p50 / p99 ms"]
    return table(head, rows)


async def report(count: int, at_once: int = 8) -> tuple[str, int]:
    """(the page's table, number of failed answers) with `count` requests per cell."""
    cells: list[Cell] = []
    steps: list[Callable[[Path], Awaitable[list[Cell]]]] = [
        lambda d: network_cells(d, count, at_once, together=False, limit_s=12.0, tell=print)
    ]
    with tempfile.TemporaryDirectory() as build:
        shim = built_shim(Path(build))
        if shim is not None:
            steps.append(lambda d: disk_cells(d, shim, count, at_once, print))
        for step in steps:
            with tempfile.TemporaryDirectory() as directory:
                cells += await step(Path(directory))
    body = tables(cells)
    if shim is None:
        body += "\n\nThe disk was left out: no C compiler (Debian package gcc)."
    for one in cells:
        for words in one.failures:
            body += f"\n\n{one.dependency} {one.state}: {words}"
    return body, sum(one.failed_count for one in cells)
