"""TCP proxies that break on demand, between the guard and a dependency of its.

FaultProxy   before any dependency: refuses, swallows SYNs, stalls, slows down, garbles, resets
RedisProxy   before a real Redis: the same on its answers alone, and answers that change their askers
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from types import TracebackType

from guard.accepting import stop_accepting

MODES = ("refused", "blackhole", "stalled", "slow", "garbage", "rst")
STATES = (*MODES, "denied")
"""With the state that is no fault of the network: whoever asks is not let in."""
_COMMAND = re.compile(rb"(?:\A|\r\n)\*\d+(?=\r\n\$)")
RESET = struct.pack("ii", 1, 0)


class TcpProxy:
    """Both directions of every connection, and their ends. A subclass says what a mode makes of them."""

    def __init__(self, port_behind: int) -> None:
        self.port_behind = port_behind
        self.port = 0
        self.open_count = 0
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def listen(self) -> None:
        """On the port it had before, if it had one."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, backlog=1000)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Nobody listens any more; open connections go on."""
        server, self._server = self._server, None
        if server is not None:
            await stop_accepting(server)

    async def drop(self) -> None:
        """Reset every open connection."""
        clients = dict(self._clients)
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        for writer in clients.values():
            writer.transport.abort()  # Of a task that was not given its first turn.

    def asked(self, data: bytes, writer: asyncio.StreamWriter) -> bool | None:
        """Bytes of a request: True passes them on, False keeps them, None ends the connection."""
        return True

    async def answered(self, data: bytes, writer: asyncio.StreamWriter) -> bool:
        """Bytes of an answer, to be written to `writer`. False: nothing more comes on this connection."""
        raise NotImplementedError

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._clients[task] = writer
        task.add_done_callback(self._clients.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_count += 1
        back: asyncio.StreamWriter | None = None
        answers: asyncio.Task[None] | None = None
        try:
            while data := await reader.read(1 << 16):
                passes = self.asked(data, writer)
                if passes is None:
                    return
                if not passes:
                    continue
                if back is None:
                    behind, back = await asyncio.open_connection("127.0.0.1", self.port_behind)
                    answers = asyncio.create_task(self._answer(behind, writer))
                back.write(data)
        except (OSError, asyncio.CancelledError):
            pass  # Either side is gone, or the mode changed.
        finally:
            self.open_count -= 1
            for side in (writer, back):
                if side is not None:
                    side.transport.abort()
            if answers is not None:
                answers.cancel()
                await asyncio.gather(answers, return_exceptions=True)

    async def _answer(self, behind: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await behind.read(1 << 20):
            if not await self.answered(data, writer):
                break
        writer.transport.abort()


class FaultProxy(TcpProxy):
    """A TCP proxy on one port that stays the same whatever it does.

    pass; refused: nobody listens; blackhole: SYNs are swallowed; stalled: takes everything and says nothing;
    slow: `slow_s` before every answer; garbage: answers are other bytes; rst: a reset at the first byte of a request;
    denied: 401, of a Redis NOAUTH, to every request, which nobody behind hears of.
    Connections of the old mode are reset when it changes, save by `stalled`: there they go on and hear nothing more.
    """

    def __init__(self, port_behind: int, *, slow_s: float = 5.0) -> None:
        super().__init__(port_behind)
        self.slow_s = slow_s
        self.mode = "refused"
        self.seen_count = 0
        self._full: list[socket.socket] = []

    async def start(self) -> FaultProxy:
        await self.set("pass")
        return self

    async def set(self, mode: str) -> None:
        if mode in ("refused", "blackhole"):
            await self.refuse()
        if mode != "stalled":
            await self.drop()
        for sock in self._full:
            sock.close()
        self._full = []
        self.mode = mode
        if mode == "blackhole":
            self._swallow()
        elif mode != "refused" and self._server is None:
            await self.listen()

    async def close(self) -> None:
        await self.set("refused")

    def _swallow(self) -> None:
        """A listener whose queue is full: the kernel drops further SYNs, as a firewall without manners does."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(0)
        self._full = [listener]
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._full.append(filler)

    def asked(self, data: bytes, writer: asyncio.StreamWriter) -> bool | None:
        self.seen_count += 1
        if self.mode == "rst":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            return None
        if self.mode == "denied":
            writer.write(denials(data))
        return self.mode not in ("stalled", "denied")

    async def answered(self, data: bytes, writer: asyncio.StreamWriter) -> bool:
        if self.mode == "stalled":
            return True
        if self.mode == "slow":
            await asyncio.sleep(self.slow_s)
        writer.write(bytes(byte ^ 0x5A for byte in data) if self.mode == "garbage" else data)
        return True


def denials(data: bytes) -> bytes:
    """One for every request that begins in these bytes."""
    commands, requests = len(_COMMAND.findall(data)), data.count(b" HTTP/1.1\r\n")
    denied = b"HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    return b"-NOAUTH Authentication required.\r\n" * commands + denied * requests


class RedisProxy(TcpProxy):
    """mode: pass | delay (`delay_s`) | blackhole | garbage | reset | swap (replies of two connections change).

    Redis hears every request, whatever becomes of its replies.
    """

    def __init__(self, port_behind: int, mode: str = "pass", delay_s: float = 0.0) -> None:
        super().__init__(port_behind)
        self.mode, self.delay_s = mode, delay_s
        self.swapped_count = 0
        self._held: tuple[asyncio.StreamWriter, bytes] | None = None

    async def __aenter__(self) -> RedisProxy:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.refuse()
        await self.drop()

    async def answered(self, data: bytes, writer: asyncio.StreamWriter) -> bool:
        if self.mode == "delay":
            await asyncio.sleep(self.delay_s)
        elif self.mode == "blackhole":
            return True
        elif self.mode == "garbage":
            data = b"!!" + data[::-1]
        elif self.mode == "reset":
            return False
        elif self.mode == "swap" and data.startswith(b"$") and len(data) > 200:
            if self._held is None:
                self._held = (writer, data)
                return True
            (other, held), self._held = self._held, None
            self.swapped_count += 1
            other.write(data)
            data = held
        writer.write(data)
        return True
