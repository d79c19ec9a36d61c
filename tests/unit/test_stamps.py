"""Things seen before: what is remembered, and in how much memory."""

from __future__ import annotations

import sys

import pytest

from guard.lately import Lately
from guard.stamps import Stamps


def test_a_thing_is_known_until_enough_others_came() -> None:
    stamps = Stamps(2**17)
    size = stamps.size_bytes
    for number in range(25_000):
        assert stamps.seen(f"thing {number}", 1.0 + number) is None
    known = sum(stamps.seen(f"thing {number}", 30_000.0) == 1.0 + number for number in range(0, 25_000, 10))
    assert known >= 2_400  # the oldest of them are gone by one in 100
    for number in range(400_000):
        stamps.seen(number * 0x9E3779B97F4A7C15 % 2**61, 40_000.0 + number)
    assert stamps.size_bytes == size == 2 * 2**20
    assert sum(stamps.seen(f"thing {number}", 500_000.0) is not None for number in range(2_500)) < 300


def test_only_powers_of_two_are_a_size() -> None:
    for count in (0, 2, 1000):
        with pytest.raises(ValueError, match="power of two"):
            Stamps(count)
    with pytest.raises(ValueError, match="2 or more"):
        Lately[str, int](1)


def test_a_map_of_late_things_stays_bounded_and_keeps_the_latest_half() -> None:
    lately = Lately[int, str](1000)
    for number in range(12_345):
        lately[number] = str(number)
        assert len(lately) <= 1000
    assert all(lately.get(number) == str(number) for number in range(12_345 - 500, 12_345))
    assert lately.get(11_000) is None
    lately.discard(12_344)
    lately.discard(7)
    assert lately.get(12_344) is None
    assert sys.getsizeof(lately._young) + sys.getsizeof(lately._old) < 100_000
    assert len(dict(lately.items())) == len(lately)
