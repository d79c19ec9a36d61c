"""Redis fails over to a replica that lacks the last acknowledged writes: misses, and nothing that was taken back."""

from __future__ import annotations

import pytest

from tests.cache_kit import redis_cache, redis_server
from tests.faults.path_kit import settled
from tests.faults.tcp_proxy import FaultProxy
from tests.faults.test_cache_redis import ROOMY_S, guarded, made, right, served, stored

pytestmark = pytest.mark.anyio


async def test_writes_that_a_failover_lost_are_misses_and_nothing_taken_back_returns():
    with redis_server("--repl-diskless-sync-delay", "0") as primary, redis_server() as replica:
        address = await FaultProxy(primary.port).start()  # what a Sentinel or a service name does for the clients
        link = await FaultProxy(primary.port).start()
        try:
            async with redis_cache(address.port, budget_s=ROOMY_S) as one, redis_cache(
                address.port, budget_s=ROOMY_S
            ) as other:  # fmt: skip
                replica.tell("REPLICAOF", "127.0.0.1", str(link.port))
                await settled(lambda: b"master_link_status:up" in replica.tell("INFO", "replication"), 20.0)
                entries = [made(number) for number in range(4)]
                for entry in entries[:3]:
                    one.store.put(entry)
                await stored(primary, 3)
                await settled(lambda: replica.tell("DBSIZE") == primary.tell("DBSIZE"), 20.0)

                await link.set("stalled")  # from here on the replica falls behind
                one.store.put(entries[3])
                await stored(primary, 4)
                one.cache.invalidate("exchange", "e0")
                for cached in (one, other, other):
                    await cached.store.beat()

                assert await served(one, entries) == await served(other, entries) == [False, True, True, True]
                primary.stop()
                replica.tell("REPLICAOF", "NO", "ONE")
                await settled(lambda: b"role:master" in replica.tell("INFO", "replication"), 20.0)
                assert replica.tell("DBSIZE") == b":3\r\n"  # the entry and the word that took one back are lost
                address.port_behind = replica.port
                await address.set("pass")
                for cached in (one, other, one, other):
                    await cached.store.beat()
                await settled(lambda: not (one.store.breaker.open or other.store.breaker.open), 20.0)
                assert await served(one, entries) == await served(other, entries) == [False, True, True, False]
                # A replica that starts only now hears what was taken back from those who remember it.
                async with redis_cache(address.port, budget_s=ROOMY_S) as third:
                    await settled(lambda: not third.store.breaker.open, 20.0)
                    assert await served(third, entries) == [False, True, True, False]
        finally:
            await address.close()
            await link.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_no_client_sees_a_failover(stream: bool):
    with redis_server() as primary, redis_server() as replica:
        address = await FaultProxy(primary.port).start()
        try:
            async with guarded(address.port, budget_s=ROOMY_S) as (guard, _, cached):
                for number in range(20):
                    await right(guard, number, stream=stream)
                    if number == 7:
                        primary.stop()
                    if number == 14:
                        address.port_behind = replica.port
                        await address.set("pass")
                await settled(lambda: not cached.store.breaker.open, 20.0)
                assert (await right(guard, 3, stream=stream)).header("x-guard-cache") == "miss"
        finally:
            await address.close()
