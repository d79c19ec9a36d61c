"""Between the cache and a real Redis: delays, swallows, garbles, cuts, or hands replies to the wrong asker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import TracebackType


@dataclass
class RedisProxy:
    """mode: pass | delay (`delay_s`) | blackhole | garbage | reset | swap (replies of two connections change)."""

    port_behind: int
    mode: str = "pass"
    delay_s: float = 0.0
    port: int = 0
    swapped_count: int = 0
    open_count: int = 0
    _held: tuple[asyncio.StreamWriter, bytes] | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> RedisProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open_count += 1
        back: asyncio.StreamWriter | None = None
        answers: asyncio.Task[None] | None = None
        try:
            redis_reader, back = await asyncio.open_connection("127.0.0.1", self.port_behind)
            answers = asyncio.create_task(self._answer(redis_reader, writer))
            while data := await reader.read(1 << 16):
                back.write(data)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.open_count -= 1
            self._tasks.discard(task)
            if answers is not None:
                answers.cancel()
                await asyncio.gather(answers, return_exceptions=True)
            for side in (writer, back):
                if side is not None:
                    side.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 20):
            if self.mode == "delay":
                await asyncio.sleep(self.delay_s)
            elif self.mode == "blackhole":
                continue
            elif self.mode == "garbage":
                data = b"!!" + data[::-1]
            elif self.mode == "reset":
                writer.transport.abort()
                return
            elif self.mode == "swap" and data.startswith(b"$") and len(data) > 200:
                if self._held is None:
                    self._held = (writer, data)
                    continue
                (other, held), self._held = self._held, None
                self.swapped_count += 1
                other.write(data)
                data = held
            writer.write(data)
        writer.transport.abort()
