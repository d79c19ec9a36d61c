"""The reports on verdicts, at sizes of a second; the figures in docs/verdicts.md come from the full ones."""

from __future__ import annotations

import numpy
import pytest

from bench.verdicts import cost, delay, naive, reference
from bench.verdicts.__main__ import main
from bench.verdicts.reports import REPORTS
from slo.sequential import wald_events


@pytest.mark.parametrize(("rate", "low", "high"), [(0.02, 230, 330), (0.2, 15, 22)])
def test_the_reference_table_in_small(rate: float, low: float, high: float) -> None:
    chance = numpy.random.default_rng(5)
    found = [reference.aborted_after(rate, chance) for _ in range(120)]
    assert None not in found
    assert low <= numpy.median([after for after in found if after is not None]) <= high


def test_equal_arms_are_not_aborted() -> None:
    chance = numpy.random.default_rng(6)
    assert [reference.aborted_after(0.001, chance) for _ in range(60)].count(None) >= 59


def test_the_naive_rule_is_false_on_nine_days_of_ten_and_ours_on_none() -> None:
    chance = numpy.random.default_rng(7)
    count = numpy.full(naive.MINUTES, 20)
    days = [chance.binomial(count, naive.TRUE_RATE) for _ in range(100)]
    # Two bad of 200: 1 - 0.999^200 - 200 x 0.001 x 0.999^199 = 1.75 %; in one of 144 windows: 92.1 %.
    assert 84 <= sum(naive.naive_is_false(bad, count) for bad in days) <= 99
    assert not any(naive.ours_is_false(bad, count) for bad in days[:10])


def test_delays_are_near_the_bound_where_the_rates_are_known() -> None:
    chance = numpy.random.default_rng(8)
    bound = wald_events(delay.USUAL, delay.HARM, delay.FALSE_ALARM)
    found = [delay.known_rates(*delay.batches(1.0, delay.HARM, chance, 6000)) for _ in range(200)]
    mean = float(numpy.mean([after for after in found if after is not None]))
    assert bound <= mean <= 1.25 * bound  # the overshoot of one tick of five answers
    mixed = [delay.mixture(*delay.batches(1.0, delay.HARM, chance, 6000)) for _ in range(100)]
    assert float(numpy.mean([after for after in mixed if after is not None])) <= 1.6 * bound


def test_an_evaluation_is_measured_over_every_objective_and_release() -> None:
    mean_s, longest_s, verdict_count = cost.measure(11, 2, 2, seed=1)
    assert verdict_count == 22
    assert 0.0 < mean_s <= longest_s


def test_each_report_has_its_own_name_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert len({report.name for report in REPORTS}) == len(REPORTS)
    with pytest.raises(SystemExit) as caught:
        main(["--only", "nothing"])
    assert caught.value.code == 2
    assert "reference" in capsys.readouterr().err
