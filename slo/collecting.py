"""From what was counted to a baseline: the decisions, whatever the source.

    exchanges (here) | slo.sources.log_baseline | slo.sources.prometheus_baseline ─► Gathered ─► assemble ─► Baseline

Only healthy periods go in. A baseline taken while something was broken makes the breakage normal, so a person names
the incidents to leave out, and canaries never count. `collect` is for exchanges that are at hand (the demo, a test);
weeks of a log are counted by the engine, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from statistics import fmean

from slo.artefact import (
    DAY_S,
    QUANTILES,
    Baseline,
    DriftReference,
    HourCoverage,
    HourValue,
    IncidentSpan,
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

MIN_DAYS, MAX_DAYS = 7.0, 14.0
SPAN_DAYS = 100.0
"""Longest span that a person may ask for."""
MIN_WINDOW_EVENTS = 20
"""Fewer events than this in a window say nothing about a rate; the window gives no value."""
FUTURE_S = 300.0
PROGRESS_EVERY = 20_000
MEASURES = ("mean", *QUANTILES)
RELEASE_COUNT = 100

CANARY, WRONG_CLOCK, EXCLUDED, INCIDENT, OTHER_RELEASE, HITS, TOO_OLD = (
    "canary", "wrong clock", "excluded time", "incident", "other release", "cache hits", "too old",
)  # fmt: skip
"""Why an exchange is left out, in the order in which it is asked; closed set."""

LATENCIES = {LATENCY_P95: 0.95, LATENCY_P99: 0.99}


@dataclass(frozen=True, slots=True)
class Terms:
    """What a baseline is asked for.

    window_s, more_windows_s: lengths of the windows whose values form the distributions; one per window that a rule of
    the form `baseline` uses. now_wall_s: Unix seconds; creation time, and what lies more than 5 min after it is left
    out. min_days, min_events: below these it refuses unless `force`. max_days: of more, the latest are taken.
    exclusions: ranges that a person gave. incidents: of the guard's own record. release: only this one (for rules of
    the form `previous`). source, embedder, config_hash, measured: stamped as they are.
    """

    now_wall_s: float
    window_s: float = 3600.0
    more_windows_s: tuple[float, ...] = ()
    min_days: float = MIN_DAYS
    max_days: float = MAX_DAYS
    min_events: int = 1000
    force: bool = False
    exclusions: tuple[TimeRange, ...] = ()
    incidents: tuple[IncidentSpan, ...] = ()
    release: str | None = None
    source: str = ""
    embedder: str = ""
    config_hash: str = ""
    measured: tuple[Measured, ...] = ()
    valid_days: float = 30.0

    @property
    def windows_s(self) -> tuple[float, ...]:
        """All window lengths, each once."""
        return tuple(sorted({self.window_s, *self.more_windows_s}))


@dataclass(slots=True)
class Gathered:
    """What a source has counted.

    values: (indicator, window length) -> (start of the window in Unix seconds, its value), windows with enough events
    only, in order. overall: indicator -> (events, value over all of them). hours: hour of the week -> [exchanges,
    checks that judged, checks that should have]. notes: what a reader of the artefact should know.
    """

    exchange_count: int = 0
    first_wall_s: float = float("inf")
    last_wall_s: float = float("-inf")
    day_count: int = 0
    values: dict[tuple[str, float], list[tuple[float, float]]] = field(default_factory=dict)
    overall: dict[str, tuple[int, float]] = field(default_factory=dict)
    hours: dict[int, list[int]] = field(default_factory=dict)
    releases: tuple[str, ...] = ()
    excluded: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def value_of(indicator: str, count: int, bad: int, total: float, bins: Mapping[int, float]) -> float | None:
    """The indicator's own value of a span, None without events. bins: of latencies, for latency indicators.

    Means are kept to ten digits: sums differ beyond those by the order of addition, and the same exchanges must give
    the same file.
    """
    if not count:
        return None
    if indicator in LATENCIES:
        return quantile_of_bins(dict(bins), LATENCIES[indicator])
    meant = INDICATORS[indicator]
    if meant.kind == "mean":
        return float(f"{total / count:.10g}")
    bad_ratio = bad / count
    return bad_ratio if meant.worse == "up" else 1.0 - bad_ratio


def assemble(
    gathered: Gathered,
    terms: Terms,
    drift: tuple[DriftReference, ...] = (),
    drift_missing: str = "",
) -> Baseline:
    """Make the artefact, or refuse.

    drift, drift_missing: the references for drift, or why there are none.

    Raises:
        RefusedError: nothing usable, or too little of it ("too_little_traffic"), saying what is missing.
    """
    days = _days(gathered)
    missing = _missing(gathered, days, terms)
    if not gathered.exchange_count or (missing and not terms.force):
        text = missing or "no usable exchange"
        raise RefusedError(
            "too_little_traffic",
            f"baseline refused: {text}{_left_out(gathered)}; collect longer, or use --force",
        )
    return sealed(
        Baseline(
            created_wall_s=terms.now_wall_s,
            expires_wall_s=terms.now_wall_s + terms.valid_days * DAY_S,
            first_wall_s=gathered.first_wall_s,
            last_wall_s=gathered.last_wall_s,
            days=days,
            window_s=terms.window_s,
            exchange_count=gathered.exchange_count,
            indicators=_indicators(gathered, terms.windows_s),
            hours=tuple(
                HourCoverage(hour, seen, judged / due if due else None)
                for hour, (seen, judged, due) in sorted(gathered.hours.items())
            ),
            excluded=tuple(sorted(gathered.excluded.items())),
            exclusions=tuple((float(start), float(end)) for start, end in terms.exclusions),
            incidents=terms.incidents,
            releases=tuple(sorted(gathered.releases)),
            measured=terms.measured,
            source=terms.source,
            notes=gathered.notes,
            drift=drift,
            drift_missing=drift_missing,
            embedder=terms.embedder,
            config_hash=terms.config_hash,
            forced=bool(missing),
            forced_reason=missing,
        )
    )


def collect(
    exchanges: Iterable[Exchange],
    *,
    window_s: float = 3600.0,
    more_windows_s: Sequence[float] = (),
    now_wall_s: float,
    min_days: float = MIN_DAYS,
    min_events: int = 1000,
    force: bool = False,
    exclusions: Sequence[TimeRange] = (),
    incidents: Sequence[IncidentSpan] = (),
    release: str | None = None,
    embedder: str = "",
    config_hash: str = "",
    measured: Sequence[Measured] = (),
    valid_days: float = 30.0,
    on_progress: Callable[[int], None] | None = None,
) -> Baseline:
    """Make a baseline of the healthy traffic in `exchanges`, in any order; see `Terms` for the arguments.

    on_progress: told the number of exchanges read, every 20,000.

    Raises:
        RefusedError: nothing usable, or too little of it ("too_little_traffic"); or spread over more than 100 days
            ("too_long").
    """
    terms = Terms(
        now_wall_s, window_s, tuple(more_windows_s), min_days, SPAN_DAYS, min_events, force, tuple(exclusions),
        tuple(incidents), release, "exchanges", embedder, config_hash, tuple(measured), valid_days,
    )  # fmt: skip
    collector = _Collector(terms.windows_s)
    for number, exchange in enumerate(exchanges, 1):
        reason = _why_left_out(exchange, terms)
        if reason == HITS:  # They were not generated, but the hit rate is made of them.
            collector.vote((CACHE_HITS, False, None), exchange.wall_s)
        if reason:
            collector.leave_out(reason)
        else:
            collector.take(exchange)
            if collector.last_wall_s - collector.first_wall_s > SPAN_DAYS * DAY_S:
                raise RefusedError(
                    "too_long",
                    f"the exchanges span more than {SPAN_DAYS:g} days; give fewer log files, or --exclude the old ones",
                )
        if on_progress and number % PROGRESS_EVERY == 0:
            on_progress(number)
    return assemble(collector.gathered(), terms)


class _Tally:
    """Sums of one indicator in one window (or over all)."""

    __slots__ = ("bad", "bins", "count", "total")

    def __init__(self) -> None:
        self.count = self.bad = 0
        self.total = 0.0
        self.bins: dict[int, float] = {}

    def vote(self, bad: bool | None, value: float | None, *, binned: bool) -> None:
        if bad is None:
            return
        self.count += 1
        self.bad += bad
        if value is not None:
            self.total += value
            if binned:
                key = bin_key(value)
                self.bins[key] = self.bins.get(key, 0.0) + 1.0

    def value(self, indicator: str) -> float | None:
        return value_of(indicator, self.count, self.bad, self.total, self.bins)


class _Collector:
    """Everything counted while the exchanges stream by; memory is bounded by windows, not by exchanges."""

    def __init__(self, windows_s: Sequence[float]) -> None:
        self.windows_s = windows_s
        self.tallies: dict[tuple[str, float, int], _Tally] = {}  # (indicator, window length, window number)
        self.overall: dict[str, _Tally] = {}
        self.hours: dict[int, list[int]] = {}
        self.days: set[int] = set()
        self.releases: set[str] = set()
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
        if len(self.releases) < RELEASE_COUNT:
            self.releases.add(exchange.release)
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

    def gathered(self) -> Gathered:
        values: dict[tuple[str, float], list[tuple[float, float]]] = {}
        overall = {}
        for indicator in INDICATORS:
            name = LATENCY if indicator in LATENCIES else indicator
            for (of, window_s, number), tally in sorted(self.tallies.items(), key=lambda item: item[0]):
                if of == name and tally.count >= MIN_WINDOW_EVENTS and (value := tally.value(indicator)) is not None:
                    values.setdefault((indicator, window_s), []).append((number * window_s, value))
            whole = self.overall.get(name)
            if whole and (value := whole.value(indicator)) is not None:
                overall[indicator] = (whole.count, value)
        return Gathered(
            self.exchange_count, self.first_wall_s, self.last_wall_s, len(self.days), values, overall, self.hours,
            tuple(self.releases), self.excluded,
        )  # fmt: skip


def _why_left_out(exchange: Exchange, terms: Terms) -> str:
    """Closed set of reasons; "" to take it."""
    if exchange.arm == "canary":
        return CANARY
    if not 0.0 <= exchange.wall_s <= terms.now_wall_s + FUTURE_S:
        return WRONG_CLOCK
    if any(start <= exchange.wall_s < end for start, end in terms.exclusions):
        return EXCLUDED
    if any(span.start_wall_s <= exchange.wall_s < span.end_wall_s for span in terms.incidents):
        return INCIDENT
    if terms.release is not None and exchange.release != terms.release:
        return OTHER_RELEASE
    return HITS if exchange.cache is CacheStatus.HIT else ""


def _days(gathered: Gathered) -> float:
    """Hours from the first exchange to the last, whole ones, in days; at most the days that have any traffic."""
    if not gathered.exchange_count:
        return 0.0
    hours = gathered.last_wall_s // 3600 - gathered.first_wall_s // 3600 + 1
    return float(min(hours / 24, gathered.day_count))


def _missing(gathered: Gathered, days: float, terms: Terms) -> str:
    """What is missing, in words; "" when nothing is."""
    found, lacks = [], []
    lacking = terms.min_days - days
    if 0 < lacking < 0.1:  # "7.0 days, 7 needed" would help nobody
        found.append(f"{days * 24:.0f} hours of traffic, {terms.min_days * 24:g} needed")
        lacks.append(f"{ceil(lacking * 24 - 1e-6)} hour{'s' if lacking * 24 > 1.5 else ''}")
    elif lacking > 0:
        found.append(f"{days:.1f} days of traffic, {terms.min_days:g} needed")
        lacks.append(f"{lacking:.1f} days")
    if gathered.exchange_count < terms.min_events:
        found.append(f"{gathered.exchange_count} exchanges, {terms.min_events} needed")
        lacks.append(f"{terms.min_events - gathered.exchange_count} exchanges")
    return f"{' and '.join(found)}: {' and '.join(lacks)} missing" if found else ""


def _left_out(gathered: Gathered) -> str:
    shown = ", ".join(f"{count} {reason}" for reason, count in sorted(gathered.excluded.items()))
    return f" (left out: {shown})" if shown else ""


def _indicators(gathered: Gathered, windows_s: Sequence[float]) -> tuple[IndicatorBaseline, ...]:
    """One entry per indicator and window length that has at least one window with enough events."""
    found = []
    for indicator in INDICATORS:
        for window_s in windows_s:
            values, whole = gathered.values.get((indicator, window_s)), gathered.overall.get(indicator)
            if values and whole:
                found.append(_indicator(indicator, window_s, values, *whole))
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
