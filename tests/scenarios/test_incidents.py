"""The five incidents of the practice, replayed. Times are virtual; `make scenarios SEEDS=200` is the long form."""

from __future__ import annotations

import pytest

from slo.types import State
from tests.scenarios.incidents import (
    CACHE_AFTER_AN_UPDATE,
    FINDS_NOTHING,
    FORGETTING,
    FORGETTING_FROM_78,
    FORGETTING_PROMOTED,
    HEALTHY_VARIANTS,
    HOUR_S,
    KNOWLEDGE_UPDATE,
    LOAD_AFTER_PROMOTION,
    LOAD_ON_A_CANARY,
    TWO_AM_CANARY,
    TWO_AM_PROMOTED,
)
from tests.scenarios.playing import MOVES, Scenario, play

SEEDS = (1, 2)
seeds = pytest.mark.parametrize("seed", SEEDS)


@pytest.mark.parametrize("scenario", HEALTHY_VARIANTS, ids=lambda s: s.name)
def test_nothing_is_taken_away_from_a_healthy_release(scenario: Scenario) -> None:
    """The same traffic, rules and rollout without the fault: nothing is rolled back, shed or drained."""
    played = play(scenario, 1, faulty=False)
    assert not played.record.of(*MOVES), played.tail


@pytest.mark.parametrize("scenario", [KNOWLEDGE_UPDATE, FINDS_NOTHING], ids=lambda s: s.name)
@seeds
def test_incident_1_a_knowledge_update_that_finds_nothing(scenario: Scenario, seed: int) -> None:
    """Retrieval 200 -> 500 ms, 15 % of the queries find nothing; the offline test set still reads 90 % similarity.

    The canary, at 2 answers a second, has lost all its traffic within 5 minutes: beside stable it is slower, and the
    rule on P95 sheds before anybody knows more. If retrieval is as fast as before, it is rolled back within 15 minutes
    for what users meet (zero-hit). Neither is for the similarity, which is fine; long before one in five complains.
    """
    played = play(scenario, seed, faulty=True)
    assert played.caught, played.tail
    assert played.deed is not None
    assert "similarity" not in played.deed.rules


@pytest.mark.parametrize("scenario", [LOAD_ON_A_CANARY, LOAD_AFTER_PROMOTION], ids=lambda s: s.name)
@seeds
def test_incident_2_load_is_shed_and_not_rolled_back(scenario: Scenario, seed: int) -> None:
    """Tested at 10 requests/s, 500 in production: P95 2.7 s for everybody. A new embedder raises hallucination from
    3 % to 3.5 %, inside the limit of 5 %.

    The load rule (capacity limit x 0.7) sheds within 25 minutes. Nothing is rolled back: 3.5 % is no breach, and the
    load is not the release's. The rule on P99 (agreement 2 s) is left out here: it would rightly roll back.
    """
    played = play(scenario, seed, faulty=True)
    assert played.caught, played.tail
    assert not played.record.of("rollback")


@pytest.mark.parametrize("scenario", [TWO_AM_CANARY, TWO_AM_PROMOTED], ids=lambda s: s.name)
@seeds
def test_incident_3_nobody_is_woken_at_two(scenario: Scenario, seed: int) -> None:
    """v1.2.1 (chunking 600/100 -> 350/50): hallucination rises from 3 % to 8 % from 23:45 on; at 02:00 a person rolled
    back within 3 minutes.

    The guard does it alone before 01:00, at night's traffic, whether v1.2.1 is a canary at 10 % or was promoted.
    """
    played = play(scenario, seed, faulty=True)
    assert played.caught, played.tail
    assert played.deed is not None
    assert played.deed.t_s < 25 * HOUR_S


@seeds
def test_incident_4_a_cold_cache_pages_and_moves_nothing(seed: int) -> None:
    """After a knowledge update the hit ratio falls from 65 % to 5 %, and every miss is paid for.

    The rule on the hit ratio of an hour pages within 30 minutes. Nothing is rolled back: the answers are right, and
    another change of version would empty the cache once more.
    """
    played = play(CACHE_AFTER_AN_UPDATE, seed, faulty=True)
    assert played.caught, played.tail
    assert not played.record.of(*MOVES)


@pytest.mark.parametrize("scenario", [FORGETTING, FORGETTING_FROM_78, FORGETTING_PROMOTED], ids=lambda s: s.name)
@seeds
def test_incident_5_forgetting_is_rolled_back_within_minutes(scenario: Scenario, seed: int) -> None:
    """A fine-tune forgets: similarity 92 % (or 78 %) -> 10 %.

    Measured value x 0.9 is the limit: within 5 minutes of a canary's start at 4 answers a second, within 10 after a
    promotion.
    """
    played = play(scenario, seed, faulty=True)
    assert played.caught, played.tail
    assert played.deed is not None
    verdict = next(v for v in played.deed.verdicts if v.slo.name == "similarity")
    assert verdict.state is State.BREACH
