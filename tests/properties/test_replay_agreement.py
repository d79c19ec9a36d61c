"""Replay and sidecar agree: the same exchanges, live through `MemorySource` and recorded through the engine."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slo.clock import HandClock
from slo.codec import encode_exchange
from slo.evaluation import NOT_HELD, Held, advance, judge
from slo.indicators import COST, HTTP_ERRORS
from slo.replay import Lane, moments_of, replay, rules_of
from slo.screening import ASK, OK, UNKNOWN, sieve
from slo.sources.memory import MemorySource
from slo.thresholds import Limit
from slo.traffic import Quantity, Sums, Track, Traffic
from slo.types import CacheStatus, Exchange, FastPath, Outcome, Reading, Slo, State, Verdict, Window
from tests.slo_builders import AVAILABILITY, HALLUCINATION, P95, SIMILARITY, found, make_exchange, make_slo

BEGIN_S = 1_750_003_200.0

RULES = (
    make_slo(name="grounded", window_s=300.0, min_events=20, for_s=60.0, keep_firing_for_s=120.0, fast=FastPath()),
    make_slo(AVAILABILITY, name="success", window_s=600.0, min_events=30, params={"absolute": 0.95}),
    make_slo(AVAILABILITY, "tier", name="budget", params={"tier": "internal"}, min_events=20, burn_rate=True),
    make_slo(P95, name="slow", window_s=120.0, min_events=20, params={"absolute": 1.0}, for_s=20.0),
    make_slo(P95, name="slow-ask", window_s=7200.0, min_events=20, params={"absolute": 1.0}, routes=("ask",)),
    make_slo(SIMILARITY, name="alike", window_s=300.0, min_events=10, params={"absolute": 0.75}, for_s=30.0),
    make_slo(COST, name="cost", window_s=4000.0, min_events=10, params={"absolute": 0.0004}),
    make_slo(HTTP_ERRORS, name="http", window_s=60.0, min_events=5, params={"absolute": 0.05}, keep_firing_for_s=0.0),
)


def traffic_of(seed: int, minutes: int, per_minute: float, trouble: float) -> list[Exchange]:
    """Random traffic of two releases with a bad stretch in the middle, in the order in which it ends."""
    random = Random(seed)
    exchanges = []
    at_s, number = BEGIN_S, 0
    while (at_s := at_s + random.expovariate(per_minute / 60.0)) < BEGIN_S + minutes * 60.0:
        number += 1
        share = (at_s - BEGIN_S) / (minutes * 60.0)
        bad = trouble if 0.35 < share < 0.6 else 0.02
        canary = 0.3 < share < 0.8 and random.random() < 0.4
        outcome = random.choices(
            [Outcome.OK, Outcome.SERVER_ERROR, Outcome.TIMEOUT, Outcome.CLIENT_ERROR, Outcome.CANCELLED,
             Outcome.BLOCKED],
            [1 - bad, bad / 2, bad / 2, 0.03, 0.02, 0.01],
        )[0]  # fmt: skip
        status = {Outcome.OK: 200, Outcome.CANCELLED: 0, Outcome.CLIENT_ERROR: 400}.get(outcome, 502)
        findings = (
            found("grounding", random.choices(["pass", "fail", "unavailable"], [0.96 - bad, bad + 0.02, 0.02])[0]),
            found("similarity", "pass", round(random.uniform(0.7, 0.95) - bad / 3, 4)),
        )
        duration_s = round(random.lognormvariate(-0.9 + bad, 0.5), 3)
        # The end decides the tick, live and recorded; a thousandth from its border they could differ in a float.
        end_s = round(at_s, 2) // 10 * 10 + round(0.1 + 9.8 * random.random(), 3)
        exchanges.append(
            make_exchange(
                number, wall_s=round(end_s - duration_s, 3), duration_s=duration_s, outcome=outcome, status=status,
                release="r2" if canary else "r1", arm="canary" if canary else "stable",
                route=random.choice(["chat", "ask"]), session=random.choice(["", "s1", "s2", f"s{number // 4}"]),
                cache=random.choice(list(CacheStatus)), cost_usd=random.choice([None, 0.0003, 0.0006 * (1 + bad)]),
                findings=findings,
            )
        )  # fmt: skip
    return sorted(exchanges, key=lambda e: e.wall_s + e.duration_s)


def live(exchanges: Sequence[Exchange], slos: tuple[Slo, ...], lanes: Sequence[Lane], every_s: float) -> list[object]:
    """What the sidecar says: each firing (see `said`), and the seconds in each state."""
    clock = HandClock(BEGIN_S - 100.0)
    source = MemorySource(slos, clock)
    spans = {(lane.life.release, lane.life.arm): moments_of(lane.life, every_s, 10.0) for lane in lanes}
    held: dict[tuple[str, str, str], Held] = {}
    begun: dict[tuple[str, str, str], tuple[object, ...]] = {}
    firings: list[object] = []
    seconds: dict[tuple[str, str, str], dict[State, float]] = {}
    waiting = list(reversed(exchanges))
    first, last = min(s[0] for s in spans.values()), max(s[-1] for s in spans.values())
    for moment in range(first, last + 1, round(every_s / 10.0)):
        while waiting and waiting[-1].wall_s + waiting[-1].duration_s < moment * 10.0:
            exchange = waiting.pop()
            clock.at_s = exchange.wall_s + exchange.duration_s
            source.served(exchange)
            source.checked(exchange)
        clock.at_s = moment * 10.0 - 0.001
        for (release, arm), span in spans.items():
            if moment not in span:
                continue
            for slo in slos:
                key = (slo.name, release, arm)

                def read(length_s: float, slo: Slo = slo, release: str = release) -> Reading:
                    return source.reading(slo, release, length_s)

                limit = rules_of([slo])[0].limits[0]
                was = held.get(key, NOT_HELD)
                held[key], verdict = advance(was, judge(slo, release, read, limit), moment * 10.0)
                tally = seconds.setdefault(key, dict.fromkeys(State, 0.0))
                tally[verdict.state] += every_s
                if verdict.firing and key not in begun:
                    since_s = was.since_s if was.since_s is not None else moment * 10.0
                    begun[key] = said(since_s, moment * 10.0, verdict)
                elif not verdict.firing and key in begun:
                    firings.append((*key, *begun.pop(key), moment * 10.0))
    firings += [(*key, *start, None) for key, start in begun.items()]
    return [sorted(firings, key=str), seconds]


def said(since_s: float, start_s: float, verdict: Verdict) -> tuple[object, ...]:
    """Everything about the begin of a firing but the last digits of sums, which floats add in another order."""
    reading = verdict.reading
    assert reading is not None
    sums = round(reading.value_sum, 6), round(reading.value_sq_sum, 6), round(reading.coverage_ratio, 9)
    return since_s, start_s, verdict.fast, verdict.threshold, reading.bad_count, reading.count, *sums


def recorded(exchanges: Sequence[Exchange], slos: tuple[Slo, ...], every_s: float) -> list[Lane]:
    from slo.sources.log_table import open_log
    from slo.sources.log_ticks import read_traffic

    rules = rules_of(slos)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "exchanges-20250615T150640Z-0000.jsonl"
        path.write_bytes(b"\n".join(encode_exchange(e) for e in exchanges) + b"\n")
        with open_log([path], threads=1) as table:
            traffic = read_traffic(table, [rule.quantity for rule in rules])
    assert traffic.exchange_count == len(exchanges)
    return replay(traffic, rules, every_s)


@settings(max_examples=10)
@given(
    seed=st.integers(0, 10**6),
    minutes=st.integers(20, 90),
    per_minute=st.floats(3.0, 30.0),
    trouble=st.floats(0.02, 0.7),
    every_s=st.sampled_from([10.0, 10.0, 30.0]),
)
def test_replay_says_what_the_sidecar_said(
    seed: int, minutes: int, per_minute: float, trouble: float, every_s: float
) -> None:
    pytest.importorskip("duckdb", reason="needs the analysis extra: pip install 'sft-guard[analysis]'")
    exchanges = traffic_of(seed, minutes, per_minute, trouble)
    lanes = recorded(exchanges, RULES, every_s)
    firings = sorted(
        (
            (f.rule.slo.name, f.release, f.arm, *said(f.since_s, f.start_s, f.verdict), f.end_s)
            for lane in lanes
            for f in lane.firings
        ),
        key=str,
    )
    expected, seconds = live(exchanges, RULES, lanes, every_s)
    assert firings == expected
    for lane in lanes:
        mine = {State.OK: lane.ok_s, State.BREACH: lane.breach_s, State.UNKNOWN: lane.unknown_s}
        assert mine == seconds[lane.rule.slo.name, lane.life.release, lane.life.arm]  # type: ignore[index]


def test_the_random_traffic_makes_rules_of_every_kind_fire() -> None:
    """Else the comparison above would be one of empty lists."""
    pytest.importorskip("duckdb", reason="needs the analysis extra: pip install 'sft-guard[analysis]'")
    fired = {f.rule.slo.name for lane in recorded(traffic_of(1, 90, 20.0, 0.6), RULES, 10.0) for f in lane.firings}
    assert fired == {slo.name for slo in RULES}


@st.composite
def tracks(draw: st.DrawFn) -> Track:
    """A day in ticks of 10 s would be long: a hundred ticks with anything in them, silence included."""
    sums = []
    random = Random(draw(st.integers(0, 10**6)))
    bad_ratio, busy = draw(st.sampled_from([0.0, 0.03, 0.05, 0.3, 1.0])), draw(st.integers(0, 30))
    blind = draw(st.sampled_from([0.0, 0.0, 0.3, 0.6]))
    for _ in range(100):
        count = random.randint(0, busy)
        bad = sum(random.random() < bad_ratio for _ in range(count))
        unjudged = sum(random.random() < blind for _ in range(count))
        values = [random.uniform(0.6, 0.9) for _ in range(count)]
        sums.append(Sums(bad, count, sum(values), sum(v * v for v in values), unjudged))
    return Track(draw(st.integers(0, 3)), sums)


@settings(max_examples=150)
@given(
    track=tracks(),
    slo=st.sampled_from([*RULES, replace(RULES[0], min_events=1), replace(RULES[5], min_events=1),
                         replace(RULES[0], window=Window(60.0), min_events=5)]),
    value=st.sampled_from([None, 0.0, 0.05, 0.75, 0.95, 1.0]),
)  # fmt: skip
def test_the_sieve_never_misses_a_breach_and_never_takes_unknown_for_ok(
    track: Track, slo: Slo, value: float | None
) -> None:
    from slo.replay import Rule, verdict_at

    limit = Limit(value, "" if value is not None else "no limit", "test")
    moments = range(1, 104)
    marks = sieve(slo, limit, track, moments, 10.0)
    for moment, mark in zip(moments, marks, strict=True):
        state = verdict_at(10.0, Rule(slo, (limit,)), "r1", track, moment).state
        if mark == UNKNOWN:
            assert state is State.UNKNOWN
        elif mark == OK:
            assert state is State.OK
        else:
            assert mark == ASK


def test_the_sieve_lets_healthy_moments_pass_unasked() -> None:
    """Else it would be right and useless."""
    healthy = Track(0, [Sums(1, 100)] * 200)
    marks = sieve(RULES[0], Limit(0.05, "", ""), healthy, range(1, 200), 10.0)
    assert marks.count(OK) == 199


def test_a_quantity_without_a_track_is_silence() -> None:
    traffic = Traffic(10.0, (), {}, 0)
    assert traffic.track("r1", Quantity(HALLUCINATION)).reading(0, 100) == Reading(0, 0)
