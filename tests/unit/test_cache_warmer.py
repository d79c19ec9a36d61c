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
