"""Key intents, questions asked again, thumbs, probes and drift in the whole program, through HTTP."""

from __future__ import annotations

import http.server
import json
import random
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_serve import CONFIG, Model, Sidecar, until

pytestmark = pytest.mark.slow

INTENTS = """\
intents:
  - name: leave
    examples: ["How many days of annual leave do I get?", "How much annual leave is there per year?",
               "\u7279\u4f11\u6709\u5e7e\u5929", "\u6211\u6709\u5e7e\u5929\u7279\u4f11\u5047"]
  - name: password
    minimum: 0.9
    examples: ["How do I reset my password?", "I forgot my password"]
"""
PROBES = """\
probes:
  - {question: "How many days of annual leave are there?", documents: ["1"], language: en,
     reference: "You get 14 days of annual leave."}
  - {question: "What is the travel allowance?", documents: ["7"], language: en}
"""
CHECKS = """
checks:
  embedder: static
  intents: intents.yaml
  drift: {window: 50, learn: 600}
  probes: {file: probes.yaml, route: chat, every: 10s, before_traffic: [v2]}
"""


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model) for _ in range(2)]
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    stable, canary = (s.server_address[1] for s in servers)
    config = CONFIG.format(stable=stable, canary=canary).replace("checks: {embedder: none}\n", CHECKS)
    (tmp_path / "guard.yaml").write_text(config)
    (tmp_path / "intents.yaml").write_text(INTENTS)
    (tmp_path / "probes.yaml").write_text(PROBES)
    (tmp_path / "slo.yaml").write_text("service: faq-bot\npreset: support-faq\n")
    made = Sidecar(tmp_path)
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop()
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(sidecar: Sidecar, question: str, session: str = "") -> str:
    headers = {"content-type": "application/json"} | ({"x-guard-session": session} if session else {})
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}]}
    request = urllib.request.Request(f"{sidecar.data}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        response.read()
        return str(response.headers["x-guard-exchange-id"])


def quality(sidecar: Sidecar) -> dict[str, Any]:
    return dict(json.loads(sidecar.get("/api/v1/quality")))


def test_intents_reopens_thumbs_and_probes(sidecar: Sidecar) -> None:
    first = ask(sidecar, "How many days of annual leave do I have?", "anna")
    ask(sidecar, "How many days of annual leave do I have per year?", "anna")  # asked again, in other words
    ask(sidecar, "How many days of annual leave do I have per year?", "bert")  # somebody else
    ask(sidecar, "\u6211\u6709\u5e7e\u5929\u7279\u4f11", "carla")
    ask(sidecar, "Where is the cafeteria on the ground floor?", "anna")
    feedback = {"exchange_id": first, "thumb": "down"}
    assert sidecar.post("/guard/v1/feedback", feedback, sidecar.data)[0] == 202
    until(lambda: any(u["asked_count"] == 5 for u in quality(sidecar)["users"]))
    (users,) = quality(sidecar)["users"]
    assert (users["asked_count"], users["reopened_count"], users["down_count"]) == (5, 1, 1)
    assert users["thumbs_up_ratio"] == 0.0
    intents = {row["intent"]: row for row in quality(sidecar)["intents"]}
    assert intents["leave"]["good_count"] + intents["leave"]["bad_count"] == 4
    assert intents["password"]["good_count"] + intents["password"]["bad_count"] == 0
    assert intents["password"]["minimum_ratio"] == 0.9
    assert intents["leave"]["state"] == "unknown"  # four answers are no quality
    assert sidecar.metric("sft_quality_reopens_total") == 1

    def measured() -> bool:
        return [p["similarity_count"] for p in quality(sidecar)["probes"]] == [1, 1]

    until(measured, 60)  # stable, and v2 before it has any traffic
    for probe in quality(sidecar)["probes"]:
        assert (probe["asked_count"], probe["recall_count"], probe["recall_ratio"]) == (2, 2, 0.5)
        assert probe["zero_hit_ratio"] == 0.0
        assert probe["similarity"] > 0.95
    assert 'sft_quality_probes_total{service="faq-bot"' in sidecar.get("/metrics")
    exchanges = json.loads(sidecar.get("/api/v1/exchanges?limit=100"))["exchanges"]
    assert len(exchanges) == 5  # probes are no user traffic


def test_a_wrong_intents_file_is_refused_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from guard.cli import main

    (tmp_path / "intents.yaml").write_text('intents:\n  - {name: leave, examples: ["How much leave?", " "]}\n')
    assert main(["check", str(tmp_path / "intents.yaml")]) == 2
    said = capsys.readouterr().out
    assert "intents.yaml: intents[0].examples" in said
    assert "example 1 is empty" in said


SUBJECTS = ("annual leave", "sick leave", "parental leave", "the travel allowance", "a hotel bill", "the badge",
            "the parking lot", "the pay slip", "overtime", "the bonus", "a training course", "remote work")  # fmt: skip
FORMS = ("how do I apply for {}", "who approves {}", "what is the deadline for {}", "where do I find the form for {}",
         "can I cancel {} later", "how many times a year can I use {}", "what documents are needed for {}")  # fmt: skip
ENDINGS = ("", "please", "today", "this month", "in the Taipei office", "as a new employee", "for my team")
STRANGE = (
    "which planet has the most moons",
    "how long do I boil an egg",
    "who won the football final in spring",
    "what rhymes with orange in a song",
    "how tall is the tallest giraffe",
    "when do tulips bloom in gardens",
)


def test_a_shift_of_the_questions_is_told_with_examples(sidecar: Sidecar) -> None:
    chance = random.Random(7)

    def usual() -> str:
        return f"{chance.choice(FORMS).format(chance.choice(SUBJECTS))} {chance.choice(ENDINGS)}"

    def all_ask(questions: list[str]) -> None:
        def some(part: list[str]) -> None:
            for question in part:
                ask(sidecar, question)

        threads = [threading.Thread(target=some, args=(questions[i::4],)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def query() -> dict[str, Any]:
        rows = json.loads(sidecar.get("/api/v1/drift"))["components"]
        return next((dict(r) for r in rows if r["component"] == "query" and "centroid" not in r["reason"]), {})

    all_ask([usual() for _ in range(620)])
    model = sidecar.directory / "state" / "drift-latin.npz"
    until(model.exists, 60)
    for _ in range(20):
        if query().get("state") == "alarm":
            break
        all_ask([STRANGE[i % len(STRANGE)] if i % 3 == 0 else usual() for i in range(30)])
        until(lambda: sidecar.metric("sft_guard_check_queue_length") == 0, 30)
    said = query()
    assert said["state"] == "alarm", said
    assert said["score"] > 3.0
    assert any(question in " ".join(said["clusters"]) for question in STRANGE)
    text = sidecar.get("/metrics")
    assert 'component="query"' in text
