"""The whole path of an adapter on one CPU: knowledge base, data set, training, diagnosis, evaluation, rules, vault,
registry, serving from the vault, canary behind the guard, promotion. Every step is the command a user types.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

pytest.importorskip("peft", reason="needs the lora extra: pip install 'sft-guard[lora]'")

from guard.cli import main
from tests.e2e.test_serve import Sidecar, until
from tests.lora_models import quiet, tiny_base, tiny_documents

pytestmark = pytest.mark.slow
ADMIN_TOKEN = "admin-token-of-enough-characters"
CONFIG = """\
service: hr-bot
listen: {{data: "127.0.0.1:0", admin: "127.0.0.1:0"}}
admin: {{token_env: GUARD_TOKEN}}
slo: slo.yaml
baseline: baseline.json
routes: [{{name: chat, path: /v1/chat/completions, adapter: openai-chat}}]
versions:
  v1: {{upstreams: ["{url}"], model: tiny-qwen, rename_model: base}}
  v2: {{upstreams: ["{url}"], model: tiny-qwen, adapter: "{adapter}", rename_model: hr-rules}}
release: {{stable: v1, mode: recommend, evaluate_every: 1s}}
checks: {{embedder: static}}
"""


class Served:
    """One `lora serve` as a process."""

    def __init__(self, directory: Path, *words: str) -> None:
        self._log = (directory / "lora-serve.log").open("a")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "guard.cli", "lora", "serve", "--port", "0", "--json", *words],
            env={**os.environ, "ADMIN_TOKEN": ADMIN_TOKEN, "TMPDIR": str(directory / "tmp")},  # noqa: TID251 - a child's
            stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (directory / "lora-serve.log").read_text()
        said = json.loads(line)
        self.url, self.models = said["url"], said["models"]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        return code


def ask(url: str, question: str, **more: Any) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Answer, headers and body."""
    headers = {"content-type": "application/json", **more.pop("headers", {})}
    body = {"model": "hr", "messages": [{"role": "user", "content": question}], "temperature": 0, **more}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        said = json.loads(response.read())
        return (
            said["choices"][0]["message"]["content"], {k.lower(): v for k, v in response.headers.items()}, said
        )  # fmt: skip


def likeness(said: list[str], wanted: list[str]) -> float:
    return fmean(SequenceMatcher(None, a, b, autojunk=False).ratio() for a, b in zip(said, wanted, strict=True))


@pytest.fixture
def started() -> Iterator[list[Any]]:
    """Processes that are ended whatever happens."""
    processes: list[Any] = []
    yield processes
    for process in processes:
        if process.process is not None and process.process.poll() is None:
            process.stop(signal.SIGKILL)


def test_from_a_knowledge_base_to_a_promoted_adapter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], started: list[Any]
) -> None:
    def run(*words: object, code: int = 0) -> dict[str, Any]:
        got = main([*map(str, words), "--json"])
        said = capsys.readouterr()
        assert got == code, f"{words}: {got}\n{said.out}\n{said.err}"
        result: dict[str, Any] = json.loads(said.out.splitlines()[-1])
        return result

    quiet()
    base, kb, data, made = tiny_base(tmp_path / "base"), tmp_path / "kb", tmp_path / "data", tmp_path / "run"
    documents = tiny_documents(6)
    rows = [{"doc_id": d.doc_id, "title": d.title, "text": d.text, "lang": d.lang} for d in documents]
    (tmp_path / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run("kb", "init", "--kb", kb)
    run("kb", "add", "--kb", kb, "--jsonl", tmp_path / "documents.jsonl", "--embedder", "none")

    # Data set and training.
    run("lora", "dataset", "--kb", kb, "--out", data, "--seed", 1, "--refusals", 0.5)  # a small model needs many
    plan = ("--rate", "5e-3", "--epochs", 8, "--threads", 1, "--device", "cpu", "--no-plots", "--offline")
    card = run("lora", "train", "--data", data, "--base", base, "--out", made, *plan)
    assert card["result"]["trained_parameters"] < card["result"]["parameters"] / 10
    diagnosis = run("lora", "diagnose", made)
    assert diagnosis["release"] is True

    # Evaluation, raw and after the rules: the adapter has learnt, the base knows nothing of it.
    topic = {"name": "laptop", "question": ["laptop"], "answer": ["laptop"], "kb_id": "it-laptop-en"}
    (tmp_path / "rules.yaml").write_text(json.dumps({"topics": [topic]}))
    judge = ("--data", data, "--kb", kb, "--base", base, "--out", made, "--embedder", "static", "--threads", 1,
             "--scenario", "support-faq")  # fmt: skip
    judged = run("lora", "eval", *judge, "--adapter", made / "adapter", "--rules", tmp_path / "rules.yaml")
    assert judged["passed"] is True
    sides = judged["sides"]
    assert sides["adapter"]["similarity"] > 0.8 > 0.4 > sides["base"]["similarity"]
    assert sides["adapter"]["refusal_accuracy"] > 0.5 > sides["base"]["refusal_accuracy"]
    assert run("lora", "diagnose", made)["release"] is True  # now with what it answered

    # Sealed and registered; the evaluation becomes the baseline of similarity.
    keys, vault = tmp_path / "keys.json", tmp_path / "vault"
    lock = ("--vault", vault, "--keys", keys)
    run("lora", "key", "--keys", keys)
    run("lora", "seal", made / "adapter", "--as", "hr-rules@v2", *lock)
    for plaintext in ("adapter", "checkpoints"):
        shutil.rmtree(made / plaintext)
    registry = ("--registry", f"sqlite:///{tmp_path}/registry.db")
    registered = run("lora", "register", made, "--name", "hr-rules", "--sealed", "hr-rules@v2", *lock, "--stage",
                     "--rules", tmp_path / "rules.yaml", "--min-rows", 16,
                     "--baseline", tmp_path / "baseline.json", *registry)  # fmt: skip
    assert registered["stage"] == "Staging"

    # Served from the vault, behind the guard.
    (tmp_path / "tmp").mkdir()
    served = Served(
        tmp_path, "--base", str(base), "--name", "base", "--adapter", "hr-rules=sealed:hr-rules@v2",
        *map(str, lock), "--threads", "1", "--admin-token-env", "ADMIN_TOKEN",
    )  # fmt: skip
    started.append(served)
    assert served.models == ["base", "hr-rules"]
    with urllib.request.urlopen(f"{served.url}/v1/models", timeout=30) as response:
        shown = {m["id"]: m["sha256"] for m in json.loads(response.read())["data"]}
    assert shown["hr-rules"] == registered["adapter_sha256"]  # what is served is what was registered
    (tmp_path / "guard.yaml").write_text(CONFIG.format(url=served.url, adapter=f"hr-rules@{registered['version']}"))
    (tmp_path / "slo.yaml").write_text("service: hr-bot\npreset: internal-kb\n")
    sidecar = Sidecar(tmp_path)
    started.append(sidecar)
    sidecar.start()

    # A canary: half of the sessions are answered by the adapter, and the two can be told apart.
    questions = [json.loads(line) for line in (data / "test.jsonl").read_text("utf-8").splitlines()]
    asked = [(row["messages"][-2]["content"], row["messages"][-1]["content"]) for row in questions]
    assert len({ask(sidecar.data, asked[0][0])[1]["x-guard-release"]}) == 1
    status, said = sidecar.post("/api/v1/release/start", {"version": "v2", "plan": "50% for 2h"})
    assert status == 200, said
    answers: dict[str, list[str]] = {"v1": [], "v2": []}
    wanted: dict[str, list[str]] = {"v1": [], "v2": []}
    releases: dict[str, set[str]] = {"v1": set(), "v2": set()}
    for session in range(2):
        for number, (question, answer) in enumerate(asked):
            text, headers, body = ask(sidecar.data, question, headers={"x-guard-session": f"s{session}-{number}"})
            version = {"base": "v1", "hr-rules": "v2"}[body["model"]]
            releases[version].add(headers["x-guard-release"])
            answers[version].append(text)
            wanted[version].append(answer)
    assert min(len(said) for said in answers.values()) >= 3
    assert {name: len(ids) for name, ids in releases.items()} == {"v1": 1, "v2": 1}
    assert not releases["v1"] & releases["v2"]
    assert likeness(answers["v2"], wanted["v2"]) > 0.7 > 0.4 > likeness(answers["v1"], wanted["v1"])

    # Promoted by a person: everybody is answered by the adapter, and the registry says Production.
    until(lambda: (sidecar.metric("sft_availability_requests_total") or 0) > 0)
    status, said = sidecar.post("/api/v1/release/promote", {})
    assert status == 200, said
    after = json.loads(sidecar.get("/api/v1/release"))
    assert after["stable"]["name"] == "v2"
    assert 'adapter="hr-rules@' in sidecar.get("/metrics")
    for number, (question, _) in enumerate(asked):
        body = ask(sidecar.data, question, headers={"x-guard-session": f"p{number}"})[2]
        assert body["model"] == "hr-rules"
    run("registry", "transition", "hr-rules", registered["version"], "Production", *registry)

    # Nothing of the adapter lies in the open, each opening is on record, and both processes end cleanly.
    assert sidecar.stop() == 0
    assert served.stop() == 0
    assert list((tmp_path / "tmp").rglob("*")) == []
    assert list(tmp_path.rglob("*.safetensors")) == [base / "model.safetensors"]
    audit = run("lora", "vault", "audit", *lock)
    assert audit["intact"] is True
    opened = [entry["result"] for entry in audit["entries"] if entry["deed"] == "open"]
    assert opened == ["ok", "ok"]  # to register, and to serve
    assert re.search(r"loaded hr-rules from sealed:hr-rules@v2", (tmp_path / "lora-serve.log").read_text())
