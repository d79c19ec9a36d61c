"""Added latency, highest rate, CPU and memory of the guard against direct, in one run: `python -m bench.proxy`.

Rows: `direct` (the load client asks the fake upstream), `path` (the data path alone, with a sink that counts), `guard`
(`sft-guard serve` with everything on: split, metrics, exchange log, checks fed) and `watched` (the same, while five
consoles are open and every panel and the metrics are read each second). Server on core 0, load and upstream on core 1,
or on 1 to 3 where there are more than three; other proxies are compared by `bench.proxy_peers`. The open-loop figures
count from the moment a request was due, so a stall is charged to every request it delays. CPU is that of the proxy
process alone; check worker and log converter are processes of their own, kept off core 0.

Needs the bench kit (`--bench-dir`) and, for its fake upstream, the Debian packages nginx-light and
libnginx-mod-http-lua; says so and ends with 0 when they are not there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WARMUP_S = 1.0
_CLIENT = ("authorization: Bearer sk-bench-0123456789abcdef", "content-type: application/json")
GUARD_YAML = """service: bench
listen: {{data: "127.0.0.1:{port}", admin: "127.0.0.1:{admin}"}}
state_dir: {state}
slo: slo.yaml
routes:
  - {{name: chat, path: /v1/chat/completions, adapter: openai-chat}}
versions:
  v1: {{upstreams: ["{scheme}://127.0.0.1:{upstream}"], model: gpt-4o-mini}}
release: {{stable: v1}}
checks: {{embedder: none}}
"""
SCENARIOS: dict[str, list[str]] = {
    "json 300/s": ["--rate", "300"],
    "json 500/s": ["--rate", "500"],
    "json max": ["--conns", "32", "--header", "x-bench-static: 1"],
    "sse 20/s, 10 ms": ["--rate", "20", "--stream", "--spec", "fake-i10"],
    "sse max": ["--conns", "8", "--stream"],
}


def main() -> int:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench-dir", type=Path, default=ROOT.parent / "shared" / "bench", help="directory of load.py")
    parser.add_argument("--duration", type=float, default=4.0, help="seconds per point")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", default="direct,path,guard,watched", help="rows, of direct, path, guard, watched")
    parser.add_argument("--serve-path", nargs=2, type=int, metavar=("PORT", "UPSTREAM"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve_path:
        serve_path(*asked.serve_path)
        return 0
    missing = what_is_missing(asked.bench_dir)
    if missing:
        print(f"bench.proxy: SKIPPED, {missing}")
        return 0
    rows = asked.only.split(",")
    with tempfile.TemporaryDirectory(prefix="sft-bench-") as scratch, upstream(asked.bench_dir, scratch) as port:
        for number in range(asked.repeats):
            results: dict[tuple[str, str], dict[str, Any]] = {}
            for row in rows:
                with server(row, port, Path(scratch) / f"{row}-{number}") as (url_port, pid):
                    for name, arguments in SCENARIOS.items():
                        results[row, name] = measure(asked, url_port, arguments, pid)
            report(results, rows)
    return 0


def what_is_missing(bench_dir: Path) -> str:
    """Why nothing can be measured; "" when it can."""
    if not (bench_dir / "load.py").exists():
        return f"no load.py in {bench_dir}; give --bench-dir"
    if shutil.which("nginx") is None or shutil.which("taskset") is None:
        return "the fake upstream needs the Debian packages nginx-light, libnginx-mod-http-lua and util-linux"
    return ""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run in a session of its own; ended with all it started."""
    with log.open("ab") as out:
        child = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True, cwd=ROOT
        )
    try:
        yield child
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(child.pid, number)
                child.wait(5)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


@contextmanager
def upstream(bench_dir: Path, scratch: str) -> Iterator[int]:
    """The kit's fake upstream, off the measured core."""
    port = free_port()
    command = [
        "env",
        f"BENCH_RUN={scratch}/upstream",
        *elsewhere(),
        "sh",
        str(bench_dir / "upstream/run.sh"),
    ]
    with process([*command, str(port)], Path(scratch) / "upstream.log"):
        wait_ready(port, Path(scratch) / "upstream.log")
        yield port


@contextmanager
def server(
    row: str, upstream_port: int, scratch: Path, scheme: str = "http", *environment: str
) -> Iterator[tuple[int, int]]:
    """(port, process id) of what is measured; direct has no process."""
    if row == "direct":
        yield upstream_port, 0
        return
    scratch.mkdir()
    port, admin = free_port(), free_port()
    if row == "path":
        command = [sys.executable, "-m", "bench.proxy", "--serve-path", str(port), str(upstream_port)]
    else:
        config = scratch / "guard.yaml"
        values = {"port": port, "admin": admin, "state": scratch / "state"}
        values |= {"upstream": upstream_port, "scheme": scheme}
        config.write_text(GUARD_YAML.format(**values))
        (scratch / "slo.yaml").write_text("service: bench\npreset: support-faq\n")
        command = [str(Path(sys.executable).parent / "sft-guard"), "serve", "--config", str(config)]
    with process(["taskset", "-c", "0", "env", *environment, *command], scratch / "server.log") as child:
        wait_ready(port, scratch / "server.log")
        with (
            helpers_elsewhere(child.pid),
            watching(admin, scratch / "admin.log") if row == "watched" else nullcontext(),
        ):
            yield port, child.pid


@contextmanager
def helpers_elsewhere(pid: int) -> Iterator[None]:
    """Check worker and log converter are processes of their own, which come and go: within 0.1 s off this core."""
    ended = threading.Event()

    def look() -> None:
        while True:
            for helper in children(pid):
                with contextlib.suppress(OSError):
                    for thread in Path(f"/proc/{helper}/task").iterdir():
                        os.sched_setaffinity(int(thread.name), load_cores())
            if ended.wait(0.1):
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def watching(admin: int, log: Path) -> Iterator[None]:
    """Consoles and scrapes against the admin listener, from elsewhere; what they were answered is printed."""
    command = [*elsewhere(), sys.executable, "-m", "bench.admin_load", str(admin)]
    with process(command, log):
        yield
    print(f"admin load: {log.read_text().strip()[-400:]}")


def load_cores() -> set[int]:
    """The cores of load client, upstream and the guard's helpers: one of two, three where there are more than three."""
    count = os.cpu_count() or 1
    return {1, 2, 3} if count > 3 else {count - 1}


def elsewhere() -> list[str]:
    """What a command begins with that is not to run on the measured core."""
    return ["taskset", "-c", ",".join(map(str, sorted(load_cores())))]


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in task.read_text().split()]
    return found


def wait_ready(port: int, log: Path, within_s: float = 30.0, headers: Sequence[str] = ()) -> None:
    """Ask until an answer comes."""
    body = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"ready?"}]}'
    given = dict(header.split(": ", 1) for header in (*_CLIENT, *headers))
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, given)
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                if b"choices" in answer.read():
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    sys.exit(f"bench.proxy: nothing answers on port {port}; the last lines of {log}:\n{log.read_text()[-800:]}")


def cpu_s(pid: int) -> float:
    """CPU seconds of one process, all threads."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def measure(asked: argparse.Namespace, port: int, arguments: list[str], pid: int) -> dict[str, Any]:
    """One point: what load.py says, and the CPU and memory of the process `pid`."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    command = [*elsewhere(), sys.executable, str(asked.bench_dir / "load.py"), url, *arguments]
    command += ["--duration", str(asked.duration), "--warmup", str(WARMUP_S)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    time.sleep(WARMUP_S + 0.5)
    before, started_s = (cpu_s(pid) if pid else 0.0), time.monotonic()
    time.sleep(max(0.5, asked.duration - 0.7))
    spent, took_s = (cpu_s(pid) - before if pid else 0.0), time.monotonic() - started_s
    out, _ = child.communicate()
    result: dict[str, Any] = json.loads(out)
    if pid:
        if result["rps"]:
            result["cpu_per_1000_s"] = 1000 * spent / took_s / result["rps"]
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        result["rss"] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return result


def report(results: dict[tuple[str, str], dict[str, Any]], rows: list[str], scenarios: Sequence[str] = ()) -> None:
    """One line per point; latencies of the open-loop points are what is added to `direct`."""
    titles = f"{'p50 ms':>9}{'p95':>8}{'p99':>8}{'CPU s/1000':>12}{'RSS MB':>8}  errors"
    print(f"\n{'scenario':<18}{'row':<11}{'req/s':>9}{titles}")
    for name in scenarios or SCENARIOS:
        base = results.get(("direct", name))
        for row in rows:
            if (row, name) not in results:
                continue
            result = results[row, name]
            key = "ttfb_ms" if result["stream"] else "latency_ms"
            figures = dict(result[key] or {})
            if base and row != "direct" and result["mode"] == "open" and base[key]:
                figures = {quantile: figures[quantile] - base[key][quantile] for quantile in figures}
            sign = "+" if row != "direct" and result["mode"] == "open" else ""
            line = f"{name:<18}{row:<11}{result['rps']:>9.0f}"
            for quantile, width in (("p50", 9), ("p95", 8), ("p99", 8)):
                line += f"{sign + format(figures.get(quantile, float('nan')), '.2f'):>{width}}"
            cpu = f"{result['cpu_per_1000_s']:.3f}" if "cpu_per_1000_s" in result else "-"
            rss = f"{result['rss']:.0f}" if "rss" in result else "-"
            print(f"{line}{cpu:>12}{rss:>8}  {result['errors'] or ''}")


def serve_path(port: int, upstream_port: int) -> None:
    """The data path alone, in this process, with a sink that does the work of metrics."""
    from guard.ports import Capture, Endpoint, Route, Target
    from guard.proxy import DataPath
    from guard.split import WeightedSplit
    from slo.types import Exchange, Version

    class Sink:
        """Counts by label and sums durations, as an exporter does."""

        def __init__(self) -> None:
            self.counts: dict[tuple[str, str, str], int] = {}
            self.seconds = 0.0

        def finished(self, exchange: Exchange, capture: Capture | None) -> None:
            key = (exchange.route, exchange.release, exchange.outcome)
            self.counts[key] = self.counts.get(key, 0) + 1
            self.seconds += exchange.duration_s

    class Prices:
        """One price."""

        def cost_usd(self, model: str, input_tokens: int, output_tokens: int) -> float | None:
            return (0.15 * input_tokens + 0.6 * output_tokens) / 1e6

    async def run() -> None:
        target = Target(Version("v1"), (Endpoint("http", "127.0.0.1", upstream_port),))
        routes = (Route("chat", "/v1/chat/completions", "openai-chat"),)
        path = DataPath(routes, WeightedSplit(target), Sink(), Prices())
        await path.start("127.0.0.1", port)
        await asyncio.Event().wait()

    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if find_spec("uvloop"):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run())


if __name__ == "__main__":
    sys.exit(main())
