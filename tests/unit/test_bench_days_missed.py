"""The figures of the verdicts in small: every part of them runs, and says what it is asked for."""

from __future__ import annotations

from bench.verdicts.days import Month, live, months, report
from bench.verdicts.missed import RULES, WITHIN_S, breach_of, exposure, find
from bench.verdicts.missed import report as report_missed


def test_some_hours_of_healthy_traffic_roll_nothing_back_and_let_a_canary_through() -> None:
    result = live(Month("support-faq", 50.0, seed=3, days=0.25))
    assert result.false_rollbacks == ()
    assert result.promoted >= 1  # the short plan takes two hours
    assert result.evaluations > 1000
    text = "\n".join(report([result], "small"))
    assert "0 false rollbacks in 0 simulated days" in text
    assert "reached 100 %" in text


def test_nine_months_have_nine_seeds_and_every_preset_at_every_rate() -> None:
    wanted = months()
    assert len({m.seed for m in wanted}) == len({(m.preset, m.rate) for m in wanted}) == 9
    assert sum(m.days for m in wanted) == 270


def test_a_sustained_breach_is_found_by_its_own_rule() -> None:
    cases = [breach_of(seed) for seed in range(1, 9)]
    assert {case.rule for case in cases} == set(RULES)
    assert all(1.5 <= case.factor <= 4.0 and case.needed_times >= 1.5 for case in cases)
    found = find(cases[0])
    assert found.delay_s is not None
    assert 0.0 <= found.delay_s < WITHIN_S
    assert "0 missed of 1" in report_missed([found])[0]


def test_a_canary_that_fails_wholly_answers_nobody_after_seconds() -> None:
    seconds, answers = exposure("canary fails wholly", 5.0, seed=1)
    assert seconds is not None
    assert 0.0 < seconds < 60.0
    assert answers == seconds * 5.0
