"""Verdicts: hand-computed rows for every kind of rule, and what time adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from slo.errors import SourceError
from slo.evaluation import (
    BURN_PAIRS,
    NOT_HELD,
    Held,
    advance,
    allowed_share,
    budget_remaining_ratio,
    current_value,
    evaluate,
    evaluate_burn,
    is_ticket,
    judge,
    suspend,
)
from slo.metric_names import INDICATORS
from slo.thresholds import Limit, limit_for
from slo.types import FastPath, Reading, Slo, State, Verdict
from tests.slo_builders import AVAILABILITY, COST, FAST, HALLUCINATION, P95, SIMILARITY, make_slo

FIVE_PERCENT = Limit(0.05, "", "absolute")


@pytest.mark.parametrize(
    ("bad", "count", "state"),
    [
        (80, 1000, State.BREACH),  # 8 %, lower bound 6.7 %
        (50, 1000, State.OK),  # exactly the limit is not past it
        (60, 1000, State.OK),  # 6 % is past it, the lower bound 4.88 % is not
        (62, 1000, State.BREACH),  # lower bound 5.06 %
        (61, 1000, State.OK),  # lower bound 4.97 %
        (0, 1000, State.OK),
        (399, 399, State.UNKNOWN),  # one short of min_events, however bad
        (400, 400, State.BREACH),
        (0, 0, State.UNKNOWN),
    ],
)
def test_a_ratio_rule_needs_estimate_bound_and_events(bad: int, count: int, state: State) -> None:
    assert evaluate(make_slo(), "r1", Reading(bad, count), None, FIVE_PERCENT).state is state


def test_a_ratio_verdict_shows_value_bound_and_evidence() -> None:
    verdict = evaluate(make_slo(), "r1", Reading(80, 1000), None, FIVE_PERCENT)
    assert verdict.value == 0.08
    assert verdict.threshold == 0.05
    assert verdict.bound == pytest.approx(0.066996, abs=1e-6)
    assert verdict.reason == "rule: 8 % of 1000 in 1h (at least 6.7 %), limit 5 %"
    assert dict(verdict.evidence)["count"] == "1000"
    assert dict(verdict.evidence)["threshold_source"] == "absolute"


@pytest.mark.parametrize(
    ("bad", "state"),
    [(10, State.OK), (13, State.OK), (17, State.BREACH)],  # 99 % allowed; lower bounds 0.60 %, 0.83 %, 1.15 %
)
def test_a_success_rate_is_judged_by_its_failures(bad: int, state: State) -> None:
    slo = make_slo(AVAILABILITY)
    verdict = evaluate(slo, "r1", Reading(bad, 1000), None, Limit(0.99, "", "tier general"))
    assert verdict.state is state
    assert verdict.value == 1 - bad / 1000
    assert verdict.bound is not None
    assert verdict.bound > verdict.value  # the kindest success rate that fits what was seen


@pytest.mark.parametrize(
    ("bad", "state"),
    [(80, State.BREACH), (60, State.OK), (50, State.OK)],  # 5 % of requests may be over a P95 limit
)
def test_a_latency_rule_counts_requests_over_the_limit(bad: int, state: State) -> None:
    verdict = evaluate(make_slo(P95), "r1", Reading(bad, 1000), None, Limit(3.01, "", "limit"), 3.3)
    assert verdict.state is state
    assert (verdict.value, verdict.threshold, verdict.bound) == (3.3, 3.01, None)
    assert "over 3010 ms" in verdict.reason


def mean_reading(values: list[float]) -> Reading:
    return Reading(0, len(values), sum(values), sum(v * v for v in values))


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ([0.7, 0.8] * 200, State.BREACH),  # mean 0.75, upper bound 0.754
        ([0.79, 0.81] * 200, State.OK),  # exactly the limit
        ([0.4, 1.19] * 200, State.OK),  # mean 0.795, upper bound 0.828
        ([0.9] * 400, State.OK),
        ([0.7] * 399, State.UNKNOWN),
    ],
)
def test_a_similarity_rule_needs_mean_and_bound_below_the_limit(values: list[float], state: State) -> None:
    slo = make_slo(SIMILARITY)
    assert evaluate(slo, "r1", mean_reading(values), None, Limit(0.8, "", "current")).state is state


@pytest.mark.parametrize(
    ("values", "state"),
    [([0.07] * 400, State.BREACH), ([0.0, 0.13] * 200, State.OK), ([0.05] * 400, State.OK)],
)
def test_a_cost_rule_needs_mean_and_bound_above_the_limit(values: list[float], state: State) -> None:
    verdict = evaluate(make_slo(COST), "r1", mean_reading(values), None, Limit(0.06, "", "budget"))
    assert verdict.state is state


def test_one_value_has_no_spread_and_is_unknown() -> None:
    verdict = evaluate(make_slo(COST, min_events=1), "r1", mean_reading([5.0]), None, Limit(0.06, "", "budget"))
    assert verdict.state is State.UNKNOWN


def test_no_limit_is_unknown_and_says_why() -> None:
    verdict = evaluate(make_slo(), "r1", Reading(900, 1000), None, Limit(None, "no baseline", "p95 x 1.5"))
    assert verdict.state is State.UNKNOWN
    assert verdict.reason == "rule: no baseline"
    assert verdict.threshold is None


@pytest.mark.parametrize(("coverage", "state"), [(0.5, State.BREACH), (0.49, State.UNKNOWN)])
def test_less_than_half_coverage_is_unknown(coverage: float, state: State) -> None:
    reading = Reading(500, 1000, coverage_ratio=coverage)
    assert evaluate(make_slo(), "r1", reading, None, FIVE_PERCENT).state is state


@pytest.mark.parametrize(
    ("bad", "count", "fast"),
    [
        (13, 20, True),  # 65 %, lower bound 21.4 % at one in a million
        (12, 20, False),  # 60 %, lower bound 18.6 %
        (7, 20, False),  # 35 %: past 20 % by a 95 % bound, and seen daily on a healthy release
        (19, 19, False),  # one short of 20 events
        (44, 120, False),  # 36.7 %, lower bound 19.5 %
        (45, 120, True),  # 37.5 %, lower bound 20.1 %
        (0, 120, False),
    ],
)
def test_the_fast_path_needs_estimate_bound_and_events_of_its_own(bad: int, count: int, fast: bool) -> None:
    verdict = evaluate(make_slo(fast=FAST), "r1", Reading(0, 10), Reading(bad, count), FIVE_PERCENT)
    assert verdict.fast is fast
    assert verdict.state is (State.BREACH if fast else State.UNKNOWN)
    assert verdict.fast_reading == Reading(bad, count)


def test_the_fast_path_acts_without_a_baseline() -> None:
    missing = Limit(None, "no baseline", "")
    verdict = evaluate(make_slo(fast=FAST), "r1", Reading(0, 0), Reading(30, 30), missing)
    assert (verdict.state, verdict.fast, verdict.threshold) == (State.BREACH, True, 0.2)


def test_the_fast_path_of_a_latency_rule_needs_a_limit() -> None:
    slo = make_slo(P95, fast=FAST)
    assert not evaluate(slo, "r1", Reading(0, 0), Reading(30, 30), Limit(None, "no baseline", "")).fast
    verdict = evaluate(slo, "r1", Reading(0, 0), Reading(30, 30), Limit(1.0, "", "limit"))
    assert verdict.fast
    assert verdict.threshold == 1.0


def test_the_fast_path_is_never_stricter_than_the_slow_rule() -> None:
    slo = make_slo(fast=FastPath(over_ratio=0.2))
    verdict = evaluate(slo, "r1", Reading(400, 1000), Reading(40, 100), Limit(0.6, "", "absolute"))
    assert verdict.state is State.OK


def test_the_fast_path_is_blind_below_half_coverage() -> None:
    verdict = evaluate(make_slo(fast=FAST), "r1", Reading(0, 0), Reading(30, 30, coverage_ratio=0.4), FIVE_PERCENT)
    assert verdict.state is State.UNKNOWN


def test_the_fast_path_of_a_success_rate_shows_success() -> None:
    slo = make_slo(AVAILABILITY, fast=FAST)
    verdict = evaluate(slo, "r1", Reading(0, 0), Reading(30, 40), Limit(0.99, "", "tier"))
    assert (verdict.value, verdict.threshold) == (0.25, 0.8)


def reads(bad_ratio_of: Mapping[float, float], count: int = 10_000) -> dict[float, Reading]:
    lengths = {s for pair in BURN_PAIRS for s in (pair.long_s, pair.short_s)}
    return {length: Reading(round(bad_ratio_of.get(length, 0.0) * count), count) for length in lengths}


HOUR, FIVE_MIN, SIX_HOURS, HALF_HOUR, DAY, TWO_HOURS, THREE_DAYS = (
    3600.0,
    300.0,
    21_600.0,
    1800.0,
    86_400.0,
    7200.0,
    259_200.0,
)


@pytest.mark.parametrize(
    ("bad_ratio_of", "state", "severity"),
    [
        ({}, State.OK, None),
        ({HOUR: 0.02, FIVE_MIN: 0.02}, State.BREACH, "page"),  # 20 x the budget of 0.1 %
        ({HOUR: 0.02, FIVE_MIN: 0.001}, State.OK, None),  # over already
        ({HOUR: 0.001, FIVE_MIN: 0.02}, State.OK, None),  # a blip
        ({HOUR: 0.0144, FIVE_MIN: 0.02}, State.OK, None),  # exactly 14.4 x
        ({SIX_HOURS: 0.008, HALF_HOUR: 0.008}, State.BREACH, "page"),
        ({DAY: 0.005, TWO_HOURS: 0.005}, State.BREACH, "ticket"),
        ({THREE_DAYS: 0.002, SIX_HOURS: 0.002}, State.BREACH, "ticket"),
        ({THREE_DAYS: 0.001, SIX_HOURS: 0.002}, State.OK, None),
    ],
)
def test_burn_rates_page_or_ticket_by_pairs(
    bad_ratio_of: Mapping[float, float], state: State, severity: str | None
) -> None:
    slo = make_slo(AVAILABILITY, burn_rate=True)
    verdict = evaluate_burn(slo, "r1", reads(bad_ratio_of).__getitem__, None, Limit(0.999, "", "tier critical"))
    assert verdict.state is state
    assert dict(verdict.evidence).get("severity") == severity
    assert is_ticket(verdict) is (severity == "ticket")
    assert verdict.slo is slo  # what the rule asks for is not rewritten: a ticket must still hold the release


def test_a_burn_rule_without_enough_events_or_limit_is_unknown() -> None:
    slo = make_slo(AVAILABILITY, burn_rate=True)
    few = reads({HOUR: 0.9, FIVE_MIN: 0.9}, count=399)
    assert evaluate_burn(slo, "r1", few.__getitem__, None, Limit(0.999, "", "tier")).state is State.UNKNOWN
    assert evaluate_burn(slo, "r1", few.__getitem__, None, Limit(None, "none", "")).state is State.UNKNOWN


def test_a_burn_rule_has_a_fast_path() -> None:
    slo = make_slo(AVAILABILITY, burn_rate=True, fast=FAST)
    verdict = evaluate_burn(slo, "r1", reads({}).__getitem__, Reading(20, 20), Limit(0.99, "", "tier"))
    assert verdict.fast


def test_judge_reads_the_windows_that_the_rule_names() -> None:
    asked: list[float] = []

    def read(length_s: float) -> Reading:
        asked.append(length_s)
        return Reading(0, 1000)

    judge(make_slo(window_s=900.0, fast=FAST), "r1", read, FIVE_PERCENT)
    assert asked == [60.0, 900.0]
    asked.clear()
    judge(make_slo(AVAILABILITY, window_s=THREE_DAYS * 10, burn_rate=True), "r1", read, Limit(0.99, "", ""))
    assert HOUR in asked
    assert THREE_DAYS in asked
    assert THREE_DAYS * 10 not in asked


def test_allowed_shares() -> None:
    assert allowed_share(INDICATORS[HALLUCINATION], 0.05) == 0.05
    assert allowed_share(INDICATORS[AVAILABILITY], 0.999) == 0.001
    assert allowed_share(INDICATORS[P95], 3.0) == 0.05


def test_budget_remaining() -> None:
    slo, tier = make_slo(AVAILABILITY), Limit(0.99, "", "tier")
    assert budget_remaining_ratio(slo, Reading(4, 1000), tier) == pytest.approx(0.6)
    assert budget_remaining_ratio(slo, Reading(20, 1000), tier) == pytest.approx(-1.0)
    assert budget_remaining_ratio(slo, Reading(0, 0), tier) is None
    assert budget_remaining_ratio(slo, Reading(0, 100), Limit(None, "", "")) is None
    assert budget_remaining_ratio(slo, Reading(0, 100), Limit(1.0, "", "")) is None
    assert budget_remaining_ratio(make_slo(COST), Reading(0, 100), Limit(1.0, "", "")) is None
    assert budget_remaining_ratio(slo, Reading(1, 19), tier) is None  # absent, as the value is, not -4.26
    assert budget_remaining_ratio(slo, Reading(1, 100, coverage_ratio=0.4), tier) is None


def test_a_catastrophe_is_told_although_the_long_window_cannot_be_had() -> None:
    slo = make_slo(AVAILABILITY, params={"absolute": 0.99}, fast=FAST)

    def read(length_s: float) -> Reading:
        if length_s == FAST.window.length_s:
            return Reading(30, 40)
        raise SourceError("prometheus: no answer in 3 s")

    verdict = judge(slo, "r1", read, limit_for(slo))
    assert (verdict.state, verdict.fast, verdict.reading) == (State.BREACH, True, Reading(30, 40))
    with pytest.raises(SourceError):  # without one nothing is said
        judge(slo, "r1", lambda length_s: Reading(1, 40) if length_s < 100 else read(length_s), limit_for(slo))


def test_current_values() -> None:
    assert current_value(INDICATORS[AVAILABILITY], Reading(1, 4)) == 0.75
    assert current_value(INDICATORS[HALLUCINATION], Reading(1, 4)) == 0.25
    assert current_value(INDICATORS[COST], Reading(0, 4, value_sum=2.0)) == 0.5
    assert current_value(INDICATORS[P95], Reading(1, 4)) is None
    assert current_value(INDICATORS[COST], Reading(0, 0)) is None


# What time adds


def verdict_of(state: State, slo: Slo | None = None, **changes: object) -> Verdict:
    return replace(Verdict(slo or make_slo(for_s=600.0), "r1", state, 0.1, 0.05, "why"), **changes)  # type: ignore[arg-type]


def run(timeline: list[tuple[float, State]], slo: Slo) -> list[bool]:
    held, firing = NOT_HELD, []
    for now_s, state in timeline:
        held, verdict = advance(held, verdict_of(state, slo), now_s)
        assert verdict.state is state
        firing.append(verdict.firing)
    return firing


B, K, U = State.BREACH, State.OK, State.UNKNOWN


@pytest.mark.parametrize(
    ("timeline", "firing"),
    [
        ([(0, B), (300, B), (599, B), (600, B)], [False, False, False, True]),
        ([(0, B), (300, K), (600, B), (1100, B), (1200, B)], [False, False, False, False, True]),
        ([(0, B), (300, U), (600, B)], [False, False, False]),  # unknown is not the condition holding
        ([(0, B), (600, B), (700, K), (899, K), (900, K)], [False, True, True, True, False]),  # kept 300 s
        ([(0, B), (600, B), (700, K), (800, B)], [False, True, True, True]),  # back while kept: at once
        ([(0, B), (600, B), (900, K), (901, B)], [False, True, False, False]),  # kept no longer: from the start
        ([(0, B), (600, B), (700, U)], [False, True, True]),
    ],
)
def test_for_and_keep_firing_for(timeline: list[tuple[float, State]], firing: list[bool]) -> None:
    assert run(timeline, make_slo(for_s=600.0, keep_firing_for_s=300.0)) == firing


def test_without_for_a_breach_fires_at_once_and_without_keeping_it_ends_at_once() -> None:
    assert run([(0, B), (1, K)], make_slo(for_s=0.0, keep_firing_for_s=0.0)) == [True, False]


def test_the_fast_path_does_not_wait() -> None:
    held, verdict = advance(NOT_HELD, verdict_of(B, fast=True), 5.0)
    assert verdict.firing
    assert held == Held(5.0, True, 5.0, 5.0)


def test_a_pending_breach_says_how_long_it_was_held() -> None:
    _, verdict = advance(Held(0.0), verdict_of(B), 120.0)
    assert verdict.reason == "why; held 2m of 10m"


def run_with_gaps(timeline: list[tuple[float, State | None]], slo: Slo) -> list[bool]:
    """None: our own measurement was sick."""
    held, firing = NOT_HELD, []
    for now_s, state in timeline:
        said = verdict_of(state or State.BREACH, slo, fast=state is None)
        held, verdict = suspend(held, said, now_s) if state is None else advance(held, said, now_s)
        assert verdict.state is (state or State.UNKNOWN)
        assert state is not None or not (verdict.firing or verdict.fast)
        firing.append(verdict.firing)
    return firing


SICK = None


@pytest.mark.parametrize(
    ("timeline", "firing"),
    [
        # A short suspension does not restart the count, and the moment itself proves nothing.
        ([(0, B), (590, B), (610, SICK), (620, B)], [False, False, False, True]),
        ([(0, B), (570, B), (600, SICK), (630, B)], [False, False, False, True]),  # exactly 60 s
        ([(0, B), (570, B), (600, SICK), (631, B)], [False, False, False, False]),  # found again, but too late
        ([(0, B), (570, B), (600, SICK), (631, B), (1231, B)], [False, False, False, False, True]),
        ([(0, B), (590, B), (610, SICK), (620, K), (630, B)], [False] * 5),  # not found again
        ([(0, B), (590, B), (610, SICK), (620, U), (630, B)], [False] * 5),
        ([(0, SICK), (10, B), (610, B)], [False, False, True]),
        # Every one short, all of them together long.
        ([(0, B), (300, B), (330, SICK), (360, B), (390, SICK), (420, B), (600, B)], [False] * 6 + [True]),
        # One suspension of several evaluations.
        ([(0, B), (590, B), (610, SICK), (630, SICK), (650, SICK), (660, B)], [False] * 6),
        # What fired before comes back at once while it is kept.
        ([(0, B), (600, B), (700, SICK), (800, B)], [False, True, False, True]),
        ([(0, B), (600, B), (700, SICK), (901, B)], [False, True, False, False]),
    ],
)
def test_a_sick_guard_neither_forgets_nor_counts_what_it_could_not_see(
    timeline: list[tuple[float, State | None]], firing: list[bool]
) -> None:
    assert run_with_gaps(timeline, make_slo(for_s=600.0, keep_firing_for_s=300.0)) == firing


def test_evaluations_far_apart_are_no_suspension() -> None:
    assert run([(0, B), (600, B)], make_slo(for_s=600.0)) == [False, True]
