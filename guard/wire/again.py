"""Heads that come again on one connection: the same but for the length of the body, so they are read once.

A client library sends the same head with each question, a server the same one with each answer of a second. A head
that equals the one before, but for its Content-Length line, needs no second reading: the strict reader has accepted
every line of it, and the one line that differs is checked here. Remembered per connection and no longer than it is in
use, because a head holds its caller's key.
"""

from __future__ import annotations

from guard.wire.http1 import RequestHead, ResponseHead, read_request_head, read_response_head

_LONGEST_BYTES = 4096  # of a head that is remembered
_LINE = len(b"\r\nContent-Length: ")


def split_length(raw: bytes) -> tuple[bytes, bytes]:
    r"""Cut the first Content-Length line, written in one of the two usual ways, out of a head.

    Returns: (head without it, its value); the value is b"" when there is no such line.

    >>> split_length(b"POST / HTTP/1.1\r\nContent-Length: 12\r\nHost: a")
    (b'POST / HTTP/1.1\r\nHost: a', b'12')
    """
    at = raw.find(b"\r\nContent-Length: ")
    if at < 0:
        at = raw.find(b"\r\ncontent-length: ")
        if at < 0:
            return raw, b""
    end = raw.find(b"\r\n", at + _LINE)
    if end < 0:
        return raw[:at], raw[at + _LINE :]
    return raw[:at] + raw[end:], raw[at + _LINE : end]


class RequestMemory:
    """The last request head of one connection."""

    __slots__ = ("_head", "_rest")

    def __init__(self) -> None:
        self._head: RequestHead | None = None
        self._rest = b""

    def read(self, raw: bytes) -> RequestHead:
        """As `read_request_head`, which see.

        Raises:
            BadRequest: with the status to answer; the connection cannot be used any further.
        """
        rest, length = split_length(raw)
        known = self._head
        if known is not None and rest == self._rest and length.isdigit() and len(length) <= 18:
            return known.again(int(length))
        head = read_request_head(raw)
        if length and len(rest) <= _LONGEST_BYTES and not head.chunked and not head.expect_continue:
            self._rest, self._head = rest, head.again(head.content_length)
        return head

    def forget(self) -> None:
        """The connection is not in use."""
        self._head, self._rest = None, b""


class ResponseMemory:
    """The last response head of one connection."""

    __slots__ = ("_head", "_rest")

    def __init__(self) -> None:
        self._head: ResponseHead | None = None
        self._rest = b""

    def read(self, raw: bytes, *, to_head: bool = False) -> ResponseHead:
        """As `read_response_head`, which see.

        Raises:
            BadFraming: the message says in which way.
        """
        if to_head:
            return read_response_head(raw, to_head=True)
        rest, length = split_length(raw)
        known = self._head
        if known is not None and rest == self._rest and length.isdigit() and len(length) <= 18:
            return known.again(int(length))
        head = read_response_head(raw)
        if length and len(rest) <= _LONGEST_BYTES and not head.chunked and not head.bodyless:
            assert head.content_length is not None
            self._rest, self._head = rest, head.again(head.content_length)
        return head

    def forget(self) -> None:
        """The connection is not in use."""
        self._head, self._rest = None, b""
