"""Grounding on the knowledge base that ships with the program: what it says itself passes, small changes do not."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

import rag.text
from guard.checks.calibration import load_calibration
from guard.checks.grounding import check_grounding
from guard.checks.semantic import Semantic
from guard.checks.spec import CheckSpec
from guard.checks.worker import load_semantic
from slo.types import CheckResult

PATH = Path(rag.text.__file__).parent / "demo_kb" / "kb.jsonl"
ROWS = [json.loads(line) for line in PATH.read_text(encoding="utf-8").splitlines()]
NUMBER = re.compile(r"(?<![\w.:-])\d+(?![\w.:-])")
UNITS = ((" days", " weeks"), (" hours", " days"), (" months", " years"), ("小時", "天"), ("天", "週"), ("NT$", "US$"))


def variants(lang: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """(kind, answer, contexts): every sentence as it is, with another number, with another unit."""
    dice = random.Random(7)
    rows = [row for row in ROWS if row["lang"] == lang]
    found = []
    for row in rows:
        contexts = (row["text"], *(other["text"] for other in dice.sample(rows, 2)))
        for sentence in rag.text.sentences(row["text"]):
            found.append(("true", sentence, contexts))
            if numbers := list(NUMBER.finditer(sentence)):
                chosen = dice.choice(numbers)
                other = str(int(chosen[0]) * 2 + 1)
                found.append(("number", sentence[: chosen.start()] + other + sentence[chosen.end() :], contexts))
            if unit := next(((a, b) for a, b in UNITS if re.search(r"\d *" + a, sentence)), None):
                found.append(
                    ("unit", re.sub(r"(\d *)" + re.escape(unit[0]), r"\1" + unit[1], sentence, count=1), contexts)
                )
    return found


@pytest.mark.parametrize("lang", ["en", "zh-TW"])
def test_true_sentences_pass_and_changed_numbers_and_units_fail(lang: str) -> None:
    calibration = load_calibration()
    seen: Counter[tuple[str, bool]] = Counter()
    for kind, answer, contexts in variants(lang):
        seen[kind, check_grounding("", answer, contexts, calibration).result is CheckResult.FAIL] += 1
    assert seen["true", False] > 250
    assert seen["true", True] == 0
    assert seen["number", True] >= 0.9 * (seen["number", True] + seen["number", False])
    assert seen["unit", True] >= 0.85 * (seen["unit", True] + seen["unit", False])


def test_the_default_embedder_serves_english_by_words_pieces_and_chinese_by_characters() -> None:
    line, semantic = load_semantic(CheckSpec())
    assert isinstance(semantic, Semantic)
    assert "static-all-MiniLM-L6-v2" in line
    assert "hashed-tfidf-1024" in line
    english, chinese = (
        "How many days of leave do I get?",
        "\u8acb\u554f\u7279\u5225\u4f11\u5047\u6709\u5e7e\u5929\uff1f",
    )
    assert semantic.semantic_for(english).embedder.name == "static-all-MiniLM-L6-v2"
    assert semantic.semantic_for(chinese).embedder.name == "hashed-tfidf-1024"
    assert semantic.semantic_for(english, chinese).embedder.name == "hashed-tfidf-1024"  # both by what covers both
    assert semantic.best_cosine("annual leave days", ["holiday entitlement", "a red car"]) > 0.2
    assert semantic.best_cosine(chinese, ["\u7b2c\u4e00\u5e74\u7279\u5225\u4f11\u5047\u4e03\u5929"]) > 0.2
    assert semantic.every_answer
