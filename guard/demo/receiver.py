"""The other end of the webhook: verifies every call as Standard Webhooks say and keeps what was genuine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from guard.release.webhook import verify
from slo.clock import Clock
from slo.codec import NOT_JSON
from slo.errors import RefusedError


@dataclass(frozen=True, slots=True)
class Received:
    """One genuine call. wall_s: when it came."""

    message_id: str
    event: str
    incident_id: str
    bad: str  # name of the version that answered badly
    target: str  # name of the version that was returned to
    wall_s: float


class Receiver:
    """Listens on a free port of loopback. calls: genuine ones, each id once; refused: why others were not."""

    def __init__(self, secret: str, clock: Clock, on_call: Callable[[Received], None] = lambda call: None) -> None:
        self._secret, self._clock, self._on_call = secret, clock, on_call
        self.calls: list[Received] = []
        self.refused: list[str] = []
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen; returns the port."""
        app = web.Application()
        app.router.add_post("/hook", self._hook)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _hook(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            message_id = verify(headers, body, [self._secret], self._clock.wall_s())
            call = _read(message_id, msgspec.json.decode(body), self._clock.wall_s())
        except RefusedError as error:
            self.refused.append(error.reason)
            return web.json_response({"error": error.reason}, status=401)
        except (*NOT_JSON, KeyError, TypeError):
            self.refused.append("malformed")
            return web.json_response({"error": "malformed"}, status=400)
        if all(known.message_id != message_id for known in self.calls):
            self.calls.append(call)
            self._on_call(call)
        return web.Response(status=204)


def _read(message_id: str, document: Any, wall_s: float) -> Received:
    data = document["data"]
    return Received(
        message_id, document["type"], data["incident_id"], data["bad"]["name"], data["target"]["name"], wall_s
    )
