"""The guard beside the proxies people would use instead: `make bench-proxy` (= `python -m bench.proxy_peers`).

In one run, on the same core, round by round: direct / nginx / haproxy / the guard with everything on / Portkey gateway
/ LiteLLM proxy, each with the configuration of the bench kit; JSON of 2, 20 and 200 kB, 1, 32 and 256 connections, a
fixed rate, streams; nginx and the guard once more with a TLS upstream. CPU is that of the server's process alone (of
the guard: without check worker and log converter, processes of their own, off that core); "per core": 1,000 / (CPU s
per 1,000).

Needs the bench kit (`--bench-dir`). What is not there is skipped with one line that says how to get it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from bench.proxy import ROOT, elsewhere, free_port, measure, process, server, upstream, wait_ready, what_is_missing

ROWS = ("direct", "nginx", "haproxy", "guard", "portkey", "litellm", "nginx-tls", "guard-tls")
SCENARIOS = ("max", "c1", "c256", "b20k", "b200k", "r500", "stream", "burst")
TITLES = {
    "max": "JSON 2 kB, 32 connections", "c1": "JSON 2 kB, 1 connection", "c256": "JSON 2 kB, 256 connections",
    "b20k": "JSON 20 kB, 32 connections", "b200k": "JSON 200 kB, 32 connections", "r500": "JSON 2 kB, 500/s",
    "stream": "SSE, 10/s, an event each 10 ms", "burst": "SSE, 8 connections, as fast as it goes",
}  # fmt: skip
TLS_SCENARIOS = ("max", "c1", "b200k", "burst")
OVERLOADED = {"litellm": ("r500",)}
"""Rates that a peer cannot reach: it would only be shown to fail."""
HOW = {
    "nginx": "apt-get install nginx-light",
    "haproxy": "apt-get install haproxy",
    "litellm": "pip install 'litellm[proxy]' prometheus_client httptools prisma opentelemetry-sdk "
    "opentelemetry-exporter-otlp (in an environment of its own), then --litellm-bin .../bin/litellm",
    "portkey": "npm install @portkey-ai/gateway@1.15.2 with the override of the kit's README, then --portkey-dir ...",
    "nginx-tls": "apt-get install openssl",
    "guard-tls": "apt-get install openssl",
}
TLS_FRONT = """worker_processes 1; daemon off; master_process off; pid {run}/tls.pid; error_log {run}/tls.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off; keepalive_timeout 3600s; keepalive_requests 1000000000;
    client_body_buffer_size 1m; client_max_body_size 16m;
    client_body_temp_path {run}/tls-body; proxy_temp_path {run}/tls-temp;
    upstream plain {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096; ssl_certificate {run}/cert.pem; ssl_certificate_key {run}/key.pem;
        location / {{
            proxy_pass http://plain; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
        }}
    }}
}}
"""


def there(row: str, asked: argparse.Namespace) -> bool:
    """Whether the program of a row can be started."""
    if row in ("nginx", "haproxy"):
        return shutil.which(row) is not None
    if row == "litellm":
        return shutil.which(asked.litellm_bin) is not None
    if row == "portkey":
        packages = asked.portkey_dir / "node_modules" / "@portkey-ai"
        return shutil.which("node") is not None and packages.exists()
    return not row.endswith("-tls") or shutil.which("openssl") is not None


@contextmanager
def tls_front(upstream_port: int, run: Path) -> Iterator[int]:
    """The fake upstream behind TLS, off the measured core; its certificate is `run`/cert.pem."""
    run.mkdir()
    port = free_port()
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(run / "key.pem"), "-out", str(run / "cert.pem")]
    subprocess.run(made, check=True, capture_output=True)
    config = run / "tls.conf"
    config.write_text(TLS_FRONT.format(run=run, upstream=upstream_port, port=port))
    with process([*elsewhere(), "nginx", "-p", str(run), "-c", str(config)], run / "nginx.log"):
        yield port


@contextmanager
def peer(row: str, asked: argparse.Namespace, port_of_upstream: int, scratch: Path) -> Iterator[tuple[int, int]]:
    """(port, process id) of a program with the kit's configuration."""
    scratch.mkdir()
    port, kit = free_port(), asked.bench_dir
    known: dict[str, Any] = json.loads((kit / "targets.json").read_text())
    target = known[row.removesuffix("-tls")]
    words = {"here": str(kit), "port": port, "upstream": f"127.0.0.1:{port_of_upstream}"}
    command = ["sh", *(word.format(**words) for word in target["cmd"])]
    if row == "nginx-tls":
        script = scratch / "nginx-tls.sh"
        script.write_text(Path(command[1]).read_text().replace("proxy_pass http://llm", "proxy_pass https://llm"))
        command[1] = str(script)
    environment = [f"LITELLM_BIN={asked.litellm_bin}", f"PORTKEY_DIR={asked.portkey_dir}"]
    environment += [f"BENCH_RUN={scratch}/run", *(f"{name}={value}" for name, value in target.get("env", {}).items())]
    with process(["taskset", "-c", "0", "env", *environment, *command], scratch / "server.log") as child:
        wait_ready(port, scratch / "server.log", 120.0, headers_of(row, kit, port_of_upstream))
        yield port, child.pid


def headers_of(row: str, kit: Path, port_of_upstream: int) -> list[str]:
    """What a peer wants to be sent."""
    known = json.loads((kit / "targets.json").read_text()).get(row, {})
    return [header.format(upstream=f"127.0.0.1:{port_of_upstream}") for header in known.get("headers", [])]


def one_row(
    asked: argparse.Namespace, row: str, port: int, tls_port: int, scratch: Path, scenarios: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Every scenario of one row."""
    kit, behind = asked.bench_dir, tls_port if row.endswith("-tls") else port
    known: dict[str, list[str]] = json.loads((kit / "scenarios.json").read_text())
    if row.startswith("guard") or row == "direct":
        trust = f"SSL_CERT_FILE={scratch.parent}/tls/cert.pem"
        started = server(row.removesuffix("-tls"), behind, scratch, "https" if row == "guard-tls" else "http", trust)
    else:
        started = peer(row, asked, behind, scratch)
    found = {}
    extra = [word for header in headers_of(row, kit, port) for word in ("--header", header)]
    with started as (url_port, pid):
        for name in scenarios:
            if name in OVERLOADED.get(row, ()) or (row.endswith("-tls") and name not in TLS_SCENARIOS):
                continue
            found[name] = measure(asked, url_port, [*known[name], *extra], pid)
            print(f"{row:<11}{name:<8}{json.dumps(short(found[name]))}", file=sys.stderr, flush=True)
    return found


def short(result: dict[str, Any]) -> dict[str, Any]:
    """What matters of one result."""
    return {
        "rps": result["rps"],
        "latency_ms": result["ttfb_ms"] if result["stream"] else result["latency_ms"],
        "cpu_s_per_1000": round(result["cpu_per_1000_s"], 4) if "cpu_per_1000_s" in result else None,
        "rss_mb": round(result["rss"]) if "rss" in result else None,
        "errors": result["errors"],
    }


def table(name: str, rows: dict[str, list[dict[str, Any]]]) -> str:
    """One scenario as Markdown: medians over the rounds; latencies at a fixed rate are what is added to direct."""
    lines = [
        f"\n{TITLES[name]} (`{name}`)\n",
        "| row | req/s | p50 ms | p99 ms | CPU s per 1,000 | per core | RSS MB |",
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    base = rows.get("direct")
    for row, results in rows.items():

        def middle(*path: str, results: list[dict[str, Any]] = results) -> float | None:
            values = []
            for value in results:
                for key in path:
                    value = value.get(key) if value else None  # type: ignore[assignment]
                if value is not None:
                    values.append(value)
            return statistics.median(values) if values else None  # type: ignore[type-var]

        key = "ttfb_ms" if results[0]["stream"] else "latency_ms"
        cpu_s, cells = middle("cpu_per_1000_s"), [f"{middle('rps') or 0:,.0f}"]
        for quantile in ("p50", "p99"):
            value = middle(key, quantile)
            added = results[0]["mode"] == "open" and base is not None and row != "direct"
            if value is not None and added and base is not None:
                under = statistics.median([result[key][quantile] for result in base])
                cells.append(f"+{value - under:.2f}" if value >= under else f"{value - under:.2f}")
            else:
                cells.append("-" if value is None else f"{value:.2f}")
        cells += ["-", "-", "-"] if cpu_s is None else [f"{cpu_s:.3f}", f"{1000 / cpu_s:,.0f}", f"{middle('rss'):.0f}"]
        failed = sum(sum(result["errors"].values()) for result in results)
        lines.append(f"| {row} | " + " | ".join(cells) + (f" | {failed} errors |" if failed else " |"))
    return "\n".join(lines)


def main() -> int:
    """Measure and print one table per scenario."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench-dir", type=Path, default=ROOT.parent / "shared" / "bench", help="directory of load.py")
    parser.add_argument("--duration", type=float, default=4.0, help="seconds per point")
    parser.add_argument("--rounds", type=int, default=2, help="times that every row is started and measured")
    parser.add_argument("--only", default=",".join(ROWS), help=f"rows, of {', '.join(ROWS)}")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--litellm-bin", default="litellm", help="the program litellm")
    parser.add_argument("--portkey-dir", type=Path, default=Path(), help="directory that holds Portkey's node_modules")
    asked = parser.parse_args()
    if missing := what_is_missing(asked.bench_dir):
        print(f"bench.proxy_peers: SKIPPED, {missing}")
        return 0
    rows, scenarios = asked.only.split(","), asked.scenarios.split(",")
    if unknown := [*({*rows} - {*ROWS}), *({*scenarios} - {*SCENARIOS})]:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    for row in [row for row in rows if not there(row, asked)]:
        print(f"{row}: skipped, not there; {HOW[row]}")
        rows.remove(row)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in scenarios}
    with tempfile.TemporaryDirectory(prefix="sft-peers-") as place, upstream(asked.bench_dir, place) as port:
        front = tls_front(port, Path(place) / "tls") if any(row.endswith("-tls") for row in rows) else nullcontext(0)
        with front as tls_port:
            for number, row in [(number, row) for number in range(asked.rounds) for row in rows]:
                results = one_row(asked, row, port, tls_port, Path(place) / f"{row}-{number}", scenarios)
                for name, result in results.items():
                    found[name].setdefault(row, []).append(result)
    for name, by_row in found.items():
        if by_row:
            print(table(name, by_row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
