"""Several endpoints of a version, several addresses of a name: one that swallows connections costs nobody an answer."""

from __future__ import annotations

import asyncio
import socket

import pytest

from guard.ports import Endpoint, Target, Timeouts
from slo.types import Version
from tests.faults.path_kit import ask, chat, post, running, settled, take_apart, target
from tests.faults.scripted_upstream import (
    Script,
    Upstream,
    completion,
    http,
    refused_port,
)

pytestmark = pytest.mark.anyio


class Hand:
    """A clock that is moved by hand."""

    now_s = 1000.0


def swallowed(port: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on no connection to `port` is made, and none is refused; each that was tried."""
    loop, tried = asyncio.get_running_loop(), list[int]()
    connect = loop.sock_connect

    async def sometimes(sock: socket.socket, address: tuple[str, int]) -> None:
        if address[1] == port:
            tried.append(port)
            await asyncio.Event().wait()
        await connect(sock, address)

    monkeypatch.setattr(loop, "sock_connect", sometimes)
    return tried


async def test_an_endpoint_that_swallows_connections_costs_no_answer(monkeypatch: pytest.MonkeyPatch):
    gone, hand = refused_port(), Hand()
    async with Upstream(lambda _: Script(http(completion()))) as upstream:
        asked, timeouts = target(gone, upstream.port), Timeouts(connect_s=0.2, drain_s=0.2)
        async with running(asked, timeouts=timeouts, now_s=lambda: hand.now_s) as guard:
            tried = swallowed(gone, monkeypatch)
            answers = []
            for _ in range(40):
                before, answer = len(tried), asyncio.ensure_future(ask(guard.port, chat()))
                await settled(lambda before=before, answer=answer: answer.done() or len(tried) > before, 20.0)
                hand.now_s += 0.25 * (len(tried) > before)
                answers.append((await answer).status)
    # In turn with the other it would be asked 20 times, more than the 14 that the budget of retries has here.
    assert answers == [200] * 40
    assert len(tried) == 1


async def test_an_endpoint_that_swallowed_connections_is_tried_by_one_request_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
):
    gone, hand = refused_port(), Hand()
    async with Upstream(lambda _: Script(http(completion()))) as upstream:
        asked, timeouts = target(gone, upstream.port), Timeouts(connect_s=0.2, drain_s=0.2)
        async with running(asked, timeouts=timeouts, now_s=lambda: hand.now_s) as guard:
            tried = swallowed(gone, monkeypatch)
            guard.path.upstreams.pool(asked.endpoints[0]).unreached()
            hand.now_s += 10.0  # long ago
            answers = [asyncio.ensure_future(ask(guard.port, chat())) for _ in range(8)]
            await settled(lambda: sum(answer.done() for answer in answers) == 7, 20.0)
            hand.now_s += 0.25
            assert [(await answer).status for answer in answers] == [200] * 8
    assert len(tried) == 1


async def test_an_address_that_swallows_connections_leaves_time_for_the_next_one_of_the_name(
    monkeypatch: pytest.MonkeyPatch,
):
    tried: list[str] = []
    async with Upstream(lambda _: Script(http(completion()))) as upstream:
        named = Target(Version("v1", model="m-1"), (Endpoint("http", "model", upstream.port),))
        async with running(named, timeouts=Timeouts(connect_s=2.0, drain_s=0.2)) as guard:
            loop = asyncio.get_running_loop()
            connect = loop.sock_connect

            async def both(host: str, port: int, **_: object) -> object:
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in ("127.0.0.9", "127.0.0.1")]

            async def sometimes(sock: socket.socket, address: tuple[str, int]) -> None:
                if address[1] == upstream.port:
                    tried.append(address[0])
                if address[0] == "127.0.0.9":
                    await asyncio.Event().wait()
                await connect(sock, address)

            raw = post(chat())
            reader, writer = await asyncio.open_connection("127.0.0.1", guard.port)
            monkeypatch.setattr(loop, "getaddrinfo", both)
            monkeypatch.setattr(loop, "sock_connect", sometimes)
            writer.write(raw)
            answer = take_apart(await asyncio.wait_for(reader.read(-1), 20.0))
            writer.close()
    assert answer.status == 200
    assert tried == ["127.0.0.9", "127.0.0.1"]
