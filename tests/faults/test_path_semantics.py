"""What a reverse proxy has to get right, on both event loops."""

# ruff: noqa: SIM117, ASYNC110 - nested blocks read as a picture of what is between whom; polling is what is tested
from __future__ import annotations

import asyncio
import itertools
import json
import socket

import pytest

from guard.ports import Endpoint, Limits, Route, Target, Timeouts
from slo.errors import ConfigError
from slo.types import Outcome, Version
from tests.faults.path_kit import BOTH_LOOPS, ROUTES, Answer, ask, chat, post, running, take_apart, target, tell
from tests.faults.scripted_upstream import Script, Seen, Upstream, chat_stream, chunked, completion, http, refused_port

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[loop for loop, _ in BOTH_LOOPS], ids=[name for _, name in BOTH_LOOPS])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


OK = http(completion())


async def test_an_answer_keeps_its_bytes_and_headers_and_gains_three():
    response = http(completion(), "Retry-After: 3", "Set-Cookie: a=1", "Set-Cookie: b=2", "X-Odd: \x80\xff")
    async with Upstream(lambda _: Script(response.replace(b"\xc2\x80\xc3\xbf", b"\x80\xff"))) as upstream:
        async with running(target(upstream.port)) as guard:
            answer = await ask(guard.port, chat())
    assert answer.body == completion()
    assert [value for name, value in answer.headers if name == "Set-Cookie"] == ["a=1", "b=2"]
    assert answer.header("retry-after") == "3"
    assert answer.header("x-odd") == "\x80\xff"
    added = {name for name, _ in answer.headers} - {"Content-Type", "Retry-After", "Set-Cookie", "X-Odd"}
    assert added == {"x-guard-exchange-id", "x-guard-release", "x-guard-cache", "content-length", "connection"}
    exchange = guard.sink.exchanges[0]
    assert answer.header("x-guard-exchange-id") == exchange.exchange_id
    assert answer.header("x-guard-release") == exchange.release == Version("v1", model="m-1").release_id
    assert answer.header("x-guard-cache") == "bypass"
    assert (exchange.outcome, exchange.usage, exchange.input_tokens, exchange.output_tokens) == (
        "ok",
        "reported",
        12,
        5,
    )
    assert exchange.cost_usd == 22e-6
    assert guard.sink.captures[0].response == completion()
    assert guard.sink.captures[0].request == json.dumps(chat()).encode()


async def test_a_request_keeps_its_bytes_and_loses_only_what_belongs_to_this_hop():
    body = b'{ "model":"m-1", "messages":[], "temperature":0.50 }'
    headers = ("X-Own: 1", "TE: trailers", "Keep-Alive: 5", "Upgrade: h2c", "traceparent: 00-ab-cd-01", "X-Hop: secret")
    async with Upstream(lambda _: Script(OK)) as upstream, running(target(upstream.port)) as guard:
        raw = post(body, *headers, close=False).replace(b"X-Own", b"Connection: close, X-Hop\r\nX-Own")
        assert take_apart(await tell(guard.port, raw)).status == 200
        seen = upstream.requests[0]
    assert seen.body == body
    assert seen.header(b"x-own") == b"1"
    assert seen.header(b"traceparent") == b"00-ab-cd-01"
    assert seen.header(b"host") == f"127.0.0.1:{upstream.port}".encode()
    for name in (b"te", b"keep-alive", b"upgrade", b"x-hop", b"connection"):
        assert seen.header(name) is None
    assert guard.sink.exchanges[0].traceparent == "00-ab-cd-01"


async def test_set_headers_replace_the_clients_and_the_model_is_renamed():
    async with Upstream(lambda _: Script(OK)) as upstream:
        to = target(upstream.port, set_headers=(("Authorization", "Bearer ours"),), rename_model="m-2")
        async with running(to) as guard:
            await ask(guard.port, chat(seed=7), "authorization: Bearer theirs")
    assert upstream.requests[0].header(b"authorization") == b"Bearer ours"
    assert upstream.requests[0].json() == {**chat(seed=7), "model": "m-2"}


async def test_a_client_cannot_send_what_chooses_another_version():
    async with Upstream(lambda _: Script(OK)) as upstream:
        to = target(upstream.port, drop_headers=frozenset({"x-kb-generation"}))
        async with running(to) as guard:
            await ask(guard.port, chat(), "X-KB-Generation: canary\r\nx-own: 1")
    assert upstream.requests[0].header(b"x-kb-generation") is None
    assert upstream.requests[0].header(b"x-own") == b"1"


async def test_names_of_tenants_and_roles_are_read_in_any_script():
    """Two Chinese names of one length were one tenant, with one capped share of a window; Chinese roles fitted none."""
    names = ("\u53f0\u7a4d", "\u83ef\u78a9", "caf\u00e9", "acme")
    async with Upstream(lambda _: Script(OK)) as upstream, running(target(upstream.port)) as guard:
        for name in names:
            await ask(guard.port, chat(), f"x-guard-tenant: {name}", f"x-guard-roles: staff, {name}" + "\u53f0" * 2000)
        raw = post(chat(), "x-guard-tenant: caf?").replace(b"caf?", b"caf\xe9")
        await tell(guard.port, raw)
    assert [exchange.tenant for exchange in guard.sink.exchanges] == [*names, "caf\u00e9"]
    roles = [capture.roles for capture in guard.sink.captures[:4] if capture is not None]
    assert [role[: len(f"staff, {name}")] for role, name in zip(roles, names, strict=True)] == [
        f"staff, {name}" for name in names
    ]
    assert {len(role) for role in roles} == {1024}


async def test_a_request_may_come_in_pieces_of_any_size():
    raw = post(chat())
    async with Upstream(lambda _: Script(OK)) as upstream, running(target(upstream.port)) as guard:
        for cuts in ([1, 2, 3], [20, 90], [len(raw) - 1], list(range(1, 60))):
            places = [0, *cuts, len(raw)]
            pieces = [raw[a:b] for a, b in itertools.pairwise(places)]
            assert take_apart(await tell(guard.port, *pieces, pause_s=0.001)).status == 200
    assert {seen.body for seen in upstream.requests} == {json.dumps(chat()).encode()}


async def test_pipelined_requests_are_answered_in_order():
    async with Upstream(lambda seen: Script(http(completion(seen.json()["user"])))) as upstream:
        async with running(target(upstream.port)) as guard:
            asked = [post(chat(user=f"u{n}"), close=n == 29) for n in range(30)]
            raw = await tell(guard.port, b"".join(asked))
    texts = [part.split(b'"')[0] for part in raw.split(b'"content": "')[1:]]
    assert texts == [f"u{n}".encode() for n in range(30)]
    assert upstream.made_count == 1


async def test_chunked_requests_arrive_with_a_length():
    body = json.dumps(chat()).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    raw = head + b"5;ext=1\r\n" + body[:5] + b"\r\n%x\r\n" % (len(body) - 5) + body[5:] + b"\r\n0\r\nTrailer: x\r\n\r\n"
    async with Upstream(lambda _: Script(OK)) as upstream, running(target(upstream.port)) as guard:
        assert take_apart(await tell(guard.port, raw)).status == 200
    assert upstream.requests[0].body == body
    assert upstream.requests[0].header(b"transfer-encoding") is None


async def test_expect_continue_is_answered_before_the_body():
    raw = post(chat(), "Expect: 100-continue")
    head, _, body = raw.partition(b"\r\n\r\n")
    async with Upstream(lambda _: Script(OK)) as upstream, running(target(upstream.port)) as guard:
        reader, writer = await asyncio.open_connection("127.0.0.1", guard.port)
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert take_apart(await reader.read(-1)).status == 200
        writer.close()
    assert upstream.requests[0].header(b"expect") is None


async def test_an_http_1_0_client_gets_a_body_that_ends_with_the_connection():
    stream = chat_stream(["a", "b"])
    raw = post(chat(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Connection: close\r\n", b"")
    async with Upstream(lambda _: Script(chunked(stream))) as upstream, running(target(upstream.port)) as guard:
        answer = take_apart(await tell(guard.port, raw))
    assert answer.body == stream
    assert answer.header("transfer-encoding") is None


@pytest.mark.parametrize(
    ("response", "status", "body"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK, 200, completion()),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK, 200, completion()),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n", 302, b""),
        (http(b'{"error":{"message":"no"}}', "X-Reason: mine", status="503 Busy"), 503, b'{"error":{"message":"no"}}'),
        (http(b"{}", "Retry-After: 3", status="429 Too Many Requests"), 429, b"{}"),
    ],
)
async def test_other_answers_pass_unchanged(response: bytes, status: int, body: bytes):
    async with Upstream(lambda _: Script(response)) as upstream, running(target(upstream.port)) as guard:
        answer = await ask(guard.port, chat())
        await guard.sink.arrived()
    assert (answer.status, answer.body) == (status, body)
    assert len(upstream.requests) == 1
    told = guard.sink.told()
    expected = {
        200: (Outcome.OK, ""),
        204: (Outcome.SERVER_ERROR, "malformed"),
        302: (Outcome.SERVER_ERROR, "malformed"),
        503: (Outcome.SERVER_ERROR, "upstream_5xx"),
        429: (Outcome.CLIENT_ERROR, "throttled"),
    }
    assert told == [expected[status]]


async def test_an_answer_may_end_with_the_connection_and_a_head_has_no_body():
    until_close = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + completion()
    head_only = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"

    def answer(seen: Seen) -> Script:
        return Script(head_only) if seen.head.startswith(b"HEAD") else Script(until_close, then="close")

    async with Upstream(answer) as upstream, running(target(upstream.port)) as guard:
        plain = await ask(guard.port, chat())
        raw = await tell(guard.port, b"HEAD /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (plain.body, plain.ended) == (completion(), True)
    assert raw.endswith(b"\r\n\r\n")
    assert take_apart(raw).header("content-length") == "999"
    assert guard.sink.told() == [(Outcome.OK, "")] * 2


async def test_connections_are_reused_and_a_stale_one_is_replaced_without_an_error():
    scripts = iter([Script(OK), Script(OK, then="close"), Script(OK)])
    async with Upstream(lambda _: next(scripts)) as upstream, running(target(upstream.port)) as guard:
        for _ in range(3):
            assert (await ask(guard.port, chat())).status == 200
            await asyncio.sleep(0.01)
    assert upstream.made_count == 2


async def test_a_connection_that_dies_under_a_request_is_tried_once_more_on_a_fresh_one():
    scripts = iter([Script(OK), Script(OK, cut_at=0), Script(OK)])
    async with Upstream(lambda _: next(scripts)) as upstream, running(target(upstream.port)) as guard:
        assert (await ask(guard.port, chat())).status == 200
        assert (await ask(guard.port, chat())).status == 200
        assert guard.path.stats().retries == 1
    assert len(upstream.requests) == 3


async def test_a_connection_that_dies_after_the_upstream_had_the_question_for_a_while_is_no_second_question(
    monkeypatch: pytest.MonkeyPatch,
):
    """The model may have worked on it: it crashed, or its gateway gave up."""
    monkeypatch.setattr("guard.passage.CROSSING_S", 0.05)
    scripts = iter([Script(OK), Script(OK, cut_at=0, wait_s=0.3), Script(OK)])
    async with Upstream(lambda _: next(scripts)) as upstream, running(target(upstream.port)) as guard:
        assert (await ask(guard.port, chat())).status == 200
        answer = await ask(guard.port, chat())
        assert guard.path.stats().retries == 0
    assert (answer.status, answer.error_type) == (502, "upstream_cut")
    assert len(upstream.requests) == 2


async def test_a_fresh_connection_that_is_closed_unanswered_is_an_error_not_a_second_question():
    async with Upstream(lambda _: Script(cut_at=0)) as upstream, running(target(upstream.port)) as guard:
        answer = await ask(guard.port, chat())
    assert (answer.status, answer.error_type) == (502, "upstream_cut")
    assert len(upstream.requests) == 1


async def test_a_refused_endpoint_is_left_for_another_of_the_same_version():
    async with Upstream(lambda _: Script(OK)) as upstream:
        async with running(target(refused_port(), upstream.port)) as guard:
            answers = [await ask(guard.port, chat()) for _ in range(6)]
            assert guard.path.stats().retries <= 2
    assert {answer.status for answer in answers} == {200}


async def test_an_endpoint_that_is_named_twice_is_refused_like_one():
    port = refused_port()
    async with running(target(port, port)) as guard:
        for _ in range(2):
            answer = await ask(guard.port, chat())
            assert (answer.status, answer.error_type) == (502, "upstream_connect")
    assert guard.sink.told() == [(Outcome.SERVER_ERROR, "upstream_connect")] * 2


async def test_routes_choose_by_path_and_unknown_paths_are_not_found():
    routes = (Route("chat", "/v1/chat/completions", "openai-chat"), Route("v1", "/v1/*", "passthrough"))
    async with Upstream(lambda seen: Script(http(b"[]"))) as upstream:
        async with running(target(upstream.port), routes=routes) as guard:
            models = take_apart(await tell(guard.port, b"GET /v1/models?a=/../b HTTP/1.1\r\nHost: x\r\n" + CLOSE))
            nowhere = take_apart(await tell(guard.port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + CLOSE))
            stats = guard.path.stats()
    assert (models.status, upstream.requests[0].path) == (200, b"/v1/models?a=/../b")
    assert (nowhere.status, nowhere.error_type, nowhere.header("connection")) == (404, "no_route", "close")
    assert [exchange.route for exchange in guard.sink.exchanges] == ["v1"]
    assert stats.refused == {"no_route": 1}


CLOSE = b"Connection: close\r\n\r\n"


async def test_base_paths_are_put_in_front():
    async with Upstream(lambda _: Script(OK)) as upstream:
        to = Target(Version("v"), (Endpoint("http", "127.0.0.1", upstream.port, "/team/a"),))
        async with running(to) as guard:
            await ask(guard.port, chat())
    assert upstream.requests[0].path == b"/team/a/v1/chat/completions"


async def test_the_canary_gets_its_sessions_and_its_share_is_sticky():
    async with Upstream(lambda _: Script(http(completion("old")))) as old, Upstream(lambda _: Script(OK)) as new:
        async with running(target(old.port)) as guard:
            canary = target(new.port, version=Version("v2", kb="new"))
            guard.split.set(target(old.port), canary, 0.5, 3, "rollout-1")

            async def release(session: str) -> str | None:
                return (await ask(guard.port, chat(), f"x-guard-session: {session}")).header("x-guard-release")

            first = [await release(f"s{n}") for n in range(20)]
            again = [await release(f"s{n}") for n in range(20)]
    assert first == again
    assert set(first) == {Version("v1", model="m-1").release_id, canary.version.release_id}
    assert {exchange.arm for exchange in guard.sink.exchanges} == {"stable", "canary"}
    assert all(exchange.session and "s" not in exchange.session for exchange in guard.sink.exchanges)


async def test_the_feedback_path_is_answered_here_and_nowhere_else():
    async def feedback(headers: object, body: bytes) -> tuple[int, bytes]:
        if body == b"boom":
            raise RuntimeError("handler fault")
        return 202, b'{"ok":true}'

    own = {b"/guard/v1/feedback": feedback}
    async with Upstream(lambda _: Script(OK)) as upstream, running(target(upstream.port), own_posts=own) as guard:

        async def send(body: bytes, *headers: str) -> Answer:
            return await ask(guard.port, body, *headers, path="/guard/v1/feedback")

        assert (await send(b"{}")).status == 202
        assert (await send(b"boom")).error_type == "internal"
        assert (await send(b"{}", "Content-Encoding: gzip")).status == 415
        got = take_apart(await tell(guard.port, b"GET /guard/v1/feedback HTTP/1.1\r\nHost: x\r\n\r\n"))
        assert got.status == 405
    assert upstream.requests == []


async def test_a_reload_keeps_connections_and_refuses_a_bad_table():
    async with Upstream(lambda _: Script(OK)) as upstream, running(target(upstream.port)) as guard:
        reader, writer = await asyncio.open_connection("127.0.0.1", guard.port)
        writer.write(post(chat(), close=False))
        await reader.readuntil(completion()[-20:])
        with pytest.raises(ConfigError, match=r"routes\[0\]\.adapter: got 'soap'; choose one of openai-chat"):
            guard.path.swap(routes=(Route("x", "/x", "soap"),), limits=Limits(concurrent_requests=0))
        guard.path.swap(routes=(Route("renamed", "/v1/*", "openai-chat"),), timeouts=Timeouts(drain_s=0.2))
        writer.write(post(chat()))
        assert b"200 OK" in await reader.read(-1)
        writer.close()
    assert [exchange.route for exchange in guard.sink.exchanges] == ["chat", "renamed"]
    assert upstream.made_count == 1


async def test_two_routes_with_one_path_are_refused():
    with pytest.raises(ConfigError, match="give each path to one route only"):
        async with running(target(1), routes=(ROUTES[0], ROUTES[0])):
            pass


async def test_whoever_has_asked_when_draining_begins_is_answered():
    async with Upstream(lambda _: Script(OK)) as upstream, running(target(upstream.port)) as guard:
        clients = [socket.create_connection(("127.0.0.1", guard.port), timeout=5) for _ in range(20)]
        for client in clients:
            client.sendall(post(chat()))
        await guard.path.drain()
        statuses = [client.recv(12) for client in clients]
        for client in clients:
            client.close()
    assert statuses == [b"HTTP/1.1 200"] * 20


async def test_draining_lets_answers_finish_and_ends_the_rest_with_a_frame():
    stream = chat_stream(["a"] * 5)
    slow = Script(chunked(stream, size=50), drip_bytes=400, pause_s=0.03)
    endless = Script(chunked(stream), stall_at=600)
    scripts = iter([slow, endless])
    async with Upstream(lambda _: next(scripts)) as upstream:
        async with running(target(upstream.port), timeouts=Timeouts(drain_s=0.6)) as guard:
            asked = [asyncio.ensure_future(ask(guard.port, chat(stream=True))) for _ in range(2)]
            while len(upstream.requests) < 2:
                await asyncio.sleep(0.01)
            await guard.path.drain()
            finished, ended = await asyncio.gather(*asked)
            with pytest.raises(ConnectionError):
                await asyncio.open_connection("127.0.0.1", guard.port)
    whole, cut = (finished, ended) if finished.ended else (ended, finished)
    assert whole.body == stream
    assert b'"type":"draining"' in cut.body
    assert not cut.ended
    assert sorted(guard.sink.told()) == [(Outcome.INCOMPLETE, "draining"), (Outcome.OK, "")]


async def test_an_address_in_use_is_named_with_its_cure():
    async with running(target(1)) as guard:
        with pytest.raises(ConfigError, match=rf"listen\.data: got '127\.0\.0\.1:{guard.port}'; choose a free"):
            await guard.path.start("127.0.0.1", guard.port)


async def test_an_alias_without_a_price_costs_what_the_release_is_made_of():
    async with Upstream(lambda _: Script(OK)) as upstream, running(target(upstream.port)) as guard:
        assert (await ask(guard.port, {**chat(), "model": "unpriced"})).status == 200
        exchange = await guard.sink.arrived()
    assert exchange.model == "unpriced"
    assert exchange.cost_usd == 22e-6
