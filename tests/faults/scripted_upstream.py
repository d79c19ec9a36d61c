"""A model server that misbehaves on demand: refuses, stalls, drips, cuts, resets, lies about its framing.

async with Upstream(lambda request: Script(STREAM, cut_at=700)) as upstream: ... upstream.port
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from guard.accepting import stop_accepting


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    head: bytes
    body: bytes

    @property
    def path(self) -> bytes:
        return self.head.split(b" ")[1]

    def header(self, name: bytes) -> bytes | None:
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.lower() == name:
                return value.strip()
        return None

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Script:
    """What is sent for one request, and how.

    cut_at: close after so many bytes. stall_at: send nothing more after so many. drip_bytes: pieces of this size, with
    `pause_s` between them. wait_s: before all of it. reset: a cut is a RST. then: what follows a whole answer: keep,
    close or half_close. repeat: send `response` once and then this many times `piece`.
    """

    response: bytes = b""
    cut_at: int | None = None
    stall_at: int | None = None
    drip_bytes: int = 0
    pause_s: float = 0.0
    wait_s: float = 0.0
    reset: bool = False
    then: str = "keep"
    piece: bytes = b""
    repeat: int = 0


@dataclass
class Upstream:
    """Answers each request as `answer` says. `open_count`: connections now, `made_count`: since the start."""

    answer: Callable[[Seen], Script]
    requests: list[Seen] = field(default_factory=list)
    made_count: int = 0
    open_count: int = 0
    sent_bytes: int = 0
    port: int = 0

    async def __aenter__(self) -> Upstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1000)
        self.port = self._server.sockets[0].getsockname()[1]
        self._tasks: set[asyncio.Task[Any]] = set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await stop_accepting(self._server)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.made_count += 1
        self.open_count += 1
        try:
            early: bytes | None = b""
            while early is not None:
                early = await self._one(early, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, RuntimeError, asyncio.CancelledError):
            pass  # RuntimeError: uvloop on a closed transport
        finally:
            self.open_count -= 1
            self._tasks.discard(task)
            writer.transport.abort()

    async def _one(self, early: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
        """Answer one request whose first bytes were read `early`; the same of the next one, None: no next one."""
        head = early + await reader.readuntil(b"\r\n\r\n")
        seen = Seen(head[:-4], b"")
        length = int(seen.header(b"content-length") or 0)
        seen = Seen(head[:-4], await reader.readexactly(length) if length else b"")
        self.requests.append(seen)
        script = self.answer(seen)
        gone = asyncio.ensure_future(reader.read(1))  # a client that hangs up ends the script at once
        work = asyncio.ensure_future(self._play(script, writer))
        try:
            await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not gone.result():
                work.cancel()
                return None
            keep = await work
            return None if not keep else gone.result() if gone.done() else await gone or None
        finally:
            gone.cancel()
            await asyncio.gather(gone, work, return_exceptions=True)

    async def _play(self, script: Script, writer: asyncio.StreamWriter) -> bool:
        data = script.response
        end = min(at for at in (script.cut_at, script.stall_at, len(data)) if at is not None)
        if script.wait_s:
            await asyncio.sleep(script.wait_s)
        step = script.drip_bytes or max(1, end)
        for start in range(0, end, step):
            writer.write(data[start : min(end, start + step)])
            await writer.drain()
            if script.drip_bytes and start + step < end:
                await asyncio.sleep(script.pause_s)
        if script.stall_at is not None:
            await asyncio.Event().wait()
        if script.cut_at is not None:
            if script.reset:
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
            return False
        writer.transport.set_write_buffer_limits(high=65536)
        for _ in range(script.repeat):
            writer.write(script.piece)
            await writer.drain()
            self.sent_bytes += len(script.piece)
            await asyncio.sleep(script.pause_s)
        if script.then == "close":
            writer.close()
            return False
        if script.then == "half_close":
            writer.write_eof()
        return True


_HELD: list[socket.socket] = []


def refused_port() -> int:
    """A port that refuses connections, and that nobody else is given: bound for good, and never listened on."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    _HELD.append(sock)
    return int(sock.getsockname()[1])


def unused_port() -> int:
    """A port to listen on, free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def http(body: bytes, *headers: str, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """A response with Content-Length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def chunked(body: bytes, *headers: str, size: int = 100, kind: str = "text/event-stream") -> bytes:
    """A chunked response in chunks of `size`."""
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", *headers, "Transfer-Encoding: chunked", "", ""]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return "\r\n".join(lines).encode() + b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


def completion(text: str = "Seven days.", usage: bool = True, **extra: object) -> bytes:
    """A chat completion as JSON."""
    body: dict[str, object] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1760000000,
        "model": "m-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        **extra,
    }
    if usage:
        body["usage"] = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    return json.dumps(body).encode()


def chunk_event(delta: dict[str, object] | None, finish: str | None = None, **extra: object) -> bytes:
    """One event of a chat stream; delta None: no choices."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    event = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": choices, **extra}
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


USAGE_EVENT = chunk_event(None, usage={"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 21})
DONE = b"data: [DONE]\n\n"


def chat_stream(words: list[str], *, usage: bool = False, done: bool = True) -> bytes:
    """The body of a chat stream: a role, the words, a finish, usage and the marker."""
    events = [chunk_event({"role": "assistant", "content": ""})]
    events += [chunk_event({"content": word}) for word in words]
    events.append(chunk_event({}, "stop"))
    return b"".join(events) + (USAGE_EVENT if usage else b"") + (DONE if done else b"")
