"""The fault table is whole: every fault has a test that exists or a reason, and the page says what the list says."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.faults.__main__ import PAGE, line_of
from tests.faults.rows import ROWS, Row

TESTS = Path(__file__).parents[1]


@cache
def functions(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    found = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
    return frozenset(found)


def test_every_fault_has_its_number_once():
    assert [row.number for row in ROWS] == list(range(1, 70))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.number))
def test_a_row_has_tests_that_exist_or_a_reason(row: Row):
    assert row.tests or row.gap
    assert len(set(row.tests)) == len(row.tests)
    for test in row.tests:
        file, _, name = test.partition("::")
        assert (TESTS / file).is_file(), file
        assert name.startswith("test_"), name
        assert name in functions(file), test


def test_the_page_says_what_the_list_says():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    shown = {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("| ")}
    for row in ROWS:
        cells = line_of(row, "", "")[:5]
        line = shown.get(str(row.number), "")
        assert line.startswith(f"| {' | '.join(cells)} |"), f"row {row.number}: run `make faults`"
        assert "failed" not in line.rsplit("|", 3)[1]
