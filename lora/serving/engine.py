"""The model's own thread: takes waiting requests into the batch, step by step, and tells each what was said.

Nothing that one request does ends another: when the model breaks on a batch, its answers go on one by one, each from
where it was, and only the one that breaks alone fails.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from lora.serving.choosing import NotFiniteError
from lora.serving.text import AnswerText, Decode
from lora.serving.types import Done, Event, Failed, Row, Said, Ticket
from lora.serving.waiting import Limits, Load, WaitingRoom
from slo.clock import Clock
from slo.errors import GuardError

_T = TypeVar("_T")
_LAST_STEP_S = 10.0


class Batch(Protocol):
    """Answers under way, as `lora.serving.model.ModelBatch` computes them."""

    def join(self, rows: Sequence[Row]) -> Sequence[int | NotFiniteError]:
        """Add rows; the next token of each of them. When it raises, the rows under way are as they were."""
        ...

    def step(self) -> Sequence[int | NotFiniteError]:
        """The next token of every row, in order of joining."""
        ...

    def keep(self, numbers: Sequence[int]) -> None:
        """Let all other rows go."""
        ...


@dataclass(slots=True)
class Job:
    """One request. tell: called in the model's thread with each event; Done or Failed is the last."""

    ticket: Ticket
    row: Row
    text: AnswerText
    tell: Callable[[Event], None]
    begun_s: float = 0.0


class Engine:
    """Batches over one model. `turn` is one round of work; `start` runs rounds in a thread."""

    def __init__(
        self,
        make_batch: Callable[[], Batch],
        decode: Decode,
        stop_ids: frozenset[int],
        limits: Limits,
        clock: Clock,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """note: told of what broke, one line each."""
        self._make_batch, self._decode, self._stop_ids = make_batch, decode, stop_ids
        self._limits, self._clock, self._note = limits, clock, note
        self._room = WaitingRoom(limits)
        self._jobs: dict[int, Job] = {}  # waiting and running
        self._running: list[Job] = []
        self._batch = make_batch()
        self._alone: deque[Job] = deque()  # of a batch that broke: one after the other, and nobody else meanwhile
        self._left: set[int] = set()  # running jobs whose asker has gone
        self._errands: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.steps_count = 0
        self.rows_count = 0

    @property
    def waiting_count(self) -> int:
        """Requests in the queue."""
        return len(self._room)

    @property
    def running_count(self) -> int:
        """Answers under way."""
        return len(self._running) + len(self._alone)

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not self._jobs

    @property
    def alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    def submit(self, ticket: Ticket, row: Row, tell: Callable[[Event], None]) -> int | None:
        """Queue a request; or, when the queue is full, the seconds after which to come again."""
        job = Job(ticket, row, AnswerText(self._decode, row.sampling.stop), tell)
        with self._changed:
            refused = self._room.offer(ticket, self._load())
            if refused is None:
                self._jobs[ticket.number] = job
                self._changed.notify()
            return refused

    def refuses(self, coming: int) -> int | None:
        """What `submit` would return for one more behind `coming` others."""
        with self._changed:
            return self._room.refuses(self._load(), coming)

    def leave(self, number: int) -> None:
        """The asker has gone; nothing is told any more, and the row is freed before the next step."""
        with self._changed:
            if self._room.leave(number):
                self._jobs.pop(number, None)
            elif number in self._jobs:
                self._left.add(number)

    def between_steps(self, errand: Callable[[], _T]) -> Future[_T]:
        """Run something in the model's thread, while no step runs: loading and unloading adapters."""
        future: Future[_T] = Future()
        with self._changed:
            self._errands.append((errand, future))
            self._changed.notify()
        return future

    def uses(self, adapter: str) -> bool:
        """Whether a request that waits or runs needs this adapter."""
        with self._changed:
            return any(job.row.adapter == adapter for job in self._jobs.values())

    def start(self) -> None:
        """Run in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its step; whoever still waits or runs is told so. A step that hangs is left behind."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(_LAST_STEP_S)

    def turn(self) -> bool:
        """One round: errands, who left or is late, one step, who joins. False when there was nothing to do."""
        with self._changed:
            errands, self._errands = self._errands, []
        for errand, future in errands:
            _carry_out(errand, future)
        self._let_go(self._clock.now_s())
        joining = self._next()
        if self._running:
            self._step()
        if joining:
            self._join(joining)
        return bool(errands or joining or self._running or self._alone or len(self._room))

    def _run(self) -> None:
        while not self._stopping:
            try:
                worked = self.turn()
            except Exception as error:  # nobody else would answer if this thread ended
                worked = True
                self._broke(error, self._running)
            if not worked:
                with self._changed:
                    self._changed.wait_for(lambda: self._errands or self._stopping or len(self._room) > 0)
        with self._changed:
            self._room.empty()
            jobs, self._jobs, self._running = list(self._jobs.values()), {}, []
            errands, self._errands = self._errands, []
        for job in jobs:
            job.tell(Failed(503, "draining", "the server was stopped", 1))
        for _, future in errands:
            future.cancel()

    def _next(self) -> list[Job]:
        """Who joins the batch."""
        now_s = self._clock.now_s()
        with self._changed:
            if self._alone:
                joining = [] if self._running else [self._alone.popleft()]
            else:
                joining = [self._jobs[ticket.number] for ticket in self._room.take(self._load(), now_s)]
        for job in joining:
            job.begun_s = job.begun_s or now_s
        return joining

    def _load(self) -> Load:
        running = [*self._running, *self._alone]
        group = running[0].ticket.group if running else None
        return Load(len(running), sum(job.ticket.tokens_count for job in running), group)

    def _let_go(self, now_s: float) -> None:
        with self._changed:
            late = [self._jobs.pop(ticket.number) for ticket in self._room.expired(now_s)]
            left, self._left = self._left, set()
        for job in late:
            job.tell(_late(job, "while it waited"))
        under_way = [*self._running, *self._alone]
        gone = [job for job in under_way if job.ticket.number in left or job.ticket.deadline_s <= now_s]
        for job in gone:
            if job.ticket.number not in left:
                job.tell(_late(job, "in the middle of the answer"))
        self._end(gone)

    def _end(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        numbers = {job.ticket.number for job in jobs}
        with self._changed:
            self._running = [job for job in self._running if job.ticket.number not in numbers]
            self._alone = deque(job for job in self._alone if job.ticket.number not in numbers)
            for number in numbers:
                self._jobs.pop(number, None)
                self._left.discard(number)
        try:
            self._batch.keep([job.ticket.number for job in self._running])
        except Exception as error:
            self._broke(error, self._running)

    def _step(self) -> None:
        self.steps_count += 1
        self.rows_count += len(self._running)
        try:
            chosen = self._batch.step()
        except Exception as error:
            self._broke(error, self._running)
        else:
            self._heard(self._running, chosen)

    def _join(self, jobs: Sequence[Job]) -> None:
        try:
            chosen = self._batch.join([job.row for job in jobs])
        except Exception as error:
            if self._running or len(jobs) > 1:
                self._note(f"{len(jobs)} requests could not join ({_short(error)}); they go on one by one")
                with self._changed:
                    self._alone.extend(jobs)
            else:
                self._fail(jobs[0], error)
        else:
            with self._changed:
                self._running = [*self._running, *jobs]
            self._heard(jobs, chosen)

    def _broke(self, error: Exception, jobs: Sequence[Job]) -> None:
        """The model broke on the batch, and nobody knows the state it left."""
        self._batch = self._make_batch()
        with self._changed:
            self._running = []
        if len(jobs) == 1:
            self._fail(jobs[0], error)
            return
        self._note(f"a batch of {len(jobs)} broke ({_short(error)}); its answers go on one by one")
        with self._changed:
            self._alone.extend(jobs)

    def _fail(self, job: Job, error: Exception) -> None:
        self._note(f"request {job.ticket.number} breaks the model ({_short(error)})")
        job.tell(Failed(500, "model_error", "the model broke on this request"))
        with self._changed:
            self._jobs.pop(job.ticket.number, None)

    def _heard(self, jobs: Sequence[Job], chosen: Sequence[int | NotFiniteError]) -> None:
        now_s = self._clock.now_s()
        over: list[Job] = []
        for job, token in zip(jobs, chosen, strict=True):
            if isinstance(token, NotFiniteError):
                self._note(f"request {job.ticket.number}: the model gives no numbers")
                job.tell(Failed(500, "model_error", "the model gave no usable numbers for this request"))
                over.append(job)
                continue
            try:
                ended = self._said(job, token)
            except Exception as error:  # of the tokenizer: this answer cannot be told, the others can
                self._note(f"request {job.ticket.number} cannot be read ({_short(error)})")
                job.tell(Failed(500, "model_error", "the answer to this request cannot be turned into text"))
                over.append(job)
                continue
            if ended:
                self._room.served(now_s - job.begun_s)
                over.append(job)
        self._end(over)

    def _said(self, job: Job, token: int) -> bool:
        """Tell of one token; whether the answer is over."""
        row = job.row
        row.said.append(token)
        ended = token in self._stop_ids
        text = job.text.end() if ended else job.text.push(token)
        reason = "stop" if ended or job.text.stopped else "length" if len(row.said) >= row.sampling.max_tokens else ""
        if reason == "length":
            text += job.text.end()
            reason = "stop" if job.text.stopped else reason
        if text:
            job.tell(Said(text))
        if reason:
            job.tell(Done(reason, len(row.prompt), len(row.said)))
        return bool(reason)


def _carry_out(errand: Callable[[], Any], future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(errand())
    except Exception as error:
        future.set_exception(error)


def _late(job: Job, when: str) -> Failed:
    waited_s = job.ticket.deadline_s - job.ticket.arrived_s
    return Failed(504, "timeout", f"no whole answer within {waited_s:g} s; the time was over {when}")


def _short(error: Exception) -> str:
    text = str(error) if isinstance(error, GuardError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:200]
