"""Pass, fail, inconclusive, unknown: by hand, and at the sizes a rollout really has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slo.actions import ReleaseSnapshot, decide, reason_code
from slo.comparison import ArmSums, Pair, Span, compare, margin_of
from slo.types import ActionKind, CanaryRule, Compared, Comparison, OnBreach, Slo, State, Verdict
from tests.slo_builders import AVAILABILITY, HALLUCINATION, P95, SIMILARITY, make_slo

RULE = CanaryRule(factor=2.0, margin=None, alpha=0.01)
ERRORS = make_slo(HALLUCINATION, name="errors", canary=RULE)
SCORES = make_slo(SIMILARITY, name="scores", canary=RULE)
READY = ReleaseSnapshot(has_canary=True, weight=0.1, hold_satisfied=True, events_satisfied=True)


def harms(canary: tuple[int, int], stable: tuple[int, int], weight: float = 0.1, number: int = 0) -> Span:
    """(bad, count) of each arm, every bad event in a session of its own."""
    arms = (ArmSums(count, bad, bad) for bad, count in (canary, stable))
    return Span(number, {weight: Pair(*arms)})


def scores(canary: tuple[float, int], stable: tuple[float, int], deviation: float = 0.1) -> Span:
    """(mean, count) of each arm."""
    arms = (ArmSums(count, 0, 0, mean * count, deviation**2 * count) for mean, count in (canary, stable))
    return Span(0, {0.1: Pair(*arms)})


def result(slo: Slo, *spans: Span, weight: float = 0.1, limit: float | None = 0.05) -> Comparison:
    comparison = compare(slo, spans, weight, limit)
    assert comparison is not None
    return comparison


@pytest.mark.parametrize(
    ("canary", "stable", "expected"),
    [
        ((3, 20), (0, 180), Compared.INCONCLUSIVE),
        ((4, 20), (0, 180), Compared.FAIL),
        ((8, 100), (27, 900), Compared.INCONCLUSIVE),  # 8 % against 3 % is 2.7 x: long in doubt at a factor of 2
        ((0, 20), (5, 180), Compared.INCONCLUSIVE),  # too few to say that it is well
        ((0, 500), (1, 4500), Compared.PASS),  # hardly any bad: the difference decides
        ((600, 20_000), (5400, 180_000), Compared.PASS),
    ],
)
def test_harms(canary: tuple[int, int], stable: tuple[int, int], expected: Compared) -> None:
    assert result(ERRORS, harms(canary, stable), limit=0.02).result is expected


def test_the_e_value_by_hand() -> None:
    comparison = result(ERRORS, harms((4, 20), (0, 180)))
    t = 2 / 11
    bet = (1 - t**5) / 5 / (1 - t) / t**4
    # Half of the money is bet from span 0 on, the other half waits. 20 of 200 answers: exactly the planned tenth.
    assert comparison.e_value == pytest.approx(0.5 * bet + 0.5)
    assert comparison.e_needed == pytest.approx(100.0)
    assert ("canary_bad_of_count", "4 of 20") in comparison.evidence
    assert comparison.reason.startswith("errors: canary 20 % bad of 20, stable 0 % bad of 180; ")


def test_with_many_bad_events_the_ratio_lets_a_canary_pass() -> None:
    narrow = replace(ERRORS, canary=replace(RULE, margin=0.001))
    comparison = result(narrow, harms((600, 20_000), (5400, 180_000)))
    assert comparison.result is Compared.PASS
    assert "x as bad as stable, 2 x allowed" in comparison.reason


def test_bad_events_of_one_session_convict_nobody_and_let_nobody_pass() -> None:
    """One bot with a constant user met the canary: 40 bad answers of 400, one session."""
    one_session = Span(0, {0.1: Pair(ArmSums(400, 40, 1), ArmSums(3600, 3, 3))})
    comparison = result(ERRORS, one_session)
    assert comparison.result is Compared.INCONCLUSIVE
    assert comparison.harm_high is not None
    assert comparison.harm_high > 0.1


def test_a_canary_that_busy_sessions_gave_half_of_the_answers_is_not_blamed_for_half_of_the_errors() -> None:
    planned_a_tenth = harms((50, 1000), (50, 1000))
    assert result(ERRORS, planned_a_tenth).e_value < 1  # type: ignore[operator]


@pytest.mark.parametrize("slo", [ERRORS, SCORES])
def test_late_answers_at_weight_nothing_are_no_evidence(slo: Slo) -> None:
    late = Span(1, {0.0: Pair(ArmSums(40, 40, 40, 0.0, 10.0), ArmSums(9000, 0, 0, 9000.0, 90.0))})
    well = harms((0, 20), (2, 180)) if slo is ERRORS else scores((0.8, 400), (0.8, 3600))
    assert result(slo, well, late).result is result(slo, well).result
    only = result(slo, late, weight=0.0)
    assert only.result is Compared.INCONCLUSIVE
    assert "nothing yet" in only.reason


def test_a_canary_with_all_traffic_has_nothing_beside_it() -> None:
    alone = Span(1, {1.0: Pair(ArmSums(500, 0, 0), ArmSums())})
    assert result(ERRORS, harms((1, 500), (9, 4500)), alone, weight=1.0).result is Compared.PASS
    # What was proven before stays proven.
    assert result(ERRORS, harms((30, 100), (9, 900)), alone, weight=1.0).result is Compared.FAIL


def test_each_stage_has_to_pass_by_itself() -> None:
    first, second = harms((0, 2000), (2, 18_000)), harms((0, 30), (0, 70), weight=0.3, number=1)
    assert result(ERRORS, first, weight=0.1).result is Compared.PASS
    assert result(ERRORS, first, second, weight=0.3).result is Compared.INCONCLUSIVE


@pytest.mark.parametrize(
    ("canary", "stable", "expected"),
    [
        ((0.10, 60), (0.92, 540), Compared.FAIL),  # catastrophic forgetting: 92 % -> 10 %
        ((0.90, 20), (0.92, 180), Compared.INCONCLUSIVE),
        ((0.915, 1000), (0.92, 9000), Compared.PASS),
        ((0.80, 2000), (0.92, 18_000), Compared.FAIL),
        ((0.875, 100_000), (0.92, 900_000), Compared.PASS),  # 0.045 worse, and certainly less than 0.05
    ],
)
def test_scores(canary: tuple[float, int], stable: tuple[float, int], expected: Compared) -> None:
    assert result(SCORES, scores(canary, stable)).result is expected


def test_margins() -> None:
    assert margin_of(ERRORS, 0.001) == 0.02  # an error budget of 0.1 % would need thousands of answers
    assert margin_of(ERRORS, 0.03) == 0.03
    assert margin_of(ERRORS, 0.10) == 0.05
    assert margin_of(ERRORS, None) == 0.02
    assert margin_of(make_slo(P95, canary=RULE), 0.5) == 0.05  # of the requests may be over the limit
    assert margin_of(make_slo(AVAILABILITY, canary=RULE), 0.95) == 0.05
    assert margin_of(SCORES, 0.8) == 0.05
    assert margin_of(replace(ERRORS, canary=replace(RULE, margin=0.3)), 0.01) == 0.3


def test_who_is_not_compared_and_what_cannot_be_seen() -> None:
    assert compare(make_slo(), [harms((9, 9), (0, 9))], 0.1) is None
    unknown = compare(ERRORS, [harms((9, 9), (0, 9))], 0.1, why_unknown="own event loop stalled for 300 ms")
    assert unknown is not None
    assert unknown.result is Compared.UNKNOWN
    nothing = result(ERRORS, Span(0, {}))
    assert (nothing.result, nothing.e_value) == (Compared.INCONCLUSIVE, 1.0)


def verdict(
    compared: Compared | None, state: State = State.OK, action: OnBreach = OnBreach.ROLLBACK, name: str = "errors"
) -> Verdict:
    comparison = Comparison(compared, f"{name} beside stable: {compared}", 1.0, 100.0) if compared else None
    slo = replace(ERRORS, name=name, action=action)
    firing = state is State.BREACH
    return Verdict(slo, "r", state, 0.01, 0.05, f"{name} {state}", firing=firing, comparison=comparison)


@pytest.mark.parametrize(
    ("canary", "kind", "code"),
    [
        (verdict(Compared.PASS), ActionKind.ADVANCE, "pass"),
        (verdict(None), ActionKind.ADVANCE, "pass"),
        (verdict(Compared.INCONCLUSIVE), ActionKind.HOLD, "inconclusive"),
        (verdict(Compared.UNKNOWN), ActionKind.HOLD, "unknown"),
        (verdict(Compared.FAIL), ActionKind.ROLL_BACK, "breach"),
        (verdict(Compared.FAIL, State.UNKNOWN), ActionKind.ROLL_BACK, "breach"),  # too few in the window, enough in all
        (verdict(Compared.FAIL, State.BREACH), ActionKind.ROLL_BACK, "breach"),
        (verdict(Compared.FAIL, action=OnBreach.SHED), ActionKind.SHED, "breach"),
        (verdict(Compared.FAIL, action=OnBreach.PAGE), ActionKind.HOLD, "breach"),
        (verdict(Compared.FAIL, action=OnBreach.TRACK), ActionKind.HOLD, "unknown"),  # nothing else judges it
    ],
)
def test_what_a_comparison_asks_for(canary: Verdict, kind: ActionKind, code: str) -> None:
    action = decide((canary,), (verdict(None),), READY)
    assert (action.kind, reason_code(action.reason)) == (kind, code)


def test_a_failed_comparison_is_told_with_its_own_reason_and_evidence() -> None:
    failed = replace(verdict(Compared.FAIL), evidence=(("severity", "ticket"), ("window_s", "3600")))
    assert failed.comparison is not None
    failed = replace(failed, comparison=replace(failed.comparison, evidence=(("e_value", "250"),)))
    action = decide((failed,), (verdict(None),), READY)
    assert "errors beside stable" in action.reason
    assert action.verdicts[0].state is State.BREACH
    assert action.verdicts[0].evidence == (("e_value", "250"), ("window_s", "3600"))


def test_a_breach_of_stable_makes_even_a_failed_comparison_shared() -> None:
    action = decide((verdict(Compared.FAIL),), (verdict(None, State.BREACH),), READY)
    assert (action.kind, reason_code(action.reason)) == (ActionKind.SHED, "shared_upstream")


def test_an_open_question_waits_for_the_hold_first() -> None:
    action = decide((verdict(Compared.INCONCLUSIVE),), (), replace(READY, hold_satisfied=False))
    assert reason_code(action.reason) == "waiting"


def test_an_alarm_after_promotion_takes_it_back_while_it_is_fresh() -> None:
    promoted = ReleaseSnapshot(has_canary=False, previous_known=True, since_promotion_s=3600.0)
    assert decide((), (verdict(Compared.FAIL),), promoted).kind is ActionKind.ROLL_BACK
    old = replace(promoted, since_promotion_s=90_000.0)
    assert reason_code(decide((), (verdict(Compared.FAIL),), old).reason) == "steady"
