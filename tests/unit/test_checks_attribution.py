"""Naming the source before a fact is no claim of its own."""

from __future__ import annotations

import pytest

from guard.checks.claims import split_claims, without_attribution


@pytest.mark.parametrize(
    ("sentence", "rest"),
    [
        ("According to company policy: Leave is 14 days.", "Leave is 14 days."),
        ("According to the company rules, leave is 14 days.", "leave is 14 days."),
        ("Based on passage 2, leave is 14 days.", "leave is 14 days."),
        ("As stated in the employee handbook, leave is 14 days.", "leave is 14 days."),
        (
            "\u6839\u64da\u516c\u53f8\u898f\u5b9a\uff0c\u7279\u4f11\u70ba 14 \u5929\u3002",
            "\u7279\u4f11\u70ba 14 \u5929\u3002",
        ),
        (
            "\u4f9d\u7167\u51fa\u5dee\u8fa6\u6cd5\uff1a\u4e0a\u9650 3,200 \u5143\u3002",
            "\u4e0a\u9650 3,200 \u5143\u3002",
        ),
    ],
)
def test_the_source_is_taken_off(sentence: str, rest: str) -> None:
    assert without_attribution(sentence) == rest


@pytest.mark.parametrize(
    "sentence",
    [
        "According to Smith, the tower was built in 1889.",  # a person is a fact to be supported
        "According to company policy:",
        "Based on 14 days of leave, the balance is 3 days.",
        "Leave follows company policy: 14 days.",
    ],
)
def test_what_is_a_fact_stays(sentence: str) -> None:
    assert without_attribution(sentence) == sentence


def test_a_claim_is_judged_without_its_source() -> None:
    assert split_claims("According to company policy: The fee is 5 EUR.") == (["The fee is 5 EUR."], 0)
