"""Everybody is looked at in every round, in time, and never many at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from guard.rounds import Rounds


@given(counts=st.lists(st.integers(0, 3000), min_size=1, max_size=4), at_once=st.integers(1, 64))
def test_a_round_sees_each_member_once_in_the_time_of_a_round(counts: list[int], at_once: int) -> None:
    rounds: Rounds[int] = Rounds(0.25, at_once)
    for count in counts:
        members = set(range(count))
        seen, spent_s, begins = rounds.next(members)
        assert begins
        largest = len(seen)
        while len(seen) < count:
            more, pause_s, begins = rounds.next(set())
            assert not begins
            assert more
            seen += more
            spent_s += pause_s
            largest = max(largest, len(more))
        assert sorted(seen) == sorted(members)
        assert spent_s <= 0.25 + 1e-9
        assert largest <= max(at_once, -(-count // 125))


def test_few_members_are_one_call_a_round():
    rounds: Rounds[str] = Rounds(0.25, 16)
    assert rounds.next([]) == ([], 0.25, True)
    assert rounds.next(["a", "b"]) == (["a", "b"], 0.25, True)
    assert rounds.next(["a"] * 32) == (["a"] * 16, 0.125, True)
    assert rounds.next(["a"] * 32) == (["a"] * 16, 0.125, False)
    assert rounds.next(["b"]) == (["b"], 0.25, True)
