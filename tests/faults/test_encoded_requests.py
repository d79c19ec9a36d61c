"""Compressed requests: the guard never unpacks what it only passes on."""

# ruff: noqa: SIM117 - nested blocks read as a picture of what is between whom; polling is what is tested
from __future__ import annotations

import gzip
import json
import os

import psutil
import pytest

from guard.ports import Limits
from slo.types import Outcome
from tests.faults.path_kit import chat, post, running, take_apart, target, tell
from tests.faults.scripted_upstream import Script, Upstream, completion, http

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "nonsense"])
async def test_a_packed_question_arrives_as_it_was_sent(coding: str):
    packed = gzip.compress(json.dumps(chat()).encode())
    async with Upstream(lambda _: Script(http(completion()))) as upstream, running(target(upstream.port)) as guard:
        answer = take_apart(await tell(guard.port, post(packed, f"Content-Encoding: {coding}")))
    assert (answer.status, answer.body) == (200, completion())
    assert upstream.requests[0].body == packed
    assert upstream.requests[0].header(b"content-encoding") == coding.encode()
    assert [exchange.outcome for exchange in guard.sink.exchanges] == [Outcome.OK]


async def test_a_bomb_is_not_unpacked():
    bomb = gzip.compress(gzip.compress(b"\0" * 100_000_000))
    packed = bomb * 20  # many members
    async with Upstream(lambda _: Script(http(completion()))) as upstream:
        async with running(target(upstream.port), limits=Limits(request_body_bytes=4_000_000)) as guard:
            before = psutil.Process(os.getpid()).memory_info().rss
            for _ in range(20):
                answer = take_apart(await tell(guard.port, post(packed, "Content-Encoding: gzip")))
                assert answer.status == 200
            assert psutil.Process(os.getpid()).memory_info().rss - before < 16 * 2**20
    assert {request.body for request in upstream.requests} == {packed}
