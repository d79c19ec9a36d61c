"""Webhooks over real HTTP, checked by our reference verifier and by one written here from the standard alone."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from guard.release.alertmanager import AlertmanagerPoster
from guard.release.incident import Incident, IncidentKind
from guard.release.journal import Journal
from guard.release.outbox import Outbox
from guard.release.records import OutboxItem
from guard.release.webhook import Delivery, WebhookSender, decode_secret, signed_headers, verify
from slo.clock import SystemClock
from slo.errors import ConfigError, RefusedError
from tests.release_kit import BAD, GOOD, inline

OLD = "whsec_" + base64.b64encode(b"o" * 32).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()
BODY = '{"type":"release.rolled_back","note":"\u7981\u6b62\uff0c\u56de\u5fa9"}'.encode()
ITEM = OutboxItem("msg_1", "pager", "inc-1", BODY, 0.0)


class Wall:
    """A wall clock that is moved by hand."""

    def __init__(self) -> None:
        self.at_s = 1_750_000_000.0

    def now_s(self) -> float:
        return self.at_s

    def wall_s(self) -> float:
        return self.at_s

    async def sleep(self, seconds: float) -> None:
        self.at_s += seconds


@dataclass
class Http:
    """A real receiver on loopback: answers as told, keeps what came."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.calls.append((headers, await request.read()))
        status = self.answers.pop(0) if self.answers else 200
        return web.Response(status=status, headers={"location": self.url + "/moved"} if 300 <= status < 400 else {})


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    receiver = Http()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{port}"
    yield receiver
    await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


def independent_check(headers: dict[str, str], body: bytes, secret: str) -> bool:
    """Standard Webhooks from its text: base64 key, HMAC-SHA256 over id.timestamp.body, any `v1,` signature fits."""
    key = base64.b64decode(secret.split("_", 1)[1])
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    versions = [entry.split(",", 1) for entry in headers["webhook-signature"].split(" ")]
    return any(version == "v1" and value == wanted for version, value in versions)


@pytest.mark.anyio
async def test_what_arrives_verifies_with_both_verifiers(http: Http, session: aiohttp.ClientSession) -> None:
    wall = Wall()
    sender = WebhookSender("pager", http.url, [NEW], session, wall)
    assert (await sender.send(ITEM)).result is Delivery.DELIVERED
    headers, body = http.calls[0]
    assert body == BODY
    assert independent_check(headers, body, NEW)
    assert verify(headers, body, [NEW], wall.at_s) == "msg_1"
    assert not independent_check(headers, body + b" ", NEW)
    assert not independent_check(headers, body, OLD)


@pytest.mark.anyio
async def test_during_rotation_the_old_and_the_new_secret_verify(http: Http, session: aiohttp.ClientSession) -> None:
    await WebhookSender("pager", http.url, [NEW, OLD], session, Wall()).send(ITEM)
    headers, body = http.calls[0]
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (NEW, OLD):
        assert independent_check(headers, body, secret)
        assert verify(headers, body, [secret], 1_750_000_000.0) == "msg_1"


@pytest.mark.anyio
async def test_every_try_has_the_same_id_and_body_and_its_own_timestamp(
    http: Http, session: aiohttp.ClientSession
) -> None:
    wall = Wall()
    sender = WebhookSender("pager", http.url, [NEW], session, wall)
    http.answers = [500, 503]
    results = []
    for _ in range(3):
        results.append((await sender.send(ITEM)).result)
        wall.at_s += 7
    assert results == [Delivery.HTTP_ERROR, Delivery.HTTP_ERROR, Delivery.DELIVERED]
    assert {h["webhook-id"] for h, _ in http.calls} == {"msg_1"}
    assert [int(h["webhook-timestamp"]) for h, _ in http.calls] == [1_750_000_000 + n for n in (0, 7, 14)]
    assert {b for _, b in http.calls} == {BODY}
    for headers, body in http.calls:
        assert independent_check(headers, body, NEW)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "result"),
    [
        (204, Delivery.DELIVERED), (301, Delivery.REDIRECT), (307, Delivery.REDIRECT), (410, Delivery.GONE),
        (429, Delivery.HTTP_ERROR), (400, Delivery.HTTP_ERROR), (500, Delivery.HTTP_ERROR),
    ],
)  # fmt: skip
async def test_what_each_status_means(
    http: Http, session: aiohttp.ClientSession, status: int, result: Delivery
) -> None:
    http.answers = [status]
    sent = await WebhookSender("pager", http.url, [NEW], session, Wall()).send(ITEM)
    assert sent.result is result
    assert len(http.calls) == 1  # a redirect is not followed


@pytest.mark.anyio
async def test_a_receiver_that_is_not_there_or_never_answers(session: aiohttp.ClientSession) -> None:
    refused = await WebhookSender("pager", "http://127.0.0.1:9", [NEW], session, Wall()).send(ITEM)
    assert refused.result is Delivery.CONNECT_ERROR

    with socket.socket() as silent:  # The kernel takes the connection; nobody ever answers.
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        sender = WebhookSender("pager", url, [NEW], session, Wall(), timeout_s=0.05)
        assert (await sender.send(ITEM)).result is Delivery.TIMEOUT


@pytest.mark.anyio
async def test_the_outbox_delivers_a_verifiable_message_after_failures(
    http: Http, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    http.answers = [500]
    journal, arrived = Journal(tmp_path), asyncio.Event()
    outbox = Outbox(
        journal,
        {"pager": WebhookSender("pager", http.url, [NEW], session, SystemClock())},
        SystemClock(),
        on_delivery=lambda result: arrived.set() if result == "delivered" else None,
        offload=inline,
    )
    items = outbox.items("msg_9", "inc-9", BODY)
    journal.record(outbox=items)
    outbox.add(items, saved=True)
    task = asyncio.create_task(outbox.run())
    await asyncio.wait_for(arrived.wait(), 10)
    task.cancel()
    seen = {verify(headers, body, [NEW], SystemClock().wall_s()) for headers, body in http.calls}
    assert (seen, len(http.calls)) == ({"msg_9"}, 2)
    journal.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"webhook-signature": "v1,AAAA"}, "bad_signature"),
        ({"webhook-signature": ""}, "bad_signature"),
        ({"webhook-id": "msg_2"}, "bad_signature"),
        ({"webhook-timestamp": "1750000001"}, "bad_signature"),
        ({"webhook-timestamp": "17500000.5"}, "bad_timestamp"),
        ({"webhook-timestamp": "-5"}, "bad_timestamp"),
        ({"webhook-timestamp": "\u0661\u0662"}, "bad_timestamp"),
        ({"webhook-timestamp": "1749999699"}, "too_old"),
        ({"webhook-timestamp": "1750000301"}, "too_new"),
    ],
)
def test_forged_replayed_and_late_messages_are_refused(change: dict[str, str], reason: str) -> None:
    headers = signed_headers([decode_secret(NEW)], "msg_1", 1_750_000_000, BODY)
    assert verify(headers, BODY, [OLD, NEW], 1_750_000_000.0) == "msg_1"
    with pytest.raises(RefusedError) as caught:
        verify(headers | change, BODY, [NEW], 1_750_000_000.0)
    assert caught.value.reason == reason
    with pytest.raises(RefusedError, match="none fits"):
        verify(headers, BODY.replace(b"rolled", b"ROLLED"), [NEW], 1_750_000_000.0)
    for name in headers:
        with pytest.raises(RefusedError, match="missing"):
            verify({k: v for k, v in headers.items() if k != name}, BODY, [NEW], 1_750_000_000.0)


def test_the_edges_of_the_tolerance_still_verify() -> None:
    headers = signed_headers([decode_secret(NEW)], "msg_1", 1_750_000_000, BODY)
    for now_s in (1_749_999_700.0, 1_750_000_300.0):
        assert verify(headers, BODY, [NEW], now_s) == "msg_1"


def test_the_standards_own_example_signs_the_same() -> None:
    # From the standard's reference test suite: secret, id, timestamp, body and their signature.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signed_headers(
        [decode_secret(secret)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["", "abc", "whsec_", "whsec_!!!", "whsec_c2hvcnQ=", "WHSEC_" + NEW[6:]])
def test_a_secret_that_cannot_be_is_refused_and_never_shown(secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode_secret(secret)
    assert "openssl" in str(caught.value)
    if len(secret) > 8:
        assert secret not in str(caught.value)


@pytest.mark.anyio
@pytest.mark.parametrize("url", ["ftp://x/", "http://", "http://user:pw@host/", "file:///etc/passwd", "x"])
async def test_a_webhook_url_is_an_origin_of_the_configuration(session: aiohttp.ClientSession, url: str) -> None:
    with pytest.raises(ConfigError, match="http"):
        WebhookSender("pager", url, [NEW], session, Wall())
    with pytest.raises(ConfigError, match="rotation"):
        WebhookSender("pager", "http://host/", [NEW, OLD, NEW], session, Wall())


@pytest.mark.anyio
async def test_open_incidents_are_posted_to_alertmanager_with_a_renewed_end(
    http: Http, session: aiohttp.ClientSession
) -> None:
    wall = Wall()
    incident = Incident(
        "inc-1", IncidentKind.ROLLBACK, "faq-bot", wall.at_s, "hallucination", "8 % over 4.5 %", BAD, GOOD, 3
    )
    standing = [incident]

    async def open_incidents() -> list[Incident]:
        return standing

    results: list[str] = []
    poster = AlertmanagerPoster([http.url], session, wall, open_incidents, on_result=results.append)
    assert await poster.post_once()
    wall.at_s += 60
    http.answers = [500]
    assert not await poster.post_once()  # down for a minute
    wall.at_s += 60
    assert await poster.post_once()
    first, _, third = (msgspec.json.decode(body)[0] for _, body in http.calls)
    assert first["labels"] == {
        "alertname": "SftGuardRollback",
        "severity": "critical",
        "service": "faq-bot",
        "release": BAD.release_id,
        "incident_id": "inc-1",
    }
    assert first["startsAt"] == third["startsAt"] == "2025-06-15T15:06:40.000Z"
    assert (first["endsAt"], third["endsAt"]) == ("2025-06-15T15:11:40.000Z", "2025-06-15T15:13:40.000Z")
    assert results == ["ok", "error", "ok"]
    standing.clear()
    assert await poster.post_once()
    assert len(http.calls) == 3
