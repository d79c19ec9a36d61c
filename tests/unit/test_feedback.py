"""Thumbs: one per answer, of answers that were given, and not a flood of them."""

from __future__ import annotations

import json

import pytest

from guard.feedback import BURST_COUNT, feedback_handler
from guard.recent import RecentExchanges
from slo.types import Exchange, Outcome

pytestmark = pytest.mark.anyio


def recent(*ids: str) -> RecentExchanges:
    kept = RecentExchanges()
    for exchange_id in ids:
        kept.served(Exchange(exchange_id, 0.0, "chat", "r1", "stable", Outcome.OK, 200))
    return kept


def body(exchange_id: str, thumb: str) -> bytes:
    return json.dumps({"exchange_id": exchange_id, "thumb": thumb}).encode()


async def test_the_same_thumb_again_is_accepted_and_counted_once() -> None:
    counted: list[tuple[str, bool]] = []
    flagged: list[str] = []
    handle = feedback_handler(recent("e1"), lambda release, up: counted.append((release, up)), flagged.append)
    statuses = [(await handle({}, body("e1", thumb)))[0] for thumb in ("down", "down", "up", "down")]
    assert statuses == [202, 200, 409, 200]
    assert counted == [("r1", False)]
    assert flagged == ["e1"]


async def test_an_answer_never_given_is_refused_in_one_line() -> None:
    counted: list[object] = []
    handle = feedback_handler(recent("e1"), lambda *vote: counted.append(vote))
    status, said = await handle({}, body("e2", "up"))
    assert (status, counted) == (404, [])
    assert json.loads(said)["error"] == {
        "type": "unknown_exchange", "message": "send the x-guard-exchange-id of a recent answer",
    }  # fmt: skip


async def test_a_flood_is_refused_and_passes() -> None:
    at_s = [0.0]
    handle = feedback_handler(recent("e1"), lambda *_: None, now_s=lambda: at_s[0])
    flood = [(await handle({}, body("e1", "up")))[0] for _ in range(int(BURST_COUNT) + 3)]
    assert flood[0] == 202
    assert flood[-3:] == [429, 429, 429]
    at_s[0] = 1.0
    assert (await handle({}, body("e1", "up")))[0] == 200
