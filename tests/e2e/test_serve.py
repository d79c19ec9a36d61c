"""`sft-guard serve` as a process: it answers, reloads, stops, and comes back as it was."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guard.cli import main
from slo.metric_names import INDICATORS
from slo.sources.exchange_log import LogReader

pytestmark = pytest.mark.slow
TOKEN = "a-token-of-enough-characters"
CONTEXT = "Employees receive 14 days of annual leave per year. Unused days expire on 31 March."


class Model(http.server.BaseHTTPRequestHandler):
    """Answers every question with 14 days; a server of its own for each version."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = {
            "id": "c1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o-mini",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": "You get 14 days of annual leave."},
                }
            ],
            "usage": {"prompt_tokens": 50, "completion_tokens": 9, "total_tokens": 59},
            "retrieval": {"contexts": [{"doc_id": "1", "text": CONTEXT}], "duration_s": 0.01},
        }
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class Sidecar:
    """One `sft-guard serve` on free ports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: subprocess.Popen[str] | None = None
        self.data = self.admin = ""

    def start(self) -> None:
        environment = {**os.environ, "GUARD_TOKEN": TOKEN}  # noqa: TID251 - a child process needs it
        self.log = (self.directory / "guard.log").open("a")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "guard.cli", "serve", "-c", "guard.yaml"],
            cwd=self.directory, env=environment, stdout=subprocess.PIPE, stderr=self.log, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"serving on (http://\S+) \(admin (http://\S+)\)", line)
        assert found, f"{line!r}\n{(self.directory / 'guard.log').read_text()}"
        self.data, self.admin = found[1], found[2]

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(40)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()
        return code

    def ask(self) -> tuple[int, dict[str, str]]:
        request = urllib.request.Request(
            f"{self.data}/v1/chat/completions",
            json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "How much leave?"}]}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            response.read()
            return response.status, {k.lower(): v for k, v in response.headers.items()}

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.admin + path, timeout=10) as response:
            return str(response.read().decode())

    def post(self, path: str, body: dict[str, Any], base: str = "", token: str = TOKEN) -> tuple[int, Any]:
        request = urllib.request.Request(
            (base or self.admin) + path,
            json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def metric(self, name: str) -> float | None:
        """First value of a metric; also of the one with labels."""
        found = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", self.get("/metrics"), re.MULTILINE)
        return float(found[1]) if found else None


def until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Wait for a process to get somewhere; the limit only ends a test that hangs."""
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "never happened"
        time.sleep(0.1)


CONFIG = """\
service: faq-bot
listen: {{data: "127.0.0.1:0", admin: "127.0.0.1:0"}}
admin: {{token_env: GUARD_TOKEN}}
slo: slo.yaml
routes:
  - name: chat
    path: /v1/chat/completions
    adapter: openai-chat
    contexts: {{body: retrieval.contexts}}
versions:
  v1: {{upstreams: ["http://127.0.0.1:{stable}"], model: gpt-4o-mini, kb: "1"}}
  v2: {{upstreams: ["http://127.0.0.1:{canary}"], model: gpt-4o-mini, kb: "2"}}
release: {{stable: v1, mode: enforce, evaluate_every: 1s}}
checks: {{embedder: none}}
"""


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model) for _ in range(2)]
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    stable, canary = (s.server_address[1] for s in servers)
    (tmp_path / "guard.yaml").write_text(CONFIG.format(stable=stable, canary=canary))
    (tmp_path / "slo.yaml").write_text("service: faq-bot\npreset: support-faq\n")
    made = Sidecar(tmp_path)
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop(signal.SIGKILL)
    for server in servers:
        server.shutdown()
        server.server_close()


def test_gauges_appear_with_enough_exchanges_and_survive_a_restart(sidecar: Sidecar) -> None:
    exact = [i.name for i in INDICATORS.values() if i.exact]
    assert len(exact) == 6
    assert [sidecar.metric(name) for name in exact] == [None] * 6
    page = sidecar.get("/metrics")
    for zero in (  # what has not happened yet is 0: of a series that is born at 1 nobody sees the increase
        'sft_release_rollbacks_total{service="faq-bot",reason="manual"} 0',
        'sft_release_rollbacks_total{service="faq-bot",reason="hallucination"} 0',
        'sft_guard_checks_dropped_total{service="faq-bot",reason="queue_full"} 0',
        'sft_guard_failopen_total{service="faq-bot",dep="checks",reason="queue_full"} 0',
        'sft_guard_failopen_total{service="faq-bot",dep="disk",reason="disk_full"} 0',
    ):
        assert zero in page
    assert page.count("sft_quality_feedback_total{") == 2  # up and down, of the release that answers
    assert "sft_quality_reopens_total{" in page
    for _ in range(25):
        status, headers = sidecar.ask()
        assert status == 200
        assert headers["x-guard-cache"] == "bypass"
    until(lambda: sidecar.metric("sft_quality_hallucination_rate") is not None)
    assert all(sidecar.metric(name) is not None for name in exact)
    assert sidecar.metric("sft_availability_success_rate") == 1.0
    assert sidecar.metric("sft_quality_hallucination_rate") == 0.0
    assert 'sft_guard_held_entries{service="faq-bot",table="releases_of_answers"} 25' in sidecar.get("/metrics")
    assert (sidecar.metric("sft_guard_allocated_blocks") or 0) > 100_000
    assert sidecar.stop() == 0
    sidecar.start()
    assert sidecar.metric("sft_availability_success_rate") == 1.0
    log = [exchange for exchange, _ in LogReader(sidecar.directory / "state/exchanges")]  # lines, or Parquet by now
    assert len(log) == 25
    assert all({f.check for f in exchange.findings} >= {"grounding", "zero_hit", "pii"} for exchange in log)


def test_a_bad_reload_changes_nothing_and_a_good_one_takes_effect(sidecar: Sidecar) -> None:
    assert sidecar.process is not None
    file = sidecar.directory / "guard.yaml"
    good = file.read_text()
    before = json.loads(sidecar.get("/api/v1/config"))["hash"]
    file.write_text(good.replace("adapter: openai-chat", "adapter: openai-chatt"))
    sidecar.process.send_signal(signal.SIGHUP)
    until(lambda: sidecar.metric("sft_guard_config_last_reload_success") == 0.0)
    assert json.loads(sidecar.get("/api/v1/config"))["hash"] == before
    assert sidecar.ask()[0] == 200
    assert "routes[0].adapter" in (sidecar.directory / "guard.log").read_text()
    file.write_text(good.replace("mode: enforce", "mode: observe"))
    sidecar.process.send_signal(signal.SIGHUP)
    until(lambda: sidecar.metric("sft_guard_config_last_reload_success") == 1.0)
    assert json.loads(sidecar.get("/api/v1/config"))["hash"] != before
    assert json.loads(sidecar.get("/api/v1/release"))["mode"] == "observe"
    assert sidecar.ask()[0] == 200


def test_the_split_is_the_same_after_kill_9(sidecar: Sidecar) -> None:
    status, result = sidecar.post("/api/v1/release/start", {"version": "v2", "plan": "40% for 2h"})
    assert status == 200, result
    sidecar.stop(signal.SIGKILL)
    sidecar.start()
    release = json.loads(sidecar.get("/api/v1/release"))
    assert (release["phase"], release["canary"]["name"], release["canary_ratio"]) == ("rolling_out", "v2", 0.4)
    status, result = sidecar.post("/api/v1/release/rollback", {"reason": "test"})
    assert status == 200, result
    assert json.loads(sidecar.get("/api/v1/release"))["canary_ratio"] == 0.0
    incident = json.loads(sidecar.get(f"/api/v1/incidents/{result['incident_id']}"))
    assert incident["bad"]["name"] == "v2"
    assert {"part": "kb", "before": "1", "after": "2"} in incident["differences"]


def test_a_thumb_counts_once_and_only_for_a_known_answer(sidecar: Sidecar) -> None:
    _, headers = sidecar.ask()
    feedback = {"exchange_id": headers["x-guard-exchange-id"], "thumb": "down"}
    assert sidecar.post("/guard/v1/feedback", feedback, sidecar.data)[0] == 202
    assert sidecar.post("/guard/v1/feedback", feedback, sidecar.data)[0] == 200  # the same again: nothing new
    assert sidecar.post("/guard/v1/feedback", {**feedback, "thumb": "up"}, sidecar.data)[0] == 409
    assert sidecar.post("/guard/v1/feedback", {**feedback, "exchange_id": "none"}, sidecar.data)[0] == 404
    assert sidecar.post("/guard/v1/feedback", {**feedback, "thumb": "sideways"}, sidecar.data)[0] == 400
    assert 'thumb="down"} 1' in sidecar.get("/metrics")


def test_nothing_changes_without_the_token(sidecar: Sidecar) -> None:
    status, _ = sidecar.post("/api/v1/release/start", {"version": "v2"}, token="wrong-token-wrong-token")
    assert status == 401
    assert json.loads(sidecar.get("/api/v1/release"))["phase"] == "idle"


def test_a_port_that_is_taken_is_one_clear_line(sidecar: Sidecar, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    port = sidecar.data.rsplit(":", 1)[1]
    text = (sidecar.directory / "guard.yaml").read_text().replace('data: "127.0.0.1:0"', f'data: "127.0.0.1:{port}"')
    (other / "guard.yaml").write_text(text)
    (other / "slo.yaml").write_text("service: faq-bot\npreset: support-faq\n")
    environment = {**os.environ, "GUARD_TOKEN": TOKEN}  # noqa: TID251 - a child process needs it
    run = subprocess.run(
        [sys.executable, "-m", "guard.cli", "serve", "-c", "guard.yaml"],
        cwd=other, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert f"listen.data: got '127.0.0.1:{port}'; choose a free address" in run.stderr


def test_a_release_started_again_is_not_judged_by_its_former_life(sidecar: Sidecar) -> None:
    plan = {"version": "v2", "plan": "100% for 2h"}
    assert sidecar.post("/api/v1/release/start", plan)[0] == 200
    for _ in range(25):
        sidecar.ask()
    until(lambda: 'sft_availability_success_rate{service="faq-bot"' in sidecar.get("/metrics"))
    assert sidecar.post("/api/v1/release/rollback", {"reason": "test"})[0] == 200
    status, refused = sidecar.post("/api/v1/release/rollback", {"reason": "again, by a second person"})
    assert (status, refused["error"]["type"]) == (409, "nothing_to_roll_back")
    assert sidecar.post("/api/v1/release/start", plan)[0] == 409
    assert sidecar.post("/api/v1/release/start", {**plan, "force": True})[0] == 200
    before_wall_s = json.loads(sidecar.get("/api/v1/slo"))["evaluated_wall_s"]
    until(lambda: json.loads(sidecar.get("/api/v1/slo"))["evaluated_wall_s"] > before_wall_s + 1.0)
    rows = json.loads(sidecar.get("/api/v1/slo"))["objectives"]
    assert any(r["arm"] == "canary" for r in rows)
    assert all(r["events_count"] == 0 for r in rows if r["arm"] == "canary")


def test_two_guards_do_not_share_a_state_directory(sidecar: Sidecar) -> None:
    environment = {**os.environ, "GUARD_TOKEN": TOKEN}  # noqa: TID251 - a child process needs it
    run = subprocess.run(
        [sys.executable, "-m", "guard.cli", "serve", "-c", "guard.yaml"],
        cwd=sidecar.directory, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert "uses this state directory" in run.stderr
    assert sidecar.ask()[0] == 200


def test_an_incident_is_closed_by_command_and_the_state_directory_is_private(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SFT_GUARD_ADMIN", sidecar.admin)
    monkeypatch.setenv("SFT_GUARD_TOKEN", TOKEN)
    sidecar.ask()
    assert main(["release", "start", "v2", "--reason", "try it"]) == 0
    assert main(["release", "rollback", "--reason", "wrong index", "--json"]) == 0
    incident_id = json.loads(capsys.readouterr().out.splitlines()[-1])["incident_id"]
    monkeypatch.delenv("SFT_GUARD_TOKEN")  # reading needs none
    assert main(["incident", "list"]) == 0
    assert re.search(rf"{incident_id}  \S+ \S+Z  open    rollback", capsys.readouterr().out)
    close = ["incident", "close", incident_id, "--reason", "v3 has the right one"]
    assert main(close) == 2
    assert "needs a token: export SFT_GUARD_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("SFT_GUARD_TOKEN", TOKEN)
    assert main(close) == 0
    assert main(close) == 0
    assert f"{incident_id} closed\n{incident_id} was closed before, at " in capsys.readouterr().out
    assert main(["incident", "show", incident_id]) == 0
    assert ": v3 has the right one" in capsys.readouterr().out
    assert main(["release", "status"]) == 0
    said = capsys.readouterr()
    assert re.search(r"last judged  (not yet|\S+ \S+Z hold)", said.out)
    assert re.search(r"last deed    \S+ \S+Z rollback by .*: wrong index", said.out)
    assert f"asked {sidecar.admin} (SFT_GUARD_ADMIN)" in said.err
    assert sidecar.stop() == 0
    state = sidecar.directory / "state"
    entries = [state, *state.rglob("*")]
    assert {path.name for path in entries} > {"release.db", "windows.jsonl", "human_labels.json", "exchanges"}
    open_to_others = [path.name for path in entries if path.stat().st_mode & 0o077]
    assert open_to_others == []


class Gone(http.server.BaseHTTPRequestHandler):
    """A receiver of webhooks that asks not to be called again."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(410)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def test_a_receiver_that_answered_410_is_told_of_until_its_address_changes(sidecar: Sidecar) -> None:
    def webhooks() -> dict[str, str]:
        return next(part for part in json.loads(sidecar.get("/healthz"))["parts"] if part["name"] == "webhooks")

    sidecar.stop()
    gone = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gone)
    threading.Thread(target=gone.serve_forever, daemon=True).start()
    file = sidecar.directory / "guard.yaml"
    with file.open("a") as config:
        config.write(f"webhooks: [{{name: ops, format: slack, url: 'http://127.0.0.1:{gone.server_address[1]}/x'}}]\n")
    sidecar.start()
    assert (sidecar.metric("sft_guard_webhooks_disabled"), webhooks()["status"]) == (0.0, "ok")
    assert sidecar.post("/api/v1/release/start", {"version": "v2"})[0] == 200
    assert sidecar.post("/api/v1/release/rollback", {"reason": "a try"})[0] == 200
    until(lambda: webhooks()["status"] == "degraded")
    assert webhooks()["detail"] == "ops answered 410 and is not called again: change its url"
    until(lambda: sidecar.metric("sft_guard_webhooks_disabled") == 1.0)
    sidecar.stop()
    log = (sidecar.directory / "guard.log").read_text()
    assert "webhook ops: answered 410, so it is not called again until its url changes" in log
    sidecar.start()
    until(lambda: sidecar.metric("sft_guard_webhooks_disabled") == 1.0)  # after a restart as well
    gone.shutdown()
    gone.server_close()
