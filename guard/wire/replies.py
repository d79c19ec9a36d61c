"""Answers that the guard gives itself: OpenAI-style error bodies, whose `type` is the reason that is counted."""

from __future__ import annotations

from http import HTTPStatus
from random import random

import msgspec

from guard.ports import Reason

_encode = msgspec.json.encode

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

STATUS_OF: dict[Reason, HTTPStatus] = {
    Reason.UPSTREAM_CONNECT: HTTPStatus.BAD_GATEWAY,
    Reason.CONNECT_TIMEOUT: HTTPStatus.GATEWAY_TIMEOUT,
    Reason.FIRST_BYTE_TIMEOUT: HTTPStatus.GATEWAY_TIMEOUT,
    Reason.TOTAL_TIMEOUT: HTTPStatus.GATEWAY_TIMEOUT,
    Reason.UPSTREAM_STALLED: HTTPStatus.GATEWAY_TIMEOUT,
    Reason.BAD_UPSTREAM_HEAD: HTTPStatus.BAD_GATEWAY,
    Reason.BAD_FRAMING: HTTPStatus.BAD_GATEWAY,
    Reason.UPSTREAM_CUT: HTTPStatus.BAD_GATEWAY,
    Reason.EGRESS_DENIED: HTTPStatus.BAD_GATEWAY,
    Reason.MALFORMED: HTTPStatus.BAD_GATEWAY,
    Reason.SHED: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.CONN_LIMIT: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.DRAINING: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.SLOW_REQUEST: HTTPStatus.REQUEST_TIMEOUT,
    Reason.NO_ROUTE: HTTPStatus.NOT_FOUND,
    Reason.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
    Reason.GUARD_BLOCKED: HTTPStatus.BAD_REQUEST,
}
"""Status of an answer that the guard gives because of a reason; refused requests bring their own."""

MESSAGE_OF: dict[Reason, str] = {
    Reason.UPSTREAM_CONNECT: "the model server could not be reached",
    Reason.CONNECT_TIMEOUT: "no connection to the model server within the time allowed",
    Reason.FIRST_BYTE_TIMEOUT: "the model server did not begin to answer within the time allowed",
    Reason.TOTAL_TIMEOUT: "the answer took longer than a request may take",
    Reason.UPSTREAM_STALLED: "the model server stopped in the middle of its answer",
    Reason.UPSTREAM_CUT: "the model server closed the connection before its answer was complete",
    Reason.BAD_UPSTREAM_HEAD: "the model server's response head is too large or too slow",
    Reason.BAD_FRAMING: "the model server's answer is not framed beyond doubt",
    Reason.EGRESS_DENIED: "the address of the model server is not one that may be called",
    Reason.MALFORMED: "the model server sent an event that is too large",
    Reason.SHED: "overloaded; try again after the time given in Retry-After",
    Reason.CONN_LIMIT: "too many connections; try again after the time given in Retry-After",
    Reason.DRAINING: "this server is going away; try again",
    Reason.SLOW_REQUEST: "the request came too slowly",
    Reason.NO_ROUTE: "no route of this guard matches the path",
    Reason.GUARD_BLOCKED: "the question was refused by a safety check",
    Reason.INTERNAL: "the guard failed to handle this request",
}


def error_body(reason: Reason, message: str = "", *, param: str | None = None, code: str = "") -> bytes:
    """The JSON that OpenAI clients turn into an exception. code: when it says more than the reason.

    >>> error_body(Reason.SHED, "later")
    b'{"error":{"message":"later","type":"shed","param":null,"code":"shed"}}'
    """
    text = message or MESSAGE_OF.get(reason, reason.value)
    return _encode({"error": {"message": text, "type": reason.value, "param": param, "code": code or reason.value}})


def error_frame(reason: Reason, message: str = "") -> bytes:
    """The same as an event in the middle of a stream; official clients raise on it."""
    return b"data: " + error_body(reason, message) + b"\n\n"


def reply(
    status: int,
    body: bytes,
    *,
    keep_alive: bool,
    extra: bytes = b"",
    head_only: bool = False,
    content_type: bytes = b"application/json",
) -> bytes:
    """A whole response. `extra`: further header lines, each with its line end."""
    try:
        phrase = HTTPStatus(status).phrase.encode()
    except ValueError:
        phrase = b"Unknown"
    return b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\n%s%s\r\n%s" % (
        status, phrase, content_type, len(body), extra, b"" if keep_alive else b"connection: close\r\n",
        b"" if head_only else body,
    )  # fmt: skip


def retry_after_s() -> int:
    """Seconds a refused client should wait; spread, so that they do not all come back at once."""
    return 1 + int(random() * 4)
