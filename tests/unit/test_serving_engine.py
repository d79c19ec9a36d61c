"""The model's thread, turn by turn, with a clock that is moved by hand and a model without torch."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from lora.serving.engine import Engine
from lora.serving.types import MIXED, Done, Event, Failed, Row, Said, Sampling, Ticket
from lora.serving.waiting import Limits
from slo.clock import HandClock
from tests.serving_kit import BREAKS, END, LATE, MUMBLES, EchoModel, decode


class World:
    """An engine with its model, and what was told to whom."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.model, self.clock = EchoModel(), HandClock()
        self.notes: list[str] = []
        self.engine = Engine(
            self.model.batch, decode, frozenset({END}), limits or Limits(), self.clock, self.notes.append
        )
        self.told: dict[int, list[Event]] = {}

    def ask(self, number: int, text: str, *, limit_s: float = 60.0, **how: object) -> int | None:
        sampling = Sampling(max_tokens=50, temperature=0.0)
        for name, value in how.items():
            sampling = type(sampling)(**{**{f: getattr(sampling, f) for f in sampling.__slots__}, name: value})
        now_s = self.clock.now_s()
        ticket = Ticket(number, MIXED, len(text) + 50, now_s, now_s + limit_s)
        self.told[number] = []
        return self.engine.submit(ticket, Row(number, tuple(text.encode()), sampling, None), self.told[number].append)

    def run(self, turns: int = 1000) -> None:
        for _ in range(turns):
            if not self.engine.turn():
                return

    def text(self, number: int) -> str:
        return "".join(event.text for event in self.told[number] if isinstance(event, Said))

    def end(self, number: int) -> Event:
        ends = [event for event in self.told[number] if not isinstance(event, Said)]
        assert len(ends) == 1, ends
        assert self.told[number][-1] is ends[0]
        return ends[0]


def test_answers_end_at_the_end_token_and_count_it() -> None:
    world = World()
    world.ask(1, "14 days")
    world.run()
    assert world.text(1) == "14 days"
    assert world.end(1) == Done("stop", 7, 8)
    assert world.engine.idle


def test_a_length_that_is_reached_is_said_and_characters_stay_whole() -> None:
    world = World()
    world.ask(1, "\u5e74\u5047\u5929\u6578", max_tokens=7)
    world.run()
    assert world.text(1) == "\u5e74\u5047\ufffd"  # two characters and a third of the next: 7 bytes
    assert world.end(1) == Done("length", 12, 7)


def test_a_stop_text_ends_the_answer() -> None:
    world = World()
    world.ask(1, "yes\nUser: and", stop=("\nUser:",))
    world.run()
    assert world.text(1) == "yes"
    assert world.end(1) == Done("stop", 13, 9)


def test_requests_join_a_batch_that_runs_and_leave_it_one_by_one() -> None:
    world = World(Limits(rows=2))
    for number, text in ((1, "a long answer"), (2, "short"), (3, "third")):
        world.ask(number, text)
    world.run()
    assert [world.text(n) for n in (1, 2, 3)] == ["a long answer", "short", "third"]
    assert world.model.joins == [[1, 2], [3]]
    assert world.model.widest == 2


def test_one_that_breaks_the_model_ends_alone() -> None:
    world = World()
    for number, text in ((1, "first"), (2, BREAKS), (3, "third")):
        world.ask(number, text)
    world.run()
    assert [world.text(n) for n in (1, 3)] == ["first", "third"]
    failed = world.end(2)
    assert isinstance(failed, Failed)
    assert (failed.status, failed.kind) == (500, "model_error")
    world.ask(4, "and the next")
    world.run()
    assert world.text(4) == "and the next"
    assert any("request 2 breaks the model" in note for note in world.notes)


def test_one_that_breaks_the_batch_in_the_middle_ends_alone_and_the_others_go_on_from_where_they_were() -> None:
    world = World()
    for number, text in ((1, "a first answer"), (2, f"{LATE} and more"), (3, "a third answer")):
        world.ask(number, text)
    world.run()
    assert [world.text(n) for n in (1, 3)] == ["a first answer", "a third answer"]
    assert [world.end(n) for n in (1, 3)] == [Done("stop", 14, 15)] * 2
    assert isinstance(world.end(2), Failed)
    assert world.text(2) == f"{LATE} and more"[: len(world.text(2))]


def test_one_without_numbers_ends_alone() -> None:
    world = World()
    world.ask(1, "first")
    world.ask(2, MUMBLES)
    world.run()
    assert world.text(1) == "first"
    assert isinstance(world.end(2), Failed)
    assert world.text(2) == ""


def test_an_answer_that_cannot_be_turned_into_text_ends_alone() -> None:
    world = World()

    def broken(tokens: Sequence[int]) -> str:
        if ord("#") in tokens:
            raise OverflowError("no such token")
        return decode(tokens)

    world.engine._decode = broken
    world.ask(1, "first answer")
    world.ask(2, "ab#c")
    world.run()
    assert world.text(1) == "first answer"
    assert world.text(2) == "ab"
    assert isinstance(world.end(2), Failed)
    assert world.engine.idle


def test_the_thread_survives_what_nobody_expected() -> None:
    world = World()
    plain, calls = world.engine._let_go, []

    def surprising(now_s: float) -> None:
        calls.append(now_s)
        if len(calls) == 2:
            raise ZeroDivisionError
        plain(now_s)

    world.engine._let_go = surprising  # type: ignore[method-assign]
    done = threading.Event()
    world.ask(1, "first answer")
    job = world.engine._jobs[1]
    job.tell = lambda event: done.set() if isinstance(event, Done | Failed) else None
    world.engine.start()
    assert done.wait(30)
    assert world.engine.alive
    world.engine.stop()


def test_deadlines_end_those_who_wait_and_those_who_are_answered() -> None:
    world = World(Limits(rows=1))
    world.ask(1, "a long answer", limit_s=10.0)
    world.ask(2, "never begun", limit_s=5.0)
    world.run(4)
    world.clock.at_s = 6.0
    world.run(1)
    waited = world.end(2)
    assert isinstance(waited, Failed)
    assert (waited.status, waited.kind) == (504, "timeout")
    assert "while it waited" in waited.message
    assert world.told[1][-1] == Said("n")
    world.clock.at_s = 10.0
    world.run()
    late = world.end(1)
    assert isinstance(late, Failed)
    assert "in the middle" in late.message
    assert world.engine.idle


def test_who_leaves_frees_the_row_before_the_next_step() -> None:
    world = World(Limits(rows=1))
    world.ask(1, "a long answer that nobody reads")
    world.ask(2, "second")
    world.ask(3, "third")
    world.run(2)
    world.engine.leave(1)
    world.engine.leave(2)
    steps = world.model.steps
    world.run(1)
    assert world.model.joins == [[1], [3]]
    world.run()
    assert world.model.steps - steps <= len("third") + 1
    assert world.text(3) == "third"
    assert not any(isinstance(event, Done | Failed) for event in world.told[1])
    assert world.told[2] == []


def test_a_full_queue_refuses_and_errands_run_between_steps() -> None:
    world = World(Limits(queue=1, rows=1))
    assert world.ask(1, "first") is None
    assert world.ask(2, "second") is None
    assert world.ask(3, "third") == 3
    done = world.engine.between_steps(lambda: 1 + 1)
    broken = world.engine.between_steps(lambda: "".index("x"))
    world.run()
    assert done.result(0) == 2
    assert isinstance(broken.exception(0), ValueError)
    assert [world.text(n) for n in (1, 2)] == ["first", "second"]


def test_stopping_tells_everyone() -> None:
    world = World(Limits(rows=1))
    world.model.gate.clear()
    world.ask(1, "first")
    world.ask(2, "second")
    world.engine.start()
    world.model.gate.set()
    world.engine.stop()
    for number in (1, 2):
        assert isinstance(world.end(number), Done | Failed)
    assert not world.engine.alive


@given(
    st.lists(st.sampled_from(["ok", "a longer answer", BREAKS, LATE, MUMBLES, "\u5e74\u5047"]), min_size=1, max_size=9),
    st.integers(1, 4),
    st.lists(st.integers(0, 8), max_size=3),
)
def test_whatever_breaks_every_other_answer_is_whole(texts: list[str], rows: int, leaving: list[int]) -> None:
    world = World(Limits(queue=20, rows=rows))
    for number, text in enumerate(texts):
        world.ask(number, text)
    world.run(3)
    for number in leaving:
        if number < len(texts):
            world.engine.leave(number)
    world.run()
    assert world.engine.idle
    for number, text in enumerate(texts):
        if number in leaving:
            continue
        if text in (BREAKS, LATE, MUMBLES):
            assert isinstance(world.end(number), Failed)
        else:
            assert world.text(number) == text
            assert isinstance(world.end(number), Done)
