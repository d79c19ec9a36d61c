"""The life of one request on the data path, from its last byte to the record of its exchange.

    start -> [split] -> ask -> on_head -> on_body ... -> on_complete -> record
                         |  ^      (on_broken, client_gone, check: the ways it can end early)
                         +--+ at most one retry, only while nothing was answered

It knows no JSON and no field names (the dialect does), no sockets (listener and upstream do), and nobody who listens to
its end (the sink does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guard.ports import Capture, Reason, Refusal, Route
from guard.replay import replay
from guard.split import session_key, session_label
from guard.streaming import BodyCapture, ByteRelay, EventRelay, PackedEventRelay
from guard.usage import cost_of, read_answer, usage_of
from guard.wire import http1
from guard.wire.dialect import Dialect, StreamWatcher
from guard.wire.outline import is_json
from guard.wire.replies import STATUS_OF, error_body, reply, retry_after_s
from guard.wire.sse import EventTooLarge
from guard.wire.tokens import estimate_tokens
from slo.codec import header_text
from slo.drafts import exchange_of, maker_of
from slo.types import CacheStatus, Outcome

if TYPE_CHECKING:
    from guard.cache.flight import Turn
    from guard.cache.types import Entry
    from guard.listener import ClientConnection
    from guard.proxy import DataPath, TargetPlan
    from guard.upstream import Dial, EndpointPool, UpstreamConnection

_BODY_METHODS = frozenset({b"POST", b"PUT", b"PATCH"})
_TIMEOUTS = frozenset({Reason.CONNECT_TIMEOUT, Reason.FIRST_BYTE_TIMEOUT, Reason.TOTAL_TIMEOUT})
_REFUSALS = frozenset({Reason.SHED, Reason.DRAINING})
CROSSING_S = 1.0
"""How long the end of an idle connection and a question may be on their ways at once: a round trip and our delays."""


class Passage:
    """One request under way. Driven by its client's connection, its upstream's connection and the sweep."""

    __slots__ = (
        "_assignment",
        "_body_out",
        "_cache",
        "_capture",
        "_chunked_out",
        "_client",
        "_connecting",
        "_connecting_since_s",
        "_connection",
        "_dialect",
        "_facts",
        "_first_byte_s",
        "_first_token_s",
        "_head",
        "_head_out",
        "_hold",
        "_method",
        "_overhead_s",
        "_path",
        "_plan",
        "_pool",
        "_ready_s",
        "_refusal",
        "_relay",
        "_request",
        "_retried",
        "_route",
        "_session",
        "_started_s",
        "_status",
        "_stream",
        "_turn",
        "_wall_s",
        "_watcher",
        "done",
        "exchange_id",
    )  # fmt: skip

    def __init__(
        self, path: DataPath, client: ClientConnection, route: Route, dialect: Dialect, exchange_id: bytes
    ) -> None:
        self._path, self._client, self._route, self._dialect = path, client, route, dialect
        self.exchange_id = exchange_id
        self.done = self._retried = self._stream = self._hold = self._chunked_out = False
        self._connection: UpstreamConnection | None = None
        self._connecting: Dial | None = None
        self._connecting_since_s = self._overhead_s = 0.0
        self._first_byte_s: float | None = None
        self._first_token_s: float | None = None
        self._status = 0
        self._cache = _BYPASS
        self._turn: Turn | None = None
        self._refusal: Refusal | None = None
        self._capture: BodyCapture | None = None
        self._watcher: StreamWatcher | None = None
        self._head: http1.ResponseHead | None = None
        self._head_out = b""
        self._body_out: list[bytes] = []
        self._relay: ByteRelay | EventRelay | PackedEventRelay = _BYTE_RELAY

    # Asking ----------------------------------------------------------------------------------------------------------

    def start(self, head: http1.RequestHead, body: bytes, started_s: float, ready_s: float) -> None:
        """Choose the release, see whether there is room, and ask."""
        path, route = self._path, self._route
        self._started_s, self._ready_s = started_s, ready_s
        self._wall_s = path.wall_s() - (ready_s - started_s)
        self._method, self._request = head, body
        facts = self._facts = self._dialect.read_request(route, body)
        self._session = session_key(head.notes.get(b"x-guard-session", b""), facts.user, self.exchange_id)
        self._assignment = path.split.assign(self._session)
        plan: TargetPlan = path.plan(self._assignment.target)
        self._plan = plan
        if path.screen is not None and body and self._dialect.checked:
            question = self._dialect.question(route, body)
            if not question and not (facts.understood and is_json(body)):
                path.screen.unread()
            refusal = self._refusal = path.screen.refusal(route, question)
            if refusal is not None:
                self._reply_error(Reason.GUARD_BLOCKED)
                return
        if path.cache is not None and not path.draining:
            turn = self._turn = path.cache.turn(
                head, body, route, release=plan.release, epoch=self._assignment.cache_epoch, mark=plan.mark,
                replaced=plan.set_names,
            )  # fmt: skip
            if turn is not None:
                turn.ask(self)
                return
        self._go_upstream()

    def cache_missed(self) -> None:
        """The cache has no answer."""
        self._cache = _MISS
        self._go_upstream()

    def cache_hit(self, entry: Entry) -> None:
        """The cache has the answer; it goes out as a whole, a stream event by event."""
        path = self._path
        self._cache, self._turn = _HIT, None
        self._status, self._stream = 200, entry.stream
        head, body = replay(entry, self._facts.asks_usage, path.wall_s())
        head_out = self._response_head(head, None if entry.stream else len(body[0]))
        if self._chunked_out:
            body = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in body] + [b"0\r\n\r\n"]
        self._client.write(b"".join((head_out, *body)))
        self._first_byte_s = path.now_s() - self._started_s
        self._close(Outcome.OK, Reason.NONE, self._ready_s)

    def _go_upstream(self) -> None:
        path = self._path
        refusal = path.refusal(self._route)
        if refusal is not Reason.NONE:
            self._reply_error(refusal)
            return
        path.retries.request()
        self._ask(self._plan.next_pool(None))
        if not self.done:
            self._overhead_s = path.now_s() - self._ready_s

    def _ask(self, pool: EndpointPool, *, fresh: bool = False) -> None:
        self._pool = pool
        connection = None if fresh else pool.take()
        if connection is not None:
            self._send(connection)
        elif pool.full:
            self._reply_error(Reason.SHED)
        else:
            self._connecting_since_s = self._path.now_s()
            self._connecting = pool.connect(self)

    def on_connected(self, connection: UpstreamConnection) -> None:
        """A new connection is there."""
        self._connecting = None
        self._send(connection)

    def on_connect_failed(self, reason: Reason) -> None:
        """No connection; nothing was sent, so another endpoint of the same version may be asked."""
        self._connecting = None
        other = self._plan.next_pool(self._pool)
        if other is not self._pool and self._may_retry():
            self._ask(other)
        else:
            self._reply_error(reason)

    def _may_retry(self) -> bool:
        if self._retried or not self._path.retries.retry():
            return False
        self._retried = True
        return True

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        method = self._method
        head, body = self._request_parts(method)
        connection.send(self, head, body, to_head=method.method == b"HEAD")
        if self._client.write_paused:
            connection.pause()

    def _request_parts(self, head: http1.RequestHead) -> tuple[bytes, bytes]:
        plan, pool = self._plan, self._pool
        body = self._dialect.upstream_body(self._facts, plan.target.rename_model)
        dropped = plan.set_names
        if b"accept-encoding" in head.notes and (self._facts.stream or self._turn is not None):
            # A compressed stream can be neither cut into events nor ended with one, and what is kept is kept for
            # clients that read no coding at all.
            dropped = dropped | _ACCEPT_ENCODING
        lines = plan.set_lines
        if (trace := self._path.trace) is not None:
            dropped = dropped | _TRACEPARENT
            lines += b"traceparent: %s\r\n" % trace(self.exchange_id, head.notes.get(b"traceparent", b"")[:100])
        length = b"content-length: %d\r\n" % len(body) if body or head.method in _BODY_METHODS else b""
        return b"%s %s%s HTTP/1.1\r\nhost: %s\r\n%s%s%s\r\n" % (
            head.method, pool.base_path, head.target, pool.host_header, head.lines(dropped), lines, length,
        ), body  # fmt: skip

    # Answering -------------------------------------------------------------------------------------------------------

    def on_head(self, head: http1.ResponseHead) -> None:
        """The response head is there; what becomes of it is written with the first bytes of the body."""
        self._head = head
        self._status = head.status
        limits = self._path.limits
        content_type = head.notes.get(b"content-type", b"").lower()
        coding = head.notes.get(b"content-encoding", b"")
        length = None if head.status == 204 else head.content_length
        self._stream = head.status == 200 and content_type.startswith(b"text/event-stream") and not head.bodyless
        if self._dialect.checked and head.status == 200:
            self._capture = BodyCapture(limits.capture_bytes)
            if self._stream:
                watcher = self._watcher = self._dialect.watch(self._route, self._facts)
                plain = coding.lower() in (b"", b"identity")
                self._relay = EventRelay(watcher) if plain else PackedEventRelay(watcher, coding)
                length = None
        # An answer that only makes sense as a whole is written as a whole: if it breaks, the client gets a clean error.
        self._hold = (
            length is not None and length <= limits.client_buffer_bytes and content_type.startswith(b"application/json")
        )
        self._head_out = self._response_head(head, length)

    def _response_head(self, head: http1.ResponseHead, length: int | None) -> bytes:
        request = self._method
        framing = b""
        if length is not None:
            framing = b"content-length: %d\r\n" % length
        elif not head.bodyless:
            self._chunked_out = request.minor == 1
            if self._chunked_out:
                framing = b"transfer-encoding: chunked\r\n"
            else:
                request.keep_alive = False  # HTTP/1.0 without a length: the connection's end is the body's.
        if not request.keep_alive:
            framing += b"connection: close\r\n"
        elif request.minor == 0:
            framing += b"connection: keep-alive\r\n"
        return b"HTTP/1.1 %d %s\r\n%sx-guard-exchange-id: %s\r\n%s%s\r\n" % (
            head.status, head.reason_phrase, head.lines(), self.exchange_id,
            self._plan.answer_lines[self._cache], framing,
        )  # fmt: skip

    def on_body(self, data: bytes) -> None:
        """Bytes of the body; what may go out now waits for `flush`."""
        if self._first_byte_s is None:
            self._first_byte_s = self._path.now_s() - self._started_s
        if self._capture is not None:
            self._capture.add(data)
        try:
            out = self._relay.feed(data)
        except EventTooLarge:
            assert self._connection is not None
            self._connection.fail(Reason.MALFORMED)
            return
        if self._first_token_s is None and self._watcher is not None and self._watcher.has_content:
            self._first_token_s = self._path.now_s() - self._started_s
        if out:
            self._body_out.append(out)

    def flush(self, read_at_s: float) -> None:
        """All that one read brought is processed: write it at once, or wait for the rest of it."""
        if not self._hold and (self._body_out or (self._head_out and self._first_byte_s is not None)):
            self._write_out(b"")
        self._overhead_s += self._path.now_s() - read_at_s

    def _write_out(self, last: bytes) -> None:
        out = self._body_out
        body = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        if self._chunked_out and body:
            body = b"%x\r\n%s\r\n" % (len(body), body)
        head, self._head_out = self._head_out, b""
        data = head + body + last if head or last else body
        if data:
            self._client.write(data)

    def on_complete(self, read_at_s: float) -> None:
        """The answer is framed to its end. Whether it is a whole answer, the dialect knows."""
        self._connection = None
        rest, broken = self._relay.end()
        if broken is not Reason.NONE:
            self._break_off(broken)
            return
        if rest:
            self._body_out.append(rest)
        self._write_out(b"0\r\n\r\n" if self._chunked_out else b"")
        self._close(*self._judge(), read_at_s)

    def _judge(self) -> tuple[Outcome, Reason]:
        status = self._status
        if status == 429:
            return Outcome.CLIENT_ERROR, Reason.THROTTLED
        if status >= 500:
            return Outcome.SERVER_ERROR, Reason.UPSTREAM_5XX
        if status >= 400:
            return Outcome.CLIENT_ERROR, Reason.NONE
        reason = Reason.NONE
        if self._watcher is not None:
            reason = self._watcher.reason
        elif self._dialect.checked and self._method.method != b"HEAD":
            # A redirect or an empty answer is not what a question gets.
            reason = self._read_answer() if status == 200 else Reason.MALFORMED
        return (Outcome.SERVER_ERROR, reason) if reason else (Outcome.OK, reason)

    def _read_answer(self) -> Reason:
        """Judge a whole answer that is no stream, as far as it can be read here."""
        assert self._head is not None
        self._watcher = StreamWatcher()
        facts = read_answer(self._dialect, self._route, self._head, self._capture)
        if facts is None:
            self._watcher = None
            return Reason.NONE
        self._watcher.input_tokens, self._watcher.output_tokens = facts.input_tokens, facts.output_tokens
        self._watcher.cost_usd = facts.cost_usd
        self._watcher.estimated_tokens = estimate_tokens(facts.text)
        return facts.reason

    # Ending early ----------------------------------------------------------------------------------------------------

    def on_broken(self, reason: Reason, *, answered: bool) -> None:
        """The upstream's connection is gone or not to be trusted."""
        connection, self._connection = self._connection, None
        # A connection may be closed while it lies idle, and the news cross the question on its way: that is seen soon.
        # An upstream that had the question for longer may have begun to work on it; asked again, it would do so twice.
        asked_s = self._ready_s + self._overhead_s
        stale = not answered and reason is Reason.UPSTREAM_CUT and connection is not None and connection.reused
        stale = stale and self._path.now_s() - asked_s <= CROSSING_S
        if stale and self._may_retry():
            self._ask(self._pool, fresh=True)
            return
        self._break_off(reason)

    def _break_off(self, reason: Reason) -> None:
        if self._head is None or (self._head_out and (self._hold or self._first_byte_s is None)):
            self._reply_error(reason)
            return
        watcher = self._watcher
        if self._stream and watcher is not None and watcher.complete:
            # Its terminal marker went out: the answer is whole, only the framing lacks its end.
            self._write_out(b"0\r\n\r\n" if self._chunked_out else b"")
            self._close(*self._judge(), None)
            return
        if isinstance(self._relay, EventRelay):
            self._body_out.append(self._dialect.error_frame(reason))
        self._write_out(b"")
        # No last chunk: nobody may take this for the end of an answer.
        self._client.cut(hard=not self._chunked_out and self._method.minor == 0)
        self._record(Outcome.INCOMPLETE, reason, None)

    def _reply_error(self, reason: Reason) -> None:
        """Nothing was written yet: a whole answer with the reason as its type."""
        status = STATUS_OF.get(reason, STATUS_OF[Reason.INTERNAL])
        extra = b"x-guard-exchange-id: %s\r\n%s" % (self.exchange_id, self._plan.answer_lines[self._cache])
        if reason in _REFUSALS:
            extra += b"retry-after: %d\r\n" % retry_after_s()
        head = self._method
        begun = self._status == 200
        self._status = status
        keep_alive = head.keep_alive and reason is not Reason.DRAINING
        refusal = self._refusal
        if refusal is None:
            body = error_body(reason)
        else:
            body = error_body(reason, refusal.message, param=refusal.param, code=refusal.finding.check)
        self._client.write(reply(status, body, keep_alive=keep_alive, extra=extra, head_only=head.method == b"HEAD"))
        if reason in _REFUSALS or refusal is not None:
            outcome = Outcome.BLOCKED
        elif reason in _TIMEOUTS:
            outcome = Outcome.TIMEOUT
        else:
            outcome = Outcome.INCOMPLETE if begun else Outcome.SERVER_ERROR
        self._capture = None
        head.keep_alive = keep_alive
        self._close(outcome, reason, None)

    def client_gone(self, reason: Reason) -> None:
        """Nobody reads any more: stop the upstream at once."""
        if not self.done:
            self._release_upstream()
            self._status = 0 if self._head_out else self._status
            self._record(Outcome.CANCELLED, reason, None)

    def client_paused(self) -> None:
        """The client does not keep up; neither shall the upstream."""
        if self._connection is not None:
            self._connection.pause()

    def client_resumed(self) -> None:
        """The client has caught up."""
        if self._connection is not None:
            self._connection.resume()

    def check(self, now_s: float) -> None:
        """Called by the sweep: end what is over its budget."""
        timeouts = self._path.timeouts
        if now_s - self._started_s > timeouts.total_s:
            self.stop(Reason.TOTAL_TIMEOUT)
        elif self._connecting is not None:
            if now_s - self._connecting_since_s > timeouts.connect_s:
                self._connecting.give_up()
                self._pool.unreached()
                self.on_connect_failed(Reason.CONNECT_TIMEOUT)
        elif self._connection is not None:
            reason = self._connection.overdue(now_s, timeouts)
            if reason is not Reason.NONE:
                self._connection.fail(reason)

    def stop(self, reason: Reason) -> None:
        """End it now, as politely as its state allows."""
        if not self.done:
            self._release_upstream()
            self._break_off(reason)

    def _release_upstream(self) -> None:
        if self._connecting is not None:
            self._connecting.give_up()
            self._connecting = None
        if self._connection is not None:
            self._connection.abandon()
            self._connection = None

    # Recording -------------------------------------------------------------------------------------------------------

    def _close(self, outcome: Outcome, reason: Reason, read_at_s: float | None) -> None:
        keep_alive = self._method.keep_alive
        self._client.finish(keep_alive=keep_alive)
        self._record(outcome, reason, read_at_s)

    def _record(self, outcome: Outcome, reason: Reason, read_at_s: float | None) -> None:
        """Count the exchange, once, and let go of everything."""
        self.done = True
        path, facts = self._path, self._facts
        path.ended(self)
        now_s = path.now_s()
        if read_at_s is not None:
            self._overhead_s += now_s - read_at_s
        model = self._plan.target.rename_model or facts.model or self._plan.target.version.model
        input_tokens, output_tokens, usage = None, None, "none"
        asked = self._cache is not _HIT and (self._turn is None or self._cache is _MISS)
        if asked and self._dialect.checked and (self._status == 200 or outcome is Outcome.CANCELLED):
            input_tokens, output_tokens, usage = usage_of(
                self._dialect, self._route, self._request, self._watcher, self._capture
            )
        cost_usd = self._watcher.cost_usd if usage == "reported" and self._watcher is not None else None
        if cost_usd is None:
            cost_usd = cost_of(path.pricer, (model, self._plan.target.version.model), input_tokens, output_tokens)
        notes = self._method.notes
        exchange = exchange_of(  # in the order of the fields: 22 keywords take longer than the rest of it
            self.exchange_id.decode("ascii"),
            self._wall_s,
            self._route.name,
            self._plan.release,
            self._assignment.arm,
            outcome,
            self._status,
            reason.value,
            now_s - self._started_s,
            self._first_byte_s,
            self._first_token_s,
            self._overhead_s,
            self._stream,
            model,
            header_text(notes.get(b"x-guard-tenant", b""))[:_TENANT_CHARS],
            session_label(self._session),
            self._cache,
            input_tokens,
            output_tokens,
            usage,
            cost_usd,
            notes.get(b"traceparent", b"")[:100].decode("latin-1"),
            () if self._refusal is None else (self._refusal.finding,),
        )
        capture = self._captured() if outcome is Outcome.OK else None
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.finished(exchange, capture) if capture is not None else turn.left()
        path.finished(exchange, capture)

    def _captured(self) -> Capture | None:
        capture, head = self._capture, self._head
        if capture is None or head is None:
            return None
        roles = header_text(self._method.notes.get(b"x-guard-roles", b""))[:_ROLES_CHARS]
        return _capture_of(
            self._route, self._request, capture.body(), head.pairs(), self._stream, capture.truncated, roles
        )


_BYTE_RELAY = ByteRelay()
_capture_of = maker_of(Capture)
_BYPASS, _MISS, _HIT = CacheStatus.BYPASS, CacheStatus.MISS, CacheStatus.HIT
_ACCEPT_ENCODING = frozenset({b"accept-encoding"})
_TENANT_CHARS, _ROLES_CHARS = 64, 1024
_TRACEPARENT = frozenset({b"traceparent"})
