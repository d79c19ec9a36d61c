"""Warming and semantic hits through a real data path: who is asked, what is counted, what a rollback stops."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from guard.cache.care import CacheCare
from guard.cache.key import target_mark
from guard.cache.near import NearCache, NearConfig
from guard.cache.quiet import QuietPath
from guard.cache.warmer import Warmer
from guard.cache.warming import WarmLimits
from guard.ports import Target
from slo.clock import SystemClock
from slo.types import CacheStatus, Version
from tests.cache_kit import FAILED, PASSED, CheckedBy, Counted, memory_cache
from tests.faults.path_kit import Answer, Running, ask, chat, running, settled, target
from tests.faults.scripted_upstream import Script, Seen, Upstream, completion, http

pytestmark = pytest.mark.anyio
STABLE, CANARY = Version("v1", model="m-1"), Version("v2", model="m-1", kb="kb-2")
FULL = WarmLimits(requests_per_minute=60, usd_per_hour=1.0, in_flight=2)


def asked(question: str, **more: Any) -> dict[str, Any]:
    return chat(temperature=0, messages=[{"role": "user", "content": question}], **more)


def questions(upstream: Upstream) -> list[str]:
    """What a model was asked, in order."""
    return [json.loads(seen.body)["messages"][-1]["content"] for seen in upstream.requests]


class Cared:
    """A guard with a cache, its care, one stable and one canary upstream."""

    def __init__(self, guard: Running, sink: CheckedBy, care: CacheCare, counted: Counted) -> None:
        self.guard, self.sink, self.care, self.counted = guard, sink, care, counted

    async def ask(self, question: str, *headers: str, **more: Any) -> Answer:
        return await ask(self.guard.port, asked(question, **more), *headers)

    def canary(self, canary: Target, ratio: float = 1.0, epoch: int = 0) -> None:
        self.guard.split.set(self.guard.split.in_traffic()[0].target, canary, ratio, epoch, "r")

    @property
    def warm(self) -> dict[str, Any]:
        row = self.care.savings.total()
        return {"requests": row.warm_requests, "avoided": row.misses_avoided, "usd": round(row.warm_usd, 9)}


@asynccontextmanager
async def cared(
    upstream: Upstream, *, limits: WarmLimits = FULL, near: NearConfig | None = None, findings: Any = PASSED,
    command: tuple[str, ...] | None = None,
) -> AsyncIterator[Cared]:  # fmt: skip
    counted, cache = Counted(), memory_cache()
    sink = CheckedBy(cache=cache, findings=PASSED)
    async with running(target(upstream.port, version=STABLE), cache=cache, sink=sink) as guard:
        clock = SystemClock()
        care = CacheCare(cache, guard.split.in_traffic, counted, clock)
        warmer = Warmer(
            limits, care.ask, guard.split.in_traffic, lambda a: target_mark(a.target), cache.store.get, care.keep,
            lambda: guard.path.shed_ratio > 0, lambda: False, care.settle, counted, clock,
        )  # fmt: skip
        finder = None
        if near is not None:
            finder = NearCache(near, cache.store.get, care.recheck, counted, clock, command=command)
        care.connect(
            QuietPath(guard.path), lambda exchange, _: cache.checked(replace(exchange, findings=findings), None),
            warmer=warmer, near=finder,
        )  # fmt: skip
        care.start()
        care.tick()  # what takes traffic now is not new
        try:
            yield Cared(guard, sink, care, counted)
        finally:
            await care.stop()


async def repeats(cared: Cared, *names: str) -> None:
    """Ask each question three times; more often the earlier it stands."""
    for number, name in enumerate(names):
        for _ in range(2 + len(names) - number):
            await cared.ask(name)


async def test_a_canary_is_filled_with_the_hottest_questions_and_its_users_find_them_there():
    async with Upstream(lambda _: Script(http(completion()))) as old, Upstream(
        lambda _: Script(http(completion("from v2")))
    ) as new, cared(old) as guard:  # fmt: skip
        await repeats(guard, "a?", "b?", "c?")
        await guard.ask("once?")
        guard.canary(target(new.port, version=CANARY))
        guard.care.tick()
        await settled(lambda: guard.warm["requests"] == 2)
        guard.care.tick()
        await settled(lambda: guard.warm["requests"] == 3)
        guard.care.tick()
        user_exchanges = len(guard.sink.exchanges)
        assert questions(new) == ["a?", "b?", "c?"]  # hottest first, and not what was asked once
        answer = await guard.ask("b?")
        again = await guard.ask("b?")
    assert (answer.header("x-guard-cache"), answer.header("x-guard-release")) == ("hit", CANARY.release_id)
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == "from v2"
    assert again.header("x-guard-cache") == "hit"
    # Warm-ups vote in nothing: the data path's sink has seen users' exchanges only. Their cost counts, labelled.
    assert len(guard.sink.exchanges) == user_exchanges + 2
    assert guard.warm == {"requests": 3, "avoided": 1, "usd": 66e-6}
    assert guard.counted.sums["sft_cache_warm_requests_total", CANARY.release_id, "answered"] == 3
    row = next(row for _, release, row in guard.care.savings.rows() if release == CANARY.release_id)
    assert (row.hits, row.misses, row.avoided_usd, row.spent_usd) == (2, 0, 22e-6, 0.0)


async def test_answers_of_our_own_have_other_ids_in_every_process():
    ids: list[str] = []
    for _ in range(2):
        async with Upstream(lambda _: Script(http(completion()))) as old, cared(old) as guard:
            await repeats(guard, "a?")
            guard.sink.cache.subscribe(Noting(ids))
            guard.canary(target(old.port, version=CANARY))
            guard.care.tick()
            await settled(lambda: guard.warm["requests"] == 1)
    assert len(ids) == len(set(ids)) == 2


class Noting:
    """A listener of the cache that notes by which exchange an answer was made."""

    def __init__(self, ids: list[str]) -> None:
        self._ids = ids

    def hit(self, request: Any, entry: Any, exchange_id: str, wall_s: float) -> None:
        """Not what is noted."""

    def missed(self, request: Any, wall_s: float) -> None:
        """Not what is noted."""

    def removed(self, key: Any, reason: Any) -> None:
        """Not what is noted."""

    def stored(self, request: Any, entry: Any) -> None:
        """An answer can be hit from now on."""
        self._ids.append(entry.exchange_id)


async def test_the_budget_of_requests_and_of_money_is_kept():
    few = replace(FULL, requests_per_minute=2)
    poor = replace(FULL, usd_per_hour=50e-6)
    for limits, sent, why in ((few, 2, "requests"), (poor, 2, "usd")):
        async with Upstream(lambda _: Script(http(completion()))) as old, Upstream(
            lambda _: Script(http(completion()))
        ) as new, cared(old, limits=limits) as guard:  # fmt: skip
            await repeats(guard, "a?", "b?", "c?", "d?")
            guard.canary(target(new.port, version=CANARY))
            for _ in range(6):
                guard.care.tick()
                await asyncio.sleep(0.03)
            stats = guard.care.warmer.stats()[1]
            assert (len(new.requests), stats.wait) == (sent, why)


async def test_a_rollback_gives_up_what_is_under_way_and_sends_no_more():
    async with Upstream(lambda _: Script(http(completion()))) as old, Upstream(
        lambda _: Script(http(completion("never whole")), stall_at=40)
    ) as new, cared(old) as guard:  # fmt: skip
        await repeats(guard, "a?", "b?", "c?")
        guard.canary(target(new.port, version=CANARY))
        guard.care.tick()
        await settled(lambda: len(new.requests) == 2)
        guard.guard.split.set(guard.guard.split.in_traffic()[0].target, None, 0.0, 1)
        guard.care.released()
        await settled(lambda: guard.warm["requests"] == 2)
        assert guard.counted.sums["sft_cache_warm_requests_total", CANARY.release_id, "given_up"] == 2
        for _ in range(3):
            guard.care.tick()
        await asyncio.sleep(0.02)
        assert len(new.requests) == 2
        # The epoch has moved, so stable starts empty as well: it is filled again, from its own upstream.
        assert questions(old)[-2:] == ["a?", "b?"]
        assert guard.care.warmer.stats()[0].release == STABLE.release_id


async def test_a_rollback_in_the_very_turn_in_which_a_warm_up_is_sent_gives_it_up_too():
    async with Upstream(lambda _: Script(http(completion()))) as old, Upstream(
        lambda _: Script(http(completion()))
    ) as new, cared(old) as guard:  # fmt: skip
        await repeats(guard, "a?", "b?", "c?")
        guard.canary(target(new.port, version=CANARY))
        guard.care.tick()
        guard.guard.split.set(guard.guard.split.in_traffic()[0].target, None, 0.0)
        guard.care.released()
        await settled(lambda: guard.warm["requests"] == 2)
        assert guard.counted.sums["sft_cache_warm_requests_total", CANARY.release_id, "given_up"] == 2
        assert guard.care.warmer.ledger.reserved == ()  # else nothing would ever be warmed again


async def test_what_has_not_begun_when_the_guard_stops_never_begins():
    async with Upstream(lambda _: Script(http(completion()))) as old, Upstream(
        lambda _: Script(http(completion()))
    ) as new:  # fmt: skip
        async with cared(old) as guard:
            await repeats(guard, "a?")
            guard.canary(target(new.port, version=CANARY))
            guard.care.tick()
            assert guard.care.warmer.stats()[1].sent == 1
        await asyncio.sleep(0.05)
    assert new.made_count == 0


async def test_a_warm_answer_that_fails_its_checks_is_not_kept():
    async with Upstream(lambda _: Script(http(completion()))) as old, Upstream(
        lambda _: Script(http(completion()))
    ) as new, cared(old, findings=FAILED) as guard:  # fmt: skip
        await repeats(guard, "a?")
        guard.canary(target(new.port, version=CANARY))
        guard.care.tick()
        await settled(lambda: guard.warm["requests"] == 1)
        answer = await guard.ask("a?")
    assert answer.header("x-guard-cache") == "miss"
    assert len(new.requests) == 2


async def test_nothing_is_warmed_while_traffic_is_shed_or_the_upstream_fails():
    async with Upstream(lambda _: Script(http(completion()))) as old, Upstream(
        lambda _: Script(b"HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n")
    ) as new, cared(old) as guard:  # fmt: skip
        await repeats(guard, "a?", "b?", "c?")
        guard.canary(target(new.port, version=CANARY), 0.0001)
        guard.guard.path.shed_ratio = 0.25
        guard.care.tick()
        assert guard.care.warmer.stats()[1].wait == "shedding"
        guard.guard.path.shed_ratio = 0.0
        guard.care.tick()
        await settled(lambda: guard.warm["requests"] == 2)
        guard.care.tick()
        assert guard.care.warmer.stats()[1].wait == "failing"
        assert len(new.requests) == 2


NEAR = NearConfig(frozenset({"chat"}), frozenset({"acme"}), budget_s=5.0, recheck_ratio=0.0, embedder="none")
ONE, SAME, OTHER = "特休假一年有多少天可以請?", "請問特休假一年有多少天可以請", "特休假一年有多少小時可以請?"


async def test_another_wording_is_a_hit_for_the_tenant_that_asked_for_it_and_nobody_else():
    async with Upstream(lambda _: Script(http(completion()))) as old, cared(old, near=NEAR) as guard:
        await settled(lambda: guard.care.near.stats().han != "", within_s=20)
        acme = "x-guard-tenant: acme"
        first = await guard.ask(ONE, acme)
        await settled(lambda: guard.care.near.stats().entries == 1)
        await asyncio.sleep(0.05)
        states = {}
        for name, question, headers, more in (
            ("same meaning", SAME, (acme,), {}),
            ("other number", OTHER, (acme,), {}),
            ("other tenant", SAME, ("x-guard-tenant: other",), {}),
            ("nobody", SAME, (), {}),
            ("other parameters", SAME, (acme,), {"max_tokens": 5}),
        ):
            states[name] = (await guard.ask(question, *headers, **more)).header("x-guard-cache")
    assert first.header("x-guard-cache") == "miss"
    assert states == {
        "same meaning": "hit", "other number": "miss", "other tenant": "miss", "nobody": "miss",
        "other parameters": "miss",
    }  # fmt: skip
    hit = next(e for e in guard.sink.exchanges if e.cache is CacheStatus.HIT)
    assert (hit.cost_usd, hit.input_tokens) == (None, None)
    assert guard.care.savings.total().semantic_hits == 1
    assert guard.counted.sums["sft_cache_semantic_total", "hit", "han"] == 1


async def test_a_flagged_answer_has_no_neighbours():
    async with Upstream(lambda _: Script(http(completion()))) as old, cared(old, near=NEAR) as guard:
        await settled(lambda: guard.care.near.stats().han != "", within_s=20)
        acme = "x-guard-tenant: acme"
        first = await guard.ask(ONE, acme)
        await settled(lambda: guard.care.near.stats().entries == 1)
        guard.sink.cache.flag(first.header("x-guard-exchange-id"))
        assert guard.care.near.stats().entries == 0
        assert (await guard.ask(SAME, acme)).header("x-guard-cache") == "miss"


async def test_a_worker_that_is_late_or_gone_is_a_miss_within_the_budget():
    silent = (
        sys.executable,
        "-c",
        "import sys, socket; s = socket.socket(fileno=int(sys.argv[1]))\nwhile s.recv(1): pass",
    )
    for command, reason in ((silent, "timeout"), (("/nonexistent-worker",), "unavailable")):
        async with Upstream(lambda _: Script(http(completion()))) as old, cared(
            old, near=replace(NEAR, budget_s=0.02), command=command
        ) as guard:  # fmt: skip
            await asyncio.sleep(0.2)
            answer = await guard.ask(ONE, "x-guard-tenant: acme")
            assert (answer.status, answer.header("x-guard-cache")) == (200, "miss")
            assert guard.counted.sums["sft_guard_failopen_total", "semantic", reason] == 1


async def test_a_share_of_the_hits_is_asked_again_and_wrong_ones_make_the_route_stricter():
    answers = iter(["You have 14 days.", *["You have 7 days."] * 50])

    def script(_: Seen) -> Script:
        return Script(http(completion(next(answers))))

    strict = replace(NEAR, recheck_ratio=1.0, false_hit_budget=0.0)
    async with Upstream(script) as old, cared(old, near=strict) as guard:
        near = guard.care.near
        await settled(lambda: near.stats().han != "", within_s=20)
        acme = "x-guard-tenant: acme"
        await guard.ask(ONE, acme)
        await settled(lambda: near.stats().entries == 1)
        await asyncio.sleep(0.05)
        answer = await guard.ask(SAME, acme)
        assert answer.header("x-guard-cache") == "hit"  # its user was served from the cache
        await settled(lambda: near.strict["chat"].total_rechecked == 1)
        assert len(old.requests) == 2
        assert len(guard.sink.exchanges) == 2
        assert (near.strict["chat"].total_wrong, near.strict["chat"].threshold) == (1, 0.93)
        assert guard.counted.sums["sft_cache_semantic_rechecks_total", "chat", "different"] == 1
        row = guard.care.savings.total()
        assert (row.recheck_requests, row.warm_requests) == (1, 0)
        assert row.recheck_usd > 0
