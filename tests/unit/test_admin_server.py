"""The admin listener on a real socket: ports, deadlines, framing, shutdown, and a real browser."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from guard.admin import server
from guard.admin.server import AdminHandle, serve_admin
from slo.clock import SystemClock
from slo.errors import ConfigError
from tests.unit.admin_helpers import TOKEN, Site

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(site: Site) -> AsyncIterator[AdminHandle]:
    handle = await serve_admin(site.app, "127.0.0.1", 0)
    try:
        yield handle
    finally:
        await handle.close()


async def raw(handle: AdminHandle, data: bytes) -> bytes:
    """Send bytes as they are and return everything until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", handle.port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:  # closed with bytes of ours still unread
        return b""
    finally:
        writer.close()


async def test_it_answers_on_a_free_port_and_leaves_it_when_closed() -> None:
    site = Site(clock=SystemClock())
    async with serving(site) as handle, aiohttp.ClientSession(handle.url) as client:
        async with client.get("/healthz") as health:
            assert (health.status, (await health.json())["status"]) == (200, "ok")
            assert "server" not in health.headers
        body = {"version": "v2"}
        async with client.post("/api/v1/release/start", json=body) as refused:
            assert refused.status == 401
        async with client.post(
            "/api/v1/release/start", json=body, headers={"Authorization": f"Bearer {TOKEN}"}
        ) as started:
            assert started.status == 200
        port = handle.port
    assert site.backend.commands[0][1].version == "v2"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    await handle.close()  # once more does no harm


async def test_signals_stay_with_the_process() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    async with serving(Site()):
        assert {number: signal.getsignal(number) for number in before} == before


async def test_a_port_in_use_is_one_line_with_a_cure() -> None:
    async with serving(Site()) as handle:
        with pytest.raises(ConfigError, match=rf"listen.admin: got '127.0.0.1:{handle.port}'; another program listens"):
            await serve_admin(Site().app, "127.0.0.1", handle.port)


@pytest.mark.parametrize(
    ("host", "port", "cure"),
    [
        ("192.0.2.1", 0, "write an address of this machine"),
        ("127.0.0.1", 70_000, "write a port from 0 to 65535"),
        ("no such host", 1, "write an address of this machine"),
    ],
)
async def test_an_impossible_address_is_one_line_with_a_cure(host: str, port: int, cure: str) -> None:
    with pytest.raises(ConfigError, match=cure):
        await serve_admin(Site().app, host, port)


async def test_a_head_that_trickles_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.05)
    async with serving(Site(allowed_hosts=["*"])) as handle:
        assert await raw(handle, b"GET / HTTP/1.1\r\nHost: local") == b""
        assert await raw(handle, b"") == b""
        # The second request of a connection has the same deadline.
        answer = await raw(handle, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\nHo")
        assert answer.count(b"HTTP/1.1 200 OK") == 1


async def test_a_head_that_is_too_large_is_refused() -> None:
    async with serving(Site(allowed_hosts=["*"])) as handle:
        answer = await raw(handle, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 200_000)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /api/v1/release/start HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"POST /api/v1/release/start HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n",
        b"POST /api/v1/release/start HTTP/1.1\r\nHost: a\r\nContent-Length: -2\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
        b"GET /healthz HTTP/1.1\r\n",
        b"GET http://127.0.0.1/healthz HTTP/1.1\r\nHost: a\r\n",
        b"GET /%2e%2e/healthz HTTP/1.1\r\nHost: a\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n Folded: x\r\nX : y\r\n",
    ],
)
async def test_requests_that_two_parsers_could_read_differently_are_refused(
    head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(allowed_hosts=["*"])
    authorized = head + f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n".encode()
    with caplog.at_level(logging.CRITICAL):
        async with serving(site) as handle:
            answer = await raw(handle, authorized + b"Connection: close\r\n\r\n{}")
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:100]
    assert site.backend.commands == []


async def test_a_request_in_flight_ends_before_the_listener_does() -> None:
    site = Site(clock=SystemClock())
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(*, openmetrics: bool) -> bytes:
        entered.set()
        await go.wait()
        return b"late\n"

    site.backend.metrics = slow  # type: ignore[method-assign]
    handle = await serve_admin(site.app, "127.0.0.1", 0)
    asking = asyncio.create_task(raw(handle, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    await entered.wait()
    closing = asyncio.create_task(handle.close())
    await asyncio.sleep(0)
    go.set()
    assert (await asking).endswith(b"late\n")
    await closing


PAYLOAD = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><svg onload=eval(name)>"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium (Debian package `chromium`)")
async def test_a_real_browser_runs_nothing_of_what_the_model_said() -> None:
    site = Site(words=PAYLOAD, clock=SystemClock())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        async with serving(site) as handle:
            command = [
                "chromium", "--headless", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
                *(["--no-sandbox"] if os.geteuid() == 0 else []), "--dump-dom", f"{handle.url}/status",
            ]  # fmt: skip
            found = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=90, check=False)
    page = found.stdout.decode()
    assert "<h2>Objectives</h2>" in page, found.stderr.decode()[-500:]
    assert "&lt;script&gt;" in page
    assert "<title>owned" not in page
    assert "<script" not in page
    assert "<img" not in page


async def test_json_errors_reach_a_real_client_as_one_line() -> None:
    async with serving(Site(clock=SystemClock())) as handle:
        answer = await raw(handle, b"DELETE /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ")
    assert json.loads(body)["error"]["type"] == "unauthorized"
    assert b"\n" not in body
