"""Bounds, quantiles and bootstrap against numbers computed elsewhere."""

from __future__ import annotations

import doctest
import importlib

import pytest

from slo.statistics import (
    bootstrap_intervals,
    mean_interval,
    quantile,
    split_mix,
    t_quantile_95,
    wilson_lower,
    wilson_upper,
)

DOCUMENTED = (
    "statistics",
    "wording",
    "evaluation",
    "thresholds",
    "artefact",
    "actions",
    "spec",
    "errors",
    "codec",
    "types",
    "betas",
    "sequential",
    "confidence",
    "spec_fields",
)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_examples_in_docstrings_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"slo.{name}"))
    assert result.failed == 0


@pytest.mark.parametrize(
    ("bad", "count", "lower", "upper"),
    [
        # References: scipy.stats.binomtest(bad, count).proportion_ci(0.90, 'wilson').
        (10, 100, 0.060719, 0.160356),
        (0, 400, 0.0, 0.006718),
        (400, 400, 0.993282, 1.0),
        (1, 2, 0.120866, 0.879134),
    ],
)
def test_wilson_bounds_are_those_of_scipy(bad: int, count: int, lower: float, upper: float) -> None:
    assert wilson_lower(bad, count) == pytest.approx(lower, abs=2e-6)
    assert wilson_upper(bad, count) == pytest.approx(upper, abs=2e-6)


@pytest.mark.parametrize(("freedom", "expected"), [(3, 2.3534), (5, 2.0150), (10, 1.8125), (30, 1.6973), (399, 1.6487)])
def test_t_quantiles_are_those_of_the_printed_table(freedom: int, expected: float) -> None:
    assert t_quantile_95(freedom) == pytest.approx(expected, abs=2e-3)


def test_three_values_never_convict_anybody() -> None:
    interval = mean_interval(value_sum=3.0, value_sq_sum=9.0, count=3)
    assert interval is not None
    assert (interval.low, interval.high) == (float("-inf"), float("inf"))


def test_mean_interval_of_one_to_five() -> None:
    # s^2 = 2.5, half = 2.1318 x sqrt(2.5 / 5) = 1.5074
    interval = mean_interval(value_sum=15.0, value_sq_sum=55.0, count=5)
    assert interval is not None
    assert interval.estimate == 3.0
    assert interval.low == pytest.approx(3 - 1.5074, abs=1e-3)
    assert interval.high == pytest.approx(3 + 1.5074, abs=1e-3)


def test_equal_values_have_no_spread_and_one_value_has_no_interval() -> None:
    interval = mean_interval(value_sum=0.3 * 7, value_sq_sum=0.09 * 7, count=7)
    assert interval is not None
    assert interval.low == interval.high == pytest.approx(0.3)
    assert mean_interval(1.0, 1.0, 1) is None


def test_quantile_refuses_no_values() -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_chance_is_the_published_sequence() -> None:
    # First outputs of SplitMix64 for seed 1234567: 6457827717110365317, 3203168211198807973.
    chance = split_mix(1234567)
    assert chance() == (6457827717110365317 >> 11) / (1 << 53)
    assert chance() == (3203168211198807973 >> 11) / (1 << 53)


def test_bootstrap_is_reproducible_and_holds_the_estimate() -> None:
    blocks = [[1.0, 2.0, 3.0], [2.0, 2.5], [], [9.0]]
    first = bootstrap_intervals(blocks, [lambda v: quantile(v, 0.5)], split_mix(1))
    assert first == bootstrap_intervals(blocks, [lambda v: quantile(v, 0.5)], split_mix(1))
    assert first[0].estimate == 2.25
    assert first[0].low <= 2.25 <= first[0].high
    assert first[0].low < first[0].high


def test_bootstrap_of_one_block_has_no_width() -> None:
    (interval,) = bootstrap_intervals([[1.0, 2.0]], [max], split_mix(1))
    assert (interval.low, interval.estimate, interval.high) == (2.0, 2.0, 2.0)
