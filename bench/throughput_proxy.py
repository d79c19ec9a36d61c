"""Whether the checks at full load cost the proxy anything: `python -m bench.throughput --proxy [--rounds N]`.

The guard on one core, the load client and the fake upstream (of bench.proxy's kit) elsewhere. Each round measures the
open-loop latency three times, seconds apart, in an order drawn anew: while a check worker on the guard's own core,
started as the guard starts its own (nice 19), is kept at full load with answers of the usual size, and twice while that
worker waits. The ratio of loaded to idle is that of one round; that of the two idle ones is what chance alone gives on
this machine. Printed: the median of both ratios with a 95 % interval (of order statistics: no shape is assumed).
"""

from __future__ import annotations

import argparse
import math
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from bench import proxy
from bench.rag_traffic import turns
from guard.checks.frames import Done, Hello, Job, Splitter, decode_from_worker, frame
from guard.checks.spec import CheckSpec
from guard.ports import ContextSource, Route

ROUNDS = 7
SECONDS = 3.0
RATE = "300"
IN_FLIGHT = 8
START_S = 90.0


def compare(rounds: int = ROUNDS, seed: int = 1) -> int:
    """Print one line per measurement, then ratios with intervals."""
    asked = argparse.Namespace(bench_dir=proxy.ROOT.parent / "shared" / "bench", duration=SECONDS)
    if missing := proxy.what_is_missing(asked.bench_dir):
        print(f"bench.throughput: SKIPPED, {missing}")
        return 0
    chance = random.Random(seed)
    found: dict[str, list[dict[str, float]]] = {"idle": [], "loaded": [], "idle again": []}
    checked = 0
    with (
        tempfile.TemporaryDirectory(prefix="sft-bench-") as scratch,
        proxy.upstream(asked.bench_dir, scratch) as port,
        proxy.server("guard", port, Path(scratch) / "guard") as (url_port, pid),
        checking() as load,
    ):
        proxy.measure(asked, url_port, ["--rate", RATE], pid)  # warm
        for _ in range(rounds):
            for name in chance.sample(list(found), len(found)):
                before = load.count
                with load.on() if name == "loaded" else nullcontext():
                    result: dict[str, Any] = proxy.measure(asked, url_port, ["--rate", RATE], pid)
                checked += load.count - before
                found[name].append(dict(result["latency_ms"]))
                figures = ", ".join(f"{q} {v:.2f} ms" for q, v in result["latency_ms"].items())
                print(f"{name:<10} {figures}, errors {result['errors'] or 'none'}", flush=True)
    for quantile in ("p50", "p95", "p99"):
        rows = {name: [row[quantile] for row in found[name]] for name in found}
        middle = [math.sqrt(a * b) for a, b in zip(rows["idle"], rows["idle again"], strict=True)]
        print(
            f"{quantile}: {statistics.median(middle):.2f} ms idle, {statistics.median(rows['loaded']):.2f} ms loaded; "
            f"loaded / idle {spread(rows['loaded'], middle)}, idle / idle {spread(rows['idle again'], rows['idle'])}"
        )
    print(f"checked meanwhile: {checked} answers in {rounds * (asked.duration + proxy.WARMUP_S):.0f} s")
    return 0


def spread(ones: list[float], others: list[float]) -> str:
    """Median of the ratios pair by pair, with the interval of two order statistics that holds it in 95 % of cases."""
    ratios = sorted(one / other for one, other in zip(ones, others, strict=True))
    count, cut, tail = len(ratios), 0, 0.0
    while (tail := tail + math.comb(count, cut) * 0.5**count) <= 0.025:
        cut += 1
    if not cut:
        return f"{statistics.median(ratios):.2f} (too few rounds for an interval)"
    return f"{statistics.median(ratios):.2f} [{ratios[cut - 1]:.2f}, {ratios[count - cut]:.2f}]"


class Load:
    """Answers for a check worker. count: how many it has checked; `at_work` is set while it shall be kept busy."""

    def __init__(self) -> None:
        self.count = 0
        self.at_work = threading.Event()
        self.ended = threading.Event()

    @contextmanager
    def on(self) -> Iterator[None]:
        """Busy from the first answer that came back, idle again when the last one has.

        Raises:
            SystemExit: the worker checks nothing.
        """
        before = self.count
        self.at_work.set()
        _until(lambda: self.count > before)
        try:
            yield
        finally:
            self.at_work.clear()
            now = -1
            while now != self.count:  # what it still had is done when no more comes
                now = self.count
                time.sleep(0.3)


def _until(true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + START_S
    while not true():
        if time.monotonic() > end_s:
            sys.exit("bench.throughput: the check worker checked nothing, so there is nothing to compare")
        time.sleep(0.05)


@contextmanager
def checking() -> Iterator[Load]:
    """A check worker on the guard's core, as the guard starts it (it lowers its own priority)."""
    ours, theirs = socket.socketpair()
    worker = subprocess.Popen(
        ["taskset", "-c", "0", sys.executable, "-m", "guard.checks.worker", str(theirs.fileno())],
        pass_fds=(theirs.fileno(),), cwd=proxy.ROOT,
    )  # fmt: skip
    theirs.close()
    route = Route("ask", "/ask", "json", ContextSource(body_path="contexts"))
    jobs = [
        frame(Job(i, 0, "r", "stable", turn.request, turn.response, (), False, False))
        for i, turn in enumerate(turns(200, 1, document_count=100))
    ]
    load = Load()

    def feed() -> None:
        splitter, sent = Splitter(), 0
        ours.settimeout(0.2)
        ours.sendall(frame(Hello(CheckSpec(), (route,))))
        while not load.ended.is_set():
            while load.at_work.is_set() and sent - load.count < IN_FLIGHT:
                ours.sendall(jobs[sent % len(jobs)])
                sent += 1
            try:
                bodies = splitter.feed(ours.recv(1 << 18))
            except TimeoutError:
                continue
            except OSError:  # the worker is gone: `Load.on` says so
                return
            load.count += sum(isinstance(decode_from_worker(body), Done) for body in bodies)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        with load.on():  # loaded and warm before anything is measured
            pass
        yield load
    finally:
        load.ended.set()
        feeder.join()
        ours.close()
        worker.kill()
        worker.wait()
