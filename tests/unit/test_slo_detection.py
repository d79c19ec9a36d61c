"""A change in one arm: by hand, and calibrated on baselines that wobble."""

from __future__ import annotations

import doctest
from dataclasses import replace
from math import exp, log

import pytest

from slo import detection
from slo.artefact import QUANTILES, HourValue, IndicatorBaseline, Statistic
from slo.detection import (
    calibrated_threshold,
    cusum,
    gain,
    guaranteed_threshold,
    score_gain,
    usual_now,
    wobble,
    worse_share,
)
from slo.statistics import split_mix
from tests.slo_builders import AVAILABILITY, HALLUCINATION, SIMILARITY

WEEK = 7 * 24


def baseline(
    quantiles: dict[str, float], indicator: str = HALLUCINATION, hours: tuple[float, ...] = (), count: int = 336
) -> IndicatorBaseline:
    mean = quantiles["p50"]
    statistics = [Statistic(name, value, value, value) for name, value in {"mean": mean, **quantiles}.items()]
    profile = tuple(HourValue(hour, 2, value) for hour, value in enumerate(hours))
    return IndicatorBaseline(indicator, 3600.0, count, count * 2000, mean, tuple(statistics), profile)


STEADY = baseline(dict.fromkeys(QUANTILES, 0.03))
WOBBLY = baseline({"p05": 0.015, "p25": 0.024, "p50": 0.03, "p75": 0.036, "p90": 0.042, "p95": 0.045, "p99": 0.051})


def threshold(values: IndicatorBaseline, **changes: float) -> float:
    settings = {
        "usual": 0.03, "factor": 2.0, "events_per_s": 2000 / 3600, "length_s": 86_400.0, "false_alarm": 0.01, **changes,
    }  # fmt: skip
    return calibrated_threshold(values, **settings)  # type: ignore[arg-type]


def test_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(detection).failed == 0


def test_the_sum_by_hand() -> None:
    # Listening for 6 % where 3 % is usual: a bad event adds log 2, a good one takes log(0.97 / 0.94) away.
    bad, good = log(2), log(0.94 / 0.97)
    assert gain(3, 5, 0.03, 0.06) == pytest.approx(3 * bad + 5 * good)
    sum_now = 0.0
    for events in ((0, 10), (2, 0), (1, 3)):
        sum_now = cusum(sum_now, gain(*events, 0.03, 0.06))
    assert sum_now == pytest.approx(3 * bad + 3 * good)  # the ten good ones before are forgotten


def test_usual_traffic_is_a_fair_game_and_worse_traffic_a_winning_one() -> None:
    up, down = exp(gain(1, 0, 0.03, 0.06)), exp(gain(0, 1, 0.03, 0.06))
    assert 0.03 * up + 0.97 * down == pytest.approx(1.0)
    assert 0.08 * log(up) + 0.92 * log(down) > 0 > 0.03 * log(up) + 0.97 * log(down)


def test_what_is_listened_for_stays_between_usual_and_always() -> None:
    assert worse_share(0.03, 2.0) == 0.06
    assert worse_share(0.45, 3.0) == 0.9
    assert worse_share(0.5, 1.0) == pytest.approx(0.55)


def test_what_is_usual_at_this_hour() -> None:
    nights = baseline(dict.fromkeys(QUANTILES, 0.03), hours=tuple([0.05] * 6 + [0.03] * (WEEK - 6)))
    monday = 4 * 86_400.0  # hour 0 of the week
    assert usual_now(nights, monday).share == pytest.approx(0.05)
    assert usual_now(nights, monday + 6 * 3600).share == pytest.approx(0.03)
    assert usual_now(STEADY, monday).share == pytest.approx(0.03)  # no profile: of all hours
    assert usual_now(replace(STEADY, indicator=AVAILABILITY, overall=0.97), monday).share == pytest.approx(0.03)


def test_none_bad_is_not_never_bad() -> None:
    perfect = replace(baseline(dict.fromkeys(QUANTILES, 0.0)), event_count=1000)
    share = usual_now(perfect, 0.0).share
    assert share is not None
    assert 0.002 < share < 0.003  # Wilson's upper bound of 0 of 1,000


def test_scores_are_compared_with_a_low_hour() -> None:
    scores = baseline({**dict.fromkeys(QUANTILES, 0.9), "p05": 0.88}, indicator=SIMILARITY)
    usual = usual_now(scores, 0.0)
    assert (usual.share, usual.score) == (None, 0.88)
    # Ten scores of 0.1 where 0.9 is usual: 0.5 (9 - 1) less the price of their spread, here 0.
    assert score_gain(10, 1.0, 0.0, 0.9) == pytest.approx(4.0)
    assert score_gain(10, 9.0, 0.5, 0.9) < 0


def test_a_steady_baseline_needs_little_more_than_theory() -> None:
    needed = threshold(STEADY)
    assert guaranteed_threshold(17_280 / 0.01) <= needed < 20.0
    assert threshold(STEADY) == needed  # same input, same threshold


def test_a_wobbly_baseline_needs_more_and_a_stricter_promise_too() -> None:
    assert threshold(WOBBLY) > threshold(STEADY) + 5
    assert threshold(WOBBLY, false_alarm=0.001) > threshold(WOBBLY)


def test_a_profile_is_no_wobble() -> None:
    """The same values, once by chance and once because every day has hours like that."""
    hours = tuple(0.02 if hour % 24 < 12 else 0.04 for hour in range(WEEK))
    daily = {"p05": 0.02, "p25": 0.02, "p50": 0.03, "p75": 0.04, "p90": 0.04, "p95": 0.04, "p99": 0.04}
    by_chance, by_profile = baseline(daily), baseline(daily, hours=hours)
    assert wobble(by_chance)(0.9) == pytest.approx(4 / 3)
    assert wobble(by_profile)(0.9) < 1.15
    assert threshold(by_profile) < threshold(by_chance)


def test_wobble_of_what_should_be_high() -> None:
    up = {"p05": 0.955, "p25": 0.964, "p50": 0.97, "p75": 0.976, "p90": 0.982, "p95": 0.985, "p99": 0.991}
    found = wobble(baseline(up, indicator=AVAILABILITY))
    assert found(0.5) == pytest.approx(1.0)
    assert found(0.95) == pytest.approx(1.5)
    assert wobble(baseline(dict.fromkeys(QUANTILES, 0.0)))(0.9) == 1.0


@pytest.mark.parametrize("values", [STEADY, WOBBLY])
def test_healthy_days_of_that_wobble_raise_no_alarm_and_a_bad_release_does_in_minutes(
    values: IndicatorBaseline,
) -> None:
    """12 drawn days at 2,000 answers an hour, looked at each minute; then 8 % instead of 3 %."""
    needed, drawn, chance = threshold(values), wobble(values), split_mix(99)
    worse = worse_share(0.03, 2.0)

    def minute(share: float) -> float:
        bad = sum(chance() < share for _ in range(33))
        return gain(bad, 33 - bad, 0.03, worse)

    alarms = 0
    for _ in range(12):
        sum_now = highest = 0.0
        for _ in range(24):
            share = 0.03 * drawn(chance())
            for _ in range(60):
                sum_now = cusum(sum_now, minute(share))
                highest = max(highest, sum_now)
        alarms += highest >= needed
    assert alarms <= 1
    minutes, sum_now = 0, 0.0
    while sum_now < needed:
        sum_now = cusum(sum_now, minute(0.08))
        minutes += 1
    assert minutes <= 2 * needed / (33 * (0.08 * log(2) + 0.92 * log(0.94 / 0.97)))
