"""All that is called but upstreams: a name reaches only addresses of its kind, over real HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from guard.checked_names import checked_connector
from guard.checks.endpoint_spec import EndpointSpec
from guard.checks.judge_prompt import build_prompt
from guard.checks.judge_spec import JudgeSpec
from guard.checks.llm_judge import JudgeError, Reply, send
from guard.doctor import _reachable
from guard.embeddings import endpoint_spec
from guard.limits import Egress
from guard.settings import load_settings
from guard.slower_tiers import judge_spec
from rag.endpoint import EndpointEmbedder
from registry.client import RegistryClient
from registry.errors import RegistryUnreachable
from slo.dialling import NotAllowed, dial
from slo.errors import ConfigError, DataError, SourceError
from slo.pricing import PriceTable
from slo.sources.prometheus_http import PrometheusClient
from tests.otlp_receiver import OtlpReceiver
from tests.unit.test_exporters_spans import EXCHANGE

pytestmark = pytest.mark.anyio


class Inside:
    """A server on loopback that counts who comes."""

    port = 0
    asked_count = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked_count += 1
        if request.path == "/v1/chat/completions":
            return web.json_response({"choices": [{"message": {"content": "0.5"}}]})
        if request.path == "/v1/embeddings":
            texts = (await request.json())["input"]
            return web.json_response({"data": [{"index": n, "embedding": [1.0, n]} for n in range(len(texts))]})
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


@pytest.fixture
def led_to(monkeypatch: pytest.MonkeyPatch):
    """As `leads_to`, for libraries that block. With several addresses each look-up leads to the next one."""

    def set_addresses(*addresses: str) -> list[str]:
        asked: list[str] = []
        real = socket.getaddrinfo

        def found(host: str, port: int, *more: object, **named: object) -> object:
            if host.replace(".", "").isdigit():
                return real(host, port, *more, **named)
            asked.append(host)
            address = addresses[min(len(asked), len(addresses)) - 1]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

        monkeypatch.setattr(socket, "getaddrinfo", found)
        return asked

    return set_addresses


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


# What blocks: the judge, the embeddings, the OTLP exporter ------------------------------------------------------------

NAMES = [
    ("llm.example.com", (), False),
    ("llm.example.com", ("127.0.0.0/8",), True),
    ("llm.example.com", ("10.0.0.0/8",), False),
    ("vllm", (), True),
    ("vllm.models.svc", (), True),
]


def judge(host: str, port: int, networks: tuple[str, ...]) -> Reply:
    spec = JudgeSpec(f"http://{host}:{port}/v1", "m", "unused", egress_networks=networks, timeout_s=5.0)
    return send(spec, build_prompt("q", "a", ("c",), lambda: "0" * 32))


def embedding(host: str, port: int, networks: tuple[str, ...]) -> int:
    embedder = EndpointEmbedder(**EndpointSpec(f"http://{host}:{port}/v1", "m", egress_networks=networks).arguments())
    embedder.close()
    return embedder.dim


@pytest.mark.parametrize(("host", "networks", "reached"), NAMES)
async def test_the_judge_and_the_embeddings_reach_nothing_inside_by_a_public_name(
    led_to, host: str, networks: tuple[str, ...], reached: bool
) -> None:
    async with inside() as server:
        led_to("127.0.0.1")
        asked = [asyncio.to_thread(one, host, server.port, networks) for one in (judge, embedding)]
        if reached:
            score, dim = [await one for one in asked]
            assert (score, dim) == (Reply("0.5", None, None), 2)
        else:
            refused = rf"{host} is at 127\.0\.0\.1, inside; name the network in limits\.egress_networks"
            with pytest.raises(JudgeError, match="not reached: " + refused):
                await asked[0]
            with pytest.raises(DataError, match=refused):
                await asked[1]
        assert server.asked_count == (2 if reached else 0)


@pytest.mark.parametrize("address", ["169.254.169.254", "0.0.0.0"])
async def test_no_name_leads_a_blocking_client_to_the_metadata_of_a_cloud(led_to, address: str) -> None:
    led_to(address)
    for one in (judge, embedding):
        with pytest.raises((JudgeError, DataError), match=r"limits\.egress_networks"):
            one("metadata", 80, ())


async def test_the_address_that_was_looked_at_is_the_one_that_is_called(led_to) -> None:
    """Rebinding: whoever answers a second look-up with an address inside is not asked a second time."""
    async with inside() as server:
        asked = led_to("192.0.2.1", "127.0.0.1")
        with pytest.raises(OSError, match=r"timed out|unreachable|refused|permitted"):
            dial("llm.example.com", server.port, 0.05, lambda host, address: address == "192.0.2.1")
        assert asked == ["llm.example.com"]
        assert server.asked_count == 0


def test_a_second_address_is_called_when_the_first_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as refusing:
        refusing.bind(("127.0.0.2", server.getsockname()[1]))  # and never listens
        entries = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, server.getsockname()[1]))
            for address in ("10.9.9.9", "127.0.0.2", "127.0.0.1")
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
        with dial("vllm", server.getsockname()[1], 5.0, lambda host, address: address != "10.9.9.9") as sock:
            assert sock.getpeername()[0] == "127.0.0.1"
        with pytest.raises(NotAllowed):
            dial("vllm", 1, 5.0, lambda host, address: False)


async def test_the_certificate_is_that_of_the_name(led_to, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    asked = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    asked += ["-days", "2", "-subj", "/CN=vllm", "-addext", "subjectAltName=DNS:vllm"]
    asked += ["-keyout", str(key), "-out", str(certificate)]
    if shutil.which("openssl") is None or (await asyncio.to_thread(subprocess.run, asked)).returncode:
        pytest.skip("needs openssl to make a certificate (Debian package openssl)")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'"stream":false}')
        writer.write(b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(broken, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    led_to("127.0.0.1")

    def reach(host: str) -> str:
        spec = JudgeSpec(f"https://{host}:{port}/v1", "m", "unused", timeout_s=5.0)
        with pytest.raises(JudgeError) as caught:
            send(spec, build_prompt("q", "a", ("c",), lambda: "0" * 32))
        return str(caught.value)

    async with server:
        said = [await asyncio.to_thread(reach, host) for host in ("vllm", "other")]
    assert said == ["answered 500", "not reached (SSLCertVerificationError)"]


@pytest.mark.parametrize(("host", "networks", "reached"), NAMES)
async def test_the_otlp_exporter_reaches_nothing_inside_by_a_public_name(
    led_to, caplog: pytest.LogCaptureFixture, host: str, networks: tuple[str, ...], reached: bool
) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="needs the `otel` extra")
    from exporters.otel import OtelExporter

    dropped: list[tuple[str, int]] = []
    told = threading.Event()

    def drop(reason: str, count: int) -> None:
        dropped.append((reason, count))
        told.set()

    with OtlpReceiver("http") as receiver, caplog.at_level(logging.WARNING, "sft_guard.otel"):
        led_to("127.0.0.1")
        exporter = OtelExporter(
            f"http://{host}:{receiver.endpoint.rpartition(':')[2]}", service="s", version_of=lambda release: None,
            sleep_s=0.01, metrics_every_s=0.1, on_drop=drop, permits=Egress(networks).permits,
        )  # fmt: skip
        exporter.checked(EXCHANGE, None)
        if reached:
            await asyncio.to_thread(receiver.wait_for, lambda: receiver.spans and receiver.metrics)
        else:
            assert await asyncio.to_thread(told.wait, 20.0)
        await asyncio.to_thread(exporter.close)
        if not reached:
            assert (receiver.spans, receiver.metrics, dropped) == ([], {}, [("export", 1)])
            assert f"({host} is at 127.0.0.1, inside; name the network in limits.egress_networks" in caplog.text


async def test_spans_that_a_login_page_took_are_counted_as_lost(caplog: pytest.LogCaptureFixture) -> None:
    """The library takes a redirect for success."""
    pytest.importorskip("opentelemetry.sdk", reason="needs the `otel` extra")
    from exporters.otel import OtelExporter

    dropped: list[tuple[str, int]] = []
    with OtlpReceiver("http", status=302) as receiver, caplog.at_level(logging.WARNING, "sft_guard.otel"):
        exporter = OtelExporter(
            receiver.endpoint, service="s", metrics=False, version_of=lambda release: None, sleep_s=0.01,
            on_drop=lambda reason, count: dropped.append((reason, count)), permits=Egress().permits,
        )  # fmt: skip
        exporter.checked(dataclasses.replace(EXCHANGE, exchange_id="e2"), None)
        await asyncio.to_thread(exporter.close)
    assert dropped == [("export", 1)]
    assert "the receiver answers 302, a redirect, which is not followed" in caplog.text


async def test_doctor_says_what_the_guard_would_refuse(led_to) -> None:
    async with inside() as server:
        led_to("127.0.0.1")
        found = [
            await _reachable("judge", f"http://{host}:{server.port}/v1", Egress().permits)
            for host in ("llm.example.com", "vllm")
        ]
    assert [one.state for one in found] == ["fault", "ok"]
    assert "llm.example.com is at 127.0.0.1, inside; name the network in limits.egress_networks" in found[0].text


def test_the_networks_of_the_file_are_those_of_the_worker(tmp_path: Path) -> None:
    (tmp_path / "slo.yaml").write_text("service: x\npreset: support-faq\n")
    path = tmp_path / "guard.yaml"
    path.write_text(
        "service: x\nroutes: [{name: chat, path: /v1/chat/completions, adapter: openai-chat}]\n"
        "versions: {v1: {upstreams: ['http://127.0.0.1:9'], model: m}}\nrelease: {stable: v1}\n"
        "checks: {embedder: endpoint, judge: {url: 'http://llm:1/v1', model: m, price: {input: 0, output: 0}}}\n"
        "embeddings: {url: 'http://llm:1/v1', model: m}\nlimits: {egress_networks: [10.0.0.0/8]}\n"
    )
    settings = load_settings(path, {})
    specs = judge_spec(settings, PriceTable({}, "2026-01-01")), endpoint_spec(settings)
    assert [json.dumps(spec.egress_networks) for spec in specs if spec is not None] == ['["10.0.0.0/8"]'] * 2
