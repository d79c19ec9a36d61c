"""Looking at everybody in turn, a few at a time: what is due for many at once does not hold up the others."""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, TypeVar

T = TypeVar("T")

_SHORTEST_PAUSE_S = 0.002
_CATCH_UP = 8
"""A call that comes late takes as many more as a round in time wants, but at most so many times its share."""


class Rounds(Generic[T]):
    """Each member once a round of `every_s`, about `at_once` of them a call, more where they are very many."""

    def __init__(self, every_s: float, at_once: int) -> None:
        self._every_s, self._at_once = every_s, at_once
        self._waiting: list[T] = []
        self._count = 0
        self._share = 0
        self._pause_s = every_s
        self._began_s = 0.0

    def next(self, members: Collection[T], now_s: float) -> tuple[list[T], float, bool]:
        """(whom to look at now, seconds until the next call, whether a round begins).

        Who joins or leaves during a round is seen, or missed, in the next one.
        """
        begins = not self._waiting
        if begins:
            self._waiting = list(members)
            self._count = len(self._waiting)
            calls = min(max(1, -(-self._count // self._at_once)), int(self._every_s / _SHORTEST_PAUSE_S))
            self._share = -(-self._count // calls)
            self._pause_s = self._every_s / calls
            self._began_s = now_s
        share_of_time = (now_s + self._pause_s - self._began_s) / self._every_s
        due = int(self._count * share_of_time) - (self._count - len(self._waiting))
        take = min(max(self._share, due), _CATCH_UP * self._share)
        now = self._waiting[-take:] if take else []
        del self._waiting[len(self._waiting) - len(now) :]
        return now, self._pause_s, begins
