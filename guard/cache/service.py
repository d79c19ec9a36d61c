"""The answer cache as one object, on the event loop: what the data path asks, what the checks tell, what people purge.

    turn -> ask -> hit | miss -> upstream -> finished -> [checks] -> checked -> stored
    flag, invalidate_* -> revoked, here at once and with a shared store in the other replicas too

An answer is kept only after its checks have spoken; until then it waits here, bounded. Nothing in this module raises
into the data path, waits for a store, or decides by itself what may be kept (`policy`) or under which name (`key`).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from guard.cache.documents import cited
from guard.cache.flight import Flight, Turn
from guard.cache.key import KeyRules, request_key
from guard.cache.policy import StorePolicy, admissible, is_negative, repeatable, ttl_s
from guard.cache.ports import Counters, Listener, NearAnswers, Store
from guard.cache.revocations import Revocations
from guard.cache.types import (
    Bypass,
    CacheKey,
    CacheRequest,
    Entry,
    NotStored,
    Removed,
    Revocation,
    RevocationKind,
    StoreStats,
)
from guard.ports import Capture, Route
from guard.slots import Slots
from guard.wire.dialects import DIALECTS
from guard.wire.http1 import RequestHead
from guard.wire.text import documents_of
from slo.clock import Clock
from slo.errors import DataError
from slo.types import Exchange

REMEMBERED_COUNT = 2**16
"""Places for exchanges whose entry is known, so that a thumb that comes minutes later finds it."""
ID_BYTES = 32
"""Room for the id of an exchange: 20 characters here, 26 of a warm-up."""


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """What is set in guard.yaml. rules, policies: by route name; a route without rules is not cached."""

    rules: Mapping[str, KeyRules]
    policies: Mapping[str, StorePolicy]
    wait_s: float = 2.0
    pending_bytes: int = 16 * 2**20


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts since the start; removed, not_stored, bypassed by reason. flights: questions under way now."""

    store: StoreStats
    hits: int
    misses: int
    coalesced: int
    stored: int
    pending: int
    flights: int
    removed: Mapping[str, int] = field(default_factory=dict)
    not_stored: Mapping[str, int] = field(default_factory=dict)
    bypassed: Mapping[str, int] = field(default_factory=dict)

    @property
    def hit_ratio(self) -> float | None:
        """hits / (hits + misses); None before the first."""
        total = self.hits + self.misses
        return self.hits / total if total else None


@dataclass(slots=True)
class _Candidate:
    request: CacheRequest
    entry: Entry  # ttl, document ids and refusal still open
    capture: Capture
    sequence: int


class AnswerCache:
    """One per process. Make it with its store, then hand it to the data path; `configure` on reload.

    Args:
        secret: of this installation; keys the hash of credentials. horizon_s: longest life of an entry.
        on_revocation: told of each new line, to write it down and to tell other replicas.
    """

    def __init__(
        self,
        config: CacheConfig,
        store_for: Callable[[AnswerCache], Store],
        counters: Counters,
        clock: Clock,
        secret: bytes,
        *,
        revocations: Revocations | None = None,
        on_revocation: Callable[[Revocation], None] | None = None,
    ) -> None:
        self._counters, self._clock, self._secret = counters, clock, secret
        self.revocations = Revocations(horizon_s(config)) if revocations is None else revocations
        self._on_revocation = on_revocation
        self._listeners: tuple[Listener, ...] = ()
        self.near: NearAnswers | None = None
        self._flights: dict[bytes, Flight] = {}
        self._candidates: OrderedDict[str, _Candidate] = OrderedDict()
        self._candidate_bytes = 0
        self._source_of = Slots(REMEMBERED_COUNT, ID_BYTES)
        self._hits = self._misses = self._coalesced = self._stored = 0
        self._removed: Counter[str] = Counter()
        self._not_stored: Counter[str] = Counter()
        self._bypassed: Counter[str] = Counter()
        self.configure(config)
        self.store = store_for(self)

    def configure(self, config: CacheConfig) -> None:
        """Take new rules for requests that begin from now on; what is stored keeps its life."""
        self._config = config
        self.revocations.horizon_s = max(self.revocations.horizon_s, horizon_s(config))

    def subscribe(self, listener: Listener) -> None:
        """Tell `listener` of hits, misses, stored and removed entries."""
        self._listeners = (*self._listeners, listener)

    # The data path ---------------------------------------------------------------------------------------------------

    def turn(
        self,
        head: RequestHead,
        body: bytes,
        route: Route,
        *,
        release: str,
        epoch: int,
        mark: str = "",
        replaced: frozenset[bytes] = frozenset(),
    ) -> Turn | None:
        """The turn of one request, None when it is not for the cache. See `key.request_key`."""
        rules = self._config.rules.get(route.name)
        if rules is None or not rules.enabled:
            return None
        try:
            request = request_key(
                head, body, route, rules, release=release, epoch=epoch, mark=mark, replaced=replaced,
                pepper=self._secret,
            )  # fmt: skip
        except Exception:  # Whatever it was, the request goes on without the cache.
            self.broken()
            return None
        if isinstance(request, Bypass):
            self._bypassed[request.value] += 1
            self._counters.inc("sft_cache_bypassed_total", {"reason": request.value})
            return None
        return Turn(self, request, self.revocations.sequence)

    def board(self, turn: Turn) -> None:
        """A turn wants an answer."""
        digest = turn.request.key.digest
        flight = self._flights.get(digest)
        if flight is not None:
            flight.join(turn, self._config.wait_s)
            return
        flight = self._flights[digest] = Flight(self, turn)
        self.store.get(turn.request.key, lambda entry, failure: self._looked_up(flight, turn.request, entry, failure))

    def _looked_up(self, flight: Flight, request: CacheRequest, entry: Entry | None, failure: str) -> None:
        if failure:
            passed = len(flight.waiters) + (flight.leader is not None)
            self._counters.inc("sft_guard_failopen_total", {"dep": "redis", "reason": failure}, passed)
        if entry is not None and self._valid(entry, request.key):
            flight.land(entry, shared=False)
            return
        near = self.near
        if near is not None and near.find(request, lambda found: self._found_near(flight, request, found)):
            return
        flight.go()

    def _found_near(self, flight: Flight, request: CacheRequest, entry: Entry | None) -> None:
        space = request.key.namespace
        if entry is not None and entry.key.namespace == space and entry.stream == request.stream and self.alive(entry):
            flight.land(entry, shared=False)
        else:
            flight.go()

    def _valid(self, entry: Entry, key: CacheKey) -> bool:
        if entry.key != key:
            return False
        reason = self._void(entry)
        if reason is not None:
            self.store.discard(key, reason)
        return reason is None

    def _void(self, entry: Entry) -> Removed | None:
        # Measured again although the store forgets by itself: a restored snapshot has its own idea of time.
        wall_s = self._clock.wall_s()
        if not -entry.ttl_s <= wall_s - entry.stored_wall_s < entry.ttl_s:
            return Removed.EXPIRED
        return self.revocations.forbids(entry)

    def alive(self, entry: Entry) -> bool:
        """Whether an entry that is at hand may be served now."""
        return self._void(entry) is None

    def arrived(self, flight: Flight) -> None:
        """A flight is over."""
        if self._flights.get(flight.digest) is flight:
            del self._flights[flight.digest]

    def serving(self, request: CacheRequest, entry: Entry, exchange_id: str, *, shared: bool) -> None:
        """An answer goes out."""
        self._hits += 1
        if shared:
            self._coalesced += 1
            self._counters.inc("sft_cache_coalesced_total", {"release": request.key.namespace.release})
        self._remember(exchange_id, entry.exchange_id)
        wall_s = self._clock.wall_s()
        self._tell(lambda listener: listener.hit(request, entry, exchange_id, wall_s))

    def missing(self, request: CacheRequest) -> None:
        """A request goes to the upstream."""
        self._misses += 1
        wall_s = self._clock.wall_s()
        self._tell(lambda listener: listener.missed(request, wall_s))

    def landed(self, turn: Turn, exchange: Exchange, capture: Capture | None) -> None:
        """The upstream has answered a turn."""
        entry = self.offer(turn.request, exchange, capture, sequence=turn.sequence)
        flight = self._flights.get(turn.request.key.digest)
        # Anything revoked since it was asked may be about this answer, and a waiter may have come after that.
        current = turn.sequence == self.revocations.sequence
        if entry is not None and current and flight is not None and flight.asking:
            # Also when this one went its own way after waiting: the first whole answer serves everybody.
            flight.land(entry, shared=True)
        elif turn.flight is not None:
            turn.flight.leave(turn)

    # Keeping ---------------------------------------------------------------------------------------------------------

    def offer(
        self, request: CacheRequest, exchange: Exchange, capture: Capture | None, *, sequence: int | None = None
    ) -> Entry | None:
        """Take an answer that will be kept once `checked` says so; None when it may not be repeated at all."""
        policy = self._config.policies.get(request.key.namespace.route)
        reason: NotStored | None = NotStored.NOT_OK
        if policy is not None and capture is not None and capture.stream == request.stream:
            reason = repeatable(
                exchange, capture.response, capture.response_headers, truncated=capture.truncated,
                policy=policy,
            )  # fmt: skip
        if reason is not None or capture is None:
            self._refuse(reason or NotStored.NOT_OK)
            return None
        entry = Entry(
            request.key, capture.response, _kept_headers(request.route, capture), capture.stream, exchange.exchange_id,
            None, exchange.model, exchange.input_tokens, exchange.output_tokens, exchange.cost_usd,
            exchange.duration_s, exchange.wall_s, self._clock.wall_s(), self._config.wait_s,
        )  # fmt: skip
        since = self.revocations.sequence if sequence is None else sequence
        if self.revocations.forbids(entry, since) not in (None, Removed.DOCUMENT):
            self._refuse(NotStored.REVOKED)
            return None
        self._candidates[exchange.exchange_id] = _Candidate(request, entry, capture, since)
        self._candidate_bytes += _held_bytes(capture)
        while self._candidate_bytes > self._config.pending_bytes:
            self._drop_candidate(next(iter(self._candidates)), NotStored.OVERFLOW)
        return entry

    def _drop_candidate(self, exchange_id: str, reason: NotStored | None) -> _Candidate | None:
        candidate = self._candidates.pop(exchange_id, None)
        if candidate is not None:
            self._candidate_bytes -= _held_bytes(candidate.capture)
            if reason is not None:
                self._refuse(reason)
        return candidate

    def served(self, exchange: Exchange) -> None:
        """As a recorder of exchanges: nothing to do before the checks."""

    def checked(self, exchange: Exchange, text: Mapping[str, object] | None = None) -> None:
        """The checks of an exchange are done, or were given up: keep its answer, or take it back."""
        candidate = self._drop_candidate(exchange.exchange_id, None)
        if candidate is None:
            if exchange.findings and self.source_of(exchange.exchange_id) is not None and self._failed(exchange):
                self.flag(exchange.exchange_id)
            return
        policy = self._config.policies.get(candidate.request.key.namespace.route)
        reason: NotStored | None = NotStored.UNCHECKED
        if policy is not None:
            entry = self._finished_entry(candidate, policy)
            reason = self._keep(candidate, entry, exchange, policy)
        if reason is not None:
            self._refuse(reason)

    def _failed(self, exchange: Exchange) -> bool:
        policy = StorePolicy(admit="complete")
        return admissible(exchange.findings, policy, negative=True) is NotStored.FLAGGED

    def _finished_entry(self, candidate: _Candidate, policy: StorePolicy) -> Entry:
        capture, entry = candidate.capture, candidate.entry
        answer, documents = "", None
        try:
            decoded = documents_of(capture.response, capture.response_headers, capture.stream)
            documents = cited(capture.route.contexts, decoded, capture.response_headers)
            answer = (
                DIALECTS[capture.route.adapter]
                .extract_text(
                    capture.route, capture.request, capture.response, capture.response_headers, capture.stream
                )
                .answer
            )
        except DataError:
            pass  # Sources unknown; the entry is then void when any document changes.
        refusal = is_negative(answer, policy)
        life_s = ttl_s(entry.key.digest, policy, negative=refusal)
        return Entry(
            entry.key, entry.body, entry.headers, entry.stream, entry.exchange_id, documents, entry.model,
            entry.input_tokens, entry.output_tokens, entry.cost_usd, entry.generation_s, entry.asked_wall_s,
            self._clock.wall_s(), life_s, refusal,
        )  # fmt: skip

    def _keep(self, candidate: _Candidate, entry: Entry, exchange: Exchange, policy: StorePolicy) -> NotStored | None:
        reason = admissible(exchange.findings, policy, negative=entry.refusal)
        if reason is not None:
            return reason
        if self.revocations.forbids(entry, candidate.sequence) is not None:
            return NotStored.REVOKED
        if not self.store.put(entry):
            return NotStored.FULL
        self._stored += 1
        self._counters.inc("sft_cache_stored_total", {"release": entry.key.namespace.release})
        self._remember(entry.exchange_id, entry.exchange_id)
        self._tell(lambda listener: listener.stored(candidate.request, entry))
        return None

    def _refuse(self, reason: NotStored) -> None:
        self._not_stored[reason.value] += 1
        self._counters.inc("sft_cache_not_stored_total", {"reason": reason.value})

    def _remember(self, exchange_id: str, source: str) -> None:
        known = source.encode()
        if 0 < len(known) <= ID_BYTES:  # longer: read back from a store that another program wrote to
            self._source_of.put(exchange_id, known.ljust(ID_BYTES, b"\0"))

    def source_of(self, exchange_id: str) -> str | None:
        """The exchange whose stored answer a hit gave; None when it is not remembered."""
        known = self._source_of.get(exchange_id)
        return None if known is None else known.rstrip(b"\0").decode()

    # Taking back -----------------------------------------------------------------------------------------------------

    def flag(self, exchange_id: str) -> bool:
        """An answer turned out bad: its entry goes, also when `exchange_id` was itself served from the cache.

        False: the exchange has nothing to do with any entry that is remembered.
        """
        if self._drop_candidate(exchange_id, NotStored.FLAGGED) is not None:
            return True
        source = self.source_of(exchange_id)
        if source is None:
            return False
        self._drop_candidate(source, NotStored.FLAGGED)
        self.invalidate("exchange", source)
        return True

    def invalidate(self, kind: RevocationKind, value: str = "") -> int | None:
        """Void what is named, asked until now; the number of entries, None when a shared store cannot count them.

        value: exchange id, document id, release id, tenant scope (`t:acme`), key (64 hex digits), "" for all.
        """
        revocation = Revocation(kind, value, self._clock.wall_s())
        count = self.revoked(revocation)
        if self._on_revocation is not None:
            self._on_revocation(revocation)
        return count

    def invalidate_documents(self, ids: Iterable[str]) -> int | None:
        """Documents have changed: answers that cite one of them go, and those whose sources are unknown."""
        total: int | None = 0
        for value in (*ids, ""):
            count = self.invalidate("document", value)
            total = None if total is None or count is None else total + count
        return total

    def revoked(self, revocation: Revocation) -> int | None:
        """Take a line, of this process or of another replica."""
        self.revocations.add(revocation)
        self.revocations.prune(self._clock.wall_s())
        return self.store.revoke(revocation)

    def gone(self, key: CacheKey, reason: Removed) -> None:
        """A local store tells that an entry has left."""
        self._removed[reason.value] += 1
        self._counters.inc("sft_cache_removed_total", {"reason": reason.value})
        self._tell(lambda listener: listener.removed(key, reason))

    def broken(self) -> None:
        """A defect of this package or of a listener: an answer goes past it."""
        self._counters.inc("sft_guard_failopen_total", {"dep": "cache", "reason": "error"})

    def _tell(self, event: Callable[[Listener], None]) -> None:
        for listener in self._listeners:
            try:
                event(listener)
            except Exception:  # A listener is foreign code on the path of an answer.
                self.broken()

    def held(self) -> Iterator[tuple[str, int]]:
        """(table, entries) of each."""
        yield "cache_waiting", len(self._candidates)
        yield "cache_sources", len(self._source_of)
        yield "cache_revocations", len(self.revocations)

    def stats(self) -> CacheStats:
        """Counts of now and since the start."""
        return CacheStats(
            self.store.stats(), self._hits, self._misses, self._coalesced, self._stored, len(self._candidates),
            len(self._flights), dict(self._removed), dict(self._not_stored), dict(self._bypassed),
        )  # fmt: skip


def horizon_s(config: CacheConfig) -> float:
    """The longest time between asking a question and the end of the life of its answer, with room to spare."""
    lives = [max(p.ttl_s, p.negative_ttl_s) for p in config.policies.values()]
    return max(lives, default=0.0) + 3600.0


def _kept_headers(route: Route, capture: Capture) -> tuple[tuple[bytes, bytes], ...]:
    """What a replay repeats of the answer's head: its type, and its contexts when they are there."""
    wanted = {b"content-type", b"content-language", route.contexts.header.lower().encode()}
    return tuple((name, value) for name, value in capture.response_headers if name in wanted and name)


def _held_bytes(capture: Capture) -> int:
    """What an answer that waits for its checks holds."""
    return len(capture.request) + len(capture.response)
