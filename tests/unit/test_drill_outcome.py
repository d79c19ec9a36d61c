"""A rehearsal that did not pass is a negative result for whoever runs it by a timer."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from guard.admin.shapes import ReleaseCommand
from guard.backend import GuardBackend
from guard.cli import main
from guard.release.report import DrillResult
from tests.served_json import served_json

pytestmark = pytest.mark.anyio

WORDS = "a receiver did not take the webhook within 30 s; check its URL and secret"


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_of_a_drill_says_whether_it_passed(
    passed: bool, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with served_json({"message": WORDS, "incident_id": "inc-1", "mttr_s": None, "passed": passed}) as url:
        found = main(["release", "drill", "--admin", url, "--json"])
    assert found == code
    assert json.loads(capsys.readouterr().out)["passed"] is passed


async def test_the_guard_answers_with_the_outcome_of_a_drill() -> None:
    result = DrillResult("inc-1", False, None, 300.0, 0.01, 0.2, None, "local", (), WORDS)

    async def drill(**_: object) -> DrillResult:
        return result

    parts: Any = SimpleNamespace(controller=SimpleNamespace(drill=drill))
    backend = GuardBackend(parts)
    backend.release_status = lambda: "its status"  # type: ignore[assignment,method-assign,return-value]
    said = await backend.release_command("drill", ReleaseCommand(), "ann")
    assert (said.message, said.mttr_s, said.passed) == (WORDS, None, False)
