"""Whether the checks at full load cost the proxy anything: `python -m bench.throughput --proxy`.

The guard on one core, the load client and the fake upstream (of bench.proxy's kit) on another. In turn, several times:
the guard as it is, and with a check worker beside it on the same core, started as the guard starts its own and kept at
full load with answers of the usual size. Printed: open-loop latency of both, and the ratio of the medians.
"""

from __future__ import annotations

import argparse
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

ROUNDS = 5
RATE = "300"
IN_FLIGHT = 8


def compare() -> int:
    """Print one line per round and the ratio of the medians."""
    asked = argparse.Namespace(bench_dir=proxy.ROOT.parent / "shared" / "bench", duration=4.0)
    if missing := proxy.what_is_missing(asked.bench_dir):
        print(f"bench.throughput: SKIPPED, {missing}")
        return 0
    found: dict[str, list[dict[str, float]]] = {"idle": [], "full load": []}
    checked = 0
    with (
        tempfile.TemporaryDirectory(prefix="sft-bench-") as scratch,
        proxy.upstream(asked.bench_dir, scratch) as port,
        proxy.server("guard", port, Path(scratch) / "guard") as (url_port, pid),
    ):
        for _ in range(ROUNDS):
            for name in found:
                with checking() if name == "full load" else nothing() as counted:
                    result: dict[str, Any] = proxy.measure(asked, url_port, ["--rate", RATE], pid)
                checked += counted[0]
                found[name].append(dict(result["latency_ms"]))
                figures = ", ".join(f"{q} {v:.2f} ms" for q, v in result["latency_ms"].items())
                print(f"{name:<10} {figures}, errors {result['errors'] or 'none'}")
    for quantile in ("p50", "p95", "p99"):
        idle, loaded = (statistics.median(row[quantile] for row in found[name]) for name in found)
        print(f"{quantile}: {idle:.2f} ms idle, {loaded:.2f} ms at full load, ratio {loaded / idle:.2f}")
    print(f"checked meanwhile: {checked} answers in {ROUNDS * (asked.duration + proxy.WARMUP_S):.0f} s")
    return 0


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
