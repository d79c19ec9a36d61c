"""The demo's articles and questions: complete, parallel in two languages, answerable, in proper punctuation."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from guard.demo import content
from guard.demo.content import articles, general_policies, holds_fact, holds_facts, questions
from guard.demo.reading import Reader
from slo.errors import DataError

ROOT = Path(__file__).parents[2]
FULL_WIDTH = {"comma": b"\xef\xbc\x8c", "stop": b"\xe3\x80\x82", "question": b"\xef\xbc\x9f"}
HALF_BESIDE_CJK = re.compile(
    "[\u4e00-\u9fff][,;:!?()]|[,;:!?()][\u4e00-\u9fff]|[\u4e00-\u9fff]\\.(?:$|[\u4e00-\u9fff])"
)
SIMPLIFIED = frozenset("们这为说请还没过问对时间动实会议经应开关发话网络软认频质")  # never written in Taiwan


def test_there_are_at_least_45_articles_in_each_language_with_the_same_topics():
    topics = {lang: {a.doc_id.rpartition("-")[0] for a in articles() if a.lang == lang} for lang in ("en", "zh-TW")}
    assert len(topics["en"]) >= 45
    assert topics["en"] == topics["zh-TW"]


def test_document_ids_and_question_ids_are_unique():
    for ids in (
        [a.doc_id for a in articles()],
        [q.question_id for q in questions()],
        [q.question for q in questions()],
    ):
        assert [name for name, count in Counter(ids).items() if count > 1] == []


@pytest.mark.parametrize("article", articles(), ids=lambda a: a.doc_id)
def test_an_article_is_short_and_full_of_facts(article):
    length = len(article.text.split()) if article.lang == "en" else len(article.text)
    low, high = (60, 160) if article.lang == "en" else (120, 300)
    assert low <= length <= high
    assert len(re.findall(r"\d+", article.text)) >= 4
    assert 2 <= len(article.title) <= 60


def test_chinese_uses_full_width_punctuation_in_the_bytes():
    raw = b"".join(
        line
        for name in ("rag/demo_kb/kb.jsonl", "rag/demo_kb/questions.jsonl", "guard/demo/general_policies.jsonl")
        for line in (ROOT / name).read_bytes().splitlines(keepends=True)
        if b'"zh-TW"' in line
    )
    for name, mark in FULL_WIDTH.items():
        assert raw.count(mark) >= 45, name


def test_chinese_has_no_half_width_punctuation_beside_its_characters_and_no_simplified_ones():
    texts = [a.title + "\n" + a.text for a in articles() if a.lang == "zh-TW"]
    texts += [q.question for q in questions() if q.lang == "zh-TW"]
    texts += [p.text for p in general_policies() if p.lang == "zh-TW"]
    assert [match[0] for text in texts for match in HALF_BESIDE_CJK.finditer(text)] == []
    assert {char for text in texts for char in text if char in SIMPLIFIED} == set()


def test_every_article_is_asked_about_in_four_styles():
    styles: dict[str, set[str]] = {}
    for question in questions():
        styles.setdefault(question.doc_id, set()).add(question.style)
    assert styles.pop("") == {"off_topic"}
    assert styles == {a.doc_id: {"short", "full", "formal", "colloquial"} for a in articles()}


def test_twenty_questions_of_each_language_are_off_topic_and_expect_no_fact():
    off_topic = [q for q in questions() if q.style == "off_topic"]
    assert Counter(q.lang for q in off_topic) == {"en": 20, "zh-TW": 20}
    assert all(not q.facts for q in off_topic)


def test_the_expected_facts_are_in_the_article_and_general_knowledge_says_something_else():
    by_id = {a.doc_id: a for a in articles()}
    for question in questions():
        if not question.facts:
            continue
        assert question.lang == by_id[question.doc_id].lang
        assert holds_facts(by_id[question.doc_id].text, question.facts), question.question_id
        topic = question.doc_id.rpartition("-")[0]
        remembered = [p.text for p in general_policies() if p.topic == topic and p.lang == question.lang]
        assert len(remembered) == 2
        assert not any(holds_facts(text, question.facts) for text in remembered), question.question_id


def test_nine_in_ten_questions_can_be_answered_from_their_article_by_its_words():
    reader = Reader([p.text for p in general_policies()])
    by_id = {a.doc_id: a for a in articles()}
    asked = [q for q in questions() if q.facts]
    right = 0
    for question in asked:
        found = reader.best(question.question, [by_id[question.doc_id].text])
        right += found is not None and holds_facts(found.sentence, question.facts)
    assert right / len(asked) >= 0.9


def test_hosts_are_of_the_reserved_example_domain():
    texts = [a.text for a in articles()] + [p.text for p in general_policies()]
    hosts = {host for text in texts for host in re.findall(r"(?:https?://|@)([a-z0-9.-]+)", text)}
    assert hosts
    assert all(host.rstrip(".").endswith(".example") for host in hosts)


@pytest.mark.parametrize(
    ("text", "fact", "expected"),
    [
        ("It takes 24 hours.", "4 hours", False),
        ("It takes 4 hours.", "4 hours", True),
        ("It costs NT$1,200.", "NT$1,200", True),
        ("It costs 11,200 dollars.", "1,200", False),
        ("Version 6.25 or later", "6.2", False),
        ("Version 6.2, or later.", "6.2", True),
        ("Write to Desk@Northlake.example", "desk@northlake.example", True),
        ("最長９小時", "9 小時", True),
        ("最長19小時", "9 小時", False),
        ("折扣 18 %", "18%", False),
    ],
)
def test_a_fact_is_found_whatever_its_width_and_never_inside_a_larger_number(text, fact, expected):
    assert holds_fact(text, fact) is expected


def test_a_damaged_content_file_is_named_with_its_line(tmp_path, monkeypatch):
    (tmp_path / "kb.jsonl").write_text('{"doc_id": 1}\n')
    monkeypatch.setattr(content, "files", lambda package: tmp_path)
    with pytest.raises(DataError, match=r"kb\.jsonl:1: .*install the program again"):
        content._read("rag.demo_kb", "kb.jsonl", content.Article)
