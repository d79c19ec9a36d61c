"""Connections to the model servers: one keep-alive pool per endpoint, one state machine per connection.

A connection carries one exchange at a time and tells its `Caller` what arrives. It goes back to its pool only when the
answer was framed beyond doubt, wholly read, and nothing came after it; anything else closes it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from guard.limits import Egress, is_address
from guard.ports import Endpoint, Limits, Reason, Timeouts
from guard.turn_writes import AT_ONCE_BYTES, TurnWrites
from guard.wire.again import ResponseMemory
from guard.wire.chunked import BadChunk, ChunkReader
from guard.wire.http1 import BadFraming, ResponseHead, bare_lf

IDLE, WAITING, HEAD, BODY = range(4)
"""Phases of a connection: nothing asked, asked and unanswered, inside the response head, inside the body."""

_AVOID_S = 1.0  # an endpoint that could not be reached is asked last for this long


class Caller(Protocol):
    """What a connection tells the exchange that uses it."""

    def on_connected(self, connection: UpstreamConnection) -> None: ...
    def on_connect_failed(self, reason: Reason) -> None: ...
    def on_head(self, head: ResponseHead) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_complete(self, read_at_s: float) -> None: ...
    def on_broken(self, reason: Reason, *, answered: bool) -> None: ...
    def flush(self, read_at_s: float) -> None: ...


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Connections of one endpoint. busy: carrying an exchange; connecting: not usable yet."""

    endpoint: Endpoint
    open: int
    idle: int
    busy: int
    connecting: int


class UpstreamConnection(asyncio.Protocol):
    """One connection. `since_s` is when the phase began, in the body: when its last byte came."""

    __slots__ = (
        "_buffer", "_chunks", "_dial", "_heads", "_left", "_paused", "_pool", "alive", "caller", "head", "phase",
        "reused", "sent_s", "since_s", "started_body", "to_head", "transport", "unsent",
    )  # fmt: skip

    def __init__(self, pool: EndpointPool, dial: Dial) -> None:
        self._pool, self._dial = pool, dial
        self.caller: Caller | None = None
        self.alive = self.reused = self.to_head = self.started_body = self._paused = False
        self.unsent = False
        self.phase = IDLE
        self.since_s = self.sent_s = 0.0
        self.head: ResponseHead | None = None
        self._heads = ResponseMemory()
        self._buffer = b""
        self._chunks: ChunkReader | None = None
        self._left: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.alive = True
        self._pool.open_count += 1
        self._dial.uncount()  # at this very moment, or it would take two places in its pool

    def send(self, caller: Caller, head: bytes, body: bytes, *, to_head: bool) -> None:
        """Ask. `to_head`: the method is HEAD, so that the answer has no body whatever its head says."""
        self.caller = caller
        self.to_head = to_head
        self.phase = WAITING
        self.started_body = False
        shared = self._pool.shared
        self.sent_s = self.since_s = shared.now_s()
        if len(body) >= AT_ONCE_BYTES:  # not joined either: copying a large body costs as much as a small request
            shared.writes.flush()
            if not self.transport.is_closing():
                self.transport.writelines((head, body))
            return
        self.unsent = True
        shared.writes.add(self._put, head + body)

    def _put(self, request: bytes) -> None:
        self.unsent = False
        if self.caller is not None and self.alive and not self.transport.is_closing():
            self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        caller = self.caller
        if caller is None:  # Nobody asked: an answer to somebody else's question must never be handed out.
            self._close()
            return
        if self.unsent:
            if self.reused:  # Nor one to a question that was not sent yet; it is asked again, as after a close.
                self.fail(Reason.UPSTREAM_CUT)
                return
            self._pool.shared.writes.flush()  # a server that is full may say so before it is asked
        now_s = self._pool.shared.now_s()
        if self.phase == BODY:
            self.since_s = now_s
            self._read_body(data, now_s)
        else:
            self._read_head(data, now_s)
        if self.caller is caller:
            caller.flush(now_s)

    def _read_head(self, data: bytes, now_s: float) -> None:
        if self.phase == WAITING:
            self.phase, self.since_s = HEAD, now_s
        seen_count = len(self._buffer)
        data = self._buffer + data if seen_count else data
        limit = self._pool.shared.limits.upstream_head_bytes
        while True:
            end = data.find(b"\r\n\r\n")
            if end > limit or (end < 0 and len(data) > limit):
                self.fail(Reason.BAD_UPSTREAM_HEAD)
                return
            if end < 0:
                # Only what is new: a head that comes a byte a packet must not cost a whole head each.
                if data[:5] != b"HTTP/"[: len(data)] or bare_lf(data, seen_count):
                    self.fail(Reason.BAD_FRAMING)
                    return
                self._buffer = data
                return
            try:
                head = self._heads.read(data[:end], to_head=self.to_head)
            except BadFraming:
                self.fail(Reason.BAD_FRAMING)
                return
            data, seen_count = data[end + 4 :], 0
            if head.status >= 200:
                break
            if head.status == 101:  # We never ask for another protocol.
                self.fail(Reason.BAD_FRAMING)
                return
            if not data:  # 100 and 103 announce an answer that is still to come.
                self._buffer, self.phase, self.since_s = b"", WAITING, self.sent_s
                return
        self._buffer = b""
        self._begin_body(head, data, now_s)

    def _begin_body(self, head: ResponseHead, data: bytes, now_s: float) -> None:
        self.head, self.phase, self.since_s = head, BODY, now_s
        self._chunks = ChunkReader(response=True) if head.chunked and not head.bodyless else None
        self._left = 0 if head.bodyless else head.content_length
        caller = self.caller
        assert caller is not None
        caller.on_head(head)
        if self.caller is caller and (data or self._left == 0):
            self._read_body(data, now_s)

    def _read_body(self, data: bytes, now_s: float) -> None:
        caller = self.caller
        assert caller is not None
        complete = surplus = False
        if self._chunks is not None:
            try:
                data = self._chunks.feed(data)
            except BadChunk:
                self.fail(Reason.BAD_FRAMING)
                return
            complete, surplus = self._chunks.done, self._chunks.surplus
        elif self._left is not None:
            if len(data) > self._left:
                surplus, data = True, data[: self._left]
            self._left -= len(data)
            complete = not self._left
        if data:
            self.started_body = True
            caller.on_body(data)
        if complete and self.caller is caller:
            self._release(reusable=not surplus)
            caller.on_complete(now_s)

    def _release(self, *, reusable: bool) -> None:
        """The exchange is over; back to the pool, or closed."""
        self.caller = None
        self.phase = IDLE
        self._chunks = None
        head, self.head = self.head, None
        # A request still being sent when its answer is complete would be read as the start of the next one.
        if reusable and head is not None and head.keep_alive and not self.transport.get_write_buffer_size():
            self.resume()
            self._pool.put(self)
        else:
            self._close()

    def fail(self, reason: Reason) -> None:
        """Give the exchange up: close the connection and tell the caller."""
        caller, self.caller = self.caller, None
        answered = self.phase > WAITING
        self._close()
        if caller is not None:
            caller.on_broken(reason, answered=answered)

    def abandon(self) -> None:
        """The caller has lost interest; whatever still comes is nobody's."""
        self.caller = None
        self._close()

    def _close(self) -> None:
        self.alive = False
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        self._pool.lost(self)
        caller, self.caller = self.caller, None
        if caller is None:
            return
        until_close = self.phase == BODY and self._left is None and self._chunks is None
        self._chunks = None
        if until_close and exc is None:
            caller.on_complete(self._pool.shared.now_s())
        else:
            caller.on_broken(Reason.UPSTREAM_CUT, answered=self.phase > WAITING)

    def pause(self) -> None:
        """Back-pressure: the client does not keep up."""
        if not self._paused and self.alive:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """The client reads again; its pause is not held against the upstream."""
        if self._paused:
            self._paused = False
            self.since_s = self._pool.shared.now_s()
            if self.alive:
                self.transport.resume_reading()

    def overdue(self, now_s: float, timeouts: Timeouts) -> Reason:
        """Which budget is spent at `now_s`; NONE while all hold."""
        if self._paused:
            return Reason.NONE
        if self.phase == HEAD and now_s - self.since_s > timeouts.upstream_head_s:
            return Reason.BAD_UPSTREAM_HEAD
        if not self.started_body:
            return Reason.FIRST_BYTE_TIMEOUT if now_s - self.sent_s > timeouts.first_byte_s else Reason.NONE
        return Reason.UPSTREAM_STALLED if now_s - self.since_s > timeouts.idle_s else Reason.NONE


class EndpointPool:
    """The connections of one endpoint. The one used last is used next, so that the surplus ages and is closed."""

    def __init__(self, endpoint: Endpoint, shared: Upstreams) -> None:
        self.endpoint, self.shared = endpoint, shared
        port = {"http": 80, "https": 443}.get(endpoint.scheme)
        host = f"[{endpoint.host}]" if ":" in endpoint.host.strip("[]") else endpoint.host
        self.host_header = (host if endpoint.port == port else f"{host}:{endpoint.port}").encode("ascii")
        self.base_path = endpoint.base_path.encode("ascii")
        self.open_count = self.connecting_count = 0
        self.avoid_until_s = 0.0
        self._idle: list[UpstreamConnection] = []

    def take(self) -> UpstreamConnection | None:
        """An idle connection that seems alive, or None."""
        oldest_s = self.shared.now_s() - self.shared.timeouts.upstream_keep_alive_s
        while self._idle:
            connection = self._idle.pop()
            if connection.alive and connection.since_s >= oldest_s and not connection.transport.is_closing():
                connection.reused = True
                return connection
            connection.abandon()
        return None

    def put(self, connection: UpstreamConnection) -> None:
        """Take a connection back."""
        if len(self._idle) >= self.shared.limits.upstream_idle or self.shared.closed:
            connection.abandon()
            return
        connection.since_s = self.shared.now_s()
        self._idle.append(connection)

    def lost(self, connection: UpstreamConnection) -> None:
        """A connection is gone."""
        self.open_count -= 1
        if connection.phase == IDLE and connection in self._idle:
            self._idle.remove(connection)

    @property
    def full(self) -> bool:
        """No further connection may be opened."""
        return self.open_count + self.connecting_count >= self.shared.limits.upstream_connections

    def unreached(self) -> None:
        """No connection came about: refused, no such name, or not within its budget."""
        self.avoid_until_s = self.shared.now_s() + _AVOID_S

    def doubtful(self, now_s: float) -> bool:
        """Whether another endpoint is better: this one could not be reached, and since then nobody has come through.

        After the pause one request at a time tries it: of an endpoint that swallows connections each costs `connect_s`.
        """
        return self.avoid_until_s > 0.0 and (self.avoid_until_s > now_s or self.connecting_count > 0)

    def connect(self, caller: Caller) -> Dial:
        """Open a connection for `caller`."""
        return Dial(self, caller)

    def close_idle(self, older_than_s: float) -> None:
        """Close what has been idle since before `older_than_s`."""
        for connection in [c for c in self._idle if c.since_s < older_than_s]:
            self._idle.remove(connection)
            connection.abandon()

    def stats(self) -> PoolStats:
        """Counts of now."""
        idle = len(self._idle)
        return PoolStats(self.endpoint, self.open_count, idle, self.open_count - idle, self.connecting_count)


class _EgressDenied(Exception):
    """None of the resolved addresses may be called."""


class Dial:
    """One connection being opened, for a caller that may lose interest.

    The socket is connected here rather than by `create_connection`: cancelled at the wrong moment, uvloop's announces a
    connection whose end it never tells, and the pool would count it for ever. Once the socket is connected nothing is
    cancelled any more; a connection that has lost its caller goes to the pool and serves the next one.
    """

    def __init__(self, pool: EndpointPool, caller: Caller) -> None:
        self._pool = pool
        self._caller: Caller | None = caller
        self._cancellable = True
        pool.connecting_count += 1
        self._counted = True
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._ended)

    def give_up(self) -> None:
        """The caller has lost interest."""
        self._caller = None
        if self._cancellable:
            self._task.cancel()

    def uncount(self) -> None:
        """It is a connection now, or never will be."""
        if self._counted:
            self._counted = False
            self._pool.connecting_count -= 1

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.uncount()

    async def _run(self) -> None:
        pool = self._pool
        reason = Reason.UPSTREAM_CONNECT
        connection = None
        try:
            connection = await self._open()
        except _EgressDenied:
            reason = Reason.EGRESS_DENIED
        except (OSError, ValueError):  # ValueError: a host that is no name; TLS errors are OSErrors
            pool.unreached()
        else:
            pool.avoid_until_s = 0.0
        caller, self._caller = self._caller, None
        if connection is not None:
            if caller is not None:
                caller.on_connected(connection)
            else:
                pool.put(connection)
        elif caller is not None:
            caller.on_connect_failed(reason)

    async def _open(self) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        shared, endpoint = self._pool.shared, self._pool.endpoint
        host = endpoint.host.strip("[]")
        addresses = [host]
        if not is_address(host):
            # Resolved here and connected by address, so that what was checked is what is called.
            found = await loop.getaddrinfo(host, endpoint.port, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
            addresses = [address for address in addresses if shared.egress.permits(host, address)]
            if not addresses:
                raise _EgressDenied
        sock = await self._connected_socket(addresses)
        self._cancellable = False
        tls = shared.tls() if endpoint.scheme == "https" else None
        _, connection = await loop.create_connection(
            lambda: UpstreamConnection(self._pool, self),
            sock=sock,
            ssl=tls,
            server_hostname=host if tls else None,
            ssl_handshake_timeout=shared.timeouts.connect_s if tls else None,
        )
        return connection

    async def _connected_socket(self, addresses: list[str]) -> socket.socket:
        """A socket connected to the first address that answers. Raises OSError.

        One that swallows connections (IPv6 without a way out, a node that is gone) leaves its share of the budget to
        those after it. The last may take what is left: whose time is up then, the caller says.
        """
        failure = OSError("no address")
        share_s = self._pool.shared.timeouts.connect_s / max(1, len(addresses))
        for address in addresses:
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                async with asyncio.timeout(share_s if address != addresses[-1] else None):
                    await asyncio.get_running_loop().sock_connect(sock, (address, self._pool.endpoint.port))
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise failure


class Upstreams:
    """All pools, and what they share. Pools are found by endpoint, so a reload keeps the connections it can."""

    def __init__(
        self,
        limits: Limits,
        timeouts: Timeouts,
        now_s: Callable[[], float],
        egress: Egress,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        self.limits, self.timeouts, self.now_s, self.egress = limits, timeouts, now_s, egress
        self.closed = False
        self.writes = TurnWrites()
        self._tls = tls_context
        self._pools: dict[Endpoint, EndpointPool] = {}

    def pool(self, endpoint: Endpoint) -> EndpointPool:
        """The pool of an endpoint, made at its first use."""
        pool = self._pools.get(endpoint)
        if pool is None:
            pool = self._pools[endpoint] = EndpointPool(endpoint, self)
        return pool

    def tls(self) -> ssl.SSLContext:
        """Context that verifies certificate and name; made once, it takes milliseconds."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def sweep(self, now_s: float) -> None:
        """Close what has been idle for too long."""
        for pool in self._pools.values():
            pool.close_idle(now_s - self.timeouts.upstream_keep_alive_s)

    def stats(self) -> tuple[PoolStats, ...]:
        """Counts per endpoint."""
        return tuple(pool.stats() for pool in self._pools.values())

    def close(self) -> None:
        """Close all idle connections; those in use are closed when they are given back."""
        self.closed = True
        for pool in self._pools.values():
            pool.close_idle(float("inf"))
