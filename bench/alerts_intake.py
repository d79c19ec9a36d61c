"""Alertmanager intake: `python -m bench.alerts_intake`. Real Alertmanagers send every alert to one guard.

Several Alertmanagers that do not know of each other get the same alerts, so each alert arrives once from each: what a
cluster does after a partition. Between them and the guard stands a forwarder that takes the time until the guard has
answered. Promised: every alert stored once, acknowledged within 100 ms (p99).
"""

from __future__ import annotations

import argparse
import http.client
import http.server
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOKEN = "a-token-for-the-benchmark-only"
GUARD = """\
service: faq-bot
listen: {data: "127.0.0.1:0", admin: "127.0.0.1:0"}
admin: {token_env: GUARD_TOKEN}
routes: [{name: chat, path: /v1/chat/completions, adapter: openai-chat}]
versions: {v1: {upstreams: ["http://127.0.0.1:9"], model: m}}
release: {stable: v1}
checks: {enabled: false}
"""
SLO = """\
service: faq-bot
preset: support-faq
outside_alerts:
  - {name: named, alert: Intake0, action: track}
"""


@dataclass
class Told:
    """What the forwarder saw."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    stored: int = 0
    duplicates: int = 0
    by_sender: dict[str, set[str]] = field(default_factory=dict)

    def whole(self, alert_count: int, managers: int) -> bool:
        """Whether every Alertmanager had every alert acknowledged."""
        return len(self.by_sender) == managers and all(len(seen) == alert_count for seen in self.by_sender.values())


def run(alert_count: int, managers: int, group_size: int, over_s: float = 0.0) -> dict[str, Any]:
    """Send, wait until everything arrived, and return what was measured."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "guard.yaml").write_text(GUARD)
        (directory / "slo.yaml").write_text(SLO)
        guard, admin = _serve(directory)
        told, forwarder = Told(), None
        running: list[subprocess.Popen[bytes]] = []
        try:
            forwarder = _forwarder(admin, told)
            urls = []
            for number in range(managers):
                process, url = _alertmanager(directory, number, forwarder.server_address[1])
                running.append(process)
                urls.append(url)
            started_s = time.monotonic()
            _send(urls, alert_count, group_size, over_s)
            while not told.whole(alert_count, managers) and time.monotonic() - started_s < 300:
                time.sleep(0.2)
            spent_s = time.monotonic() - started_s
        finally:
            for process in running:
                process.kill()
                process.wait(30)
            if forwarder is not None:
                forwarder.shutdown()
                forwarder.server_close()
            guard.send_signal(signal.SIGTERM)
            guard.wait(60)
            assert guard.stdout is not None
            guard.stdout.close()
        with sqlite3.connect(directory / "state" / "alerts.sqlite") as db:
            on_disk = db.execute("SELECT count(*), count(DISTINCT fingerprint) FROM alerts").fetchone()
        db.close()
    ordered = sorted(told.seconds)
    return {
        "alerts": alert_count,
        "alertmanagers": managers,
        "storm_s": over_s,
        "deliveries": len(ordered),
        "statuses": told.statuses,
        "acked": told.stored + told.duplicates,
        "stored": told.stored,
        "duplicates": told.duplicates,
        "rows_on_disk": on_disk[0],
        "distinct_on_disk": on_disk[1],
        "ack_p50_ms": round(1000 * ordered[len(ordered) // 2], 2) if ordered else None,
        "ack_p99_ms": round(1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 2) if ordered else None,
        "ack_max_ms": round(1000 * ordered[-1], 2) if ordered else None,
        "spent_s": round(spent_s, 1),
    }


def _serve(directory: Path) -> tuple[subprocess.Popen[str], str]:
    environment = {**os.environ, "GUARD_TOKEN": TOKEN}  # noqa: TID251 - a child process needs it
    with (directory / "guard.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "guard.cli", "serve", "-c", str(directory / "guard.yaml")],
            env=environment, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    found = re.search(r"admin http://(\S+)\)", process.stdout.readline())
    assert found, (directory / "guard.log").read_text()
    return process, found[1]


def _forwarder(admin: str, told: Told) -> http.server.ThreadingHTTPServer:
    lock = threading.Lock()

    class Forward(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            sent = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
            connection = http.client.HTTPConnection(admin, timeout=60)
            begun_s = time.perf_counter()
            connection.request("POST", "/api/v1/alerts", body, sent)
            answer = connection.getresponse()
            data = answer.read()
            spent_s = time.perf_counter() - begun_s
            connection.close()
            with lock:
                told.seconds.append(spent_s)
                told.statuses[answer.status] = told.statuses.get(answer.status, 0) + 1
                if answer.status == 200:
                    counts = json.loads(data)
                    told.stored += counts["stored_count"]
                    told.duplicates += counts["duplicate_count"]
                    seen = told.by_sender.setdefault(self.path, set())
                    seen.update(alert["fingerprint"] for alert in json.loads(body)["alerts"])
            self.send_response(answer.status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forward)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _alertmanager(directory: Path, number: int, port: int) -> tuple[subprocess.Popen[bytes], str]:
    config = directory / f"am{number}.yml"
    config.write_text(
        "route: {receiver: guard, group_by: [batch], group_wait: 1s, group_interval: 5s, repeat_interval: 4h}\n"
        f"receivers: [{{name: guard, webhook_configs: [{{url: 'http://127.0.0.1:{port}/{number}'}}]}}]\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    with (directory / f"am{number}.log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus-alertmanager", f"--config.file={config}", f"--storage.path={directory / f'am{number}'}",
             f"--web.listen-address={listen}", "--cluster.listen-address="],
            stdout=log, stderr=log,
        )  # fmt: skip
    end_s = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"http://{listen}/-/ready", timeout=5).close()
            return process, f"http://{listen}"
        except OSError:
            assert time.monotonic() < end_s, (directory / f"am{number}.log").read_text()
            time.sleep(0.1)


def _send(urls: list[str], alert_count: int, group_size: int, over_s: float) -> None:
    """Give the alerts to every Alertmanager, spread evenly over `over_s` seconds."""
    start_s, piece = time.monotonic(), min(500, group_size)
    begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for first in range(0, alert_count, piece):
        time.sleep(max(0.0, start_s + over_s * first / alert_count - time.monotonic()))
        alerts = [
            {
                "labels": {"alertname": f"Intake{n % 50}", "n": str(n), "batch": str(n // group_size), "team": "bots"},
                "annotations": {"summary": f"alert {n} of the benchmark"},
                "startsAt": begun,
            }
            for n in range(first, min(first + piece, alert_count))
        ]
        body = json.dumps(alerts).encode()
        for url in urls:
            request = urllib.request.Request(f"{url}/api/v2/alerts", body, {"content-type": "application/json"})
            urllib.request.urlopen(request, timeout=60).close()


def main() -> int:
    """Run and print; 1 when an alert was lost, stored twice, or acknowledged too late."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--alerts", type=int, default=10_000)
    parser.add_argument("--managers", type=int, default=3, help="how many Alertmanagers send each alert")
    parser.add_argument("--group", type=int, default=100, help="alerts in one delivery, about")
    parser.add_argument(
        "--over", type=float, default=30.0, metavar="SECONDS", help="how long the storm lasts (0: at once)"
    )
    args = parser.parse_args()
    result = run(args.alerts, args.managers, args.group, args.over)
    print(json.dumps(result))
    whole = result["acked"] >= args.alerts * args.managers and result["distinct_on_disk"] == args.alerts
    return 0 if whole and result["rows_on_disk"] == args.alerts and result["ack_p99_ms"] <= 100 else 1


if __name__ == "__main__":
    sys.exit(main())
