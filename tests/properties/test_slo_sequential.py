"""What makes looking at every moment legal: exact enumeration, coverage by simulation, monotony."""

from __future__ import annotations

from itertools import product
from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slo.confidence import ScoreSums, guess, mean_bounds, share_bounds
from slo.sequential import Stretch, canary_share_limit, log_e_above, log_e_rollout, log_e_two_arms
from slo.statistics import split_mix

WEIGHTS = st.floats(0.01, 0.99)
FACTORS = st.floats(1.0, 5.0)
COUNTS = st.integers(0, 500)


@given(st.floats(0.05, 0.9), st.floats(0.0, 1.0), st.integers(0, 30), st.integers(0, 30))
def test_money_never_grows_on_average_under_the_null(limit: float, part: float, bad: int, good: int) -> None:
    """One more event from anywhere: the mean over its two outcomes is at most what is there now."""
    truth = limit * part
    now = log_e_above(bad, good, limit)
    up, down = log_e_above(bad + 1, good, limit) - now, log_e_above(bad, good + 1, limit) - now
    assert truth * exp(up) + (1 - truth) * exp(down) <= 1 + 1e-9


@pytest.mark.parametrize("truth", [0.05, 2 / 11])
def test_money_over_all_paths_of_twelve_events_is_at_most_one(truth: float) -> None:
    mean = worst = 0.0
    for path in product((0, 1), repeat=12):
        chance = truth ** sum(path) * (1 - truth) ** (12 - sum(path))
        logs = [log_e_above(sum(path[:n]), n - sum(path[:n]), 2 / 11) for n in range(1, 13)]
        mean += chance * exp(logs[-1])
        worst += chance * (max(logs) >= log(20))
    assert mean <= 1 + 1e-9
    assert worst <= 1 / 20  # Ville: ever above 20, with probability at most 1/20


@pytest.mark.parametrize("weights", [(0.1, 0.3), (0.3, 0.1), (0.5, 0.9)])
def test_changing_weights_and_spans_keep_the_game_fair(weights: tuple[float, float]) -> None:
    """All paths of five bad events at one weight and five at another, in two spans, at exactly twice as bad."""
    first, second = (canary_share_limit(weight, 2.0) for weight in weights)
    mean = 0.0
    for mine, others in product(range(6), repeat=2):
        chance = _binomial(5, mine, first) * _binomial(5, others, second)
        spans = [Stretch(0, {weights[0]: (mine, 5 - mine)}), Stretch(1, {weights[1]: (others, 5 - others)})]
        mean += chance * exp(log_e_rollout(spans, 2.0))
    assert mean == pytest.approx(1.0, abs=1e-9)


def _binomial(count: int, hits: int, p: float) -> float:
    ways = 1.0
    for step in range(hits):
        ways = ways * (count - step) / (step + 1)
    return ways * p**hits * (1 - p) ** (count - hits)


@given(COUNTS, COUNTS, WEIGHTS, FACTORS)
def test_more_bad_of_the_canary_is_more_evidence_and_of_stable_less(
    canary: int, stable: int, weight: float, factor: float
) -> None:
    now = log_e_two_arms(canary, stable, weight, factor)
    assert log_e_two_arms(canary, stable + 1, weight, factor) <= now + 1e-9
    assert log_e_two_arms(canary + 1, stable, weight, factor) >= now - 1e-9 or canary / (canary + stable + 1) < weight


@given(COUNTS, COUNTS, WEIGHTS)
def test_a_larger_tolerance_never_convicts_sooner(canary: int, stable: int, weight: float) -> None:
    strict, lenient = (log_e_two_arms(canary, stable, weight, factor) for factor in (1.5, 3.0))
    assert lenient <= max(strict, 0.0) + 1e-9


@given(st.integers(0, 2000), st.integers(1, 2000), st.sampled_from([0.1, 0.01]))
def test_bounds_hold_the_share_seen_and_tighten_with_alpha(bad: int, more: int, alpha: float) -> None:
    count = bad + more
    bounds, wide = share_bounds(bad, count, alpha), share_bounds(bad, count, alpha / 10)
    assert 0.0 <= wide.low <= bounds.low <= bad / count <= bounds.high <= wide.high <= 1.0


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=50))
def test_bounds_of_scores_hold_their_mean(scores: list[float]) -> None:
    sums = _sums(scores)
    bounds = mean_bounds(sums, 0.05)
    assert sums.mean is not None
    assert 0.0 <= bounds.low <= sums.mean <= bounds.high <= 1.0


def _sums(scores: list[float]) -> ScoreSums:
    total = spread = 0.0
    for count, score in enumerate(scores):
        spread += (score - guess(total, count)) ** 2
        total += score
    return ScoreSums(len(scores), total, spread)


@pytest.mark.parametrize("share", [0.002, 0.03, 0.5])
def test_a_share_leaves_its_bounds_at_any_time_less_often_than_alpha(share: float) -> None:
    """200 paths of 1,000 events, looked at after every tenth, at alpha = 0.1. Seeded: the same on every machine."""
    left = 0
    for seed in range(200):
        chance, bad = split_mix(seed), 0
        for count in range(1, 1001):
            bad += chance() < share
            if count % 10 == 0:
                bounds = share_bounds(bad, count, 0.1)
                if not bounds.low <= share <= bounds.high:
                    left += 1
                    break
    assert left <= 20


@pytest.mark.parametrize("mean", [0.9, 0.5])
def test_a_mean_leaves_its_bounds_at_any_time_less_often_than_alpha(mean: float) -> None:
    """Scores of 0 or 1 vary most for their mean; 300 paths of 1,000."""
    left = 0
    for seed in range(300):
        chance, total, spread = split_mix(1000 + seed), 0.0, 0.0
        for count in range(1000):
            score = float(chance() < mean)
            spread += (score - guess(total, count)) ** 2
            total += score
            if count % 10 == 9:
                bounds = mean_bounds(ScoreSums(count + 1.0, total, spread), 0.1)
                if not bounds.low <= mean <= bounds.high:
                    left += 1
                    break
    assert left <= 30


@pytest.mark.parametrize("base", [0.03, 0.2])
def test_a_canary_exactly_twice_as_bad_is_rarely_convicted(base: float) -> None:
    """200 rollouts of 1,500 answers at 20 %, looked at after each bad one; alpha 0.1. Shares need not be small."""
    convicted = 0
    for seed in range(200):
        chance = split_mix(seed)
        bad = [0, 0]
        for _ in range(1500):
            canary = chance() < 0.2
            if chance() < base * (2 if canary else 1):
                bad[not canary] += 1
                if log_e_two_arms(bad[0], bad[1], 0.2, 2.0) >= log(10):
                    convicted += 1
                    break
    assert convicted <= 20
