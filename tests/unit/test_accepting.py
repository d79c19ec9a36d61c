"""Who connects in the moment a listener ends is served all the same."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from guard.accepting import stop_accepting

COUNT = 100


class Greeter(asyncio.Protocol):
    def __init__(self, met: list[Any]) -> None:
        self._met = met

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._met.append(transport)
        transport.write(b"hello")  # type: ignore[attr-defined]


async def in_the_turn_of_the_end(turns: int) -> tuple[int, list[bytes]]:
    """(those the protocols knew of when listening had ended, what each client read) of a hundred clients."""
    met: list[Any] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Greeter(met), "127.0.0.1", 0, backlog=COUNT)
    clients = [socket.create_connection(server.sockets[0].getsockname(), timeout=5) for _ in range(COUNT)]
    for _ in range(turns):
        await asyncio.sleep(0)
    await stop_accepting(server)
    known_count = len(met)
    await asyncio.sleep(0.01)
    heard = [client.recv(16) for client in clients]
    for client in clients:
        client.close()
    for transport in met:
        transport.abort()
    await asyncio.sleep(0.01)
    gc.collect()  # an open socket that nobody holds any more would warn, and fail the test
    return known_count, heard


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_whoever_had_connected_is_greeted(loop: Callable[[], asyncio.AbstractEventLoop], turns: int) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(in_the_turn_of_the_end(turns)) == (COUNT, [b"hello"] * COUNT)
