"""Training data and training of the cross-encoder, small: near misses, what is left out, one word that is learnt."""

from __future__ import annotations

import argparse
import importlib
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

np = pytest.importorskip("numpy", reason="needs the `embeddings` extra")
pytest.importorskip("sklearn", reason="needs the `train` extra")

from bench.crossencoder import pairs as made_pairs  # noqa: E402
from bench.crossencoder.edits import names_of, near_miss, shorter  # noqa: E402
from bench.crossencoder.pairs import CLAIM, EDIT, Pair, claim_of, encode, near_misses, speaking_of  # noqa: E402
from guard.checks.facts import statement  # noqa: E402

TEXT = (
    "Anna Berger signed 12 contracts in March 2019, before the merger with Holt. "
    "The office in Lyon is open for 8 hours a day, and the store (built in 1901) closes early."
)


@given(st.integers(0, 10_000))
def test_a_near_miss_changes_one_fact_and_keeps_the_rest(seed: int) -> None:
    sentence = TEXT.split(". ")[0] + "."
    found = near_miss(sentence, names_of(TEXT), random.Random(seed))
    assert found is not None
    kind, changed = found
    assert kind in {"number", "date", "unit", "negation", "opposite", "name"}
    before, after = sentence.split(), changed.split()
    assert 1 <= len(set(before) ^ set(after)) <= 4


def test_a_shorter_sentence_is_a_part_of_the_long_one() -> None:
    sentence = "The old store (built in 1901) closes early, and the office is open."
    found = {shorter(sentence, random.Random(seed)) for seed in range(8)}
    assert found == {"The old store closes early, and the office is open.", "The old store closes early"}


def test_a_sentence_without_facts_has_no_near_miss() -> None:
    assert near_miss("Welcome dear readers", (), random.Random(0)) is None


def test_the_sentences_that_speak_of_a_claim_are_taken_in_their_order_as_far_as_there_is_room() -> None:
    sentences = [
        statement(s) for s in ("Leave is 7 days.", "Parking costs 5 USD.", "Soup is served.", "Ask for leave.")
    ]
    assert (
        speaking_of(statement("Leave lasts 9 days."), sentences, [4, 4, 4, 4], 8) == "Leave is 7 days. Ask for leave."
    )


@pytest.mark.parametrize(
    ("question", "answer", "claim"),
    [
        ("Who ruled Normandy?", "Rollo", "Rollo ruled Normandy."),
        ("What is the limit?", "14 days", "the limit is 14 days."),
        ("When did it begin?", "In 1901", "When did it begin? In 1901."),
    ],
    ids=["who", "what-is", "when"],
)
def test_a_question_and_its_answer_become_a_claim(question: str, answer: str, claim: str) -> None:
    assert claim_of(question, answer) == claim


def small_pairs(count: int = 96) -> list[Pair]:
    """Claims of two sets; a claim with the word `zebra` is unsupported."""
    found = []
    for i in range(count):
        bad = bool(i // 12 % 2)
        name, origin = ("begin", CLAIM) if i % 3 else ("factscore", CLAIM if i % 2 else EDIT)
        claim = f"w{i % 7} zebra" if bad else f"w{i % 7} horse"
        found.append(Pair(name, f"g{i % 12}", origin, i if origin == CLAIM else -1, 0, claim, "w1 w2 w3", bad))
    return found


def tokens_of(text: str) -> list[int]:
    return [{"zebra": 103, "horse": 104}.get(w, 105 + int(w[1:]) if w[0] == "w" else 0) for w in text.split()]


def small_weights(dim: int = 24, inner: int = 48, words: int = 120) -> dict[str, Any]:
    """A BERT of one layer with random weights."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {
        "words": rng.integers(-127, 127, (words, dim)).astype(np.int8),
        "words_scale": np.full((words, 1), 0.01, dtype=np.float32),
        "embeddings.position_embeddings.weight": rng.normal(0, 0.02, (64, dim)),
        "embeddings.token_type_embeddings.weight": rng.normal(0, 0.02, (2, dim)),
        "embeddings.LayerNorm.weight": np.ones(dim), "embeddings.LayerNorm.bias": np.zeros(dim),
    }  # fmt: skip
    at = "encoder.layer.0."
    shapes = {"intermediate.dense": (inner, dim), "output.dense": (dim, inner), "attention.output.dense": (dim, dim)}
    shapes |= {f"attention.self.{part}": (dim, dim) for part in ("query", "key", "value")}
    for name, shape in shapes.items():
        found[f"{at}{name}.weight"] = rng.normal(0, 0.1, shape)
        found[f"{at}{name}.bias"] = np.zeros(shape[0])
    for name in ("attention.output", "output"):
        found[f"{at}{name}.LayerNorm.weight"], found[f"{at}{name}.LayerNorm.bias"] = np.ones(dim), np.zeros(dim)
    return found


@pytest.fixture
def small(tmp_path: Path) -> argparse.Namespace:
    pytest.importorskip("torch", reason="needs the `embeddings` extra with torch")
    np.savez(tmp_path / "pairs.npz", **encode(small_pairs(), tokens_of))
    np.savez(tmp_path / "minilm.npz", **small_weights())
    return argparse.Namespace(
        data=tmp_path / "pairs.npz", weights=tmp_path / "minilm.npz", out=tmp_path, epochs=30, batch=16, rate=5e-3,
        seed=0, threads=1, tiny=0, cpu=True, keep=True, job_seconds=300.0,
    )  # fmt: skip


def test_a_set_that_is_left_out_teaches_nothing_and_is_scored(small: argparse.Namespace) -> None:
    train = importlib.import_module("bench.crossencoder.train")
    data = train.Data(small.data)
    learnt, scored = train.split(data, "out:factscore")
    factscore = train.SETS.index("factscore")
    assert set(data.set[learnt].tolist()) == {train.SETS.index("begin")}
    assert set(data.set[scored].tolist()) == {factscore}
    assert set(data.origin[scored].tolist()) == {CLAIM}
    learnt, scored = train.split(data, "fold:1")
    assert 1 not in data.fold[learnt]
    assert set(data.fold[scored].tolist()) == {1}
    assert EDIT not in data.origin[train.split(data, "final+real")[0]]
    assert train.SETS == made_pairs.SETS


def test_training_learns_a_word_writes_scores_and_weights(small: argparse.Namespace) -> None:
    train = importlib.import_module("bench.crossencoder.train")
    found = train.work("out:factscore", small)
    assert found["auroc_factscore"] > 0.95
    scores = np.load(small.out / "scores-out-factscore.npz")
    assert len(scores["pair"]) == len(scores["logit"]) > 10
    train.work("final", small)
    parts = [np.load(small.out / f"final-{i}.npz") for i in (0, 1)]
    names = {n for part in parts for n in part.files}
    assert {"head.weight", "layers.0.qkv.weight", "positions"} <= names
    assert "words" not in names


def test_area_under_the_curve_by_hand() -> None:
    train = importlib.import_module("bench.crossencoder.train")
    # of 2 x 2 pairs: 0.9 beats both, 0.5 ties with one and beats the other
    assert train.auroc(np.array([1, 1, 0, 0]), np.array([0.9, 0.5, 0.5, 0.1])) == 0.875


def test_our_own_near_misses_become_pairs_of_both_labels() -> None:
    found = list(near_misses(lambda text: len(text.split())))
    assert len(found) == 200
    assert sum(pair.bad for pair in found) == 100
