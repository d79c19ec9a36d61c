"""Fills the namespaces that take traffic for the first time, one affordable request at a time (`warming` decides).

Its answers go through the same checks and the same admission as any other; what is rolled back meanwhile is given up at
once. Nothing here raises into a release: a warmer that fails costs hits.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from guard.cache.hot import Hot, HotGroups
from guard.cache.ports import Counters, Found
from guard.cache.types import CacheKey, CacheRequest, Entry, Namespace, key_in
from guard.cache.warming import Candidate, Ledger, Situation, Wait, WarmLimits, choose, sent, settled
from guard.ports import Assignment, Capture
from slo.clock import Clock
from slo.types import Exchange, Outcome

log = logging.getLogger("guard.cache")

NAMESPACES_COUNT = 8
TRIED_COUNT = 16_384
FULL_GROUPS_COUNT = 8
"""How many tenants and routes may have all their hot keys; any number may have fewer."""

CHOICE_COUNT = 64
"""Hottest missing keys that are weighed against the budget at a time."""


class Asked(Protocol):
    """A request of ours under way."""

    def give_up(self) -> None:
        """Nobody wants its answer any more."""
        ...


Ask = Callable[[CacheRequest, Assignment, Callable[[Exchange, Capture | None], None]], Asked | None]


_Job = tuple[tuple[str, int], str]
"""Name of the space and key of the candidate: one question may be on its way into two spaces."""


@dataclass(frozen=True, slots=True)
class Hotness:
    """What is known of a hot key: how to ask it again, and what its answer cost when it was last made."""

    request: CacheRequest
    cost_usd: float | None


@dataclass(slots=True)
class _Space:
    """One namespace family (release and epoch) being filled. began_s: when it first took traffic."""

    assignment: Assignment
    release: str
    began_s: float
    fresh: bool
    done: OrderedDict[str, None]
    wait: Wait = Wait.IDLE
    sent: int = 0
    stored: int = 0


@dataclass(frozen=True, slots=True)
class SpaceStats:
    """How far a namespace is."""

    release: str
    epoch: int
    arm: str
    sent: int
    stored: int
    wait: str


class Warmer:
    """One per process; `tick` twice a second.

    Args:
        ask: sends one request; None when it may not go out now. in_traffic: assignments as of now. mark_of: what a
            target changes in a request. lookup: of the store. keep: takes a whole answer for its checks; True when it
            may become an entry. sick: whether the guard itself is unwell. settle: told each ended request.
    """

    def __init__(
        self,
        limits: WarmLimits,
        ask: Ask,
        in_traffic: Callable[[], tuple[Assignment, ...]],
        mark_of: Callable[[Assignment], str],
        lookup: Callable[[CacheKey, Found], None],
        keep: Callable[[CacheRequest, Exchange, Capture], bool],
        shedding: Callable[[], bool],
        sick: Callable[[], bool],
        settle: Callable[[str, Exchange], None],
        counters: Counters,
        clock: Clock,
        *,
        key_count: int = 512,
        body_bytes: int = 8 * 1024,
        half_life_s: float = 6 * 3600.0,
    ) -> None:
        self._limits, self._ask, self._in_traffic, self._mark_of = limits, ask, in_traffic, mark_of
        self._lookup, self._keep = lookup, keep
        self._shedding, self._sick, self._settle = shedding, sick, settle
        self._counters, self._clock = counters, clock
        self._body_bytes = body_bytes
        self.hot: HotGroups[bytes, Hotness] = HotGroups(
            key_count, FULL_GROUPS_COUNT * key_count, half_life_s=half_life_s
        )
        self._spaces: OrderedDict[tuple[str, int], _Space] = OrderedDict()
        self._under_way: dict[_Job, Asked] = {}
        self.ledger = Ledger()
        self._started = self._busy = False

    # What is hot -----------------------------------------------------------------------------------------------------

    def seen(self, request: CacheRequest, cost_usd: float | None) -> None:
        """A user has asked this. cost_usd: of the answer, when it is known."""
        # What needs the caller's own credential cannot be asked again; what is very long is not kept here.
        if request.personal or len(request.body) > self._body_bytes:
            return
        space = request.key.namespace
        self.hot.seen(
            (space.tenant, space.route), request.key.fingerprint, Hotness(request, cost_usd), self._clock.now_s()
        )

    def costed(self, request: CacheRequest, cost_usd: float | None) -> None:
        """What an answer has cost; not an occurrence of its own."""
        space = request.key.namespace
        self.hot.learn((space.tenant, space.route), request.key.fingerprint, Hotness(request, cost_usd))

    # Filling ---------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Look at what takes traffic now; send at most what the budget and the number under way allow."""
        self.released()
        now_s = self._clock.now_s()
        filling = [(n, s) for n, s in self._spaces.items() if s.fresh and now_s - s.began_s < self._limits.for_s]
        if not filling:
            return
        hottest = self.hot.hottest(now_s, least_count=self._limits.least_count)
        for name, space in filling:
            missing = [(key, h) for h in hottest if (key := _key_of(h)) not in space.done][:CHOICE_COUNT]
            while self._step(name, space, dict(missing)):
                pass

    def released(self) -> None:
        """The split may have changed: begin what is new, give up what is gone. Cheap; call it at once on a rollback."""
        now_s = self._clock.now_s()
        current = {(self._release(a), a.cache_epoch): a for a in self._in_traffic()}
        for name in [n for n in self._spaces if n not in current]:
            del self._spaces[name]
        for job, asked in list(self._under_way.items()):
            if job[0] not in current:
                del self._under_way[job]
                asked.give_up()
        for name, assignment in current.items():
            if name not in self._spaces:
                # What takes traffic when the process starts is not new: nothing is known to be hot in it yet.
                self._spaces[name] = _Space(assignment, name[0], now_s, self._started, OrderedDict())
                if self._started:
                    log.info("cache: warming release %s, epoch %d", *name)
            else:
                self._spaces[name].assignment = assignment
        while len(self._spaces) > NAMESPACES_COUNT:
            self._spaces.popitem(last=False)
        self._started = True

    @staticmethod
    def _release(assignment: Assignment) -> str:
        return assignment.target.version.release_id

    def _step(self, name: tuple[str, int], space: _Space, missing: dict[str, Hot[bytes, Hotness]]) -> bool:
        now_s = self._clock.now_s()
        situation = Situation(now_s, space.began_s, space.done, self._shedding(), self._sick())
        candidates = [Candidate(key, h.count, h.value.cost_usd) for key, h in missing.items()]
        chosen, space.wait = choose(candidates, self.ledger, self._limits, situation)
        if chosen is None:
            return False
        space.done[chosen.key] = None
        if len(space.done) > TRIED_COUNT:
            space.done.popitem(last=False)
        request = self._request_in(missing[chosen.key].value.request, space)
        self.ledger = sent(self.ledger, chosen, now_s, (name, chosen.key))
        self._busy = False
        self._lookup(request.key, lambda entry, failure: self._looked_up(name, space, chosen, request, entry))
        return not self._busy

    def _request_in(self, request: CacheRequest, space: _Space) -> CacheRequest:
        old = request.key.namespace
        mark = self._mark_of(space.assignment)
        namespace = Namespace(space.release, space.assignment.cache_epoch, old.tenant, old.route, mark)
        return replace(request, key=key_in(namespace, request.key.fingerprint))

    def _looked_up(
        self, name: tuple[str, int], space: _Space, chosen: Candidate, request: CacheRequest, entry: Entry | None
    ) -> None:
        job = (name, chosen.key)
        if entry is not None or self._spaces.get(name) is not space:  # it is there, or nobody needs it any more
            self._unsent(job)
            return
        asked = self._ask(request, space.assignment, lambda exchange, capture: self._ended(
            name, space, chosen, request, exchange, capture))  # fmt: skip
        if asked is None:
            self._busy = True
            space.done.pop(chosen.key, None)  # later
            self._unsent(job)
            return
        space.sent += 1
        self._under_way[job] = asked

    def _unsent(self, job: _Job) -> None:
        """Nothing went out after all; a place in this minute is all that it cost."""
        rest = tuple((k, u) for k, u in self.ledger.reserved if k != job)
        self.ledger = replace(self.ledger, reserved=rest)

    def _ended(
        self, name: tuple[str, int], space: _Space, chosen: Candidate, request: CacheRequest, exchange: Exchange,
        capture: Capture | None,
    ) -> None:  # fmt: skip
        job = (name, chosen.key)
        self._under_way.pop(job, None)
        gone = name not in self._spaces
        failed = exchange.outcome is not Outcome.OK
        self.ledger = settled(self.ledger, job, exchange.cost_usd, self._clock.now_s(), failed=failed and not gone)
        self._settle("warm", exchange)
        result = "given_up" if gone else "failed" if failed else "answered"
        self._counters.inc("sft_cache_warm_requests_total", {"release": name[0], "result": result})
        if gone or failed or capture is None:
            return
        if self._keep(request, exchange, capture):
            space.stored += 1

    # What is shown ---------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Send nothing more; give up what is under way."""
        self._spaces.clear()
        for asked in list(self._under_way.values()):
            asked.give_up()
        self._under_way.clear()

    def stats(self) -> tuple[SpaceStats, ...]:
        """Of the namespaces in traffic."""
        return tuple(
            SpaceStats(s.release, epoch, s.assignment.arm, s.sent, s.stored, s.wait.value if s.fresh else "steady")
            for (_, epoch), s in self._spaces.items()
        )


def _key_of(hot: Hot[bytes, Hotness]) -> str:
    """Tells hot keys of all groups apart, and costs no hash: it is asked for every key at every look."""
    space = hot.value.request.key.namespace
    return f"{hot.key.hex()} {space.route} {space.tenant}"
