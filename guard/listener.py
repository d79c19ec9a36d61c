"""The client's side of the data path: one state machine per connection, one request at a time.

    HEAD -> BODY -> BUSY -> HEAD ...      LINGER: refused, waiting for the client to read the answer and close

A head is complete before it is looked at, a body before it is passed on. What a client sends while its request is being
answered waits here, up to the size of a head; then nothing more is read from it. A client that closes its side while
it waits is taken as gone.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Protocol, cast

from guard.ports import Limits, Reason, Timeouts
from guard.turn_writes import TurnWrites
from guard.wire.again import RequestMemory
from guard.wire.chunked import BadChunk, ChunkReader
from guard.wire.http1 import BadRequest, RequestHead, bare_lf
from guard.wire.replies import CONTINUE, error_body, reply, retry_after_s

HEAD, BODY, BUSY, LINGER, CLOSED = range(5)

_LINGER_S = 2.0
_FORGET_HEAD_S = 5.0  # an idle connection holds no head, and with it no key
_LINGER_BYTES = 1024 * 1024
# A chunked body may carry this much framing beside its data before it is refused: chunks of one byte have six.
_FRAMING_FACTOR = 8


class Occupant(Protocol):
    """What is being done for a connection that is BUSY."""

    def client_gone(self, reason: Reason) -> None: ...
    def client_paused(self) -> None: ...
    def client_resumed(self) -> None: ...


class Front(Protocol):
    """What the connections need of the data path behind them."""

    limits: Limits
    timeouts: Timeouts
    draining: bool
    writes: TurnWrites

    def now_s(self) -> float: ...
    def opened(self, client: ClientConnection) -> bool: ...
    def closed(self, client: ClientConnection) -> None: ...
    def admit(self, head: RequestHead) -> Any:
        """Where the request goes; raises BadRequest when nowhere."""
        ...

    def begin(
        self,
        client: ClientConnection,
        destination: Any,
        head: RequestHead,
        body: bytes,
        started_s: float,
        ready_s: float,
    ) -> None: ...
    def refused(self, refusal: BadRequest, destination: Any, head: RequestHead | None, started_s: float) -> None: ...
    def may_explain(self) -> bool:
        """Whether a slow client is told why it is closed: very many at once are not, words cost more than the end."""
        ...


class ClientConnection(asyncio.Protocol):
    """One connection of a client."""

    __slots__ = (
        "_body", "_chunks", "_destination", "_front", "_head", "_heads", "_left", "_pending", "_raw_bytes",
        "_reading_paused", "_stalled_bytes", "_stalled_since_s", "bytes_in", "bytes_out", "occupant", "started_s",
        "state", "transport", "write_paused",
    )  # fmt: skip

    def __init__(self, front: Front) -> None:
        self._front = front
        self.state = HEAD
        self.occupant: Occupant | None = None
        self._pending = b""
        self._head: RequestHead | None = None
        self._heads = RequestMemory()
        self._destination: Any = None
        self._body: list[bytes] = []
        self._chunks: ChunkReader | None = None
        self._left = self._raw_bytes = 0
        self._reading_paused = self.write_paused = False
        self._stalled_since_s = 0.0
        self._stalled_bytes = 0
        self.bytes_in = self.bytes_out = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.started_s = self._front.now_s()
        self.transport.set_write_buffer_limits(high=self._front.limits.client_buffer_bytes)
        if not self._front.opened(self):
            body = error_body(Reason.CONN_LIMIT)
            self.write(reply(503, body, keep_alive=False, extra=b"retry-after: %d\r\n" % retry_after_s()))
            self._linger()

    # Reading ---------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        state = self.state
        if state == HEAD and not self.write_paused:
            seen_count = len(self._pending)
            if seen_count:
                data = self._pending + data
            else:
                self.started_s = self._front.now_s()
            self._read_head(data, seen_count)
        elif state == BODY:
            self._read_body(data)
        elif state in (HEAD, BUSY):  # Pipelined, or the answers so far are not even read.
            self._pending += data
            if len(self._pending) > self._front.limits.request_head_bytes and not self._reading_paused:
                self._reading_paused = True
                self.transport.pause_reading()
        elif state == LINGER:
            self._left -= len(data)
            if self._left < 0:
                self.transport.abort()

    def _read_head(self, data: bytes, seen_count: int = 0) -> None:
        """seen_count: bytes that were looked at before; not again, or a byte a packet would cost a whole head each."""
        limits = self._front.limits
        # RFC 9112 2.2: an empty line before a request is a leftover of an old client's last one.
        if data[:2] == b"\r\n":
            data, seen_count = data[2:], max(0, seen_count - 2)
        end = data.find(b"\r\n\r\n", max(0, seen_count - 3))
        if end < 0:
            self._pending = data
            if len(data) > limits.request_head_bytes:
                self._refuse_size(data)
            elif data and (bare_lf(data, seen_count) or not 0x20 < data[0] < 0x7F):
                self.refuse(BadRequest(HTTPStatus.BAD_REQUEST, "this is not HTTP/1.1"))
            elif b"\r\n" not in data and len(data) > limits.request_url_bytes + 32:
                self._refuse_size(data)
            return
        self._pending = b""
        if end > limits.request_head_bytes:
            self._refuse_size(data)
            return
        try:
            head = self._heads.read(data[:end])
            if len(head.target) > limits.request_url_bytes:
                raise BadRequest(HTTPStatus.REQUEST_URI_TOO_LONG, "URL too long", Reason.TOO_LARGE)
            self._head = head
            self._destination = self._front.admit(head)
            if head.content_length > limits.request_body_bytes:
                raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body too large", Reason.TOO_LARGE)
        except BadRequest as refusal:
            self.refuse(refusal)
            return
        rest = data[end + 4 :]
        if not head.chunked and len(rest) == head.content_length:  # the usual case: all in one read
            self._begin(rest)
            return
        self._left = head.content_length
        self._raw_bytes = 0
        self._chunks = ChunkReader(response=False) if head.chunked else None
        self.state = BODY
        if head.expect_continue and not rest:
            self.write(CONTINUE)
        if rest or not (self._left or head.chunked):
            self._read_body(rest)

    def _refuse_size(self, data: bytes) -> None:
        line = data.find(b"\r\n")
        if line < 0 or line > self._front.limits.request_url_bytes + 32:
            self.refuse(BadRequest(HTTPStatus.REQUEST_URI_TOO_LONG, "URL too long", Reason.TOO_LARGE))
            return
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        self.refuse(BadRequest(status, "request head too large", Reason.TOO_LARGE))

    def _read_body(self, data: bytes) -> None:
        self._raw_bytes += len(data)
        if self._chunks is None:
            if len(data) > self._left:
                self._pending = data[self._left :]
                data = data[: self._left]
            self._left -= len(data)
            self._body.append(data)
            if not self._left:
                self._begin(b"".join(self._body))
            return
        limit = self._front.limits.request_body_bytes
        try:
            piece = self._chunks.feed(data)
        except BadChunk:
            self.refuse(BadRequest(HTTPStatus.BAD_REQUEST, "broken chunked coding"))
            return
        self._body.append(piece)
        self._left += len(piece)
        if self._left > limit or self._raw_bytes > _FRAMING_FACTOR * limit:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            self.refuse(BadRequest(status, "body too large", Reason.TOO_LARGE))
        elif self._chunks.done:
            if self._chunks.surplus:
                # Where a next request would begin is known to the parser alone; this connection ends with the answer.
                assert self._head is not None
                self._head.keep_alive = False
            self._begin(b"".join(self._body))

    def _begin(self, body: bytes) -> None:
        head, destination = self._head, self._destination
        assert head is not None
        if self._body:
            self._body = []
        self._head = self._chunks = self._destination = None
        self.state = BUSY
        front = self._front
        if front.draining:
            head.keep_alive = False
        front.begin(self, destination, head, body, self.started_s, front.now_s())

    # Answering -------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send at the end of this turn; the transport buffers, `write_paused` says when it has enough."""
        self._front.writes.add(self._put, data)

    def _put(self, data: bytes) -> None:
        # A transport may be closed a moment before it says so, and uvloop raises on writing to it then.
        if not self.transport.is_closing():
            self.bytes_out += len(data)
            self.transport.write(data)

    def finish(self, *, keep_alive: bool) -> None:
        """The answer was written as a whole; on to the next request, or close."""
        self.occupant = None
        if not keep_alive or self._front.draining:
            self._linger()
            return
        self.state = HEAD
        self.started_s = self._front.now_s()
        if self._pending:
            # Not from here: a pipelined request may be answered at once, and so may a thousand after it.
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        if self.state == HEAD and self._pending and not self.write_paused:
            if self._reading_paused:
                self._reading_paused = False
                self.transport.resume_reading()
            data, self._pending = self._pending, b""
            self._read_head(data)

    def cut(self, *, hard: bool) -> None:
        """End the connection in the middle of an answer; what was written is still sent unless `hard`."""
        self.occupant = None
        self.state = CLOSED
        self._front.writes.flush()
        if hard:
            self.transport.abort()
        else:
            self.transport.close()

    def refuse(self, refusal: BadRequest) -> None:
        """Answer an error of the client's and close."""
        head, destination = self._head, self._destination
        self._front.refused(refusal, destination, head, self.started_s)
        extra = b"allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" if refusal.status == 405 else b""
        body = error_body(refusal.reason, refusal.message)
        self._head = self._chunks = self._destination = None
        self._body = []
        head_only = head is not None and head.method == b"HEAD"
        self.write(reply(refusal.status, body, keep_alive=False, extra=extra, head_only=head_only))
        self._linger()

    def _linger(self) -> None:
        """Close in a way that lets the answer arrive: a close with unread bytes would reset the connection."""
        self.state = LINGER
        self._pending = b""
        self._left = _LINGER_BYTES
        self.started_s = self._front.now_s()
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()
        self._front.writes.flush()
        if not self.transport.is_closing():
            self.transport.write_eof()

    # Events of the transport -----------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        self.write_paused = True
        self._stalled_since_s = self._front.now_s()
        self._stalled_bytes = self.transport.get_write_buffer_size()
        if self.occupant is not None:
            self.occupant.client_paused()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.occupant is not None:
            self.occupant.client_resumed()
        elif self.state == HEAD:
            self._next()

    def eof_received(self) -> bool:
        occupant, self.occupant = self.occupant, None
        if occupant is not None:
            occupant.client_gone(Reason.CLIENT_GONE)
            self.transport.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.state = CLOSED
        self.write_paused = False  # a round of checks may still know this connection
        occupant, self.occupant = self.occupant, None
        if occupant is not None:
            occupant.client_gone(Reason.CLIENT_GONE)
        self._front.closed(self)

    # Deadlines -------------------------------------------------------------------------------------------------------

    def check(self, now_s: float) -> None:
        """Called a few times a second: ends connections that are too slow or idle for too long."""
        timeouts = self._front.timeouts
        if self.write_paused and self._write_stalled(now_s, timeouts.client_write_stall_s):
            occupant, self.occupant = self.occupant, None
            if occupant is not None:
                occupant.client_gone(Reason.CLIENT_SLOW)
            self.transport.abort()
            return
        spent_s = now_s - self.started_s
        if self.state == HEAD:
            if self._pending and not self.write_paused:
                if spent_s > timeouts.request_head_s:
                    self._refuse_slow(self._front.may_explain())
            elif spent_s > timeouts.keep_alive_s or self._front.draining:
                self.cut(hard=False)
            elif spent_s > _FORGET_HEAD_S:
                self._heads.forget()
        elif self.state == BODY:
            floor = timeouts.request_body_min_bytes_per_s
            if spent_s > timeouts.request_body_grace_s and self._raw_bytes < floor * spent_s:
                self._refuse_slow()
        elif self.state == LINGER and spent_s > _LINGER_S and not self.write_paused:
            self.transport.abort()

    def _refuse_slow(self, explained: bool = True) -> None:
        refusal = BadRequest(HTTPStatus.REQUEST_TIMEOUT, "the request came too slowly", Reason.SLOW_REQUEST)
        if explained:
            self.refuse(refusal)
            return
        self._front.refused(refusal, None, None, self.started_s)
        self.state = CLOSED
        self.transport.abort()

    def _write_stalled(self, now_s: float, limit_s: float) -> bool:
        waiting = self.transport.get_write_buffer_size()
        if waiting < self._stalled_bytes:  # It reads, slowly.
            self._stalled_since_s = now_s
        self._stalled_bytes = waiting
        return now_s - self._stalled_since_s > limit_s
