"""A transformer for claims in doubt: asked about these alone, within its share of the time, when calibrated."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from msgspec.structs import replace

from guard.checks import training
from guard.checks.calibration import Calibration, encode_calibration, load_calibration
from guard.checks.context import read_context
from guard.checks.facts import statement
from guard.checks.grounding import check_grounding, with_cosine
from guard.checks.in_doubt import SENTENCE_COUNT, InDoubt, compared
from guard.checks.opinions import Opinions
from guard.checks.semantic import Semantic
from guard.checks.spec import CheckSpec
from guard.checks.suite import CheckSuite
from guard.checks.tiers import deciding_tier
from guard.checks.training_cosine import fit_cosine
from guard.checks.training_rows import Row, read_features
from guard.checks.worker import load_transformer
from guard.cli import main
from guard.ports import ExchangeText
from slo.types import CheckResult, Finding
from tests.unit.exporters_helpers import ManualClock
from tests.unit.test_opinions import PLAIN, Slow, begin

CALIBRATION = load_calibration()
LEAVE = "Employees receive 7 days of paid leave after six months. Requests go to https://hr.example/leave."
DOUBT = "Staff enjoy paid leave after half a year."
CHINESE = "\u54e1\u5de5\u6709\u4e03\u5929\u7279\u5225\u4f11\u5047\u3002"


class Vector(list[float]):
    """A list that can be multiplied."""

    def __matmul__(self, other: Vector) -> float:
        return sum(a * b for a, b in zip(self, other, strict=True))


class WordEmbedder:
    """Embeds a text as which of three words it holds; covers ASCII only. clock: one text takes a second of it."""

    name, dim, fingerprint = "words", 3, "f00d"

    def __init__(self, clock: ManualClock) -> None:
        self.clock, self.text_count = clock, 0

    def embed(self, texts: list[str]) -> list[Vector]:
        self.text_count += len(texts)
        self.clock.advance(float(len(texts)))
        return [Vector([float(w in t.lower()) + 1e-6 for w in ("leave", "holiday", "soup")]) for t in texts]

    def covers(self, text: str) -> bool:
        return text.isascii()

    def unknown_token_ratio(self, text: str) -> float:
        return 0.0


def made(clock: ManualClock | None = None) -> tuple[InDoubt, WordEmbedder]:
    clock = clock or ManualClock()
    embedder = WordEmbedder(clock)
    return InDoubt(Semantic(embedder), clock), embedder  # type: ignore[arg-type]


def with_numbers(cosine: tuple[float, ...] = (0.0, 1.0, -2.0)) -> Calibration:
    english = replace(CALIBRATION.languages["en"], cosine=cosine, band=(0.05, 0.95))
    return replace(CALIBRATION, embedder="words@f00d", languages={**CALIBRATION.languages, "en": english})


def test_only_claims_in_doubt_are_asked_about_and_the_finding_says_who_had_a_say() -> None:
    transformer, embedder = made()
    sure = check_grounding(
        "",
        "Employees receive 7 days of paid leave after six months.",
        (LEAVE,),
        with_numbers(),
        transformer=transformer,
    )
    assert (embedder.text_count, sure.detector, deciding_tier(sure)) == (0, "lexical", "words")
    found = check_grounding("", DOUBT, (LEAVE,), with_numbers(), transformer=transformer)
    assert embedder.text_count == 3  # the claim and two sentences
    assert (found.detector, deciding_tier(found)) == ("lexical+words@f00d", "transformer")
    before = check_grounding("", DOUBT, (LEAVE,), with_numbers())
    assert (found.score or 0.0) > (before.score or 1.0)  # "leave" stands in both, and a high cosine speaks for a claim


def test_the_second_model_by_hand() -> None:
    language = with_numbers((0.5, 1.0, -2.0)).languages["en"]
    # logit(0.5) is 0, so 0.5 + 0 - 2 x 0.75 = -1
    assert with_cosine(0.5, 0.75, language) == pytest.approx(1 / (1 + math.e))


def test_a_script_that_it_does_not_cover_and_a_calibration_for_another_one_leave_it_out() -> None:
    transformer, embedder = made()
    chinese = replace(with_numbers(), languages=dict.fromkeys(("en", "zh"), with_numbers().languages["en"]))
    assert "does not cover" in check_grounding("", CHINESE, (CHINESE,), chinese, transformer=transformer).detector
    other = replace(with_numbers(), embedder="words@beef")
    assert "no calibration" in check_grounding("", DOUBT, (LEAVE,), other, transformer=transformer).detector
    assert embedder.text_count == 0


def test_it_cannot_overrule_a_contradiction() -> None:
    transformer, _ = made()
    said = check_grounding("", "Employees receive 9 days of paid leave.", (LEAVE,), with_numbers((-20.0, 0.0, -9.0)),
                           transformer=transformer)  # fmt: skip
    assert (said.result, deciding_tier(said)) == (CheckResult.FAIL, "rules")


def test_it_rests_three_quarters_of_the_time_and_while_answers_wait() -> None:
    clock = ManualClock()
    transformer, embedder = made(clock)
    assert transformer.best_cosines([("leave", ["leave", "soup"])]) == [pytest.approx(1.0, abs=1e-3)]
    assert embedder.text_count == 2  # 2 s of work: from 2 s on it rests 6 s
    clock.advance(5.9)
    assert transformer.best_cosines([("soup", ["rice"])]) is None
    assert transformer.best_cosines([("leave", ["leave", "soup"])]) is not None  # what it knows, it says
    clock.advance(0.1)
    transformer.behind = True
    assert transformer.best_cosines([("soup", ["rice"])]) is None
    transformer.behind = False
    assert transformer.best_cosines([("soup", ["rice"])]) is not None


def test_without_time_the_words_decide_and_the_finding_says_so() -> None:
    transformer, _ = made()
    transformer.behind = True
    found = check_grounding("", DOUBT, (LEAVE,), with_numbers(), transformer=transformer)
    assert found.score == check_grounding("", DOUBT, (LEAVE,), with_numbers()).score
    assert ("no time" in found.detector, deciding_tier(found)) == (True, "words")


def test_of_a_long_context_the_sentences_that_share_words_are_compared() -> None:
    text = " ".join(f"Line {i} is about nothing." for i in range(200)) + " Leave is granted."
    found = compared(statement("Leave was granted."), [read_context(text)])
    assert len(found) == SENTENCE_COUNT
    assert found[-1] == "Leave is granted."


def test_fitting_finds_that_a_low_cosine_speaks_against_a_claim_and_needs_enough_of_both() -> None:
    rows = [Row("s", f"g{i}", "en", "", [LEAVE], DOUBT, bool(i % 2)) for i in range(120)]
    read_features(rows[:1])
    for i, row in enumerate(rows):
        row.features, row.cosines = rows[0].features, [0.3 + 0.001 * i if row.unsupported else 0.7 - 0.001 * i]
    language = with_numbers().languages["en"]
    intercept, _, weight = fit_cosine(rows, "en", language)
    assert weight < -1
    assert intercept > 0
    assert fit_cosine(rows[:70], "en", language) == ()
    assert fit_cosine(rows, "zh", language) == ()


def test_trained_by_the_command_and_used_by_the_worker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn", reason="needs the `train` extra")
    monkeypatch.setattr(training, "_band", lambda rows, language: (0.0, 1.0))  # made-up answers leave no doubt
    data, out = tmp_path / "labelled.jsonl", tmp_path / "c.json"
    rows = []
    for i in range(60):
        context = f"Form {i} of the travel office is signed by the controller of building {i + 7} within {i + 2} days."
        rows.append({"question": "?", "contexts": [context], "answer": context, "hallucinated": False})
        rows.append({"question": "?", "contexts": [context], "hallucinated": True,
                     "answer": f"Cafeterias serve vegetarian soup number {i} to visitors on Friday."})  # fmt: skip
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    command = ["combiner", "train", "--data", str(data), "--out", str(out), "--json", "--transformer"]
    assert main([*command, "static"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["transformer"].startswith("static-all-MiniLM-L6-v2@")
    assert said["cosine"]["en"][2] < 0
    suite = CheckSuite(CheckSpec(embedder="none", transformer="static", calibration_path=str(out)))
    text = ExchangeText("?", "Visitors get soup on Friday.", ("Form 3 of the travel office is signed within 5 days.",))
    assert suite.ground(text, ()).detector == "lexical"
    assert load_transformer(suite, ManualClock()) == said["transformer"]
    assert deciding_tier(suite.ground(text, ())) == "transformer"
    assert main([*command, "no/such/model"]) == 2
    assert "no/such/model" in capsys.readouterr().err


def test_a_calibration_of_another_transformer_is_told_with_the_cure(caplog: pytest.LogCaptureFixture) -> None:
    suite = CheckSuite(CheckSpec(embedder="none", transformer="static"))
    said = load_transformer(suite, ManualClock())
    assert said.startswith("nobody (")
    assert "sft-guard combiner train --transformer static" in said
    assert suite.transformer is None


def test_a_transformer_that_spoils_the_golden_pairs_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    transformer, _ = made()
    numbers = with_numbers((9.0, 0.0, 0.0))
    always = replace(numbers.languages["en"], band=(0.0, 1.0))
    path.write_bytes(encode_calibration(replace(numbers, languages={**numbers.languages, "en": always})))
    suite = CheckSuite(CheckSpec(embedder="none", transformer="words", calibration_path=str(path)))
    with pytest.raises(Exception, match="golden answers judged wrongly"):
        suite.doubt_with(transformer)
    assert suite.transformer is None


@pytest.mark.parametrize(
    ("detector", "tier"),
    [
        ("lexical", "words"),
        ("lexical (no calibration for this language and embedder)", "words"),
        ("lexical+all-MiniLM-L6-v2@0f", "transformer"),
        ("lexical+all-MiniLM-L6-v2@0f+nli:my+model@1", "detector"),
        ("lexical+tokens:m@1+judge:a+b", "judge"),
        ("rules+lexical+judge:m", "rules"),
    ],
    ids=["words", "uncalibrated", "transformer", "detector", "judge", "rules"],
)
def test_the_dearest_tier_that_had_a_say(detector: str, tier: str) -> None:
    assert deciding_tier(Finding("grounding", CheckResult.PASS, 0.9, detector=detector)) == tier


def test_the_calibrated_band_reaches_the_slower_tiers() -> None:
    never, always = Slow(), Slow()
    for slow, band in ((never, (0.999, 1.0)), (always, (-0.1, 1.1))):
        assert begin(Opinions([slow], [None], {"en": band}), PLAIN) is None
    assert [slow.asked[0][1].unsure for slow in (never, always)] == [False, True]
    own = Slow()
    begin(Opinions([own], [(-0.1, 1.1)], {"en": (0.999, 1.0)}), PLAIN)
    assert own.asked[0][1].unsure  # what guard.yaml says goes before
