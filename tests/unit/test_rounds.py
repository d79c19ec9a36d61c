"""Everybody is looked at in every round, in time also on a busy loop, and never many at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from guard.rounds import Rounds


@given(
    counts=st.lists(st.integers(0, 3000), min_size=1, max_size=4),
    at_once=st.integers(1, 64),
    late_s=st.floats(0.0, 0.01),
)
def test_a_round_sees_each_member_once_in_the_time_of_a_round(counts: list[int], at_once: int, late_s: float) -> None:
    rounds: Rounds[int] = Rounds(0.25, at_once)
    now_s = 0.0
    for count in counts:
        members, began_s = set(range(count)), now_s
        seen, pause_s, begins = rounds.next(members, now_s)
        now_s += pause_s + late_s
        share = len(seen)
        assert begins
        assert share <= max(at_once, -(-count // 125))
        while len(seen) < count:
            more, pause_s, begins = rounds.next(set(), now_s)
            assert not begins
            assert 0 < len(more) <= 8 * share
            seen += more
            now_s += pause_s + late_s
        assert sorted(seen) == sorted(members)
        # in time; what one call was late for is made good by the next, as far as eight times the share goes
        assert now_s - began_s <= 0.25 + 2 * (pause_s + late_s)


def test_few_members_are_one_call_a_round():
    rounds: Rounds[str] = Rounds(0.25, 16)
    assert rounds.next([], 0.0) == ([], 0.25, True)
    assert rounds.next(["a", "b"], 0.25) == (["a", "b"], 0.25, True)
    assert rounds.next(["a"] * 32, 0.5) == (["a"] * 16, 0.125, True)
    assert rounds.next(["a"] * 32, 0.625) == (["a"] * 16, 0.125, False)
    assert rounds.next(["b"], 0.75) == (["b"], 0.25, True)


def test_a_loop_that_stood_still_does_not_look_at_all_at_once():
    rounds: Rounds[int] = Rounds(0.25, 16)
    assert len(rounds.next(range(2000), 0.0)[0]) == 16
    assert len(rounds.next((), 9.0)[0]) == 128
