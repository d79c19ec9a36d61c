"""Stands before every admin route and method: hosts, origins, framing, token, body size, headers of the answer.

An ASGI application around another one, so that no route can be forgotten: what is not read-only needs the token, also
a path that does not exist and a method that nobody has thought of.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import msgspec

from guard.admin import hooks
from guard.admin.access import FailureThrottle, HostList, Refusal, TokenCheck, token_id
from guard.admin.pages import CONTENT_SECURITY_POLICY
from slo.clock import Clock

log = logging.getLogger("sft_guard.admin")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ALERTS_PATH = "/api/v1/alerts"
OPEN_POSTS = frozenset({"/api/v1/gate"}) | hooks.PATHS
"""Paths that answer a POST without changing anything: hooks of Flagger cannot carry a token."""

BODY_BYTES = 64 * 1024
ALERTS_BYTES = 5 * 1024 * 1024
BODY_S = 10.0
PAGES = frozenset({"/", "/status", "/docs", "/openapi.json"})
READING = frozenset({"GET", "HEAD", "OPTIONS"})

OFF = "changing state is off: name a token with admin.token_env or admin.token_file in guard.yaml"
_PATH = re.compile(rb"/[A-Za-z0-9/_.~:-]*")
_HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


def error_body(kind: str, message: str) -> bytes:
    """One line of JSON: `{"error": {"type", "message"}}`."""
    return msgspec.json.encode({"error": {"type": kind, "message": " ".join(message.split())}})


class _Refused(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, kind: str, message: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.headers = status, kind, message, headers


class Shield:
    """Wraps `app`.

    token: None = every method that may change something answers 404. protect_reads: reading `/api/v1` and the pages
    needs the token as well (for listeners that others can reach). on_refusal: told of each refusal, for the audit.
    """

    def __init__(
        self,
        app: App,
        *,
        token: str | None,
        allowed_hosts: Iterable[str],
        clock: Clock,
        on_refusal: Callable[[Refusal], None],
        protect_reads: bool = False,
    ) -> None:
        self._app = app
        self._token = TokenCheck(token) if token else None
        self._hosts = HostList(allowed_hosts)
        self._clock = clock
        self._on_refusal = on_refusal
        self._protect_reads = protect_reads
        self._throttle = FailureThrottle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # no websockets here
        started = False

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = {name for name, _ in _HEADERS}
                message["headers"] = [pair for pair in message.get("headers", ()) if pair[0].lower() not in own]
                message["headers"] += _HEADERS
            await send(message)

        try:
            try:
                self._check_framing(scope)
                self._check_names(scope)
                self._check_token(scope)
                receive = await self._whole_body(scope, receive)
            except _Refused as refused:
                self._tell(scope, refused)
                await _answer(guarded_send, refused)
                return
            await self._app(scope, receive, guarded_send)
        except Exception:  # Whatever it is, the listener goes on and the caller learns nothing of our insides.
            log.exception("admin: %s failed", scope["path"])
            if not started:
                await _answer(guarded_send, _Refused(500, "internal", "the guard failed to answer; see its log"))

    def _check_framing(self, scope: Scope) -> None:
        names = [name for name, _ in scope["headers"]]
        if b"content-length" in names and b"transfer-encoding" in names:
            raise _Refused(400, "bad_framing", "content-length together with transfer-encoding")
        if _header(scope, b"content-encoding") not in ("", "identity"):
            raise _Refused(415, "encoded_request", "send the body without content-encoding")
        # No percent signs: there is one spelling of every path, so what is checked is what is routed.
        if not _PATH.fullmatch(scope.get("raw_path") or b"") or "//" in scope["path"] or "/.." in scope["path"]:
            raise _Refused(400, "bad_request", "the path has characters that no path here has")

    def _check_names(self, scope: Scope) -> None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1:
            raise _Refused(400, "bad_request", "one Host header is needed")
        if not self._hosts.allows(hosts[0].decode("latin-1")):
            raise _Refused(403, "host_not_allowed", "this Host is not on the list; add it to admin.allowed_hosts")
        for name, value in scope["headers"]:
            if name == b"origin" and not self._hosts.allows_origin(value.decode("latin-1")):
                raise _Refused(403, "origin_not_allowed", "pages of this Origin may not ask here")

    def _check_token(self, scope: Scope) -> None:
        path, reading = scope["path"], scope["method"] in READING
        if scope["method"] == "POST" and path in OPEN_POSTS:
            reading = True
        private = self._protect_reads and (path.startswith("/api/v1/") or path in PAGES)
        if reading and not private:
            return
        if self._token is None:
            raise _Refused(404, "not_found", OFF)
        address, now_s = _address(scope), self._clock.now_s()
        wait_s = self._throttle.wait_s(address, now_s)
        if wait_s > 0:
            retry = (b"retry-after", b"%d" % max(1, round(wait_s)))
            raise _Refused(429, "too_many_failures", f"too many failed tokens; wait {max(1, round(wait_s))} s", retry)
        presented = _bearer(scope)
        if presented is None or not self._token.accepts(presented):
            self._throttle.failed(address, now_s)
            how = "the token is wrong" if presented else "send `Authorization: Bearer TOKEN`"
            raise _Refused(401, "unauthorized", how, (b"www-authenticate", b'Bearer realm="sft-guard"'))
        scope["guard.token_id"] = self._token.id

    async def _whole_body(self, scope: Scope, receive: Receive) -> Receive:
        """Read the body within its size and time, and hand it on in one piece."""
        limit = ALERTS_BYTES if scope["path"] == ALERTS_PATH else BODY_BYTES
        too_large = _Refused(413, "too_large", f"the body may have {limit} bytes", (b"connection", b"close"))
        length = _header(scope, b"content-length")
        if length and (not length.isdigit() or int(length) > limit):
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_S):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        break  # gone; the application sees an end of input
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise too_large
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise _Refused(408, "slow_request", f"the body took over {BODY_S:g} s", (b"connection", b"close")) from None
        kind = _header(scope, b"content-type").partition(";")[0].strip().lower()
        # Pages of other sites may send form types without asking; JSON they may not.
        if size and kind != "application/json":
            raise _Refused(415, "not_json", "send the body as application/json")
        body = b"".join(parts)
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        return replay

    def _tell(self, scope: Scope, refused: _Refused) -> None:
        presented = _bearer(scope)
        refusal = Refusal(
            _address(scope),
            scope["method"],
            scope["path"][:200],
            refused.kind,
            token_id(presented) if presented else "",
        )
        try:
            self._on_refusal(refusal)
        except Exception:  # The audit may be broken; the refusal stands.
            log.exception("admin: a refusal could not be audited")


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _header(scope: Scope, wanted: bytes) -> str:
    """All values of a header in one, as a list would be written."""
    return ", ".join(value.decode("latin-1").strip() for name, value in scope["headers"] if name == wanted)


def _bearer(scope: Scope) -> bytes | None:
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return None
    scheme, _, token = values[0].partition(b" ")
    return token.strip() or None if scheme.lower() == b"bearer" else None


async def _answer(send: Send, refused: _Refused) -> None:
    body = error_body(refused.kind, refused.message)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *refused.headers,
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
