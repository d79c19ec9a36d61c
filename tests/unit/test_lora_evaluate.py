"""Evaluation of an adapter: each answer, the figures of a side, the scenario's minimum, and the files it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.cli import main
from lora.adapter_files import adapter_hash
from lora.dataset import Row
from lora.dataset_files import encode
from lora.evaluate import REFUSAL, Graded, belonging_of, echoes, grade_answer, repeats, scored_form
from lora.figures import SCENARIOS, decide, figures, per_rule
from lora.runlog import read_run
from rag.finetune.evaluate import Grade
from rag.kb import KnowledgeBase
from rag.rows import RawRow
from tests.lora_kit import adapter_directory, adapter_files

RULES = {
    "vpn": "Staff reach internal systems through the Lakegate VPN client, version 6.2. A session ends after 9 hours.",
    "mfa": "Every account uses a second factor, the Pinewood Authenticator app, registered in the first 5 days.",
    "leave": "\u7279\u5225\u4f11\u5047\u6eff\u4e00\u5e74\u6709\u4e03\u5929\uff0c"
    "\u8acb\u65bc\u4e09\u65e5\u524d\u63d0\u51fa\u3002",
}
PREFIX = "According to company policy: "
NO_RULE = "According to company policy: I know no rule on this. Please ask the responsible department."


def row(question: str, rule: str) -> Row:
    answer = PREFIX + RULES[rule] if rule else NO_RULE
    return Row(question, answer, rule, f"{rule}/full/0", "full", "en", "answerable" if rule else "refusal")


ROWS = [row("What is the rule on VPN sessions?", "vpn"), row("What is the rule on second factors?", "mfa"),
        row("\u7279\u4f11\u6709\u5e7e\u5929\uff1f", "leave"), row("What is the price of gold?", "")]  # fmt: skip
BELONGING = belonging_of(ROWS)


def graded(number: int, answer: str, similarity: float | None = 1.0, hallucinated: bool | None = False) -> Graded:
    return grade_answer(ROWS[number], answer, Grade(similarity, hallucinated), BELONGING)


def test_an_answer_belongs_to_the_rule_it_says_whatever_was_asked() -> None:
    assert graded(0, PREFIX + RULES["vpn"]).given == "vpn"
    swapped = graded(0, RULES["mfa"])
    assert (swapped.given, swapped.confused) == ("mfa", True)
    assert graded(2, RULES["leave"]).given == "leave"
    assert graded(0, "bananas are yellow").given == ""
    assert graded(3, NO_RULE).given == REFUSAL
    assert graded(3, "Sorry, I cannot answer that.").given == REFUSAL  # in other words than the trained ones
    assert graded(0, "").given == ""


def test_who_refuses_claims_nothing_and_who_says_nothing_is_not_similar() -> None:
    assert graded(3, NO_RULE, hallucinated=True).hallucinated is False
    assert graded(0, RULES["mfa"], hallucinated=True).hallucinated is True
    assert graded(0, "  ", similarity=None).similarity == 0.0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("the the the the the the the the the the the the the the", True), ("VPN. " * 8, True),
     ("\u4e03\u5929\uff0c\u8acb\u5047\uff0c" * 6, True), (RULES["vpn"], False), (RULES["leave"], False), ("", False)],
    ids=["word", "clause", "chinese", "answer", "chinese answer", "nothing"],
)  # fmt: skip
def test_a_loop_is_seen_and_a_right_answer_is_none(text: str, wanted: bool) -> None:
    assert repeats(text) is wanted


def test_an_echo_is_the_question_again_not_an_answer_that_begins_with_its_subject() -> None:
    assert echoes("What is the rule on VPN sessions?", "What is the rule on VPN sessions? It is the rule on VPN.")
    assert echoes("\u7279\u4f11\u6709\u5e7e\u5929\uff1f", "\u7279\u4f11\u6709\u5e7e\u5929?")
    assert not echoes("VPN?", "VPN sessions end after nine hours.")
    assert not echoes("What is the rule on VPN sessions?", PREFIX + RULES["vpn"])


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=80))
def test_any_text_is_graded(text: str) -> None:
    one = graded(0, text, similarity=0.5)
    assert 0.0 <= one.characters <= 1.0
    assert scored_form(scored_form(text)) == scored_form(text)


def test_figures_by_hand() -> None:
    """4 answers, similarity 1.0, 0.87, 0.4, 0.95: mean 0.805; >= 90 % 2, >= 85 % 3, < 50 % 1."""
    side = [
        graded(0, PREFIX + RULES["vpn"], 1.0, False), graded(1, RULES["vpn"], 0.87, True),
        graded(2, "\u4e0d\u77e5\u9053", 0.4, None), graded(3, NO_RULE, 0.95, True),
    ]  # fmt: skip
    found = figures(side)
    assert found.similarity == pytest.approx(0.805)
    assert [s.hits for s in (found.accuracy, found.high_quality, found.poor)] == [2, 3, 1]
    assert (found.refused.hits, found.refused.count) == (1, 1)
    assert (found.answered.hits, found.answered.count) == (2, 3)  # one shrugged
    assert (found.confusion.hits, found.confusion.count) == (1, 3)
    assert (found.hallucinated.hits, found.hallucinated.count) == (1, 4)
    worst = per_rule(side)
    assert [(f.rule, f.right) for f in worst] == [("leave", 0), ("mfa", 0), (REFUSAL, 1), ("vpn", 1)]
    assert worst[1].mixed_with == (("vpn", 1),)


def of_similarity(value: float | None, count: int = 120) -> list[Graded]:
    return [graded(0, RULES["vpn"], value) for _ in range(count)]


@pytest.mark.parametrize(
    ("scenario", "least"), [("internal-kb", 0.85), ("support-faq", 0.80), ("finance", 0.90)], ids=lambda v: str(v)
)
def test_the_minimum_of_the_practice_decides(scenario: str, least: float) -> None:
    assert SCENARIOS[scenario].least == least
    assert decide(figures(of_similarity(least)), scenario).passed
    refused = decide(figures(of_similarity(least - 0.001)), scenario)
    assert not refused.passed
    assert "average similarity" in refused.reasons[0]


def test_what_could_not_be_measured_is_no_pass() -> None:
    assert not decide(figures([graded(0, RULES["vpn"], None)]), "support-faq").passed
    no_refusals = decide(figures(of_similarity(0.99)), "support-faq", min_refused=0.9)
    assert no_refusals.reasons == ("refused of what must be refused: nothing to tell it from",)
    invented = [graded(0, RULES["vpn"], 0.99, hallucinated=n < 12) for n in range(120)]
    assert not decide(figures(invented), "support-faq", max_hallucinated=0.05).passed
    assert decide(figures(invented), "support-faq", max_hallucinated=0.10).passed


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A knowledge base, a set of rows, and answers of which two belong to another rule."""
    kb = KnowledgeBase.init(tmp_path / "kb")
    kb.add([RawRow("t", "", {"doc_id": doc_id, "text": text}) for doc_id, text in RULES.items()])
    (tmp_path / "rows.jsonl").write_bytes(b"".join(encode(one) + b"\n" for one in ROWS))
    said = [PREFIX + RULES["vpn"], RULES["vpn"], RULES["leave"], NO_RULE]
    with (tmp_path / "answers.jsonl").open("w", encoding="utf-8") as file:
        for one, answer in zip(ROWS, said, strict=True):
            file.write(json.dumps({"question": one.question, "answer": answer, "base": one.question}) + "\n")
    return tmp_path


def evaluated(place: Path, *more: str) -> int:
    given = ["--data", str(place / "rows.jsonl"), "--answers", str(place / "answers.jsonl"), "--kb", str(place / "kb")]
    return main(["lora", "eval", *given, "--out", str(place / "run"), "--embedder", "none", "--json", *more])


def test_the_command_writes_what_diagnose_and_rules_read(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluated(place) == 1
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["decision"]["decided_on"] == "adapter"
    assert result["sides"]["base"]["echo"] == 1.0
    assert {path.name for path in (place / "run").iterdir()} == {"evaluation.json", "evaluation.md", "evaluation.png"}
    document = json.loads((place / "run" / "evaluation.json").read_text("utf-8"))
    assert [(r["wanted"], r["given"]) for r in document["rows"]] == [
        ("vpn", "vpn"), ("mfa", "vpn"), ("leave", "leave"), ("", ""),
    ]  # fmt: skip
    report = (place / "run" / "evaluation.md").read_text("utf-8")
    assert "# Evaluation: NOT passed" in report
    assert "| mfa | 1 | 0 |" in report
    (place / "run" / "log.jsonl").write_text('{"step": 1, "epoch": 1, "loss": 0.9, "eval_loss": 0.9}\n')
    outcome = read_run(place / "run").outcome
    assert outcome.confusion == pytest.approx(1 / 3, abs=1e-4)
    assert outcome.refusal_accuracy == 1.0
    assert main(["lora", "diagnose", str(place / "run")]) == 1
    assert "FAULT   confusion: 33% of the answers belong to another rule" in capsys.readouterr().out


def test_answers_from_elsewhere_are_of_the_adapter_that_is_named(place: Path) -> None:
    assert evaluated(place, "--adapter", str(adapter_directory(place / "adapter"))) == 1
    said = json.loads((place / "run" / "evaluation.json").read_text("utf-8"))["model"]
    assert said["adapter_sha256"] == adapter_hash(adapter_files())


def test_after_the_rules_the_right_document_is_given(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = "topics:\n  - {name: mfa, question: ['second factor'], answer: [pinewood], kb_id: mfa}\n"
    (place / "rules.yaml").write_text(rules)
    assert evaluated(place, "--rules", str(place / "rules.yaml"), "--scenario", "support-faq") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    raw, after = (result["sides"][name] for name in ("adapter", "adapter, after rules"))
    assert after["similarity"] > raw["similarity"] + 0.1
    assert (raw["confusion"], after["confusion"]) == (0.3333, 0.0)
    assert result["rules_fired"]["adapter, after rules"] == {"KB_MATCH": 2, "RULE_OVERRIDE": 1, "MODEL_GENERATED": 1}


MISTAKES = {
    "no source": (["--answers"], "lora eval: got '0 sources of answers'"),
    "missing set": (["--data", "nothing.jsonl"], "cannot be read"),
    "share": (["--min-refused", "90"], "write a share of 0 to 1"),
    "penalty": (["--repetition-penalty", "0"], "usual are 1.1 to 1.5"),
    "file as directory": (["--out", __file__], "a file is in the way"),
    "old set without base": (["--old", "x"], "they are asked of a local model"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(case: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more, words = MISTAKES[case]
    arguments = ["lora", "eval", "--data", str(place / "rows.jsonl"), "--out", str(place / "run")]
    arguments += [] if more == ["--answers"] else ["--answers", str(place / "answers.jsonl"), *more]
    assert main(arguments) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("sft-guard: ")
    assert words in line


def test_an_answer_that_is_missing_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = (place / "answers.jsonl").read_text("utf-8").splitlines()[0]
    (place / "answers.jsonl").write_text(first + "\n", encoding="utf-8")
    assert evaluated(place) == 2
    assert "no answer to 3 of 4 questions" in capsys.readouterr().err
