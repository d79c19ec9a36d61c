"""Eight forms, each with its number and its words; relative ones with every reason to have none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slo.artefact import Baseline, HourValue, IndicatorBaseline, Measured, Statistic, hour_of_week
from slo.evaluation import evaluate
from slo.thresholds import Known, latency_bounds_s, limit_for
from slo.types import Reading, Slo, State
from tests.slo_builders import AVAILABILITY, COST, HALLUCINATION, P95, P99, SIMILARITY, make_slo

NOW_S = 1_750_000_000.0  # a Sunday, 15:06 UTC


def made(indicator: str, p95: float, window_s: float = 3600.0, **changes: object) -> Baseline:
    values = IndicatorBaseline(
        indicator,
        window_s,
        window_count=168,
        event_count=50_000,
        overall=p95 * 0.8,
        statistics=(Statistic("mean", 0.0, p95 * 0.5, 1.0), Statistic("p95", p95 * 0.9, p95, p95 * 1.1)),
        profile=(HourValue(hour_of_week(NOW_S), 3, p95 * 0.75), HourValue(1, 1, p95)),
    )
    baseline = Baseline(
        created_wall_s=NOW_S - 86_400.0,
        expires_wall_s=NOW_S + 29 * 86_400.0,
        first_wall_s=NOW_S - 9 * 86_400.0,
        last_wall_s=NOW_S - 86_400.0,
        days=8.0,
        window_s=window_s,
        exchange_count=50_000,
        indicators=(values,),
        embedder="mini-1",
        config_hash="c1",
        sha256="ab" * 32,
    )
    return replace(baseline, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("slo", "value", "words"),
    [
        (make_slo(P95, "limit", params={"limit": 4.3, "factor": 0.7}), 3.01, "4300 ms x 0.7"),
        (make_slo(P99, "sla", params={"sla": 2.0, "margin": 0.2}), 1.8, "2000 ms - 200 ms"),
        (make_slo(COST, "budget", params={"budget_usd": 3000.0, "requests": 60000.0, "factor": 1.2}), 0.06, "60000"),
        (make_slo(AVAILABILITY, "tier", params={"tier": "internal"}), 0.95, "internal"),
        (make_slo(AVAILABILITY, "tier", params={"tier": "general"}), 0.99, "general"),
        (make_slo(AVAILABILITY, "tier", params={"tier": "critical"}), 0.999, "critical"),
        (make_slo(HALLUCINATION, "absolute", params={"absolute": 0.05}), 0.05, "absolute"),
    ],
)
def test_forms_that_need_nothing_but_the_file(slo: Slo, value: float, words: str) -> None:
    limit = limit_for(slo)
    assert limit.value == pytest.approx(value, abs=1e-12)
    assert words in limit.source
    assert limit.reason == ""


BASELINE_RULE = make_slo(HALLUCINATION, "baseline", params={"baseline": "p95", "factor": 1.5})


def test_baseline_times_factor() -> None:
    limit = limit_for(BASELINE_RULE, Known(NOW_S, made(HALLUCINATION, 0.034)))
    assert limit.value == pytest.approx(0.051)
    assert limit.source.startswith(
        "p95 of the baseline x 1.5 (interval 3.06 % to 3.74 %, 168 windows, hash abababababab"
    )


def test_a_share_is_never_limited_above_one() -> None:
    assert limit_for(BASELINE_RULE, Known(NOW_S, made(HALLUCINATION, 0.9))).value == 1.0


def never(indicator: str, share: float, event_count: int, window_count: int = 100) -> Baseline:
    """A baseline whose every window had this share."""
    same = tuple(Statistic(name, share, share, share) for name in ("mean", "p05", "p95"))
    values = IndicatorBaseline(indicator, 3600.0, window_count, event_count, share, same)
    return replace(made(indicator, share), indicators=(values,))


ZERO_HIT = "sft_quality_zero_hit_rate"


def test_a_share_that_never_occurred_is_limited_by_what_the_events_can_tell() -> None:
    rule = make_slo(ZERO_HIT, "baseline", params={"baseline": "p95", "factor": 1.5})
    limit = limit_for(rule, Known(NOW_S, never(ZERO_HIT, 0.0, 50_000)))
    # Upper bound of 0 of n: z^2 / (n + z^2) = 2.705543 / 50002.705543 = 5.41079e-5, x 1.5.
    assert limit.value == pytest.approx(8.11619e-5, rel=1e-5)
    assert limit.source.endswith("), raised to 0.00812 %: the baseline's windows resolve no smaller share")
    assert evaluate(rule, "r1", Reading(1, 5000), None, limit).state is State.OK
    assert evaluate(rule, "r1", Reading(5, 5000), None, limit).state is State.BREACH


@pytest.mark.parametrize("form", ["baseline", "previous"])
@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_a_success_rate_is_never_limited_to_all(form: str, factor: float) -> None:
    rule = make_slo(AVAILABILITY, form, params={form: "p05", "factor": factor})
    perfect = never(AVAILABILITY, 1.0, 50_000)
    limit = limit_for(rule, Known(NOW_S, perfect, perfect))
    assert limit.value == pytest.approx(1 - 5.41079e-5, abs=1e-9)
    assert "lowered to 99.99459 %: the baseline's windows resolve no smaller share" in limit.source
    assert evaluate(rule, "r1", Reading(1, 5000), None, limit).state is State.OK


def test_a_limit_that_the_events_resolve_is_left_alone() -> None:
    rule = make_slo(ZERO_HIT, "baseline", params={"baseline": "p95", "factor": 1.5})
    limit = limit_for(rule, Known(NOW_S, made(ZERO_HIT, 0.034)))
    assert limit.value == pytest.approx(0.051)
    assert "raised" not in limit.source
    down = make_slo(AVAILABILITY, "baseline", params={"baseline": "p95", "factor": 0.7})
    lowered = limit_for(down, Known(NOW_S, made(AVAILABILITY, 0.99)))
    assert lowered.value == pytest.approx(0.99 * 0.8 * 0.7, abs=0.01)  # the overall value is below this p95


def test_an_evaluation_set_without_a_miss_does_not_forbid_the_first_one() -> None:
    rule = make_slo(ZERO_HIT, "current", params={"current": "mean", "factor": 1.2})
    clean = never(ZERO_HIT, 0.0, 50_000)
    sets = (Measured(ZERO_HIT, 0.0, 85, NOW_S),)
    limit = limit_for(rule, Known(NOW_S, replace(clean, measured=sets)))
    assert limit.value == pytest.approx(1.2 * 2.705543 / 87.705543, rel=1e-5)
    assert "the evaluation set resolves no smaller share" in limit.source
    assert "the baseline resolves no smaller share" in limit_for(rule, Known(NOW_S, clean)).source
    some = limit_for(rule, Known(NOW_S, replace(clean, measured=(Measured(ZERO_HIT, 0.1, 85, NOW_S),))))
    assert some.value == pytest.approx(0.12)
    assert "raised" not in some.source


def test_the_overall_value_stands_in_for_a_missing_evaluation_set() -> None:
    rule = make_slo(SIMILARITY, "current", params={"current": "mean", "factor": 0.9})
    limit = limit_for(rule, Known(NOW_S, made(SIMILARITY, 1.0)))
    assert limit.value == pytest.approx(0.72)
    assert "overall value, n 50000" in limit.source


def test_the_latest_evaluation_set_is_the_current_value() -> None:
    rule = make_slo(SIMILARITY, "current", params={"current": "mean", "factor": 0.9})
    sets = (Measured(SIMILARITY, 0.5, 85, 0.0), Measured(SIMILARITY, 0.8, 85, NOW_S), Measured(COST, 9.0, 1, NOW_S + 1))
    limit = limit_for(rule, Known(NOW_S, made(HALLUCINATION, 0.1, measured=sets)))
    assert limit.value == pytest.approx(0.72)
    assert "2025-06-15, n 85" in limit.source


def test_current_without_any_value_says_so() -> None:
    rule = make_slo(SIMILARITY, "current", params={"current": "mean", "factor": 0.9})
    limit = limit_for(rule, Known(NOW_S, made(HALLUCINATION, 0.1)))
    assert limit.value is None
    assert SIMILARITY in limit.reason


def test_previous_is_scaled_to_this_hour_of_the_week() -> None:
    rule = make_slo(P95, "previous", params={"previous": "p95", "factor": 1.2})
    previous = made(P95, 2.0)
    # This hour runs at 1.5 against a mean of 1.0: 2.0 x 1.5 x 1.2.
    assert limit_for(rule, Known(NOW_S, previous=previous)).value == pytest.approx(3.6)
    # The next one was never seen, Monday 01:00 only once: unscaled.
    other = limit_for(rule, Known(NOW_S + 3600.0, previous=previous))
    assert other.value == pytest.approx(2.4)
    assert "all hours" in other.source


def test_previous_does_not_care_for_the_config_but_for_its_own_baseline() -> None:
    rule = make_slo(P95, "previous", params={"previous": "p95", "factor": 1.2})
    assert limit_for(rule, Known(NOW_S, previous=made(P95, 2.0), config_hash="c2")).value is not None
    assert limit_for(rule, Known(NOW_S, baseline=made(P95, 2.0))).value is None


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (Known(NOW_S), "no baseline"),
        (Known(NOW_S, made(HALLUCINATION, 0.03, expires_wall_s=NOW_S - 3 * 86_400.0)), "expired 3.0 days ago"),
        (Known(NOW_S, made(HALLUCINATION, 0.03, created_wall_s=NOW_S + 301.0)), "in the future"),
        (Known(NOW_S, made(HALLUCINATION, 0.03), embedder="mini-2"), "embedder mini-1, now mini-2"),
        (Known(NOW_S, made(HALLUCINATION, 0.03), config_hash="c2"), "config c1, now c2"),
        (Known(NOW_S, made(P95, 2.0)), "no values of sft_quality_hallucination_rate"),
        (Known(NOW_S, made(HALLUCINATION, 0.03, window_s=900.0)), "windows of 15m, this rule uses 1h"),
    ],
)
def test_every_reason_why_a_baseline_cannot_be_used(known: Known, words: str) -> None:
    limit = limit_for(BASELINE_RULE, known)
    assert limit.value is None
    assert words in limit.reason


def test_a_statistic_that_is_not_kept_says_so() -> None:
    rule = make_slo(HALLUCINATION, "baseline", params={"baseline": "p99", "factor": 1.5})
    assert "keeps no p99" in limit_for(rule, Known(NOW_S, made(HALLUCINATION, 0.03))).reason


def test_a_latency_does_not_depend_on_the_embedder() -> None:
    rule = make_slo(P95, "baseline", params={"baseline": "p95", "factor": 1.5})
    assert limit_for(rule, Known(NOW_S, made(P95, 2.0), embedder="mini-2")).value == pytest.approx(3.0)


def test_a_forced_baseline_is_named_so() -> None:
    assert ", forced" in limit_for(BASELINE_RULE, Known(NOW_S, made(HALLUCINATION, 0.03, forced=True))).source


def test_latency_bounds_are_all_known_latency_limits() -> None:
    slos = (
        make_slo(P95, "limit", params={"limit": 4.3, "factor": 0.7}),
        make_slo(P99, "sla", params={"sla": 2.0, "margin": 0.2}),
        replace(make_slo(P99, "sla", params={"sla": 2.0, "margin": 0.2}), name="again"),
        make_slo(P95, "baseline", params={"baseline": "p95", "factor": 1.5}),
        BASELINE_RULE,
    )
    assert latency_bounds_s(slos) == (1.8, 3.01)
    assert latency_bounds_s(slos, Known(NOW_S, made(P95, 1.0))) == (1.5, 1.8, 3.01)
