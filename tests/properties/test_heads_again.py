"""A head that comes again is read as the strict reader reads it, whatever else comes on the same connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.wire.again import RequestMemory, ResponseMemory, split_length
from guard.wire.http1 import BadFraming, BadRequest, read_request_head, read_response_head

SAME = ("_joined", "_pairs")
FIELDS = st.sampled_from([
    b"Host: a", b"Host: b", b"host: a", b"Content-Length: 5", b"Content-Length: 17", b"content-length: 5",
    b"content-length: 200", b"CONTENT-LENGTH: 5", b"Content-Length:5", b"Content-Length: 5 ", b"Content-Length: +5",
    b"Content-Length: ", b"Content-Length: 5, 5", b"Content-Length: 9999999999999999999", b"X: Content-Length: 5",
    b" folded", b"Transfer-Encoding: chunked", b"Connection: close", b"Connection: keep-alive, x-a", b"X-A: 1",
    b"X-A: 2", b"Authorization: Bearer k", b"Expect: 100-continue", b"Accept-Encoding: gzip", b"bad header", b"X\n: 1",
])  # fmt: skip
REQUEST_LINES = st.sampled_from([b"POST /v1 HTTP/1.1", b"GET /v1 HTTP/1.1", b"POST /v2 HTTP/1.0", b"POST //x HTTP/1.1"])
STATUS_LINES = st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.0 200 OK", b"HTTP/1.1 500 X", b"x"])


def read(reader: Callable[..., Any], raw: bytes, **options: bool) -> object:
    try:
        head = reader(raw, **options)
    except (BadRequest, BadFraming) as error:
        return type(error), str(error)
    slots = [name for name in type(head).__slots__ if name not in SAME]
    lines = head.lines(frozenset({b"x-a"})) if hasattr(head, "path") else (head.lines(), head.pairs())
    return {name: getattr(head, name) for name in slots}, lines


def heads(lines: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes]]:
    one = st.builds(lambda line, fields: b"\r\n".join([line, *fields]), lines, st.lists(FIELDS, max_size=4))
    few = st.lists(one, min_size=1, max_size=3)
    return few.flatmap(lambda known: st.lists(st.sampled_from(known), min_size=2, max_size=12))


@given(heads(REQUEST_LINES))
def test_requests(raws: list[bytes]) -> None:
    memory = RequestMemory()
    for raw in raws:
        assert read(memory.read, raw) == read(read_request_head, raw)


@given(heads(STATUS_LINES), st.lists(st.booleans(), min_size=12, max_size=12))
def test_responses(raws: list[bytes], to_heads: list[bool]) -> None:
    memory = ResponseMemory()
    for raw, to_head in zip(raws, to_heads, strict=False):
        assert read(memory.read, raw, to_head=to_head) == read(read_response_head, raw, to_head=to_head)


def test_another_length_is_the_only_thing_that_may_differ() -> None:
    memory = RequestMemory()
    first = memory.read(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5")
    first.keep_alive = False  # as the path does with a head it closes after
    again = memory.read(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 70")
    assert (again.content_length, again.keep_alive, again.fields) == (70, True, first.fields)
    with pytest.raises(BadRequest):
        memory.read(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 70")
    memory.forget()
    assert memory.read(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6").fields is not first.fields


def test_the_length_is_cut_out_wherever_it_stands() -> None:
    assert split_length(b"A\r\ncontent-length: 3") == (b"A", b"3")
    assert split_length(b"A\r\nContent-Length: 3\r\nB: 1") == (b"A\r\nB: 1", b"3")
    assert split_length(b"Content-Length: 3\r\nB: 1") == (b"Content-Length: 3\r\nB: 1", b"")
