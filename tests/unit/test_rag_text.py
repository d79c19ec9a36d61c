"""Sentences, tokens, chunks and BM25: what exactly comes out."""

from __future__ import annotations

import pytest

from rag.chunking import Chunking, chunk, parse_chunking
from rag.text import (
    count_tokens,
    fold_width,
    language,
    near_hash,
    normalise_space,
    search_tokens,
    sentences,
    text_hash,
    tokens,
)
from rag.wordsearch import coverage_ratio
from slo.errors import ConfigError
from tests.kb_kit import words_over

COMMA, STOP, ASK, OPEN, CLOSE = "\uff0c", "\u3002", "\uff1f", "\u300c", "\u300d"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It costs 3.5 USD. Pay by card.", ["It costs 3.5 USD.", "Pay by card."]),
        ("Use v1.2.1. Then restart.", ["Use v1.2.1.", "Then restart."]),
        ("See https://a.example/b.c?d=1. Then ask.", ["See https://a.example/b.c?d=1.", "Then ask."]),
        ("Write to it@a.example. Wait.", ["Write to it@a.example.", "Wait."]),
        ("Bring proof, e.g. a receipt. Sign it.", ["Bring proof, e.g. a receipt.", "Sign it."]),
        ("Ask Dr. Lee or J. Wu. They know.", ["Ask Dr. Lee or J. Wu.", "They know."]),
        ("Open until 5 p.m. The desk closes then.", ["Open until 5 p.m.", "The desk closes then."]),
        ("Closed at 5 p.m. today.", ["Closed at 5 p.m. today."]),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("1. Open the form. 2. Sign it.", ["1. Open the form.", "2. Sign it."]),
        ("Steps:\n- open it\n- close it", ["Steps:", "- open it", "- close it"]),
        ("hard wrapped\nline. Next", ["hard wrapped\nline.", "Next"]),
        ("Title\n\nText here.", ["Title", "Text here."]),
        ("Wait... what? Yes.", ["Wait... what?", "Yes."]),
        ("", []),
        ("  \n ", []),
        (
            f"\u8acb\u5047\u898f\u5b9a{STOP}\u75c5\u5047\u5462{ASK}",
            [f"\u8acb\u5047\u898f\u5b9a{STOP}", f"\u75c5\u5047\u5462{ASK}"],
        ),
        (
            f"{OPEN}\u53ef\u4ee5{STOP}{CLOSE}\u4ed6\u8aaa{STOP}",
            [f"{OPEN}\u53ef\u4ee5{STOP}{CLOSE}", f"\u4ed6\u8aaa{STOP}"],
        ),
        ("\u53ef\u4ee5\u55ce?\u8acb\u554f", ["\u53ef\u4ee5\u55ce?", "\u8acb\u554f"]),
        ("\u9577\u5ea6 3.5 \u516c\u5206", ["\u9577\u5ea6 3.5 \u516c\u5206"]),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_chinese_becomes_bigrams_and_words_stay_whole() -> None:
    assert tokens("VPN\u9023\u7dda\u898f\u5b9a 3.5 HR-204") == [
        "vpn", "\u9023\u7dda", "\u7dda\u898f", "\u898f\u5b9a", "3.5", "hr-204",
    ]  # fmt: skip


def test_full_width_and_half_width_give_the_same_tokens_and_the_same_near_hash() -> None:
    full, half = f"\uff36\uff30\uff2e \uff11\uff14 \u5929{COMMA}\u53ef\u4ee5", "VPN 14 \u5929, \u53ef\u4ee5"
    assert tokens(full) == tokens(half)
    assert near_hash(full) == near_hash(half)
    assert text_hash(full) != text_hash(half)
    assert fold_width(ASK) == "?"


def test_the_text_hash_ignores_white_space_only() -> None:
    assert text_hash(" a\u3000b\n") == text_hash("a b") != text_hash("a  c")
    assert normalise_space("\ta \n\n b ") == "a b"
    # Computed independently: printf 'a b' | sha256sum
    assert text_hash("a  b") == "c8687a08aa5d6ed2044328fa6a697ab8e96dc34291e8c2034ae8c38e6fcc6d65"


def test_search_tokens_drop_question_words_and_keep_identifiers_whole_and_in_parts() -> None:
    assert search_tokens("How do I use form HR-204?") == ["use", "form", "hr-204", "hr", "204"]
    assert search_tokens("\u8acb\u554f\u5982\u4f55\u8acb\u5047") == ["\u554f\u5982", "\u4f55\u8acb", "\u8acb\u5047"]


def test_a_question_of_stop_words_alone_still_searches() -> None:
    assert search_tokens("what is it") == ["what", "is", "it"]


def test_language_follows_the_script() -> None:
    assert language("How many days?") == "en"
    assert language("VPN \u5bc6\u78bc\u91cd\u8a2d") == "zh-TW"
    assert language("") == "en"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, Chunking()),
        ("none", Chunking()),
        ("500/80", Chunking("tokens", 500, 80)),
        ("350", Chunking("tokens", 350, 0)),
        ("sentence", Chunking("sentences", 1)),
        ("sentences:3", Chunking("sentences", 3)),
    ],
)
def test_chunking_is_written_in_one_word(text: str | None, expected: Chunking) -> None:
    assert parse_chunking(text) == expected


@pytest.mark.parametrize("text", ["0", "80/80", "80/500", "sentence:0", "many", "-3", "500/"])
def test_a_chunking_that_cannot_advance_is_refused_with_the_cure(text: str) -> None:
    with pytest.raises(ConfigError, match="write none, SIZE/OVERLAP"):
        parse_chunking(text)


def test_token_chunks_overlap_by_as_many_tokens_as_asked() -> None:
    assert chunk("a b c d e f g", Chunking("tokens", 4, 2)) == ["a b c d", "c d e f", "e f g"]
    assert chunk("a b c", Chunking("tokens", 4, 2)) == ["a b c"]
    assert chunk("\u8acb\u5047\u898f\u5b9a", Chunking("tokens", 3, 1)) == ["\u8acb\u5047\u898f", "\u898f\u5b9a"]


def test_sentence_chunks_are_groups_of_whole_sentences() -> None:
    assert chunk("A b. C d. E f.", Chunking("sentences", 2)) == ["A b. C d.", "E f."]
    zh = f"\u7532{STOP}\u4e59{STOP}\u4e19{STOP}"
    assert chunk(zh, Chunking("sentences", 2)) == [f"\u7532{STOP}\u4e59{STOP}", f"\u4e19{STOP}"]


def test_count_tokens_counts_characters_words_and_marks() -> None:
    assert count_tokens(f"VPN \u9023\u7dda{COMMA}14 days.") == 7


@pytest.mark.parametrize("numpy", [False, True])
def test_bm25_agrees_with_the_formula_by_hand(numpy: bool) -> None:
    index = words_over([["vpn", "form"]], [["form", "form", "leave", "days"]], numpy=numpy)
    # idf(vpn) = ln(1 + 1.5/1.5) = 0.6931; norm = 0.9 (0.6 + 0.4 * 2/3) = 0.78; 0.6931 * 1.9 * 1 / 1.78
    assert index.scores(["vpn"]).top(3) == [(0, pytest.approx(0.73987, abs=1e-4))]
    # idf(form) = ln(1 + 0.5/2.5) = 0.1823; row 1: 0.1823 * 1.9 * 2 / (2 + 0.9 (0.6 + 0.4 * 4/3))
    assert index.scores(["form"]).get(1) == pytest.approx(0.22933, abs=1e-4)
    assert index.scores(["nothing"]).top(3) == []


def test_coverage_is_one_when_every_word_is_found_and_less_for_rare_missing_ones() -> None:
    index = words_over([["vpn", "form"], ["form", "leave"], ["form", "days"]])
    assert coverage_ratio(index, ["vpn", "form"], ["form", "vpn"]) == pytest.approx(1.0)
    assert coverage_ratio(index, ["vpn", "form"], ["form"]) < 0.2
    assert coverage_ratio(index, [], ["form"]) == 0.0
