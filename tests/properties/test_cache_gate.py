"""The near-miss gate: symmetric, never raises, refuses what differs and passes what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.cache.gate import MAX_CHARS, Script, reading, refusal, script_of
from guard.cache.gate_english import root, swapped
from guard.cache.gate_facts import Refusal

_ENGLISH = (
    "how do i reset my password the card not 7 14 days before after who when from Boston to Denver export gmail docs",
    "delete remove two new please is it possible more less than on off never HR-204 v1.2",
)
_CHINESE = ("請問", "如何", "怎麼", "重設", "密碼", "不", "可以", "7天", "14天", "嗎", "之前", "之後", "台灣", "日本")
WORDS = [*" ".join(_ENGLISH).split(), *_CHINESE]
QUESTIONS = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join) | st.text(max_size=60)


@given(QUESTIONS, QUESTIONS)
def test_it_is_the_same_whichever_comes_first(one, other):
    assert refusal(one, other) == refusal(other, one)


@given(QUESTIONS)
def test_a_question_is_its_own_neighbour_as_far_as_it_can_be_read(text):
    assert refusal(text, text) in (None, Refusal.LANGUAGE, Refusal.WORDS)
    if refusal(text, text) is None:
        assert refusal(text, f"  {text} ") is None


@given(QUESTIONS, st.integers(2, 9000), st.integers(2, 9000))
def test_another_number_is_another_question(text, one, other):
    a, b = f"{text} limit {one} USD", f"{text} limit {other} USD"
    if one != other:
        assert refusal(a, b) is not None


SAME = [
    ("How do I export my Google chat logs?", "Exporting google chat logs."),
    ("How can I delete all my mail in Gmail?", "I'd like to remove all my emails from gmail, how can I do this?"),
    ("What is the limit of 14 days for?", "what is the limit of two weeks for"),
    ("How many days of leave do I get?", "how many leave days do I get"),
    ("In Gmail, how do I forward several emails?", "How to forward multiple mails in gmail"),
    ("請問如何重設 VPN 密碼?", "怎麼重設VPN密碼呢\uff1f"),
    ("特休假有多少天?", "我想問特休假有多少天"),
]
OTHER = [
    ("Is the limit 14 days?", "Is the limit 7 days?", "number"),
    ("Is the limit 14 days?", "Is the limit 14 hours?", "number"),
    ("What changed in v1.2.1?", "What changed in v1.2.0?", "identifier"),
    ("Who founded Paris in France?", "When was Paris in France founded?", "asked_for"),
    ("Is split tunnelling allowed?", "Is split tunnelling not allowed?", "negation"),
    ("Can I apply before the meeting?", "Can I apply after the meeting?", "opposite"),
    ("What does it cost per month?", "What does it cost per year?", "period"),
    ("What is your name?", "What is my name?", "person"),
    ("When do trains run from Boston to Denver?", "When do trains run from Denver to Boston?", "order"),
    ("How many days may the mayor overrule the council's veto?",
     "How many days may the council overrule the mayor's veto?", "order"),
    ("Who was defeated by Montcalm at Quebec?", "Who defeated Montcalm at Quebec?", "order"),
    ("How do I cancel my order of shoes?", "How do I change my order of shoes?", "words"),
    ("What were the native inhabitants called?", "What were the non-native inhabitants called?", "negation"),
    ("Was heisst das Formular?", "Was heisst dieses Formular?", "language"),
    ("Как сбросить?", "Как сбросить это?", "language"),
    ("特休可以請7天嗎?", "特休可以請14天嗎?", "number"),
    ("天數上限是多少?", "天數下限是多少?", "words"),
    ("試用期可以請假嗎?", "試用期不可以請假嗎?", "negation"),
    ("從台北到新竹怎麼去?", "從新竹到台北怎麼去?", "order"),
    ("How do I reset it?", "如何重設?", "language"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_other_words_for_the_same_question_pass(one, other):
    assert refusal(one, other) is None


@pytest.mark.parametrize(("one", "other", "reason"), OTHER)
def test_a_near_miss_is_refused_and_says_why(one, other, reason):
    assert refusal(one, other) == Refusal(reason)


def test_a_long_message_is_left_to_the_exact_cache():
    assert refusal("a" * (MAX_CHARS + 1), "a" * (MAX_CHARS + 1)) is Refusal.LENGTH


def test_scripts_roots_and_permutations():
    assert script_of("naïve café") is Script.LATIN
    assert script_of("の方法") is Script.HAN
    assert refusal("の方法", "の方法") is Refusal.LANGUAGE  # Japanese: no words for it
    assert reading("Как").words is None
    assert {root(w) for w in ("subscribe", "subscribed", "subscribing")} == {"subscrib"}
    assert not swapped([0, 1, 2])
