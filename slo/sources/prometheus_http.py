"""Readings of a whole fleet: the windows of every replica, added up by Prometheus (or what speaks its API).

Asked for ahead of time by a loop of its own (`run`), one bounded batch per evaluation; whoever judges reads the last
answers and never waits. What is not known is never a zero:

    no series of the service or release    a reading of 0 events: silence, so the verdict is unknown
    a query failed or ran out of time      SourceError for what it would have answered
    the newest sample is old               SourceError for everything: nobody scrapes, or the replicas are gone
    this loop did not come by              the same
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from slo.clock import Clock
from slo.errors import SourceError
from slo.evaluation import MIN_COVERAGE_RATIO, MIN_SHOWN_EVENTS, current_value
from slo.metric_names import INDICATORS
from slo.sources.window_queries import QUANTILE, RESOLUTION, Ask, asks_for, lengths_of, newest_sample
from slo.types import Reading, Slo

ANSWER_BYTES = 8 * 2**20
AT_ONCE = 6

Row = tuple[Mapping[str, str], float, float]
"""Labels, second of the evaluation, value."""
AskPrometheus = Callable[[str, float | None], Awaitable[list[Row]]]
"""(PromQL, Unix second or now) -> rows of an instant vector. Raises SourceError."""


@dataclass(frozen=True, slots=True)
class _Window:
    """What is known of one window. names: objectives that were asked for. failed: what could not be asked, by kind."""

    asked_s: float
    names: frozenset[str] = frozenset()
    sums: Mapping[str, Mapping[tuple[str, str], float]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


class PrometheusWindows:
    """The windows of all replicas of one service.

    labels: matchers of every series beside `service`. scrape_s: how often replicas are scraped. stale_s: age of the
    newest sample from which nothing is believed. budget_s: how long one batch may take; what is late has failed.
    on_fault: told of every batch that was not answered in full: timeout | error | stalled.
    """

    def __init__(
        self,
        slos: tuple[Slo, ...],
        ask: AskPrometheus,
        clock: Clock,
        *,
        service: str,
        labels: Mapping[str, str] | None = None,
        scrape_s: float = 15.0,
        stale_s: float = 60.0,
        budget_s: float = 3.0,
        every_s: float = 5.0,
        on_fault: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self._slos, self._ask, self._clock = slos, ask, clock
        self._labels = {"service": service, **(labels or {})}
        self._scrape_s, self._stale_s, self._budget_s, self.every_s = scrape_s, stale_s, budget_s, every_s
        self._on_fault = on_fault
        self._windows: dict[tuple[float, str], _Window] = {}
        self._newest: tuple[float, float | None] | None = None  # second of Prometheus, newest sample then
        self._fetched_s: float | None = None
        self._born: dict[str, float] = {}  # release -> second of Prometheus at which its present life began
        self._begun: dict[str, float | None] = {}  # to be placed: release -> Unix second of our clock, None: now
        self._life: dict[str, str] = {}  # release -> label `life` of its counters in its present life
        self.problem = "not asked yet"

    # -- asking -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask forever; cancel to stop."""
        while True:
            await self.refresh()
            await self._clock.sleep(self.every_s)

    async def refresh(self) -> None:
        """One batch: what is due, within the budget. Never raises what Prometheus or the network may do."""
        started_s = self._clock.now_s()
        try:
            async with asyncio.timeout(self._budget_s):
                rows = await self._ask(newest_sample(self._labels), None)
        except (SourceError, TimeoutError) as error:
            self._lost(error)
            return
        evaluated_s = rows[0][1] if rows else self._prometheus_s() or self._clock.wall_s()
        newest_s = rows[0][2] if rows else None
        for release, wall_s in self._begun.items():
            self._born[release] = evaluated_s - (0.0 if wall_s is None else max(0.0, self._clock.wall_s() - wall_s))
        self._windows = {key: window for key, window in self._windows.items() if key[1] not in self._begun}
        self._begun = {}
        self._newest, self._fetched_s = (evaluated_s, newest_s), started_s
        self.problem = ""
        if newest_s is None:
            self._windows = {}
            return
        await self._fill(newest_s, started_s)

    async def _fill(self, at_s: float, started_s: float) -> None:
        slos = self._slos
        lengths = sorted({length_s for slo in slos for length_s in lengths_of(slo)})
        wanted: dict[tuple[float, str], list[Ask]] = {}
        for length_s in lengths:
            if self._due((length_s, ""), length_s, started_s):
                wanted[length_s, ""] = list(asks_for(slos, length_s, self._labels))
            for release, born_s in self._born.items():
                # A release that began a new life within the window: only what came after counts.
                span_s = at_s - born_s
                if self._scrape_s <= span_s < length_s and self._due((length_s, release), span_s, started_s):
                    wanted[length_s, release] = list(
                        asks_for(
                            slos,
                            length_s,
                            self._labels,
                            release=release,
                            span_s=span_s,
                            life=self._life.get(release, ""),
                        )
                    )
        gate = asyncio.Semaphore(AT_ONCE)
        results: dict[Ask, list[Row] | str] = {}

        async def one(ask: Ask) -> None:
            async with gate:
                try:
                    results[ask] = await self._ask(ask.promql, at_s)
                except SourceError as error:
                    results[ask] = str(error)

        tasks = [asyncio.ensure_future(one(ask)) for asks in wanted.values() for ask in asks]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._budget_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        known = {
            key: w for key, w in self._windows.items() if key[0] in lengths and (not key[1] or key[1] in self._born)
        }
        for key, asks in wanted.items():
            names = frozenset(slo.name for slo in slos if key[0] in lengths_of(slo))
            known[key] = self._window(asks, results, started_s, names)
        self._windows = known

    def _window(
        self, asks: list[Ask], results: Mapping[Ask, list[Row] | str], started_s: float, names: frozenset[str]
    ) -> _Window:
        sums: dict[str, dict[tuple[str, str], float]] = {}
        failed: dict[str, str] = {}
        for ask in asks:
            got = results.get(ask, f"prometheus: no answer in {self._budget_s:g} s")
            what = f"{QUANTILE} {ask.slo}" if ask.what == QUANTILE else ask.what
            if isinstance(got, str):
                failed[what] = self.problem = got
                self._on_fault("timeout" if ask not in results else "error")
                continue
            table = sums.setdefault(what, {})
            for labels, _, value in got:
                table[labels.get("release", ""), labels.get("slo", ask.slo)] = value
        return _Window(started_s, names, sums, failed)

    def _due(self, key: tuple[float, str], span_s: float, now_s: float) -> bool:
        known = self._windows.get(key)
        if known is None or known.failed:
            return True
        return now_s - known.asked_s >= max(self.every_s, span_s / RESOLUTION) - 0.5

    def _lost(self, error: Exception) -> None:
        late = isinstance(error, TimeoutError)
        self.problem = f"prometheus: no answer in {self._budget_s:g} s" if late else str(error)
        self._newest = None
        self._on_fault("timeout" if late else "error")

    # -- answering --------------------------------------------------------------------------------------------------

    def reading(self, slo: Slo, release: str, length_s: float | None = None) -> Reading:
        """Return the reading of an objective for one release over all replicas; may be asked for from any thread.

        Raises:
            SourceError: not known now; says nothing about health.
        """
        length_s = slo.window.length_s if length_s is None else length_s
        window = self._known(slo.name, length_s, release)
        if window is None:
            return Reading(0, 0)
        key = (release, slo.name)
        count = round(self._sum(window, "events", key))
        if INDICATORS[slo.indicator].kind == "mean":
            total, squares = self._sum(window, "values", key), self._sum(window, "squares", key)
            return Reading(0, count, total, squares, self._coverage(window, key, count))
        bad = min(count, round(self._sum(window, "bad", key)))
        return Reading(bad, count, coverage_ratio=self._coverage(window, key, count))

    def objective_value(self, slo: Slo, release: str) -> float | None:
        """Return the present value in inside units, None while unknown. Latency: interpolated between bucket bounds.

        Raises:
            SourceError: not known now.
        """
        reading = self.reading(slo, release)
        if reading.count < MIN_SHOWN_EVENTS or reading.coverage_ratio < MIN_COVERAGE_RATIO:
            return None
        indicator = INDICATORS[slo.indicator]
        if indicator.kind != "latency":
            return current_value(indicator, reading)
        window = self._known(slo.name, slo.window.length_s, release)
        quantiles = window.sums.get(f"{QUANTILE} {slo.name}", {}) if window is not None else {}
        value = quantiles.get((release, slo.name))
        return value if value is not None and math.isfinite(value) else None

    def forget(self, release: str, life: str = "") -> None:
        """A release begins a new life: nothing that it was counted for before is held against it.

        life: label of its counters from now on. A replica that learns of the new life later goes on counting under
        the former label until then, checks that come late among them.
        """
        self._begin(release, life, None)

    def go_on(self, release: str, life: str, began_wall_s: float) -> None:
        """A life that began before this process did, at this Unix second: what was before it stays forgotten."""
        self._begin(release, life, began_wall_s)

    def _begin(self, release: str, life: str, wall_s: float | None) -> None:
        self._begun[release] = wall_s
        self._life.pop(release, None)
        if life:
            self._life[release] = life

    def replace_objectives(self, slos: tuple[Slo, ...]) -> None:
        """Other objectives from the next batch on; those that are new are unknown until then."""
        self._slos = slos

    def _known(self, name: str, length_s: float, release: str) -> _Window | None:
        """The window to read, None for silence."""
        newest = self._newest
        if newest is None or self._fetched_s is None:
            raise SourceError(self.problem)
        asked_ago_s = self._clock.now_s() - self._fetched_s
        if asked_ago_s > max(self._stale_s, 3 * self.every_s):
            raise SourceError(f"prometheus: last asked {asked_ago_s:.0f} s ago")
        evaluated_s, newest_s = newest
        if newest_s is None:
            return None
        age_s = evaluated_s - newest_s + asked_ago_s
        if age_s > self._stale_s + self.every_s:
            raise SourceError(f"prometheus: the newest sample is {age_s:.0f} s old; is the guard being scraped?")
        born_s = newest_s if release in self._begun else self._born.get(release)
        if born_s is not None and newest_s - born_s < length_s:
            if newest_s - born_s < self._scrape_s:
                return None  # nothing of its new life has been scraped
            window = self._windows.get((length_s, release))
        else:
            window = self._windows.get((length_s, ""))
        if window is None or name not in window.names:
            # Not a zero: nobody asked for it. A new objective is unknown until the next batch.
            raise SourceError(f"prometheus: {name} over {length_s:g} s was not asked for yet")
        return window

    def _sum(self, window: _Window, what: str, key: tuple[str, str]) -> float:
        if what in window.failed:
            raise SourceError(window.failed[what])
        value = window.sums.get(what, {}).get(key, 0.0)
        if not math.isfinite(value):
            raise SourceError(f"prometheus: {what} of {key[1]} is {value}")
        return max(0.0, value)

    def _coverage(self, window: _Window, key: tuple[str, str], count: int) -> float:
        unjudged = self._sum(window, "unjudged", key)
        return count / (count + unjudged) if count + unjudged else 1.0

    def _prometheus_s(self) -> float | None:
        return self._newest[0] if self._newest else None


class PrometheusClient:
    """Instant queries over HTTP. url: `http(s)://host:port[/prefix]`; no redirects are followed.

    connector: makes what a session connects with; it is asked for when the first query is sent.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = 3.0,
        connector: Callable[[], aiohttp.BaseConnector] | None = None,
    ) -> None:
        self._url = url.rstrip("/") + "/api/v1/query"
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._connector = connector
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, promql: str, at_s: float | None = None) -> list[Row]:
        """Return the rows of an instant vector. Raises SourceError."""
        if self._session is None:
            connector = self._connector() if self._connector is not None else None
            self._session = aiohttp.ClientSession(timeout=self._timeout, headers=self._headers, connector=connector)
        form = {"query": promql} | ({} if at_s is None else {"time": f"{at_s:.3f}"})
        try:
            async with self._session.post(self._url, data=form, allow_redirects=False) as response:
                raw = await response.content.read(ANSWER_BYTES)
                while not response.content.at_eof() and len(raw) < ANSWER_BYTES:
                    raw += await response.content.read(ANSWER_BYTES - len(raw))
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            cause = getattr(error, "os_error", error)  # the library's own sentence repeats the address
            what = (getattr(cause, "strerror", None) or str(cause) or type(error).__name__).splitlines()[0]
            raise SourceError(f"prometheus {self._url}: {what}; does it run, and is the address right?") from error
        return rows_of(raw, status, self._url)

    async def close(self) -> None:
        """Give connections back."""
        if self._session is not None:
            await self._session.close()


def rows_of(raw: bytes, status: int, place: str) -> list[Row]:
    """Read an answer of `/api/v1/query`.

    Raises:
        SourceError: an error, or not such an answer.

    >>> rows_of(b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{"slo":"p95"},'
    ...         b'"value":[1750000000.5,"7"]}]}}', 200, "p")
    [({'slo': 'p95'}, 1750000000.5, 7.0)]
    """
    try:
        answer: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, Any])
        if answer["status"] != "success":
            raise SourceError(f"prometheus {place}: {str(answer.get('error', status))[:200]}")
        if answer["data"]["resultType"] != "vector":
            raise SourceError(f"prometheus {place}: {answer['data']['resultType']} instead of a vector")
        result: Iterable[dict[str, Any]] = answer["data"]["result"]
        return [(dict(r["metric"]), float(r["value"][0]), float(r["value"][1])) for r in result]
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError, TypeError, ValueError, IndexError) as error:
        raise SourceError(f"prometheus {place}: HTTP {status}, not an answer of Prometheus; check the URL") from error
