"""What looks after the answer cache: warming, semantic neighbours, hit ratios and savings, as one listener.

It hangs on the cache's events and on the end of exchanges; the data path knows nothing of it, and a fault in here costs
hits or figures, never an answer.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from guard.cache.collapse import Collapse, HitRatios
from guard.cache.met import MetKeys
from guard.cache.near import NearCache, NearHit
from guard.cache.ports import Counters
from guard.cache.quiet import QuietPath
from guard.cache.savings import Savings
from guard.cache.service import AnswerCache
from guard.cache.types import CacheKey, CacheRequest, Entry, Removed
from guard.cache.warmer import SpaceStats, Warmer
from guard.passage import Passage
from guard.ports import Assignment, Capture
from guard.wire.dialects import DIALECTS
from slo.clock import Clock
from slo.errors import DataError
from slo.types import CacheStatus, Exchange, Outcome

log = logging.getLogger("guard.cache")

TICK_S = 0.5
COLLAPSE_EVERY_S = 10.0
UNPROVED_COUNT = 4096
QUIET_COUNT = 1024
QUIET = "quiet"
"""What stands for the release of our own requests where their checks are done."""

GaugeRow = tuple[str, Mapping[str, str], float | None]


class QuietAsk:
    """A passage that can be given up."""

    def __init__(self, quiet: QuietPath, passage: Passage) -> None:
        self._quiet, self._passage = quiet, passage

    def give_up(self) -> None:
        """Close its upstream."""
        self._quiet.give_up(self._passage)


@dataclass(frozen=True, slots=True)
class CareStats:
    """What the admin listener shows beside the cache's own counts."""

    spaces: tuple[SpaceStats, ...]
    warm_usd_last_hour: float
    warm_requests_last_minute: int
    ratios: Mapping[str, float | None]
    collapses: tuple[Collapse, ...]


class CacheCare:
    """Implements `ports.Listener` and is a recorder of exchanges. One per process.

    Args:
        cache: whose events are heard. in_traffic: assignments of now, stable first.
    """

    def __init__(
        self,
        cache: AnswerCache,
        in_traffic: Callable[[], tuple[Assignment, ...]],
        counters: Counters,
        clock: Clock,
        *,
        ratios: HitRatios | None = None,
        savings: Savings | None = None,
    ) -> None:
        self._cache, self._in_traffic, self._counters, self._clock = cache, in_traffic, counters, clock
        self._quiet: QuietPath | None = None
        self._offer: Callable[[Exchange, Capture], object] | None = None
        self.warmer: Warmer | None = None
        self.near: NearCache | None = None
        self.ratios, self.savings = ratios or HitRatios(), savings or Savings()
        self._unproved: OrderedDict[bytes, float | None] = OrderedDict()
        self._keys = MetKeys()
        self._quiet_ids: OrderedDict[str, None] = OrderedDict()
        self._collapsed: dict[str, Collapse] = {}
        self._previous_stable = self._stable = ""
        self._looked_s = clock.now_s()
        cache.subscribe(self)

    def connect(
        self,
        quiet: QuietPath,
        offer: Callable[[Exchange, Capture], object] | None,
        *,
        warmer: Warmer | None = None,
        near: NearCache | None = None,
    ) -> None:
        """Before `start`. quiet: asks for us. offer: gives a whole answer to the checks; None: there are none."""
        self._quiet, self._offer, self.warmer, self.near = quiet, offer, warmer, near
        if near is not None:
            self._cache.subscribe(near)
            self._cache.near = near

    # Life ------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """On the loop."""
        if self.near is not None:
            self.near.start()

    async def stop(self) -> None:
        """Give up what is under way, end the worker."""
        if self.warmer is not None:
            self.warmer.stop()
        if self._quiet is not None:
            self._quiet.stop()
        if self.near is not None:
            await self.near.stop()

    async def run(self) -> None:
        """For ever: warm, and watch the hit ratios."""
        while True:
            await self._clock.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """One look."""
        now_s = self._clock.now_s()
        if self.warmer is not None:
            self.warmer.tick()
        if now_s - self._looked_s >= COLLAPSE_EVERY_S:
            self._looked_s = now_s
            self._watch(now_s)

    def released(self) -> None:
        """The split has changed; what was rolled back is given up now, not at the next tick."""
        if self.warmer is not None:
            self.warmer.released()

    def _watch(self, now_s: float) -> None:
        current = [a.target.version.release_id for a in self._in_traffic()]
        stable = current[0] if current else ""
        if stable != self._stable:
            self._previous_stable, self._stable = self._stable, stable
        found = {}
        for release in current:
            previous = stable if release != stable else self._previous_stable
            collapse = self.ratios.collapse(release, previous, now_s)
            if collapse is not None:
                found[release] = collapse
                if release not in self._collapsed:
                    log.error(
                        "cache: hit ratio of release %s collapsed: %.0f %% of %d lookups, before it was %.0f %%",
                        release, 100 * collapse.ratio, collapse.lookups, 100 * collapse.before,
                    )  # fmt: skip
        for release in self._collapsed.keys() - found.keys():
            log.warning("cache: hit ratio of release %s has recovered", release)
        self._collapsed = found

    # As a listener of the cache --------------------------------------------------------------------------------------

    def hit(self, request: CacheRequest, entry: Entry, exchange_id: str, wall_s: float) -> None:
        """Count what was saved."""
        self._met(entry.key)
        release = request.key.namespace.release
        self.ratios.looked_up(release, self._clock.now_s(), hit=True)
        row = self.savings.row(wall_s, release)
        row.hits += 1
        row.semantic_hits += entry.key != request.key
        row.saved_input_tokens += entry.input_tokens or 0
        row.saved_output_tokens += entry.output_tokens or 0
        row.saved_usd += entry.cost_usd or 0.0
        if entry.cost_usd:
            self._counters.inc("sft_cache_saved_usd_total", {"release": release}, entry.cost_usd)
        row.unpriced_hits += entry.cost_usd is None
        row.saved_s += entry.generation_s
        digest = entry.key.digest
        if digest in self._unproved:
            # Without warming this would have been a miss, which would have filled the cache just as well: so only the
            # first hit of a warmed answer is a miss avoided.
            row.misses_avoided += 1
            row.avoided_usd += self._unproved.pop(digest) or 0.0
        if self.warmer is not None:
            self.warmer.seen(request, entry.cost_usd)

    def missed(self, request: CacheRequest, wall_s: float) -> None:
        """Count it; what it costs is known at its end."""
        release = request.key.namespace.release
        self.ratios.looked_up(release, self._clock.now_s(), hit=False)
        self.savings.row(wall_s, release).misses += 1
        if self.warmer is not None:
            self.warmer.seen(request, None)

    def stored(self, request: CacheRequest, entry: Entry) -> None:
        """An answer can be hit from now on."""
        self._met(entry.key)
        if entry.exchange_id in self._quiet_ids:
            self._unproved[entry.key.digest] = entry.cost_usd
            if len(self._unproved) > UNPROVED_COUNT:
                self._unproved.popitem(last=False)
        elif self.warmer is not None:
            self.warmer.costed(request, entry.cost_usd)

    def _met(self, key: CacheKey) -> None:
        self._keys.add(key)

    def key_of(self, text: str) -> CacheKey | None:
        """The key whose hex digits begin so, among those met lately; None when there is none, or more than one."""
        found = self._keys.named(text)
        return found[0] if len(found) == 1 else None

    def removed(self, key: CacheKey, reason: Removed) -> None:
        """A warmed answer that goes unseen has avoided nothing."""
        if reason is not Removed.REPLACED:
            self._unproved.pop(key.digest, None)
            self._keys.discard(key)

    # As a recorder of exchanges --------------------------------------------------------------------------------------

    def served(self, exchange: Exchange) -> None:
        """What users' misses cost."""
        if exchange.cache is CacheStatus.MISS and exchange.cost_usd is not None:
            self.savings.row(exchange.wall_s, exchange.release).spent_usd += exchange.cost_usd

    def checked(self, exchange: Exchange, text: Mapping[str, object] | None = None) -> None:
        """Nothing more."""

    # Requests of our own ---------------------------------------------------------------------------------------------

    def is_quiet(self, exchange: Exchange) -> bool:
        """Whether an exchange is one of ours; its checks then tell the cache alone."""
        return exchange.exchange_id in self._quiet_ids

    def quiet_checked(self, exchange: Exchange) -> None:
        """The checks of a warm-up are done."""
        self._cache.checked(exchange, None)

    def ask(
        self, request: CacheRequest, assignment: Assignment, ended: Callable[[Exchange, Capture | None], None]
    ) -> QuietAsk | None:
        """Ask the upstream of an assignment; None: not now."""
        if self._quiet is None:
            return None
        passage = self._quiet.ask(request, assignment.target, assignment.arm, assignment.cache_epoch, ended)
        return QuietAsk(self._quiet, passage) if passage is not None else None

    def keep(self, request: CacheRequest, exchange: Exchange, capture: Capture) -> bool:
        """A whole answer of ours, on its way into the cache by the same checks as any other."""
        self._quiet_ids[exchange.exchange_id] = None
        if len(self._quiet_ids) > QUIET_COUNT:
            self._quiet_ids.popitem(last=False)
        if self._cache.offer(request, exchange, capture) is None:
            return False
        if self._offer is None:
            self._cache.checked(exchange, None)
        else:
            # Under a name of its own: the drift of a release is that of its users' questions.
            self._offer(replace(exchange, release=QUIET), capture)
        return True

    def settle(self, purpose: str, exchange: Exchange) -> None:
        """Its cost counts, apart from that of the users' questions."""
        row = self.savings.row(exchange.wall_s, exchange.release)
        usd = exchange.cost_usd or 0.0
        if usd:
            self._counters.inc("sft_cache_quiet_usd_total", {"release": exchange.release, "purpose": purpose}, usd)
        if purpose == "warm":
            row.warm_requests += 1
            row.warm_usd += usd
        else:
            row.recheck_requests += 1
            row.recheck_usd += usd

    def recheck(self, hit: NearHit) -> None:
        """Ask a semantic hit again and compare; its user has the cached answer already."""
        space = hit.request.key.namespace
        assignment = next(
            (
                a for a in self._in_traffic()
                if a.target.version.release_id == space.release and a.cache_epoch == space.epoch
            ),
            None,
        )  # fmt: skip
        if assignment is not None:
            self.ask(hit.request, assignment, lambda exchange, capture: self._rechecked(hit, exchange, capture))

    def _rechecked(self, hit: NearHit, exchange: Exchange, capture: Capture | None) -> None:
        self.settle("recheck", exchange)
        if exchange.outcome is not Outcome.OK or capture is None or self.near is None:
            return
        entry, route = hit.entry, hit.request.route
        try:
            fresh = DIALECTS[route.adapter].extract_text(
                route, capture.request, capture.response, capture.response_headers, capture.stream
            )
            served = DIALECTS[route.adapter].extract_text(
                route, hit.request.body, entry.body, entry.headers, entry.stream
            )
        except DataError:
            return
        self.near.compare(route.name, served.answer, fresh.answer, lambda same: self._told(hit, same))

    def _told(self, hit: NearHit, same: bool | None) -> None:
        if same is False:
            log.warning(
                "cache: semantic hit on route %s was wrong: key %s served for another question",
                hit.request.route.name, hit.entry.key.text[:16],
            )  # fmt: skip

    # What is shown ---------------------------------------------------------------------------------------------------

    def gauges(self) -> Iterator[GaugeRow]:
        """Rows for the metrics page."""
        now_s = self._clock.now_s()
        for release in self.ratios.releases():
            yield "sft_cache_hit_ratio", {"release": release}, self.ratios.ratio(release, now_s)
            yield "sft_cache_collapsed", {"release": release}, float(release in self._collapsed)
        if self.warmer is not None:
            yield "sft_cache_warm_usd_per_hour", {}, self.warmer.ledger.usd(now_s)
        if self.near is not None:
            for route, (state, found) in self.near.stats().routes.items():
                labels = {"route": route}
                yield "sft_cache_semantic_threshold", labels, None if state.off else state.threshold
                yield "sft_cache_semantic_false_hit_ratio", {**labels, "bound": "estimate"}, found.estimate
                yield "sft_cache_semantic_false_hit_ratio", {**labels, "bound": "lower"}, found.lower
                yield "sft_cache_semantic_false_hit_ratio", {**labels, "bound": "upper"}, found.upper

    def held(self) -> Iterator[tuple[str, int]]:
        """(table, entries) of each."""
        yield "cache_keys", len(self._keys)
        yield "cache_unproved", len(self._unproved)
        if self.warmer is not None:
            yield "cache_hot", len(self.warmer.hot)

    def conditions(self) -> tuple[str, ...]:
        """What a person should know now, one line each."""
        found = [
            f"hit ratio of release {c.release} collapsed: {c.ratio:.0%}, before {c.before:.0%}"
            for c in self._collapsed.values()
        ]
        if self.near is not None:
            stats = self.near.stats()
            off = [route for route, (state, _) in stats.routes.items() if state.off]
            found += [f"semantic cache of route {route} is off: too many wrong hits" for route in off]
            if stats.worker == "alive" and not stats.latin:
                found.append("semantic cache refuses English: no embedder")
            elif stats.worker != "alive":
                found.append("semantic cache: its worker is gone; every lookup is a miss")
        return tuple(found)

    def stats(self) -> CareStats:
        """Of now."""
        now_s = self._clock.now_s()
        ledger = self.warmer.ledger if self.warmer is not None else None
        return CareStats(
            self.warmer.stats() if self.warmer is not None else (),
            ledger.usd(now_s) if ledger else 0.0,
            ledger.requests(now_s) if ledger else 0,
            {release: self.ratios.ratio(release, now_s) for release in self.ratios.releases()},
            tuple(self._collapsed.values()),
        )
