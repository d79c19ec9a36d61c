"""Whether the checks at full load cost the proxy anything: `python -m bench.throughput --proxy [--rounds N]`.

The guard on one core, the load client and the fake upstream (of bench.proxy's kit) on another. Each round measures the
open-loop latency three times, seconds apart, in an order drawn anew: with a check worker beside the guard on the same
core, started as the guard starts its own (nice 19) and kept at full load with answers of the usual size, and twice with
it stopped. The ratio of loaded to idle is that of one round; that of the two idle ones is what chance alone gives on
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import proxy
from bench.rag_traffic import turns
from guard.checks.frames import Hello, Job, frame
from guard.checks.spec import CheckSpec
from guard.ports import ContextSource, Route

ROUNDS = 7
SECONDS = 3.0
RATE = "300"
IN_FLIGHT = 8


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
    ):
        proxy.measure(asked, url_port, ["--rate", RATE], pid)  # warm
        for _ in range(rounds):
            for name in chance.sample(list(found), len(found)):
                with checking() if name == "loaded" else nothing() as counted:
                    result: dict[str, Any] = proxy.measure(asked, url_port, ["--rate", RATE], pid)
                if name == "loaded" and not counted[0]:
                    sys.exit("bench.throughput: the check worker checked nothing, so there is nothing to compare")
                checked += counted[0]
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


@contextmanager
def nothing() -> Iterator[list[int]]:
    """No load."""
    yield [0]


@contextmanager
def checking() -> Iterator[list[int]]:
    """A check worker at full load, as the guard starts it (niced by itself); counts the answers it checks."""
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
    counted, stop = [0], threading.Event()

    def feed() -> None:
        from guard.checks.frames import Done, Splitter, decode_from_worker

        splitter, sent = Splitter(), 0
        ours.settimeout(0.5)
        ours.sendall(frame(Hello(CheckSpec(), (route,))))
        while not stop.is_set():
            while sent - counted[0] < IN_FLIGHT:
                ours.sendall(jobs[sent % len(jobs)])
                sent += 1
            try:
                bodies = splitter.feed(ours.recv(1 << 18))
            except TimeoutError:
                continue
            counted[0] += sum(isinstance(decode_from_worker(body), Done) for body in bodies)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        yield counted
    finally:
        stop.set()
        feeder.join()
        ours.close()
        worker.kill()
        worker.wait()
