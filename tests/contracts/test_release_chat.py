"""The same message for a chat: over real HTTP, in Slack's form, with nothing in it that could name or link anybody."""

from __future__ import annotations

from dataclasses import replace

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.release.chat import ChatSender, chat_message
from guard.release.incident import Difference
from guard.release.payload import webhook_body
from guard.release.records import OutboxItem
from guard.release.webhook import Delivery
from slo.errors import ConfigError
from tests.contracts.test_release_webhook import Http, http
from tests.unit.test_release_incident import INCIDENT

__all__ = ["http"]  # the fixture
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(("status", "result"), [(200, Delivery.DELIVERED), (302, Delivery.REDIRECT),
                                                (404, Delivery.HTTP_ERROR), (410, Delivery.GONE)])  # fmt: skip
async def test_a_chat_is_told_and_its_answer_is_understood(http: Http, status: int, result: Delivery) -> None:
    http.answers = [status]
    item = OutboxItem("msg_1", "ops", INCIDENT.incident_id, webhook_body(INCIDENT), 0.0)
    async with aiohttp.ClientSession() as session:
        sent = await ChatSender("ops", f"{http.url}/services/T0/B0/secret", session).send(item)
    assert sent.result is result
    assert "secret" not in sent.detail
    headers, body = http.calls[0]
    document = msgspec.json.decode(body)
    assert headers["content-type"] == "application/json"
    assert "webhook-signature" not in headers
    assert document["text"] == ":rewind: rolled back: faq-bot v1.2.1 -> v1.2.0 (hallucination)"
    words = "\n".join(block["text"]["text"] for block in document["blocks"])
    assert "`hallucination` 0.08 against 0.045, 40 of 500 in 3600 s" in words
    assert "kb.chunking: `600/100` -> `350/50`" in words
    assert f"sft-guard incident show {INCIDENT.incident_id}" in words


@given(st.text(max_size=200), st.text(max_size=200))
def test_words_from_outside_mark_nothing_up(reason: str, value: str) -> None:
    incident = replace(INCIDENT, reason=f"<!channel> {reason}", differences=(Difference("kb", "<http://x|y>", value),))
    message = chat_message(msgspec.json.decode(webhook_body(incident)))
    words = message["text"] + "".join(block["text"]["text"] for block in message["blocks"])
    assert "<" not in words
    assert ">" not in words.replace("-> ", "").replace("->", "")
    assert all(len(block["text"]["text"]) <= 3000 for block in message["blocks"])
    assert msgspec.json.encode(message)


async def test_an_address_that_is_none_is_refused_without_showing_it() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ConfigError) as caught:
            ChatSender("ops", "ftp://hooks.example/secret", session)
    assert "secret" not in str(caught.value)
