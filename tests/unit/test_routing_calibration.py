"""The fitted line: hand-made questions whose right line is known, figures held out, and the commands around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.cli import main
from rag.calibrating import read_questions
from rag.calibration import FITS, Observed, calibrate, held_out
from rag.kb import KnowledgeBase
from rag.routes_file import read_thresholds
from rag.routing import is_confident, signals
from rag.rows import read_jsonl
from slo.errors import DataError

RULES = Path(__file__).parent.parent / "data" / "rag_rules_zh.jsonl"


def seen(best: float, confidence: float, answerable: bool, key: str, trusted: bool = True) -> Observed:
    return Observed(signals([best, best / 2], confidence=confidence, trusted=trusted), answerable, key)


def apart(count: int, trusted: bool = True) -> list[Observed]:
    """Answerable above 0.6 of confidence, others below 0.4; similarities say nothing."""
    rows = [seen(0.3, 0.6 + 0.3 * i / count, True, f"a{i}", trusted) for i in range(count)]
    return rows + [seen(0.3, 0.4 - 0.3 * i / count, False, f"b{i}", trusted) for i in range(count)]


def test_the_signal_that_tells_them_apart_is_found_and_its_cut_lies_between() -> None:
    found = calibrate(apart(40))
    assert found.method == "confidence"
    assert 0.4 < found.line.confidence < 0.6
    assert found.balanced_accuracy == 1.0
    assert (found.answered.hits, found.answered.count, found.kept_out.hits) == (40, 40, 40)
    assert found.low is not None
    assert found.high is not None
    assert 0.4 <= found.low <= found.line.confidence <= found.high <= 0.6
    assert dict(found.others)["similarity"] == pytest.approx(0.5, abs=0.1)


def test_a_cut_on_the_similarity_ignores_the_mean() -> None:
    rows = [seen(0.8 if i % 2 else 0.5, 0.5, bool(i % 2), f"q{i}") for i in range(80)]
    found = calibrate(rows)
    assert found.method == "similarity"
    assert found.line.best == 0.65
    assert found.line.mean == 1.0  # of 0.8 and 0.4 it would be 0.6, over the line of the practice


def test_similarities_of_an_embedder_that_is_blind_are_not_fitted() -> None:
    assert calibrate(apart(40, trusted=False)).others == ()


def test_too_few_questions_fit_nothing_and_say_so() -> None:
    found = calibrate(apart(19))
    assert (found.method, found.low) == ("practice", None)
    assert "at least 20 of each are needed" in found.note


@given(st.lists(st.tuples(st.integers(0, 100), st.booleans()), min_size=1, max_size=60))
def test_no_other_cut_beats_the_fitted_one_on_what_it_was_fitted_on(rows: list[tuple[int, bool]]) -> None:
    observed = [seen(0.5, percent / 100, right, str(i)) for i, (percent, right) in enumerate(rows)]

    def balanced(cut: float) -> float:
        sides: dict[bool, list[bool]] = {True: [], False: []}
        for one in observed:
            sides[one.answerable].append((one.signals.confidence >= cut) is one.answerable)
        return sum(sum(side) / len(side) for side in sides.values() if side)

    fitted = balanced(FITS["confidence"](observed).confidence)
    # A cut above everything (nobody is answered) is no line, so the cuts to compare with are those at a value.
    assert all(fitted >= balanced(one.signals.confidence) - 1e-9 for one in observed)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=5, max_size=40))
def test_a_held_out_line_has_not_seen_its_question(rows: list[tuple[float, bool]]) -> None:
    observed = [seen(0.5, confidence, right, f"key {i}") for i, (confidence, right) in enumerate(rows)]
    known: list[set[str]] = []

    def fit(some: Any) -> Any:
        known.append({one.key for one in some})
        return FITS["practice"](some)

    lines = held_out(observed, fit)
    assert len(lines) == len(observed)
    for one in observed:
        assert any(one.key not in keys for keys in known)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not JSON"),
        ('{"route": "kb"}', "no `question`"),
        ('{"question": "q"}', "who should answer"),
        ('{"question": "q", "route": "cloud"}', "who should answer"),
    ],
)
def test_mistakes_in_labelled_questions_are_named_with_their_line(tmp_path: Path, line: str, complaint: str) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "q", "answerable": true}\n' + line)
    with pytest.raises(DataError, match=r"q\.jsonl:2: ") as error:
        read_questions(tmp_path / "q.jsonl")
    assert complaint in str(error.value)


ROUTES = """\
models:
  cloud: {base_url: "http://127.0.0.1:1/v1", model: "ft:x", key_env: NOT_SET}
  local: {base_url: "http://127.0.0.1:2/v1", model: lora}
thresholds_file: lines.json
answers: [{topic: hours, answer: "9 to 18.", phrasings: ["When are you open?"]}]
"""


def test_calibrate_writes_what_the_route_file_reads_and_explain_shows_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kb = KnowledgeBase.init(tmp_path / "kb")
    kb.add(read_jsonl(RULES))
    rows = []
    for document in kb.documents:
        for cut in (8, 12):  # what a person copies from a rule
            rows.append({"question": f"{document.text[:cut]}\u55ce\uff1f", "route": "kb"})
    rows += [
        {"question": f"\u706b\u661f\u4e0a\u7b2c{n}\u96bb\u8c93\u53eb\u4ec0\u9ebc\uff1f", "route": "model"}
        for n in range(25)
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    at = ["--kb", str(tmp_path / "kb")]
    lines = tmp_path / "lines.json"
    code = main(["route", "calibrate", "--questions", str(tmp_path / "q.jsonl"), *at, "--out", str(lines), "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 0
    chinese = result["languages"]["zh-TW"]
    assert chinese["method"] == "confidence"
    assert chinese["balanced_accuracy"] > 0.9
    assert read_thresholds(lines).of("zh-TW").confidence == chinese["line"]["confidence"]
    assert chinese["answered"]["low"] < chinese["answered"]["ratio"] <= chinese["answered"]["high"]

    (tmp_path / "routes.yaml").write_text(ROUTES)
    explain = ["route", "explain", "--routes", str(tmp_path / "routes.yaml"), *at, "--json"]

    def steps(question: str, *more: str) -> list[str]:
        assert main([*explain, question, *more]) == 0
        answer = json.loads(capsys.readouterr().out.splitlines()[-1])
        return list(answer.get("steps", [answer["source"]]))

    assert steps("when are you OPEN") == ["RULE"]
    assert steps(kb.documents[2].text[:12]) == ["KB"]
    assert steps("\u706b\u661f\u4e0a\u7684\u8c93\uff1f") == ["CLOUD_FT", "LOCAL_LORA"]
    assert steps("\u706b\u661f\u4e0a\u7684\u8c93\uff1f", "--sensitive") == ["LOCAL_LORA"]


def test_lines_of_one_embedder_are_not_used_with_another() -> None:
    assert is_confident(signals([0.9], confidence=0.1, trusted=False), calibrate(apart(40)).line)[0] is False
