"""The accuracy bench, small: rows that an embedder has read are measured beside words and facts, on the same rows."""

from __future__ import annotations

import pytest

np = pytest.importorskip("numpy", reason="needs the `embeddings` extra")
pytest.importorskip("sklearn", reason="needs the `train` extra")

from bench import checks  # noqa: E402
from bench.checks_report import COSINE, MAX_COSINE, WORDS, WORDS_THERE, cosine_text  # noqa: E402
from guard.checks import training  # noqa: E402
from guard.checks.semantic import Semantic  # noqa: E402
from guard.checks.training_rows import Row, read_features  # noqa: E402
from rag.embedding import load_embedder  # noqa: E402


def rows() -> list[Row]:
    """Answers that repeat their context, and answers about something else."""
    found = []
    for i in range(120):
        context = f"Form {i} of the travel office is signed by the controller of building {i + 7} within {i + 2} days."
        invented = f"Cafeterias serve vegetarian soup number {i} to visitors on Friday."
        found += [Row("begin", f"g{i}", "en", "?", [context], a, a is invented) for a in (context, invented)]
    return found


def test_max_cosine_and_the_band_are_measured_on_the_rows_that_were_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_band", lambda rows, language: (0.0, 1.0))  # made-up answers leave no doubt
    monkeypatch.setattr(checks, "FOLDS", 2)
    made = rows()
    read_features(made)
    checks.assign_folds(made)
    embedder = load_embedder("static")
    assert embedder is not None
    checks.embed_rows(made[:200], Semantic(embedder))
    found = {q.detector: q for q in checks.measure(made, embedded=True)}
    assert {d: q.count for d, q in found.items()} == {WORDS: 240, WORDS_THERE: 200, MAX_COSINE: 200, COSINE: 200}
    assert found[MAX_COSINE].auroc > 0.9
    assert found[COSINE].auroc > 0.9
    said = cosine_text(list(found.values()))
    assert "| BEGIN, Wizard of Wikipedia | 200 (100) |" in said
    assert "not covered" not in said


def test_without_an_embedder_nothing_is_said_of_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "FOLDS", 2)
    made = rows()
    read_features(made)
    checks.assign_folds(made)
    found = checks.measure(made, embedded=False)
    assert [q.detector for q in found] == [WORDS]
    assert cosine_text(found).count("| BEGIN") == 0
