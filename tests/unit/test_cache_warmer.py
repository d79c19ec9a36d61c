"""The warmer alone: upstreams, store and split are what the test says they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from guard.cache.types import CacheKey, CacheRequest, Namespace, key_in
from guard.cache.warmer import Warmer
from guard.cache.warming import WarmLimits
from guard.ports import Assignment, Route, Target
from slo.types import Version
from tests.cache_kit import Counted, Wall

MANY = WarmLimits(requests_per_minute=10_000, usd_per_hour=1e6, in_flight=10_000)


def assignment(release: str) -> Assignment:
    return Assignment("stable", Target(Version(release, model=release), ()), 0)


def request(number: int, tenant: str = "t:a", route: str = "chat") -> CacheRequest:
    key = key_in(Namespace("old", 0, tenant, route), number.to_bytes(32, "big"))
    return CacheRequest(key, Route(route, f"/{route}", "openai-chat"), b"/chat", b"{}", False)


class Asked:
    """A request under way."""

    def __init__(self) -> None:
        self.given_up = False

    def give_up(self) -> None:
        self.given_up = True


class World:
    """A warmer and all that it talks to. slow: lookups that are answered when the test calls them."""

    def __init__(self, limits: WarmLimits = MANY, *, slow: bool = False) -> None:
        self.traffic: tuple[Assignment, ...] = (assignment("v1"),)
        self.asked: list[tuple[CacheRequest, Asked]] = []
        self.looking: list[Callable[[], None]] = []
        self.wall = Wall()
        self._slow = slow
        self.warmer = Warmer(
            limits, self._ask, lambda: self.traffic, lambda _: "", self._lookup, lambda *_: True, lambda: False,
            lambda: False, lambda *_: None, Counted(), self.wall,
        )  # fmt: skip
        self.warmer.tick()  # what takes traffic now is not new

    def _ask(self, request: CacheRequest, assignment: Assignment, ended: Any) -> Asked:
        asked = Asked()
        self.asked.append((request, asked))
        return asked

    def _lookup(self, key: CacheKey, found: Callable[[None, str], None]) -> None:
        if self._slow:
            self.looking.append(lambda: found(None, ""))
        else:
            found(None, "")


def test_many_tenants_have_what_each_of_them_asks_again_and_again_warmed():
    world, tenants, hot = World(), 100, range(10)
    for hour in range(5):
        for tenant in range(tenants):
            for number in (*hot, 1000 + hour):
                world.warmer.seen(request(number, f"t:{tenant}"), None)
        world.wall.move(600.0)
    world.traffic = (assignment("v2"),)
    for _ in range(40):
        world.warmer.tick()
    asked = {(r.key.namespace.tenant, int.from_bytes(r.key.fingerprint, "big")) for r, _ in world.asked}
    assert asked == {(f"t:{tenant}", number) for tenant in range(tenants) for number in hot}


def asks(world: World, count: int = 3, **more: Any) -> None:
    for _ in range(count):
        world.warmer.seen(request(1, **more), 0.5)


def test_one_question_on_two_routes_is_two_questions():
    world = World()
    for route in ("chat", "ask"):
        asks(world, route=route)
    world.traffic = (assignment("v2"),)
    world.warmer.tick()
    assert {r.key.namespace.route for r, _ in world.asked} == {"chat", "ask"}
    assert world.warmer.ledger.usd(world.wall.now_s()) == 1.0


def test_one_question_on_its_way_into_two_releases_is_given_up_for_the_one_that_is_gone():
    world = World()
    asks(world)
    world.traffic = (assignment("v2"), assignment("v3"))
    world.warmer.tick()
    assert len(world.asked) == 2
    world.traffic = (assignment("v3"),)
    world.warmer.released()
    gone = {r.key.namespace.release: asked.given_up for r, asked in world.asked}
    assert gone == {assignment(v).target.version.release_id: v == "v2" for v in ("v2", "v3")}
    # What is set aside for one is not what is set aside for the other.
    one = world.warmer.ledger
    assert len(one.reserved) == len({name for name, _ in one.reserved}) == 2


def test_what_left_the_traffic_while_the_store_was_asked_is_not_sent():
    world = World(slow=True)
    asks(world)
    world.traffic = (assignment("v2"),)
    world.warmer.tick()
    assert len(world.looking) == 1
    world.traffic = (assignment("v1"),)
    world.warmer.released()
    for found in world.looking:
        found()
    assert world.asked == []
    assert world.warmer.ledger.reserved == ()
