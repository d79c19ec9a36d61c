"""Hands exchanges to the check worker and gives each back exactly once, checked or given up, without ever waiting.

    offer -> waiting -> sent -> worker -> findings -> on_checked.checked
                 \\ full, too old, poison, stopping: given up, counted, on_checked.given_up

The worker is another process behind a socket pair: it may be slow, hang, crash or be killed by a text, and the answer
of the bot never notices. This module runs in the proxy process and imports nothing that computes.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from guard.checks.frames import Done, DriftNews, Hello, Job, Ready, decode_from_worker, frame
from guard.checks.spec import CheckSpec
from guard.ports import Capture, CheckedSink, ExchangeText, Route
from guard.worker_link import Worker, WorkerLink
from slo.clock import Clock
from slo.drafts import with_findings
from slo.types import CheckResult, Exchange, Finding

log = logging.getLogger("guard.pipeline")

FAIL_OPEN_REASON = {
    "queue_full": "queue_full",
    "too_large": "full",
    "too_late": "timeout",
    "poison": "quarantined",
    "stopped": "closed",
}
"""Closed set: why an exchange was given up -> the word of `sft_guard_failopen_total{reason}`."""

_DROP_LABELS = {reason: {"reason": reason} for reason in FAIL_OPEN_REASON}
_FAIL_OPEN_LABELS = {reason: {"dep": "checks", "reason": word} for reason, word in FAIL_OPEN_REASON.items()}
_ANOMALY_LABELS = {"dep": "judge", "reason": "anomaly"}


def _given_up(spec: CheckSpec) -> dict[str, tuple[Finding, ...]]:
    """By reason: what is said of an exchange that nobody looked at."""
    return {
        reason: tuple(Finding(check, CheckResult.UNAVAILABLE, None, f"not checked: {reason}") for check in spec.names)
        for reason in FAIL_OPEN_REASON
    }


TRIES = 2
"""A text that was with the worker when it died this often is given up as poison."""

RESULTS_AT_ONCE_COUNT = 2
"""Results taken in one turn of the loop, each some 0.1 ms of work: the requests of the turn wait for them, and the
worker answers in batches."""
TOLD_AT_ONCE_COUNT = 256
OLD_AT_ONCE_COUNT = 32
RECENT_COUNT = 1000


DRIFT_NEWS_COUNT = 80


class Counters(Protocol):
    """Where drops are counted; `exporters.prometheus.PrometheusExporter` is one."""

    def inc(self, metric: str, labels: Mapping[str, str], n: float = 1) -> None: ...


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """Bounds of the queue, seconds and counts.

    window_count: jobs the worker holds at once. age_s: an exchange older than this is given up. hang_s: a worker that
    says nothing for so long while it has work is killed. flush_s: how long `stop` waits for the rest.
    """

    pending_count: int = 2000
    pending_bytes: int = 32 * 2**20
    window_count: int = 64
    age_s: float = 30.0
    hang_s: float = 60.0
    backoff_min_s: float = 1.0
    backoff_max_s: float = 30.0
    flush_s: float = 5.0
    sweep_s: float = 1.0


@dataclass(frozen=True, slots=True)
class PipelineStats:
    """What the admin listener and the gauges show.

    coverage_ratio: share of the last exchanges that were checked, None before the first. heartbeat_age_s: since the
    worker last said anything, None while there is none. blind: check -> why nobody may believe it now.
    dropped: (reason, count), most frequent first.
    """

    queue_length: int
    queue_bytes: int
    coverage_ratio: float | None
    checked_count: int
    dropped: tuple[tuple[str, int], ...]
    worker_alive: bool
    worker_pid: int | None
    worker_ready: bool
    restart_count: int
    heartbeat_age_s: float | None
    embedder_line: str
    problem: str
    redacted_count: int
    blind: Mapping[str, str]


@dataclass(slots=True)
class _Item:
    exchange: Exchange
    job_id: int
    data: bytes
    since_s: float
    tries: int = 0


class WorkerPipeline:
    """`guard.ports.CheckPipeline` over one worker process.

    Args:
        spec: what to check. routes: those of guard.yaml; told once, so that a job names its route by position. A route
            of a later reload travels with the job.
        on_checked: told once per offered exchange, from the event loop. counters: drops and fail-open passages.
        command: argv of the worker without the socket number; tests put their own here.
    """

    def __init__(
        self,
        spec: CheckSpec,
        routes: tuple[Route, ...],
        on_checked: CheckedSink,
        counters: Counters,
        clock: Clock,
        *,
        limits: PipelineLimits | None = None,
        command: tuple[str, ...] | None = None,
    ) -> None:
        self._hello = frame(Hello(spec, routes))
        self._given_up = _given_up(spec)
        self._routes = {route: i for i, route in enumerate(routes)}
        self._on_checked, self._counters, self._clock = on_checked, counters, clock
        self._limits = limits = limits or PipelineLimits()
        command = command or (sys.executable, "-m", "guard.checks.worker")
        worker = Worker(
            command, "check worker", log,
            backoff_min_s=limits.backoff_min_s, backoff_max_s=limits.backoff_max_s,
            bodies_at_once=RESULTS_AT_ONCE_COUNT,
        )  # fmt: skip
        self._link = WorkerLink(
            worker, clock, on_start=self._begin, on_body=self._hear, on_end=self._after_death, on_drained=self._pump
        )
        self._waiting: deque[_Item] = deque()
        self._sent: dict[int, _Item] = {}
        self._bytes = 0
        self._next_id = 0
        self._unanswered = 0  # jobs with the worker, those given up meanwhile included
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pump_due = self._stopping = self._ready = False
        self._sweeper: asyncio.Task[None] | None = None
        self.drift_news: dict[tuple[str, str], DriftNews] = {}  # the last of each release and component
        self._idle = asyncio.Event()
        self._idle.set()
        self._recent: deque[bool] = deque(maxlen=RECENT_COUNT)
        self._recent_checked = 0
        self._dropped: Counter[str] = Counter()
        self._untold: dict[str, list[Exchange]] = {}  # given up in this turn of the loop, by reason
        self._telling_due = False
        self._checked_count = self._redacted_count = 0
        self._embedder_line, self._problem = "worker not started", ""
        self._blind: Mapping[str, str] = {}

    # -- the path of one exchange ---------------------------------------------------------------------------------

    def offer(self, exchange: Exchange, capture: Capture) -> bool:
        """Take an exchange off the path; False when it was given up at once. Never waits, never raises."""
        reason = self._why_not(capture)
        if reason:
            self._give_up([exchange], reason)
            return False
        self._take(exchange, capture)
        return True

    def offer_many(self, ended: Iterable[tuple[Exchange, Capture]]) -> None:
        """`offer` for all that ended in one turn; those there is no room for are given up together."""
        refused: dict[str, list[Exchange]] = {}
        for exchange, capture in ended:
            reason = self._why_not(capture)
            if reason:
                refused.setdefault(reason, []).append(exchange)
            else:
                self._take(exchange, capture)
        for reason, exchanges in refused.items():
            self._give_up(exchanges, reason)

    def _why_not(self, capture: Capture) -> str:
        """Why an exchange cannot be taken; "" when it can."""
        limits = self._limits
        size = len(capture.request) + len(capture.response)
        if self._stopping:
            return "stopped"
        if size > limits.pending_bytes:
            return "too_large"
        if len(self._waiting) + len(self._sent) >= limits.pending_count or self._bytes + size > limits.pending_bytes:
            return "queue_full"
        return ""

    def _take(self, exchange: Exchange, capture: Capture) -> None:
        job_id = self._next_id
        self._next_id += 1
        data = frame(
            Job(job_id, self._routes.get(capture.route, capture.route), exchange.release, exchange.arm, capture.request,
                capture.response, capture.response_headers, capture.stream, capture.truncated, capture.roles,
                exchange.tenant, exchange.session, exchange.exchange_id, exchange.wall_s, capture.reference)
        )  # fmt: skip
        self._waiting.append(_Item(exchange, job_id, data, self._clock.now_s()))
        self._bytes += len(data)
        if self._link.alive:
            self._pump_soon()

    def _give_up(self, exchanges: Sequence[Exchange], reason: str) -> None:
        """Told at the end of this turn of the loop, with the others of the turn: an overload gives up thousands."""
        self._dropped[reason] += len(exchanges)
        for _ in exchanges:
            self._remember(checked=False)
        given_up = self._untold.get(reason)
        if given_up is None:
            given_up = self._untold[reason] = []
        given_up += exchanges
        if self._loop is None or len(given_up) >= TOLD_AT_ONCE_COUNT:
            self._tell_given_up()
        elif not self._telling_due:
            self._telling_due = True
            self._loop.call_soon(self._tell_given_up)

    def _tell_given_up(self) -> None:
        self._telling_due = False
        untold, self._untold = self._untold, {}
        for reason, exchanges in untold.items():
            self._counters.inc("sft_guard_checks_dropped_total", _DROP_LABELS[reason], len(exchanges))
            self._counters.inc("sft_guard_failopen_total", _FAIL_OPEN_LABELS[reason], len(exchanges))
            try:
                self._on_checked.given_up(exchanges, self._given_up[reason])
            except Exception as error:  # as below
                self._sink_failed(error)

    def _remember(self, *, checked: bool) -> None:
        if len(self._recent) == RECENT_COUNT:
            self._recent_checked -= self._recent[0]
        self._recent.append(checked)
        self._recent_checked += checked

    def _tell(self, exchange: Exchange, text: ExchangeText | None, *, checked: bool) -> None:
        self._remember(checked=checked)
        try:
            self._on_checked.checked(exchange, text)
        except Exception as error:  # A sink is foreign code; it costs a counter, never the pipeline.
            self._sink_failed(error)

    def _sink_failed(self, error: Exception) -> None:
        self._counters.inc("sft_guard_failopen_total", {"dep": "sink", "reason": "error"})
        log.warning("sink of checked exchanges failed: %s", type(error).__name__)

    def _pump_soon(self) -> None:
        """One write for all that happens in this turn of the loop."""
        if not self._pump_due and self._loop is not None:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Move jobs from waiting to the worker, as many as its window allows."""
        self._pump_due = False
        if not self._waiting and not self._sent:
            self._idle.set()
        if not self._link.drained:
            return
        jobs: list[bytes] = []
        while self._waiting:
            # After a crash its suspects go one at a time, so that the next crash names the culprit.
            suspects = self._waiting[0].tries or any(item.tries for item in self._sent.values())
            if self._unanswered >= (1 if suspects else self._limits.window_count):
                break
            item = self._waiting.popleft()
            self._sent[item.job_id] = item
            self._unanswered += 1
            jobs.append(item.data)
        if jobs:
            self._link.send(*jobs)

    def _begin(self) -> None:
        """A worker listens that knows nothing."""
        self._unanswered, self._ready = 0, False
        self._link.send(self._hello)
        self._pump()

    def _hear(self, body: bytes) -> None:
        message = decode_from_worker(body)
        if isinstance(message, Done):
            self._finished(message)
            self._pump_soon()
        elif isinstance(message, DriftNews):
            self.drift_news[message.release, message.component] = message
            while len(self.drift_news) > DRIFT_NEWS_COUNT:
                del self.drift_news[next(iter(self.drift_news))]
        elif isinstance(message, Ready):
            self._ready, self._embedder_line, self._problem = True, message.embedder_line, message.problem
            self._blind = message.blind

    def _finished(self, done: Done) -> None:
        self._unanswered = max(0, self._unanswered - 1)
        item = self._sent.pop(done.job_id, None)
        if item is None:
            return  # given up meanwhile; once is enough
        self._bytes -= len(item.data)
        self._checked_count += 1
        self._redacted_count += done.redacted_count
        if done.redacted_count:
            self._counters.inc("sft_guard_redacted_total", {}, done.redacted_count)
        if done.judge_usd:
            self._counters.inc("sft_cost_judge_usd_total", {"release": item.exchange.release}, done.judge_usd)
        if any(f.check == "judge" and f.reason.startswith("judge_anomaly") for f in done.findings):
            self._counters.inc("sft_guard_failopen_total", _ANOMALY_LABELS)
        checked = any(f.result is not CheckResult.UNAVAILABLE for f in done.findings)
        self._tell(with_findings(item.exchange, done.findings), done.text, checked=checked)

    # -- the life of the worker -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the worker and its supervision; does not wait until the worker is ready."""
        self._loop = asyncio.get_running_loop()
        self._link.start()
        self._sweeper = self._loop.create_task(self._sweep())

    async def stop(self) -> None:
        """Take nothing new, let the worker finish for at most `flush_s`, give up the rest, end the worker."""
        self._stopping = True
        if self._waiting or self._sent:
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), self._limits.flush_s)
            except TimeoutError:
                pass  # the rest is given up below
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        try:
            await self._link.stop()
        finally:
            for item in (*self._sent.values(), *self._waiting):
                self._give_up([item.exchange], "stopped")
            self._tell_given_up()
            self._sent.clear()
            self._waiting.clear()
            self._bytes = 0

    def _after_death(self) -> None:
        """Put back what the dead worker held, once; a text that was there at two deaths is given up."""
        held = list(self._sent.values())
        self._sent.clear()
        self._unanswered, self._ready = 0, False
        for item in reversed(held):
            item.tries += 1
            if item.tries >= TRIES:
                self._bytes -= len(item.data)
                self._give_up([item.exchange], "poison")
            else:
                self._waiting.appendleft(item)

    async def _sweep(self) -> None:
        """Give up what has waited too long; kill a worker that has work and says nothing."""
        while True:
            await self._clock.sleep(self._limits.sweep_s)
            now_s = self._clock.now_s()
            while self._give_up_older_than(now_s - self._limits.age_s):
                await self._clock.sleep(0)  # the requests come first
            silent_s = now_s - self._link.heard_s
            if self._link.alive and self._unanswered and silent_s > self._limits.hang_s:
                log.warning("check worker says nothing for %.0f s; killing it", silent_s)
                self._link.kill()

    def _give_up_older_than(self, limit_s: float) -> bool:
        """Some of them; whether there may be more."""
        old = [item for item in self._sent.values() if item.since_s < limit_s]
        for item in old:
            del self._sent[item.job_id]
        while self._waiting and self._waiting[0].since_s < limit_s and len(old) < OLD_AT_ONCE_COUNT:
            old.append(self._waiting.popleft())
        for item in old:
            self._bytes -= len(item.data)
            self._give_up([item.exchange], "too_late")
        if not self._waiting and not self._sent:
            self._idle.set()
        return len(old) >= OLD_AT_ONCE_COUNT

    # -- what is shown --------------------------------------------------------------------------------------------

    def stats(self) -> PipelineStats:
        """State of the queue and the worker now."""
        pid = self._link.pid
        alive = pid is not None and self._link.alive
        return PipelineStats(
            queue_length=len(self._waiting) + len(self._sent),
            queue_bytes=self._bytes,
            coverage_ratio=self._recent_checked / len(self._recent) if self._recent else None,
            checked_count=self._checked_count,
            dropped=tuple(self._dropped.most_common()),
            worker_alive=alive,
            worker_pid=pid if alive else None,
            worker_ready=alive and self._ready,
            restart_count=self._link.restart_count,
            heartbeat_age_s=self._clock.now_s() - self._link.heard_s if alive else None,
            embedder_line=self._embedder_line,
            problem=self._problem,
            redacted_count=self._redacted_count,
            blind=self._blind,
        )
