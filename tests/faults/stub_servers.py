"""The dependencies of a rig in their healthiest form: model, embeddings, and whatever takes all it is sent."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

from tests.faults.scripted_upstream import chat_stream, completion

Handler = Callable[[bytes, bytes], tuple[str, bytes]]
"""(head, body) -> (content type, body) of a dependency that answers 200."""


class HttpServer(asyncio.Protocol):
    """The least HTTP/1.1 server there is: whole requests with a length in, one answer each out."""

    def __init__(self, handler: Handler) -> None:
        self._handler, self._rest = handler, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head = self._rest[:end]
            found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            length = int(found[1]) if found else 0
            if len(self._rest) < end + 4 + length:
                return
            body = self._rest[end + 4 : end + 4 + length]
            self._rest = self._rest[end + 4 + length :]
            kind, answer = self._handler(head, body)
            lines = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
            self._transport.write(lines % (kind.encode(), len(answer)) + answer)


async def http_server(handler: Handler) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(lambda: HttpServer(handler), "127.0.0.1", 0, backlog=1000)


def port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


CONTEXT = "Employees receive 14 days of annual leave per year. Unused days expire on 31 March."


def answer_to(words: str, stream: bool) -> bytes:
    """What the model says to a question, byte for byte."""
    said = f"You get 14 days of annual leave, you who asked {words}."
    if stream:
        return chat_stream([f"{word} " for word in said.split()])
    return completion(said, retrieval={"contexts": [{"doc_id": "1", "text": CONTEXT}]})


def model(_: bytes, body: bytes) -> tuple[str, bytes]:
    asked = json.loads(body)
    messages = asked.get("messages")
    words = messages[-1]["content"] if isinstance(messages, list) else ""
    stream = bool(asked.get("stream"))
    return "text/event-stream" if stream else "application/json", answer_to(words, stream)


def embeddings(_: bytes, body: bytes) -> tuple[str, bytes]:
    texts = json.loads(body)["input"]
    rows = [[float(len(t) % 7 + 1), float(sum(map(ord, t)) % 11), 1.0, 2.0] for t in texts]
    data = [{"index": i, "embedding": row, "object": "embedding"} for i, row in enumerate(rows)]
    return "application/json", json.dumps({"data": data, "model": "e"}).encode()


def takes_all(_: bytes, __: bytes) -> tuple[str, bytes]:
    return "application/json", b"{}"
