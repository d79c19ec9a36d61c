"""What must hold for every reading, verdict and release."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from slo.actions import ReleaseSnapshot, decide
from slo.artefact import Baseline, IndicatorBaseline, Statistic
from slo.evaluation import MAX_SUSPENDED_S, NOT_HELD, advance, evaluate, is_ticket, suspend
from slo.fair_share import FairShare
from slo.metric_names import INDICATORS
from slo.statistics import mean_interval, split_mix, wilson_lower, wilson_upper
from slo.thresholds import Known, Limit, limit_for
from slo.types import ActionKind, OnBreach, Reading, Slo, State, Threshold, Verdict, Window
from tests.slo_builders import AVAILABILITY, FAST, HALLUCINATION, P95, make_slo

COUNTS = st.integers(0, 5000)
STATES = st.sampled_from(State)
ORDER = {State.OK: 0, State.BREACH: 1}


@st.composite
def readings(draw: st.DrawFn) -> Reading:
    count = draw(COUNTS)
    return Reading(draw(st.integers(0, count)), count, coverage_ratio=draw(st.sampled_from([0.2, 0.5, 1.0])))


@st.composite
def verdicts(draw: st.DrawFn, state: State | None = None) -> Verdict:
    slo = make_slo(
        draw(st.sampled_from([HALLUCINATION, AVAILABILITY, P95])),
        name=draw(st.sampled_from("abc")),
        action=draw(st.sampled_from(OnBreach)),
        fast=FAST,
    )
    chosen = state or draw(STATES)
    return Verdict(
        slo, "r", chosen, None, draw(st.sampled_from([0.05, 0.9])), "why", reading=draw(readings()),
        firing=draw(st.booleans()), fast=draw(st.booleans()), fast_reading=draw(st.none() | readings()),
        evidence=draw(st.sampled_from([(), (("severity", "page"),), (("severity", "ticket"),)])),
    )  # fmt: skip


SNAPSHOTS = st.builds(
    ReleaseSnapshot,
    has_canary=st.booleans(),
    weight=st.sampled_from([0.0, 0.1, 1.0]),
    hold_satisfied=st.booleans(),
    events_satisfied=st.booleans(),
    unknown_for_s=st.floats(0, 1e6),
    sick=st.sampled_from(["", "", "loop lag"]),
    previous_known=st.booleans(),
    since_promotion_s=st.none() | st.floats(0, 1e6),
)


@given(st.integers(1, 5000), st.data())
def test_wilson_bounds_hold_the_estimate_and_stay_shares(count: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(0, count))
    lower, upper = wilson_lower(bad, count), wilson_upper(bad, count)
    assert 0.0 <= lower <= bad / count <= upper <= 1.0
    assert wilson_lower(count - bad, count) == 1 - upper or abs(wilson_lower(count - bad, count) - (1 - upper)) < 1e-12


@given(st.lists(st.floats(0, 100), min_size=2, max_size=50))
def test_the_interval_of_a_mean_holds_it(values: list[float]) -> None:
    interval = mean_interval(sum(values), sum(v * v for v in values), len(values))
    assert interval is not None
    assert interval.low <= interval.estimate <= interval.high


@given(readings(), readings(), st.floats(0, 1), st.sampled_from([HALLUCINATION, AVAILABILITY, P95]))
def test_the_fewer_events_the_less_is_said(reading: Reading, fast: Reading, limit: float, indicator: str) -> None:
    slo = make_slo(indicator, fast=FAST)
    verdict = evaluate(slo, "r", reading, fast, Limit(limit, "", ""))
    if reading.count < slo.min_events or reading.coverage_ratio < 0.5:
        assert verdict.fast or verdict.state is State.UNKNOWN
    if fast.count < FAST.min_events or fast.coverage_ratio < 0.5:
        assert not verdict.fast


@given(st.integers(400, 5000), st.data(), st.floats(0.001, 0.999), st.sampled_from([HALLUCINATION, AVAILABILITY, P95]))
def test_more_bad_events_never_look_better(count: int, data: st.DataObject, limit: float, indicator: str) -> None:
    fewer = data.draw(st.integers(0, count))
    more = data.draw(st.integers(fewer, count))
    slo, known = make_slo(indicator), Limit(limit, "", "")
    better = evaluate(slo, "r", Reading(fewer, count), None, known)
    worse = evaluate(slo, "r", Reading(more, count), None, known)
    assert ORDER[better.state] <= ORDER[worse.state]


@given(st.integers(400, 5000), st.data(), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_a_kinder_limit_never_convicts_more(count: int, data: st.DataObject, one: float, two: float) -> None:
    bad = data.draw(st.integers(0, count))
    strict, kind = sorted((one, two))
    reading = Reading(bad, count)
    convicted = evaluate(make_slo(), "r", reading, None, Limit(kind, "", "")).state
    assert ORDER[convicted] <= ORDER[evaluate(make_slo(), "r", reading, None, Limit(strict, "", "")).state]


@given(readings(), readings(), st.floats(0, 1))
def test_a_breach_is_past_its_limit_by_value_and_bound(reading: Reading, fast: Reading, limit: float) -> None:
    verdict = evaluate(make_slo(fast=FAST), "r", reading, fast, Limit(limit, "", ""))
    if verdict.state is State.BREACH:
        assert verdict.value is not None
        assert verdict.bound is not None
        assert verdict.threshold is not None
        assert verdict.threshold < verdict.bound <= verdict.value


@given(st.lists(verdicts(), max_size=5), st.lists(verdicts(), max_size=5), SNAPSHOTS)
def test_decisions_reduce_exposure_only_for_a_breach_and_advance_only_without_doubt(
    canary: list[Verdict], stable: list[Verdict], snapshot: ReleaseSnapshot
) -> None:
    action = decide(tuple(canary), tuple(stable), snapshot)
    judged = canary if snapshot.has_canary else stable
    firing = [v for v in judged if v.state is State.BREACH and v.firing]
    if action.kind in (ActionKind.ROLL_BACK, ActionKind.SHED):
        assert not snapshot.sick
        assert [v for v in firing if not is_ticket(v)]
    if action.kind is ActionKind.ROLL_BACK:
        assert not any(is_ticket(v) for v in action.verdicts)
        assert all(v.slo.action is OnBreach.ROLLBACK and v in firing for v in action.verdicts)
    if action.kind is ActionKind.ADVANCE:
        assert snapshot.has_canary
        assert snapshot.hold_satisfied
        assert snapshot.events_satisfied
        acting = [v for v in canary if v.slo.action is not OnBreach.TRACK]
        assert acting
        assert all(v.state is State.OK and not v.firing for v in acting)


@given(st.lists(verdicts(State.UNKNOWN), max_size=5), st.lists(verdicts(), max_size=5), SNAPSHOTS)
def test_unknown_never_acts(canary: list[Verdict], stable: list[Verdict], snapshot: ReleaseSnapshot) -> None:
    assert decide(tuple(canary), tuple(stable), replace(snapshot, has_canary=True)).kind is ActionKind.HOLD


@given(st.lists(verdicts(), max_size=5), SNAPSHOTS)
def test_what_stable_suffers_too_never_moves_the_pointer(both: list[Verdict], snapshot: ReleaseSnapshot) -> None:
    assume(len({v.slo.name for v in both}) == len(both))
    action = decide(tuple(both), tuple(both), replace(snapshot, has_canary=True))
    assert action.kind is not ActionKind.ROLL_BACK


@given(st.lists(st.tuples(st.floats(0, 500), STATES), max_size=40), st.floats(0, 900), st.floats(0, 900))
def test_a_rule_fires_only_on_or_shortly_after_a_breach(
    steps: list[tuple[float, State]], for_s: float, keep_s: float
) -> None:
    slo = make_slo(for_s=for_s, keep_firing_for_s=keep_s)
    held, now_s, breaches_s, run_s = NOT_HELD, 0.0, [], None
    for step_s, state in steps:
        now_s += step_s
        run_s = (now_s if run_s is None else run_s) if state is State.BREACH else None
        held, verdict = advance(held, Verdict(slo, "r", state, None, None, ""), now_s)
        if state is State.BREACH:
            breaches_s.append(now_s)
            assert run_s is not None
            if now_s - run_s >= for_s:
                assert verdict.firing
        if verdict.firing and state is not State.BREACH:
            assert breaches_s
            assert now_s - breaches_s[-1] < keep_s


SPAN_S = st.sampled_from([1.0, 20.0, 60.0, 61.0, 300.0]) | st.floats(0.1, 500)


@given(st.lists(st.tuples(SPAN_S, STATES, st.booleans()), max_size=40), st.sampled_from([0.0, 60.0, 600.0]))
def test_after_a_suspension_only_what_was_found_again_soon_counts(
    steps: list[tuple[float, State, bool]], for_s: float
) -> None:
    slo = make_slo(for_s=for_s, keep_firing_for_s=0.0)
    held, now_s, run_s, healthy_s, was_sick = NOT_HELD, 0.0, None, float("-inf"), False
    for step_s, state, sick in steps:
        now_s += step_s
        said = Verdict(slo, "r", state, None, None, "")
        if sick:
            was_sick = True
            held, verdict = suspend(held, said, now_s)
            assert verdict.state is State.UNKNOWN
            assert not verdict.firing
            continue
        if state is not State.BREACH:
            run_s = None
        elif run_s is None or (was_sick and now_s - healthy_s > MAX_SUSPENDED_S):
            run_s = now_s
        healthy_s, was_sick = now_s, False
        held, verdict = advance(held, said, now_s)
        assert verdict.state is state
        assert verdict.firing is (run_s is not None and now_s - run_s >= for_s)


@given(st.lists(st.tuples(st.floats(1, 30), STATES, st.booleans()), max_size=40), st.sampled_from([0.0, 60.0, 300.0]))
def test_short_suspensions_change_nothing_for_the_healthy_evaluations(
    steps: list[tuple[float, State, bool]], for_s: float
) -> None:
    slo = make_slo(for_s=for_s, keep_firing_for_s=100.0)
    held, plain, now_s = NOT_HELD, NOT_HELD, 0.0
    for step_s, state, sick_before in steps:
        now_s += step_s
        said = Verdict(slo, "r", state, None, None, "")
        if sick_before:
            held, _ = suspend(held, said, now_s - step_s / 2)
        held, verdict = advance(held, said, now_s)
        plain, expected = advance(plain, said, now_s)
        assert verdict == expected


FACTORS = st.floats(0.01, 10)


@given(st.floats(0.001, 1e5), FACTORS, FACTORS)
def test_a_larger_factor_gives_a_larger_limit(number: float, one: float, two: float) -> None:
    low, high = sorted((one, two))

    def limit(factor: float) -> float:
        value = limit_for(_slo("limit", {"limit": number, "factor": factor})).value
        assert value is not None
        return value

    assert limit(low) <= limit(high)


@given(st.floats(1, 1e6), st.floats(1, 1e9), FACTORS)
def test_a_budget_limit_spends_the_budget_times_the_factor(budget: float, requests: float, factor: float) -> None:
    value = limit_for(_slo("budget", {"budget_usd": budget, "requests": requests, "factor": factor})).value
    assert value is not None
    assert abs(value * requests - budget * factor) <= 1e-9 * budget * factor


@given(st.sampled_from(["baseline", "current", "previous"]))
def test_a_relative_rule_without_a_baseline_has_no_limit(form: str) -> None:
    limit = limit_for(_slo(form, {form: "p95", "factor": 1.5}))
    assert limit.value is None
    assert "baseline" in limit.reason


SHARES = ["sft_quality_zero_hit_rate", HALLUCINATION, AVAILABILITY, "sft_quality_thumbs_up_rate"]


@given(
    st.sampled_from(SHARES), st.sampled_from(["baseline", "previous", "current"]), st.floats(0, 1), st.floats(0.5, 3),
    st.integers(0, 10**6), st.data(),
)  # fmt: skip
def test_a_relative_share_limit_is_never_stricter_than_its_statistic_nor_impossible(
    indicator: str, form: str, p95: float, factor: float, count: int, data: st.DataObject
) -> None:
    overall = data.draw(st.integers(0, count)) / count if count else 0.0
    values = IndicatorBaseline(indicator, 3600.0, 100, count, overall, (Statistic("p95", 0.0, p95, 1.0),))
    known = Baseline(0.0, 1e9, 0.0, 1.0, 8.0, 3600.0, count, (values,))
    word = "mean" if form == "current" else "p95"
    slo = Slo("rule", indicator, Window(3600.0), Threshold(form, {form: word, "factor": factor}))
    limit = limit_for(slo, Known(1.0, known, known))
    before = min(1.0, (overall if form == "current" else p95) * factor)
    assert limit.value is not None
    assert 0.0 <= limit.value <= 1.0
    if INDICATORS[indicator].worse == "up":
        assert limit.value >= before
        assert limit.value > 0.0
        assert ("raised" in limit.source) is (limit.value > before)
    else:
        assert limit.value <= before
        assert limit.value < 1.0
        assert ("lowered" in limit.source) is (limit.value < before)


def _slo(form: str, params: dict[str, float | str]) -> Slo:
    return Slo("rule", P95, Window(3600.0), Threshold(form, params))


@given(st.integers(0, 2**32), st.floats(0.1, 0.95), st.floats(0.02, 2))
def test_no_tenant_weighs_much_more_than_a_fifth(seed: int, flood_ratio: float, every_s: float) -> None:
    share, chance = FairShare(), split_mix(seed)
    weights = {"flood": 0.0}
    for number in range(400):
        tenant = "flood" if chance() < flood_ratio else f"t{int(chance() * 10)}"
        weights[tenant] = weights.get(tenant, 0.0) + share.weight(tenant, number * every_s)
    # Before six tenants were seen, and up to the floor of each span, everybody counts fully.
    before = 25 / (1 - flood_ratio)
    assert weights["flood"] <= 0.25 * (sum(weights.values()) - weights["flood"]) + 20 + before
    assert all(weight >= 0 for weight in weights.values())
