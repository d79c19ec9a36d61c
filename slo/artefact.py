"""The baseline artefact: what healthy traffic looked like, with provenance, sample sizes, intervals, hash and expiry.

Its JSON carries a SHA-256 that is verified before anything in it is believed. Pure: files are the business of
`slo.baselines`, the making is that of `slo.collecting`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import msgspec

from slo.errors import DataError

BASELINE_VERSION = 1
DAY_S = 86_400.0
QUANTILES = {"p05": 0.05, "p25": 0.25, "p50": 0.50, "p75": 0.75, "p90": 0.90, "p95": 0.95, "p99": 0.99}
"""What a threshold may ask for, beside `mean`."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """One number over the window-sized values, between the bounds of a bootstrap over days (two-sided 95 %)."""

    name: str  # mean, or a key of QUANTILES
    low: float
    estimate: float
    high: float


@dataclass(frozen=True, slots=True)
class HourValue:
    """Mean of the window-sized values that began in one hour of the week (0 = Monday 00:00 UTC)."""

    hour_of_week: int
    window_count: int
    mean: float


@dataclass(frozen=True, slots=True)
class IndicatorBaseline:
    """One indicator over windows of one length. Units are those inside: ratios, seconds, USD.

    overall: the value over all events at once. statistics: over the values of single windows.
    """

    indicator: str
    window_s: float
    window_count: int
    event_count: int
    overall: float
    statistics: tuple[Statistic, ...]
    profile: tuple[HourValue, ...] = ()

    def statistic(self, name: str) -> Statistic | None:
        """The statistic called `name`, None when it is not kept."""
        return next((s for s in self.statistics if s.name == name), None)

    def hour(self, hour_of_week: int) -> HourValue | None:
        """The profile of one hour of the week, None when no window began in it."""
        return next((h for h in self.profile if h.hour_of_week == hour_of_week), None)


@dataclass(frozen=True, slots=True)
class HourCoverage:
    """How much was seen in one hour of the week; judged_ratio None: nothing there was to be judged."""

    hour_of_week: int
    exchange_count: int
    judged_ratio: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """A value measured on an evaluation set, for rules of the form `current`."""

    indicator: str
    value: float
    event_count: int
    wall_s: float


@dataclass(frozen=True, slots=True)
class IncidentSpan:
    """Time left out because the guard recorded an incident then."""

    incident_id: str
    start_wall_s: float
    end_wall_s: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """How a number or a word was spread: quantiles of numbers, shares of words."""

    name: str  # retrieval_score, language
    count: int
    quantiles: tuple[tuple[str, float], ...] = ()
    shares: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class DriftReference:
    """What questions or answers looked like to one embedder, to compare later ones with.

    component: "query" or "answer". fingerprint, dim, norm (mean length of a vector), probes (cosines of fixed texts to
    each other): of the embedder, checked before any comparison. count: rows behind the moments. mean: of unit vectors,
    shape (dim,), not normalised. day_spread: mean distance of the centroids of two
    days, which drift has to exceed; None with fewer than two days. sample: base64 of little-endian float16, shape
    (sample_count, dim), rows drawn evenly over time.
    """

    component: str
    fingerprint: str
    dim: int
    norm: float
    probes: tuple[float, ...]
    count: int
    mean: tuple[float, ...]
    variance: tuple[float, ...]
    day_spread: float | None
    sample_count: int
    sample: str
    distributions: tuple[Distribution, ...] = ()


@dataclass(frozen=True, slots=True)
class Baseline:
    """The artefact. `sha256` covers everything else in it; embedder and config_hash are empty when not known."""

    created_wall_s: float
    expires_wall_s: float
    first_wall_s: float
    last_wall_s: float
    days: float  # hours from first to last exchange / 24
    window_s: float
    exchange_count: int
    indicators: tuple[IndicatorBaseline, ...]
    hours: tuple[HourCoverage, ...] = ()
    excluded: tuple[tuple[str, int], ...] = ()  # (reason, exchanges)
    exclusions: tuple[tuple[float, float], ...] = ()  # Unix seconds, the ranges a person gave
    incidents: tuple[IncidentSpan, ...] = ()
    releases: tuple[str, ...] = ()
    measured: tuple[Measured, ...] = ()
    source: str = ""  # "exchange log", or the address of a Prometheus
    notes: tuple[str, ...] = ()
    drift: tuple[DriftReference, ...] = ()
    drift_missing: str = ""  # why there is no drift reference
    embedder: str = ""
    config_hash: str = ""
    forced: bool = False
    forced_reason: str = ""
    version: int = BASELINE_VERSION
    sha256: str = field(default="")

    def of(self, indicator: str, window_s: float) -> IndicatorBaseline | None:
        """Values of `indicator` over windows of exactly `window_s`, None when there are none."""
        return next((i for i in self.indicators if i.indicator == indicator and i.window_s == window_s), None)

    def windows_of(self, indicator: str) -> tuple[float, ...]:
        """Window lengths that `indicator` was collected for."""
        return tuple(i.window_s for i in self.indicators if i.indicator == indicator)


def hour_of_week(wall_s: float) -> int:
    """Return the hour of the week, 0 = Monday 00:00 UTC (Unix time began on a Thursday).

    >>> hour_of_week(0.0), hour_of_week(4 * 86400.0)
    (72, 0)
    """
    return int(wall_s // 3600 + 72) % 168


def sealed(baseline: Baseline) -> Baseline:
    """Return the baseline with its hash filled in."""
    return replace(baseline, sha256=_digest(msgspec.to_builtins(baseline)))


def _digest(content: dict[str, Any]) -> str:
    """SHA-256 over the canonical form: JSON without the hash itself, keys sorted, no spaces."""
    kept = {key: value for key, value in content.items() if key != "sha256"}
    return sha256(msgspec.json.encode(kept, order="sorted")).hexdigest()


def to_json(baseline: Baseline) -> bytes:
    """Return the artefact as JSON, one fact per line, sealed."""
    return msgspec.json.format(msgspec.json.encode(sealed(baseline), order="sorted"), indent=1) + b"\n"


def from_json(text: bytes, place: str) -> Baseline:
    """Inverse of `to_json`.

    Raises:
        DataError: not a baseline, of a newer version, or its content does not fit its hash; nothing of it is used.
    """
    cure = "collect it again with `sft-guard baseline collect`"
    try:
        content = msgspec.json.decode(text)
        said = content["sha256"]
        actual = _digest(content)
        if said != actual:
            raise DataError(
                f"{place}: sha256 is {actual[:12]}..., the file says {str(said)[:12]}...: changed or damaged; {cure}"
            )
        baseline = msgspec.convert(content, Baseline, strict=True)
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{place}: not a baseline ({type(error).__name__}: {error}); {cure}") from error
    if baseline.version != BASELINE_VERSION:
        raise DataError(f"{place}: baseline version {baseline.version}, this program reads {BASELINE_VERSION}; {cure}")
    return baseline
