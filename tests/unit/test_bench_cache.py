"""The cache in virtual time: the practice's day in its own figures, and a release that is warmed or not."""

from __future__ import annotations

import pytest

from bench.cache.release import users
from bench.cache.simulated import COST_USD, DAY_S, World, target
from bench.cache.workload import practice_day
from guard.cache.savings import Row
from guard.cache.warming import WarmLimits


@pytest.mark.parametrize("seed", [1, 2])
def test_the_practices_day_costs_234_instead_of_585(seed):
    day = practice_day(seed, ttl_s=1.2 * DAY_S)
    assert day["hit_ratio"] == 0.6
    assert (day["model_calls"], day["requests"]) == (800, 2000)
    assert (day["usd_per_day_without"], day["usd_per_day_with"], day["usd_saved"]) == (585.0, 234.0, 351.0)


def test_a_warmed_release_keeps_more_of_its_hits_and_pays_for_what_it_asked():
    (cold_hits, _), (warm_hits, row) = released(None), released(WarmLimits(60, 1000.0, 4, 3600.0))
    assert (cold_hits, warm_hits) == (40, 60)
    assert (row.warm_requests, row.misses_avoided, row.warm_usd) == (20, 20, pytest.approx(20 * COST_USD))
    assert row.usd_without_warming == pytest.approx(row.usd_with_warming)


def released(limits: WarmLimits | None) -> tuple[int, Row]:
    """Twenty questions ten times each, five minutes of a canary, then sixty questions to the new release."""
    world = World(limits=limits)
    for n in range(200):
        world.later(n * 10.0, lambda q=n % 20, n=n: world.ask(f"form {q}?", b"s:%d" % n))
    v1, v2 = world.split.in_traffic()[0].target, target("v2")
    world.later(2000.0, lambda: (world.split.set(v1, v2, 0.01, 0, "r"), world.care.released()))
    world.later(2300.0, lambda: (world.split.set(v2, None, 0.0, 0), world.care.released()))
    for n in range(200, 260):
        world.later(400.0 + n * 10.0, lambda q=n % 20, n=n: world.ask(f"form {q}?", b"s:%d" % n))
    world.care.tick()
    world.run(4000.0)
    return sum(s.hit for s in world.seen if s.at_s > 2300.0), world.care.savings.total()


def test_users_come_by_zipfs_law_and_the_same_each_time():
    one, two = World(), World()
    users(one, 3)
    users(two, 3)
    assert [e[0] for e in one._events] == [e[0] for e in two._events]
    assert 20_000 < len(one._events) < 28_000
