"""A data path in front of scripted upstreams, and a client that says exactly what it is told to."""

# ruff: noqa: ASYNC110 - nested blocks read as a picture of what is between whom; polling is what is tested
from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from guard.ports import Capture, Endpoint, Limits, Route, Target, Timeouts
from guard.proxy import DataPath
from guard.split import WeightedSplit
from slo.types import Exchange, Outcome, Version

STABLE = Version("v1", model="m-1")
ROUTES = (
    Route("chat", "/v1/chat/completions", "openai-chat"),
    Route("responses", "/v1/responses", "openai-responses"),
    Route("ask", "/ask", "json"),
    Route("other", "/*", "passthrough"),
)
BOTH_LOOPS = [
    (("asyncio", {"use_uvloop": False}), "asyncio"),
    (("asyncio", {"use_uvloop": True}), "uvloop"),
]


@dataclass
class Sink:
    """Remembers every exchange; `arrived` waits for a number of them."""

    exchanges: list[Exchange] = field(default_factory=list)
    captures: list[Capture | None] = field(default_factory=list)

    def finished(self, exchange: Exchange, capture: Capture | None) -> None:
        self.exchanges.append(exchange)
        self.captures.append(capture)

    async def arrived(self, count: int = 1, within_s: float = 5.0) -> Exchange:
        async with asyncio.timeout(within_s):
            while len(self.exchanges) < count:
                await asyncio.sleep(0.005)
        return self.exchanges[count - 1]

    def told(self) -> list[tuple[Outcome, str]]:
        return [(exchange.outcome, exchange.reason) for exchange in self.exchanges]


class Prices:
    """One price for all."""

    def cost_usd(self, model: str, input_tokens: int, output_tokens: int) -> float | None:
        return None if model == "unpriced" else (input_tokens + 2 * output_tokens) / 1e6


@dataclass
class Running:
    """A data path that listens."""

    path: DataPath
    port: int
    sink: Sink
    split: WeightedSplit

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


def target(*ports: int, version: Version = STABLE, **more: Any) -> Target:
    """A target on loopback ports."""
    return Target(version, tuple(Endpoint("http", "127.0.0.1", port) for port in ports), **more)


@asynccontextmanager
async def running(
    stable: Target, *, limits: Limits | None = None, timeouts: Timeouts | None = None, **more: Any
) -> AsyncIterator[Running]:
    """Serve until the block ends; then nothing may be left."""
    sink, split = more.pop("sink", None) or Sink(), WeightedSplit(stable)
    routes = more.pop("routes", ROUTES)
    timeouts = timeouts or Timeouts(drain_s=0.5)
    path = DataPath(routes, split, sink, Prices(), limits, timeouts, freezes_gc=False, **more)
    port = await path.start("127.0.0.1", 0)
    try:
        yield Running(path, port, sink, split)
    finally:
        await path.drain()
        await asyncio.sleep(0)
        assert path.stats().in_flight == 0


def post(body: bytes | dict[str, Any], *headers: str, path: str = "/v1/chat/completions", close: bool = True) -> bytes:
    """A request as bytes."""
    if isinstance(body, dict):
        body = json.dumps(body, ensure_ascii=False).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: guard", "Content-Type: application/json", *headers]
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def chat(stream: bool = False, **more: Any) -> dict[str, Any]:
    """A chat request."""
    asked = {"model": "m-1", "messages": [{"role": "user", "content": "How many days?"}], **more}
    return {**asked, "stream": True} if stream else asked


@dataclass(frozen=True)
class Answer:
    """A response taken apart; `ended`: its framing was closed (last chunk, or full length)."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    ended: bool

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def error_type(self) -> str:
        return str(json.loads(self.body)["error"]["type"])


def take_apart(raw: bytes) -> Answer:
    """Read one response from the start of `raw`."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = [(key, value.strip()) for key, _, value in (line.partition(":") for line in lines[1:])]
    answer = Answer(int(lines[0].split(" ")[1]) if head else 0, headers, b"", False)
    if (answer.header("transfer-encoding") or "") == "chunked":
        body = b""
        while True:
            size, separator, rest = rest.partition(b"\r\n")
            if not separator or len(rest) < int(size, 16) + 2:
                return Answer(answer.status, headers, body, False)
            if int(size, 16) == 0:
                return Answer(answer.status, headers, body, True)
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    length = answer.header("content-length")
    return Answer(answer.status, headers, rest, length is not None and len(rest) == int(length))


async def tell(port: int, *pieces: bytes, within_s: float = 5.0, pause_s: float = 0.0) -> bytes:
    """Send the pieces, read until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(pause_s)
            writer.write(piece)
        async with asyncio.timeout(within_s):
            return await reader.read(-1)
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


async def ask(port: int, body: bytes | dict[str, Any], *headers: str, path: str = "/v1/chat/completions") -> Answer:
    """POST and take the answer apart."""
    return take_apart(await tell(port, post(body, *headers, path=path)))


async def settled(condition: Callable[[], bool], within_s: float = 2.0) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)
