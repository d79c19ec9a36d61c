"""Extractive answers, refusals and prompts in both languages."""

from __future__ import annotations

import pytest

from rag.answer import KB, REFUSAL, build_prompt, extractive, read_prompt, refusal
from rag.types import Hit

VPN = Hit(
    "it-vpn",
    "The VPN client must be version 6.2 or later. A session ends after 9 hours. "
    "At most 2 devices per person may be connected at the same time. Ask for exceptions with form IT-14.",
    0.6,
    0.7,
)
WIFI = Hit("it-wifi", "Visitors use the guest network. A ticket is valid for 12 hours on up to 3 devices.", 0.3, 0.4)
SICK = Hit(
    "hr-sick",
    "\u75c5\u5047\u61c9\u65bc\u7576\u65e5\u4e0a\u5348\u5341\u9ede\u524d\u901a\u77e5\u4e3b\u7ba1\u3002"
    "\u75c5\u5047\u8d85\u904e\u5169\u5929\u9808\u6aa2\u9644\u8a3a\u65b7\u8b49\u660e\u3002"
    "\u4e00\u5e74\u5167\u5408\u8a08\u4e0d\u5f97\u8d85\u904e\u4e09\u5341\u5929\u3002",
    0.4,
    0.5,
)


def test_the_answer_is_the_sentence_that_fits_word_for_word() -> None:
    answer = extractive("How many devices may be connected to the VPN at the same time?", [VPN, WIFI])
    assert answer.text == "At most 2 devices per person may be connected at the same time."
    assert (answer.source, answer.confidence) == (KB, 1.0)


def test_chinese_is_answered_in_chinese_with_its_own_punctuation() -> None:
    answer = extractive("\u75c5\u5047\u8d85\u904e\u5e7e\u5929\u8981\u9644\u8a3a\u65b7\u8b49\u660e\uff1f", [SICK])
    assert "\u75c5\u5047\u8d85\u904e\u5169\u5929\u9808\u6aa2\u9644\u8a3a\u65b7\u8b49\u660e\u3002" in answer.text
    assert " " not in answer.text


def test_sentences_come_in_the_order_of_the_document() -> None:
    text = extractive("VPN client version, session hours and devices connected", [VPN]).text
    assert text.index("version 6.2") < text.index("9 hours") < text.index("2 devices")


def test_meaning_can_choose_the_sentence_where_no_word_is_shared() -> None:
    def cosines(question: str, texts: object) -> list[float]:
        assert isinstance(texts, list)
        return [0.9 if "9 hours" in text else 0.1 for text in texts]

    assert extractive("when am I kicked out", [VPN], similarity=cosines).text == "A session ends after 9 hours."


def test_an_answer_never_mixes_documents() -> None:
    text = extractive("devices hours ticket session network", [VPN, WIFI]).text
    assert ("9 hours" in text) != ("12 hours" in text)


@pytest.mark.parametrize(
    ("question", "opening"),
    [
        ("What is the boiling point of water?", "I am sorry, "),
        ("\u6c34\u7684\u6cb8\u9ede\u662f\u5e7e\u5ea6\uff1f", "\u5f88\u62b1\u6b49\uff0c"),
    ],
)
def test_low_confidence_is_a_polite_refusal_in_the_language_of_the_question(question: str, opening: str) -> None:
    answer = extractive(question, [VPN], confidence=0.2)
    assert (answer.source, answer.confidence) == (REFUSAL, 0.2)
    assert answer.text.startswith(opening)


def test_no_documents_and_empty_documents_are_refused_however_confident() -> None:
    assert extractive("anything", []).source == REFUSAL
    assert extractive("anything", [Hit("e", " \n", 0.9, 0.9)]).source == REFUSAL


def test_the_chinese_refusal_uses_full_width_punctuation_only() -> None:
    assert {"\uff0c", "\u3002"} <= set(refusal("zh-TW"))
    assert not set(refusal("zh-TW")) & set(",.?!:;")
    assert refusal("de") == refusal("en")


def test_a_prompt_numbers_its_contexts_and_ends_with_the_question() -> None:
    prompt = build_prompt("How long is a session?", [VPN, WIFI])
    assert [message["role"] for message in prompt.messages()] == ["system", "user"]
    assert "<<<CONTEXT 1 id=it-vpn>>>\nThe VPN client" in prompt.user
    assert prompt.user.endswith("\n\nQuestion: How long is a session?")
    contexts, question = read_prompt(prompt.user)
    assert contexts == [("it-vpn", VPN.text), ("it-wifi", WIFI.text)]
    assert question == "How long is a session?"


def test_a_chinese_question_gets_chinese_instructions() -> None:
    prompt = build_prompt("\u75c5\u5047\u898f\u5b9a\uff1f", [SICK])
    assert "\uff0c" in prompt.system
    assert prompt.user.endswith("\u554f\u984c\uff1a\u75c5\u5047\u898f\u5b9a\uff1f")
    assert read_prompt(prompt.user)[1] == "\u75c5\u5047\u898f\u5b9a\uff1f"
