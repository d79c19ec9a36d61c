"""A baseline's counts out of Prometheus: what counters grew by in each window.

`increase()` of one window at its end, so counter resets are its business; it counts between samples, so a window holds
the events of all but one scrape interval, numerator and denominator alike. What a log knows and counters do not is said
in the artefact's notes: latencies are interpolated between histogram bounds, and arms are told by the weight of
canaries in each window.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import floor, inf

from slo.artefact import DAY_S, hour_of_week
from slo.collecting import (
    CANARY,
    EXCLUDED,
    HITS,
    INCIDENT,
    LATENCIES,
    MIN_WINDOW_EVENTS,
    OTHER_RELEASE,
    RELEASE_COUNT,
    Gathered,
    Terms,
)
from slo.indicators import (
    AVAILABILITY,
    CACHE_HITS,
    COST,
    HALLUCINATION,
    HTTP_ERRORS,
    LLM_ERRORS,
    SIMILARITY,
    THUMBS_UP,
    ZERO_HIT,
)
from slo.metric_names import INDICATORS
from slo.sources.prometheus_range import PrometheusApi, Series

HOUR_S = 3600.0
FAILED = ("server_error", "timeout", "incomplete")
NOTES = (
    "from Prometheus: latency quantiles are interpolated between histogram bounds",
    "from Prometheus: HTTP errors are counted by outcome, since counters carry no status",
)
Progress = Callable[[str], None]


@dataclass(slots=True)
class _Window:
    """What the counters grew by in one window: (event counts by label), floats because increases are extrapolated."""

    requests: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))  # (outcome, cache)
    checks: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))  # (check, result)
    lookups: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    thumbs: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    bounds: dict[float, float] = field(default_factory=lambda: defaultdict(float))  # le -> cumulative, fresh answers
    scores: list[float] = field(default_factory=lambda: [0.0, 0.0])  # similarity: sum, count
    cost: list[float] = field(default_factory=lambda: [0.0, 0.0])  # USD, inferences with a known price

    def add(self, other: _Window) -> None:
        """Add another window to this one."""
        for mine, theirs in (
            (self.requests, other.requests), (self.checks, other.checks), (self.lookups, other.lookups),
            (self.thumbs, other.thumbs), (self.bounds, other.bounds),
        ):  # fmt: skip
            for key, grown in theirs.items():
                mine[key] += grown  # type: ignore[index]
        self.scores = [a + b for a, b in zip(self.scores, other.scores, strict=True)]
        self.cost = [a + b for a, b in zip(self.cost, other.cost, strict=True)]


def gather(
    api: PrometheusApi,
    terms: Terms,
    *,
    service: str | None = None,
    job: str | None = None,
    on_progress: Progress = lambda text: None,
) -> Gathered:
    """Ask for the latest `terms.max_days` and count.

    Raises:
        SourceError: as `PrometheusApi.range`.
    """
    end_s = floor(terms.now_wall_s / HOUR_S) * HOUR_S
    asking = _Asking(api, _selector(service, job), end_s - terms.max_days * DAY_S, end_s, on_progress)
    gathered = Gathered(notes=NOTES)
    hours = asking.windows(HOUR_S, terms)
    for start_s, window in hours.taken.items():
        seen = _exchanges(window)
        if seen < 0.5:
            continue
        gathered.first_wall_s = min(gathered.first_wall_s, start_s)
        gathered.last_wall_s = max(gathered.last_wall_s, start_s + HOUR_S - 1.0)
        row = gathered.hours.setdefault(hour_of_week(start_s), [0, 0, 0])
        judged, due = _judged(window)
        for place, more in enumerate((seen, judged, due)):
            row[place] += round(more)
    busy = [start_s for start_s, window in hours.taken.items() if _exchanges(window) >= 0.5]
    gathered.day_count = len({start_s // DAY_S for start_s in busy})
    gathered.exchange_count = round(sum(_exchanges(hours.taken[start_s]) for start_s in busy))
    gathered.excluded = {reason: round(count) for reason, count in hours.left_out.items() if round(count)}
    gathered.releases = tuple(sorted(hours.releases)[:RELEASE_COUNT])
    whole = _Window()
    for window in hours.taken.values():
        whole.add(window)
    for name, (count, value) in _values(whole).items():
        gathered.overall[name] = (round(count), value)
    for window_s in terms.windows_s:
        found = hours if window_s == HOUR_S else asking.windows(window_s, terms)
        for start_s, window in sorted(found.taken.items()):
            for name, (count, value) in _values(window).items():
                if round(count) >= MIN_WINDOW_EVENTS:
                    gathered.values.setdefault((name, window_s), []).append((start_s, value))
    if api.warnings:
        gathered.notes += tuple(f"Prometheus warned: {w}"[:300] for w in api.warnings[:5])
    return gathered


@dataclass(slots=True)
class _Found:
    """Windows by their start, and exchanges left out by reason."""

    taken: dict[float, _Window]
    left_out: dict[str, float]
    releases: set[str]


class _Asking:
    """The queries over one range."""

    def __init__(self, api: PrometheusApi, selector: str, start_s: float, end_s: float, tell: Progress) -> None:
        self._api, self._selector, self._tell = api, selector, tell
        self._start_s, self._end_s = start_s, end_s

    def windows(self, window_s: float, terms: Terms) -> _Found:
        """All windows of one length that lie whole in the range, those of canaries and of excluded times left out."""
        by_place: dict[tuple[float, str], _Window] = defaultdict(_Window)
        for name, labels, put in (
            ("sft_availability_requests_total", "outcome, cache", _put_requests),
            ("sft_quality_checks_total", "check, result", _put_checks),
            ("sft_cache_lookups_total", "result", _put_lookups),
            ("sft_quality_feedback_total", "thumb", _put_thumbs),
            ("sft_perf_request_duration_seconds_bucket", "cache, le", _put_bounds),
            ("sft_quality_score_sum", "check", _put_score_sum),
            ("sft_quality_score_count", "check", _put_score_count),
            ("sft_cost_usd_total", "", _put_cost),
            ("sft_cost_inferences_total", "", _put_inferences),
        ):  # fmt: skip
            by = f"release, {labels}" if labels else "release"
            query = f"sum by ({by}) (increase({name}{{{self._selector}}}[{window_s * 1000:.0f}ms]))"
            for row in self._range(query, window_s):
                release = row.labels.get("release", "")
                for at_s, grown in row.points:
                    put(by_place[at_s - window_s, release], row.labels, grown)
            self._tell(name)
        canaries = self._canaries(window_s)
        found = _Found({}, defaultdict(float), set())
        for (start_s, release), window in by_place.items():
            reason = _why_left_out(start_s, window_s, release, canaries, terms)
            if reason:
                found.left_out[reason] += sum(window.requests.values())
                continue
            found.left_out[HITS] += sum(n for (_, cache), n in window.requests.items() if cache == "hit")
            if _exchanges(window) >= 0.5:
                found.releases.add(release)
            found.taken.setdefault(start_s, _Window()).add(window)
        return found

    def _canaries(self, window_s: float) -> set[tuple[float, str]]:
        """(start of the window, release) where a canary had traffic."""
        selector = ",".join(filter(None, (self._selector, 'arm="canary"')))
        query = f"max by (release) (max_over_time(sft_release_weight{{{selector}}}[{window_s * 1000:.0f}ms])) > 0"
        return {
            (at_s - window_s, row.labels.get("release", ""))
            for row in self._range(query, window_s) for at_s, _ in row.points
        }  # fmt: skip

    def _range(self, query: str, window_s: float) -> list[Series]:
        first_s = floor(self._start_s / window_s) * window_s + window_s
        return self._api.range(query, first_s, self._end_s, window_s)


def _put_requests(window: _Window, labels: Mapping[str, str], grown: float) -> None:
    window.requests[labels.get("outcome", ""), labels.get("cache", "")] += grown


def _put_checks(window: _Window, labels: Mapping[str, str], grown: float) -> None:
    window.checks[labels.get("check", ""), labels.get("result", "")] += grown


def _put_lookups(window: _Window, labels: Mapping[str, str], grown: float) -> None:
    window.lookups[labels.get("result", "")] += grown


def _put_thumbs(window: _Window, labels: Mapping[str, str], grown: float) -> None:
    window.thumbs[labels.get("thumb", "")] += grown


def _put_bounds(window: _Window, labels: Mapping[str, str], grown: float) -> None:
    if labels.get("cache") != "hit":
        window.bounds[float(labels.get("le", "+Inf"))] += grown


def _put_score_sum(window: _Window, labels: Mapping[str, str], grown: float) -> None:
    if labels.get("check") == "similarity":
        window.scores[0] += grown


def _put_score_count(window: _Window, labels: Mapping[str, str], grown: float) -> None:
    if labels.get("check") == "similarity":
        window.scores[1] += grown


def _put_cost(window: _Window, labels: Mapping[str, str], grown: float) -> None:
    window.cost[0] += grown


def _put_inferences(window: _Window, labels: Mapping[str, str], grown: float) -> None:
    window.cost[1] += grown


def _why_left_out(start_s: float, window_s: float, release: str, canaries: set[tuple[float, str]], terms: Terms) -> str:
    """Why a window of a release is left out, "" to take it. A window that only touches an excluded time goes whole."""
    if (start_s, release) in canaries:
        return CANARY
    end_s = start_s + window_s
    if any(start_s < to_s and from_s < end_s for from_s, to_s in terms.exclusions):
        return EXCLUDED
    if any(start_s < i.end_wall_s and i.start_wall_s < end_s for i in terms.incidents):
        return INCIDENT
    return OTHER_RELEASE if terms.release is not None and release != terms.release else ""


def _exchanges(window: _Window) -> float:
    """Exchanges that were generated, as a log counts them."""
    return sum(grown for (_, cache), grown in window.requests.items() if cache != "hit")


def _judged(window: _Window) -> tuple[float, float]:
    """(checks that judged, checks that should have) of those that votes come from."""
    judged = due = 0.0
    for (check, result), grown in window.checks.items():
        if check in ("grounding", "similarity", "zero_hit"):
            due += grown
            judged += grown if result in ("pass", "fail") else 0.0
    return judged, due


def _values(window: _Window) -> dict[str, tuple[float, float]]:
    """indicator -> (events, value); one without events is absent."""
    fresh: dict[str, float] = defaultdict(float)
    for (outcome, cache), grown in window.requests.items():
        if cache != "hit":
            fresh[outcome] += grown
    failed = sum(fresh[outcome] for outcome in FAILED)
    waited = fresh["ok"] + failed
    answered = waited + fresh["client_error"]
    errors = fresh["client_error"] + fresh["server_error"] + fresh["timeout"]
    checks = window.checks
    shares = {
        AVAILABILITY: (failed, waited),
        LLM_ERRORS: (failed, waited),
        HTTP_ERRORS: (errors, answered),
        HALLUCINATION: (checks["grounding", "fail"], checks["grounding", "fail"] + checks["grounding", "pass"]),
        ZERO_HIT: (checks["zero_hit", "fail"], checks["zero_hit", "fail"] + checks["zero_hit", "pass"]),
        CACHE_HITS: (window.lookups["miss"], window.lookups["miss"] + window.lookups["hit"]),
        THUMBS_UP: (window.thumbs["down"], window.thumbs["down"] + window.thumbs["up"]),
    }
    values = {}
    for name, (bad, count) in shares.items():
        if count >= 0.5:
            share = min(1.0, bad / count)
            values[name] = (count, share if INDICATORS[name].worse == "up" else 1.0 - share)
    for name, (total, count) in ((SIMILARITY, window.scores), (COST, window.cost)):
        if count >= 0.5:
            values[name] = (count, total / count)
    count = window.bounds.get(inf, 0.0)
    for name, q in LATENCIES.items():
        value = histogram_quantile(window.bounds, q)
        if count >= 0.5 and value is not None:
            values[name] = (count, value)
    return {name: (count, float(f"{value:.10g}")) for name, (count, value) in values.items()}


def histogram_quantile(cumulative: Mapping[float, float], q: float) -> float | None:
    """Return the q-quantile of cumulative bucket counts (upper bound -> count), linear inside a bucket.

    A quantile in the last bucket is given as its lower bound. None without events.

    Source:
        https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile

    >>> histogram_quantile({0.5: 50.0, 1.0: 100.0, float("inf"): 100.0}, 0.95)
    0.95
    """
    ordered = sorted(cumulative.items())
    total = ordered[-1][1] if ordered and ordered[-1][0] == inf else 0.0
    if total <= 0:
        return None
    rank, below, lower = q * total, 0.0, 0.0
    for bound, count in ordered:
        if count >= rank:
            if bound == inf or count <= below:
                return lower
            return lower + (bound - lower) * (rank - below) / (count - below)
        below, lower = max(below, count), bound
    return lower


def _selector(service: str | None, job: str | None) -> str:
    """PromQL matchers without braces."""
    pairs = (("service", service), ("job", job))
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs if value)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
