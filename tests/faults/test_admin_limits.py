"""Too many connections at the admin listener: told so, and served again when they are gone."""

# ruff: noqa: ASYNC110 - polling is what is tested
from __future__ import annotations

import asyncio

import pytest

from guard.admin import server
from guard.admin.server import serve_admin
from tests.faults.path_kit import take_apart, tell
from tests.unit.admin_helpers import Site

pytestmark = pytest.mark.anyio
ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def test_connections_over_the_cap_are_refused_and_the_listener_recovers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "CONNECTIONS_COUNT", 20)
    handle = await serve_admin(Site().app, "127.0.0.1", 0)
    try:
        held = [await asyncio.open_connection("127.0.0.1", handle.port) for _ in range(20)]
        async with asyncio.timeout(20):
            while take_apart(await tell(handle.port, ASK)).status != 503:
                await asyncio.sleep(0.01)
        for _, writer in held:
            writer.transport.abort()
        async with asyncio.timeout(20):
            while take_apart(await tell(handle.port, ASK)).status != 200:
                await asyncio.sleep(0.01)
    finally:
        await handle.close()
