"""Which way a question goes: hand-computed examples of thresholds, plans, rules, checks and circuits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag.fixed_answers import FixedAnswer, FixedAnswers
from rag.quick_checks import doubt
from rag.reachability import Circuit
from rag.routes_file import load_routes, read_thresholds
from rag.routing import LineSet, Models, Slot, Thresholds, is_confident, plan, signals
from rag.sensitivity import SensitiveRule
from rag.types import Hit
from slo.errors import ConfigError, DataError

ALL = Models(frozenset(Slot))
SURE = signals([0.62, 0.61, 0.57], confidence=0.9, trusted=True)
UNSURE = signals([0.30, 0.20], confidence=0.1, trusted=True)


@pytest.mark.parametrize(
    ("similarities", "expected"),
    [
        ([0.55, 0.0, 0.0], True),  # best on the line
        ([0.549, 0.0, 0.0], False),
        ([0.36, 0.35, 0.34], True),  # mean 0.35 on the line
        ([0.36, 0.35, 0.339], False),
        ([], False),
    ],
)
def test_the_line_of_the_practice(similarities: list[float], expected: bool) -> None:
    assert is_confident(signals(similarities, confidence=0.0, trusted=True), Thresholds())[0] is expected


def test_where_cosines_mean_nothing_the_confidence_of_retrieval_decides() -> None:
    chinese = signals([0.12, 0.08], confidence=0.81, trusted=False, lang="zh-TW")
    assert is_confident(chinese, Thresholds()) == (True, "confidence 0.81 >= 0.50")
    misled = signals([0.70, 0.65], confidence=0.2, trusted=False, lang="zh-TW")
    assert not is_confident(misled, Thresholds())[0]


def test_a_line_may_ask_for_more_documents_and_a_lead() -> None:
    assert is_confident(SURE, Thresholds(documents=4)) == (False, "3 documents < 4")
    assert is_confident(SURE, Thresholds(margin=0.05)) == (False, "margin 0.01 < 0.05")


def test_languages_have_lines_of_their_own() -> None:
    lines = LineSet(by_language={"zh-TW": Thresholds(confidence=0.7, by="confidence")})
    assert lines.of("zh-TW").confidence == 0.7
    assert lines.of("en") == Thresholds()


@pytest.mark.parametrize(
    ("seen", "sensitive", "reachable", "steps"),
    [
        (SURE, False, set(Slot), (Slot.RAG, Slot.STRONG, None)),
        (SURE, True, set(Slot), (None,)),
        (UNSURE, False, set(Slot), (Slot.CLOUD, Slot.LOCAL)),
        (UNSURE, False, {Slot.LOCAL}, (Slot.LOCAL,)),  # offline: nobody waits for the cloud
        (UNSURE, True, set(Slot), (Slot.LOCAL,)),
        (UNSURE, True, {Slot.CLOUD}, (Slot.LOCAL,)),  # nothing else may answer: tried all the same, never the cloud
        (SURE, False, set(), (None,)),
    ],
)
def test_plans(seen, sensitive: bool, reachable: set[Slot], steps: tuple[Slot | None, ...]) -> None:
    assert plan(seen, Thresholds(), ALL, sensitive=sensitive, reachable=reachable).steps == steps


def test_a_model_with_documents_on_premises_may_read_sensitive_questions() -> None:
    here = Models(frozenset({Slot.RAG, Slot.CLOUD}), frozenset({Slot.RAG}))
    assert plan(SURE, Thresholds(), here, sensitive=True).steps == (Slot.RAG, None)
    assert plan(UNSURE, Thresholds(), here, sensitive=True).steps == (None,)


RULES = FixedAnswers(
    [
        FixedAnswer("hours", "9 to 18.", phrasings=("When are you open?", "營業時間")),
        FixedAnswer("vpn", "Use the client.", all=("vpn",), any=("install", "set up", "安裝"), none=("remove",)),
    ]
)


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        ("when are you OPEN", "hours"),
        ("營業時間？", "hours"),
        ("How do I install the VPN?", "vpn"),
        ("如何安裝VPN？", "vpn"),
        ("How do I install and remove the VPN?", None),
        ("Which VPNs can I install?", None),  # whole words
        ("VPN?", None),
        ("When are you open on Sundays?", None),
        ("install the vpn " + "and then tell me something else about my contract " * 5, None),
    ],
)
def test_fixed_answers(question: str, topic: str | None) -> None:
    found = RULES.answer(question)
    assert (found.topic if found else None) == topic


LEAVE = ["Annual leave is 14 days a year. Unused days expire on 31 March."]


@pytest.mark.parametrize(
    ("answer", "finish_reason", "reason"),
    [
        ("You get 14 days of annual leave [1].", "stop", ""),
        ("1. Annual leave is 14 days.\n2. It expires on 31 March.", "stop", ""),
        ("You get 15 days of annual leave.", "stop", "number 15"),
        ("", "stop", "empty"),
        ("I do not know.", "stop", "does not know"),
        ("You get 14 days of annual leave and", "length", "cut off"),
        ("Annual leave is 14 days. " * 5, "stop", "repeats itself"),
        ("Bananas grow mostly where tropical plantation farmers cultivate hybrid varieties", "stop", "words are in"),
    ],
)
def test_quick_checks(answer: str, finish_reason: str, reason: str) -> None:
    found = doubt("How much leave do I get?", LEAVE, answer, finish_reason)
    assert reason in found
    assert bool(found) is bool(reason)


def test_quick_checks_read_chinese_and_full_width_numbers() -> None:
    rule = ["病假超過兩天須檢附證明；一年內合計不得超過 30 天。"]
    assert doubt("病假可以請幾天？", rule, "一年內不得超過３０天。") == ""
    assert "number 45" in doubt("病假可以請幾天？", rule, "一年內不得超過45天。")
    assert "another script" in doubt("病假可以請幾天？", rule, "At most 30.")
    assert "does not know" in doubt("病假可以請幾天？", rule, "很抱歉，無法回答這個問題。")


def test_a_circuit_opens_after_two_failures_and_waits_longer_each_time() -> None:
    circuit = Circuit(after_count=2, open_s=5.0, open_max_s=15.0)
    circuit.failed(0.0)
    assert circuit.allows(0.0)
    circuit.failed(1.0)
    assert not circuit.allows(5.9)
    assert circuit.allows(6.0)
    circuit.started(6.0)
    assert not circuit.allows(6.1)  # one tries, the others stay away
    circuit.failed(6.5)
    assert not circuit.allows(16.4)  # 5 s became 10 s
    assert circuit.allows(16.5)
    circuit.started(16.5)
    circuit.failed(16.5)
    assert circuit.allows(31.5)  # never more than 15 s
    circuit.succeeded()
    assert circuit.closed


def test_questions_under_way_when_a_circuit_opens_do_not_make_it_wait_longer() -> None:
    circuit = Circuit(after_count=2, open_s=5.0)
    for _ in range(8):
        circuit.failed(0.0)
    assert circuit.allows(5.0)
    assert circuit.opened_count == 1


def test_an_endpoint_that_names_its_time_is_left_alone_at_once() -> None:
    circuit = Circuit(open_s=5.0)
    circuit.failed(0.0, retry_after_s=20.0)
    assert not circuit.allows(19.9)
    assert circuit.allows(20.0)


def test_what_keeps_a_question_inside() -> None:
    rule = SensitiveRule(words=("salary", "薪資"), doc_ids=("hr-pay-*",))
    pay, other = Hit("hr-pay-3", "x", 0.5, 0.5), Hit("it-1", "x", 0.5, 0.5)
    assert rule.applies("What is my SALARY?", [other])
    assert rule.applies("我的薪資是多少？", [other])
    assert rule.applies("How much do I get?", [pay])
    assert rule.applies("Hello?", [other], "sensitive")
    assert rule.applies("Hello?", [other], "senstive")  # a typing error does not let go
    assert not rule.applies("Hello?", [other], "normal")
    assert SensitiveRule(always=True).applies("Hello?", [])
    piece = Hit("hr/pay#2", "x", 0.5, 0.5, parent="hr/pay")
    assert SensitiveRule(doc_ids=("hr/pay",)).applies("How much do I get?", [piece])  # cut when it was added


FILE = """\
models:
  rag: {base_url: "http://127.0.0.1:1/v1/", model: tiny, key_env: RAG_KEY}
  local: {base_url: "http://127.0.0.1:2/v1", model: lora}
thresholds_file: lines.json
sensitive: {words: [salary]}
answers:
  - {topic: hours, answer: "9 to 18.", phrasings: ["When are you open?"]}
"""


def test_a_route_file_is_read_with_its_thresholds_and_keys(tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text(FILE)
    lines = {
        "version": 1,
        "embedder": "mini",
        "languages": {"zh-TW": {"line": {"confidence": 0.6, "by": "confidence"}}},
    }
    (tmp_path / "lines.json").write_text(json.dumps(lines))
    routes = load_routes(tmp_path / "routes.yaml", {"RAG_KEY": "k"}.get)
    assert routes.models[Slot.RAG].base_url == "http://127.0.0.1:1/v1"
    assert routes.models[Slot.RAG].api_key == "k"
    assert routes.known == Models(frozenset({Slot.RAG, Slot.LOCAL}), frozenset({Slot.LOCAL}))
    assert routes.lines.of("zh-TW") == Thresholds(confidence=0.6, by="confidence")
    assert routes.lines.embedder == "mini"
    found = routes.rules.answer("when are you open")
    assert found is not None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("models: {stong: {base_url: 'http://a', model: m}}", "did you mean `strong`"),
        ("models: {strong: {base_url: 'http://a', model: m}}", "name `rag` too"),
        ("models: {cloud: {base_url: 'ftp://a', model: m}}", "write an address such as"),
        ("models: {cloud: {base_url: 'http://a', model: m, key_env: NO_KEY}}", "set that environment variable"),
        ("models: {local: {base_url: 'http://a', model: m, on_premises: false}}", "cannot be on_premises: false"),
        ("answers: [{topic: a, answer: b}]", "no question matches it"),
        ("answers: [{topic: a, answer: b, phrasings: ['???']}]", "holds no letter"),
        ("thresholds: {best: 2}", "less than or equal to 1"),
    ],
)
def test_mistakes_in_a_route_file_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "routes.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"routes\.yaml") as error:
        load_routes(tmp_path / "routes.yaml", {}.get)
    assert complaint in str(error.value)


def test_thresholds_that_are_missing_or_foreign_are_named(tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text("thresholds_file: lines.json")
    with pytest.raises(DataError, match="sft-guard route calibrate"):
        load_routes(tmp_path / "routes.yaml", {}.get)
    (tmp_path / "lines.json").write_text("[1]")
    with pytest.raises(DataError, match="not a thresholds file"):
        load_routes(tmp_path / "routes.yaml", {}.get)


@pytest.mark.parametrize("content", [b'{"version": 1, "languages": {"en": {"line": 5}}}', b'{"a": "\xff"}'])
def test_a_thresholds_file_of_another_kind_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(DataError, match=r"t\.json"):
        read_thresholds(tmp_path / "t.json")
