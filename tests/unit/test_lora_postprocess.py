"""Rules behind the model: what is replaced, what is left, and what a person is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lora.postprocess import PostProcessor, RuleSet, load_rules
from lora.suggest import Judged, as_yaml, form_of, suggest
from rag.answer_rules import How
from slo.errors import ConfigError

LEAVE = "\u7279\u5225\u4f11\u5047\u6eff\u4e00\u5e74\u6709\u4e03\u5929\u3002"
DOCUMENTS = {
    "vpn": "Staff reach internal systems through the Lakegate VPN client, version 6.2. A session ends after 9 hours.",
    "mfa": "Every account uses a second factor, the Pinewood Authenticator app.",
    "leave": LEAVE,
}
RULES = """
topics:
  - {name: vpn, question: ["vpn", "remote acc.{1,4}"], unless: ["guest"], answer: ["lakegate"], kb_id: vpn}
  - {name: leave, kb_id: leave, question: ["\u7279\u4f11", "\u7279\u5225\u4f11\u5047"],
     answer: ["\u4e03\u5929", "7 ?\u5929"]}
"""


@pytest.fixture
def rules(tmp_path: Path) -> PostProcessor:
    (tmp_path / "rules.yaml").write_text(RULES, encoding="utf-8")
    return load_rules(tmp_path / "rules.yaml", DOCUMENTS)


def test_an_answer_that_misses_its_topic_is_replaced(rules: PostProcessor) -> None:
    found = rules.process(
        "How long does a \uff36\uff30\uff2e session last?", "Use the Pinewood app as a second factor."
    )
    assert (found.how, found.kb_id, found.text) == (How.RULE_OVERRIDE, "vpn", DOCUMENTS["vpn"])
    assert found.detail.startswith("topic vpn: 'vpn' in the question, the answer misses it (nearest to mfa, ")


@pytest.mark.parametrize(
    ("pattern", "question", "hit"),
    [
        (r"vpn\W{1,3}login", "VPN - login?", True),
        (r"vpn\W{1,3}login", "vpnaalogin?", False),
        (r"floor \D\d", "Floor B7", True),
        (r"floor \D\d", "Floor 77", False),
        ("VPN\uff1f", "How do I use the \uff36\uff30\uff2e\uff1f", True),
        ("VPN\uff1f", "A vp of sales", False),
        ("\uff08vpn\uff09", "Remote access (VPN)", True),
        ("\uff08vpn\uff09", "vpn", False),
        ("\uff36PN\\.", "vpn.", True),
        ("\uff36PN\\.", "vpns", False),
        ("\uff76\uff9e", "\u30ac", True),
        ("[\uff1f\uff01]", "?", True),
    ],
)
def test_a_pattern_means_what_it_says_whatever_its_width_and_case(
    tmp_path: Path, pattern: str, question: str, hit: bool
) -> None:
    topic = {"name": "vpn", "question": [pattern], "answer": ["nothing that it says"], "kb_id": "vpn"}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump({"topics": [topic]}, allow_unicode=True), encoding="utf-8")
    found = load_rules(tmp_path / "one.yaml", DOCUMENTS).process(question, "Ask somebody.")
    assert (found.how is How.RULE_OVERRIDE) is hit


def test_an_answer_that_meets_its_topic_is_left_alone(rules: PostProcessor) -> None:
    answer = "It ends after nine hours in Lakegate."
    assert rules.process("vpn session?", answer).text == answer
    assert rules.process("vpn session?", answer).how is How.MODEL_GENERATED


def test_the_document_itself_is_never_a_miss_whatever_the_patterns_say(tmp_path: Path) -> None:
    poor = "topics:\n  - {name: vpn, question: [vpn], answer: [nothing that it says], kb_id: vpn}\n"
    (tmp_path / "poor.yaml").write_text(poor)
    found = load_rules(tmp_path / "poor.yaml", DOCUMENTS).process("vpn?", DOCUMENTS["vpn"].replace("Staff", "You"))
    assert (found.how, found.kb_id) == (How.KB_MATCH, "vpn")


def test_suggested_words_are_told_apart_as_patterns_are_and_the_form_is_that_of_the_right_answers() -> None:
    texts = {"a": "All staff install it.", "b": "The hall is small.", "c": "Call them."}
    rows = [Judged(f"{word} {n}", kb_id, "c", f"By rule: {texts[kb_id]}") for n in range(2)
            for word, kb_id in (("setup", "a"), ("room", "b"))]  # fmt: skip
    found = {s.kb_id: s for s in suggest(rows, texts)}
    assert "all" not in found["a"].answer  # a pattern finds it in hall, small and call
    assert "install" in found["a"].answer or "instal" in found["a"].answer
    assert form_of(rows, texts) == {"en": "By rule: {text}"}
    assert yaml.safe_load(as_yaml(tuple(found.values()), form_of(rows, texts)))["form"] == {"en": "By rule: {text}"}


def test_a_topic_does_not_speak_where_it_is_told_not_to(rules: PostProcessor) -> None:
    assert rules.process("vpn for a guest?", "Ask the front desk.").how is How.MODEL_GENERATED


def test_an_answer_that_is_nearly_a_document_becomes_that_document(rules: PostProcessor) -> None:
    nearly = DOCUMENTS["mfa"].replace("Every account", "Each account")
    found = rules.process("second factor?", nearly)
    assert (found.how, found.kb_id, found.text) == (How.KB_MATCH, "mfa", DOCUMENTS["mfa"])
    assert 0.8 <= found.similarity < 1.0


def test_traditional_chinese_and_width(rules: PostProcessor) -> None:
    question = "\u7279\u4f11\u6709\u5e7e\u5929\uff1f"
    assert rules.process(question, "\u8acb\u554f\u4eba\u8cc7\u3002").text == LEAVE
    assert rules.process(question, "\u6709\uff17 \u5929\u3002").how is How.MODEL_GENERATED


@settings(deadline=None)
@given(question=st.text(max_size=200), answer=st.text(max_size=200))
def test_no_text_breaks_it_and_the_text_is_the_answer_or_a_document(question: str, answer: str) -> None:
    processor = PostProcessor(RuleSet(), DOCUMENTS)
    found = processor.process(question, answer)
    assert found.text == (answer if found.how is How.MODEL_GENERATED else DOCUMENTS[found.kb_id])
    assert 0.0 <= found.similarity <= 1.0


def test_without_documents_the_answer_is_left() -> None:
    assert PostProcessor(RuleSet(), {}).process("q", "a").how is How.MODEL_GENERATED


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("topics: [{name: a, question: ['x+'], answer: [y], kb_id: vpn}]", "run without limit"),
        ("topics: [{name: a, question: ['x{0,3}'], answer: [y], kb_id: vpn}]", "matches an empty text"),
        ("topics: [{name: a, question: [x], answer: [y], kb_id: nowhere}]", r"topics\[0\].kb_id: got 'nowhere'"),
        ("topics: [{name: a, question: [], answer: [y], kb_id: vpn}]", r"topics\[0\].question"),
        ("kb_match: 2", "kb_match"),
        ("topic: []", "unknown key; did you mean `topics`"),
    ],
    ids=["unbounded", "empty", "document", "none", "ratio", "key"],
)
def test_a_rule_file_with_a_mistake_says_where(tmp_path: Path, text: str, place: str) -> None:
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(ConfigError, match=place):
        load_rules(tmp_path / "rules.yaml", DOCUMENTS)


ROWS = [
    *(Judged(q, "mfa", "vpn") for q in ("lost my authenticator token", "new phone authenticator", "token code wrong")),
    *(Judged(q, "vpn", "vpn") for q in ("vpn session length", "remote session", "vpn version")),
    Judged("annual leave", "leave", "vpn"),
]


def test_suggestions_name_the_document_the_telling_words_and_what_it_was_mixed_up_with(tmp_path: Path) -> None:
    (found,) = suggest(ROWS, DOCUMENTS)
    assert (found.kb_id, found.mistakes, found.asked, found.mixed_with) == ("mfa", 3, 3, (("vpn", 3),))
    assert "authenticator" in found.question
    text = as_yaml([found])
    assert "3 of 3 questions were answered with: vpn 3x" in text
    (tmp_path / "rules.yaml").write_text(text, encoding="utf-8")
    rules = load_rules(tmp_path / "rules.yaml", DOCUMENTS)
    wrong = "Staff reach systems through a client."
    assert rules.process("my authenticator token is gone", wrong).kb_id == "mfa"
    assert rules.process("vpn session length", wrong).how is How.MODEL_GENERATED


def test_a_document_without_telling_words_gets_no_rule() -> None:
    same = {"a": "leave leave", "b": "leave leave"}
    assert suggest([Judged("leave", "a", "b"), Judged("leave", "a", "b"), Judged("leave", "b", "b")], same) == ()
    assert yaml.safe_load(as_yaml(())) == {"topics": []}
