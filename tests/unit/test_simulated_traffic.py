"""The traffic simulator: as many questions as asked for, as bad as asked for, read as the guard's own windows read."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.traffic.arrivals import Burst, Load, flat, random_bursts
from bench.traffic.behaviour import HEALTHY, Course, change
from bench.traffic.counting import Counts, arrivals, bad_of, draw
from bench.traffic.exchanges import exchanges
from bench.traffic.rulesets import HEALTHY_BY_PRESET, preset_rules
from bench.traffic.service import MONDAY_S
from bench.traffic.source import CountedSource, SummedWindows
from bench.traffic.upstream import Disturbance, Upstream, both, outages, wobbling
from guard.release.state import Phase
from slo.clock import HandClock
from slo.metric_names import INDICATORS
from slo.sources.memory import MemorySource
from slo.windows import Windows
from tests.scenarios.incidents import FINDS_NOTHING
from tests.scenarios.playing import NEW, begin, play

SLOS = preset_rules("support-faq")


@given(
    st.lists(st.tuples(st.floats(0.0, 4000.0), st.integers(1, 50), st.integers(0, 50)), max_size=60),
    st.sampled_from([10.0, 60.0, 600.0, 3600.0, 7200.0, 86_400.0, 2_592_000.0]),
    st.floats(0.0, 90_000.0),
)
def test_running_sums_read_as_the_windows_of_the_guard(
    events: list[tuple[float, int, int]], length_s: float, later_s: float
) -> None:
    summed, windows, now_s = SummedWindows(), Windows(), 0.0
    for gap_s, event_count, bad_count in events:
        now_s += gap_s
        summed.add_sums(now_s, event_count, min(bad_count, event_count), 0.5 * event_count, 0.25 * event_count)
        windows.add(now_s, min(bad_count, event_count), event_count, 0.5)
    for at_s in (now_s, now_s + later_s):
        mine, theirs = summed.reading(at_s, length_s), windows.reading(at_s, length_s)
        assert (mine.count, mine.bad_count) == (theirs.count, theirs.bad_count)
        assert mine.value_sum == pytest.approx(theirs.value_sum, abs=1e-6)
        assert mine.value_sq_sum == pytest.approx(theirs.value_sq_sum, abs=1e-6)


def test_the_week_adds_up_and_the_night_is_quiet() -> None:
    load = Load(10.0)
    hours = [load.rate(h * 3600.0) for h in range(168)]
    assert sum(hours) / 168 == pytest.approx(10.0, rel=0.01)
    assert max(hours) / min(hours) == pytest.approx(9.0 * 1.15 / 0.65, rel=0.05)
    assert Load(10.0, bursts=(Burst(5.0, 10.0, 3.0),)).rate(7.0) == pytest.approx(3.0 * load.rate(7.0))
    assert Load(10.0, bursts=(Burst(5.0, 10.0, 3.0),)).rate(10.0) == load.rate(10.0)


def test_counts_are_as_many_and_as_bad_as_asked_and_vary_more_than_independent_ones() -> None:
    chance = numpy.random.default_rng(1)
    asked = numpy.array([arrivals(chance, 20.0) for _ in range(4000)])
    assert asked.mean() == pytest.approx(20.0, rel=0.02)
    assert asked.var() / asked.mean() == pytest.approx(1.5, rel=0.1)
    drawn = [bad_of(chance, 200, 0.05) for _ in range(4000)]
    bad = numpy.array([count for count, _ in drawn])
    assert bad.mean() == pytest.approx(10.0, rel=0.02)
    assert bad.var() / (200 * 0.05 * 0.95) == pytest.approx(1.6, rel=0.1)
    assert sum(sessions for _, sessions in drawn) == pytest.approx(0.8 * bad.sum(), rel=0.02)
    assert (bad_of(chance, 0, 0.5), bad_of(chance, 7, 0.0), bad_of(chance, 7, 1.0)[0]) == ((0, 0), (0, 0), 7)


def test_counts_and_exchanges_say_the_same_to_the_source() -> None:
    """Two makers of traffic, one behaviour: every indicator reads alike within four standard errors."""
    behaviour = replace(HEALTHY, hallucination_ratio=0.08, zero_hit_ratio=0.05, failed_ratio=0.02, cache_hit_ratio=0.3)
    clock = HandClock(0.0, MONDAY_S)
    counted, exact = CountedSource(SLOS, clock), MemorySource(SLOS, clock, tenant_cap_ratio=None)
    chance = numpy.random.default_rng(2)
    limits = counted.limits_s()
    for step in range(1, 181):
        clock.at_s = 10.0 * step
        counted.count("r1", draw(chance, 50.0, behaviour, limits))
    made = exchanges(chance, flat(5.0), behaviour, from_s=-600.0, until_s=1800.0, release="r1", wall_origin_s=MONDAY_S)
    for exchange in made:
        clock.at_s = exchange.wall_s - MONDAY_S
        if clock.at_s > 0.0:
            exact.served(exchange)
            exact.checked(exchange)
    clock.at_s = 1800.0
    for slo in SLOS:
        if slo.name == "thumbs-up":  # thumbs come from the bot, not with the exchange
            continue
        mine, theirs = (source.reading(slo, "r1", 3600.0) for source in (counted, exact))
        assert mine.count == pytest.approx(theirs.count, rel=0.12), slo.name
        if INDICATORS[slo.indicator].kind == "mean":
            assert mine.mean == pytest.approx(theirs.mean, rel=0.02), slo.name
        else:
            share = mine.bad_count / mine.count
            error = (1.6 * 2 * max(share, 0.001) * (1 - share) / theirs.count) ** 0.5
            assert theirs.bad_count / theirs.count == pytest.approx(share, abs=4 * error), slo.name


def test_exchanges_have_sessions_tenants_streams_and_findings() -> None:
    chance = numpy.random.default_rng(3)
    made = list(exchanges(chance, flat(4.0), HEALTHY, from_s=0.0, until_s=900.0, release="r1", wall_origin_s=MONDAY_S))
    sessions = Counter(x.session for x in made)
    assert 2.0 < sum(sessions.values()) / len(sessions) < 4.0
    assert len({x.tenant for x in made}) == 6
    assert {x.stream for x in made} == {True, False}
    assert [x.wall_s for x in made] == sorted(x.wall_s for x in made)
    assert {f.check for x in made for f in x.findings} == {"zero_hit", "grounding", "similarity"}


def test_a_course_changes_at_once_along_a_ramp_and_for_a_while() -> None:
    course = Course(changes=(change(10.0, ramp_s=10.0, p50_s=1.2), change(30.0, until_s=40.0, failed_ratio=0.5)))
    assert [round(course.at(t).p50_s, 3) for t in (9.9, 15.0, 20.0, 99.0)] == [0.2, 0.7, 1.2, 1.2]
    assert [course.at(t).failed_ratio for t in (29.0, 30.0, 40.0)] == [0.001, 0.5, 0.001]
    with pytest.raises(TypeError, match="no halucination_ratio"):
        change(0.0, halucination_ratio=0.1)


def test_an_upstream_disturbs_in_order_and_never_twice_at_once() -> None:
    chance = numpy.random.default_rng(4)
    upstream = both(wobbling(chance, 10.0), outages(chance, 10.0, per_day=1.0))
    spells = upstream.disturbances
    assert len(spells) > 20
    assert all(a.until_s <= b.at_s for a, b in pairwise(spells))
    assert upstream.at(spells[3].at_s) == spells[3]
    assert Upstream((Disturbance(1.0, 2.0, 3.0),)).at(2.0).latency_factor == 1.0
    bursts = random_bursts(chance, 10.0)
    assert all(a.until_s < b.at_s for a, b in pairwise(bursts))


def test_the_same_seed_is_the_same_history() -> None:
    one, two, other = (play(FINDS_NOTHING, seed, faulty=True) for seed in (5, 5, 6))
    assert one.record.deeds == two.record.deeds
    assert one.record.deeds != other.record.deeds


def test_a_rolled_back_release_gets_no_traffic_and_healthy_presets_are_inside_their_limits() -> None:
    service = begin(FINDS_NOTHING, 1, faulty=True)
    service.run_until(1800.0)
    assert service.state.phase is Phase.ROLLED_BACK
    asked = service.source.reading(SLOS[0], NEW.release_id, 60.0).count
    assert asked == 0
    for name, behaviour in HEALTHY_BY_PRESET.items():
        limit = next(s for s in preset_rules(name) if s.name == "hallucination").threshold.params["absolute"]
        assert behaviour.hallucination_ratio <= 0.61 * float(limit)


def test_counts_of_nothing_are_nothing() -> None:
    assert draw(numpy.random.default_rng(1), 0.0, HEALTHY, {"p95": 0.5}) == Counts()
