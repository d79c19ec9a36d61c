"""Rules behind the model, in the answer path: what goes out, to whom, and what a changed rule file does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from guard.cli import main
from guard.settings import load_settings
from lora.rule_file import RuleFile
from rag.answer_path import AnswerPath
from rag.kb import KnowledgeBase
from slo.errors import ConfigError
from tests.route_kit import ChatModel, models, routed

pytestmark = pytest.mark.anyio

VPN = "Staff reach internal systems through the Lakegate VPN client. A session ends after 9 hours."
PAY = "Salaries of the board are paid on the ninth of each month by the Heron office."
CARD = "A lost badge is reported to the front desk, which blocks it within 5 minutes."
RULES = """
topics:
  - {name: vpn, question: [vpn], answer: [lakegate], kb_id: it-vpn}
  - {name: board, question: [board], answer: [heron], kb_id: hr-board}
form: {en: "By our rules: {text}"}
"""


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    made = KnowledgeBase.init(tmp_path / "kb")
    made.add([{"doc_id": "it-vpn", "text": VPN}, {"doc_id": "it-card", "text": CARD},
              {"doc_id": "hr-board", "text": PAY, "acl": ["hr"]}])  # fmt: skip
    (tmp_path / "rules.yaml").write_text(RULES)
    return tmp_path / "kb"


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
async def base(
    kb: Path, tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[str, ChatModel]]:
    """An answer path whose local model answers every question, and that model. Changes are seen at once."""
    for follow in (AnswerPath.follow, AnswerPath.follow_rules):
        monkeypatch.setattr(follow, "__defaults__", (0.1,))
    model = ChatModel("lora", lambda text: "Ask your manager.")
    text = (
        "models: {local: {base_url: 'URL', model: lora}}\nthresholds: {by: confidence, confidence: 1.0}\nstream: live\n"
        "answers: [{topic: hours, answer: '9 to 18.', phrasings: ['When are you open?']}]\n"
    )
    async with models(model):
        rules = RuleFile(tmp_path / "rules.yaml", told.append)
        async with routed(kb, tmp_path / "routes.yaml", text.replace("URL", model.base_url), rules) as base:
            yield base, model


async def ask(base: str, question: str, *, stream: bool = False, roles: str = "") -> dict[str, Any]:
    """The body (of a stream its last chunk, with the joined text), and the headers of the rules."""
    body = {"model": "m", "messages": [{"role": "user", "content": question}], "stream": stream}
    headers = {"x-guard-roles": roles} if roles else {}
    async with aiohttp.ClientSession(headers=headers) as session:
        data = BytesIO(json.dumps(body).encode())
        async with session.post(f"{base}/v1/chat/completions", data=data) as response:
            raw = (await response.read()).decode()
            said = dict(response.headers)
    if not stream:
        found = json.loads(raw)
        text = found["choices"][0]["message"]["content"]
    else:
        chunks = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith("data: {")]
        text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
        found = next(c for c in chunks if "answer_source" in c)
    return {**found, "text": text, "header": said["x-answer-source"], "rules_header": said.get("x-answer-rules")}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_answer_says_where_it_is_from_and_why(base: tuple[str, ChatModel], stream: bool) -> None:
    url, model = base
    missed = await ask(url, "How long is a VPN session?", stream=stream)
    assert missed["text"] == f"By our rules: {VPN}"
    assert missed["answer_source"] == missed["header"] == "RULE_OVERRIDE"
    assert missed["rules"]["source"] == "LOCAL_LORA"
    assert missed["rules"]["detail"].startswith("topic vpn: 'vpn' in the question, the answer misses it")
    assert missed["rules_header"] == missed["rules"]["sha256"][:12]
    model.say = lambda text: CARD.replace("A lost badge", "The lost badge")
    near = await ask(url, "I lost my badge", stream=stream)
    assert (near["answer_source"], near["text"]) == ("KB_MATCH", f"By our rules: {CARD}")
    model.say = lambda text: "Nobody knows the colour of the bridge over the river."
    own = await ask(url, "What colour is the bridge?", stream=stream)
    assert (own["answer_source"], own["text"].strip()) == ("MODEL_GENERATED", model.say(""))


async def test_what_no_model_said_is_left_as_it_is(base: tuple[str, ChatModel]) -> None:
    fixed = await ask(base[0], "when are you open")
    assert (fixed["answer_source"], fixed["text"]) == ("RULE", "9 to 18.")
    assert "rules" not in fixed


async def test_a_text_is_given_only_to_who_may_see_its_document(base: tuple[str, ChatModel]) -> None:
    url, model = base
    question = "When is the board paid?"
    hidden = await ask(url, question)
    assert (hidden["answer_source"], hidden["text"]) == ("MODEL_GENERATED", "Ask your manager.")
    model.say = lambda text: PAY  # the model knows it by heart: it is not helped to say it
    assert (await ask(url, question))["answer_source"] == "MODEL_GENERATED"
    model.say = lambda text: "Ask your manager."
    seen = await ask(url, question, roles="hr")
    assert (seen["answer_source"], seen["text"]) == ("RULE_OVERRIDE", f"By our rules: {PAY}")
    assert seen["retrieval"]["contexts"][0]["acl"] == ["hr"]


async def test_the_given_document_is_among_the_contexts(base: tuple[str, ChatModel], kb: Path) -> None:
    """Held against the other documents alone, the answer would look made up."""
    KnowledgeBase.open(kb).add([{"doc_id": f"n-{n}", "text": f"vpn vpn session long note {n}"} for n in range(6)])
    url, _ = base
    for _ in range(100):
        if (await health(url))["doc_count"] == 9:
            break
        await asyncio.sleep(0.1)
    found = await ask(url, "How long is a vpn session?")
    assert found["answer_source"] == "RULE_OVERRIDE"
    contexts = [context["text"] for context in found["retrieval"]["contexts"]]
    assert (contexts[0], len(contexts)) == (VPN, 4)  # beside the three that retrieval found


async def health(url: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/healthz") as response:
        found: dict[str, Any] = await response.json()
        return found


async def until_sha(url: str, before: str) -> str:
    for _ in range(100):
        found = str((await health(url))["rules"]["sha256"])
        if found != before:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError("the rules were not taken over")


async def test_a_changed_file_is_taken_over_and_a_broken_one_refused(
    base: tuple[str, ChatModel], tmp_path: Path, told: list[str]
) -> None:
    url, _ = base
    before = (await health(url))["rules"]["sha256"]
    (tmp_path / "new").write_text(RULES.replace("By our rules", "Our rules say"))
    (tmp_path / "new").replace(tmp_path / "rules.yaml")
    after = await until_sha(url, before)
    assert (await ask(url, "vpn?"))["text"] == f"Our rules say: {VPN}"
    (tmp_path / "new").write_text("topics: [{name: a, question: ['x+'], answer: [y], kb_id: it-vpn}]")
    (tmp_path / "new").replace(tmp_path / "rules.yaml")
    for _ in range(100):
        if (await health(url))["rules"]["note"]:
            break
        await asyncio.sleep(0.1)
    found = (await health(url))["rules"]
    assert found["sha256"] == after
    assert "run without limit" in found["note"]
    assert (await ask(url, "vpn?"))["answer_source"] == "RULE_OVERRIDE"
    assert [line.split(",")[0] for line in told] == [
        "rules: rules.yaml taken over", "rules: change refused",
    ]  # fmt: skip
    assert all("\n" not in line for line in told)


async def test_a_topic_whose_document_was_removed_is_off(
    base: tuple[str, ChatModel], kb: Path, told: list[str]
) -> None:
    KnowledgeBase.open(kb).remove(["it-vpn"])
    for _ in range(100):
        if told:
            break
        await asyncio.sleep(0.1)
    assert told == ["rules: topic vpn is off, it-vpn is not in the knowledge base"]
    assert (await ask(base[0], "vpn?"))["answer_source"] == "MODEL_GENERATED"


def test_mistakes_at_the_start_are_one_line(kb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = tmp_path / "rules.yaml"
    serve = ["kb", "serve", "--kb", str(kb), "--port", "0", "--rules", str(rules)]
    assert main(serve) == 2
    assert "name a model with --model-url or --routes" in capsys.readouterr().err
    rules.write_text(RULES.replace("it-vpn", "nowhere"))
    assert main([*serve, "--model-url", "http://127.0.0.1:9/v1", "--model", "m"]) == 2
    assert "rules.yaml: topics[0].kb_id: got 'nowhere'" in capsys.readouterr().err


def test_the_hash_of_the_rules_is_part_of_the_release(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    text = (
        "service: bot\nroutes: [{name: chat, path: /v1/chat/completions, adapter: openai-chat}]\n"
        "versions: {v1: {upstreams: ['http://127.0.0.1:9'], policy: p, answer_rules: rules.yaml}}\n"
        "release: {stable: v1}\n"
    )
    (tmp_path / "guard.yaml").write_text(text)
    one = load_settings(tmp_path / "guard.yaml", {}).targets["v1"].version
    assert one.policy.startswith("p+rules-")
    (tmp_path / "rules.yaml").write_text(RULES + "kb_match: 0.9\n")
    two = load_settings(tmp_path / "guard.yaml", {}).targets["v1"].version
    assert one.release_id != two.release_id  # so no cached answer of before is reached any more
    (tmp_path / "rules.yaml").unlink()
    with pytest.raises(ConfigError, match=r"versions\.v1\.answer_rules"):
        load_settings(tmp_path / "guard.yaml", {})
