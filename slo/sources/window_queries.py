"""PromQL of the readings: what the counters of every objective grew by in a window, summed over replicas. Pure.

    grown in W  =  last sample in W  -  value W ago          (exact; a replica that is gone counts with its last sample)
    no value W ago (a replica younger than W): its first sample in W instead
    a counter that began again within W: increase(), which is exact to about one scrape interval

`increase()` alone would extrapolate to the ends of every window: with a 15 s scrape it turns 100 events of a minute
into 133. The counters are those of `slo.series`, with retries and tenant shares accounted for by the replica that
counted; requests over a latency limit are counted there one by one, so no bucket has to be read for a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from slo.evaluation import BURN_PAIRS
from slo.metric_names import INDICATORS
from slo.series import BAD, EVENTS, SQUARES, UNJUDGED, VALUES, has_unjudged
from slo.types import Slo

COUNTERS = {"events": EVENTS, "bad": BAD, "unjudged": UNJUDGED, "values": VALUES, "squares": SQUARES}
DURATIONS = "sft_perf_request_duration_seconds_bucket"
QUANTILE = "quantile"
RESOLUTION = 720
"""A window is asked for again after this part of its length (5 s for an hour, 2 min for a day, an hour for a month):
as fine as the windows that a process keeps itself, and a month of samples is not read every five seconds."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One instant query. what: a key of COUNTERS, or QUANTILE and the objective. release: only of this one."""

    what: str
    length_s: float
    promql: str
    release: str = ""
    slo: str = ""


def lengths_of(slo: Slo) -> frozenset[float]:
    """Return every window that a verdict on this objective is read from, seconds."""
    lengths = {slo.window.length_s}
    if slo.fast is not None and INDICATORS[slo.indicator].kind != "mean":
        lengths.add(slo.fast.window.length_s)
    if slo.burn_rate:
        lengths.update(s for pair in BURN_PAIRS for s in (pair.long_s, pair.short_s))
    return frozenset(lengths)


def asks_for(
    slos: Iterable[Slo], length_s: float, labels: Mapping[str, str], *, release: str = "", span_s: float | None = None,
    life: str = "",
) -> Iterator[Ask]:  # fmt: skip
    """Yield the queries that answer one window of these objectives.

    labels: matchers of every series, `service` among them. release: only of this one. span_s: another span to look at
    in the place of the window (a release that began a new life less than a window ago). life: label of what it counts
    now; what replicas count without one is taken, too, what stands under any other is of a former life.
    """
    using = [slo for slo in slos if length_s in lengths_of(slo)]
    if not using:
        return
    kinds = {slo.name: INDICATORS[slo.indicator].kind for slo in using}
    own = {**labels, "release": release} if release else dict(labels)
    counted = {**own, "life": f"=~|{life}"} if life else own  # the histograms know no lives
    means = [name for name, kind in kinds.items() if kind == "mean"]
    shares = [name for name, kind in kinds.items() if kind != "mean"]
    judged = [slo.name for slo in using if has_unjudged(slo)]
    span = length_s if span_s is None else span_s
    for what, names in (
        ("events", list(kinds)), ("bad", shares), ("unjudged", judged), ("values", means), ("squares", means),
    ):  # fmt: skip
        if names:
            yield Ask(what, length_s, grown(_series(COUNTERS[what], {**counted, "slo": _one_of(names)}), span), release)
    for slo in using:
        quantile = INDICATORS[slo.indicator].quantile
        if quantile is not None and length_s == slo.window.length_s:
            routes = {"route": _one_of(slo.routes)} if slo.routes else {}
            buckets = f"increase({_series(DURATIONS, {**own, **routes})}[{_ms(span)}])"
            promql = f"histogram_quantile({quantile:g}, sum by (release, le) ({buckets}))"
            yield Ask(QUANTILE, length_s, promql, release, slo.name)


def grown(series: str, span_s: float) -> str:
    """Return what counters grew by in the span that ends now, by release and objective."""
    w = _ms(span_s)
    plain = f"(max_over_time({series}[{w}]) - ({series} offset {w} or min_over_time({series}[{w}])))"
    again = f"resets({series}[{w}]) > 0"
    return f"sum by (release, slo) (({plain} unless {again}) or (increase({series}[{w}]) and {again}))"


def newest_sample(labels: Mapping[str, str]) -> str:
    """Return when any replica was scraped last, Unix seconds; empty when nothing of the service is known."""
    return f"max(timestamp({_series(EVENTS, labels)}))"


def _series(name: str, labels: Mapping[str, str]) -> str:
    parts = []
    for label, value in labels.items():
        operator, text = (value[:2], value[2:]) if value[:2] in ("=~", "!~") else ("=", value)
        parts.append(f'{label}{operator}"{_quoted(text)}"')
    return f"{name}{{{','.join(parts)}}}"


def _one_of(names: Iterable[str]) -> str:
    return "=~" + "|".join(name.replace(".", "\\.") for name in names)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _ms(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
