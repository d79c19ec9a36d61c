"""`make cache-model STEPS=1000000`: random histories against the cache, every hit held against the truth.

Three stores: in memory; a shared one that is put back to older snapshots; a real Redis with two replicas and restored
RDB files. Prints one JSON object; the exit code is 1 when a single hit was wrong.

    .venv/bin/python -m bench.cache_model --steps 100000 --redis-steps 5000 --seed 1
"""

# ruff: noqa: ASYNC110 - polling is cheaper here than teaching the stores to tell
from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import time
from typing import Any

from guard.cache.memory import MemoryStore
from guard.cache.redis import RedisStore
from guard.cache.redis_link import connection_maker
from guard.cache.revocations import Revocations
from guard.cache.service import AnswerCache, horizon_s
from tests.cache_kit import Counted, RedisServer, Wall, config, redis_server
from tests.cache_world import POLICY, SharedDict, World, world_of

SNAPSHOT_EVERY = 1_000
RDB_EVERY = 2_000


def _told(world: World, steps: int, began_s: float, **more: Any) -> dict[str, Any]:
    wrong = {kind: world.wrong[kind] for kind in (
        "cross_version", "cross_tenant", "flagged", "stale_document", "expired", "purged", "other_question",
    )}  # fmt: skip
    return {"steps": steps, "wrong": wrong, **world.counts, "seconds": round(time.monotonic() - began_s, 1), **more}


async def on_memory(steps: int, seed: int) -> dict[str, Any]:
    """The store of one process, small enough to evict."""
    world = world_of(lambda cache, clock: MemoryStore(150_000, clock.now_s, cache.gone))
    return await _play(world, steps, seed, None)


async def on_snapshots(steps: int, seed: int) -> dict[str, Any]:
    """A shared store that forgets what happened lately."""
    shared = SharedDict()
    return await _play(world_of(lambda cache, clock: shared), steps, seed, shared)


async def _play(world: World, steps: int, seed: int, shared: SharedDict | None) -> dict[str, Any]:
    dice = random.Random(seed)
    began_s = time.monotonic()
    restored = 0
    for number in range(steps):
        world.random_step(dice)
        await asyncio.sleep(0)
        if shared is not None and number % SNAPSHOT_EVERY == SNAPSHOT_EVERY // 2:
            shared.saved = dict(shared.entries)
        elif shared is not None and number % SNAPSHOT_EVERY == SNAPSHOT_EVERY - 1:
            shared.entries = dict(shared.saved)
            restored += 1
        if number % 50_000 == 49_999:
            print(f"  {number + 1} steps, {world.counts['hits']} hits, wrong: {dict(world.wrong)}", file=sys.stderr)
    return _told(world, steps, began_s, restored=restored)


class _Clock(Wall):
    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(3600)  # the beats are ours


class _Fleet:
    """Replicas of a guard around one Redis."""

    def __init__(self, server: RedisServer, replicas: int) -> None:
        self.clock, self.counters = _Clock(), Counted()
        self.stores: list[RedisStore] = []
        self.world = World([self._replica(server) for _ in range(replicas)], self.clock)

    def _replica(self, server: RedisServer) -> AnswerCache:
        make = connection_maker(
            host="127.0.0.1", port=server.port, db=0, username="", password=None, tls=False, connect_s=1.0
        )
        rules = config(1e6, POLICY)
        revocations = Revocations(horizon_s(rules))

        def store(cache: AnswerCache) -> RedisStore:
            made = RedisStore(
                make, b"a secret of this run", "sft:model:", revocations, cache.revoked, self.counters, self.clock,
                budget_s=5.0, write_budget_s=5.0,
            )  # fmt: skip
            self.stores.append(made)
            return made

        number = len(self.stores)
        return AnswerCache(
            rules, store, self.counters, self.clock, b"pepper", revocations=revocations,
            on_revocation=lambda line: self.stores[number].share(line),
        )  # fmt: skip

    async def settle(self) -> None:
        """Writes have arrived, and every replica has heard what the others took back."""
        for store in self.stores:
            while store._queue.qsize():
                await asyncio.sleep(0.001)
        if any(store._unshared for store in self.stores):
            await self.beat()

    async def beat(self) -> None:
        """As the replicas do once a second."""
        for _ in range(2):
            for store in self.stores:
                await store.beat()

    async def ready(self) -> None:
        """Wait until Redis is in use by all."""
        for _ in range(200):
            await self.beat()
            if not any(store.breaker.open for store in self.stores):
                return
            await asyncio.sleep(0.05)
        raise RuntimeError("Redis did not come back")


async def on_redis(steps: int, seed: int, server: RedisServer) -> dict[str, Any]:
    """A real one, restarted again and again from an older RDB file."""
    fleet = _Fleet(server, 2)
    world, dice = fleet.world, random.Random(seed)
    began_s = time.monotonic()
    for store in fleet.stores:
        await store.start()
    await fleet.ready()
    saved = server.directory / "saved.rdb"
    restored = 0
    for number in range(steps):
        asked = world.counts["asked"]
        world.random_step(dice)
        await asyncio.sleep(0)
        if world.counts["asked"] > asked:
            await _lookups_done(fleet)
        await fleet.settle()
        if number % RDB_EVERY == RDB_EVERY // 2:
            server.tell("SAVE")
            shutil.copy(server.directory / "dump.rdb", saved)
        elif number % RDB_EVERY == RDB_EVERY - 1:
            server.stop()
            shutil.copy(saved, server.directory / "dump.rdb")
            server.start()
            await fleet.ready()
            restored += 1
        if number % 5_000 == 4_999:
            print(f"  {number + 1} steps, {world.counts['hits']} hits, wrong: {dict(world.wrong)}", file=sys.stderr)
    for store in fleet.stores:
        await store.stop()
    failures = sum(n for name, n in fleet.counters.sums.items() if name[0] == "sft_guard_failopen_total")
    return _told(world, steps, began_s, restored_rdb=restored, replicas=2, passages_past_redis=failures)


async def _lookups_done(fleet: _Fleet) -> None:
    while any(store._lookups for store in fleet.stores):
        await asyncio.sleep(0)


def main(argv: list[str] | None = None) -> int:
    """Run all three and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m bench.cache_model", description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="on memory, and the same on snapshots")
    parser.add_argument("--redis-steps", type=int, default=50_000, help="0: no Redis")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    result: dict[str, Any] = {"seed": args.seed}
    print("in memory", file=sys.stderr)
    result["memory"] = asyncio.run(on_memory(args.steps, args.seed))
    print("shared, with old snapshots", file=sys.stderr)
    result["snapshots"] = asyncio.run(on_snapshots(args.steps, args.seed + 1))
    if args.redis_steps and shutil.which("redis-server") is None:
        print("no redis-server here (Debian package redis-server): that part is left out", file=sys.stderr)
    elif args.redis_steps:
        print("redis", file=sys.stderr)
        with redis_server() as server:
            result["redis"] = asyncio.run(on_redis(args.redis_steps, args.seed + 2, server))
    wrong = sum(sum(part["wrong"].values()) for part in result.values() if isinstance(part, dict))
    result["wrong_hits"] = wrong
    print(json.dumps(result))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
