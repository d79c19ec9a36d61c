"""The same events to the sidecar's evaluator and, as counters at each scrape, to the rules in Prometheus.

What must differ is known and left out by rule, not by eye: Prometheus sees a scrape late and judges every scrape, the
windows of the sidecar end on 10 s buckets. So every moment is also judged with windows moved by a scrape and a bucket
and with one event more or less bad; where any of that changes whether the objective fires, the moment is not compared,
and is counted as left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

from slo.evaluation import NOT_HELD, Held, advance, judge
from slo.indicators import LATENCY, checked_votes, served_votes
from slo.metric_names import INDICATORS
from slo.sources.memory import MemorySource
from slo.thresholds import Limit, limit_for
from slo.types import CheckResult, Exchange, Finding, Outcome, Reading, Slo, State, Verdict
from tests.unit.exporters_helpers import ManualClock

TICK_S, SCRAPE_S = 5.0, 15.0
SHIFTS_S = tuple(range(-30, 20, 5))
"""Ends of a window that either side may have used for a verdict at one moment."""
LENGTHS_S = (-10.0, 0.0, 15.0)
SETTLED_S = 45.0
"""A verdict is compared when it is the same this long before and after: a scrape, an evaluation, a bucket."""

FILE = """\
service: faq-bot
objectives:
  - {name: errors, indicator: sft_availability_success_rate, window: 5m, threshold: {absolute: 95%}, for: 6m,
     keep_firing_for: 2m, min_events: 60, action: rollback, fast: {over: 30%, window: 1m, min_events: 20}}
  - {name: grounded, indicator: sft_quality_hallucination_rate, window: 10m, threshold: {absolute: 5%}, for: 4m,
     keep_firing_for: 5m, min_events: 40, action: rollback, fast: off}
  - {name: p95, indicator: sft_perf_latency_p95_ms, window: 5m, threshold: {absolute: 900}, for: 30s, min_events: 50,
     keep_firing_for: 0s, action: shed}
  - {name: similar, indicator: sft_quality_similarity_score, window: 5m, threshold: {absolute: 80%}, min_events: 30,
     keep_firing_for: 1m, action: page}
  - {name: cost, indicator: sft_cost_inference_per_request_usd, window: 10m, threshold: {absolute: 0.02},
     min_events: 50, keep_firing_for: 1m}
  - {name: budget, indicator: sft_availability_llm_error_rate, window: 30d, threshold: {absolute: 1%}, min_events: 100,
     keep_firing_for: 1m, action: rollback, burn_rate: true, fast: off}
"""


SCRIPTS: dict[int, tuple[float, tuple[tuple[float, float, float], ...]]] = {
    # An outburst that the fast path sees, and a slow breach that outlasts its keep.
    1: (1.0, ((400, 0.0, 0.0), (60, 0.95, 0.0), (1000, 0.01, 0.0), (940, 0.0, 0.0))),
    # Half of few are bad: past the fast path's share, and not surely. Wrong answers that begin and end.
    2: (0.5, ((400, 0.0, 0.0), (700, 0.5, 0.4), (1300, 0.0, 0.0))),
}
"""Seed -> events a second, and phases of (seconds, share failing, share wrong): what chance alone meets too rarely."""


def stream(seed: int, length_s: float) -> list[tuple[float, Exchange]]:
    """Exchanges of one release: quiet, noisy and broken phases, pauses, and checks that sometimes cannot look."""
    chance, now_s, found = Random(seed), 0.0, []
    rate_per_s = chance.choice((0.3, 1.0, 2.0, 4.0))
    phase_end_s, failing, slow, wrong, blind, dear = 0.0, 0.0, 0.0, 0.0, 0.0, 1.0
    script: Iterator[tuple[float, float, float]] = iter(())
    if seed in SCRIPTS:
        rate_per_s, phases = SCRIPTS[seed]
        script = iter(phases)
    while True:
        if now_s >= phase_end_s and (phase := next(script, None)) is not None:
            phase_end_s, failing, wrong = phase_end_s + phase[0], phase[1], phase[2]
        elif now_s >= phase_end_s:
            phase_end_s = now_s + chance.uniform(120, 700)
            failing = chance.choice((0.0, 0.0, 0.01, 0.03, 0.08, 0.2, 0.5, 0.9))
            slow = chance.choice((0.0, 0.02, 0.04, 0.1, 0.4))
            wrong = chance.choice((0.0, 0.02, 0.04, 0.12, 0.4))
            blind = chance.choice((0.0, 0.0, 0.3, 0.8))
            dear = chance.choice((0.4, 0.8, 1.5))
            if chance.random() < 0.12:
                now_s = phase_end_s  # silence
        now_s += chance.expovariate(rate_per_s)
        if now_s >= length_s:
            return found
        result = CheckResult.FAIL if chance.random() < wrong else CheckResult.PASS
        if chance.random() < blind:
            result = CheckResult.UNAVAILABLE
        score = max(0.0, min(1.0, chance.gauss(0.9 - wrong, 0.08)))
        findings = (
            Finding("grounding", result, None),
            Finding("similarity", CheckResult.UNAVAILABLE if chance.random() < blind else CheckResult.PASS, score),
        )
        found.append((
            now_s,
            Exchange(
                str(len(found)), now_s, "chat", f"r{seed}", "stable",
                Outcome.SERVER_ERROR if chance.random() < failing else Outcome.OK, 200,
                duration_s=chance.uniform(1.0, 2.0) if chance.random() < slow else chance.uniform(0.1, 0.8),
                cost_usd=dear * 0.02 * chance.lognormvariate(0, 0.3), findings=findings,
            ),
        ))  # fmt: skip


@dataclass(slots=True)
class Ledger:
    """Running sums of one objective's events, so that the reading of any span is two look-ups."""

    times: list[float] = field(default_factory=list)
    rows: list[tuple[float, float, float, float, float]] = field(default_factory=list)  # bad count missed sum squares
    sums: list[tuple[float, ...]] = field(default_factory=list)

    def close(self) -> None:
        """Sum up; nothing is added after it."""
        start: tuple[float, ...] = (0.0,) * 5
        self.sums = list(
            accumulate(self.rows, lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)), initial=start)
        )

    def reading(self, from_s: float, to_s: float) -> Reading:
        """Events of (from_s, to_s]."""
        low, high = bisect_right(self.times, from_s), bisect_right(self.times, to_s)
        bad, count, missed, total, squares = (b - a for a, b in zip(self.sums[low], self.sums[high], strict=True))
        covered = count / (count + missed) if count + missed else 1.0
        return Reading(round(bad), round(count), total, squares, covered)


def ledger(slo: Slo, limit: Limit, events: Sequence[tuple[float, Exchange]]) -> Ledger:
    """What an objective counts of a stream."""
    made, indicator = Ledger(), INDICATORS[slo.indicator]
    wanted = LATENCY if indicator.kind == "latency" else slo.indicator
    for at_s, exchange in events:
        for name, bad, value in (*served_votes(exchange), *checked_votes(exchange)):
            if name != wanted:
                continue
            made.times.append(at_s)
            if bad is None:
                made.rows.append((0.0, 0.0, 1.0, 0.0, 0.0))
                continue
            if name is LATENCY:
                assert value is not None
                assert limit.value is not None
                bad = value > limit.value
            number = value or 0.0
            made.rows.append((float(bad), 1.0, 0.0, number, number * number))
    made.close()
    return made


@dataclass(frozen=True, slots=True)
class Samples:
    """Counters of one objective and release as scraped: one value per scrape."""

    events: tuple[float, ...]
    bad: tuple[float, ...]
    unjudged: tuple[float, ...]
    values: tuple[float, ...]
    squares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Watched:
    """What the sidecar said of one objective and release. fires: at each tick. sure: at each tick, whether plain
    counting leaves no doubt of it; then that is `counted`."""

    slo: Slo
    release: str
    fires: tuple[bool, ...]
    sure: tuple[bool, ...]
    counted: tuple[bool, ...]
    samples: Samples


def watch(slos: tuple[Slo, ...], seed: int, length_s: float) -> Iterator[Watched]:
    """Run a stream through the windows and the evaluator of the sidecar."""
    events, release = stream(seed, length_s), f"r{seed}"
    clock = ManualClock()
    memory = MemorySource(slos, clock)
    waiting = iter(events)
    following = next(waiting, None)
    held: dict[str, Held] = dict.fromkeys((s.name for s in slos), NOT_HELD)
    fires: dict[str, list[bool]] = {s.name: [] for s in slos}
    scraped: dict[str, list[tuple[float, ...]]] = {s.name: [] for s in slos}
    limits = {s.name: limit_for(s) for s in slos}
    ticks = int(length_s / TICK_S) + 1
    for tick in range(ticks):
        now_s = tick * TICK_S
        while following is not None and following[0] <= now_s:
            clock.advance(following[0] - clock.now_s())
            memory.served(following[1])
            memory.checked(following[1])
            following = next(waiting, None)
        clock.advance(now_s - clock.now_s())
        for slo in slos:

            def read(window_s: float, slo: Slo = slo) -> Reading:
                return memory.reading(slo, release, window_s)

            verdict = judge(slo, release, read, limits[slo.name])
            held[slo.name], verdict = advance(held[slo.name], verdict, now_s)
            fires[slo.name].append(verdict.firing)
            if now_s % SCRAPE_S == 0:
                tally = memory.tally(slo, release)
                row = (tally.count, tally.bad, tally.unjudged, tally.value_sum, tally.value_sq_sum)
                scraped[slo.name].append(row)
    for slo in slos:
        sure, counted = _sure(slo, limits[slo.name], ledger(slo, limits[slo.name], events), release, ticks)
        columns = tuple(tuple(column) for column in zip(*scraped[slo.name], strict=True))
        yield Watched(slo, release, tuple(fires[slo.name]), sure, counted, Samples(*columns))


def _sure(slo: Slo, limit: Limit, book: Ledger, release: str, ticks: int) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """At each tick: whether nothing within a scrape, a bucket and an event changes what fires; and what then does."""
    by_end: list[list[Verdict]] = []
    for tick in range(ticks + len(SHIFTS_S)):
        end_s = tick * TICK_S
        by_end.append([
            judge(slo, release, _reader(book, end_s, more_s, events), limit)
            for more_s in LENGTHS_S
            for events in (-1, 1)
        ])  # fmt: skip
    most: list[bool] = []
    least: list[bool] = []
    held_most = held_least = NOT_HELD
    for tick in range(ticks):
        near = [v for shift_s in SHIFTS_S for v in by_end[max(0, tick + round(shift_s / TICK_S))]]
        worst, best = max(near, key=_badness), min(near, key=_badness)
        held_most, said = advance(held_most, worst, tick * TICK_S)
        most.append(said.firing)
        held_least, said = advance(held_least, best, tick * TICK_S)
        least.append(said.firing)
    reach = round(SETTLED_S / TICK_S)
    sure = []
    for tick in range(ticks):
        span = range(max(0, tick - reach), min(ticks, tick + reach + 1))
        sure.append(len({most[t] for t in span} | {least[t] for t in span}) == 1)
    return tuple(sure), tuple(most)


def _badness(verdict: Verdict) -> int:
    return 2 if verdict.fast else int(verdict.state is State.BREACH)


def _reader(book: Ledger, end_s: float, more_s: float, events: int) -> Callable[[float], Reading]:
    def read(window_s: float) -> Reading:
        found = book.reading(end_s - window_s - more_s, end_s)
        count = max(0, found.count + events)
        bad = min(max(0, found.bad_count + events), count)
        kept = count / found.count if found.count else 0.0
        return Reading(bad, count, found.value_sum * kept, found.value_sq_sum * kept, found.coverage_ratio)

    return read
