"""Looking at everybody in turn, a few at a time: what is due for many at once does not hold up the others."""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, TypeVar

T = TypeVar("T")

_SHORTEST_PAUSE_S = 0.002


class Rounds(Generic[T]):
    """Each member once a round, `at_once` of them a call or as many more as a round in time wants."""

    def __init__(self, every_s: float, at_once: int) -> None:
        self._every_s, self._at_once = every_s, at_once
        self._waiting: list[T] = []
        self._share = 0
        self._pause_s = every_s

    def next(self, members: Collection[T]) -> tuple[list[T], float, bool]:
        """(whom to look at now, seconds until the next call, whether a round begins).

        Who joins or leaves during a round is seen, or missed, in the next one.
        """
        begins = not self._waiting
        if begins:
            self._waiting = list(members)
            calls = min(max(1, -(-len(members) // self._at_once)), int(self._every_s / _SHORTEST_PAUSE_S))
            self._share = -(-len(members) // calls)
            self._pause_s = self._every_s / calls
        now = self._waiting[-self._share :] if self._share else []
        del self._waiting[len(self._waiting) - len(now) :]
        return now, self._pause_s, begins
