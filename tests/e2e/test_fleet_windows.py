"""Two sidecars, one Prometheus: each judges what both counted together, and neither believes one that is gone.

Counts are looked at, not verdicts: on a machine that is busy a sidecar finds its own loop stalled and says `unknown`.
"""

from __future__ import annotations

import http.server
import json
import re
import signal
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import prometheus_kit
from tests.e2e.test_serve import CONFIG, Model, Sidecar, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not prometheus_kit.installed(), reason=prometheus_kit.PACKAGE),
]

EACH = 30
OBJECTIVES = """\
service: faq-bot
objectives:
  - {name: success, indicator: sft_availability_success_rate, window: 1h, threshold: {absolute: 0.9}, min_events: 50}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def sidecars(tmp_path: Path) -> Iterator[tuple[list[Sidecar], int]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    model, port = server.server_address[1], free_port()
    windows = f"windows: {{source: prometheus, url: 'http://127.0.0.1:{port}', scrape_interval: 1s}}\n"
    made = []
    for name in ("a", "b"):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "guard.yaml").write_text(CONFIG.format(stable=model, canary=model) + windows)
        (directory / "slo.yaml").write_text(OBJECTIVES)
        made.append(Sidecar(directory))
        made[-1].start()
    yield made, port
    for sidecar in made:
        if sidecar.process is not None and sidecar.process.poll() is None:
            sidecar.stop(signal.SIGKILL)
    server.shutdown()
    server.server_close()


def row(sidecar: Sidecar) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(sidecar.get("/api/v1/slo"))["objectives"]
    return found[0] if found else {"state": "", "events_count": 0, "reason": ""}


def test_each_replica_judges_the_traffic_of_all(sidecars: tuple[list[Sidecar], int], tmp_path: Path) -> None:
    replicas, port = sidecars
    targets = ", ".join(f"'{s.admin.removeprefix('http://')}'" for s in replicas)
    config = (
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n"
        f"  - {{job_name: guard, static_configs: [{{targets: [{targets}]}}]}}\n"
    )
    home = tmp_path / "prometheus"
    home.mkdir()
    with prometheus_kit.serving(home, config, port) as url:
        # Zeros have been scraped of both before anything is counted.
        until(lambda: value(url, 'count(count by (instance) (sft_slo_events_total{slo="success"}))') == 2, 60.0)
        for sidecar in replicas:
            for _ in range(EACH):
                assert sidecar.ask()[0] == 200
        for sidecar in replicas:
            until(lambda s=sidecar: row(s)["events_count"] == 2 * EACH, 60.0)
        until(lambda: part(replicas[0]) == "ok", 20.0)
    until(lambda: part(replicas[0]) == "degraded", 60.0)
    until(lambda: row(replicas[0])["state"] == "unknown" and row(replicas[0])["events_count"] == 0, 60.0)
    assert re.search(r'sft_guard_failopen_total{[^}]*dep="windows"[^}]*} [1-9]', replicas[0].get("/metrics"))
    assert replicas[0].ask()[0] == 200  # the answers go on


def value(url: str, promql: str) -> float:
    query = urllib.parse.urlencode({"query": promql})
    with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=10) as response:
        result = json.loads(response.read())["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def part(sidecar: Sidecar) -> str:
    parts = json.loads(sidecar.get("/healthz"))["parts"]
    return str(next(p["status"] for p in parts if p["name"] == "windows"))
