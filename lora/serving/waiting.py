"""The queue: bounded, first come first served, with deadlines; decides who joins the batch. Pure: time is a number."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from lora.serving.types import Ticket

RETRY_AFTER_MAX_S = 60
_NEWEST_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Limits:
    """queue: requests that may wait. rows: answers at a time. tokens: that all of them may hold together."""

    queue: int = 64
    rows: int = 8
    tokens: int = 32_768


@dataclass(frozen=True, slots=True)
class Load:
    """What runs now. group: None while nothing does."""

    rows: int = 0
    tokens: int = 0
    group: str | None = None


class WaitingRoom:
    """Tickets that wait.

    Strictly in order: who came first joins first, so neither a long question nor an adapter that cannot share a batch
    is passed by for ever; one that cannot join yet holds back those behind it until the batch has room.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: OrderedDict[int, Ticket] = OrderedDict()
        self._service_s = 1.0  # how long an answer took lately

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, ticket: Ticket, running: Load) -> int | None:
        """Take the ticket in; or, when the queue is full, the seconds after which to come again.

        Nobody has to wait to join a batch that has room, so a queue of 0 refuses only when all rows are taken.
        """
        refused = self.refuses(running)
        if refused is None:
            self._waiting[ticket.number] = ticket
        return refused

    def refuses(self, running: Load, coming: int = 0) -> int | None:
        """As `offer`, for one more behind `coming` others who are about to be offered; nobody is taken in."""
        free = max(0, self._limits.rows - running.rows)
        return self.retry_after_s() if len(self._waiting) + coming >= self._limits.queue + free else None

    def retry_after_s(self) -> int:
        """About when the queue is worked off: its rounds of batches, each as long as an answer took lately."""
        rounds = math.ceil((len(self._waiting) + 1) / self._limits.rows)
        return min(RETRY_AFTER_MAX_S, max(1, math.ceil(rounds * self._service_s)))

    def served(self, duration_s: float) -> None:
        """An answer was given in so many seconds of being computed."""
        self._service_s += _NEWEST_WEIGHT * (duration_s - self._service_s)

    def leave(self, number: int) -> bool:
        """Somebody no longer waits; whether they did."""
        return self._waiting.pop(number, None) is not None

    def expired(self, now_s: float) -> list[Ticket]:
        """Those whose time is over; they are out."""
        late = [ticket for ticket in self._waiting.values() if ticket.deadline_s <= now_s]
        for ticket in late:
            del self._waiting[ticket.number]
        return late

    def take(self, running: Load, now_s: float) -> list[Ticket]:
        """Those who join the batch now, in order. A ticket over its deadline is passed over and stays for `expired`.

        A ticket larger than `tokens` by itself runs alone, or it would wait for ever.
        """
        rows, tokens, group = running.rows, running.tokens, running.group
        joined: list[Ticket] = []
        for ticket in self._waiting.values():
            if ticket.deadline_s <= now_s:
                continue
            fits = rows < self._limits.rows and tokens + ticket.tokens_count <= self._limits.tokens
            if (rows and not fits) or (group is not None and ticket.group != group):
                break
            joined.append(ticket)
            rows, tokens, group = rows + 1, tokens + ticket.tokens_count, ticket.group
        for ticket in joined:
            del self._waiting[ticket.number]
        return joined

    def empty(self) -> list[Ticket]:
        """All who wait; they are out."""
        out = list(self._waiting.values())
        self._waiting.clear()
        return out
