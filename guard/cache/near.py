"""The semantic cache as the answer cache sees it: after an exact miss, the answer to a question that means the same.

Off unless a route and a tenant are named for it. A lookup that takes longer than its budget is a miss; so is every
fault of the worker. A share of the hits is asked again beside the answer that was served; the outcome makes the route
stricter or switches it off (`tightening`).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from guard.cache.near_frames import (
    Add,
    Answer,
    Compare,
    Compared,
    Find,
    Loaded,
    Remove,
    Setup,
    ToWorker,
    decode_from_worker,
    frame,
)
from guard.cache.ports import Counters, Found
from guard.cache.question import Question, question_of
from guard.cache.tightening import FalseHits, Strictness, false_hits, rechecked
from guard.cache.types import CacheKey, CacheRequest, Entry, Removed
from guard.split import bucket
from guard.worker_link import Worker, WorkerLink
from slo.clock import Clock

log = logging.getLogger("guard.cache")

ANY_TENANT = "*"
PENDING_COUNT = 256
OUTSTANDING_COUNT = 8
"""Lookups that the worker has not answered, late ones included; one more would be late for certain."""

COMPARING_COUNT = 64
OUT_BYTES = 4 * 2**20
"""Bytes that may wait to be written; a worker that does not read is as good as none."""


@dataclass(frozen=True, slots=True)
class NearConfig:
    """routes: names of routes that may be answered so. tenants: names (as in `x-guard-tenant`), "*" for everybody, also
    those without a name. budget_s: longest wait. recheck_ratio: share of hits that is asked again. false_hit_budget:
    share of hits that may be wrong."""

    routes: frozenset[str]
    tenants: frozenset[str]
    threshold: float = 0.92
    budget_s: float = 0.05
    recheck_ratio: float = 0.05
    false_hit_budget: float = 0.01
    embedder: str = "all-MiniLM-L6-v2"
    entry_count: int = 20_000


@dataclass(frozen=True, slots=True)
class NearStats:
    """hits, lookups: since the start; refused: by reason of the gate, "far" for no neighbour above the threshold.
    latin, han: what such questions are compared with, "" while they are refused. routes: by name."""

    worker: str
    entries: int
    lookups: int
    hits: int
    late: int
    latin: str
    han: str
    refused: Mapping[str, int]
    routes: Mapping[str, tuple[Strictness, FalseHits]]


@dataclass(frozen=True, slots=True)
class NearHit:
    """A semantic hit that is to be asked again."""

    request: CacheRequest
    entry: Entry


@dataclass(slots=True)
class _Known:
    key: CacheKey
    question: Question


@dataclass(slots=True)
class _Waiting:
    found: Callable[[Entry | None], None]
    timer: asyncio.TimerHandle
    request: CacheRequest = field(repr=False)


class NearCache:
    """Implements `ports.NearAnswers` and `ports.Listener`.

    Args:
        lookup: of the exact store. recheck: told of the hits that are to be asked again; it answers with `compare`.
        strict: what routes had come to before a restart.
    """

    def __init__(
        self,
        config: NearConfig,
        lookup: Callable[[CacheKey, Found], None],
        recheck: Callable[[NearHit], None],
        counters: Counters,
        clock: Clock,
        *,
        strict: Mapping[str, Strictness] | None = None,
        command: tuple[str, ...] | None = None,
    ) -> None:
        self._config, self._lookup, self._recheck = config, lookup, recheck
        self._counters = counters
        worker = Worker(
            command or (sys.executable, "-m", "guard.cache.near_worker"), "worker of the semantic cache", log
        )
        self._link = WorkerLink(worker, clock, on_start=self._started, on_body=self._said, on_drained=self._teach_on)
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._untaught: deque[bytes] = deque()  # digests that the worker has still to hear of
        self._waiting: dict[int, _Waiting] = {}
        self._comparing: dict[int, tuple[str, Callable[[bool | None], None]]] = {}
        self._asked: OrderedDict[bytes, Question] = OrderedDict()
        self._next_id = self._outstanding = 0
        self._lookups = self._hits = self._late = 0
        self._refused: Counter[str] = Counter()
        self._latin = self._han = ""
        self.strict = {route: self._strictness(route, strict or {}) for route in config.routes}

    def _strictness(self, route: str, before: Mapping[str, Strictness]) -> Strictness:
        state = before.get(route)
        # A lower threshold in the file than what was learnt changes nothing; a higher one is a person's will.
        if state is None or state.threshold < self._config.threshold:
            return Strictness(self._config.threshold)
        return state

    def start(self) -> None:
        """Start the worker; does not wait for it."""
        self._link.start()

    async def stop(self) -> None:
        """End the worker; whoever waits hears of a miss."""
        await self._link.stop()
        for job_id in list(self._waiting):
            self._tell(job_id, None)

    # As a finder -----------------------------------------------------------------------------------------------------

    def find(self, request: CacheRequest, found: Callable[[Entry | None], None]) -> bool:
        """See `ports.NearAnswers`."""
        if not self._opted_in(request):
            return False
        question = self._question(request)
        if question is None:
            return False
        if self._outstanding >= OUTSTANDING_COUNT:
            return self._pass("queue_full")
        job_id = self._next_id
        self._next_id += 1
        threshold = self.strict[request.key.namespace.route].threshold
        if not self._send(Find(job_id, question.space, question.text, threshold)):
            return self._pass("unavailable")
        self._outstanding += 1
        self._lookups += 1
        timer = asyncio.get_running_loop().call_later(self._config.budget_s, self._out_of_time, job_id)
        self._waiting[job_id] = _Waiting(found, timer, request)
        return True

    def _opted_in(self, request: CacheRequest) -> bool:
        space = request.key.namespace
        state = self.strict.get(space.route)
        if state is None or state.off:
            return False
        tenants = self._config.tenants
        return ANY_TENANT in tenants or (space.tenant.startswith("t:") and space.tenant[2:] in tenants)

    def _question(self, request: CacheRequest) -> Question | None:
        # A miss asks twice, before and when its answer is stored; reading the request again costs more than keeping it.
        digest = request.key.digest
        question = self._asked.get(digest) or question_of(request)
        if question is not None:
            self._asked[digest] = question
            if len(self._asked) > PENDING_COUNT:
                self._asked.popitem(last=False)
        return question

    def _pass(self, reason: str) -> bool:
        self._counters.inc("sft_guard_failopen_total", {"dep": "semantic", "reason": reason})
        return False

    def _out_of_time(self, job_id: int) -> None:
        self._late += 1
        self._pass("timeout")
        self._tell(job_id, None)

    def _tell(self, job_id: int, entry: Entry | None) -> None:
        waiting = self._waiting.pop(job_id, None)
        if waiting is not None:
            waiting.timer.cancel()
            waiting.found(entry)

    def _send(self, message: ToWorker) -> bool:
        """False when there is no worker, or it does not keep up."""
        return self._link.waiting_bytes <= OUT_BYTES and self._link.send(frame(message))

    def _said(self, body: bytes) -> None:
        message = decode_from_worker(body)
        if isinstance(message, Answer):
            self._outstanding = max(0, self._outstanding - 1)
            self._answered(message)
        elif isinstance(message, Compared):
            told = self._comparing.pop(message.job_id, None)
            if told is not None:
                self._judged(told[0], message.same)
                told[1](message.same)
        elif isinstance(message, Loaded):
            self._latin, self._han = message.latin, message.han
            if message.latin:
                self._teach()

    def _answered(self, answer: Answer) -> None:
        waiting = self._waiting.get(answer.job_id)
        if waiting is None:
            return  # too late; the upstream has been asked
        if not answer.digest:
            self._refused[answer.refusal] += 1
            self._counters.inc("sft_cache_semantic_total", {"result": answer.refusal, "script": answer.script})
            self._tell(answer.job_id, None)
            return
        known = self._known.get(answer.digest)
        if known is None or known.key.namespace != waiting.request.key.namespace:
            self._tell(answer.job_id, None)
            return
        key = known.key
        # Still within the same budget: the timer runs on while the store is asked.
        self._lookup(key, lambda entry, failure: self._looked_up(answer, key, entry))

    def _looked_up(self, answer: Answer, key: CacheKey, entry: Entry | None) -> None:
        if entry is not None and entry.key == key:
            self._counters.inc("sft_cache_semantic_total", {"result": "hit", "script": answer.script})
            self._tell(answer.job_id, entry)
            return
        self._forget(key)
        self._tell(answer.job_id, None)

    # As a listener ---------------------------------------------------------------------------------------------------

    def hit(self, request: CacheRequest, entry: Entry, exchange_id: str, wall_s: float) -> None:
        """A semantic hit is one whose entry was stored under another key."""
        if entry.key == request.key:
            return
        self._hits += 1
        if not request.personal and bucket(exchange_id.encode(), b"recheck") < self._config.recheck_ratio:
            self._recheck(NearHit(request, entry))

    def missed(self, request: CacheRequest, wall_s: float) -> None:
        """Nothing to do."""

    def stored(self, request: CacheRequest, entry: Entry) -> None:
        """A new answer: its question may have neighbours from now on."""
        if entry.refusal or not self._opted_in(request):
            return
        question = self._question(request)
        if question is None:
            return
        digest = request.key.digest
        self._known[digest] = _Known(request.key, question)
        self._known.move_to_end(digest)
        if not self._send(Add(question.space, digest, question.text)) and self._link.alive:
            self._untaught.append(digest)
        if len(self._known) > self._config.entry_count:
            self._forget(next(iter(self._known.values())).key)

    def removed(self, key: CacheKey, reason: Removed) -> None:
        """Its answer is gone."""
        if reason is not Removed.REPLACED:
            self._forget(key)

    def _forget(self, key: CacheKey) -> None:
        known = self._known.pop(key.digest, None)
        if known is not None:
            self._send(Remove(known.question.space, key.digest))

    def _started(self) -> None:
        self._latin = self._han = ""
        self._outstanding = 0
        # What the worker before was asked to compare, nobody will answer.
        lost, self._comparing = self._comparing, {}
        for route, told in lost.values():
            self._judged(route, None)
            told(None)
        self._send(Setup(self._config.embedder, self._config.entry_count))
        self._teach()

    def _teach(self) -> None:
        """Tell a worker that knows nothing (or could not read English until now) what has answers."""
        self._untaught = deque(self._known)
        self._teach_on()

    def _teach_on(self) -> None:
        """As much as the worker takes now: lookups find their way in between, and nothing is too much."""
        while self._untaught and self._link.drained:
            digest = self._untaught.popleft()
            known = self._known.get(digest)
            if known is not None:
                self._send(Add(known.question.space, digest, known.question.text))

    # Re-checks -------------------------------------------------------------------------------------------------------

    def compare(self, route: str, served: str, fresh: str, told: Callable[[bool | None], None]) -> None:
        """The fresh answer to a re-checked hit is there; `told` hears whether it says what was served."""
        job_id = self._next_id
        self._next_id += 1
        if len(self._comparing) >= COMPARING_COUNT or not self._send(Compare(job_id, served, fresh)):
            told(None)
            return
        self._comparing[job_id] = (route, told)

    def _judged(self, route: str, same: bool | None) -> None:
        word = {True: "same", False: "different", None: "unknown"}[same]
        self._counters.inc("sft_cache_semantic_rechecks_total", {"route": route, "result": word})
        state = self.strict.get(route)
        if state is not None and same is not None:
            self.strict[route] = rechecked(state, wrong=not same, budget_ratio=self._config.false_hit_budget)

    # What is shown ---------------------------------------------------------------------------------------------------

    def stats(self) -> NearStats:
        """Counts of now and since the start."""
        return NearStats(
            "alive" if self._link.alive else "gone",
            len(self._known), self._lookups, self._hits, self._late, self._latin, self._han, dict(self._refused),
            {route: (state, false_hits(state)) for route, state in self.strict.items()},
        )  # fmt: skip
