"""One question under way: whoever asks the same meanwhile waits for its answer instead of asking the model again.

first turn -> lookup -> hit: everybody is answered
                     -> miss: it asks the upstream and leads; others wait, each for at most `wait_s`, then ask
                        themselves
leader answered well -> the waiters are answered from its bytes, before its checks: the leader's own client has
                        them already, and a waiter asked the same under the same release at the same moment
leader failed, broke off, lost its client -> the first waiter leads; a failure is never handed on
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from guard.cache.types import CacheRequest, Entry
from slo.types import Exchange

if TYPE_CHECKING:
    from guard.cache.service import AnswerCache
    from guard.ports import Capture


class Asker(Protocol):
    """A request that wants an answer; told exactly one of the two, once, at once or later on the same loop."""

    exchange_id: bytes

    def cache_hit(self, entry: Entry) -> None:
        """Here it is."""
        ...

    def cache_missed(self) -> None:
        """Ask the upstream."""
        ...


class Turn:
    """One request's dealings with the cache: `ask`, then `finished` or `left`, whatever happens."""

    __slots__ = ("_asker", "_cache", "_timer", "flight", "request", "sequence")

    def __init__(self, cache: AnswerCache, request: CacheRequest, sequence: int) -> None:
        self._cache, self.request, self.sequence = cache, request, sequence
        self._asker: Asker | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.flight: Flight | None = None

    def ask(self, asker: Asker) -> None:
        """Have `asker` told; within the lookup budget or `wait_s`."""
        self._asker = asker
        try:
            self._cache.board(self)
        except Exception:
            if self._asker is None:
                raise  # It was told, and what went wrong is its own affair.
            self._cache.broken()
            if self.flight is not None:
                self._cache.arrived(self.flight)
            self.miss()

    def finished(self, exchange: Exchange, capture: Capture | None) -> None:
        """The upstream's answer has come to its end; capture None: it is nothing to be kept."""
        self._stop_waiting()
        try:
            self._cache.landed(self, exchange, capture)
        except Exception:  # The answer has gone out; a fault of the cache must not become one of the data path.
            self._cache.broken()

    def left(self) -> None:
        """The exchange ended without an answer, or its client has gone."""
        self._stop_waiting()
        self._asker = None
        if self.flight is not None:
            self.flight.leave(self)

    # For the flight --------------------------------------------------------------------------------------------------

    def wait(self, wait_s: float) -> None:
        """Wait for somebody else's answer, but not for ever."""
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._waited_enough)

    def _waited_enough(self) -> None:
        self._timer = None
        if self.flight is not None:
            self.flight.waiters.pop(self, None)
        self.miss()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hit(self, entry: Entry, *, shared: bool) -> None:
        self._stop_waiting()
        self.flight = None
        asker, self._asker = self._asker, None
        if asker is not None:
            self._cache.serving(self.request, entry, asker.exchange_id.decode("ascii"), shared=shared)
            asker.cache_hit(entry)

    def miss(self) -> None:
        self._stop_waiting()
        asker, self._asker = self._asker, None
        if asker is not None:
            self._cache.missing(self.request)
            asker.cache_missed()


class Flight:
    """All turns that want the answer to one key now. `asking`: the leader is with the upstream."""

    __slots__ = ("_cache", "asking", "digest", "leader", "waiters")

    def __init__(self, cache: AnswerCache, leader: Turn) -> None:
        self._cache = cache
        self.digest = leader.request.key.digest
        self.leader: Turn | None = leader
        self.asking = False
        self.waiters: dict[Turn, None] = {}  # in the order of their coming
        leader.flight = self

    def join(self, turn: Turn, wait_s: float) -> None:
        """One more for the same."""
        turn.flight = self
        self.waiters[turn] = None
        turn.wait(wait_s)

    def land(self, entry: Entry, *, shared: bool) -> None:
        """There is an answer for everybody who has none. shared: it is the leader's own, fresh from the upstream."""
        self._cache.arrived(self)
        leader, self.leader = self.leader, None
        waiters, self.waiters = list(self.waiters), {}
        if leader is not None and not self.asking:
            leader.hit(entry, shared=False)
        for waiter in waiters:
            waiter.hit(entry, shared=shared)

    def go(self) -> None:
        """There is none; the leader asks."""
        leader = self.leader
        if leader is None:
            self._promote()
            return
        self.asking = True
        leader.miss()

    def leave(self, turn: Turn) -> None:
        """A turn is over without an answer for the others."""
        turn.flight = None
        if self.leader is turn:
            self.leader = None
            if self.asking:
                # Not from here: a thousand waiters that are all refused at once would be a thousand frames deep.
                asyncio.get_running_loop().call_soon(self._promote)
            # Else the lookup is still under way; it finds the waiters, or nobody and closes the flight.
        else:
            self.waiters.pop(turn, None)

    def _promote(self) -> None:
        """The first waiter leads from now on; without one the flight is over."""
        if self.leader is not None:
            return
        if not self.waiters:
            self._cache.arrived(self)
            return
        turn = next(iter(self.waiters))
        del self.waiters[turn]
        self.leader, self.asking = turn, True
        turn.miss()
