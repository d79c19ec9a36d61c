"""The console: one page, its parts as files of the package, live over server-sent events.

Nothing is built when it is installed, and nothing comes from elsewhere. The words of an exchange need the token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib.resources import files

import msgspec
from fastapi import Depends, FastAPI
from fastapi.responses import Response, StreamingResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from guard.admin.backend import AdminBackend
from guard.admin.shapes import History, IncidentRow, Words
from slo.clock import Clock
from slo.errors import GuardError, RefusedError

EVERY_S = 2.0
LIFE_S = 600.0
"""A stream ends after this; a page that somebody sees opens another. So no forgotten tab holds one for ever."""
STREAM_COUNT = 16
EXCHANGE_COUNT, INCIDENT_COUNT = 50, 20

TYPES = {
    "app.js": "text/javascript; charset=utf-8",
    "draw.js": "text/javascript; charset=utf-8",
    "panels.js": "text/javascript; charset=utf-8",
    "words.js": "text/javascript; charset=utf-8",
    "app.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "index.html": "text/html; charset=utf-8",
}
_encode = msgspec.json.Encoder().encode


class WordsBody(BaseModel):
    """Which exchange."""

    model_config = ConfigDict(extra="forbid")
    exchange_id: str = Field(min_length=1, max_length=64)


async def snapshot(backend: AdminBackend) -> bytes:
    """Everything the page shows at once, as JSON. incidents: the newest and all that are open; null: not readable."""
    incidents: list[IncidentRow] | None
    try:
        found = (await backend.incidents()).incidents
        incidents = [row for n, row in enumerate(found) if n < INCIDENT_COUNT or row.closed_wall_s is None]
    except (GuardError, OSError):  # A sick disk, which the journal has told of, is when the page is needed most.
        incidents = None
    return _encode(
        {
            "health": backend.health(),
            "ready": backend.ready(),
            "slo": backend.slo(),
            "release": backend.release_status(),
            "incidents": incidents,
            "drift": backend.drift().components,
            "exchanges": backend.exchanges(EXCHANGE_COUNT).exchanges,
            "saved_usd": await backend.saved_usd(),
        }
    )


def add_console(app: FastAPI, backend: AdminBackend, clock: Clock, *, writable: bool) -> None:
    """Add the page, its files, its stream, and (with a token configured) the words of one exchange."""
    kept = {name: files(__name__).joinpath(name).read_bytes() for name in TYPES}
    streams = _Streams(backend, clock)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(kept["index.html"], media_type=TYPES["index.html"])

    def serve(name: str) -> None:
        @app.get(f"/console/{name}", include_in_schema=False, name=name)
        async def part() -> Response:
            return Response(kept[name], media_type=TYPES[name])

    for name in TYPES:
        if name != "index.html":
            serve(name)

    @app.get(
        "/api/v1/stream",
        response_class=Response,
        responses={200: {"description": "Events `snapshot`", "content": {"text/event-stream": {}}},
                   503: {"description": "Too many streams"}},
    )  # fmt: skip
    async def stream() -> Response:
        """Live snapshots for the console, as server-sent events."""
        return StreamingResponse(streams.open(), media_type="text/event-stream; charset=utf-8")

    @app.get("/api/v1/history", response_model=History)
    async def history() -> Response:
        """Every objective of every release in traffic over the last hour."""
        return Response(_encode(await asyncio.to_thread(backend.history)), media_type="application/json")

    if writable:

        @app.post(
            "/api/v1/exchanges/words",
            response_model=Words,
            responses={404: {"description": "No words are kept of it"}},
            dependencies=[Depends(HTTPBearer(auto_error=False, scheme_name="bearer"))],
        )
        async def words(body: WordsBody) -> Response:
            """Question and answer of a recent exchange, redacted; POST because reading them needs the token."""
            found = backend.exchange_words(body.exchange_id)
            if found is None:
                raise RefusedError("not_found", "no words are kept of this exchange; see exchange_log.text")
            return Response(_encode(found), media_type="application/json")


class _Streams:
    """One snapshot for all that listen, made at most every `EVERY_S`."""

    def __init__(self, backend: AdminBackend, clock: Clock) -> None:
        self._backend, self._clock = backend, clock
        self._open_count = 0
        self._made: tuple[float, bytes] = (float("-inf"), b"")
        self._turn = asyncio.Lock()

    def open(self) -> AsyncIterator[bytes]:
        """The bytes of one stream. Raises RefusedError `unavailable` when there are too many."""
        if self._open_count >= STREAM_COUNT:
            raise RefusedError("unavailable", f"{STREAM_COUNT} consoles are open; close one")
        return self._events()

    async def _events(self) -> AsyncIterator[bytes]:
        self._open_count += 1
        try:
            until_s = self._clock.now_s() + LIFE_S
            yield b"retry: 2000\n\n"
            while self._clock.now_s() < until_s:
                yield b"event: snapshot\ndata: " + await self._snapshot() + b"\n\n"
                await self._clock.sleep(EVERY_S)
        finally:
            self._open_count -= 1

    async def _snapshot(self) -> bytes:
        async with self._turn:
            if self._clock.now_s() - self._made[0] >= EVERY_S * 0.9:
                self._made = (self._clock.now_s(), await snapshot(self._backend))
            return self._made[1]
