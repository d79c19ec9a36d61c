"""Windows against a naive list of events."""

from __future__ import annotations

import json
import random
import tracemalloc
from itertools import islice
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slo.rings import PackedBins
from slo.types import Reading, add_readings
from slo.windows import COARSE_S, FINE_S, MIDDLE_S, RINGS, Windows, _row, join_parts

Event = tuple[float, bool, float]  # time, bad, value

LENGTHS_S = st.sampled_from([10.0, 60.0, 300.0, 900.0, 3600.0, 7200.0, 86_400.0, 3 * 86_400.0, 30 * 86_400.0])
STEPS_S = st.one_of(st.floats(0, 30), st.floats(0, 4000), st.floats(0, 200_000))
EVENTS = st.lists(st.tuples(STEPS_S, st.booleans(), st.floats(0.001, 100)), max_size=60)
ORIGINS_S = st.floats(-1e6, 1e9)


def timeline(origin_s: float, steps: list[Event]) -> list[Event]:
    now_s, events = origin_s, []
    for step_s, bad, value in steps:
        now_s += step_s
        events.append((now_s, bad, value))
    return events


def filled(events: list[Event], *, quantiles: bool = False) -> Windows:
    windows = Windows(quantiles=quantiles)
    for now_s, bad, value in events:
        windows.add(now_s, bad, 1, value)
    return windows


def width_s(length_s: float) -> float:
    return FINE_S if length_s <= 3600 else MIDDLE_S if length_s <= 86_400 else COARSE_S


def naive(events: list[Event], now_s: float, length_s: float) -> list[Event]:
    """All events in the buckets that the window covers."""
    width = width_s(length_s)
    first = floor(now_s / width) - round(length_s / width)
    return [event for event in events if floor(floor(event[0] / FINE_S) * FINE_S / width) > first]


@given(ORIGINS_S, EVENTS, st.floats(0, 100_000), LENGTHS_S)
def test_a_reading_is_what_a_list_would_say(
    origin_s: float, steps: list[Event], later_s: float, length_s: float
) -> None:
    events = timeline(origin_s, steps)
    now_s = (events[-1][0] if events else origin_s) + later_s
    reading = filled(events).reading(now_s, length_s)
    kept = naive(events, now_s, length_s)
    assert (reading.bad_count, reading.count) == (sum(e[1] for e in kept), len(kept))
    assert reading.value_sum == pytest.approx(sum(e[2] for e in kept))
    assert reading.value_sq_sum == pytest.approx(sum(e[2] ** 2 for e in kept))


SMALL_STEPS = st.lists(
    st.tuples(st.one_of(st.floats(0, 30), st.floats(0, 700)), st.booleans(), st.floats(0.001, 100)), max_size=40
)


@given(ORIGINS_S, SMALL_STEPS, st.lists(LENGTHS_S, min_size=1, max_size=3))
def test_readings_that_go_on_from_the_one_before_say_the_same_as_fresh_ones(
    origin_s: float, steps: list[Event], lengths_s: list[float]
) -> None:
    """Asked after every event, at several lengths, against windows that are asked for the first time."""
    events = timeline(origin_s, steps)
    asked = Windows(quantiles=True)
    for place, (now_s, bad, value) in enumerate(events):
        asked.add(now_s, bad, 1, value)
        fresh = filled(events[: place + 1], quantiles=True)
        for length_s in lengths_s:
            mine, theirs = asked.reading(now_s, length_s), fresh.reading(now_s, length_s)
            assert (mine.bad_count, mine.count) == (theirs.bad_count, theirs.count)
            assert mine.value_sum == pytest.approx(theirs.value_sum)
            assert mine.value_sq_sum == pytest.approx(theirs.value_sq_sum)
            assert asked.quantile(now_s, length_s, 0.95) == fresh.quantile(now_s, length_s, 0.95)


def test_sums_are_added_up_anew_before_rounding_piles_up() -> None:
    """One absurd value, and what a running sum loses to it: gone after at most 256 buckets."""
    windows = Windows()
    windows.add(0.0, 0, 1, 1e15)
    for tick in range(1, 720):
        windows.add(tick * 10.0, 0, 1, 0.3)
        reading = windows.reading(tick * 10.0, 600.0)
    assert reading.mean == pytest.approx(0.3)
    assert reading.value_sq_sum == pytest.approx(60 * 0.09)


def test_a_reading_of_the_past_is_no_reading_of_now() -> None:
    windows = Windows()
    for tick in range(100):
        windows.add(tick * 10.0, 0, 1)
    assert [windows.reading(now_s, 60.0).count for now_s in (990.0, 500.0, 990.0)] == [6, 55, 6]


@given(ORIGINS_S, EVENTS, st.floats(0, 100_000), LENGTHS_S)
def test_a_window_holds_all_that_is_young_and_nothing_that_is_old(
    origin_s: float, steps: list[Event], later_s: float, length_s: float
) -> None:
    events = timeline(origin_s, steps)
    now_s = (events[-1][0] if events else origin_s) + later_s
    width = width_s(length_s)
    count = filled(events).reading(now_s, length_s).count
    ages_s = [now_s - e[0] for e in events]
    assert sum(age < length_s - width - 1e-3 for age in ages_s) <= count
    assert count <= sum(age <= length_s + 1e-3 for age in ages_s)


@given(ORIGINS_S, EVENTS, EVENTS, LENGTHS_S)
def test_two_windows_read_together_like_one(
    origin_s: float, one: list[Event], two: list[Event], length_s: float
) -> None:
    first, second = timeline(origin_s, one), timeline(origin_s, two)
    both = sorted(first + second)
    now_s = both[-1][0] if both else origin_s
    together = filled(both).reading(now_s, length_s)
    apart = add_readings([filled(first).reading(now_s, length_s), filled(second).reading(now_s, length_s)])
    assert (apart.bad_count, apart.count) == (together.bad_count, together.count)
    assert apart.value_sum == pytest.approx(together.value_sum)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.floats(0, 1)), min_size=3, max_size=3))
def test_adding_readings_does_not_depend_on_the_grouping(parts: list[tuple[int, int, float]]) -> None:
    a, b, c = (Reading(bad, bad + good, coverage_ratio=ratio) for bad, good, ratio in parts)
    left, right = add_readings([add_readings([a, b]), c]), add_readings([a, add_readings([b, c])])
    assert (left.bad_count, left.count) == (right.bad_count, right.count)
    assert left.coverage_ratio == pytest.approx(right.coverage_ratio)


@given(ORIGINS_S, EVENTS, st.floats(0, 5000), st.booleans())
def test_a_dump_read_back_at_the_same_moment_is_the_same(
    origin_s: float, steps: list[Event], later_s: float, quantiles: bool
) -> None:
    # Below a second of origin per bucket the half millisecond of slack is far above float noise.
    events = timeline(origin_s, steps)
    now_s = (events[-1][0] if events else origin_s) + later_s
    before = filled(events, quantiles=quantiles)
    after = Windows.load(json.loads(json.dumps(before.dump(now_s))), now_s)
    for length_s in (60.0, 3600.0, 86_400.0, 30 * 86_400.0):
        old, new = before.reading(now_s, length_s), after.reading(now_s, length_s)
        assert (old.bad_count, old.count) == (new.bad_count, new.count)
        assert new.value_sum == pytest.approx(old.value_sum)
        if quantiles:
            assert before.quantile(now_s, length_s, 0.95) == after.quantile(now_s, length_s, 0.95)


@given(ORIGINS_S, EVENTS, EVENTS, st.integers(1, 60), st.booleans())
def test_parts_say_what_was_when_the_first_was_taken(
    origin_s: float, steps: list[Event], more: list[Event], max_cells: int, quantiles: bool
) -> None:
    events = timeline(origin_s, steps)
    now_s = events[-1][0] if events else origin_s
    windows = filled(events, quantiles=quantiles)
    before = {length_s: windows.reading(now_s, length_s) for length_s in (3600.0, 86_400.0, 30 * 86_400.0)}
    later, parts = iter(timeline(now_s, more)), []
    for part in windows.parts(now_s, max_cells):
        parts.append(json.loads(json.dumps(part)))
        for at_s, bad, value in islice(later, 3):  # another thread counts meanwhile
            windows.add(at_s, bad, 1, value)
    if not parts:
        assert not any(reading.count for reading in before.values())
        return
    joined = join_parts(parts)
    after = Windows.load(joined, now_s)
    for length_s, reading in before.items():
        found = after.reading(now_s, length_s)
        assert (found.bad_count, found.count) == (reading.bad_count, reading.count)
        assert found.value_sum == pytest.approx(reading.value_sum)
    for ring, (ring_width_s, longest_s) in zip(joined["rings"], RINGS, strict=True):
        assert all(row[0] < longest_s + ring_width_s for row in ring)


@given(ORIGINS_S, EVENTS, ORIGINS_S, st.floats(0, 100_000))
def test_a_dump_means_the_same_under_a_foreign_clock(
    origin_s: float, steps: list[Event], other_s: float, away_s: float
) -> None:
    events = timeline(origin_s, steps)
    now_s = events[-1][0] if events else origin_s
    after = Windows.load(filled(events).dump(now_s), other_s, away_s)
    for length_s in (3600.0, 86_400.0, 30 * 86_400.0):
        width = width_s(length_s)
        count = after.reading(other_s, length_s).count
        ages_s = [now_s - e[0] + away_s for e in events]
        assert sum(age < length_s - 2 * width - 1 for age in ages_s) <= count
        assert count <= sum(age <= length_s + width + 1 for age in ages_s)


@given(st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_one_percent_of_a_seen_value(values: list[float], q: float) -> None:
    windows = Windows(quantiles=True)
    for value in values:
        windows.add(5.0, 0, 1, value)
    exact = sorted(values)[int(q * (len(values) - 1))]
    assert windows.quantile(5.0, 60.0, q) == pytest.approx(exact, rel=0.0101)


@given(ORIGINS_S, EVENTS, st.floats(0.01, 50))
def test_a_recount_against_a_new_limit_is_right_away_from_the_limit(
    origin_s: float, steps: list[Event], limit: float
) -> None:
    events = [e for e in timeline(origin_s, steps) if abs(e[2] / limit - 1) > 0.03]
    now_s = events[-1][0] if events else origin_s
    counted = filled(events, quantiles=True).recounted(limit)
    for length_s in (60.0, 3600.0, 86_400.0):
        kept = naive(events, now_s, length_s)
        reading = counted.reading(now_s, length_s)
        assert (reading.bad_count, reading.count) == (sum(e[2] > limit for e in kept), len(kept))


@given(ORIGINS_S, st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_weights_never_give_more_bad_events_than_events(origin_s: float, weights: list[float]) -> None:
    windows = Windows()
    for weight in weights:
        windows.add(origin_s, weight, weight, 2.0)
    reading = windows.reading(origin_s, 60.0)
    assert reading.bad_count == reading.count == round(sum(weights))
    assert reading.mean is None or reading.mean == pytest.approx(2.0)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.001, 100)), min_size=1, max_size=50))
def test_a_recount_of_fractions_can_be_dumped_and_read_back(events: list[tuple[float, float]]) -> None:
    windows = Windows(quantiles=True)
    for weight, value in events:
        windows.add(5.0, 0.0, weight, value)
    recounted = windows.recounted(1e-6)  # all of them are over it, added up in another order
    assert Windows.load(recounted.dump(5.0), 5.0).reading(5.0, 60.0) == recounted.reading(5.0, 60.0)


class BusyBucket:
    """A bad event comes in at every look."""

    def __init__(self) -> None:
        self.events = 0
        self.total = self.squares = 0.0
        self.bins = None

    def _look(self) -> int:
        self.events += 1
        return self.events

    bad = count = property(_look)


def test_a_row_taken_while_events_come_in_is_never_impossible() -> None:
    _, count, bad, *_ = _row(0.0, BusyBucket())  # type: ignore[arg-type]
    assert bad <= count


def test_memory_is_bounded_by_the_rings() -> None:
    windows = Windows(quantiles=True)
    for hour in range(24 * 90):
        windows.add(hour * 3600.0, 0, 1, 0.5)
    assert sum(len(ring) for ring in windows._rings) <= 360 + 288 + 720 + 3


def test_quantiles_are_refused_where_none_are_kept() -> None:
    with pytest.raises(ValueError, match="without quantiles"):
        Windows().quantile(0.0, 60.0, 0.5)


@pytest.mark.parametrize("row", [[1.0, 1, 2, 0, 0], [1.0, -1, 0, 0, 0]])
def test_an_impossible_bucket_in_a_dump_is_refused(row: list[float]) -> None:
    with pytest.raises(ValueError, match="more bad events than events"):
        Windows.load({"quantiles": False, "rings": [[row], [], []], "open": []}, 0.0)


@given(st.dictionaries(st.integers(-1100, 35_000), st.floats(0.001, 1e6) | st.integers(1, 70_000).map(float)))
def test_packed_bins_are_the_bins(bins: dict[int, float]) -> None:
    assert dict(PackedBins(bins).items()) == bins


def test_an_hour_of_latencies_takes_less_than_a_mebibyte() -> None:
    """As dicts its bins took 7 MiB, for each release: most of what a guard grew by in its first hour."""
    windows, dice = Windows(quantiles=True), random.Random(1)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for bucket in range(360):
            for _ in range(200):
                windows.add(10.0 * bucket, 0.0, 1.0, dice.lognormvariate(-3.0, 1.0))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 2**20
