"""A small world around a cache that knows the truth about every answer: for whom, from what, and whether it is bad.

Each answer says in its bytes under which release, epoch and tenant and from which versions of which documents it was
made. Whatever the cache hands out is held against the world as it is at that moment; `wrong` counts what must be 0.
Drivers (hypothesis, `bench.cache_model`) choose the steps.
"""

from __future__ import annotations

import json
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from guard.cache.flight import Turn
from guard.cache.policy import StorePolicy
from guard.cache.ports import Found, Store
from guard.cache.service import AnswerCache
from guard.cache.types import CacheKey, Entry, Removed, Revocation, StoreStats
from guard.ports import Capture, ContextSource, Route
from guard.wire.http1 import read_request_head
from slo.types import Exchange, Outcome
from tests.cache_kit import BLIND, FAILED, PASSED, Counted, Wall, config

ROUTE = Route("chat", "/v1/chat/completions", "openai-chat", ContextSource(body_path="contexts"))
RELEASES, TENANTS, DOCUMENTS, QUESTIONS = ("r1", "r2", "r3"), ("", "acme", "globex"), 6, 12
POLICY = StorePolicy(ttl_s=600.0, negative_ttl_s=30.0, refusals=("could not find",))
_HEADS = {
    tenant: read_request_head(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: g" + (f"\r\nx-guard-tenant: {tenant}".encode() if tenant else b"")
    )
    for tenant in TENANTS
}


class SharedDict:
    """A shared store without a network: forgets nothing by itself, and can be put back to an older state."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.saved: dict[bytes, Entry] = {}

    def get(self, key: CacheKey, found: Found) -> None:
        found(self.entries.get(key.digest), "")

    def put(self, entry: Entry) -> bool:
        self.entries[entry.key.digest] = entry
        return True

    def discard(self, key: CacheKey, reason: Removed) -> None:
        self.entries.pop(key.digest, None)

    def revoke(self, revocation: Revocation) -> int | None:
        return None

    def stats(self) -> StoreStats:
        return StoreStats("shared", len(self.entries), None, None)


@dataclass(eq=False)
class Asked:
    """One request in the world; the asker of its turn."""

    world: World
    question: int
    tenant: str
    release: str
    epoch: int
    exchange_id: bytes
    asked_wall_s: float
    cache: AnswerCache
    turn: Turn | None = None
    answer: bytes = b""
    told: str = ""

    def cache_hit(self, entry: Entry) -> None:
        self.told = "hit"
        self.world.judge(self, entry)

    def cache_missed(self) -> None:
        """The model answers from the documents as they are now."""
        self.told = "miss"
        self.answer = self.world.model(self)
        self.world.under_way.append(self)


@dataclass
class World:
    """Call the steps; read `wrong` and `counts`."""

    caches: list[AnswerCache]  # one for each replica
    clock: Wall
    release: str = "r1"
    epoch: int = 1
    versions: list[int] = field(default_factory=lambda: [0] * DOCUMENTS)
    flagged: set[str] = field(default_factory=set)
    purged: dict[tuple[str, str], float] = field(default_factory=dict)
    under_way: deque[Asked] = field(default_factory=deque)
    unchecked: deque[tuple[Exchange, AnswerCache]] = field(default_factory=deque)
    known: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    wrong: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    number: int = 0

    @property
    def cache(self) -> AnswerCache:
        """That of the only replica."""
        return self.caches[0]

    def sources(self, question: int) -> tuple[int, ...] | None:
        """Which documents a question is answered from; None: the answer does not say."""
        if question % 5 == 4:
            return None
        return (question % DOCUMENTS, (question * 3 + 1) % DOCUMENTS)

    def model(self, asked: Asked) -> bytes:
        """The answer, as a completion that carries the truth about itself."""
        documents = self.sources(asked.question) or (0, 1)
        truth = {
            "release": asked.release, "epoch": asked.epoch, "tenant": asked.tenant, "question": asked.question,
            "versions": {str(d): self.versions[d] for d in documents},
        }  # fmt: skip
        refuses = asked.question % 7 == 6
        body: dict[str, Any] = {
            "choices": [{"index": 0, "message": {"content": "I could not find it." if refuses else "Seven days."}}],
            "truth": truth,
        }
        if self.sources(asked.question) is not None:
            body["contexts"] = [{"doc_id": f"d{d}", "text": "x"} for d in documents]
        return json.dumps(body).encode()

    def judge(self, asked: Asked, entry: Entry) -> None:
        """Count what is wrong with a hit."""
        self.counts["hits"] += 1
        truth = json.loads(entry.body)["truth"]
        if (truth["release"], truth["epoch"]) != (asked.release, asked.epoch):
            self.wrong["cross_version"] += 1
        if truth["tenant"] != asked.tenant:
            self.wrong["cross_tenant"] += 1
        if truth["question"] != asked.question:
            self.wrong["other_question"] += 1
        if entry.exchange_id in self.flagged:
            self.wrong["flagged"] += 1
        if any(self.versions[int(d)] != version for d, version in truth["versions"].items()):
            self.wrong["stale_document"] += 1
        if self.clock.wall_s() - entry.stored_wall_s >= entry.ttl_s:
            self.wrong["expired"] += 1
        for name in (("release", truth["release"]), ("tenant", f"t:{truth['tenant']}" if truth["tenant"] else "")):
            if name in self.purged and entry.asked_wall_s < self.purged[name]:
                self.wrong["purged"] += 1

    # Steps -----------------------------------------------------------------------------------------------------------

    def ask(self, question: int, tenant: str, *, release: str = "") -> Asked:
        """A request arrives; under another release than the current one when it was assigned before a change."""
        self.number += 1
        self.clock.move(0.01)
        body = b'{"model":"m","temperature":0,"messages":[{"role":"user","content":"q%d"}]}' % question
        cache = self.caches[self.number % len(self.caches)]
        asked = Asked(
            self, question, tenant, release or self.release, self.epoch, b"e%d" % self.number, self.clock.wall_s(),
            cache,
        )  # fmt: skip
        asked.turn = cache.turn(_HEADS[tenant], body, ROUTE, release=asked.release, epoch=asked.epoch)
        assert asked.turn is not None
        asked.turn.ask(asked)
        self.counts["asked"] += 1
        return asked

    def answer(self, *, ok: bool = True, gone: bool = False) -> None:
        """The oldest request under way gets its answer, or fails, or its client leaves."""
        if not self.under_way:
            return
        asked = self.under_way.popleft()
        turn = asked.turn
        assert turn is not None
        if gone:
            turn.left()
            return
        exchange = Exchange(
            asked.exchange_id.decode(), asked.asked_wall_s, "chat", asked.release, "stable",
            Outcome.OK if ok else Outcome.INCOMPLETE, 200, duration_s=1.0, model="m",
        )  # fmt: skip
        headers = ((b"content-type", b"application/json"),)
        capture = Capture(ROUTE, b"", asked.answer, headers, False, False) if ok else None
        if capture is None:
            turn.left()
            return
        turn.finished(exchange, capture)
        self.unchecked.append((exchange, asked.cache))

    def check(self, result: str) -> None:
        """The oldest unchecked answer is checked: pass, fail or blind."""
        if not self.unchecked:
            return
        exchange, cache = self.unchecked.popleft()
        findings = {"pass": PASSED, "fail": FAILED, "blind": BLIND}[result]
        if result == "fail":
            self.flagged.add(exchange.exchange_id)
        self.known.append(exchange.exchange_id)
        cache.checked(replace(exchange, findings=findings), None)

    def flag(self, index: int) -> None:
        """A thumb points down at one of the last answers."""
        if self.known:
            exchange_id = self.known[index % len(self.known)]
            self.flagged.add(exchange_id)
            for cache in self.caches:
                cache.flag(exchange_id)
            self.counts["flags"] += 1

    def flag_under_way(self) -> None:
        """The same for one that is not checked yet."""
        if self.unchecked:
            exchange, cache = self.unchecked[-1]
            self.flagged.add(exchange.exchange_id)
            cache.flag(exchange.exchange_id)

    def change_document(self, document: int) -> None:
        """A document says something else from now on, and the guard is told."""
        self.versions[document] += 1
        self.cache.invalidate_documents([f"d{document}"])
        self.counts["documents"] += 1

    def release_moves(self, release: str) -> None:
        """Promotion or rollback: the pointer and the epoch move together."""
        self.release = release
        self.epoch += 1
        self.counts["moves"] += 1

    def purge(self, kind: str, value: str) -> None:
        """A person purges a release or a tenant."""
        self.purged[kind, value] = self.clock.wall_s()
        self.cache.invalidate(kind, value)  # type: ignore[arg-type]
        self.counts["purges"] += 1

    def random_step(self, dice: random.Random) -> None:
        """One step, as often as such things happen."""
        what = dice.random()
        if what < 0.40:
            release = dice.choice(RELEASES) if dice.random() < 0.05 else ""
            self.ask(min(int(dice.expovariate(0.25)), QUESTIONS - 1), dice.choice(TENANTS), release=release)
        elif what < 0.68:
            # Two at a time when there are many, or a backlog makes every answer too old to be kept.
            for _ in range(1 + len(self.under_way) // 5):
                luck = dice.random()
                self.answer(ok=luck > 0.05, gone=luck > 0.97)
        elif what < 0.94:
            for _ in range(1 + len(self.unchecked) // 5):
                self.check(dice.choices(("pass", "fail", "blind"), (0.85, 0.1, 0.05))[0])
        elif what < 0.95:
            self.flag(dice.randrange(200))
        elif what < 0.954:
            self.flag_under_way()
        elif what < 0.958:
            self.change_document(dice.randrange(DOCUMENTS))
        elif what < 0.960:
            self.release_moves(dice.choice(RELEASES))
        elif what < 0.9605:
            self.purge("release", dice.choice(RELEASES))
        elif what < 0.961:
            self.purge("tenant", dice.choice(("", "t:acme", "t:globex")))
        else:
            self.clock.move(dice.expovariate(1 / 20.0))


def world_of(
    store: Callable[[AnswerCache, Wall], Store], *, wait_s: float = 1e6, counters: Counted | None = None
) -> World:
    """A world around a cache with that store."""
    clock = Wall()
    cache = AnswerCache(
        config(wait_s, POLICY), lambda answers: store(answers, clock), counters or Counted(), clock, b"secret of a test"
    )
    return World([cache], clock)
