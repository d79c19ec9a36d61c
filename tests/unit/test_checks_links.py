"""The comma after an address belongs to the sentence."""

from __future__ import annotations

import pytest

from guard.checks.rules import parse_rules
from slo.types import CheckResult

RULES = parse_rules({"rules": []})


@pytest.mark.parametrize("end", [",", ".", ";", ")", "\u3002", "\uff0c", ""])
def test_punctuation_after_an_address_is_no_part_of_it(end: str) -> None:
    answer = f"Ask in Willow at https://willow.northlake.example{end} at least 7 days ahead."
    assert RULES.check("How?", answer).result is CheckResult.PASS


def test_an_address_that_is_none_still_fails() -> None:
    assert RULES.check("Where?", "Use this link: https://, please.").result is CheckResult.FAIL
