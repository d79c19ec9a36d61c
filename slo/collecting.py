"""From exchanges to a baseline: streaming, with memory bounded by windows, not by exchanges.

Only healthy periods go in. A baseline taken while something was broken makes the breakage normal, so a person names
the incidents to leave out, and canaries never count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from statistics import fmean

from slo.artefact import (
    DAY_S,
    QUANTILES,
    Baseline,
    HourCoverage,
    HourValue,
    IndicatorBaseline,
    Measured,
    Statistic,
    hour_of_week,
    sealed,
)
from slo.errors import RefusedError
from slo.indicators import CACHE_HITS, LATENCY, LATENCY_P95, LATENCY_P99, Vote, checked_votes, served_votes
from slo.metric_names import INDICATORS
from slo.statistics import bootstrap_intervals, quantile, split_mix
from slo.types import CacheStatus, Exchange
from slo.windows import bin_key, quantile_of_bins

TimeRange = tuple[float, float]
"""From (included) and to (excluded), Unix seconds."""

MAX_DAYS = 100.0
MIN_WINDOW_EVENTS = 20
"""Fewer events than this in a window say nothing about a rate; the window gives no value."""
FUTURE_S = 300.0
PROGRESS_EVERY = 20_000
MEASURES = ("mean", *QUANTILES)

_LATENCIES = {LATENCY_P95: 0.95, LATENCY_P99: 0.99}


class _Tally:
    """Sums of one indicator in one window (or over all)."""

    __slots__ = ("bad", "bins", "count", "total", "unjudged")

    def __init__(self) -> None:
        self.count = self.bad = self.unjudged = 0
        self.total = 0.0
        self.bins: dict[int, float] = {}

    def vote(self, bad: bool | None, value: float | None, *, binned: bool) -> None:
        if bad is None:
            self.unjudged += 1
            return
        self.count += 1
        self.bad += bad
        if value is not None:
            self.total += value
            if binned:
                key = bin_key(value)
                self.bins[key] = self.bins.get(key, 0.0) + 1.0

    def value(self, indicator: str) -> float | None:
        """The indicator's own value of this window, None without events."""
        if not self.count:
            return None
        if indicator in _LATENCIES:
            return quantile_of_bins(self.bins, _LATENCIES[indicator])
        meant = INDICATORS[indicator]
        if meant.kind == "mean":
            return self.total / self.count
        bad_ratio = self.bad / self.count
        return bad_ratio if meant.worse == "up" else 1.0 - bad_ratio


class _Collector:
    """Everything counted while the exchanges stream by."""

    def __init__(self, windows_s: Sequence[float]) -> None:
        self.windows_s = windows_s
        self.tallies: dict[tuple[str, float, int], _Tally] = {}  # (indicator, window length, window number)
        self.overall: dict[str, _Tally] = {}
        self.hours: dict[int, list[int]] = {}  # hour of the week -> [exchanges, judged, should be judged]
        self.days: set[int] = set()
        self.releases: dict[str, int] = {}
        self.excluded: dict[str, int] = {}
        self.exchange_count = 0
        self.first_wall_s, self.last_wall_s = float("inf"), float("-inf")

    def leave_out(self, reason: str) -> None:
        self.excluded[reason] = self.excluded.get(reason, 0) + 1

    def take(self, exchange: Exchange) -> None:
        wall_s = exchange.wall_s
        self.exchange_count += 1
        self.first_wall_s, self.last_wall_s = min(self.first_wall_s, wall_s), max(self.last_wall_s, wall_s)
        self.days.add(int(wall_s // DAY_S))
        if exchange.release in self.releases or len(self.releases) < 100:
            self.releases[exchange.release] = self.releases.get(exchange.release, 0) + 1
        hour = self.hours.setdefault(hour_of_week(wall_s), [0, 0, 0])
        hour[0] += 1
        for vote in served_votes(exchange):
            self.vote(vote, wall_s)
        for vote in checked_votes(exchange):
            self.vote(vote, wall_s)
            hour[1] += vote[1] is not None
            hour[2] += 1

    def vote(self, vote: Vote, wall_s: float) -> None:
        name, bad, value = vote
        binned = name == LATENCY
        for window_s in self.windows_s:
            key = (name, window_s, int(wall_s // window_s))
            tally = self.tallies.get(key)
            if tally is None:
                tally = self.tallies[key] = _Tally()
            tally.vote(bad, value, binned=binned)
        self.overall.setdefault(name, _Tally()).vote(bad, value, binned=binned)


def collect(
    exchanges: Iterable[Exchange],
    *,
    window_s: float = 3600.0,
    more_windows_s: Sequence[float] = (),
    now_wall_s: float,
    min_days: float = 7.0,
    min_events: int = 1000,
    force: bool = False,
    exclusions: Sequence[TimeRange] = (),
    release: str | None = None,
    embedder: str = "",
    config_hash: str = "",
    measured: Sequence[Measured] = (),
    valid_days: float = 30.0,
    on_progress: Callable[[int], None] | None = None,
) -> Baseline:
    """Make a baseline of the healthy traffic in `exchanges`, in any order.

    Args:
        window_s, more_windows_s: lengths of the windows whose values form the distributions; one per window that
            a rule of the form `baseline` uses.
        now_wall_s: Unix seconds; creation time, and what lies more than 5 min after it is left out.
        min_days, min_events: below these it refuses, saying what is missing, unless `force`.
        exclusions: incidents, Unix seconds (from, to).
        release: take only this one (for rules of the form `previous`).
        on_progress: told the number of exchanges read, every 20,000.
    Raises:
        RefusedError: nothing usable, or too little of it ("too_little_traffic"); or spread over more than 100 days
            ("too_long").
    """
    windows_s = tuple(sorted({window_s, *more_windows_s}))
    collector = _Collector(windows_s)
    for number, exchange in enumerate(exchanges, 1):
        reason = _why_left_out(exchange, now_wall_s, exclusions, release)
        if reason == "cache hits":  # They were not generated, but the hit rate is made of them.
            collector.vote((CACHE_HITS, False, None), exchange.wall_s)
        if reason:
            collector.leave_out(reason)
        else:
            collector.take(exchange)
            if collector.last_wall_s - collector.first_wall_s > MAX_DAYS * DAY_S:
                raise RefusedError(
                    "too_long",
                    f"the exchanges span more than {MAX_DAYS:g} days; give fewer log files, or --exclude the old ones",
                )
        if on_progress and number % PROGRESS_EVERY == 0:
            on_progress(number)
    days = _days(collector)
    missing = _missing(collector, days, min_days, min_events)
    if not collector.exchange_count or (missing and not force):
        text = missing or "no usable exchange"
        raise RefusedError(
            "too_little_traffic", f"baseline refused: {text}{_left_out(collector)}; collect longer, or use --force"
        )
    return sealed(
        Baseline(
            created_wall_s=now_wall_s,
            expires_wall_s=now_wall_s + valid_days * DAY_S,
            first_wall_s=collector.first_wall_s,
            last_wall_s=collector.last_wall_s,
            days=days,
            window_s=window_s,
            exchange_count=collector.exchange_count,
            indicators=_indicators(collector, windows_s),
            hours=tuple(
                HourCoverage(hour, seen, judged / due if due else None)
                for hour, (seen, judged, due) in sorted(collector.hours.items())
            ),
            excluded=tuple(sorted(collector.excluded.items())),
            exclusions=tuple((float(start), float(end)) for start, end in exclusions),
            releases=tuple(sorted(collector.releases)),
            measured=tuple(measured),
            embedder=embedder,
            config_hash=config_hash,
            forced=bool(missing),
            forced_reason=missing,
        )
    )


def _why_left_out(exchange: Exchange, now_wall_s: float, exclusions: Sequence[TimeRange], release: str | None) -> str:
    """Closed set of reasons; "" to take it."""
    if exchange.arm == "canary":
        return "canary"
    if not 0.0 <= exchange.wall_s <= now_wall_s + FUTURE_S:
        return "wrong clock"
    if any(start <= exchange.wall_s < end for start, end in exclusions):
        return "excluded time"
    if release is not None and exchange.release != release:
        return "other release"
    if exchange.cache is CacheStatus.HIT:
        return "cache hits"
    return ""


def _days(collector: _Collector) -> float:
    """Hours from the first exchange to the last, whole ones, in days; at most the days that have any traffic."""
    if not collector.exchange_count:
        return 0.0
    hours = collector.last_wall_s // 3600 - collector.first_wall_s // 3600 + 1
    return float(min(hours / 24, len(collector.days)))


def _missing(collector: _Collector, days: float, min_days: float, min_events: int) -> str:
    """What is missing, in words; "" when nothing is."""
    found, lacks = [], []
    if days < min_days:
        found.append(f"{days:.1f} days of traffic, {min_days:g} needed")
        lacks.append(f"{min_days - days:.1f} days")
    if collector.exchange_count < min_events:
        found.append(f"{collector.exchange_count} exchanges, {min_events} needed")
        lacks.append(f"{min_events - collector.exchange_count} exchanges")
    return f"{' and '.join(found)}: {' and '.join(lacks)} missing" if found else ""


def _left_out(collector: _Collector) -> str:
    shown = ", ".join(f"{count} {reason}" for reason, count in sorted(collector.excluded.items()))
    return f" (left out: {shown})" if shown else ""


def _indicators(collector: _Collector, windows_s: Sequence[float]) -> tuple[IndicatorBaseline, ...]:
    """One entry per indicator and window length that has at least one window with enough events."""
    found = []
    grouped: dict[tuple[str, float], list[tuple[int, _Tally]]] = {}
    for (name, window_s, number), tally in collector.tallies.items():
        grouped.setdefault((name, window_s), []).append((number, tally))
    for indicator in INDICATORS:
        name = LATENCY if indicator in _LATENCIES else indicator
        overall = collector.overall.get(name)
        for window_s in windows_s:
            values = [
                (number * window_s, value)
                for number, tally in sorted(grouped.get((name, window_s), ()), key=lambda pair: pair[0])
                if tally.count >= MIN_WINDOW_EVENTS and (value := tally.value(indicator)) is not None
            ]
            total = overall.value(indicator) if overall else None
            if values and overall and total is not None:
                found.append(_indicator(indicator, window_s, values, overall.count, total))
    return tuple(found)


def _indicator(
    indicator: str, window_s: float, values: Sequence[tuple[float, float]], event_count: int, overall: float
) -> IndicatorBaseline:
    """values: (start of the window in Unix seconds, its value)."""
    by_day: dict[int, list[float]] = {}
    by_hour: dict[int, list[float]] = {}
    for start_s, value in values:
        by_day.setdefault(int(start_s // DAY_S), []).append(value)
        by_hour.setdefault(hour_of_week(start_s), []).append(value)
    # Hours of one day are alike, so days are drawn; below four days that says nothing and single windows are drawn.
    blocks = list(by_day.values()) if len(by_day) >= 4 else [[value] for _, value in values]
    measures: list[Callable[[Sequence[float]], float]] = [fmean, *(partial(quantile, q=q) for q in QUANTILES.values())]
    # The same exchanges must give the same file, so chance is seeded by what is measured.
    intervals = bootstrap_intervals(blocks, measures, split_mix(len(values) * 1_000_003 + event_count))
    return IndicatorBaseline(
        indicator=indicator,
        window_s=window_s,
        window_count=len(values),
        event_count=event_count,
        overall=overall,
        statistics=tuple(
            Statistic(name, i.low, i.estimate, i.high) for name, i in zip(MEASURES, intervals, strict=True)
        ),
        profile=tuple(HourValue(hour, len(found), fmean(found)) for hour, found in sorted(by_hour.items())),
    )
