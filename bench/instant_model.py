"""A model server that costs next to nothing: a fixed answer at once, or after the seconds that the question names.

For benchmarks whose subject is the guard; each runs it in a process of its own and reads its port from the first line.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tests.faults.scripted_upstream import completion, http

BODY = completion()
ANSWER = http(BODY)


class InstantModel(asyncio.Protocol):
    """`"wait_s": S,` anywhere in a request delays its answer."""

    def connection_made(self, transport: Any) -> None:
        self._transport, self._rest = transport, b""

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head = self._rest[:end].lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            if len(self._rest) < end + 4 + length:
                return
            body = self._rest[end + 4 : end + 4 + length]
            self._rest = self._rest[end + 4 + length :]
            wait_s = float(body.partition(b'"wait_s": ')[2].partition(b",")[0] or 0)
            if wait_s:
                asyncio.get_running_loop().call_later(wait_s, self._transport.write, ANSWER)
            else:
                self._transport.write(ANSWER)


async def serve_model() -> None:
    """For ever, on a port of its own, which it prints."""
    server = await asyncio.get_running_loop().create_server(InstantModel, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
