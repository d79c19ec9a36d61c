"""The metrics of the guard: own counters on the path of an answer, rendered when somebody scrapes.

    served(exchange), checked(exchange)     the event loop, once per exchange, under a microsecond or two
    inc, set, observe, fail_open            anybody, any thread
    gauge_source(f)                         values that are asked for at scrape time instead of pushed
    render(), scrape()                      text, at most once per `cache_s`

prometheus_client costs 1.7-2.8 us per labelled increment; a cell that is found by one dict lookup costs a tenth.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from exporters.bounds import (
    LATENCY_BOUNDS_S,
    OVERHEAD_BOUNDS_S,
    REDIS_BOUNDS_S,
    RETRIEVAL_BOUNDS_S,
    SCORE_BOUNDS,
    merge_bounds,
)
from exporters.labels import OTHER, clean
from exporters.series import Cell, Distribution, SeriesTable
from exporters.text import FamilyText, Histogram, Sample, render
from slo.clock import Clock, SystemClock
from slo.metric_names import METRICS
from slo.types import FAILURES, CacheStatus, CheckResult, Exchange, Finding, Outcome

log = logging.getLogger("sft_guard.metrics")

GaugeRow = tuple[str, Mapping[str, str], float | None]
GaugeSource = Callable[[], Iterable[GaugeRow]]
NO_LABELS: Mapping[str, str] = {}

# The user waited for these; a refusal after 1 ms says nothing about latency. The windows of the sidecar count the same
# exchanges, so that a rule gives the same verdict here and in Prometheus.
_TIMED = FAILURES | {Outcome.OK}
_OK, _HIT = Outcome.OK, CacheStatus.HIT
_RETRIEVAL = {CheckResult.PASS: "hit", CheckResult.FAIL: "zero_hit", CheckResult.UNAVAILABLE: "error"}
_PULLED_SHARE = 4  # so that no flood of label values can hide the six exact gauges


class _Served:
    """The cells of one (route, release, outcome, cache), so that an answer costs one lookup."""

    __slots__ = (
        "duration",
        "first_token",
        "lookups",
        "money",
        "priced",
        "requests",
        "throttled",
        "timed",
        "tokens_in",
        "tokens_out",
    )

    def __init__(self, requests: Cell, lookups: Cell | None, *, timed: bool) -> None:
        self.requests = requests
        self.lookups = lookups
        self.timed = timed
        # Made at their first use: a series that was never measured is absent.
        self.duration: Distribution | None = None
        self.first_token: Distribution | None = None
        self.throttled: Cell | None = None
        self.money: Cell | None = None
        self.priced: Cell | None = None
        self.tokens_in: Cell | None = None
        self.tokens_out: Cell | None = None


class _Checked:
    """The cells of one (release, check, result)."""

    __slots__ = ("results", "scores")

    def __init__(self, results: Cell) -> None:
        self.results = results
        self.scores: Distribution | None = None


class PrometheusExporter:
    """Every `sft_*` series of this process.

    service: value of the `service` label. latency_bounds_s: the latency thresholds of the SLO file, each of which
    becomes a bucket bound. max_series: three quarters of it are the most lines of what is counted here, whatever label
    values come from outside; as many as all of it may be asked for at scrape time, whose labels are our own: with 100
    objectives two releases in traffic need 1,900. What finds no place is counted in `sft_guard_series_dropped_total`.
    cache_s: how long a rendered scrape is served again.
    """

    def __init__(
        self,
        service: str,
        latency_bounds_s: Iterable[float],
        max_series: int = 2000,
        *,
        clock: Clock | None = None,
        cache_s: float = 1.0,
    ) -> None:
        self._service = clean(service)
        self._clock = clock or SystemClock()
        self._cache_s = cache_s
        self._max_pulled = max_series
        latency = merge_bounds(LATENCY_BOUNDS_S, latency_bounds_s)
        self._table = SeriesTable(
            {
                "sft_perf_request_duration_seconds": latency,
                "sft_perf_time_to_first_token_seconds": LATENCY_BOUNDS_S,
                "sft_perf_retrieval_duration_seconds": RETRIEVAL_BOUNDS_S,
                "sft_perf_overhead_seconds": OVERHEAD_BOUNDS_S,
                "sft_quality_score": SCORE_BOUNDS,
                "sft_cache_redis_duration_seconds": REDIS_BOUNDS_S,
            },
            max_series - max_series // _PULLED_SHARE,
        )
        self._served: dict[tuple[str, str, Outcome, CacheStatus], _Served] = {}
        self._checked: dict[tuple[str, str, CheckResult], _Checked] = {}
        self._cells: dict[tuple[object, ...], Cell] = {}
        self._overhead: Distribution | None = None
        self._sources: list[GaugeSource] = []
        self._add_lock = threading.Lock()
        self._render_lock = threading.Lock()
        self._rendered: dict[bool, tuple[float, bytes]] = {}
        self._started_s = self._clock.now_s()

    # -- once per exchange, on the event loop -------------------------------------------------------------------

    def served(self, exchange: Exchange) -> None:
        """Count one exchange at its end. Only from the event loop: the cells it adds to have no lock."""
        self.served_many((exchange,))

    def served_many(self, exchanges: Iterable[Exchange]) -> None:
        """`served` for many; those of one kind follow each other as a rule, and their cells are looked up once."""
        last: tuple[str, str, Outcome, CacheStatus] | None = None
        cells: _Served | None = None
        for exchange in exchanges:
            key = (exchange.route, exchange.release, exchange.outcome, exchange.cache)
            if key != last:
                cells = self._served.get(key)
                last = None if cells is None else key
                if cells is None:
                    cells = self._new_served(key)
            if cells is not None:
                self._count_served(cells, key, exchange)

    def _count_served(self, cells: _Served, key: tuple[str, str, Outcome, CacheStatus], exchange: Exchange) -> None:
        cells.requests.n += 1
        throttled = exchange.reason == "throttled"
        if cells.timed and not throttled:
            if cells.duration is None:
                name = "sft_perf_request_duration_seconds"
                cells.duration = self._distribution(name, (key[0], key[1], key[3].value))
            if cells.duration is not None:
                _observe_duration(cells.duration, exchange)
        if cells.lookups is not None:
            cells.lookups.n += 1
        if exchange.first_token_s is not None:
            if cells.first_token is None:
                cells.first_token = self._distribution("sft_perf_time_to_first_token_seconds", key[:2])
            if cells.first_token is not None:
                cells.first_token.observe(exchange.first_token_s)
        if exchange.overhead_s is not None:
            if self._overhead is None:
                self._overhead = self._distribution("sft_perf_overhead_seconds", ("total",))
            if self._overhead is not None:
                self._overhead.observe(exchange.overhead_s)
        if exchange.cost_usd is not None:
            cells.money = _add(cells.money or self._cell("sft_cost_usd_total", (key[1],)), exchange.cost_usd)
            cells.priced = _add(cells.priced or self._cell("sft_cost_inferences_total", (key[1],)), 1)
        if exchange.input_tokens is not None:
            cells.tokens_in = _add(
                cells.tokens_in or self._cell("sft_cost_tokens_total", (key[1], "input")), exchange.input_tokens
            )
        if exchange.output_tokens is not None:
            cells.tokens_out = _add(
                cells.tokens_out or self._cell("sft_cost_tokens_total", (key[1], "output")), exchange.output_tokens
            )
        if throttled:
            cells.throttled = _add(cells.throttled or self._cell("sft_availability_throttled_total", key[:2]), 1)

    def checked(self, exchange: Exchange, text: Mapping[str, object] | None = None) -> None:
        """Count the findings of one exchange. Only from the event loop.

        text: what was said; of it only what the answer path reports of itself is read here: `retrieval_s` (seconds),
        `answer_source`, `escalated`.
        """
        release = exchange.release
        if exchange.outcome is not Outcome.OK or exchange.cache is CacheStatus.HIT:
            return  # Only whole, fresh answers say something about the quality of a release.
        for finding in exchange.findings:
            key = (release, finding.check, finding.result)
            cells = self._checked.get(key) or self._new_checked(key)
            if cells is None:
                continue
            cells.results.n += 1
            score = finding.score
            if score is not None and 0.0 <= score <= 1.0:  # also keeps NaN out of the sum
                if cells.scores is None:
                    cells.scores = self._distribution("sft_quality_score", key[:2])
                if cells.scores is not None:
                    cells.scores.observe(score)
            if finding.check == "zero_hit" and (result := _RETRIEVAL.get(finding.result)):
                self.inc("sft_quality_retrievals_total", {"release": release, "result": result})
        if text is None:
            return
        if isinstance(retrieval_s := text.get("retrieval_s"), (int, float)):
            self.observe("sft_perf_retrieval_duration_seconds", {"release": release}, float(retrieval_s))
        if isinstance(source := text.get("answer_source"), str) and source:
            self.inc("sft_quality_answers_total", {"release": release, "source": source})
        if text.get("escalated") is True:
            self.inc("sft_quality_escalations_total", {"release": release})

    def given_up(self, exchanges: Sequence[Exchange], findings: tuple[Finding, ...]) -> None:
        """`checked` for many exchanges nobody looked at. Only from the event loop."""
        counts: Counter[str] = Counter()
        for exchange in exchanges:
            if exchange.outcome is _OK and exchange.cache is not _HIT:
                counts[exchange.release] += 1
        for release, count in counts.items():
            for finding in findings:
                key = (release, finding.check, finding.result)
                cells = self._checked.get(key) or self._new_checked(key)
                if cells is not None:
                    cells.results.n += count
                if finding.check == "zero_hit" and (result := _RETRIEVAL.get(finding.result)):
                    self.inc("sft_quality_retrievals_total", {"release": release, "result": result}, count)

    # -- anybody, any thread ------------------------------------------------------------------------------------

    def fail_open(self, dep: str, reason: str) -> None:
        """Count one answer that was served past a broken dependency; words from `exporters.labels`."""
        self.inc("sft_guard_failopen_total", {"dep": dep, "reason": reason})

    def inc(self, metric: str, labels: Mapping[str, str] = NO_LABELS, n: float = 1) -> None:
        """Add `n` >= 0 to a counter."""
        cell = self._any_cell(metric, labels)
        if cell is not None and n >= 0:
            with self._add_lock:
                cell.n += n

    def set(self, metric: str, labels: Mapping[str, str], value: float | None) -> None:
        """Set a gauge; None or NaN makes it absent."""
        if value is not None and not math.isnan(value):
            cell = self._any_cell(metric, labels)
            if cell is not None:
                cell.n = value
        elif (values := self._table.key(metric, labels)) is not None:
            self._table.remove(metric, values)
            self._cells.pop((metric, *labels.items()), None)

    def observe(self, metric: str, labels: Mapping[str, str], value: float) -> None:
        """Add one value to a histogram; a value that is not finite counts as dropped."""
        values = self._table.key(metric, labels)
        if values is None:
            return
        if not math.isfinite(value):
            self._table.drop()
            return
        found, _ = self._table.distribution(metric, values)
        if found is not None:
            with self._add_lock:
                found.observe(value)

    def gauge_source(self, source: GaugeSource) -> None:
        """Ask `source` for (metric, labels, value) rows at every scrape; None and NaN values are absent.

        `scrape()` asks on the event loop, so a source may read what the loop writes. One that raises costs its own
        gauges for this scrape and a count in `sft_guard_failopen_total{dep="metrics"}`.
        """
        self._sources.append(source)

    def set_latency_bounds(self, latency_bounds_s: Iterable[float]) -> None:
        """Take the latency thresholds of another SLO file. Only from the event loop.

        Where a bound changes the histogram of durations begins anew; without a change nothing happens.
        """
        if self._table.rebound("sft_perf_request_duration_seconds", merge_bounds(LATENCY_BOUNDS_S, latency_bounds_s)):
            self._served = {}  # their cells hold the old histograms; everything else of them is found again

    def keep_releases(self, kept: Collection[str]) -> None:
        """Drop all series of releases that are not among these, so that those gone do not fill the cap.

        Only from the event loop. An answer of theirs that is still under way brings some back, until the next call.
        """
        gone = self._table.values_of("release") - {*kept, "", OTHER}
        if not gone:
            return
        for release in gone:
            self._table.forget("release", release)
        self._served = {key: cells for key, cells in self._served.items() if clean(key[1]) not in gone}
        self._checked = {key: cells for key, cells in self._checked.items() if clean(key[0]) not in gone}
        cells = list(self._cells.items())  # another thread may add one meanwhile
        self._cells = {key: cell for key, cell in cells if not any(("release", release) in key for release in gone)}

    # -- scrape -------------------------------------------------------------------------------------------------

    async def scrape(self, *, openmetrics: bool = False) -> bytes:
        """Collect the gauges here, render in a thread: the loop never waits for text."""
        fresh = self._fresh(openmetrics)
        if fresh is not None:
            return fresh
        return await asyncio.to_thread(self._render, openmetrics, self.collect())

    def render(self, *, openmetrics: bool = False) -> bytes:
        """Return the scrape, at most `cache_s` old. Gauge sources are asked on the calling thread."""
        fresh = self._fresh(openmetrics)
        return fresh if fresh is not None else self._render(openmetrics, self.collect())

    def collect(self) -> list[GaugeRow]:
        """Ask every gauge source; the first rows win when there are more than fit."""
        rows: list[GaugeRow] = []
        for source in self._sources:
            try:
                rows.extend(source())
            except Exception:  # A source is foreign code; its fault must not take the other metrics away.
                log.debug("a gauge source failed", exc_info=True)
                self.fail_open("metrics", "error")
        return rows

    def _fresh(self, openmetrics: bool) -> bytes | None:
        known = self._rendered.get(openmetrics)
        return known[1] if known is not None and self._clock.now_s() - known[0] < self._cache_s else None

    def _render(self, openmetrics: bool, rows: Sequence[GaugeRow]) -> bytes:
        with self._render_lock:
            fresh = self._fresh(openmetrics)
            if fresh is not None:
                return fresh
            body = render(self._service, self._families(rows), openmetrics=openmetrics)
            self._rendered[openmetrics] = (self._clock.now_s(), body)
            return body

    def _families(self, rows: Sequence[GaugeRow]) -> list[FamilyText]:
        pulled = self._pulled(rows)
        texts: list[FamilyText] = []
        for name, metric in METRICS.items():
            family = self._table.families[name]
            # list() of a dict view runs without releasing the interpreter: a consistent copy beside the hot path.
            gauges = dict(list(family.cells.items()))
            samples: list[Sample | Histogram] = [
                Sample(values, cell.n) for values, cell in gauges.items() if values not in pulled.get(name, {})
            ]
            samples += [Sample(values, value) for values, value in pulled.get(name, {}).items()]
            samples += [
                Histogram(values, d.bounds, tuple(d.counts), d.total, dict(d.exemplars))
                for values, d in list(family.distributions.items())
            ]
            texts.append(FamilyText(metric, samples))
        return texts

    def _pulled(self, rows: Sequence[GaugeRow]) -> dict[str, dict[tuple[str, ...], float]]:
        found: dict[str, dict[tuple[str, ...], float]] = {}
        count = 0
        uptime: GaugeRow = ("sft_guard_uptime_seconds", NO_LABELS, self._clock.now_s() - self._started_s)
        for name, labels, value in (uptime, *rows):
            if value is None or math.isnan(value):
                continue
            values = self._table.pulled_key(name, labels)
            if values is None:
                continue
            series = found.setdefault(name, {})
            if values not in series:
                if count >= self._max_pulled - 1:
                    self._table.drop()
                    continue
                count += 1
            series[values] = value
        found["sft_guard_series_dropped_total"] = {(): self._table.dropped_count}
        return found

    # -- cells --------------------------------------------------------------------------------------------------

    def _new_served(self, key: tuple[str, str, Outcome, CacheStatus]) -> _Served | None:
        route, release, outcome, cache = key
        values = (route, release, outcome.value, cache.value)
        requests, exact = self._table.cell("sft_availability_requests_total", values)
        if requests is None:
            return None
        lookups = None
        if cache is not CacheStatus.BYPASS:
            lookups = self._cell("sft_cache_lookups_total", (release, cache.value))
        cells = _Served(requests, lookups, timed=outcome in _TIMED)
        if exact:
            self._served[key] = cells
        return cells

    def _new_checked(self, key: tuple[str, str, CheckResult]) -> _Checked | None:
        release, check, result = key
        results, exact = self._table.cell("sft_quality_checks_total", (release, check, result.value))
        if results is None:
            return None
        cells = _Checked(results)
        if exact:
            self._checked[key] = cells
        return cells

    def _cell(self, name: str, values: tuple[str, ...]) -> Cell | None:
        return self._table.cell(name, values)[0]

    def _distribution(self, name: str, values: tuple[str, ...]) -> Distribution | None:
        return self._table.distribution(name, values)[0]

    def _any_cell(self, metric: str, labels: Mapping[str, str]) -> Cell | None:
        key = (metric, *labels.items())
        cell = self._cells.get(key)
        if cell is None:
            values = self._table.key(metric, labels)
            if values is None:
                return None
            cell, exact = self._table.cell(metric, values)
            if cell is not None and exact:
                self._cells[key] = cell
        return cell


def _add(cell: Cell | None, n: float) -> Cell | None:
    if cell is not None:
        cell.n += n
    return cell


def _observe_duration(durations: Distribution, exchange: Exchange) -> None:
    index = durations.observe(exchange.duration_s)
    if exchange.traceparent:
        # The 32 digits of "00-<trace id>-<span id>-01"; cleaned when rendered, not here.
        trace_id, duration_s = exchange.traceparent[3:35], exchange.duration_s
        durations.exemplars[index] = (trace_id, duration_s, exchange.wall_s + duration_s)
