"""Counting canary and stable since a rollout began."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise

import pytest

from slo.clock import HandClock
from slo.comparison import ArmSums, Pair
from slo.sources.memory import MemorySource
from slo.sources.trial import MAX_SESSIONS, MAX_SPANS, SPAN_S, TrialSetup
from slo.types import CacheStatus, CanaryRule, Outcome, Slo
from tests.slo_builders import AVAILABILITY, HALLUCINATION, P95, SIMILARITY, found, make_exchange, make_slo

RULE = CanaryRule(2.0, None, 0.01)
UP = make_slo(AVAILABILITY, name="up", params={"absolute": 0.99}, canary=RULE)
FAST = make_slo(P95, name="fast", params={"absolute": 1.0}, canary=RULE)
TRUE = make_slo(HALLUCINATION, name="true", canary=RULE)
LIKE = make_slo(SIMILARITY, name="like", params={"absolute": 0.8}, canary=RULE)
CHAT = make_slo(AVAILABILITY, name="chat", params={"absolute": 0.99}, canary=RULE, routes=("chat",))
LEFT_OUT = make_slo(AVAILABILITY, name="left-out", params={"absolute": 0.99})
SLOS = (UP, FAST, TRUE, LIKE, CHAT, LEFT_OUT)
SETUP = TrialSetup("rollout", "c1", "s1", 0.1)


@pytest.fixture
def clock() -> HandClock:
    return HandClock(1000.0, 1_700_000_000.0)


@pytest.fixture
def source(clock: HandClock) -> MemorySource:
    source = MemorySource(SLOS, clock)
    source.compare(SETUP)
    return source


def present(source: MemorySource, slo: Slo = UP) -> Pair:
    return source.spans(slo)[-1].by_weight[source.trial.setup.weight] if source.trial else Pair()


def serve(source: MemorySource, release: str, count: int = 1, **changes: object) -> None:
    for number in range(count):
        source.served(make_exchange(number, release=release, **changes))


def test_both_arms_are_counted_and_nobody_else(source: MemorySource) -> None:
    serve(source, "s1", 9)
    serve(source, "c1", 2, duration_s=3.0)
    serve(source, "c1", outcome=Outcome.TIMEOUT, status=504, duration_s=3.0)
    serve(source, "other", 5)
    assert present(source) == Pair(ArmSums(3, 1, 1), ArmSums(9, 0, 0))
    assert present(source, FAST) == Pair(ArmSums(3, 3, 3), ArmSums(9, 0, 0))
    assert source.spans(LEFT_OUT) == ()


def test_routes_and_cache_hits(source: MemorySource) -> None:
    serve(source, "c1", 3, route="ask")
    serve(source, "c1", 2, cache=CacheStatus.HIT)
    assert present(source).canary.count == 3
    assert present(source, CHAT).canary.count == 0


def test_a_session_is_bad_once(source: MemorySource, clock: HandClock) -> None:
    for _ in range(4):
        serve(source, "c1", outcome=Outcome.SERVER_ERROR, status=500, session="anna")
        clock.at_s += 20.0
    serve(source, "c1", outcome=Outcome.SERVER_ERROR, status=500, session="bert")
    assert present(source).canary == ArmSums(5, 5, 2)


def test_a_retry_within_ten_seconds_is_no_event_at_all(source: MemorySource) -> None:
    serve(source, "c1", 2, outcome=Outcome.SERVER_ERROR, status=500, session="anna")
    assert present(source).canary == ArmSums(1, 1, 1)


def test_sessions_are_remembered_up_to_a_limit(source: MemorySource) -> None:
    for number in range(MAX_SESSIONS + 1):
        serve(source, "c1", outcome=Outcome.SERVER_ERROR, status=500, session=f"s{number}")
    serve(source, "c1", outcome=Outcome.SERVER_ERROR, status=500, session=f"s{MAX_SESSIONS}")  # known, and a retry
    assert present(source).canary.bad_sessions == MAX_SESSIONS + 1


def test_scores_and_findings(source: MemorySource) -> None:
    for score, word in ((0.9, "pass"), (0.7, "fail")):
        source.checked(
            make_exchange(release="c1", findings=(found("similarity", "pass", score), found("grounding", word)))
        )
    assert present(source, TRUE).canary == ArmSums(2, 1, 1)
    like = present(source, LIKE).canary
    # Guesses before each score: 1/2, then (1/2 + 0.9) / 2 = 0.7.
    assert (like.count, like.total, like.spread) == (2, pytest.approx(1.6), pytest.approx(0.16 + 0.0))


def test_a_new_weight_and_every_hour_begin_a_span(source: MemorySource, clock: HandClock) -> None:
    serve(source, "c1", 2)
    source.compare(TrialSetup("rollout", "c1", "s1", 0.3))
    serve(source, "c1", 3)
    clock.at_s += SPAN_S
    source.compare(TrialSetup("rollout", "c1", "s1", 0.3))
    serve(source, "c1", 4)
    spans = source.spans(UP)
    assert [(s.number, w, p.canary.count) for s in spans for w, p in s.by_weight.items()] == [
        (0, 0.1, 2), (1, 0.3, 3), (2, 0.3, 4),
    ]  # fmt: skip


def test_a_month_of_hours_is_kept_in_a_dozen_spans_and_loses_no_event(source: MemorySource, clock: HandClock) -> None:
    for _ in range(720):
        serve(source, "c1", 3)
        clock.at_s += SPAN_S
        source.compare(SETUP)
    spans = source.spans(UP)
    assert len(spans) <= MAX_SPANS
    assert sum(p.canary.count for s in spans for p in s.by_weight.values()) == 2160
    numbers = [span.number for span in spans]
    assert (numbers[0], numbers[-1]) == (0, 720)
    ages = [720 - number for number in numbers[:-1]]
    # For harm of any age there is a starting point at most about twice as old, so half of what it was bet on is harm.
    assert all(older <= 3 * younger + 1 for older, younger in pairwise(ages))


def test_another_rollout_begins_at_nothing(source: MemorySource) -> None:
    serve(source, "c1", 5)
    source.compare(TrialSetup("rollout", "c2", "s1", 0.1))
    assert present(source) == Pair()
    source.compare(None)
    assert source.spans(UP) == ()


def test_a_canary_started_again_is_not_judged_by_its_former_life(source: MemorySource) -> None:
    serve(source, "c1", 5)
    source.forget("c1")
    source.compare(SETUP)
    assert present(source) == Pair()


def test_stable_alone_after_promotion(clock: HandClock) -> None:
    source = MemorySource(SLOS, clock)
    source.compare(TrialSetup("promoted", "", "c1", 0.0))
    serve(source, "c1", 4)
    serve(source, "s1", 4)
    assert present(source) == Pair(ArmSums(), ArmSums(4, 0, 0))


def test_a_limit_that_follows_the_hour_of_the_week_stays_for_a_rollout(clock: HandClock) -> None:
    relative = make_slo(P95, name="fast", form="previous", params={"previous": "p95", "factor": 1.5}, canary=RULE)
    source = MemorySource((UP, relative), clock)
    source.compare(SETUP)
    serve(source, "c1", 2, duration_s=2.0)
    assert present(source, relative) == Pair(), "no limit yet"
    source.set_limits({"fast": 1.0})
    serve(source, "c1", 3, duration_s=2.0)
    source.set_limits({"fast": 4.0})
    serve(source, "c1", 2, duration_s=2.0)
    serve(source, "s1", 9, duration_s=0.5)
    assert present(source, relative) == Pair(ArmSums(5, 5, 5), ArmSums(9, 0, 0))

    restarted = MemorySource((UP, relative), clock)  # its limit is not known before the first evaluation
    restarted.load_pieces(list(pieces_of(source)))
    restarted.set_limits({"fast": 4.0})
    restarted.compare(SETUP)
    serve(restarted, "c1", duration_s=2.0)
    assert present(restarted, relative) == Pair(ArmSums(6, 6, 6), ArmSums(9, 0, 0))
    restarted.compare(TrialSetup("rollout", "c2", "s1", 0.1))
    serve(restarted, "c2", duration_s=2.0)
    assert present(restarted, relative).canary == ArmSums(1, 0, 0), "another rollout takes the limit of its time"


def test_other_terms_start_a_latency_objective_anew(source: MemorySource) -> None:
    serve(source, "c1", 3, duration_s=2.0)
    assert present(source, FAST).canary.bad == 3
    slower = make_slo(P95, name="fast", params={"absolute": 4.0}, canary=RULE)
    source.replace_objectives((UP, slower))
    assert present(source, slower) == Pair()
    assert present(source).canary.count == 3


def test_objectives_taken_out_and_put_in(source: MemorySource) -> None:
    serve(source, "c1", 2)
    source.replace_objectives((UP, TRUE))
    assert present(source).canary.count == 2
    assert source.spans(FAST) == ()


def pieces_of(source: MemorySource) -> Iterator[dict[str, object]]:
    for piece in source.dump_pieces():
        yield json.loads(json.dumps(piece))


def test_it_survives_a_restart(source: MemorySource, clock: HandClock) -> None:
    serve(source, "c1", 2)
    source.compare(TrialSetup("rollout", "c1", "s1", 0.3))
    serve(source, "c1", outcome=Outcome.SERVER_ERROR, status=500, session="anna")
    serve(source, "s1", 7)
    source.checked(make_exchange(release="c1", findings=(found("similarity", "pass", 0.9),)))
    clock.at_s += 600.0
    pieces = list(pieces_of(source))

    later = HandClock()
    later.at_s = 50.0
    later.wall_s = lambda: 1_700_000_000.0 + 1600.0 + 100.0  # type: ignore[method-assign]
    restarted = MemorySource(SLOS, later)
    restarted.load_pieces(pieces)
    restarted.compare(TrialSetup("rollout", "c1", "s1", 0.3))
    assert [restarted.spans(slo) for slo in SLOS] == [source.spans(slo) for slo in SLOS]
    serve(restarted, "c1", outcome=Outcome.SERVER_ERROR, status=500, session="anna")
    assert present(restarted).canary.bad_sessions == 1  # the session is known yet
    later.at_s += SPAN_S - 700.0
    restarted.compare(TrialSetup("rollout", "c1", "s1", 0.3))
    assert len(restarted.spans(UP)) == 3  # the hour went on while we were away


@pytest.mark.parametrize(
    "damage",
    [
        {"rows": [[0, 0.1, 0, 5, 9, 9, 0, 0]]},  # more bad events than events
        {"rows": [[0, 0.1]]},
        {"cells": []},
        {"weight": "much"},
        {"limit": []},
    ],
)
def test_a_damaged_dump_is_refused_as_a_whole(source: MemorySource, damage: dict[str, object]) -> None:
    serve(source, "c1", 2)
    pieces = list(pieces_of(source))
    for piece in pieces:
        if "trial" in piece:
            piece["trial"].update(damage)  # type: ignore[attr-defined]
    fresh = MemorySource(SLOS, HandClock())
    with pytest.raises(ValueError, match=r"more bad|not a dump|unpack|convert|shorter"):
        fresh.load_pieces(pieces)
    assert fresh.releases() == ()
