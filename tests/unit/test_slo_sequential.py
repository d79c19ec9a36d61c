"""E-values against hand-computed numbers, brute force and the published sources."""

from __future__ import annotations

from math import comb, exp, inf, isclose, log

import pytest

from slo.betas import log_beta, log_upper_beta
from slo.sequential import (
    Stretch,
    canary_share_limit,
    e_value,
    log_e_above,
    log_e_rollout,
    log_e_two_arms,
    log_sum,
    p_value,
    starting_capital,
    wald_events,
)


def integral(bad: int, good: int, limit: float, steps: int = 20_000) -> float:
    """The mixture over (limit, 1) by the midpoint rule: the definition, without any incomplete beta."""
    width = (1.0 - limit) / steps
    points = (limit + (step + 0.5) * width for step in range(steps))
    return sum((p / limit) ** bad * ((1.0 - p) / (1.0 - limit)) ** good for p in points) / steps


@pytest.mark.parametrize(
    ("bad", "good", "limit"), [(3, 0, 0.5), (4, 0, 2 / 11), (5, 2, 2 / 11), (0, 7, 0.3), (12, 40, 0.18), (30, 10, 0.6)]
)
def test_the_closed_form_is_the_integral(bad: int, good: int, limit: float) -> None:
    assert isclose(exp(log_e_above(bad, good, limit)), integral(bad, good, limit), rel_tol=1e-5)


def test_a_canary_with_a_tenth_of_the_traffic_by_hand() -> None:
    t = 2 / 11  # 2 x 0.1 / (2 x 0.1 + 0.9)
    assert isclose(canary_share_limit(0.1, 2.0), t)
    three = (1 - t**4) / 4 / (1 - t) / t**3
    four = (1 - t**5) / 5 / (1 - t) / t**4
    assert isclose(exp(log_e_two_arms(3, 0, 0.1, 2.0)), three)
    assert isclose(exp(log_e_two_arms(4, 0, 0.1, 2.0)), four)
    # Three bad answers in a row, all of the canary, are not enough at alpha = 0.01; four are.
    assert three < 100 < four


def test_one_bad_of_stable_takes_back_what_it_should_by_hand() -> None:
    # Uniform over (1/2, 1), one bad each: mean of (2p)(2(1-p)) = 4 (mean p - mean p^2) = 4 (3/4 - 7/12) = 2/3.
    assert isclose(exp(log_e_two_arms(1, 1, 0.5, 1.0)), 2 / 3)


def test_nothing_bad_and_nothing_to_compare_with_are_no_evidence() -> None:
    assert log_e_two_arms(0, 0, 0.1, 2.0) == 0.0
    assert log_e_two_arms(500, 0, 1.0, 2.0) == 0.0


def test_a_limit_of_nothing_is_proven_wrong_by_one_event() -> None:
    assert log_e_above(1, 5, 0.0) == inf
    assert isclose(exp(log_e_above(0, 5, 0.0)), 1 / 6)  # mean of (1-p)^5 over all p


def test_a_million_events_stay_finite_and_ordered() -> None:
    values = [log_e_above(bad, 1_000_000 - bad, 2 / 11) for bad in (100_000, 180_000, 181_818, 190_000, 300_000)]
    assert values[0] < 0 > values[2]
    assert values[4] > values[3] > 100
    # A long way above, Laplace: n KL(0.3 || t) less half a log of n and the prior; here to one part in a thousand.
    kl = 0.3 * log(0.3 / (2 / 11)) + 0.7 * log(0.7 / (9 / 11))
    assert isclose(values[4], 1_000_000 * kl, rel_tol=1e-3)


@pytest.mark.parametrize(("a", "b", "limit"), [(1.0, 1.0, 0.25), (2.0, 5.0, 0.1), (5.0, 2.0, 0.99), (40.0, 60.0, 0.41)])
def test_the_incomplete_beta_is_the_binomial_tail(a: float, b: float, limit: float) -> None:
    # Abramowitz and Stegun 26.5.24: for whole a, b the upper part is the sum of binomial terms below a.
    n = int(a + b - 1)
    tail = sum(comb(n, j) * limit**j * (1 - limit) ** (n - j) for j in range(int(a)))
    assert isclose(exp(log_upper_beta(a, b, limit) - log_beta(a, b)), tail, rel_tol=1e-9)


def test_the_ends_of_the_incomplete_beta() -> None:
    assert log_upper_beta(3.0, 4.0, 0.0) == log_beta(3.0, 4.0)
    assert log_upper_beta(3.0, 4.0, 1.0) == -inf


def test_p_is_one_over_e_and_never_more_than_one() -> None:
    assert p_value(log(200.0)) == pytest.approx(0.005)
    assert p_value(-5000.0) == 1.0
    assert p_value(5000.0) < 1e-300
    assert e_value(5000.0) == exp(700.0)


def test_weights_multiply_by_hand() -> None:
    both = Stretch(0, {0.1: (4.0, 0.0), 0.5: (3.0, 0.0)})
    bets = log_e_two_arms(4, 0, 0.1, 2.0) + log_e_two_arms(3, 0, 0.5, 2.0)
    # Half the money was bet from the beginning, the other half waits for later spans.
    assert isclose(log_e_rollout([both], 2.0), log(0.5 * exp(bets) + 0.5))


def test_harm_that_begins_late_is_found_all_the_same() -> None:
    """A day at equal rates, then an hour in which the canary has 20 of 28 bad answers at a tenth of the traffic."""
    healthy = [Stretch(hour, {0.1: (3.0, 27.0)}) for hour in range(24)]
    ill = Stretch(24, {0.1: (20.0, 8.0)})
    since_the_beginning = log_e_two_arms(24 * 3 + 20, 24 * 27 + 8, 0.1, 2.0)
    assert since_the_beginning < -5  # a test that only looks at everything would have to win all that back first
    assert log_e_rollout([*healthy, ill], 2.0) > log(100)
    assert log_e_rollout(healthy, 2.0) < 0.0


def test_the_money_of_all_spans_is_one() -> None:
    assert sum(starting_capital(number) for number in range(100_000)) == pytest.approx(1.0, abs=1e-5)
    assert log_e_rollout([], 2.0) == 0.0
    assert log_e_rollout([Stretch(7, {})], 2.0) <= 0.0  # spans before it were given up


def test_log_sum_of_large_and_endless() -> None:
    assert log_sum([1000.0, 1000.0]) == pytest.approx(1000.0 + log(2))
    assert log_sum([inf, 1.0]) == inf
    assert log_sum([]) == -inf


def test_wald_needs_309_answers_for_the_night_incident() -> None:
    # 3 % -> 8 % at 1e-4: log(10^4) / (0.08 log(8/3) + 0.92 log(0.92/0.97)) = 9.2103 / 0.029783.
    assert wald_events(0.03, 0.08, 1e-4) == pytest.approx(309.3, abs=0.1)
    # With a miss probability of 5 %: (0.95 log 9500 + 0.05 log(0.05 / 0.9999)) / 0.029783.
    assert wald_events(0.03, 0.08, 1e-4, 0.05) == pytest.approx(287.2, abs=0.2)
