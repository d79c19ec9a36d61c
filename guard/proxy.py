"""The data path as one object: listener in front, routes, split, upstream pools behind, and a sink told of each end.

What happens to one request is told in `passage`; this module owns what outlives it: connections, pools, counters,
deadlines, reload and shutdown.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from guard.accepting import stop_accepting
from guard.cache.key import target_mark
from guard.cache.service import AnswerCache
from guard.limits import Admission, Egress, RetryBudget, TokenBucket
from guard.listener import HEAD, ClientConnection
from guard.passage import Passage
from guard.ports import (
    Capture,
    ExchangeSink,
    Limits,
    Pricer,
    QuestionScreen,
    Reason,
    Route,
    Splitter,
    Target,
    Timeouts,
)
from guard.rounds import Rounds
from guard.split import session_key, session_label
from guard.upstream import EndpointPool, PoolStats, Upstreams
from guard.wire.dialect import Dialect
from guard.wire.dialects import DIALECTS
from guard.wire.http1 import BadRequest, RequestHead
from guard.wire.replies import error_body, reply, retry_after_s
from slo.clock import Clock, SystemClock
from slo.errors import ConfigError
from slo.types import CacheStatus, Exchange, Outcome

OwnPost = Callable[[Mapping[bytes, bytes], bytes], Awaitable[tuple[int, bytes]]]
"""Handler of a path of the guard's own: (lower-case headers, body) -> (status, JSON body)."""

_TICK_S = 0.05  # how late the end of a budget may be noticed
_CLIENTS_EVERY_S, _CLIENTS_AT_ONCE = 0.25, 16
_EXPLANATIONS_PER_S = 100.0
"""Slow clients that are told why they are closed; of 1,000 in a second the others waited for the words."""
_FLUSH_S = 1.0


@dataclass(frozen=True, slots=True)
class DataPathStats:
    """Counts of now and since the start. refused: by reason, of requests that belong to no release."""

    connections: int
    in_flight: int
    pools: tuple[PoolStats, ...]
    bytes_in: int
    bytes_out: int
    requests: int
    retries: int
    sink_failures: int
    refused: Mapping[str, int] = field(default_factory=dict)


class TargetPlan:
    """What is worked out once per target: header lines, names they replace, pools in the order of asking."""

    __slots__ = (
        "_pools", "_turn", "_upstreams", "answer_lines", "mark", "release", "set_lines", "set_names", "target",
    )  # fmt: skip

    def __init__(self, target: Target, upstreams: Upstreams) -> None:
        self.target = target
        self.release = target.version.release_id
        self.answer_lines = {
            status: f"x-guard-release: {self.release}\r\nx-guard-cache: {status.value}\r\n".encode()
            for status in CacheStatus
        }
        self.mark = target_mark(target)
        headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in target.set_headers]
        dropped = (name.encode("ascii") for name in target.drop_headers)
        self.set_names = frozenset((*(name.lower() for name, _ in headers), *dropped))
        self.set_lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        if b"\n" in self.set_lines.replace(b"\r\n", b"") or b"\r" in self.set_lines.replace(b"\r\n", b""):
            raise ConfigError(
                f"headers of version {target.version.name}", "a line break", "write each value on one line"
            )
        self._upstreams = upstreams
        self._pools = [upstreams.pool(endpoint) for endpoint in target.endpoints]
        self._turn = 0

    def next_pool(self, previous: EndpointPool | None) -> EndpointPool:
        """The endpoint to ask: in turn, but those that could not be reached a moment ago only when there is no other.

        previous: the one that failed just now; it comes back only when it is the only one (it may be named twice).
        """
        pools = self._pools
        if len(pools) == 1:
            return pools[0]
        now_s = self._upstreams.now_s()
        self._turn = (self._turn + 1) % len(pools)
        order = [pool for pool in pools[self._turn :] + pools[: self._turn] if pool is not previous]
        for pool in order:
            if not pool.full and not pool.doubtful(now_s):
                return pool
        return order[0] if order else pools[0]


class DataPath:
    """Serves the data listener. Make it, `start` it, `swap` on reload, `drain` at the end; all on one event loop."""

    def __init__(
        self,
        routes: tuple[Route, ...],
        split: Splitter,
        sink: ExchangeSink,
        pricer: Pricer,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        *,
        now_s: Callable[[], float] = time.monotonic,
        clock: Clock | None = None,
        own_posts: Mapping[bytes, OwnPost] | None = None,
        allow_networks: Iterable[str] = (),
        tls_context: ssl.SSLContext | None = None,
        cache: AnswerCache | None = None,
        freezes_gc: bool = True,
        trace: Callable[[bytes, bytes], bytes] | None = None,
        screen: QuestionScreen | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            now_s: monotonic seconds, for durations and budgets. clock: asked for wall time, a label of the record.
            own_posts: the guard's own paths on this listener, e.g. `/guard/v1/feedback`.
            allow_networks: networks that public names may resolve into, e.g. "10.0.0.0/8".
            tls_context: for https endpoints; the default verifies certificate and name with the system's authorities.
            trace: (exchange id, the client's traceparent or b"") -> traceparent for the upstream; None passes it on.
            screen: refuses questions before the upstream; None lets all pass.
            cache: answers repeats; None: every request goes to an upstream.
            freezes_gc: what exists at the start is hidden from the garbage collector; for a process that only serves.

        Raises:
            ConfigError: a route names an unknown adapter, or two routes have one path.
        """
        self.split, self.sink, self.pricer = split, sink, pricer
        self.limits, self.timeouts = limits or Limits(), timeouts or Timeouts()
        self.now_s, self.wall_s = now_s, (clock or SystemClock()).wall_s
        self.cache = cache
        self.draining = False
        self._freezes_gc = freezes_gc
        self.trace = trace
        self.screen = screen
        self.retries = RetryBudget()
        self.admission = Admission()
        self.upstreams = Upstreams(self.limits, self.timeouts, now_s, Egress(allow_networks), tls_context)
        self.writes = self.upstreams.writes
        self._own_posts = dict(own_posts or {})
        self._set_routes(routes)
        self._plans: dict[int, TargetPlan] = {}
        self._active: set[Passage] = set()
        self._clients: set[ClientConnection] = set()
        self._rounds: Rounds[ClientConnection] = Rounds(_CLIENTS_EVERY_S, _CLIENTS_AT_ONCE)
        self._refused: Counter[str] = Counter()
        self._explanations = TokenBucket(_EXPLANATIONS_PER_S, _EXPLANATIONS_PER_S)
        self._bytes_in = self._bytes_out = self._requests = self._sink_failures = 0
        self._id_prefix = os.urandom(6).hex().encode()
        self._server: asyncio.Server | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._slow_tick: asyncio.TimerHandle | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._empty = asyncio.Event()

    # Life of the listener --------------------------------------------------------------------------------------------

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port (useful when 0 was asked for).

        Raises:
            ConfigError: the address cannot be used.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: ClientConnection(self), host, port, backlog=4096)
        except OSError as error:
            place = "listen.data"
            raise ConfigError(place, f"{host}:{port}", f"choose a free address ({error.strerror or error})") from error
        self._slow_tick = loop.call_later(_CLIENTS_EVERY_S, self._check_clients)
        if self._freezes_gc:
            # What exists now lives as long as the process; the collector need not look at it again.
            gc.collect()
            gc.freeze()
        return int(self._server.sockets[0].getsockname()[1])

    async def drain(self) -> None:
        """Stop: no new connections; answers under way may finish for `drain_s`, then they get error frames."""
        if self._server is not None:
            await stop_accepting(self._server)
        self.draining = True
        for client in list(self._clients):
            if client.state == HEAD:
                client.check(self.now_s())
        try:
            await asyncio.wait_for(self._quiet.wait(), self.timeouts.drain_s)
        except TimeoutError:
            for passage in list(self._active):
                passage.stop(Reason.DRAINING)
        if self._clients:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), _FLUSH_S)
        for client in list(self._clients):
            client.transport.abort()
        self.upstreams.close()
        for timer in (self._ticking, self._slow_tick):
            if timer is not None:
                timer.cancel()
        self._ticking = self._slow_tick = None
        await asyncio.sleep(0)  # Lets the transports say that they are closed.

    def swap(
        self,
        *,
        routes: tuple[Route, ...] | None = None,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        pricer: Pricer | None = None,
        split: Splitter | None = None,
    ) -> None:
        """Replace what is given, for requests that begin from now on; no connection is dropped.

        Raises:
            ConfigError: the routes cannot be used; then nothing is replaced.
        """
        if routes is not None:
            self._set_routes(routes)
        self.limits = self.upstreams.limits = limits or self.limits
        self.timeouts = self.upstreams.timeouts = timeouts or self.timeouts
        self.pricer = pricer or self.pricer
        self.split = split or self.split

    def _set_routes(self, routes: tuple[Route, ...]) -> None:
        exact: dict[bytes, tuple[Route, Dialect]] = {}
        prefixes: list[tuple[bytes, tuple[Route, Dialect]]] = []
        for number, route in enumerate(routes):
            dialect = DIALECTS.get(route.adapter)
            if dialect is None:
                raise ConfigError(f"routes[{number}].adapter", route.adapter, f"choose one of {', '.join(DIALECTS)}")
            path = route.path.encode()
            known = dict(prefixes) if path.endswith(b"*") else exact
            if path.removesuffix(b"*") in known:
                raise ConfigError(f"routes[{number}].path", route.path, "give each path to one route only")
            if path.endswith(b"*"):
                prefixes.append((path[:-1], (route, dialect)))
            else:
                exact[path] = (route, dialect)
        self._exact = exact
        self._prefixes = sorted(prefixes, key=lambda item: -len(item[0]))

    # For the listener ------------------------------------------------------------------------------------------------

    def opened(self, client: ClientConnection) -> bool:
        """A client has connected; False: it is one too many."""
        self._clients.add(client)
        if len(self._clients) > self.limits.connections:
            self._refused[Reason.CONN_LIMIT] += 1
            return False
        return True

    def closed(self, client: ClientConnection) -> None:
        """A client is gone."""
        self._clients.discard(client)
        if self.draining and not self._clients:
            self._empty.set()
        self._bytes_in += client.bytes_in
        self._bytes_out += client.bytes_out

    def admit(self, head: RequestHead) -> tuple[Route, Dialect] | OwnPost:
        """Where a request goes.

        Raises:
            BadRequest: nowhere.
        """
        destination = self._exact.get(head.path)
        if destination is not None:
            return destination
        own = self._own_posts.get(head.path)
        if own is not None:
            if head.method != b"POST":
                raise BadRequest(HTTPStatus.METHOD_NOT_ALLOWED, "only POST is answered here")
            if head.notes.get(b"content-encoding", b"identity").lower() != b"identity":
                raise BadRequest(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "compressed bodies are not read here")
            return own
        for prefix, found in self._prefixes:
            if head.path.startswith(prefix):
                return found
        raise BadRequest(HTTPStatus.NOT_FOUND, "no route of this guard matches the path", Reason.NO_ROUTE)

    def begin(
        self,
        client: ClientConnection,
        destination: tuple[Route, Dialect] | OwnPost,
        head: RequestHead,
        body: bytes,
        started_s: float,
        ready_s: float,
    ) -> None:
        """A request is complete: from here on a passage, or a call of our own, holds the connection."""
        self._requests += 1
        if not isinstance(destination, tuple):
            client.occupant = _OwnCall(client, destination, head, body)
            return
        route, dialect = destination
        passage = client.occupant = Passage(self, client, route, dialect, self._next_id())
        if not self._active:
            self._quiet.clear()
            if self._ticking is None:
                self._ticking = asyncio.get_running_loop().call_later(_TICK_S, self._check_passages)
        self._active.add(passage)
        try:
            passage.start(head, body, started_s, ready_s)
        except Exception as error:
            # Not the client's fault, and not a reason to leave it without an answer.
            self.ended(passage)
            self._refused[Reason.INTERNAL] += 1
            client.write(reply(500, error_body(Reason.INTERNAL), keep_alive=False))
            client.finish(keep_alive=False)
            context = {"message": "data path: a request could not be begun", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    def _next_id(self) -> bytes:
        return b"%s%08x" % (self._id_prefix, self._requests)

    def refused(
        self,
        refusal: BadRequest,
        destination: tuple[Route, Dialect] | OwnPost | None,
        head: RequestHead | None,
        started_s: float,
    ) -> None:
        """A request was answered with an error before it was complete; with a known route it counts as an exchange."""
        if head is None or not isinstance(destination, tuple):
            self._refused[refusal.reason] += 1
            return
        self._requests += 1
        exchange_id = self._next_id()
        key = session_key(head.notes.get(b"x-guard-session", b""), "", exchange_id)
        assignment = self.split.assign(key)
        exchange = Exchange(
            exchange_id=exchange_id.decode("ascii"),
            wall_s=self.wall_s() - (self.now_s() - started_s),
            route=destination[0].name,
            release=self.plan(assignment.target).release,
            arm=assignment.arm,
            outcome=Outcome.CLIENT_ERROR,
            status=int(refusal.status),
            reason=refusal.reason.value,
            duration_s=self.now_s() - started_s,
            session=session_label(key),
        )
        self.finished(exchange, None)

    # For the passages ------------------------------------------------------------------------------------------------

    def plan(self, target: Target) -> TargetPlan:
        """The plan of a target; by identity, because comparing a target field by field takes longer than a request."""
        plan = self._plans.get(id(target))
        if plan is None or plan.target is not target:
            if len(self._plans) > 32:
                self._plans.clear()
            plan = self._plans[id(target)] = TargetPlan(target, self.upstreams)
        return plan

    def may_explain(self) -> bool:
        """One of the explanations that slow clients are given in a second, if there is one left."""
        return self._explanations.take(self.now_s())

    def refusal(self, route: Route) -> Reason:
        """Why a request may not go on now; NONE when it may."""
        if self.draining:
            return Reason.DRAINING
        if len(self._active) > self.limits.concurrent_requests or not self.admission.admits(route.priority):
            return Reason.SHED
        return Reason.NONE

    def ended(self, passage: Passage) -> None:
        """A passage holds nothing any more."""
        self._active.discard(passage)
        if not self._active:
            self._quiet.set()

    def finished(self, exchange: Exchange, capture: Capture | None) -> None:
        """Tell the sink; what it throws is counted and costs no answer."""
        try:
            self.sink.finished(exchange, capture)
        except Exception:
            self._sink_failures += 1

    # For the rest of the house ---------------------------------------------------------------------------------------

    @property
    def in_flight_count(self) -> int:
        """Requests under way."""
        return len(self._active)

    @property
    def shed_ratio(self) -> float:
        """Share of the traffic that admission control refuses, lowest priority first."""
        return self.admission.shed_ratio

    @shed_ratio.setter
    def shed_ratio(self, ratio: float) -> None:
        self.admission.shed_ratio = min(1.0, max(0.0, ratio))

    def stats(self) -> DataPathStats:
        """Counts of now and since the start."""
        return DataPathStats(
            connections=len(self._clients),
            in_flight=len(self._active),
            pools=self.upstreams.stats(),
            bytes_in=self._bytes_in + sum(client.bytes_in for client in self._clients),
            bytes_out=self._bytes_out + sum(client.bytes_out for client in self._clients),
            requests=self._requests,
            retries=self.retries.retry_count,
            sink_failures=self._sink_failures,
            refused=dict(self._refused),
        )

    # Deadlines: one coarse sweep is cheaper than timers that nearly always are cancelled -----------------------------

    def _check_passages(self) -> None:
        self._ticking = None
        now_s = self.now_s()
        for passage in list(self._active):
            if not passage.done:
                passage.check(now_s)
        if self._active:
            self._ticking = asyncio.get_running_loop().call_later(_TICK_S, self._check_passages)

    def _check_clients(self) -> None:
        now_s = self.now_s()
        clients, pause_s, round_begins = self._rounds.next(self._clients, now_s)
        for client in clients:
            client.check(now_s)
        if round_begins:
            self.upstreams.sweep(now_s)
        self._slow_tick = asyncio.get_running_loop().call_later(pause_s, self._check_clients)


class _OwnCall:
    """A request for the guard itself."""

    __slots__ = ("_client", "_head", "_task")

    def __init__(self, client: ClientConnection, handler: OwnPost, head: RequestHead, body: bytes) -> None:
        self._client, self._head = client, head
        self._task = asyncio.get_running_loop().create_task(self._answer(handler, body))

    async def _answer(self, handler: OwnPost, body: bytes) -> None:
        headers = dict(field[3] for field in self._head.fields)
        try:
            status, answer = await handler(headers, body)
        except Exception:  # The handler is wired in from elsewhere; its caller gets an answer all the same.
            status, answer = 500, error_body(Reason.INTERNAL)
        keep_alive = self._head.keep_alive
        extra = b"retry-after: %d\r\n" % retry_after_s() if status == 503 else b""
        self._client.write(reply(status, answer, keep_alive=keep_alive, extra=extra))
        self._client.finish(keep_alive=keep_alive)

    def client_gone(self, reason: Reason) -> None:
        self._task.cancel()

    def client_paused(self) -> None:
        """Answers of our own are small."""

    def client_resumed(self) -> None:
        """Nothing was paused."""
