"""The real cache, its policy, its warmer and its savings in virtual time; only network and model are made up.

A request goes through `key.request_key`, `service.AnswerCache` and `flight` exactly as in the data path. A miss takes
`answer_s` of virtual time and costs what the prices say; then its checks pass and it is stored.
"""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from guard.cache.care import CacheCare
from guard.cache.key import KeyRules, target_mark
from guard.cache.memory import MemoryStore
from guard.cache.policy import StorePolicy
from guard.cache.service import AnswerCache, CacheConfig
from guard.cache.types import CacheRequest, Entry
from guard.cache.warmer import Warmer
from guard.cache.warming import WarmLimits
from guard.ports import Assignment, Capture, Endpoint, Route, Target
from guard.split import WeightedSplit
from guard.wire.http1 import RequestHead, read_request_head
from slo.clock import HandClock
from slo.types import CacheStatus, CheckResult, Exchange, Finding, Outcome, Version

INPUT_TOKENS, OUTPUT_TOKENS = 50 + 900, 250
INPUT_USD_PER_1K, OUTPUT_USD_PER_1K = 0.15, 0.60
COST_USD = (INPUT_TOKENS * INPUT_USD_PER_1K + OUTPUT_TOKENS * OUTPUT_USD_PER_1K) / 1000
PASSED = tuple(Finding(check, CheckResult.PASS) for check in ("rules", "grounding", "pii"))
ROUTE = Route("chat", "/v1/chat/completions", "openai-chat")
DAY_S = 86_400.0


class Clock(HandClock):
    """Time that the simulation moves."""

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing waits here")


class Counters:
    """Nobody reads them here."""

    def inc(self, metric: str, labels: object, n: float = 1) -> None:
        """Not counted."""

    def observe(self, metric: str, labels: object, value: float) -> None:
        """Not counted."""


@dataclass(slots=True)
class _Asker:
    """A user's request: takes the hit, or asks the made-up model."""

    world: World
    request: CacheRequest
    turn: object
    assignment: Assignment
    exchange_id: bytes
    began_s: float

    def cache_hit(self, entry: Entry) -> None:
        self.world.ended(self, CacheStatus.HIT, None)

    def cache_missed(self) -> None:
        self.world.later(self.world.answer_s, lambda: self.world.answered(self))


@dataclass(slots=True)
class _WarmUp:
    """A warm-up under way."""

    given_up: bool = False

    def give_up(self) -> None:
        self.given_up = True


@dataclass(frozen=True, slots=True)
class Seen:
    """One user's request as it ended."""

    at_s: float
    hit: bool
    cost_usd: float
    release: str


@dataclass
class World:
    """One guard with its cache and its users."""

    ttl_s: float = DAY_S
    answer_s: float = 1.5
    limits: WarmLimits | None = None
    wall_s: float = 1_767_225_600.0
    key_count: int = 4096
    seen: list[Seen] = field(default_factory=list)
    warm_s: list[float] = field(default_factory=list)
    upstream_count: int = 0

    def __post_init__(self) -> None:
        self.clock = Clock(0.0, self.wall_s)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        policy = StorePolicy(ttl_s=self.ttl_s, jitter_ratio=0.1)
        config = CacheConfig({"chat": KeyRules()}, {"chat": policy})
        self.cache = AnswerCache(
            config,
            lambda cache: MemoryStore(256 * 2**20, self.clock.now_s, cache.gone),
            Counters(),
            self.clock,
            b"bench",
        )
        self.split = WeightedSplit(target("v1"))
        self.care = CacheCare(self.cache, self.split.in_traffic, Counters(), self.clock)
        if self.limits is not None:
            self.care.warmer = Warmer(
                self.limits, self._ask, self.split.in_traffic, lambda a: target_mark(a.target), self.cache.store.get,
                self.care.keep, lambda: False, lambda: False, self.care.settle, Counters(), self.clock,
                key_count=self.key_count,
            )  # fmt: skip
        self.care._offer = lambda exchange, _: self.cache.checked(replace(exchange, findings=PASSED), None)

    # Time ------------------------------------------------------------------------------------------------------------

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Something happens after `delay_s`."""
        self._number += 1
        heapq.heappush(self._events, (self.clock.at_s + delay_s, self._number, what))

    def run(self, until_s: float, tick_s: float = 5.0) -> None:
        """Let time pass; the warmer looks every `tick_s`."""
        asyncio.run(self._run(until_s, tick_s))

    async def _run(self, until_s: float, tick_s: float) -> None:
        # On a loop because waiters of a flight set timers. It never gets a turn: an answer is always there before.
        next_tick_s = self.clock.at_s
        while self._events and self._events[0][0] <= until_s:
            at_s, _, what = heapq.heappop(self._events)
            while next_tick_s <= at_s:
                self.clock.at_s = max(self.clock.at_s, next_tick_s)
                self.care.tick()
                next_tick_s += tick_s
                if self._events and self._events[0][0] < at_s:
                    break  # a warm-up that ends before what we were about to do
            if self._events and self._events[0][0] < at_s:
                heapq.heappush(self._events, (at_s, _, what))
                continue
            self.clock.at_s = at_s
            what()

    # Requests --------------------------------------------------------------------------------------------------------

    def ask(self, question: str, session: bytes) -> None:
        """A user asks now."""
        body = chat(question)
        assignment = self.split.assign(session)
        turn = self.cache.turn(
            head(body), body, ROUTE, release=assignment.target.version.release_id, epoch=assignment.cache_epoch,
            mark=target_mark(assignment.target),
        )  # fmt: skip
        assert turn is not None
        self._number += 1
        asker = _Asker(self, turn.request, turn, assignment, b"e%08x" % self._number, self.clock.at_s)
        turn.ask(asker)

    def answered(self, asker: _Asker) -> None:
        """The model has answered a user."""
        self.upstream_count += 1
        self.ended(asker, CacheStatus.MISS, COST_USD)

    def ended(self, asker: _Asker, status: CacheStatus, cost_usd: float | None) -> None:
        """Count it as the data path would."""
        release = asker.assignment.target.version.release_id
        exchange = self._exchange(asker.exchange_id.decode(), asker.assignment, status, cost_usd, asker.began_s)
        self.seen.append(Seen(asker.began_s, status is CacheStatus.HIT, cost_usd or 0.0, release))
        self.care.served(exchange)
        if status is CacheStatus.MISS:
            asker.turn.finished(exchange, self._capture(asker.request))  # type: ignore[attr-defined]
            self.cache.checked(replace(exchange, findings=PASSED), None)

    def _ask(self, request: CacheRequest, assignment: Assignment, ended: Callable[..., None]) -> _WarmUp:
        warm = _WarmUp()
        self._number += 1
        self.warm_s.append(self.clock.at_s)
        exchange_id, began_s = f"quiet-{self._number:08x}", self.clock.at_s

        def answer() -> None:
            self.upstream_count += 1
            exchange = self._exchange(exchange_id, assignment, CacheStatus.BYPASS, COST_USD, began_s)
            if warm.given_up:
                exchange = replace(exchange, outcome=Outcome.CANCELLED)
            ended(exchange, self._capture(request))

        self.later(self.answer_s, answer)
        return warm

    def _exchange(
        self, exchange_id: str, assignment: Assignment, status: CacheStatus, cost_usd: float | None, began_s: float
    ) -> Exchange:
        asked = cost_usd is not None
        return Exchange(
            exchange_id, self.wall_s + began_s, "chat", assignment.target.version.release_id, assignment.arm,
            Outcome.OK, 200, duration_s=self.clock.at_s - began_s, cache=status, cost_usd=cost_usd,
            input_tokens=INPUT_TOKENS if asked else None, output_tokens=OUTPUT_TOKENS if asked else None,
        )  # fmt: skip

    def _capture(self, request: CacheRequest) -> Capture:
        return Capture(ROUTE, request.body, ANSWER, ((b"content-type", b"application/json"),), False, False)


ANSWER = json.dumps(
    {"choices": [{"index": 0, "finish_reason": "stop",
                  "message": {"role": "assistant", "content": "word " * OUTPUT_TOKENS}}],
     "usage": {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS}}
).encode()  # fmt: skip


def target(name: str) -> Target:
    """A version; its knowledge base has its name."""
    return Target(Version(name, model="m", kb=name), (Endpoint("http", "127.0.0.1", 1),))


def chat(question: str) -> bytes:
    """A deterministic request."""
    asked = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": question}]}
    return json.dumps(asked, ensure_ascii=False).encode()


def head(body: bytes) -> RequestHead:
    """Its head."""
    return read_request_head(b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-length: %d" % len(body))
