"""Flat tables: what they say, how long they remember, and that they never take more than at the start."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.cache.met import NAMESPACES_COUNT, MetKeys
from guard.cache.types import CacheKey, Namespace, key_in
from guard.slots import VALUES_COUNT, WAYS, Recall, Slots

STEPS = st.lists(
    st.tuples(st.sampled_from(("put", "discard", "clear")), st.integers(0, 60), st.integers(0, 255)), max_size=200
)


@given(STEPS)
@settings(max_examples=100)
def test_any_sequence_says_what_a_dict_says_or_has_forgotten(steps: list[tuple[str, int, int]]) -> None:
    slots, known = Slots(32, 3), dict[str, bytes]()
    size_bytes = slots.size_bytes
    for do, number, said in steps:
        thing, value = f"thing {number}", bytes((said, number, 7))
        if do == "put":
            slots.put(thing, value)
            known[thing] = value
            assert slots.get(thing) == value
        elif do == "discard":
            slots.discard(thing)
            known.pop(thing, None)
            assert slots.get(thing) is None
        elif said < 10:
            slots.clear()
            known = {}
        assert len(slots) == len(list(slots.values())) <= min(32, len(known))
        assert slots.size_bytes == size_bytes == 32 * (8 + 3)
    for number in range(61):
        found = slots.get(f"thing {number}")
        assert found is None or found == known[f"thing {number}"]


def test_of_one_set_of_places_the_one_said_longest_ago_goes() -> None:
    slots = Slots(WAYS, 1)  # one set: an exact queue
    for number in range(WAYS):
        slots.put(str(number), bytes((number,)))
    slots.put("0", b"x")  # young again
    slots.put("new", b"n")
    assert slots.get("1") is None
    assert slots.get("0") == b"x"
    assert sorted(slots.values()) == sorted([b"x", b"n", *(bytes((n,)) for n in range(2, WAYS))])
    slots.discard("5")
    slots.discard("5")
    slots.put("newer", b"m")  # into the place that was freed: nobody else goes
    assert len(slots) == WAYS
    assert slots.get("2") == b"\2"


def test_it_remembers_as_long_as_it_says() -> None:
    dice = random.Random(1)
    ids = [f"{dice.getrandbits(80):020x}" for _ in range(10_000)]
    slots = Slots(2**13, 2)  # an eighth of the figures in the text
    for name in ids:
        slots.put(name, b"ok")
    gone = sum(slots.get(name) is None for name in ids[-2_500:])  # after up to 2,500 others
    assert gone <= 2
    assert sum(slots.get(name) is None for name in ids[-5_200:-4_800]) <= 60  # after 5,000: 16 of 400 are expected
    assert len(slots) <= 2**13


def test_full_it_takes_no_more_than_empty() -> None:
    tracemalloc.start()
    slots = Slots(2**12, 10)
    empty = tracemalloc.get_traced_memory()[0]
    for number in range(20_000):
        slots.put(f"thing {number}", b"0123456789")
    full = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert slots.size_bytes == 18 * 2**12 <= empty
    assert full - empty < 4096


def test_what_cannot_be_is_refused() -> None:
    for count in (0, 8, 1000):
        with pytest.raises(ValueError, match="power of two"):
            Slots(count, 1)
    with pytest.raises(ValueError, match="3 bytes: give 2"):
        Slots(16, 2).put("a", b"abc")


def test_of_too_many_values_all_is_forgotten_rather_than_mixed_up() -> None:
    releases = Recall[str](1024)
    for number in range(VALUES_COUNT):
        releases[f"answer {number}"] = f"r{number}"
    assert all(releases.get(f"answer {n}") == f"r{n}" for n in range(VALUES_COUNT - 100, VALUES_COUNT))
    releases["one more"] = "r-new"
    assert releases.get("one more") == "r-new"
    assert len(releases) == 1
    assert releases.get(f"answer {VALUES_COUNT - 1}") is None


def key(number: int, tenant: str = "") -> CacheKey:
    return key_in(Namespace("r1", 1, tenant, "chat"), number.to_bytes(32, "big"))


def test_a_key_is_found_by_its_first_digits_whole_or_not_at_all() -> None:
    met = MetKeys(1024)
    for number in range(300):
        met.add(key(number, f"t:{number % 7}"))
    wanted = key(299, "t:5")
    for digits in (8, 9, 63, 64):  # an odd number of digits is half a byte
        assert met.named(wanted.text[:digits]) == [wanted]
    assert len(met.named("")) == len(met) == 300
    assert met.named("not hex at all") == met.named(wanted.text[:6] + "\u00e9") == met.named(wanted.text + "00") == []
    met.discard(wanted)
    assert met.named(wanted.text) == []


def test_a_key_of_a_namespace_that_is_forgotten_is_not_found_under_another() -> None:
    met = MetKeys(1024)
    first = key(1, "t:first")
    met.add(first)
    for number in range(NAMESPACES_COUNT + 10):
        met.add(key(number, f"t:{number}"))
    found = met.named("")
    assert all(key_in(k.namespace, k.fingerprint) == k for k in found)
    assert met.named(first.text) == []
    assert len(found) <= len(met) <= 1024
    assert met.size_bytes == 78 * 1024
