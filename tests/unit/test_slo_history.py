"""Since when it was bad: by hand, and on random courses with a known beginning."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from slo.history import Point, change_at, first_bad_s, thinned
from slo.windows import Windows


def course(*shares: float, count: int = 20, step_s: float = 10.0) -> list[Point]:
    return [Point(step_s * n, round(share * count), count) for n, share in enumerate(shares)]


def test_a_step_up_is_found_where_it_is() -> None:
    points = course(0.0, 0.05, 0.0, 0.5, 0.4, 0.5)
    assert change_at(points) == 3
    assert first_bad_s(points, 0.1) == 30.0


def test_a_step_down_is_worse_for_a_score() -> None:
    points = [Point(10.0 * n, 0, 30, mean) for n, mean in enumerate([0.9, 0.92, 0.4, 0.41])]
    assert change_at(points, worse_up=False) == 2
    assert change_at(points, worse_up=True) is None  # whatever comes later is lower
    assert first_bad_s(points, 0.8, worse_up=False) == 20.0


def test_bad_from_the_start_begins_at_the_start() -> None:
    assert first_bad_s(course(0.5, 0.4, 0.6, 0.5), 0.1) == 0.0  # never within the limit
    assert first_bad_s(course(0.0, 0.6, count=10), 0.1) == 0.0  # ten events say nothing about before
    assert first_bad_s([], 0.1) is None
    assert first_bad_s([Point(5.0, 0, 0), Point(15.0, 1, 2)], 0.1) == 15.0


@given(st.integers(0, 2**32), st.integers(3, 20), st.integers(3, 20))
def test_a_tripled_rate_is_dated_to_within_a_few_points(seed: int, before: int, after: int) -> None:
    chance = random.Random(seed)
    shares = [0.03] * before + [0.5] * after
    points = [Point(10.0 * n, sum(chance.random() < p for _ in range(60)), 60) for n, p in enumerate(shares)]
    found = first_bad_s(points, 0.1)
    assert found is not None
    assert abs(found - 10.0 * before) <= 10.0


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), max_size=60), st.integers(1, 30))
def test_thinning_loses_no_event(raw: list[tuple[int, int]], at_most: int) -> None:
    points = [Point(10.0 * n, min(bad, count), count) for n, (bad, count) in enumerate(raw)]
    few = thinned(points, at_most)
    assert len(few) <= at_most
    assert sum(p.count for p in few) == sum(p.count for p in points)
    assert sum(p.bad_count for p in few) == sum(p.bad_count for p in points)
    assert [p.wall_s for p in few] == sorted(p.wall_s for p in few)


def test_windows_give_their_buckets_back() -> None:
    windows = Windows()
    windows.add(5.0, 1, 1, 0.5)
    windows.add(12.0, 0, 1, 1.0)
    windows.add(14.0, 1, 1, 3.0)
    assert windows.history(20.0, 3600.0) == [(20.0, 1, 1, 0.5), (10.0, 1, 2, 4.0)]
    assert windows.history(20.0, 10.0) == []  # the window of ten seconds ends now and holds nothing
    assert [row[1:] for row in windows.history(4000.0, 3600.0)] == []
    assert [row[2] for row in windows.history(4000.0, 86_400.0)] == [3]
    assert Windows().history(0.0, 60.0) == []
