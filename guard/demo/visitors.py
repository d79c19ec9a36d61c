"""Users that really ask: HTTP against the guard, at their own times, never waiting for each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import aiohttp
import msgspec

from guard.demo.users import Ask, Users
from slo.clock import Clock
from slo.codec import NOT_JSON

STREAM_RATIO = 0.3
IN_FLIGHT_MAX = 200
"""More open questions than this and new users are turned away, counted: the machine is too slow for the rate."""
_TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer as a user got it. release: short id from the response header. text: empty when it failed."""

    ask: Ask
    release: str
    exchange_id: str
    status: int
    text: str
    refused: bool
    began_wall_s: float
    ended_wall_s: float


class Visitors:
    """Plays users against `url` until told to stop. on_answer: told of every answer, failed ones too (status 0)."""

    def __init__(
        self,
        users: Users,
        url: str,
        session: aiohttp.ClientSession,
        clock: Clock,
        on_answer: Callable[[Answered], None],
    ) -> None:
        self._asks: Iterator[Ask] = iter(users)
        self._url, self._session, self._clock, self._on_answer = url, session, clock, on_answer
        self._open: set[asyncio.Task[None]] = set()
        self.asked_count = 0
        self.turned_away_count = 0

    async def run(self) -> None:
        """Ask for ever; cancel to stop. Questions already asked are given up then."""
        began_s = self._clock.now_s()
        try:
            for ask in self._asks:
                await self._clock.sleep(max(0.0, began_s + ask.at_s - self._clock.now_s()))
                if len(self._open) >= IN_FLIGHT_MAX:
                    self.turned_away_count += 1
                    continue
                self.asked_count += 1
                task = asyncio.create_task(self._visit(ask))
                self._open.add(task)
                task.add_done_callback(self._open.discard)
        finally:
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _visit(self, ask: Ask) -> None:
        self._on_answer(await self.ask(ask))

    async def ask(self, ask: Ask) -> Answered:
        """Ask one question and wait for the answer."""
        began_wall_s = self._clock.wall_s()
        # Which users stream is part of who they are, not of chance at this moment.
        stream = sum(ask.session.encode()) % 10 < STREAM_RATIO * 10
        body = {"model": "assistant", "stream": stream, "messages": [{"role": "user", "content": ask.text}]}
        headers = {"x-guard-session": ask.session, "x-guard-tenant": ask.tenant}
        release = exchange_id = text = ""
        status, refused = 0, False
        try:
            async with self._session.post(self._url, json=body, headers=headers, timeout=_TIMEOUT) as response:
                release = response.headers.get("x-guard-release", "")
                exchange_id = response.headers.get("x-guard-exchange-id", "")
                data = await response.read()
                status = response.status
            if status == 200:
                text, refused = _read_stream(data) if stream else _read(data)
        except (aiohttp.ClientError, TimeoutError, *NOT_JSON, KeyError, IndexError, TypeError):
            status, text = 0, ""
        return Answered(ask, release, exchange_id, status, text, refused, began_wall_s, self._clock.wall_s())


def _read(data: bytes) -> tuple[str, bool]:
    document = msgspec.json.decode(data)
    return document["choices"][0]["message"]["content"], document.get("answer_source") == "REFUSAL"


def _read_stream(data: bytes) -> tuple[str, bool]:
    said: list[str] = []
    refused = False
    for line in data.split(b"\n"):
        if not line.startswith(b"data: ") or line == b"data: [DONE]":
            continue
        event = msgspec.json.decode(line[6:])
        refused = refused or event.get("answer_source") == "REFUSAL"
        for choice in event.get("choices", ()):
            said.append(choice["delta"].get("content") or "")
    return "".join(said), refused
