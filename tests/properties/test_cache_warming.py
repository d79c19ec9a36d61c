"""Planner, hot keys, tightening, collapse: what must hold whatever comes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from guard.cache.collapse import CollapseRule, HitRatios
from guard.cache.hot import HotGroups
from guard.cache.savings import DAYS_COUNT, OTHER, RELEASES_PER_DAY_COUNT, Row, Savings, day_of
from guard.cache.tightening import CEILING, Strictness, false_hits, rechecked
from guard.cache.warming import Candidate, Ledger, Situation, Wait, WarmLimits, choose, sent, settled
from slo.statistics import wilson_lower

STEPS = st.lists(
    st.tuples(
        st.floats(0.0, 400.0),  # seconds until the next look
        st.booleans(),  # whether what is under way ends first
        st.floats(0.0, 1.0),  # what it cost of its estimate
        st.sampled_from(["", "shedding", "sick"]),
    ),
    max_size=60,
)
CANDIDATES = st.lists(
    st.builds(Candidate, st.text("abcdef", min_size=1, max_size=3), st.floats(0.0, 50.0), st.floats(0.0, 2.0)),
    max_size=12,
    unique_by=lambda c: c.key,
)
LIMITS = st.builds(
    WarmLimits, requests_per_minute=st.integers(1, 5), usd_per_hour=st.floats(0.0, 3.0), in_flight=st.integers(1, 3),
    for_s=st.just(3600.0),
)  # fmt: skip


@given(CANDIDATES, LIMITS, STEPS)
def test_no_minute_and_no_hour_ever_holds_more_than_its_budget(candidates, limits, steps):
    now_s, ledger, requests, spent = 0.0, Ledger(), [], []
    done: set[str] = set()
    for pause_s, ends, share, trouble in steps:
        now_s += pause_s
        if ends and ledger.reserved:
            key, estimate = ledger.reserved[0]
            spent.append((now_s, estimate * share))
            ledger = settled(ledger, key, estimate * share, now_s, failed=False)
        situation = Situation(now_s, 0.0, frozenset(done), trouble == "shedding", trouble == "sick")
        chosen, wait = choose(candidates, ledger, limits, situation)
        assert (chosen is None) == (wait is not Wait.NONE)
        if chosen is None:
            continue
        assert not trouble
        assert now_s < limits.for_s
        assert chosen.key not in done
        assert chosen.count >= limits.least_count
        done.add(chosen.key)
        ledger = sent(ledger, chosen, now_s, chosen.key)
        requests.append(now_s)
        assert len(ledger.reserved) <= limits.in_flight
        assert sum(1 for at in requests if now_s - at < 60.0) <= limits.requests_per_minute
        under_way = sum(u for _, u in ledger.reserved)
        assert sum(u for at, u in spent if now_s - at < 3600.0) + under_way <= limits.usd_per_hour + 1e-9


def test_the_hottest_goes_first_and_what_is_too_dear_makes_room_for_what_is_not():
    hot = [Candidate("a", 9.0, 0.5), Candidate("b", 5.0, 0.1), Candidate("c", 1.0, 0.0)]
    limits = WarmLimits(requests_per_minute=2, usd_per_hour=0.55, in_flight=5)
    ledger = Ledger()
    chosen, _ = choose(hot, ledger, limits, Situation(0.0, 0.0))
    assert chosen == hot[0]
    ledger = sent(ledger, hot[0], 0.0, "a")
    assert choose(hot, ledger, limits, Situation(1.0, 0.0, {"a"})) == (None, Wait.USD)
    ledger = settled(ledger, "a", 0.2, 2.0, failed=False)
    assert choose(hot, ledger, limits, Situation(2.0, 0.0, {"a"}))[0] == hot[1]
    ledger = sent(ledger, hot[1], 2.0, "b")
    # "c" was asked once only, and the minute is full anyway.
    assert choose(hot, ledger, limits, Situation(3.0, 0.0, {"a", "b"})) == (None, Wait.REQUESTS)
    assert choose(hot, ledger, limits, Situation(70.0, 0.0, {"a", "b"})) == (None, Wait.IDLE)
    assert choose(hot, ledger, limits, Situation(1800.0, 0.0)) == (None, Wait.OVER)


def test_a_failing_upstream_is_left_alone_for_a_while():
    ledger = settled(sent(Ledger(), Candidate("a", 5.0, None), 0.0, "a"), "a", None, 1.0, failed=True)
    hot = [Candidate("b", 5.0, None)]
    assert choose(hot, ledger, WarmLimits(), Situation(30.0, 0.0)) == (None, Wait.FAILING)
    assert choose(hot, ledger, WarmLimits(), Situation(61.0, 0.0))[0] == hot[0]


@given(st.lists(st.sampled_from("abcdefgh"), max_size=200), st.integers(1, 6))
def test_no_key_is_undercounted_and_no_heavy_one_is_missing(stream, capacity):
    hot, true = HotGroups[str, int](capacity, capacity, half_life_s=1e12), Counter(stream)
    for number, key in enumerate(stream):
        hot.seen("", key, number, 0.0)
    found = {h.key: h for h in hot.hottest(0.0)}
    assert len(found) <= capacity
    for key, h in found.items():
        assert h.count >= true[key] - 1e-6
        assert h.count - h.error <= true[key] + 1e-6
    assert all(key in found for key, n in true.items() if n > len(stream) / capacity)


def test_what_was_hot_yesterday_makes_room():
    hot = HotGroups[str, None](3, 3, half_life_s=3600.0)
    for _ in range(100):
        hot.seen("", "old", None, 0.0)
    for at_s in range(86_400, 86_410):
        hot.seen("", "new", None, float(at_s))
    first, second = hot.hottest(86_410.0)
    assert (first.key, round(first.count)) == ("new", 10)
    assert second.count < 0.001
    assert hot.hottest(86_410.0, least_count=2.0) == [first]
    # Far apart in time: the weights are brought back to scale, not lost.
    hot.seen("", "new", None, 86_400.0 * 400)
    assert hot.hottest(86_400.0 * 400)[0].count == 1.0


def test_a_full_group_gives_up_its_own_coldest_key_and_a_full_memory_the_coldest_of_all():
    groups = HotGroups[str, int](2, 3, half_life_s=60.0)
    for group, key in ("a", "a1"), ("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"):
        groups.seen(group, key, 1, 0.0)
    # a3 took the place of a2, and may have been there as often as that.
    assert [(h.key, h.count, h.error) for h in groups.hottest(0.0)] == [
        ("a1", 2.0, 0.0), ("a3", 2.0, 1.0), ("b1", 1.0, 0.0),
    ]  # fmt: skip
    groups.seen("c", "c1", 1, 0.0)
    assert [h.key for h in groups.hottest(0.0)] == ["a1", "a3", "c1"]
    groups.learn("c", "c1", 7)
    groups.learn("b", "b1", 7)
    assert {h.key: h.value for h in groups.hottest(0.0)} == {"a1": 1, "a3": 1, "c1": 7}


GROUPED = st.lists(
    st.tuples(st.sampled_from("ABCDE"), st.sampled_from("abcd"), st.floats(0.0, 2000.0)), max_size=250
)  # fmt: skip


@given(GROUPED, st.integers(1, 5), st.integers(1, 14))
def test_memory_is_bounded_over_all_groups_and_no_count_is_claimed_that_was_not_seen(stream, key_count, total_count):
    hot, now_s = HotGroups[str, int](key_count, total_count, half_life_s=60.0), 0.0
    seen: list[tuple[str, str, float]] = []
    for number, (group, key, pause_s) in enumerate(stream):
        now_s += pause_s
        seen.append((group, key, now_s))
        hot.seen(group, group + key, number, now_s)
        assert len(hot) == len(hot.hottest(now_s)) <= total_count
        assert len(hot._heap) <= 2 * total_count + 65
    per_group = Counter(h.key[0] for h in hot.hottest(now_s))
    assert all(count <= key_count for count in per_group.values())
    if seen:
        assert seen[-1][0] + seen[-1][1] in {h.key for h in hot.hottest(now_s)}
    for h in hot.hottest(now_s):
        true = sum(2.0 ** ((at_s - now_s) / 60.0) for group, key, at_s in seen if group + key == h.key)
        assert h.count - h.error <= true + 1e-6


@given(GROUPED, st.integers(1, 20))
def test_no_key_with_its_share_of_all_is_missing_however_many_groups_there_are(stream, total_count):
    hot, true = HotGroups[str, None](4, total_count, half_life_s=1e12), Counter(g + k for g, k, _ in stream)
    for group, key, _ in stream:
        hot.seen(group, group + key, None, 0.0)
    found = {h.key: h for h in hot.hottest(0.0)}
    assert all(key in found and found[key].count >= n for key, n in true.items() if n > len(stream) / total_count)


@given(st.lists(st.booleans(), max_size=300), st.floats(0.0, 0.2))
def test_a_threshold_only_rises_and_only_when_even_the_lower_bound_is_over_the_budget(outcomes, budget):
    state = Strictness(0.92)
    for wrong in outcomes:
        before, state = state, rechecked(state, wrong=wrong, budget_ratio=budget)
        assert state.threshold >= before.threshold
        assert not (before.off and not state.off)
        moved = state.threshold > before.threshold or state.off > before.off
        lower = wilson_lower(before.wrong + wrong, before.rechecked + 1)
        assert not moved or (wrong and lower > budget)
        if wrong and lower > budget and not before.off:
            assert moved
            assert state.off == (before.threshold >= CEILING)
    assert state.total_wrong == sum(outcomes)
    assert state.total_rechecked == len(outcomes)
    if not any(outcomes):
        assert state.threshold == 0.92


def test_it_is_switched_off_at_the_end_of_the_ladder():
    state, steps = Strictness(0.98), []
    for _ in range(12):
        state = rechecked(state, wrong=True, budget_ratio=0.2)
        steps.append((state.threshold, state.off))
    assert steps[:3] == [(0.99, False), (0.99, True), (0.99, True)]
    assert false_hits(Strictness(0.92)).estimate is None


def looked_up(ratios: HitRatios, release: str, at_s: float, hits: int, misses: int) -> None:
    for n in range(hits + misses):
        ratios.looked_up(release, at_s, hit=n < hits)


def test_a_release_that_loses_its_hits_is_a_collapse_and_one_that_keeps_them_is_not():
    ratios = HitRatios(CollapseRule(window_s=300.0, min_lookups=50, factor=0.5))
    looked_up(ratios, "old", 1000.0, 600, 400)
    looked_up(ratios, "new", 1300.0, 4, 45)
    assert ratios.collapse("new", "old", 1310.0) is None  # one lookup short of telling
    looked_up(ratios, "new", 1310.0, 0, 11)
    collapse = ratios.collapse("new", "old", 1310.0)
    assert collapse is not None
    assert (round(collapse.ratio, 3), collapse.before, collapse.lookups) == (0.067, 0.6, 60)
    looked_up(ratios, "new", 1700.0, 40, 30)
    assert ratios.collapse("new", "old", 1700.0) is None
    assert ratios.ratio("new", 1700.0) == 40 / 70


def test_the_same_release_is_compared_with_its_own_past():
    ratios = HitRatios()
    looked_up(ratios, "r", 1000.0, 60, 40)
    looked_up(ratios, "r", 2000.0, 1, 59)
    assert ratios.collapse("r", "", 2000.0) is not None
    assert ratios.ratio("unknown", 2000.0) is None


def test_savings_are_bounded_and_survive_being_written_down():
    savings = Savings()
    for day in range(DAYS_COUNT + 5):
        savings.row(day * 86_400.0, "r").hits += 1
    for n in range(RELEASES_PER_DAY_COUNT + 3):
        savings.row(86_400.0 * 1000, f"r{n}").saved_usd += 0.5
    rows = savings.rows()
    assert len({day for day, _, _ in rows}) == DAYS_COUNT
    assert {name for day, name, _ in rows if day == day_of(86_400.0 * 1000)} >= {OTHER, "r0"}
    again = Savings()
    again.load(savings.dump())
    assert again.dump() == savings.dump()
    again.load({"2026-01-01": {"r": {"hits": "many", "saved_usd": 1.5, "new_field": 3}}, "x": 3})
    assert [row for day, _, row in again.rows() if day == "2026-01-01"] == [Row(saved_usd=1.5)]


def test_what_it_would_have_cost_is_counted_from_what_was_spared():
    row = Row(hits=60, misses=40, saved_usd=6.0, spent_usd=4.0, warm_usd=0.5, misses_avoided=10, avoided_usd=1.0)
    assert row.hit_ratio == 0.6
    assert row.usd_without_cache == 10.0
    assert row.usd_without_warming == 5.0
    assert row.usd_with_warming == 4.5
