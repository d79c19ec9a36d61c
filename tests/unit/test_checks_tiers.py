"""The port of the slower tiers: who is asked about what, and what happens when a tier breaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from guard.checks.tiers import Tier, TierOutcome, TierUnavailable, ask


class Fixed:
    """A detector that notes what it was asked and does as told."""

    name = "fixed"

    def __init__(self, reply: Callable[[int], Sequence[float] | None]) -> None:
        self.reply, self.asked = reply, [""]

    def score(self, question: str, claims: Sequence[str], contexts: Sequence[str]) -> Sequence[float] | None:
        self.asked = list(claims)
        return self.reply(len(claims))


CLAIMS = ("a", "b", "c", "d")
BEFORE = (0.05, 0.5, 0.6, 0.95)


def test_only_unsettled_claims_of_the_band_are_asked() -> None:
    detector = Fixed(lambda count: [0.9] * count)
    found = ask(Tier(detector), "?", CLAIMS, ("ctx",), BEFORE, settled=(False, True, False, False))
    assert (detector.asked, found) == (["c"], TierOutcome((0.05, 0.5, 0.9, 0.95), 1))


def test_nothing_in_the_band_asks_nobody() -> None:
    detector = Fixed(lambda count: [0.9] * count)
    assert ask(Tier(detector, (0.7, 0.8)), "?", CLAIMS, (), BEFORE) == TierOutcome(BEFORE, 0)
    assert detector.asked == [""]


def _unavailable(_: int) -> None:
    raise TierUnavailable("no model")


def _breaks(_: int) -> None:
    raise MemoryError


@pytest.mark.parametrize(("reply", "problem"), [
    (lambda count: None, ""),
    (_unavailable, "no model"),
    (_breaks, "broke (MemoryError)"),
    (lambda count: [0.5], "answered 1 of 2 claims, or no probability"),
    (lambda count: [0.5, float("nan")], "answered 2 of 2 claims, or no probability"),
    (lambda count: [0.5, 1.5], "answered 2 of 2 claims, or no probability"),
], ids=["not-sampled", "unavailable", "breaks", "too-few", "nan", "over-one"])  # fmt: skip
def test_what_a_tier_cannot_say_leaves_the_tiers_before_it(
    reply: Callable[[int], Sequence[float] | None], problem: str
) -> None:
    assert ask(Tier(Fixed(reply)), "?", CLAIMS, (), BEFORE) == TierOutcome(BEFORE, 0, problem)
