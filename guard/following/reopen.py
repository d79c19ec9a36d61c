"""Questions asked again: the same session, a like question, within a day. Bounded; keeps vectors, never words."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from typing import Any

SESSIONS_COUNT = 20_000
QUESTIONS_EACH = 8
VECTOR_BYTES = 32 * 2**20
"""Of all vectors; 20,000 sessions of 8 questions would be hundreds of MiB. Half precision: a cosine is off by 1e-3."""

NEAR = 0.80
"""Least cosine of two questions that ask the same. Stricter than for an intent: a follow-up is no repetition."""

SAME_S = 10.0
"""The same words sooner than this are a retry of the client, not a user who was not helped."""


@dataclass(slots=True)
class Asked:
    """One earlier question."""

    wall_s: float
    exchange_id: str
    release: str
    fingerprint: str
    vector: Any


class Reopens:
    """The last questions of each session, the least recently active session leaving first."""

    def __init__(
        self, within_s: float = 86_400.0, sessions_count: int = SESSIONS_COUNT, vector_bytes: int = VECTOR_BYTES
    ) -> None:
        self._within_s, self._sessions_count, self._max_bytes = within_s, sessions_count, vector_bytes
        self.vector_bytes = 0
        self._sessions: OrderedDict[str, deque[Asked]] = OrderedDict()

    def take(self, session: str, asked: Asked) -> Asked | None:
        """Remember a question; return the latest earlier one that asked the same, None when there is none."""
        kept = self._sessions.setdefault(session, deque())
        self._sessions.move_to_end(session)
        while kept and asked.wall_s - kept[0].wall_s > self._within_s:
            self.vector_bytes -= kept.popleft().vector.nbytes
        found = None
        for earlier in reversed(kept):
            if earlier.fingerprint == asked.fingerprint and asked.wall_s - earlier.wall_s >= 0.0:
                cosine = float(earlier.vector @ asked.vector)
                if cosine >= NEAR:
                    if cosine > 0.999 and asked.wall_s - earlier.wall_s < SAME_S:
                        return None  # not remembered either: the first one stands
                    found = earlier
                    break
        if len(kept) == QUESTIONS_EACH:
            self.vector_bytes -= kept.popleft().vector.nbytes
        # A copy: a row of a matrix would keep all of it.
        kept.append(replace(asked, vector=asked.vector.astype("float16")))
        self.vector_bytes += kept[-1].vector.nbytes
        while len(self._sessions) > self._sessions_count or self.vector_bytes > self._max_bytes:
            _, gone = self._sessions.popitem(last=False)
            self.vector_bytes -= sum(asked.vector.nbytes for asked in gone)
        return found

    def rows(self) -> list[tuple[str, Asked]]:
        """Everything, least recently active session first."""
        return [(session, asked) for session, kept in self._sessions.items() for asked in kept]

    def __len__(self) -> int:
        return len(self._sessions)
