"""Strict reading of HTTP/1 heads, both sides: what is doubtful is refused, so that no two programs can read it twice.

A head is read here from its raw bytes, once, before anything is forwarded. What comes out holds lines that may be
passed on as they are (hop-by-hop fields are gone) and the framing of the body. Rules are those of RFC 9112 with every
leniency off: an obsolete fold, a bare CR or LF, a blank before a colon, two Content-Length, Content-Length beside
Transfer-Encoding, a second Host or a path that a decoder would change are errors here, not matters of taste.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from guard.ports import Reason

METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
"""Methods that are passed on. CONNECT and TRACE are known and refused (405), the rest is unknown (501)."""

KNOWN_METHODS = METHODS | {b"CONNECT", b"TRACE"}

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(%s) ([^ \x00-\x1f\x7f-\xff]+) HTTP/1\.([01])" % _TOKEN)
_ANY_REQUEST_LINE = re.compile(rb"%s [^ \r\n]+ HTTP/\d(\.\d)?" % _TOKEN)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?")
_FIELD = re.compile(rb"(%s):([^\x00-\x08\x0a-\x1f\x7f]*)" % _TOKEN)
_HOST = re.compile(rb"(?:[0-9A-Za-z._~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
# Encodings of characters that need none (they would make two spellings of one path), of separators and of controls.
_BAD_ESCAPE = re.compile(
    rb"%(?![0-9A-Fa-f]{2})|%(?:2[dDeEfF]|3[0-9]|4[1-9a-fA-F]|5[0-9aAcCfF]|6[1-9a-fA-F]|7[0-9aAeEfF]|[01][0-9a-fA-F]|[cC][01])"
)
_DOT_SEGMENT = re.compile(rb"(?:^|/)\.{1,2}(?:/|$|;)")
FIELDS_COUNT_MAX = 256
OPTIONS_COUNT_MAX = 64
"""A head of 64 KiB can hold 16,000 fields or 30,000 options; to read those would hold everybody up for milliseconds."""

# What a field means to us. PLAIN ones are forwarded unseen; NOTED ones are forwarded and looked at.
PLAIN, HOP, HOST, LENGTH, CODING, CONNECTION, EXPECT, NOTED = range(8)

_KINDS: dict[bytes, int] = {
    b"host": HOST, b"content-length": LENGTH, b"transfer-encoding": CODING, b"connection": CONNECTION,
    b"expect": EXPECT, b"keep-alive": HOP, b"proxy-connection": HOP, b"proxy-authenticate": HOP,
    b"proxy-authorization": HOP, b"te": HOP, b"trailer": HOP, b"upgrade": HOP,
    b"x-guard-session": NOTED, b"x-guard-tenant": NOTED, b"x-guard-roles": NOTED, b"traceparent": NOTED,
    b"content-encoding": NOTED, b"accept-encoding": NOTED, b"content-type": NOTED,
    # The guard's own words: an upstream cannot speak them.
    b"x-guard-exchange-id": HOP, b"x-guard-release": HOP, b"x-guard-cache": HOP,
}  # fmt: skip

_SECRET = frozenset({b"authorization", b"cookie", b"x-api-key", b"api-key", b"set-cookie"})
_MEMO_LIMIT = 1024
Field = tuple[int, bytes, bytes, tuple[bytes, bytes]]
"""One field: what it means to us, its lower-case name, its line as sent, and (name, value)."""

_new = object.__new__
_memo: dict[bytes, Field] = {}
_request_lines: dict[bytes, tuple[bytes, bytes, bytes, int]] = {}
_status_lines: dict[bytes, tuple[int, bytes, int]] = {}


class BadRequest(Exception):
    """The request is refused and its connection closed. `status` is the HTTP status, `reason` what is counted."""

    def __init__(self, status: HTTPStatus, message: str, reason: Reason = Reason.BAD_REQUEST) -> None:
        self.status, self.message, self.reason = status, message, reason
        super().__init__(message)


class BadFraming(Exception):
    """The upstream's answer cannot be framed beyond doubt; nothing of it is used."""


class RequestHead:
    """A request head that may be forwarded.

    fields: what is passed on; framing and hop-by-hop fields are not in it. path: the target without its query.
    content_length: bytes of the body; 0 without one. chunked: the body carries its own framing instead.
    """

    __slots__ = (
        "_joined", "chunked", "content_length", "expect_continue", "fields", "keep_alive", "method", "minor", "notes",
        "path", "target",
    )  # fmt: skip

    def __init__(self, method: bytes, target: bytes, path: bytes, minor: int) -> None:
        self.method, self.target, self.path, self.minor = method, target, path, minor
        self.fields: list[Field] = []
        self.notes: dict[bytes, bytes] = {}
        self.content_length = 0
        self.chunked = self.expect_continue = False
        self.keep_alive = minor == 1
        self._joined: dict[frozenset[bytes], bytes] = {}

    def again(self, content_length: int) -> RequestHead:
        """The same head before a body of another length. Fields and notes are shared: nobody changes them."""
        head: RequestHead = _new(RequestHead)
        head.method, head.target, head.path, head.minor = self.method, self.target, self.path, self.minor
        head.fields, head.notes, head._joined = self.fields, self.notes, self._joined
        head.content_length = content_length
        head.chunked, head.expect_continue, head.keep_alive = self.chunked, self.expect_continue, self.keep_alive
        return head

    def lines(self, dropped: frozenset[bytes]) -> bytes:
        """Header lines that go on, as sent, without those whose name is dropped."""
        lines = self._joined.get(dropped)
        if lines is None:
            lines = self._joined[dropped] = _joined(self.fields, dropped)
        return lines


class ResponseHead:
    """A response head that may be forwarded.

    content_length: None when the body is chunked, ends with the connection, or is absent (`bodyless`).
    """

    __slots__ = (
        "_joined", "_pairs", "bodyless", "chunked", "content_length", "fields", "keep_alive", "notes",
        "reason_phrase", "status",
    )  # fmt: skip

    def __init__(self, status: int, reason_phrase: bytes, minor: int) -> None:
        self.status, self.reason_phrase = status, reason_phrase
        self.fields: list[Field] = []
        self.notes: dict[bytes, bytes] = {}
        self.content_length: int | None = None
        self.chunked = self.bodyless = False
        self.keep_alive = minor == 1
        self._joined: bytes | None = None
        self._pairs: tuple[tuple[bytes, bytes], ...] | None = None

    def again(self, content_length: int) -> ResponseHead:
        """The same head before a body of another length. Fields and notes are shared: nobody changes them."""
        head: ResponseHead = _new(ResponseHead)
        head.status, head.reason_phrase, head.fields, head.notes = (
            self.status, self.reason_phrase, self.fields, self.notes,
        )  # fmt: skip
        head.content_length = content_length
        head.chunked, head.bodyless, head.keep_alive = self.chunked, self.bodyless, self.keep_alive
        head._joined, head._pairs = self.lines(), self.pairs()
        return head

    def lines(self) -> bytes:
        """Header lines that go on, as sent."""
        if self._joined is None:
            self._joined = _joined(self.fields, frozenset())
        return self._joined

    def pairs(self) -> tuple[tuple[bytes, bytes], ...]:
        """(lower-case name, value) of the header lines that go on."""
        if self._pairs is None:
            self._pairs = tuple([field[3] for field in self.fields])
        return self._pairs


def _joined(fields: list[Field], dropped: frozenset[bytes]) -> bytes:
    lines = [field[2] for field in fields if field[1] not in dropped]
    return b"\r\n".join(lines) + b"\r\n" if lines else b""


def bare_lf(data: bytes, seen_count: int) -> bool:
    """Whether a line ends without CR, looking only at what is new (counting is thirty times as fast as a pattern).

    >>> bare_lf(b"GET / HTTP/1.1\\r\\nHost: x", 0), bare_lf(b"GET / HTTP/1.1\\nHost: x", 0), bare_lf(b"a\\r\\n", 2)
    (False, True, False)
    """
    start = max(0, seen_count - 1)
    fresh = data[start:] if start else data
    known = bool(start) and fresh.startswith(b"\n")  # judged when it came
    return fresh.count(b"\n") - known != fresh.count(b"\r\n")


def _read_field(line: bytes) -> Field:
    """Read one field line; remembered, because clients and servers repeat themselves.

    Raises:
        ValueError: the line is not a field; the message says in which way.
    """
    match = _FIELD.fullmatch(line)
    if match is None:
        if line[:1] in b" \t":
            raise ValueError("obsolete line folding")
        name = line.partition(b":")[0]
        if name.rstrip(b" \t") != name:
            raise ValueError("blank before the colon of a header")
        raise ValueError("malformed header line")
    name = match[1].lower()
    value = match[2].strip(b" \t")
    kind = _KINDS.get(name, PLAIN)
    if kind == HOST and not _HOST.fullmatch(value):
        raise ValueError("malformed Host")
    read = (kind, name, line, (name, value))
    if len(line) <= 200 and name not in _SECRET:
        if len(_memo) >= _MEMO_LIMIT:
            _memo.clear()
        _memo[line] = read
    return read


def _drop_named(fields: list[Field], options: set[bytes]) -> list[Field]:
    """Fields without those that the Connection field names as belonging to this hop."""
    named = options - {b"close", b"keep-alive", b""}
    return [field for field in fields if field[1] not in named] if named else fields


def _options(connection: bytes) -> set[bytes]:
    return {option.strip() for option in connection.lower().split(b",")}


def _refuse(message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> BadRequest:
    return BadRequest(status, message)


def _read_request_line(line: bytes) -> tuple[bytes, bytes, bytes, int]:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        if _ANY_REQUEST_LINE.fullmatch(line) and not line.endswith((b"HTTP/1.0", b"HTTP/1.1")):
            raise _refuse("only HTTP/1.0 and HTTP/1.1 are spoken here", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        raise _refuse("malformed request line")
    method, target = match[1], match[2]
    if method not in METHODS:
        if method in KNOWN_METHODS:
            raise _refuse("method not allowed", HTTPStatus.METHOD_NOT_ALLOWED)
        raise _refuse("unknown method", HTTPStatus.NOT_IMPLEMENTED)
    path = target.partition(b"?")[0]
    check_path(path, target)
    read = (method, target, path, match[3][0] - 48)
    if len(line) <= 200:
        if len(_request_lines) >= _MEMO_LIMIT:
            _request_lines.clear()
        _request_lines[line] = read
    return read


def check_path(path: bytes, target: bytes) -> None:
    """Refuse a path that another program could read as a different one; no request may choose a host.

    Raises:
        BadRequest: 400, the message says in which way.
    """
    if not target.startswith(b"/"):
        raise _refuse("the request target must be a path")
    if path.startswith(b"//"):
        raise _refuse("path starts with two slashes")
    if b"\\" in target or b"#" in target:
        raise _refuse("backslash or fragment in the request target")
    if _BAD_ESCAPE.search(path):
        raise _refuse("path holds an escape that hides a separator, a control or a plain character")
    if _DOT_SEGMENT.search(path):
        raise _refuse("path holds a dot segment")


def read_request_head(raw: bytes) -> RequestHead:
    """Read a request head without its closing blank line.

    Raises:
        BadRequest: with the status to answer; the connection cannot be used any further.
    """
    lines = raw.split(b"\r\n")
    if len(lines) > FIELDS_COUNT_MAX:
        raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many header fields", Reason.TOO_LARGE)
    line = lines[0]
    head = RequestHead(*(_request_lines.get(line) or _read_request_line(line)))
    host = length = coding = expect = None
    connection = b""
    fields = head.fields
    memo = _memo
    for line in lines[1:]:
        try:
            field = memo.get(line) or _read_field(line)
        except ValueError as error:
            raise _refuse(str(error)) from None
        kind = field[0]
        if kind == PLAIN:
            fields.append(field)
            continue
        name, value = field[3]
        if kind == NOTED:
            fields.append(field)
            head.notes.setdefault(name, value)
        elif kind == HOST:
            if host is not None:
                raise _refuse("more than one Host")
            host = value
        elif kind == LENGTH:
            if length is not None:
                raise _refuse("more than one Content-Length")
            length = value
        elif kind == CODING:
            if coding is not None:
                raise _refuse("more than one Transfer-Encoding")
            coding = value
        elif kind == CONNECTION:
            connection = connection + b"," + value if connection else value
        elif kind == EXPECT:
            expect = value
    if host is None and head.minor:
        raise _refuse("Host is missing")
    if coding is not None:
        _read_coding(head, coding, length)
    elif length is not None:
        if not length.isdigit() or len(length) > 18:
            raise _refuse("malformed Content-Length")
        head.content_length = int(length)
    if connection and connection != b"keep-alive":
        if connection.count(b",") > OPTIONS_COUNT_MAX:
            raise _refuse("too many connection options")
        options = _options(connection)
        head.keep_alive = b"close" not in options and (head.minor == 1 or b"keep-alive" in options)
        head.fields = _drop_named(fields, options)
    elif connection:
        head.keep_alive = True
    if expect is not None:
        if expect.lower() != b"100-continue":
            raise _refuse("unknown expectation", HTTPStatus.EXPECTATION_FAILED)
        head.expect_continue = head.minor == 1
    return head


def _read_coding(head: RequestHead, coding: bytes, length: bytes | None) -> None:
    if length is not None:
        raise _refuse("Content-Length together with Transfer-Encoding")
    if not head.minor:
        raise _refuse("Transfer-Encoding in HTTP/1.0")
    if coding.lower() != b"chunked":
        raise _refuse("unknown transfer coding", HTTPStatus.NOT_IMPLEMENTED)
    head.chunked = True


def _read_status_line(line: bytes) -> tuple[int, bytes, int]:
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise BadFraming("malformed status line")
    read = (int(match[2]), match[3] or b"", match[1][0] - 48)
    if len(_status_lines) < _MEMO_LIMIT and len(line) <= 100:
        _status_lines[line] = read
    return read


def read_response_head(raw: bytes, *, to_head: bool = False) -> ResponseHead:
    """Read a response head without its closing blank line. `to_head`: it answers a HEAD request.

    Raises:
        BadFraming: the message says in which way.
    """
    lines = raw.split(b"\r\n")
    line = lines[0]
    head = ResponseHead(*(_status_lines.get(line) or _read_status_line(line)))
    length = coding = None
    connection = b""
    fields = head.fields
    memo = _memo
    for line in lines[1:]:
        try:
            field = memo.get(line) or _read_field(line)
        except ValueError as error:
            raise BadFraming(str(error)) from None
        kind = field[0]
        if kind == PLAIN:
            fields.append(field)
            continue
        name, value = field[3]
        if kind == NOTED:
            fields.append(field)
            head.notes.setdefault(name, value)
        elif kind == LENGTH:
            if length is not None:
                raise BadFraming("more than one Content-Length")
            length = value
        elif kind == CODING:
            if coding is not None:
                raise BadFraming("more than one Transfer-Encoding")
            coding = value
        elif kind == CONNECTION:
            connection = connection + b"," + value if connection else value
    if connection:
        options = _options(connection)
        head.keep_alive = b"close" not in options and (head.keep_alive or b"keep-alive" in options)
        head.fields = _drop_named(fields, options)
    if coding is not None:
        if length is not None:
            raise BadFraming("Content-Length together with Transfer-Encoding")
        if coding.lower() != b"chunked":
            raise BadFraming("unknown transfer coding")
        head.chunked = True
    elif length is not None:
        if not length.isdigit() or len(length) > 18:
            raise BadFraming("malformed Content-Length")
        head.content_length = int(length)
    head.bodyless = to_head or head.status in (204, 304) or head.status < 200
    return head
