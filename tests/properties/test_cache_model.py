"""Whatever happens in whatever order, no hit crosses a version, a tenant, a flag, a changed document or its life."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from guard.cache.memory import MemoryStore
from tests.cache_world import DOCUMENTS, QUESTIONS, RELEASES, TENANTS, SharedDict, World, world_of


class AnyHistory(RuleBasedStateMachine):
    """Steps by hypothesis on the store in memory, small enough to evict."""

    # The model dates a purge by the wall clock, which may be set back here.
    beyond_judgement = frozenset({"purged"})

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = self.make()

    def make(self) -> World:
        return world_of(lambda cache, clock: MemoryStore(60_000, clock.now_s, cache.gone))

    def teardown(self) -> None:
        self.loop.close()

    def do(self, step: Callable[[], Any]) -> None:
        async def on_the_loop() -> None:
            step()
            await asyncio.sleep(0)  # a waiter that takes over the lead does so in the next turn of the loop

        self.loop.run_until_complete(on_the_loop())

    @rule(
        question=st.integers(0, QUESTIONS - 1),
        tenant=st.sampled_from(TENANTS),
        release=st.sampled_from(("", *RELEASES)),
    )
    def ask(self, question: int, tenant: str, release: str) -> None:
        self.do(lambda: self.world.ask(question, tenant, release=release))

    @rule(ok=st.booleans(), gone=st.booleans())
    def answer(self, ok: bool, gone: bool) -> None:
        self.do(lambda: self.world.answer(ok=ok, gone=gone))

    @rule(result=st.sampled_from(("pass", "pass", "pass", "fail", "blind")))
    def check(self, result: str) -> None:
        self.do(lambda: self.world.check(result))

    @rule(question=st.integers(0, QUESTIONS - 1), tenant=st.sampled_from(TENANTS))
    def ask_and_keep(self, question: int, tenant: str) -> None:
        self.do(lambda: self.world.ask(question, tenant))
        while self.world.under_way:
            self.do(self.world.answer)
        while self.world.unchecked:
            self.do(lambda: self.world.check("pass"))

    @rule(index=st.integers(0, 199))
    def flag(self, index: int) -> None:
        self.do(lambda: self.world.flag(index))

    @rule()
    def flag_under_way(self) -> None:
        self.do(self.world.flag_under_way)

    @rule(document=st.integers(0, DOCUMENTS - 1))
    def document_changes(self, document: int) -> None:
        self.do(lambda: self.world.change_document(document))

    @rule(release=st.sampled_from(RELEASES))
    def release_moves(self, release: str) -> None:
        self.do(lambda: self.world.release_moves(release))

    @rule(seconds=st.sampled_from((0.5, 29.0, 31.0, 599.0, 601.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.move(seconds)

    @rule(kind=st.sampled_from((("release", "r1"), ("release", "r2"), ("tenant", "t:acme"), ("tenant", ""))))
    def purge(self, kind: tuple[str, str]) -> None:
        self.do(lambda: self.world.purge(*kind))

    @rule(seconds=st.floats(0, 5))
    def the_wall_clock_is_set_back(self, seconds: float) -> None:
        self.world.clock.set_back(seconds)

    @invariant()
    def no_hit_was_wrong(self) -> None:
        assert not set(self.world.wrong) - self.beyond_judgement


class AnyHistoryWithOldSnapshots(AnyHistory):
    """The same on a shared store that may be put back to an older state at any time."""

    beyond_judgement: frozenset[str] = frozenset()

    def make(self) -> World:
        self.shared = SharedDict()
        return world_of(lambda cache, clock: self.shared)

    @rule()
    def snapshot(self) -> None:
        self.shared.saved = dict(self.shared.entries)

    @rule()
    def restore(self) -> None:
        self.shared.entries = dict(self.shared.saved)

    # A clock that goes back makes old and new in a shared store indistinguishable; see docs/cache.md.
    @rule(seconds=st.just(0.0))
    def the_wall_clock_is_set_back(self, seconds: float) -> None:
        pass


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=60)
TestAnyHistoryWithOldSnapshots = AnyHistoryWithOldSnapshots.TestCase
TestAnyHistoryWithOldSnapshots.settings = settings(max_examples=60, stateful_step_count=60)


@pytest.mark.parametrize("seed", range(4))
def test_a_long_random_history_has_hits_and_none_of_them_is_wrong(seed: int):
    dice = random.Random(seed)
    shared = SharedDict()
    world = world_of(
        (lambda cache, clock: MemoryStore(400_000, clock.now_s, cache.gone))
        if seed % 2
        else (lambda cache, clock: shared)
    )

    async def play() -> None:
        for number in range(4000):
            world.random_step(dice)
            if number % 500 == 250:
                shared.saved = dict(shared.entries)
            elif number % 500 == 499:
                shared.entries = dict(shared.saved)
            await asyncio.sleep(0)

    asyncio.run(play())
    assert world.counts["hits"] > 250  # or the rest would say nothing
    assert not world.wrong
