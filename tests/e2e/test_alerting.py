"""Real Prometheus, real Alertmanager: a breach pages a receiver and, through the guard's own receiver, rolls back."""

from __future__ import annotations

import asyncio
import http.server
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from alerts.build import ALERTMANAGER, PROMETHEUS
from alerts.model import Options
from bench import alerts_intake
from guard.release.alertmanager import AlertmanagerPoster
from guard.release.incident import Incident, IncidentKind
from slo.clock import SystemClock
from slo.types import Version
from tests.alerts_kit import built, needs, write
from tests.e2e.test_serve import TOKEN, Model, Sidecar
from tests.monitoring_kit import Program, Receiver, alertmanager, free_port, prometheus

pytestmark = [
    pytest.mark.slow,
    needs("prometheus", "prometheus"),
    needs("prometheus-alertmanager", "prometheus-alertmanager"),
]

SLO = """\
service: faq-bot
objectives:
  - {name: http-errors, indicator: sft_availability_http_error_rate, window: 1m, threshold: {absolute: 5%},
     min_events: 20, keep_firing_for: 10s, action: page}
outside_alerts:
  - {name: paged-errors, alert: SftSloHttpErrors, labels: {slo: http-errors}, action: rollback}
"""
GUARD = """\
service: faq-bot
listen: {{data: "127.0.0.1:0", admin: "127.0.0.1:{admin}"}}
admin: {{token_env: GUARD_TOKEN}}
routes: [{{name: chat, path: /v1/chat/completions, adapter: openai-chat}}]
versions:
  v1: {{upstreams: ["http://127.0.0.1:{stable}"], model: m, kb: "1"}}
  v2: {{upstreams: ["http://127.0.0.1:{canary}"], model: m, kb: "2"}}
release: {{stable: v1, mode: enforce, evaluate_every: 1s}}
checks: {{enabled: false}}
alertmanager: {{url: "http://127.0.0.1:{alertmanager}", repost: 2s, runbook_url: "https://wiki.example/"}}
"""


class Breakable(Model):
    """A model server that answers 500 while it is told to."""

    broken = threading.Event()

    def do_POST(self) -> None:
        if not self.broken.is_set():
            super().do_POST()
            return
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(500)
        self.send_header("content-length", "0")
        self.end_headers()


class Scene:
    """Everything that runs, and users who ask all the time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.receiver = Receiver()
        self.servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) for kind in (Model, Breakable)]
        for server in self.servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
        self.guard = Sidecar(directory)
        self.programs: list[Program] = []
        self.done = threading.Event()
        self.users: list[threading.Thread] = []

    def start(self) -> None:
        """Guard first: the others are told where it is."""
        admin, am_port = free_port(), free_port()
        stable, canary = (server.server_address[1] for server in self.servers)
        text = GUARD.format(admin=admin, stable=stable, canary=canary, alertmanager=am_port)
        (self.directory / "guard.yaml").write_text(text)
        (self.directory / "slo.yaml").write_text(SLO)
        options = Options(
            scrape_s=1.0, guard_url=f"http://127.0.0.1:{admin}", alertmanager=f"127.0.0.1:{am_port}",
            pager_url=f"{self.receiver.url}/pager", ticket_url=f"{self.receiver.url}/ticket",
        )  # fmt: skip
        files = built(SLO, options=options)
        config = yaml.safe_load(files[ALERTMANAGER])
        config["route"] |= {"group_wait": "1s", "group_interval": "2s"}  # a test does not wait a minute
        for route in config["route"]["routes"]:
            if "group_interval" in route:
                route["group_interval"] = "1s"
        write(self.directory, files | {ALERTMANAGER: yaml.safe_dump(config), "guard-token": TOKEN})
        self.guard.start()
        self.alertmanager = alertmanager(self.directory, ALERTMANAGER, am_port)
        self.prometheus = prometheus(self.directory, PROMETHEUS)
        self.programs = [self.alertmanager, self.prometheus]
        for program in self.programs:
            program.start()
        self.users = [threading.Thread(target=self._ask, daemon=True) for _ in range(2)]
        for user in self.users:
            user.start()

    def _ask(self) -> None:
        while not self.done.wait(0.02):
            try:
                self.guard.ask()
            except OSError:  # an answer 5xx, or the end of the test
                continue

    def until(self, what: str, condition: Callable[[], Any], limit_s: float = 90.0) -> Any:
        """Wait for something to become true; the limit only ends a test that hangs."""
        end_s = time.monotonic() + limit_s
        while not (found := condition()):
            assert time.monotonic() < end_s, f"never happened: {what}\n{self.guard.get('/api/v1/slo')[:3000]}"
            time.sleep(0.2)
        return found

    def release(self) -> dict[str, Any]:
        """Release status."""
        return dict(json.loads(self.guard.get("/api/v1/release")))

    def firing(self) -> set[str]:
        """Names of the alerts that Alertmanager holds."""
        return {one["labels"]["alertname"] for one in self.alertmanager.get("/api/v2/alerts")}

    def close(self) -> None:
        """Stop everything."""
        self.done.set()
        Breakable.broken.clear()
        for user in self.users:
            user.join(30)
        for program in self.programs:
            program.stop()
        if self.guard.process is not None and self.guard.process.poll() is None:
            self.guard.stop(signal.SIGKILL)
        for server in self.servers:
            server.shutdown()
            server.server_close()
        self.receiver.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_a_breach_pages_and_rolls_back_through_alertmanager_and_everything_resolves(scene: Scene) -> None:
    scene.until("both are ready", lambda: all(program.is_ready() for program in scene.programs))
    groups = scene.prometheus.get("/api/v1/rules")["data"]["groups"]
    assert len(groups) >= 3
    scene.until(
        "the guard is scraped and the rules see its events",
        lambda: scene.prometheus.get("/api/v1/query?query=sft:slo_events:sum1m>20")["data"]["result"],
    )
    health = [rule for group in scene.prometheus.get("/api/v1/rules")["data"]["groups"] for rule in group["rules"]]
    assert not [rule["lastError"] for rule in health if rule.get("lastError")]

    assert scene.guard.post("/api/v1/release/start", {"version": "v2", "plan": "50% for 2h"})[0] == 200
    assert scene.release()["canary_ratio"] == 0.5
    Breakable.broken.set()

    page = scene.until("the page", lambda: scene.receiver.told("/pager", "SftSloHttpErrors", "firing"))[0]
    assert page["labels"]["action"] == "page"
    assert page["annotations"]["runbook_url"] == "runbooks/SftSloHttpErrors.md"
    release = scene.until("the rollback", lambda: (r := scene.release())["phase"] == "rolled_back" and r)
    assert release["canary_ratio"] == 0.0
    incident = json.loads(scene.guard.get(f"/api/v1/incidents/{release['incident_id']}"))
    assert incident["automatic"]
    assert incident["rule"] == "paged-errors", "the objective itself only pages; the outside alert rolls back"
    assert incident["bad"]["name"] == "v2"
    assert "SftSloHttpErrors fires" in incident["reason"]

    scene.until("the end of the page", lambda: scene.receiver.told("/pager", "SftSloHttpErrors", "resolved"))
    scene.until("the guard's own alert", lambda: scene.receiver.told("/pager", "SftGuardRollback", "firing"))
    rows = json.loads(scene.guard.get("/api/v1/slo"))["objectives"]
    assert {row["state"] for row in rows if row["slo"] == "paged-errors"} == {"ok"}

    Breakable.broken.clear()  # fixed; a new rollout of it closes the incident
    again = {"version": "v2", "plan": "50% for 2h", "force": True}
    assert scene.guard.post("/api/v1/release/start", again)[0] == 200
    scene.until(
        "the end of the guard's own alert", lambda: scene.receiver.told("/pager", "SftGuardRollback", "resolved")
    )
    scene.until(
        "nothing fires any more", lambda: not scene.firing() & {"SftSloHttpErrors", "SftGuardRollback", "SftGuardPage"}
    )
    assert scene.release()["phase"] == "rolling_out", "the old alert is not held against the new rollout"


def test_alertmanagers_that_send_everything_several_times_have_each_alert_stored_once() -> None:
    result = alerts_intake.run(300, managers=2, group_size=50)
    assert result["statuses"].keys() == {200}
    assert result["acked"] >= 600
    assert (result["stored"], result["rows_on_disk"], result["distinct_on_disk"]) == (300, 300, 300)


CONFIG = """\
route: {receiver: page, group_by: [alertname], group_wait: 0s, group_interval: 1s}
receivers: [{name: page, webhook_configs: [{url: "%s/pager"}]}]
"""


@pytest.mark.anyio
async def test_an_open_incident_is_told_again_to_an_alertmanager_that_was_away(tmp_path: Path) -> None:
    receiver = Receiver()
    (tmp_path / "am.yml").write_text(CONFIG % receiver.url)
    server = alertmanager(tmp_path, "am.yml")
    opened_s = SystemClock().wall_s()
    incident = Incident(
        "inc-1", IncidentKind.ROLLBACK, "faq-bot", opened_s, "errors", "9 % of 500", Version("v2"), Version("v1"), 3
    )
    current = [incident]
    results: list[str] = []

    async def open_incidents() -> list[Incident]:
        return current

    def held() -> list[dict[str, Any]]:
        return [a for a in server.get("/api/v2/alerts") if a["labels"]["alertname"] == "SftGuardRollback"]

    async def until(condition: Callable[[], Any]) -> Any:
        end_s = time.monotonic() + 60
        while not (found := condition()):
            assert time.monotonic() < end_s
            await asyncio.sleep(0.1)
        return found

    session = aiohttp.ClientSession()
    poster = AlertmanagerPoster(
        [server.url], session, SystemClock(), open_incidents, on_result=results.append, repost_s=0.5,
        runbook_url="https://wiki.example/",
    )  # fmt: skip
    server.start()
    loop = asyncio.create_task(poster.run())
    try:
        await until(server.is_ready)
        (first,) = await until(held)
        assert first["annotations"]["runbook_url"] == "https://wiki.example/SftGuardRollback.md"
        await until(lambda: held() and held()[0]["endsAt"] > first["endsAt"])  # renewed
        server.stop()
        results.clear()
        await until(lambda: "error" in results)
        server.start()  # it remembers no alert
        await until(server.is_ready)
        await until(held)
        closed_s = SystemClock().wall_s()
        current[0] = replace(incident, closed_s=closed_s)
        await until(lambda: receiver.told("/pager", "SftGuardRollback", "resolved"))
        assert not held()
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        await session.close()
        server.stop()
        receiver.close()
