"""A knowledge base from its rows to an incident: gate, pack, `registry serve` as a process, a guard that reads it."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guard.cli import main
from tests.e2e.test_serve import Model, Sidecar, until

pytestmark = pytest.mark.slow
TOKEN = "registry-token-of-enough-characters"
CONFIG = """\
service: faq-bot
listen: {{data: "127.0.0.1:0", admin: "127.0.0.1:0"}}
admin: {{token_env: GUARD_TOKEN}}
slo: slo.yaml
registry: {{url: "{registry}", token_env: REGISTRY_TOKEN, model: faq-bot}}
routes: [{{name: chat, path: /v1/chat/completions, adapter: openai-chat, contexts: {{body: retrieval.contexts}}}}]
versions:
  v1: {{upstreams: ["http://127.0.0.1:{port}"], model: m, kb: "{first}"}}
  v2: {{upstreams: ["http://127.0.0.1:{port}"], model: m, kb: "{second}"}}
release: {{stable: v1, mode: enforce, evaluate_every: 1s}}
checks: {{embedder: none}}
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Address of a registry process that wants a token for writes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "guard.cli", "registry", "serve", "--listen", "127.0.0.1:0",
         "--database", f"sqlite:///{tmp_path}/registry.db", "--token-env", "REGISTRY_TOKEN"],
        env={**os.environ, "REGISTRY_TOKEN": TOKEN}, stderr=subprocess.PIPE, text=True,  # noqa: TID251 - a child's
    )  # fmt: skip
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"registry on (http://\S+) \(writes need the token\)", line)
    assert found, line
    yield found[1]
    process.terminate()
    assert process.wait(30) in (0, -15)
    process.stderr.close()


@pytest.fixture
def model() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def rows(path: Path, count: int, words: int, prefix: str, empty: int = 0) -> Path:
    lines = [
        {"doc_id": f"{prefix}{n}", "text": " ".join(f"{prefix}{n}x{i}" for i in range(words))} for n in range(count)
    ]
    lines += [{"doc_id": f"{prefix}e{n}", "text": ""} for n in range(empty)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_from_rows_to_the_incident_that_says_what_changed(
    tmp_path: Path,
    registry: str,
    model: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("REGISTRY_TOKEN", TOKEN)
    access = ["--registry", registry, "--token-env", "REGISTRY_TOKEN"]

    def run(*words: object, code: int = 0) -> dict[str, Any]:
        assert main([*map(str, words), "--json"]) == code, capsys.readouterr().err
        result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return result

    kb = tmp_path / "kb"
    run("kb", "init", "--kb", kb)
    run("kb", "add", "--kb", kb, "--jsonl", rows(tmp_path / "a.jsonl", 40, 45, "a"), "--embedder", "none", "--stage")
    assert run("kb", "gate", "--kb", kb, "--promote")["promoted"] == 1
    run("kb", "pack", "--kb", kb, "--out", tmp_path / "one.tar.gz")
    register = ["--name", "faq-kb", "--kb", kb, "--param", "chunking=600/100", *access]
    one = run("kb", "register", tmp_path / "one.tar.gz", *register)
    assert re.fullmatch(r"1-kb\+\d{10}", one["version"])
    assert one["gate"] == "accepted"

    new = rows(tmp_path / "b.jsonl", 85, 28, "b", empty=15)
    run("kb", "add", "--kb", kb, "--jsonl", new, "--embedder", "none", "--stage", code=1)
    refused = run("kb", "gate", "--kb", kb, "--promote", code=1)
    assert "promoted" not in refused
    assert run("kb", "profile", "--kb", kb)["row_count"] == 40  # what serves was not touched
    run("kb", "gate", "--kb", kb, "--promote", "--force", code=1)  # somebody insists
    run("kb", "pack", "--kb", kb, "--out", tmp_path / "two.tar.gz")
    register[-len(access) - 1] = "chunking=350/50"
    two = run("kb", "register", tmp_path / "two.tar.gz", *register)
    assert two["gate"] == "refused"

    for version in (one["version"], two["version"]):
        run("registry", "transition", "faq-kb", version, "Staging", *access)
    run("registry", "transition", "faq-kb", one["version"], "Production", "--if-production", "", *access)
    assert main(["registry", "transition", "faq-kb", two["version"], "Production", "--if-production", two["version"],
                 *access]) == 2  # fmt: skip
    assert "Production is" in capsys.readouterr().err
    assert main(["registry", "transition", "faq-kb", two["version"], "Production", "--registry", registry]) == 2
    assert "authorization" in capsys.readouterr().err.lower()
    shown = run("registry", "show", "faq-kb", "champion", *access)
    assert shown["version"] == one["version"]
    assert shown["lineage"]["parameters"]["profile"]["mean_tokens"] == 45.0
    with urllib.request.urlopen(f"{registry}/models/faq-kb/production", timeout=10) as response:
        assert json.loads(response.read())["version"] == one["version"]
    assert [e["action"] for e in run("registry", "audit", "--model", "faq-kb", *access)["entries"]][:1] == ["promote"]

    kbs = {"first": f"faq-kb@{one['version']}", "second": f"faq-kb@{two['version']}"}
    (tmp_path / "guard.yaml").write_text(CONFIG.format(registry=registry, port=model, **kbs))
    (tmp_path / "slo.yaml").write_text("service: faq-bot\npreset: support-faq\n")
    sidecar = Sidecar(tmp_path)
    sidecar.start()
    try:
        assert sidecar.post("/api/v1/release/start", {"version": "v2", "actor": "ann"})[0] == 200
        assert sidecar.ask()[0] == 200
        status, result = sidecar.post("/api/v1/release/rollback", {"actor": "ann"})
        assert status == 200, result
        until(lambda: bool(json.loads(sidecar.get("/api/v1/incidents"))["incidents"]))
        incident = json.loads(sidecar.get("/api/v1/incidents"))["incidents"][0]["id"]
        text = sidecar.get(f"/api/v1/incidents/{incident}/postmortem")
    finally:
        sidecar.stop()
    assert "| KB chunking | 600/100 | 350/50 |" in text
    assert "| KB mean row | 45 tokens | 33 tokens |" in text
    assert "| KB rows | 40 | 125 |" in text
    assert re.search(r"\| KB gate \| accepted \| refused; new rows: bad rows: 15 of 100 rows \(15.0%\)", text)
