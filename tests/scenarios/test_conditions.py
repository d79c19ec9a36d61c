"""The release conditions of the practice, and faults that are not the release's. Times are virtual."""

from __future__ import annotations

import pytest

from tests.scenarios.conditions import (
    BLIND_CHECKS,
    ERRORS,
    FAULT_S,
    HEALTHY_VARIANTS,
    OUTAGE,
    QUALITY,
    SLOW,
    UPSTREAM_OUTAGE,
    ZERO_HIT,
)  # fmt: skip
from tests.scenarios.playing import MOVES, Scenario, play

seeds = pytest.mark.parametrize("seed", [1, 2])


@pytest.mark.parametrize("scenario", HEALTHY_VARIANTS, ids=lambda s: s.name)
def test_nothing_is_taken_away_from_a_healthy_release(scenario: Scenario) -> None:
    """The same traffic and rules without the fault."""
    played = play(scenario, 1, faulty=False)
    assert not played.record.of(*MOVES), played.tail


@pytest.mark.parametrize("scenario", [SLOW, ERRORS, ZERO_HIT, QUALITY], ids=lambda s: s.name)
@seeds
def test_each_release_condition_rolls_back(scenario: Scenario, seed: int) -> None:
    """P95 > 3 s for 15 minutes; errors > 0.5 % for 10 minutes; zero-hit > 5 %; quality < 85 %: any of them ends it.

    The last one is said of key intents in the practice. No indicator exists per intent: the rule here is on the
    similarity of all answers, so an intent that fails alone among many is not seen.
    """
    played = play(scenario, seed, faulty=True)
    assert played.caught, played.tail


@seeds
def test_a_canary_that_fails_wholly_is_out_within_a_minute(seed: int) -> None:
    """Every call fails, at 4 requests a second on the canary: the fast path does not wait for a window."""
    played = play(OUTAGE, seed, faulty=True)
    assert played.caught, played.tail
    assert played.deed is not None
    assert played.deed.weight == 0.0


@seeds
def test_an_outage_of_everybody_is_not_the_canarys_fault(seed: int) -> None:
    """The provider fails for both arms: the weight may drop, the version is not rolled back, and people are told."""
    played = play(UPSTREAM_OUTAGE, seed, faulty=True)
    assert played.caught, played.tail
    assert not played.record.of("rollback")
    assert any(deed.code == "shared_upstream" for deed in played.record.of("alert"))


@seeds
def test_a_guard_that_cannot_see_holds_and_says_so(seed: int) -> None:
    """The check worker is down: nothing is judged, so nothing advances and nothing is rolled back; after 5 minutes
    somebody is told."""
    played = play(BLIND_CHECKS, seed, faulty=True)
    assert played.caught, played.tail
    assert not played.record.of("promoted", "advanced"), played.tail
    assert any(d.code == "unknown" and d.t_s > FAULT_S for d in played.record.of("alert")), played.tail
    assert played.final_weight > 0.0
