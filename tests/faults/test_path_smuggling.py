"""Requests that two programs could read in two ways: each is refused, its connection closed, and nothing sent on."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.faults.path_kit import running, take_apart, target
from tests.faults.scripted_upstream import Script, Upstream, completion, http

pytestmark = pytest.mark.anyio

HOST = b"Host: x\r\n"
INNER = b"GET /admin HTTP/1.1\r\nHost: x\r\n\r\n"


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body
    )


def get(target_bytes: bytes) -> bytes:
    return b"GET " + target_bytes + b" HTTP/1.1\r\nHost: x\r\n\r\n"


# ruff: noqa: E501 - one probe, one line
PROBES: dict[str, tuple[bytes, int]] = {
    # Framing
    "length beside chunked": (post(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + INNER), 400),
    "chunked beside length": (post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"0\r\n\r\n" + INNER), 400),
    "two lengths": (post(b"Content-Length: 2", b"Content-Length: 3", body=b"{}x"), 400),
    "two equal lengths": (post(b"Content-Length: 2", b"Content-Length: 2", body=b"{}"), 400),
    "length list": (post(b"Content-Length: 2, 2", body=b"{}"), 400),
    "negative length": (post(b"Content-Length: -1"), 400),
    "signed length": (post(b"Content-Length: +2", body=b"{}"), 400),
    "hex length": (post(b"Content-Length: 0x2", body=b"{}"), 400),
    "length with underscore": (post(b"Content-Length: 1_0", body=b"{}"), 400),
    "empty length": (post(b"Content-Length:", body=b"{}"), 400),
    "huge length": (post(b"Content-Length: 99999999999999999999", body=b"{}"), 400),
    "length with inner blank": (post(b"Content-Length: 1 0", body=b"{}"), 400),
    "arabic digits": (post("Content-Length: \u0662".encode(), body=b"{}"), 400),
    "gzip coding": (post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    "chunked first": (post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"), 501),
    "coding xchunked": (post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), 501),
    "quoted coding": (post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"), 501),
    "coding with tab": (post(b"Transfer-Encoding: chun\tked", body=b"0\r\n\r\n"), 501),
    "coding with vertical tab": (post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"), 400),
    "two codings": (post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=b"0\r\n\r\n"), 400),
    "empty coding": (post(b"Transfer-Encoding:", body=b"0\r\n\r\n"), 501),
    "coding in 1.0": (
        post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"), 400,
    ),
    "chunk size in bad hex": (post(b"Transfer-Encoding: chunked", body=b"0x1\r\na\r\n0\r\n\r\n"), 400),
    "negative chunk": (post(b"Transfer-Encoding: chunked", body=b"-1\r\na\r\n0\r\n\r\n"), 400),
    "chunk overflow": (post(b"Transfer-Encoding: chunked", body=b"ffffffffffffffff1\r\na\r\n0\r\n\r\n"), 400),
    "chunk ended by LF": (post(b"Transfer-Encoding: chunked", body=b"1\na\n0\n\n"), 400),
    "LF in extension": (post(b"Transfer-Encoding: chunked", body=b"1;a\nb\r\na\r\n0\r\n\r\n"), 400),
    "chunk too long": (post(b"Transfer-Encoding: chunked", body=b"1\r\nab\r\n0\r\n\r\n"), 400),
    "blank before extension": (post(b"Transfer-Encoding: chunked", body=b"1 \r\na\r\n0\r\n\r\n"), 400),
    # Header syntax
    "blank before colon": (post(b"Content-Length : 2", body=b"{}"), 400),
    "tab before colon": (post(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n"), 400),
    "folded header": (post(b"X: a", b" Content-Length: 2", body=b"{}"), 400),
    "folded coding": (post(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n"), 400),
    "first line folded": (b"GET / HTTP/1.1\r\n X: y\r\nHost: x\r\n\r\n", 400),
    "bare LF between headers": (b"POST /ask HTTP/1.1\r\nHost: x\nContent-Length: 2\r\n\r\n{}", 400),
    "bare LF request": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "bare CR in header": (post(b"X: a\rContent-Length: 2", body=b"{}"), 400),
    "NUL in header": (post(b"X: a\x00b"), 400),
    "NUL in name": (post(b"X\x00: a"), 400),
    "escape character": (post(b"X: \x1b[2J"), 400),
    "no colon": (post(b"JustAWord"), 400),
    "empty name": (post(b": value"), 400),
    "high bytes in name": (post("H\u00e9: a".encode()), 400),
    "parentheses in name": (post(b"X(1): a"), 400),
    # Request line and target
    "absolute form": (get(b"http://internal/admin"), 400),
    "authority form": (get(b"internal:80"), 400),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "connect": (b"CONNECT internal:22 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "trace": (b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "unknown method": (b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    "lower-case method": (b"post / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    "two blanks": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "blank in target": (get(b"/a b"), 400),
    "no version": (b"GET /\r\nHost: x\r\n\r\n", 400),
    "version 0.9": (b"GET / HTTP/0.9\r\nHost: x\r\n\r\n", 505),
    "version 2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "version 1.2": (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "dot segments": (get(b"/v1/../admin"), 400),
    "dot segment at the end": (get(b"/v1/.."), 400),
    "dot with parameter": (get(b"/v1/..;/admin"), 400),
    "encoded dots": (get(b"/v1/%2e%2e/admin"), 400),
    "encoded slash": (get(b"/v1%2Fadmin"), 400),
    "encoded backslash": (get(b"/v1%5cadmin"), 400),
    "encoded NUL": (get(b"/v1/%00"), 400),
    "encoded letter": (get(b"/v1/%63hat"), 400),
    "overlong dot": (get(b"/v1/%c0%ae"), 400),
    "broken escape": (get(b"/v1/%zz"), 400),
    "backslash": (get(b"/v1\\admin"), 400),
    "two slashes": (get(b"//internal/admin"), 400),
    "fragment": (get(b"/v1#a"), 400),
    "control in target": (get(b"/v1/\x01"), 400),
    "high byte in target": (get(b"/v1/\xff"), 400),
    # Host
    "no host": (b"GET / HTTP/1.1\r\nX: y\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "host with path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "host with user": (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    "host list": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "empty host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    # Other
    "unknown expectation": (post(b"Expect: 200-ok", b"Content-Length: 2", body=b"{}"), 417),
}  # fmt: skip


@pytest.mark.parametrize("name", PROBES)
async def test_a_doubtful_request_is_refused_and_its_connection_closed(name: str):
    probe, status = PROBES[name]
    async with Upstream(lambda _: Script(http(completion()))) as upstream, running(target(upstream.port)) as guard:
        reader, writer = await asyncio.open_connection("127.0.0.1", guard.port)
        # A request behind the doubtful one shows whether anything after it is read as a request.
        writer.write(probe + (INNER if b"HTTP" in probe else b""))
        async with asyncio.timeout(5):
            raw = await reader.read(-1)
        writer.close()
    answer = take_apart(raw)
    assert answer.status == status
    assert answer.header("connection") == "close"
    assert len(re.findall(rb"HTTP/1.1 [0-9]{3} ", raw)) == 1
    assert upstream.requests == []


HARMLESS: dict[str, bytes] = {
    "empty line first": b"\r\n" + post(b"Content-Length: 2", body=b"{}"),
    "tab around a value": post(b"X:\ta\t", b"Content-Length: \t2 ", body=b"{}"),
    "chunked in capitals": post(b"Transfer-Encoding: Chunked", body=b"2\r\n{}\r\n0\r\n\r\n"),
    "latin-1 in a value": post(b"X: caf\xe9", b"Content-Length: 2", body=b"{}"),
    "leading zeros": post(b"Content-Length: 0002", body=b"{}"),
    "host with port": post(b"Content-Length: 2", body=b"{}").replace(b"Host: x", b"Host: [::1]:8800"),
    "connection names the length": post(b"Connection: content-length, host", b"Content-Length: 2", body=b"{}"),
    "escaped blank": post(b"Content-Length: 2", body=b"{}").replace(b"/v1/chat/completions", b"/files/a%20b%E4%B8%83"),
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_is_unusual_but_clear_is_passed_on_with_one_framing(name: str):
    async with Upstream(lambda _: Script(http(completion()))) as upstream, running(target(upstream.port)) as guard:
        reader, writer = await asyncio.open_connection("127.0.0.1", guard.port)
        writer.write(HARMLESS[name])
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert upstream.requests[0].body == b"{}"
    assert upstream.requests[0].head.lower().count(b"content-length:") == 1
    assert b"transfer-encoding" not in upstream.requests[0].head.lower()


@pytest.mark.parametrize(
    "following",
    [
        INNER,
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
    ids=["a-request", "connect", "upgrade"],
)
async def test_what_follows_a_chunked_request_is_not_answered(following: bytes):
    first = post(b"Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\n\r\n")
    async with Upstream(lambda _: Script(http(completion()))) as upstream, running(target(upstream.port)) as guard:
        reader, writer = await asyncio.open_connection("127.0.0.1", guard.port)
        writer.write(first + following)
        raw = await reader.read(-1)
        writer.close()
    assert raw.count(b"HTTP/1.1 200") == 1
    assert take_apart(raw).header("connection") == "close"
    assert len(upstream.requests) == 1
