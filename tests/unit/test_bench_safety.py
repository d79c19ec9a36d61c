"""The trainer of the injection models: its scores are the check's scores, and its parts are what the docs say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

np = pytest.importorskip("numpy", reason="training needs the `embeddings` extra")
pytest.importorskip("sklearn", reason="training needs the `embeddings` extra")

from bench.safety import sets, train  # noqa: E402
from bench.safety.grammar import PARTS, Grammar  # noqa: E402
from guard.safety.injection import context_scores, question_score  # noqa: E402

SLOT = re.compile(r"(?<!\{)\{([A-Za-z][a-z0-9]*)\}")


def texts() -> list[sets.Text]:
    grammar = Grammar(3)
    families = ("override", "theft", "role", "marked")
    attacks = [sets.Text("own", grammar.attack(f, lang), True) for f in families for lang in PARTS for _ in range(25)]
    kinds = ("trigger", "plain")
    return attacks + [
        sets.Text("own", grammar.harmless(k, lang), False) for k in kinds for lang in PARTS for _ in range(50)
    ]


def test_the_trainer_scores_what_the_check_scores() -> None:
    rows = texts()
    table = train.question_table(rows)
    model = train.fit(table, np.ones(len(rows), bool))
    by_matrix = train.scores(table, model)
    by_check = [question_score(row.text, model) for row in rows]
    assert np.allclose(by_matrix, by_check, atol=1e-9)
    attack = np.array([row.attack for row in rows])
    assert by_matrix[attack].mean() > by_matrix[~attack].mean() + 0.5


def test_the_same_holds_for_pages() -> None:
    grammar = Grammar(4)
    pages = []
    for number in range(60):
        lang = "zh" if number % 3 == 0 else "en"
        text, attack = grammar.document(lang), grammar.attack("plant", lang)
        pages += [
            sets.Page("own", text, "q"),
            sets.Page("own", sets.planted(text, attack, sets.PLACES[number % 3]), "q", attack, category="own"),
        ]
    table = train.page_table(pages)
    model = train.fit(table, np.ones(len(pages), bool))
    by_matrix = train.scores(table, model)
    by_check = [max((s for s, _ in context_scores(p.text, p.question, model)), default=0.0) for p in pages]
    assert np.allclose(by_matrix, by_check, atol=1e-9)


def test_a_threshold_lets_through_what_it_says() -> None:
    scores = np.arange(1000) / 1000
    assert 0.009 <= (scores >= train.threshold_over([scores], 0.01)).mean() <= 0.01
    # two kinds of text of different size weigh the same: half a percent of each
    many, few = np.arange(1000) / 1000, np.arange(100) / 1000
    assert 0.98 < train.threshold_over([many, few], 0.01) <= 0.99


def test_texts_are_the_same_for_a_seed_and_leave_no_slot_open() -> None:
    first, second = Grammar(7), Grammar(7)
    for lang, parts in PARTS.items():
        for family in parts["attack"]:
            made = [first.attack(family, lang) for _ in range(40)]
            assert made == [second.attack(family, lang) for _ in range(40)]
            assert not [m for m in made if SLOT.search(m) and "collect.example" not in m]
    assert first.thread(["title"]) == second.thread(["title"])
    assert Grammar(8).document("en") != Grammar(9).document("en")


def test_own_chinese_pairs_are_not_among_the_training_texts() -> None:
    path = Path(__file__).parents[1] / "data" / "safety_zh.jsonl"
    own = {json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()}
    assert len(own) == 74
    known = {text for parts in PARTS.values() for kind in parts.values() for texts_ in kind.values() for text in texts_}
    assert not own & known
