"""The queue of `lora serve`: order, bounds, deadlines; and a server simulated in virtual time. No torch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lora.serving.types import MIXED, Ticket
from lora.serving.waiting import Limits, Load, WaitingRoom


def ticket(
    number: int, *, group: str = MIXED, tokens: int = 10, arrived_s: float = 0.0, limit_s: float = 60.0
) -> Ticket:
    return Ticket(number, group, tokens, arrived_s, arrived_s + limit_s)


def numbers(tickets: list[Ticket]) -> list[int]:
    return [t.number for t in tickets]


def test_first_come_first_served_up_to_the_rows_that_are_free() -> None:
    room = WaitingRoom(Limits(queue=8, rows=3, tokens=1000))
    for number in range(5):
        assert room.offer(ticket(number), Load()) is None
    assert numbers(room.take(Load(rows=1, tokens=10, group=MIXED), 0.0)) == [0, 1]
    assert numbers(room.take(Load(), 0.0)) == [2, 3, 4]
    assert len(room) == 0


def test_tokens_bound_the_batch_and_hold_back_who_is_behind() -> None:
    room = WaitingRoom(Limits(rows=8, tokens=100))
    for number, tokens in enumerate((60, 50, 10)):
        room.offer(ticket(number, tokens=tokens), Load())
    assert numbers(room.take(Load(), 0.0)) == [0]
    assert numbers(room.take(Load(1, 60, MIXED), 0.0)) == []  # 2 would fit, but 1 was first
    assert numbers(room.take(Load(), 0.0)) == [1, 2]


def test_one_that_is_larger_than_the_batch_runs_alone() -> None:
    room = WaitingRoom(Limits(rows=8, tokens=100))
    room.offer(ticket(1, tokens=500), Load())
    room.offer(ticket(2), Load())
    assert numbers(room.take(Load(1, 10, MIXED), 0.0)) == []
    assert numbers(room.take(Load(), 0.0)) == [1]


def test_groups_never_share_a_batch_and_none_is_passed_by() -> None:
    room = WaitingRoom(Limits(rows=8))
    for number, group in enumerate((MIXED, "a7", MIXED)):
        room.offer(ticket(number, group=group), Load())
    assert numbers(room.take(Load(), 0.0)) == [0]
    assert numbers(room.take(Load(1, 10, MIXED), 0.0)) == []
    assert numbers(room.take(Load(), 0.0)) == [1]
    assert numbers(room.take(Load(1, 10, "a7"), 0.0)) == []
    assert numbers(room.take(Load(), 0.0)) == [2]


def test_a_full_queue_says_when_to_come_again() -> None:
    room = WaitingRoom(Limits(queue=2, rows=2))
    busy = Load(2, 20, MIXED)
    assert [room.offer(ticket(n), busy) for n in range(2)] == [None, None]
    assert room.offer(ticket(2), busy) == 2  # 3 requests are 2 rounds of 2, each about a second at the start
    for _ in range(200):
        room.served(10.0)
    assert room.offer(ticket(3), busy) == 20
    for _ in range(200):
        room.served(1000.0)
    assert room.offer(ticket(4), busy) == 60  # never more than a minute


def test_a_queue_of_none_still_fills_the_batch() -> None:
    room = WaitingRoom(Limits(queue=0, rows=2))
    assert [room.offer(ticket(n), Load()) is None for n in range(3)] == [True, True, False]


def test_who_is_late_or_leaves_does_not_join() -> None:
    room = WaitingRoom(Limits())
    room.offer(ticket(1, limit_s=5.0), Load())
    room.offer(ticket(2), Load())
    room.offer(ticket(3), Load())
    assert room.leave(2)
    assert not room.leave(2)
    assert numbers(room.take(Load(), 5.0)) == [3]
    assert numbers(room.expired(5.0)) == [1]
    assert room.expired(5.0) == []


requests = st.lists(
    st.tuples(
        st.floats(0, 5),  # seconds since the one before
        st.sampled_from([MIXED, MIXED, MIXED, "a1", "a2"]),
        st.integers(1, 120),  # tokens
        st.floats(0.1, 30),  # its limit, seconds
        st.integers(1, 12),  # steps it takes
        st.booleans(),  # whether it leaves half way through
    ),
    max_size=40,
)


@given(requests, st.integers(0, 4), st.integers(1, 4))
def test_in_virtual_time_every_request_ends_once_and_in_order(
    arrivals: list[tuple[float, str, int, float, int, bool]], queue: int, rows: int
) -> None:
    limits = Limits(queue, rows, 200)
    room = WaitingRoom(limits)
    now_s, coming, due_s = 0.0, [], 0.0
    for number, (gap_s, *rest) in enumerate(arrivals):
        due_s += gap_s
        coming.append((due_s, number, *rest))
    running: dict[int, tuple[Ticket, int]] = {}
    ended: dict[int, str] = {}
    started: list[int] = []

    def load() -> Load:
        tickets = [t for t, _ in running.values()]
        return Load(len(tickets), sum(t.tokens_count for t in tickets), tickets[0].group if tickets else None)

    steps_of = {}
    while coming or running or len(room):
        while coming and coming[0][0] <= now_s:
            at_s, number, group, tokens, limit_s, steps, leaves = coming.pop(0)
            steps_of[number] = steps
            wait_s = room.offer(Ticket(number, group, tokens, at_s, at_s + limit_s), load())
            if wait_s is not None:
                assert 1 <= wait_s <= 60
                ended[number] = "full"
            elif leaves and room.leave(number):
                ended[number] = "left"
        for late in room.expired(now_s):
            assert late.deadline_s <= now_s
            ended[late.number] = "late"
        for joined in room.take(load(), now_s):
            assert joined.deadline_s > now_s
            running[joined.number] = (joined, steps_of[joined.number])
            started.append(joined.number)
        assert len(running) <= rows
        assert len({t.group for t, _ in running.values()}) <= 1
        assert len(running) <= 1 or load().tokens <= limits.tokens
        for number, (one, left) in list(running.items()):
            if left == 1:
                del running[number]
                assert number not in ended
                ended[number] = "ok"
            else:
                running[number] = (one, left - 1)
        now_s = now_s + 0.5 if running or len(room) or not coming else max(now_s + 0.5, coming[0][0])
    assert sorted(ended) == list(range(len(arrivals)))  # each once, none lost
    assert started == sorted(started)
