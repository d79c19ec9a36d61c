"""What the bot sees, and what is counted, when the model server misbehaves."""

# ruff: noqa: SIM117 - nested blocks read as a picture of what is between whom; polling is what is tested
from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import shutil
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from guard.ports import Endpoint, Limits, Reason, Target, Timeouts
from guard.wire.sse import EventSplitter, read_event
from slo.types import Outcome, Version
from tests.faults.path_kit import ask, chat, post, running, settled, take_apart, target, tell
from tests.faults.scripted_upstream import (
    DONE,
    USAGE_EVENT,
    Script,
    Upstream,
    chat_stream,
    chunk_event,
    chunked,
    completion,
    http,
    refused_port,
)

pytestmark = pytest.mark.anyio

QUICK = Timeouts(
    connect_s=10.0, first_byte_s=0.4, idle_s=0.15, total_s=5.0, upstream_head_s=0.2, drain_s=0.3, client_write_stall_s=1
)
STREAM = chat_stream(["Seven ", "days, ", "\u4e03\u5929\u3002", "no more"] * 4)


def whole_events(body: bytes) -> bool:
    splitter = EventSplitter()
    splitter.feed(body)
    return not splitter.rest()


def assert_honest(answer_body: bytes, sent: bytes, ended: bool, reason: str) -> None:
    """Whole events only, a prefix of what was sent, then one error frame, no forged end."""
    events = EventSplitter().feed(answer_body)
    assert whole_events(answer_body)
    assert not ended
    assert json.loads(read_event(events[-1])[1])["error"]["type"] == reason
    forwarded = b"".join(events[:-1])
    assert sent.startswith(forwarded)
    assert DONE not in forwarded


async def test_a_refused_connection_is_a_502_with_a_type():
    async with running(target(refused_port())) as guard:
        answer = await ask(guard.port, chat())
    assert (answer.status, answer.error_type) == (502, "upstream_connect")
    assert answer.header("x-guard-release")
    assert guard.sink.told() == [(Outcome.SERVER_ERROR, "upstream_connect")]


async def test_no_connection_within_the_budget_is_a_504(monkeypatch: pytest.MonkeyPatch):
    async with running(target(refused_port()), timeouts=Timeouts(connect_s=0.1, drain_s=0.2)) as guard:
        reader, writer = await asyncio.open_connection("127.0.0.1", guard.port)

        async def black_hole(*_: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", black_hole)
        writer.write(post(chat()))
        answer = take_apart(await reader.read(-1))
        writer.close()
        assert guard.path.stats().pools[0].connecting == 0
    assert (answer.status, answer.error_type) == (504, "connect_timeout")
    assert guard.sink.told() == [(Outcome.TIMEOUT, "connect_timeout")]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_that_never_answers_is_a_504_and_its_slot_is_free(stream: bool):
    async with (
        Upstream(lambda _: Script(stall_at=0)) as upstream,
        running(target(upstream.port), timeouts=QUICK) as guard,
    ):
        answers = await asyncio.gather(*(ask(guard.port, chat(stream=stream)) for _ in range(20)))
        assert {(a.status, a.error_type) for a in answers} == {(504, "first_byte_timeout")}
        await settled(lambda: upstream.open_count == 0)
        assert guard.path.stats().pools[0].open == 0
    assert set(guard.sink.told()) == {(Outcome.TIMEOUT, "first_byte_timeout")}
    assert len(upstream.requests) == 20


async def test_a_head_without_a_body_counts_as_no_answer():
    script = Script(chunked(STREAM), stall_at=chunked(STREAM).index(b"\r\n\r\n") + 4)
    async with Upstream(lambda _: script) as upstream, running(target(upstream.port), timeouts=QUICK) as guard:
        answer = await ask(guard.port, chat(stream=True))
    assert (answer.status, answer.error_type) == (504, "first_byte_timeout")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (Script(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100, drip_bytes=1, pause_s=0.01), "bad_upstream_head"),
        (Script(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000), "bad_upstream_head"),
        (Script(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n"), "bad_upstream_head"),
        (Script(b"SSH-2.0-OpenSSH_9.2\r\n"), "bad_framing"),
        (Script(b"\x16\x03\x01\x02\x00\x01"), "bad_framing"),
        (Script(b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}"), "bad_framing"),
        (Script(http(b"{}", "Transfer-Encoding: chunked")), "bad_framing"),
        (Script(http(b"{}", "Content-Length: 3")), "bad_framing"),
        (Script(http(b"{}", "Content-Length: 2")), "bad_framing"),
        (Script(b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}"), "bad_framing"),
        (Script(b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n{}"), "bad_framing"),
        (Script(b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n{}"), "bad_framing"),
        (Script(b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\n{}"), "bad_framing"),
        (Script(b"HTTP/1.1 200 OK\r\nX: a\rContent-Length: 9\r\nContent-Length: 2\r\n\r\n{}"), "bad_framing"),
        (Script(b"HTTP/1.1 200 OK\r\nX: a\x00\r\nContent-Length: 2\r\n\r\n{}"), "bad_framing"),
        (Script(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), "bad_framing"),
        (Script(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "bad_framing"),
        (Script(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), "bad_framing"),
        (Script(b"HTTP/2 200\r\n\r\n"), "bad_framing"),
        (Script(b"HTTP/1.1 2000 OK\r\n\r\n"), "bad_framing"),
    ],
)
async def test_a_response_head_in_doubt_is_a_502_and_its_connection_is_never_used_again(script: Script, reason: str):
    scripts = iter([script, Script(http(completion()))])
    async with Upstream(lambda _: next(scripts)) as upstream, running(target(upstream.port), timeouts=QUICK) as guard:
        answer = await ask(guard.port, chat())
        assert (answer.status, answer.error_type) == (502, reason)
        assert (await ask(guard.port, chat())).body == completion()
    assert upstream.made_count == 2
    failed = Outcome.INCOMPLETE if script.response.endswith(b"zz\r\n") else Outcome.SERVER_ERROR
    assert guard.sink.told() == [(failed, reason), (Outcome.OK, "")]


async def test_bytes_after_an_answer_are_never_the_next_answer():
    stray = http(completion("stray"))
    for first in (http(completion()) + stray, chunked(completion(), kind="application/json") + stray):
        scripts = iter([Script(first), Script(http(completion("mine")))])
        async with Upstream(lambda _: next(scripts)) as upstream, running(target(upstream.port)) as guard:  # noqa: B023
            assert (await ask(guard.port, chat())).body == completion()
            assert (await ask(guard.port, chat())).body == completion("mine")
        assert upstream.made_count == 2


async def test_an_answer_nobody_asked_for_is_thrown_away():
    async with Upstream(lambda _: Script(http(completion()), piece=http(completion("late")), repeat=1)) as upstream:
        async with running(target(upstream.port)) as guard:
            await ask(guard.port, chat())
            await asyncio.sleep(0.02)
            assert (await ask(guard.port, chat())).body == completion()


async def test_a_stream_stalled_at_any_byte_ends_with_whole_events_and_a_frame():
    response = chunked(STREAM, size=90)
    body_at = response.index(b"\r\n\r\n") + 4
    done_at = response.index(b"[DONE]\n\n") + 8
    offsets = list(range(body_at + 5, done_at, 7))
    at = iter(offsets)
    # All at once: a busy machine may take its time for the first byte, and that is not what is asked here.
    patient = replace(QUICK, first_byte_s=60.0, total_s=60.0, upstream_head_s=60.0)
    async with Upstream(lambda _: Script(response, stall_at=next(at))) as upstream:
        async with running(target(upstream.port), timeouts=patient) as guard:
            asked = [asyncio.ensure_future(ask(guard.port, chat(stream=True))) for _ in offsets]
            answers = await asyncio.gather(*asked)
            for answer in answers:
                assert answer.status == 200
                assert_honest(answer.body, STREAM, answer.ended, "upstream_stalled")
            await settled(lambda: upstream.open_count == 0)
    assert set(guard.sink.told()) == {(Outcome.INCOMPLETE, "upstream_stalled")}
    assert guard.sink.captures == [None] * len(offsets)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_stream_cut_at_any_byte_is_never_taken_for_a_whole_one(reset: bool):
    response = chunked(STREAM, size=90)
    offsets = list(range(0, len(response), 3 if reset else 1))
    async with Upstream(lambda seen: Script(response, cut_at=int(seen.header(b"x-cut") or 0), reset=reset)) as upstream:
        # Forty connections at once: a busy machine may take its time for them, and that is not what is asked here.
        async with running(target(upstream.port), timeouts=Timeouts(connect_s=60.0, drain_s=0.3)) as guard:
            for start in range(0, len(offsets), 40):
                batch = offsets[start : start + 40]
                answers = await asyncio.gather(
                    *(ask(guard.port, chat(stream=True), f"x-cut: {offset}") for offset in batch)
                )
                for offset, answer in zip(batch, answers, strict=True):
                    if response[:offset].endswith((b"[DONE]\n\n\r\n0\r\n", b"[DONE]\n\n\r\n0\r", b"[DONE]\n\n\r\n0")):
                        assert answer.body == STREAM
                    elif b"[DONE]\n\n" in response[:offset]:
                        assert answer.body == STREAM  # only the framing was cut, and closed by us
                    elif answer.status == 502:
                        assert answer.error_type == "upstream_cut"
                    else:
                        assert_honest(answer.body, STREAM, answer.ended, "upstream_cut")
    whole = [exchange for exchange in guard.sink.exchanges if exchange.outcome is Outcome.OK]
    cut_after_done = len([offset for offset in offsets if b"[DONE]\n\n" in response[:offset]])
    assert len(guard.sink.exchanges) == len(offsets)
    # A reset may destroy what was sent before it; it never adds anything.
    assert len(whole) == cut_after_done if not reset else len(whole) <= cut_after_done


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_a_clean_end_without_the_terminal_marker_is_incomplete(framing: str):
    stream = chat_stream(["a"] * 5, done=False)
    response = {
        "chunked": Script(chunked(stream)),
        "length": Script(http(stream, kind="text/event-stream")),
        "close": Script(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + stream, then="close"),
    }[framing]
    async with Upstream(lambda _: response) as upstream, running(target(upstream.port)) as guard:
        answer = await ask(guard.port, chat(stream=True))
    assert_honest(answer.body, stream, answer.ended, "upstream_cut")
    exchange = guard.sink.exchanges[0]
    assert (exchange.outcome, exchange.reason, exchange.usage) == (Outcome.INCOMPLETE, "upstream_cut", "estimated")
    assert exchange.cost_usd is not None


async def test_half_a_json_answer_is_a_clean_error_or_a_short_body():
    small, large = completion(), completion("x" * 400_000)
    scripts = iter([Script(http(small), cut_at=len(http(small)) - 5), Script(http(large), cut_at=350_000)])
    async with Upstream(lambda _: next(scripts)) as upstream, running(target(upstream.port)) as guard:
        first = await ask(guard.port, chat())
        second = await ask(guard.port, chat())
    assert (first.status, first.error_type) == (502, "upstream_cut")
    assert (second.status, second.ended) == (200, False)
    assert guard.sink.told() == [(Outcome.INCOMPLETE, "upstream_cut")] * 2


async def test_a_total_budget_ends_even_a_lively_stream():
    timeouts = Timeouts(total_s=0.3, drain_s=0.2)
    script = Script(
        chunked(b"")[:-5], piece=b"%x\r\n%s\r\n" % (len(STREAM) - 14, STREAM[:-14]), repeat=99, pause_s=0.03
    )
    async with Upstream(lambda _: script) as upstream, running(target(upstream.port), timeouts=timeouts) as guard:
        answer = await ask(guard.port, chat(stream=True))
    assert b'"type":"total_timeout"' in answer.body
    assert not answer.ended
    assert guard.sink.told() == [(Outcome.INCOMPLETE, "total_timeout")]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "malformed"),
        (b"<html>busy</html>", "malformed"),
        (b"[]", "malformed"),
        (b'{"object":"list"}', "malformed"),
        (b"", "malformed"),
        (b'{"error":{"message":"no capacity"}}', "inband_error"),
    ],
)
async def test_a_200_that_is_no_answer_passes_unchanged_and_counts_as_failed(body: bytes, reason: str):
    async with Upstream(lambda _: Script(http(body))) as upstream, running(target(upstream.port)) as guard:
        answer = await ask(guard.port, chat())
    assert (answer.status, answer.body) == (200, body)
    assert guard.sink.told() == [(Outcome.SERVER_ERROR, reason)]
    assert guard.sink.captures == [None]


@pytest.mark.parametrize(
    ("event", "reason"),
    [(b'data: {"error":{"message":"gpu lost"}}\n\n', "inband_error"), (b"data: {oops\n\n", "malformed")],
)
async def test_an_error_inside_a_stream_passes_unchanged_and_counts_as_failed(event: bytes, reason: str):
    stream = chat_stream(["a"], done=False) + event
    async with Upstream(lambda _: Script(chunked(stream))) as upstream, running(target(upstream.port)) as guard:
        answer = await ask(guard.port, chat(stream=True))
    assert (answer.body, answer.ended) == (stream, True)
    assert guard.sink.told() == [(Outcome.SERVER_ERROR, reason)]


async def test_usage_is_asked_for_and_its_event_is_taken_out_again():
    with_usage = chat_stream(["Seven ", "days"], usage=True)

    def answer(seen: object) -> Script:
        return Script(chunked(with_usage, size=33))

    async with Upstream(answer) as upstream, running(target(upstream.port)) as guard:
        silent = await ask(guard.port, chat(stream=True))
        asking = await ask(guard.port, chat(stream=True, stream_options={"include_usage": True}))
    assert upstream.requests[0].json()["stream_options"] == {"include_usage": True}
    assert silent.body == with_usage.replace(USAGE_EVENT, b"")
    assert asking.body == with_usage
    assert upstream.requests[1].body == json.dumps(chat(stream=True, stream_options={"include_usage": True})).encode()
    for exchange in guard.sink.exchanges:
        assert (exchange.usage, exchange.input_tokens, exchange.output_tokens) == ("reported", 12, 9)
        assert exchange.stream
    assert guard.sink.captures[0].response == with_usage


async def test_the_first_token_is_the_first_content_not_the_first_chunk():
    role = chunk_event({"role": "assistant", "content": ""}) + chunk_event({"reasoning_content": "hm"})
    script = Script(
        chunked(role)[:-5],
        piece=b"%x\r\n%s\r\n" % (len(STREAM), STREAM) + b"0\r\n\r\n",
        repeat=1,
        drip_bytes=1000,
        pause_s=0.05,
    )
    async with Upstream(lambda _: script) as upstream, running(target(upstream.port)) as guard:
        assert (await ask(guard.port, chat(stream=True))).ended
    exchange = guard.sink.exchanges[0]
    assert exchange.first_byte_s is not None
    assert exchange.first_token_s is not None
    assert exchange.first_byte_s < exchange.first_token_s <= exchange.duration_s


async def test_missing_usage_is_estimated_and_called_so():
    async with Upstream(lambda _: Script(http(completion("\u4e03" * 30, usage=False)))) as upstream:
        async with running(target(upstream.port)) as guard:
            await ask(guard.port, chat())
    exchange = guard.sink.exchanges[0]
    assert (exchange.usage, exchange.input_tokens, exchange.output_tokens) == ("estimated", 4, 20)


async def test_a_retry_after_is_obeyed_by_not_retrying():
    refused = http(b'{"error":{"message":"slow down"}}', "Retry-After: 7", status="429 Too Many Requests")
    async with Upstream(lambda _: Script(refused)) as upstream, running(target(upstream.port)) as guard:
        answers = await asyncio.gather(*(ask(guard.port, chat()) for _ in range(50)))
    assert {(a.status, a.header("retry-after")) for a in answers} == {(429, "7")}
    assert len(upstream.requests) == 50
    assert set(guard.sink.told()) == {(Outcome.CLIENT_ERROR, "throttled")}


async def test_retries_stay_within_their_budget():
    async with running(target(refused_port(), refused_port())) as guard:
        for _ in range(200):
            await ask(guard.port, chat())
        assert guard.path.stats().retries <= 10 + 20
        assert guard.path.stats().retries >= 20


async def test_a_large_answer_is_captured_up_to_the_limit_and_marked():
    body = completion("x" * 50_000)
    async with Upstream(lambda _: Script(http(body))) as upstream:
        async with running(target(upstream.port), limits=Limits(capture_bytes=1000)) as guard:
            assert (await ask(guard.port, chat())).body == body
    capture = guard.sink.captures[0]
    assert (capture.truncated, len(capture.response)) == (True, 1000)


async def test_compressed_answers_pass_raw_and_are_read_for_their_usage():
    packed = gzip.compress(completion())
    bomb = gzip.compress(gzip.compress(b"\0" * 30_000_000))
    scripts = iter([Script(http(packed, "Content-Encoding: gzip")), Script(http(bomb, "Content-Encoding: gzip"))])
    async with Upstream(lambda _: next(scripts)) as upstream, running(target(upstream.port)) as guard:
        first = await ask(guard.port, chat(), "Accept-Encoding: gzip")
        second = await ask(guard.port, chat(), "Accept-Encoding: gzip")
    assert (first.body, second.body) == (packed, bomb)
    assert guard.sink.exchanges[0].usage == "reported"
    assert guard.sink.exchanges[1].outcome is Outcome.SERVER_ERROR  # one layer off it is not JSON
    assert upstream.requests[0].header(b"accept-encoding") == b"gzip"


async def test_streams_are_asked_for_unpacked_and_a_packed_one_is_only_watched():
    packed = gzip.compress(chunk_event({"content": "so " * 200}) * 3000 + STREAM)  # 2 MB in a few kB
    cut = gzip.compress(chat_stream(["a"], done=False))
    scripts = iter([Script(chunked(body, "Content-Encoding: gzip")) for body in (packed, cut)])
    async with Upstream(lambda _: next(scripts)) as upstream, running(target(upstream.port)) as guard:
        first = await ask(guard.port, chat(stream=True), "Accept-Encoding: gzip")
        second = await ask(guard.port, chat(stream=True), "Accept-Encoding: gzip")
    assert upstream.requests[0].header(b"accept-encoding") is None
    assert (first.body, first.ended) == (packed, True)
    assert (second.body, second.ended) == (cut, False)
    assert guard.sink.told() == [(Outcome.OK, ""), (Outcome.INCOMPLETE, "upstream_cut")]


async def test_an_event_without_end_is_not_collected_for_ever():
    script = Script(chunked(b"data: ")[:-5], piece=b"10000\r\n" + b"x" * 65536 + b"\r\n", repeat=100)
    async with Upstream(lambda _: script) as upstream, running(target(upstream.port)) as guard:
        answer = await ask(guard.port, chat(stream=True))
    assert b'"type":"malformed"' in answer.body
    assert guard.sink.told() == [(Outcome.INCOMPLETE, "malformed")]
    assert upstream.sent_bytes < 6_000_000


async def test_a_public_name_that_points_inside_is_refused(monkeypatch: pytest.MonkeyPatch):
    to = Target(Version("v"), (Endpoint("http", "api.example.com", 80),))
    async with Upstream(lambda _: Script(http(completion()))) as upstream:
        for allowed, status in (((), 502), (("127.0.0.0/8",), 200)):
            to = Target(Version("v"), (Endpoint("http", "api.example.com", upstream.port),))
            async with running(to, allow_networks=allowed) as guard:

                async def rebound(host: str, port: int, **_: object) -> object:
                    return [(2, 1, 6, "", ("127.0.0.1", port))]

                reader, writer = await asyncio.open_connection("127.0.0.1", guard.port)
                monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebound)
                writer.write(post(chat()))
                answer = take_apart(await reader.read(-1))
                writer.close()
                assert answer.status == status
    assert len(upstream.requests) == 1
    assert answer.body == completion()


async def test_https_is_verified(tmp_path: Path):
    if shutil.which("openssl") is None:
        pytest.skip("needs the Debian package openssl")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *subject]
    await asyncio.to_thread(
        subprocess.run, [*make, "-keyout", key, "-out", cert, "-days", "2"], check=True, capture_output=True
    )
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(cert, key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.write(http(completion()))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving)
    port = server.sockets[0].getsockname()[1]
    to = Target(Version("v"), (Endpoint("https", "localhost", port),))
    trusting = ssl.create_default_context(cafile=str(cert))
    async with server:
        async with running(to, tls_context=trusting) as guard:
            assert (await ask(guard.port, chat())).body == completion()
        async with running(to) as guard:
            answer = await ask(guard.port, chat())
            assert (answer.status, answer.error_type) == (502, "upstream_connect")


async def test_every_reason_has_a_word_for_people():
    from guard.wire.replies import MESSAGE_OF, STATUS_OF

    assert set(STATUS_OF) <= set(MESSAGE_OF)
    assert all(reason in set(Reason) for reason in MESSAGE_OF)


async def test_an_early_refusal_of_a_large_request_reaches_the_client():
    # The upstream answers while the request is still being sent; its connection cannot be used again.
    refusal = http(b'{"error":{"message":"too long"}}', status="413 Too Large")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refusal)
        await writer.drain()
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, running(target(server.sockets[0].getsockname()[1])) as guard:
        answer = take_apart(await tell(guard.port, post(chat(user="x" * 4_000_000))))
        assert answer.status == 413
        assert guard.path.stats().pools[0].idle <= 1
    await asyncio.sleep(0.02)
    assert guard.sink.told() == [(Outcome.CLIENT_ERROR, "")]
