"""Webhooks, registry, Alertmanager and Prometheus: a name reaches only addresses of its kind, over real HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from guard.checked_names import checked_connector
from guard.limits import Egress
from guard.settings import load_settings
from registry.client import RegistryClient
from registry.errors import RegistryUnreachable
from slo.errors import ConfigError, SourceError
from slo.sources.prometheus_http import PrometheusClient

pytestmark = pytest.mark.anyio


class Inside:
    """A server on loopback that counts who comes."""

    port = 0
    asked_count = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked_count += 1
        return web.json_response({"status": "ok"})


@asynccontextmanager
async def inside() -> AsyncIterator[Inside]:
    made = Inside()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await runner.cleanup()


@pytest.fixture
def leads_to(monkeypatch: pytest.MonkeyPatch):
    """Every name is at this address from now on."""

    def set_address(address: str) -> None:
        async def found(host: str, port: int, **_: object) -> object:
            if ":" in address:
                return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)

    return set_address


@pytest.mark.parametrize(
    ("host", "networks", "reached"),
    [
        ("hooks.example.com", (), False),
        ("hooks.example.com", ("127.0.0.0/8",), True),
        ("hooks.example.com", ("10.0.0.0/8",), False),
        ("alertmanager", (), True),
        ("registry.bots.svc", (), True),
    ],
)
async def test_a_public_name_that_leads_inside_reaches_nothing(
    leads_to, host: str, networks: tuple[str, ...], reached: bool
) -> None:
    async with inside() as server:
        leads_to("127.0.0.1")
        async with aiohttp.ClientSession(connector=checked_connector(Egress(networks))) as session:
            url = f"http://{host}:{server.port}/hook"
            if reached:
                async with session.post(url, data=b"x", allow_redirects=False) as response:
                    assert response.status == 200
            else:
                with pytest.raises(aiohttp.ClientConnectorError, match=r"limits\.egress_networks"):
                    await session.post(url, data=b"x", allow_redirects=False)
        assert server.asked_count == int(reached)


@pytest.mark.parametrize("address", ["169.254.169.254", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1"])
async def test_no_name_leads_to_the_metadata_of_a_cloud(leads_to, address: str) -> None:
    leads_to(address)
    async with aiohttp.ClientSession(connector=checked_connector(Egress())) as session:
        with pytest.raises(aiohttp.ClientConnectorError, match=r"limits\.egress_networks"):
            await session.get("http://metadata:80/")


async def test_an_address_of_the_configuration_is_meant() -> None:
    async with (
        inside() as server,
        aiohttp.ClientSession(connector=checked_connector(Egress())) as session,
        session.get(f"http://127.0.0.1:{server.port}/") as response,
    ):
        assert response.status == 200


async def test_registry_and_prometheus_say_in_a_line_what_is_refused(leads_to) -> None:
    async with inside() as server:
        leads_to("127.0.0.1")
        registry = RegistryClient(
            f"http://registry.example.com:{server.port}", connector=lambda: checked_connector(Egress())
        )
        prometheus = PrometheusClient(
            f"http://prometheus.example.com:{server.port}", connector=lambda: checked_connector(Egress())
        )
        try:
            with pytest.raises(
                RegistryUnreachable, match=r"registry\.example\.com is at 127\.0\.0\.1.*egress_networks"
            ):
                await registry.healthy()
            with pytest.raises(SourceError, match=r"prometheus\.example\.com is at 127\.0\.0\.1.*egress_networks"):
                await prometheus("up")
        finally:
            await registry.close()
            await prometheus.close()
        assert server.asked_count == 0


async def test_a_network_that_is_none_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "slo.yaml").write_text("service: x\npreset: support-faq\n")
    path = tmp_path / "guard.yaml"
    path.write_text(
        "service: x\nroutes: [{name: chat, path: /v1/chat/completions, adapter: openai-chat}]\n"
        "versions: {v1: {upstreams: ['http://127.0.0.1:9'], model: m}}\nrelease: {stable: v1}\n"
        "limits: {egress_networks: [10.0.0.0/33]}\n"
    )
    with pytest.raises(ConfigError, match=r"limits\.egress_networks.*10\.0\.0\.0/33.*write it as 10\.0\.0\.0/8"):
        load_settings(path)
