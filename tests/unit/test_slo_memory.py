"""What exchanges become in the windows of this process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slo.clock import HandClock
from slo.evaluation import evaluate
from slo.indicators import LATENCY, checked_votes, served_votes
from slo.sources.lives import FORMER_LIFE_S
from slo.sources.memory import MAX_RELEASES, MemorySource
from slo.spec import parse_slo, preset_text
from slo.thresholds import limit_for
from slo.types import CacheStatus, Exchange, Finding, Outcome, Reading, Slo, State, Threshold
from slo.windows import Windows
from tests.slo_builders import AVAILABILITY, COST, HALLUCINATION, P95, P99, SIMILARITY, found, make_exchange, make_slo

HTTP, LLM, ZERO_HIT, THUMBS, CACHE = (
    "sft_availability_http_error_rate", "sft_availability_llm_error_rate", "sft_quality_zero_hit_rate",
    "sft_quality_thumbs_up_rate", "sft_cache_hit_rate",
)  # fmt: skip


WALL_ORIGIN_S = 1_749_999_000.0


@pytest.fixture
def clock() -> HandClock:
    return HandClock(1000.0, WALL_ORIGIN_S)


def source_of(clock: HandClock, *slos: Slo) -> MemorySource:
    return MemorySource(slos, clock)


HIT, MISS = CacheStatus.HIT, CacheStatus.MISS


@pytest.mark.parametrize(
    ("changes", "votes"),
    [
        ({}, {HTTP: False, AVAILABILITY: False, LATENCY: False, LLM: False, COST: False}),
        ({"cache": MISS}, {HTTP: False, AVAILABILITY: False, LATENCY: False, LLM: False, COST: False, CACHE: True}),
        ({"cache": HIT}, {HTTP: False, AVAILABILITY: False, LATENCY: False, CACHE: False}),
        ({"outcome": Outcome.CANCELLED, "status": 200}, {COST: False}),
        ({"outcome": Outcome.CANCELLED, "cost_usd": None}, {}),
        ({"outcome": Outcome.CLIENT_ERROR, "status": 400, "cost_usd": None}, {HTTP: True}),
        ({"outcome": Outcome.CLIENT_ERROR, "status": 429, "reason": "throttled", "cost_usd": None}, {HTTP: True}),
        ({"outcome": Outcome.SERVER_ERROR, "status": 429, "reason": "throttled", "cost_usd": None}, {HTTP: True}),
        (
            {"outcome": Outcome.SERVER_ERROR, "status": 502, "cost_usd": None},
            {HTTP: True, AVAILABILITY: True, LATENCY: False, LLM: True},
        ),
        (
            {"outcome": Outcome.TIMEOUT, "status": 504, "cost_usd": None},
            {HTTP: True, AVAILABILITY: True, LATENCY: False, LLM: True},
        ),
        (
            {"outcome": Outcome.INCOMPLETE, "status": 200},
            {HTTP: False, AVAILABILITY: True, LATENCY: False, LLM: True, COST: False},
        ),
        ({"outcome": Outcome.BLOCKED, "status": 503}, {}),
        ({"cost_usd": None}, {HTTP: False, AVAILABILITY: False, LATENCY: False, LLM: False, COST: None}),
    ],
)
def test_what_each_outcome_says(changes: dict[str, object], votes: dict[str, bool | None]) -> None:
    assert {name: bad for name, bad, _ in served_votes(make_exchange(**changes))} == votes


@pytest.mark.parametrize(
    ("finding", "vote"),
    [
        (found("grounding", "fail", 0.2), (HALLUCINATION, True, None)),
        (found("grounding", "pass", 0.9), (HALLUCINATION, False, None)),
        (found("grounding", "skipped"), (HALLUCINATION, None, None)),
        (found("grounding", "unavailable"), (HALLUCINATION, None, None)),
        (found("similarity", "fail", 0.4), (SIMILARITY, False, 0.4)),
        (found("similarity", "pass"), (SIMILARITY, None, None)),
        (found("zero_hit", "fail"), (ZERO_HIT, True, None)),
    ],
)
def test_what_each_finding_says(finding: Finding, vote: tuple[str, bool | None, float | None]) -> None:
    assert checked_votes(make_exchange(findings=(finding, found("pii", "fail")))) == [vote]


@pytest.mark.parametrize("changes", [{"cache": HIT}, {"outcome": Outcome.INCOMPLETE}, {"outcome": Outcome.CANCELLED}])
def test_only_whole_fresh_answers_vote_on_quality(changes: dict[str, object]) -> None:
    assert checked_votes(make_exchange(findings=(found("grounding", "fail"),), **changes)) == []


def test_readings_are_per_release_and_fade(clock: HandClock) -> None:
    slo = make_slo(AVAILABILITY, window_s=60.0)
    source = source_of(clock, slo)
    for number in range(10):
        source.served(make_exchange(number, outcome=Outcome.SERVER_ERROR if number < 3 else Outcome.OK))
    source.served(make_exchange(release="r2"))
    assert source.reading(slo, "r1") == Reading(3, 10)
    assert source.reading(slo, "r2") == Reading(0, 1)
    assert source.reading(slo, "r9") == Reading(0, 0)
    clock.advance(70)
    assert source.reading(slo, "r1") == Reading(0, 0)
    assert source.reading(slo, "r1", 3600.0) == Reading(3, 10)


def test_latency_counts_requests_over_the_limit_of_each_objective(clock: HandClock) -> None:
    p95 = make_slo(P95, "absolute", name="p95", params={"absolute": 0.5})
    p99 = make_slo(P99, "sla", name="p99", params={"sla": 2.0, "margin": 0.2})
    source = source_of(clock, p95, p99)
    for number in range(100):
        source.served(make_exchange(number, duration_s=2.0 if number < 3 else 0.5 if number < 50 else 0.6))
    assert source.reading(p95, "r1").bad_count == 53  # exactly the limit is not over it
    assert source.reading(p99, "r1").bad_count == 3
    assert source.objective_value(p95, "r1") == pytest.approx(0.6, rel=0.01)
    assert source.objective_value(p99, "r1") == pytest.approx(2.0, rel=0.01)


def test_a_limit_from_a_baseline_is_counted_from_when_it_is_known_and_before(clock: HandClock) -> None:
    slo = make_slo(P95, "baseline", params={"baseline": "p95", "factor": 1.5})
    source = source_of(clock, slo)
    for number in range(100):
        source.served(make_exchange(number, duration_s=1.0 if number < 20 else 0.2))
    assert source.reading(slo, "r1") == Reading(0, 0)  # no limit, nothing to say
    source.set_limits({"rule": 0.8, "unheard-of": 3.0})
    assert (source.reading(slo, "r1").bad_count, source.reading(slo, "r1").count) == (20, 100)
    source.served(make_exchange(duration_s=0.9))
    assert source.reading(slo, "r1").bad_count == 21
    source.set_limits({"rule": 0.95})
    assert source.reading(slo, "r1").bad_count == 20  # not held against the old limit
    source.set_limits({"rule": None})
    assert source.reading(slo, "r1") == Reading(0, 0)


def test_coverage_is_the_judged_share_of_what_should_have_been(clock: HandClock) -> None:
    slo = make_slo(HALLUCINATION, min_events=1)
    source = source_of(clock, slo)
    for number in range(100):
        result = "pass" if number < 40 else "unavailable"
        source.checked(make_exchange(number, findings=(found("grounding", result),)))
    reading = source.reading(slo, "r1")
    assert (reading.count, reading.coverage_ratio) == (40, 0.4)
    assert evaluate(slo, "r1", reading, None, limit_for(slo)).state is State.UNKNOWN
    assert source.gauges() == []


def test_an_unpriced_model_makes_cost_unknown(clock: HandClock) -> None:
    slo = make_slo(COST, params={"absolute": 0.01}, min_events=1)
    source = source_of(clock, slo)
    for number in range(100):
        source.served(make_exchange(number, cost_usd=0.001 if number < 30 else None))
    assert source.reading(slo, "r1").coverage_ratio == 0.3


def test_retries_of_one_session_count_once_but_a_crowd_behind_one_name_counts(clock: HandClock) -> None:
    slo = make_slo(AVAILABILITY)
    source = source_of(clock, slo)
    broken = make_exchange(outcome=Outcome.SERVER_ERROR, session="s1")
    for _ in range(3):
        source.served(broken)
        clock.advance(2)
    assert source.reading(slo, "r1") == Reading(1, 1)
    clock.advance(10)
    source.served(broken)
    assert source.reading(slo, "r1") == Reading(2, 2)
    for number in range(100):
        source.served(replace(broken, exchange_id=str(number), session="everybody"))
    assert source.reading(slo, "r1").bad_count == 2 + 97
    for number in range(10):
        source.served(replace(broken, exchange_id=str(number), session=""))
    assert source.reading(slo, "r1").bad_count == 109


def test_troubled_sessions_are_remembered_within_bounds(clock: HandClock) -> None:
    source = source_of(clock, make_slo(AVAILABILITY))
    for number in range(6000):
        source.served(make_exchange(number, outcome=Outcome.TIMEOUT, session=f"s{number}"))
    assert len(source.shelf.releases["r1"].repeats) <= 4096
    assert source.reading(make_slo(AVAILABILITY), "r1").bad_count == 6000


def test_one_tenant_neither_causes_nor_hides_a_breach(clock: HandClock) -> None:
    slo = make_slo(AVAILABILITY, params={"absolute": 0.9})
    for flood_fails in (True, False):
        source = source_of(clock, slo)
        for number in range(4000):
            flood = number % 2 == 0
            failed = flood if flood_fails else not flood
            tenant = "flood" if flood else f"t{number % 40}"
            outcome = Outcome.SERVER_ERROR if failed else Outcome.OK
            source.served(make_exchange(number, outcome=outcome, tenant=tenant))
            clock.advance(0.05)
        share = source.reading(slo, "r1").bad_count / source.reading(slo, "r1").count
        assert share == pytest.approx(0.2 if flood_fails else 0.8, abs=0.02)


def test_objectives_of_a_route_read_only_that_route(clock: HandClock) -> None:
    everywhere, chat = make_slo(AVAILABILITY, name="all"), make_slo(AVAILABILITY, name="chat", routes=("chat",))
    slow = make_slo(P95, name="slow", routes=("ask",), params={"absolute": 0.1})
    source = source_of(clock, everywhere, chat, slow)
    for route in ("chat", "ask", "ask"):
        source.served(make_exchange(route=route))
    assert [source.reading(s, "r1").count for s in (everywhere, chat, slow)] == [3, 1, 2]
    assert source.reading(slow, "r1").bad_count == 2


def test_thumbs(clock: HandClock) -> None:
    slo = make_slo(THUMBS)
    source = source_of(clock, slo)
    for up in (True, True, True, False):
        source.feedback("r1", up)
    assert source.reading(slo, "r1") == Reading(1, 4)
    assert source.objective_value(slo, "r1") is None  # four thumbs are no value


def test_the_six_gauges_appear_with_twenty_events_in_border_units(clock: HandClock) -> None:
    source = MemorySource(parse_slo(preset_text("support-faq")).objectives, clock)

    def answer(number: int) -> None:
        findings = (found("grounding", "fail" if number == 0 else "pass"), found("similarity", "pass", 0.8))
        exchange = make_exchange(number, duration_s=0.4, cost_usd=0.0003, findings=findings)
        source.served(exchange)
        source.checked(exchange)

    for number in range(19):
        answer(number)
    assert source.gauges() == []
    answer(19)
    values = {name: value for name, release, value in source.gauges() if release == "r1"}
    assert values == {
        "sft_quality_hallucination_rate": 0.05,
        "sft_quality_similarity_score": pytest.approx(0.8),
        "sft_perf_latency_p95_ms": pytest.approx(400, rel=0.01),
        "sft_perf_latency_p99_ms": pytest.approx(400, rel=0.01),
        "sft_cost_inference_per_request_usd": pytest.approx(0.0003),
        "sft_availability_success_rate": 1.0,
    }


def test_a_gauge_goes_away_with_its_events(clock: HandClock) -> None:
    source = source_of(clock, make_slo(AVAILABILITY, window_s=60.0))
    for number in range(30):
        source.served(make_exchange(number))
    assert "sft_availability_success_rate" in {name for name, _, _ in source.gauges()}
    clock.advance(100)
    assert "sft_availability_success_rate" not in {name for name, _, _ in source.gauges()}


def test_releases_are_bounded(clock: HandClock) -> None:
    source = source_of(clock)
    for number in range(100):
        source.served(make_exchange(number, release=f"r{number}"))
    assert source.releases() == tuple(f"r{n}" for n in range(100 - MAX_RELEASES, 100))


def test_the_release_that_was_counted_least_recently_gives_way(clock: HandClock) -> None:
    source = source_of(clock, make_slo(AVAILABILITY))
    for number in range(MAX_RELEASES):
        source.served(make_exchange(release=f"r{number}"))
        clock.advance(1.0)
    source.served(make_exchange(release="r0"))  # the long-running stable
    clock.advance(1.0)
    source.feedback("r1", up=True)
    clock.advance(1.0)
    source.checked(make_exchange(release="r2", findings=(found("grounding", "pass"),)))
    clock.advance(1.0)
    source.served(make_exchange(release="new"))
    assert set(source.releases()) == {"r0", "r1", "r2", "r4", "r5", "r6", "r7", "new"}


def test_a_forgotten_release_starts_again_from_nothing(clock: HandClock) -> None:
    slo = make_slo(AVAILABILITY)
    source = source_of(clock, slo)
    broken = make_exchange(outcome=Outcome.SERVER_ERROR, session="s1", release="canary")
    source.served(broken)
    source.served(make_exchange())
    source.forget("canary")
    source.forget("never seen")
    assert source.releases() == ("r1",)
    assert source.reading(slo, "canary") == Reading(0, 0)
    again = make_exchange(outcome=Outcome.SERVER_ERROR, session="s1", release="canary", wall_s=clock.wall_s())
    source.served(again)  # no retry of what is forgotten
    assert source.reading(slo, "canary") == Reading(1, 1)
    assert source.reading(slo, "r1") == Reading(0, 1)


def test_what_began_before_a_release_did_anew_is_not_counted_for_it(clock: HandClock) -> None:
    slo = make_slo(HALLUCINATION)
    source = source_of(clock, slo)
    findings = (found("grounding", "fail"),)
    before = make_exchange(release="canary", wall_s=clock.wall_s(), findings=findings)
    unseen = (found("grounding", "skipped"),)
    source.served(before)
    clock.advance(5.0)
    source.forget("canary")
    clock.advance(1.0)
    source.checked(before)  # its checks come late
    source.served(before)  # or it ends now
    source.given_up([before], unseen)
    assert source.releases() == ()
    after = make_exchange(release="canary", wall_s=clock.wall_s(), findings=findings)
    source.checked(after)
    source.checked(before)
    assert source.reading(slo, "canary") == Reading(1, 1)


def test_a_clock_that_is_put_back_costs_minutes_and_not_the_release(clock: HandClock) -> None:
    slo = make_slo(AVAILABILITY)
    source = source_of(clock, slo)
    source.forget("canary")
    put_back = make_exchange(release="canary", wall_s=clock.wall_s() - 3600.0)
    source.served(put_back)
    assert source.reading(slo, "canary") == Reading(0, 0)
    clock.advance(FORMER_LIFE_S + 1.0)
    source.served(put_back)
    assert source.reading(slo, "canary") == Reading(0, 1)


def test_other_objectives_leave_what_was_counted_where_it_is(clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> None:
    recounts: list[float] = []
    recounted = Windows.recounted

    def noted(windows: Windows, limit: float) -> Windows:
        recounts.append(limit)
        return recounted(windows, limit)

    monkeypatch.setattr(Windows, "recounted", noted)
    stays = make_slo(P95, name="stays", params={"absolute": 0.5})
    relative = make_slo(P95, "baseline", name="relative", params={"baseline": "p95", "factor": 1.5})
    moves = make_slo(P99, name="moves", params={"absolute": 0.25})
    chat, ask = (make_slo(AVAILABILITY, name=name, routes=(name,)) for name in ("chat", "ask"))
    source = MemorySource((stays, relative, moves, chat), clock, {"relative": 0.65})
    for number in range(100):
        source.served(make_exchange(number, duration_s=0.1 + number % 7 / 10))
        clock.advance(30.0)
    books = source.shelf.releases["r1"].books
    kept = (books[()], books[()].over["stays"][1], books[()].over["relative"][1])
    monkeypatch.setattr(source, "load", None)  # nothing is written out and read back
    recounts.clear()

    moved = replace(moves, threshold=Threshold("absolute", {"absolute": 0.45}))
    extra = make_slo(P99, name="extra", params={"absolute": 0.35})
    source.replace_objectives((stays, relative, moved, extra, ask))
    books = source.shelf.releases["r1"].books
    assert (books[()], books[()].over["stays"][1], books[()].over["relative"][1]) == kept
    assert sorted(recounts) == [0.35, 0.45]
    assert sorted(books) == [(), ("ask",)]
    readings = {slo.name: source.reading(slo, "r1") for slo in (stays, relative, moved, extra)}
    # Of every seven: 0.1, 0.2 ... 0.7 s; 98 of them and 0.1, 0.2.
    assert {name: r.bad_count for name, r in readings.items()} == {
        "stays": 28, "relative": 14, "moves": 42, "extra": 56,
    }  # fmt: skip
    assert source.reading(ask, "r1") == Reading(0, 0)
    source.served(make_exchange(route="ask", duration_s=9.0))
    assert source.reading(ask, "r1") == Reading(0, 1)
    assert source.reading(moved, "r1").bad_count == 43
    source.replace_objectives((stays, moved))
    assert source.reading(relative, "r1") == Reading(0, 0)


def test_a_changed_rule_gives_up_the_limit_of_its_old_baseline(clock: HandClock) -> None:
    relative = make_slo(P95, "baseline", params={"baseline": "p95", "factor": 1.5})
    source = MemorySource((relative,), clock, {"rule": 0.3})
    source.served(make_exchange())
    changed = replace(relative, threshold=Threshold("baseline", {"baseline": "p95", "factor": 2.0}))
    source.replace_objectives((changed,))
    assert source.reading(changed, "r1") == Reading(0, 0)
    source.set_limits({"rule": 0.35})
    reading = source.reading(changed, "r1")
    assert (reading.bad_count, reading.count) == (1, 1)


def test_a_whole_outage_is_a_fast_breach_after_twenty_events(clock: HandClock) -> None:
    slo = parse_slo(preset_text("support-faq")).objectives[5]
    source = source_of(clock, slo)
    broken: Exchange = make_exchange(outcome=Outcome.SERVER_ERROR, status=502)
    assert slo.fast is not None
    states = []
    for _ in range(20):
        source.served(broken)
        clock.advance(0.2)
        fast = source.reading(slo, "r1", slo.fast.window.length_s)
        states.append(evaluate(slo, "r1", source.reading(slo, "r1"), fast, limit_for(slo)).state)
    assert states == [State.UNKNOWN] * 19 + [State.BREACH]
