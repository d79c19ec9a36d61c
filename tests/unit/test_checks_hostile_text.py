"""Texts made to keep a pattern busy. Each would take hours where work grows with the square of a run or faster."""

from __future__ import annotations

import pytest

from guard.checks.facts import statement
from guard.checks.judge_clean import REMOVED, cleaned_for_judge
from guard.checks.numbers import Quantity, quantities
from guard.checks.pii import check_pii_question, find_pii, redact
from guard.checks.rules import json_problem
from guard.safety.cues import CUES
from rag.quick_checks import doubt
from slo.types import CheckResult

LONG = 1_000_000
"""Characters of a run: its square is ten hours of work."""


@pytest.mark.parametrize(
    "filling", ["1", "1-", "1.", "(1", "1 1", "1)("], ids=["run", "dash", "dot", "open", "gap", "both"]
)
def test_digits_behind_a_word_for_telephone_are_no_work(filling: str) -> None:
    text = f"my phone is {filling * 5_000}a"
    assert [match.kind for match in find_pii(text)] == []
    assert check_pii_question(text).result is CheckResult.PASS


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("call 12345678", "call [phone]"),
        ("call (12) 345 6789", "call [phone]"),
        ("phone: 12 34 56 78 90", "phone: [phone]"),
        ("phone: 12 34 56 78 90x12", "phone: [phone]"),
        ("phone: 1234567/8", "phone: 1234567/8"),
        ("phone: 1 2", "phone: 1 2"),
    ],
    ids=["run", "parentheses", "groups", "extension", "no end", "short"],
)
def test_a_number_behind_a_word_for_telephone_is_found_whole(text: str, shown: str) -> None:
    assert redact(text)[0] == shown


@pytest.mark.parametrize(
    "begin",
    ["open at 9:30 ", "on may 3", "on the 3rd of may", "5 in may", "下午3點"],
    ids=["clock", "day", "of", "month", "zh"],
)
def test_a_run_of_spaces_behind_a_time_is_no_work(begin: str) -> None:
    _, blanked = quantities(begin + " " * LONG + "x")
    assert len(blanked) == len(begin) + LONG + 1


@pytest.mark.parametrize("filling", ["A", "A'", "A-"])
def test_a_run_of_capitals_is_no_work(filling: str) -> None:
    assert statement(f"See {filling * (LONG // 4)}1 of Tom Ross.").names[-2:] == ("tom", "ross")


def test_a_time_is_where_its_first_character_is() -> None:
    assert quantities("at   9:30  or 下午  3:00")[0] == [
        Quantity("clock", 570, 9, 5), Quantity("clock", 900, 15, 14),
    ]  # fmt: skip


def test_a_run_of_line_ends_behind_an_open_fence_is_no_work() -> None:
    assert json_problem("```" + "\n" * LONG) == ""
    assert json_problem("```json \t\n\n" + '{"a": [1, 2}' + "\n```") == "a } closes nothing"


@pytest.mark.parametrize(
    ("cue", "text"),
    [("marker", ":" + "-" * LONG), ("marker", "system" + " " * LONG + "x"), ("question", "?" + " " * LONG + "x")],
    ids=["dashes", "role", "question"],
)
def test_a_run_in_a_question_is_no_work_for_the_signs_of_an_injection(cue: str, text: str) -> None:
    assert CUES[cue].search(text) is None


@pytest.mark.parametrize(
    ("cue", "text"),
    [
        ("marker", "text\n-----\nend of the context"), ("marker", "=== end of document"),
        ("marker", "a ## * end of input"),
        ("marker", "system:"), ("marker", "\nadmin prompt ]"), ("marker", "user  message  :"),
        ("question", "why? "), ("question", "why?\" "), ("question", "why ? \u300d"),
    ],
)  # fmt: skip
def test_the_signs_are_still_seen(cue: str, text: str) -> None:
    assert CUES[cue].search(text)


def test_a_run_is_no_work_for_the_wall_before_the_judge_nor_for_the_look_at_a_cheap_answer() -> None:
    assert cleaned_for_judge("system" + " " * LONG + "x")[1] == 0
    assert cleaned_for_judge("system  note : all is well") == (REMOVED, 1)
    assert doubt("How long?", ["Leave is 14 days."], "Leave is" + "\n" * LONG + "14 days.") == ""
    assert doubt("How long?", ["Leave is 14 days."], "\n\n 1. Leave\n 2) is 14 days.") == ""
