"""Requests of the guard's own: warm-ups and re-checks. Asked like any other, counted like none.

A quiet request is a passage of the data path (same pools, same budgets, same judgement of the answer) without a client.
Its exchange never reaches the windows, the log or the metrics of user traffic: it votes in no indicator. Its cost is
counted apart, by purpose.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from guard.cache.types import CacheRequest
from guard.limits import RetryBudget
from guard.passage import Passage
from guard.ports import Assignment, Capture, Reason, Route, Target
from guard.wire.dialects import DIALECTS
from guard.wire.http1 import RequestHead, read_request_head
from slo.types import Exchange

if TYPE_CHECKING:
    from guard.listener import ClientConnection
    from guard.proxy import DataPath, TargetPlan

TICK_S = 0.25
BUSY_RATIO = 0.5
"""Share of the requests that may be under way at once above which nothing of our own is asked."""

Ended = Callable[[Exchange, Capture | None], None]


class QuietPath:
    """What a passage asks of its path, for requests that no client waits for. One per process.

    path: the data path whose upstreams are used. prefix: of the exchange ids, by which they are told from users'.
    """

    def __init__(self, path: DataPath, prefix: bytes = b"quiet-") -> None:
        self._path = path
        self.retries = RetryBudget(ratio=0.0, reserve=1.0)
        self.now_s, self.wall_s = path.now_s, path.wall_s
        self._active: dict[Passage, Ended] = {}
        self._unbegun: set[Passage] = set()  # until the next turn of the loop
        self._count = 0
        # Replicas and restarts share one store: a flag on one of these answers must not hit another.
        self._id_prefix = prefix + b"%s" % os.urandom(6).hex().encode()
        self._ticking: asyncio.TimerHandle | None = None

    def ask(self, request: CacheRequest, target: Target, arm: str, epoch: int, ended: Ended) -> Passage | None:
        """Ask `target` what `request` asks; `ended` is told once, never before this returns. None: not now."""
        if self.busy():
            return None
        head = head_of(request)
        self._count += 1
        passage = Passage(
            cast("DataPath", _Bound(self, Assignment(arm, target, epoch))),
            cast("ClientConnection", _Nobody()),
            request.route,
            DIALECTS[request.route.adapter],
            b"%s%08x" % (self._id_prefix, self._count),
        )
        self._active[passage] = ended
        self._unbegun.add(passage)
        if self._ticking is None:
            self._ticking = asyncio.get_running_loop().call_later(TICK_S, self._check)
        asyncio.get_running_loop().call_soon(self._begin, passage, head, request.body, self.now_s())
        return passage

    def _begin(self, passage: Passage, head: RequestHead, body: bytes, asked_s: float) -> None:
        if passage in self._unbegun:
            self._unbegun.discard(passage)
            passage.start(head, body, asked_s, asked_s)

    def give_up(self, passage: Passage) -> None:
        """Nobody wants its answer any more. Not in this turn of the loop: it may not have begun, and could not end."""
        asyncio.get_running_loop().call_soon(self._end, passage)

    def _end(self, passage: Passage) -> None:
        if passage in self._active and not passage.done:
            passage.client_gone(Reason.CLIENT_GONE)

    def busy(self) -> bool:
        """Whether the guard has better things to do."""
        path = self._path
        return (
            path.draining
            or path.shed_ratio > 0
            or (path.in_flight_count > BUSY_RATIO * path.limits.concurrent_requests)
        )

    def stop(self) -> None:
        """End what is under way; nobody is told any more."""
        unbegun, self._unbegun = self._unbegun, set()
        for passage in list(self._active):
            self._active[passage] = _nothing
            if passage not in unbegun:
                passage.client_gone(Reason.CLIENT_GONE)
        self._active.clear()
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    def _check(self) -> None:
        self._ticking = None
        now_s = self.now_s()
        for passage in list(self._active):
            if not passage.done:
                passage.check(now_s)
        if self._active:
            self._ticking = asyncio.get_running_loop().call_later(TICK_S, self._check)

    # For the passages ------------------------------------------------------------------------------------------------

    def refusal(self, route: Route) -> Reason:
        """Nothing of ours goes out while user traffic is turned away."""
        return Reason.SHED if self.busy() else Reason.NONE

    def finished(self, passage: Passage, exchange: Exchange, capture: Capture | None) -> None:
        """Tell whoever asked."""
        self._active.pop(passage, _nothing)(exchange, capture)


class _Bound:
    """The path of one passage: it goes where it is told, not where its session would."""

    cache = None
    trace = None
    screen = None  # what we ask ourselves was let in when a user asked it, or is our own
    draining = False

    def __init__(self, quiet: QuietPath, assignment: Assignment) -> None:
        self._quiet, self._assignment = quiet, assignment
        self._passage: Passage | None = None
        self.split = self
        path = quiet._path
        self.limits, self.timeouts, self.pricer = path.limits, path.timeouts, path.pricer
        self.now_s, self.wall_s, self.retries = quiet.now_s, quiet.wall_s, quiet.retries

    def assign(self, session_key: bytes) -> Assignment:
        return self._assignment

    def plan(self, target: Target) -> TargetPlan:
        return self._quiet._path.plan(target)

    def refusal(self, route: Route) -> Reason:
        return self._quiet.refusal(route)

    def ended(self, passage: Passage) -> None:
        self._passage = passage

    def finished(self, exchange: Exchange, capture: Capture | None) -> None:
        assert self._passage is not None
        self._quiet.finished(self._passage, exchange, capture)


class _Nobody:
    """The client of a request that has none: it takes everything and says nothing."""

    write_paused = False

    def write(self, data: bytes) -> None:
        """Nobody reads."""

    def finish(self, *, keep_alive: bool) -> None:
        """Nobody waits."""

    def cut(self, *, hard: bool) -> None:
        """There is no connection."""


def head_of(request: CacheRequest) -> RequestHead:
    """The head that asks the same again; headers that are in no fingerprint are left out."""
    lines = [b"POST %s HTTP/1.1" % request.target, b"host: guard", b"content-length: %d" % len(request.body)]
    lines += [b"%s: %s" % header for header in request.headers]
    if not any(name == b"content-type" for name, _ in request.headers):
        lines.append(b"content-type: application/json")
    tenant = request.key.namespace.tenant
    if tenant.startswith("t:"):
        lines.append(b"x-guard-tenant: " + tenant[2:].encode())
    elif tenant.startswith("b:"):
        lines.append(b"x-guard-tenant: " + bytes.fromhex(tenant[2:]))
    return read_request_head(b"\r\n".join(lines))


def _nothing(exchange: Exchange, capture: Capture | None) -> None:
    """Nobody wants to know any more."""
