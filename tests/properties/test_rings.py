"""A ring against a dict that keeps everything, and how much it takes whatever comes."""

from __future__ import annotations

import random
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from slo.rings import Bucket, PackedBins, Ring
from slo.running import SPARE
from slo.windows import RINGS, Windows

Step = tuple[str, int, float, float]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("add", "add", "add", "forget")),
        st.integers(-40, 40),
        st.sampled_from((1.0, 0.25, 300.0)),
        st.sampled_from((0.0, 0.5, 7.0)),
    ),
    max_size=60,
)


def events(count: float, value: float, *, quantiles: bool) -> Bucket:
    bucket = Bucket({int(value): count} if quantiles else None)
    bucket.count, bucket.bad, bucket.total, bucket.squares = count, count / 2, value * count, value * value * count
    return bucket


def seen(bucket: Bucket) -> tuple[float, ...]:
    return bucket.count, bucket.bad, bucket.total, bucket.squares, *sum(sorted((bucket.bins or {}).items()), ())


@given(STEPS, st.booleans(), st.integers(1, 30))
@settings(max_examples=150)
def test_a_ring_holds_what_a_dict_of_its_last_numbers_holds(steps: list[Step], quantiles: bool, count: int) -> None:
    ring, kept = Ring(count, quantiles=quantiles), dict[int, Bucket]()
    size_bytes = Ring(count, quantiles=quantiles).size_bytes
    for do, number, weight, value in steps:
        if do == "forget":
            ring.forget(number)
            kept = {n: b for n, b in kept.items() if n > number}
        elif not kept or number > max(kept) - count:
            ring.add(number, events(weight, value, quantiles=quantiles))
            kept.setdefault(number, Bucket({} if quantiles else None)).merge(events(weight, value, quantiles=quantiles))
            kept = {n: b for n, b in kept.items() if n > max(kept) - count}
        else:
            before = [(n, seen(b)) for n, b in ring.items()]
            ring.add(number, events(weight, value, quantiles=quantiles))  # too old to be read by anybody
            assert [(n, seen(b)) for n, b in ring.items()] == before
        assert [(n, seen(b)) for n, b in ring.items()] == [(n, seen(b)) for n, b in sorted(kept.items())]
        assert ring.newest == max(kept, default=None)
        assert len(ring) == len(kept) <= count
        assert all((n in ring) == (n in kept) for n in range(-45, 45))
        assert ring.size_bytes in (size_bytes, size_bytes + 16 * count)


@given(STEPS, st.integers(0, 30))
def test_a_copy_stays_what_it_was(steps: list[Step], at: int) -> None:
    ring, copy, was = Ring(12, quantiles=True), Ring(12, quantiles=True), list[tuple[int, tuple[float, ...]]]()
    for place, (do, number, weight, value) in enumerate(steps):
        if place == at:
            copy = ring.copy()
            was = [(n, seen(b)) for n, b in ring.items()]
        if do == "forget":
            ring.forget(number)
        else:
            ring.add(number, events(weight, value, quantiles=True))
    newest = copy.newest  # shared, and may have grown
    assert [row for row in ((n, seen(b)) for n, b in copy.items()) if row[0] != newest] == was[:-1]


def taken_bytes(packed: PackedBins) -> int:
    return sum(sys.getsizeof(getattr(packed, name)) for name in ("_counts", "_keys"))


def test_packed_bins_choose_the_shorter_way() -> None:
    near = dict.fromkeys(range(100, 400), 3.0)
    assert taken_bytes(PackedBins(near)) < 300 + 70  # one byte each
    assert taken_bytes(PackedBins({**near, 7: 300.0})) < 2 * 393 + 70
    far = {1: 2.0, 30_000: 5.0}
    assert taken_bytes(PackedBins(far)) < 90
    assert dict(PackedBins(far).items()) == far
    assert not PackedBins({})
    assert dict(PackedBins({5: 0.25}).items()) == {5: 0.25}


def test_thirty_days_of_a_ratio_take_no_more_than_their_first_minute() -> None:
    windows, dice = Windows(), random.Random(1)
    windows.add(0.0, 0.0, 1.0, 0.5)
    windows.add(11.0, 0.0, 1.0, 0.5)
    first_bytes = sum(ring.size_bytes for ring in windows._rings)
    for hour in range(30 * 24):
        for at in range(6):
            windows.add(3600.0 * hour + 600.0 * at, float(dice.random() < 0.1), 1.0, dice.random())
    assert sum(ring.size_bytes for ring in windows._rings) == first_bytes
    assert first_bytes <= 40 * sum(round(longest_s / width_s) + SPARE + 2 for width_s, longest_s in RINGS)
