"""Whether to fine-tune: retrieval first, then the musts of the checklist; unknown is asked for, never assumed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from guard.cli import main
from slo.economics.advice import Facts, Level, advise
from tests.served_json import served_json

READY = Facts(
    recall_ratio=0.78, quality_ratio=0.80, evaluation_rows=100, drill_mttr_s=300.0, lineage=True, privacy_reviewed=True
)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "ready"),
        ({"recall_ratio": 0.85}, "no"),
        ({"quality_ratio": 0.85}, "no"),
        ({"recall_ratio": None}, "unknown"),
        ({"quality_ratio": None}, "unknown"),
        ({"evaluation_rows": 99}, "not_ready"),
        ({"drill_mttr_s": 300.1}, "not_ready"),
        ({"lineage": False}, "not_ready"),
        ({"privacy_reviewed": None}, "not_ready"),
        ({"fte": 0.1}, "ready"),  # a should, not a must
    ],
)
def test_the_decision(change: dict[str, object], expected: str) -> None:
    assert advise(dataclasses.replace(READY, **change)).fine_tune == expected  # type: ignore[arg-type]


def test_nothing_known_is_nothing_claimed() -> None:
    advice = advise(Facts())
    assert advice.fine_tune == "unknown"
    assert "--recall and --quality" in advice.reason
    assert all(item.met is None for item in advice.checklist)
    assert [item.level for item in advice.checklist].count(Level.MUST) == 4


def test_the_command_fills_in_what_the_configuration_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--dir", str(tmp_path)]) == 0
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"q": 1}\n' * 120)
    capsys.readouterr()
    rc = main(
        ["cost", "advise", "--json", "-c", str(tmp_path / "guard.yaml"), "--admin", "http://127.0.0.1:9",
         "--recall", "78%", "--quality", "0.8", "--evaluation-set", str(questions), "--privacy-reviewed"]
    )  # fmt: skip
    out, err = capsys.readouterr()
    result = json.loads(out.splitlines()[-1])
    met = {item["what"].split(",")[0].split(" of ")[0]: item["met"] for item in result["checklist"]}
    assert rc == 1
    assert result["fine_tune"] == "not_ready"
    assert result["open_musts"] == ["rollback within 5 minutes, rehearsed"]
    assert met["evaluation set"] is True
    assert met["hallucination"] is True
    assert "the last drill is not known" in err


@pytest.mark.parametrize(("last_mttr_s", "met"), [(12.5, True), (None, False)], ids=["passed", "did not pass"])
def test_only_a_rehearsal_that_passed_is_a_rehearsed_rollback(
    last_mttr_s: float | None, met: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A newer one that failed counted as passed, in the time it took to fail."""
    old = {"id": "inc-1", "kind": "drill", "opened_wall_s": 1000.0, "closed_wall_s": 1002.0, "mttr_s": 2.0}
    new = old | {"id": "inc-2", "opened_wall_s": 2000.0, "closed_wall_s": 2001.0, "mttr_s": last_mttr_s}

    with served_json({"incidents": [new, old]}) as url:
        main(["cost", "advise", "--json", "--admin", url])
    out, err = capsys.readouterr()
    open_musts = json.loads(out.splitlines()[-1])["open_musts"]
    assert ("rollback within 5 minutes, rehearsed" not in open_musts) == met
    assert ("(inc-2) did not pass" in err) != met
