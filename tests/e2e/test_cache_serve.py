"""`sft-guard serve` with a cache: a canary is warmed within its budget, a rollback stops it, people look and purge."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guard.cli import main
from tests.e2e.test_serve import CONFIG, TOKEN, Model, Sidecar, until

pytestmark = pytest.mark.slow
CACHE = """\
cache:
  semantic: {routes: [chat], tenants: ["*"], embedder: none, budget: 0.5, recheck: 0}
  warming: {requests_per_minute: 3}
prices: prices.yaml
"""
PRICES = "as_of: '2026-01-01'\nunit: per_1k_tokens\nmodels:\n  gpt-4o-mini: {input: 0.00015, output: 0.0006}\n"


class Counting(Model):
    """Remembers what it was asked."""

    def do_POST(self) -> None:
        self.server.asked = getattr(self.server, "asked", 0) + 1  # type: ignore[attr-defined]
        super().do_POST()


@pytest.fixture
def cached(tmp_path: Path) -> Iterator[tuple[Sidecar, Any, Any]]:
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting) for _ in range(2)]
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    stable, canary = (s.server_address[1] for s in servers)
    (tmp_path / "guard.yaml").write_text(CONFIG.format(stable=stable, canary=canary) + CACHE)
    (tmp_path / "slo.yaml").write_text("service: faq-bot\npreset: support-faq\n")
    (tmp_path / "prices.yaml").write_text(PRICES)
    made = Sidecar(tmp_path)
    made.start()
    yield made, *servers
    if made.process is not None and made.process.poll() is None:
        made.stop()
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(sidecar: Sidecar, question: str) -> str:
    body = {"model": "gpt-4o-mini", "temperature": 0, "messages": [{"role": "user", "content": question}]}
    request = urllib.request.Request(
        f"{sidecar.data}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        response.read()
        return str(response.headers["x-guard-cache"])


def report(sidecar: Sidecar) -> dict[str, Any]:
    return dict(json.loads(sidecar.get("/api/v1/cache")))


def command(capsys: pytest.CaptureFixture[str], sidecar: Sidecar, *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["cache", *words, "--json", "--admin", sidecar.admin])
    return code, json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_warming_purging_and_what_was_saved(
    cached: tuple[Sidecar, Any, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar, stable, canary = cached
    questions = [f"How many days of leave in case {n}?" for n in range(5)]
    for question in questions:
        ask(sidecar, question)
    until(lambda: report(sidecar)["stored"] == 5)
    assert [ask(sidecar, q) for q in (*questions, *questions)] == ["hit"] * 10
    assert stable.asked == 5

    # A canary takes traffic: three warm-up requests go out, and in this minute no more.
    status, result = sidecar.post("/api/v1/release/start", {"version": "v2", "plan": "1% for 2h"})
    assert status == 200, result
    until(lambda: sum(row["stored_count"] for row in report(sidecar)["warming"] if row["arm"] == "canary") == 3)
    until(lambda: [r["waits_for"] for r in report(sidecar)["warming"] if r["arm"] == "canary"] == ["requests"])
    assert canary.asked == 3
    requests = json.loads(sidecar.get("/api/v1/exchanges?limit=100"))["exchanges"]
    assert len(requests) == 15  # of users; warm-ups are not among them
    release = json.loads(sidecar.get("/api/v1/release"))
    assert release["stage_events_count"] == 0

    # A rollback: what was warmed is out of reach, nothing more is sent to it, stable begins a new epoch.
    assert sidecar.post("/api/v1/release/rollback", {"reason": "test"})[0] == 200
    assert ask(sidecar, questions[0]) == "miss"
    assert canary.asked == 3
    assert [row["arm"] for row in report(sidecar)["warming"]] == ["stable"]
    until(lambda: ask(sidecar, questions[0]) == "hit")

    # People look, with and without the token, and purge.
    code, stats = command(capsys, sidecar, "stats")
    assert (code, stats["enabled"], stats["total"]["hits"] >= 11, stats["total"]["warm_requests"]) == (0, True, True, 3)
    assert stats["total"]["saved_usd"] > 0
    assert stats["conditions"] == ["semantic cache refuses English: no embedder"]
    key = next(row["key"] for row in stats["hottest"])
    code, entry = command(capsys, sidecar, "inspect", key[:12])
    assert (code, entry["key"], entry["answer"], entry["tenant"]) == (0, key, None, None)
    assert entry["document_ids"] == ["1"]
    assert main(["cache", "purge", "--document", "1", "--admin", sidecar.admin]) == 2  # no token
    assert "needs a token" in capsys.readouterr().err
    monkeypatch.setenv("SFT_GUARD_TOKEN", TOKEN)
    code, entry = command(capsys, sidecar, "inspect", key)
    assert (code, entry["answer"], entry["servable"]) == (0, "You get 14 days of annual leave.", True)
    code, purged = command(capsys, sidecar, "purge", "--document", "1", "--reason", "policy changed")
    assert (code, purged["count"] >= 1) == (0, True)
    code, gone = command(capsys, sidecar, "inspect", key)
    assert (code, gone["found"]) == (1, False)
    assert ask(sidecar, questions[0]) == "miss"
    assert main(["cache", "purge", "--key", "zz", "--admin", sidecar.admin]) == 2
    assert "no such key" in capsys.readouterr().err

    # Figures survive a restart.
    assert sidecar.stop() == 0
    sidecar.start()
    assert report(sidecar)["total"]["hits"] == stats["total"]["hits"]
