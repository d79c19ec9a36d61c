"""What a dashboard is made of, before any vendor's JSON: boards, rows, panels, queries; titles in two languages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from slo.metric_names import INDICATORS, METRICS

Language = Literal["en", "zh-TW"]
LANGUAGES: tuple[Language, ...] = ("en", "zh-TW")
Kind = Literal["stat", "timeseries", "table", "statetimeline", "heatmap", "text"]
HALF, THIRD, QUARTER, FULL = 12, 8, 6, 24

SERVICE = 'service="$service"'
RELEASE = 'service="$service",release=~"$release"'
RATE = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Text:
    """The same words in English and Traditional Chinese."""

    en: str
    zh: str

    def of(self, language: Language) -> str:
        """The words in one language."""
        return self.zh if language == "zh-TW" else self.en


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression. legend: Grafana's `{{label}}` form. exemplars: show traces on it."""

    expr: str
    legend: str = ""
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """From `value` on the panel has this colour; None is the lowest step."""

    value: float | None
    colour: Literal["green", "yellow", "red", "transparent"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. unit: a Grafana unit. empty: why it may show nothing, and what to do about it."""

    title: Text
    kind: Kind
    queries: tuple[Query, ...] = ()
    unit: str = "short"
    about: Text = Text("", "")
    empty: Text = Text("", "")
    steps: tuple[Step, ...] = ()
    width: int = HALF
    height: int = 8
    names: tuple[tuple[float, Text, str], ...] = ()
    """Values with a name and a colour: (0, ok, green)."""
    runbook: str = ""
    """Page of the alert that belongs to it, relative to the runbooks' address; "" for none."""
    stacked: bool = False
    lowest: float | None = None
    highest: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading."""

    title: Text
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard. name: file name and part of the uid."""

    name: str
    title: Text
    rows: tuple[Row, ...]
    tags: tuple[str, ...] = field(default=("sft-guard",))

    def panels(self) -> tuple[Panel, ...]:
        """All panels in order."""
        return tuple(panel for row in self.rows for panel in row.panels)


def series(metric: str, selector: str = RELEASE, suffix: str = "") -> str:
    """Return `metric{selector}`; a metric that is not in the table of names is refused, so no panel can outlive one.

    >>> series("sft_release_weight")
    'sft_release_weight{service="$service",release=~"$release"}'

    Raises:
        KeyError: no such metric.
    """
    if metric not in METRICS and metric not in INDICATORS:
        raise KeyError(metric)
    return f"{metric}{suffix}{{{selector}}}"


def rate(metric: str, selector: str = RELEASE, suffix: str = "", span: str = RATE) -> str:
    """Return the rate per second of a counter."""
    return f"rate({series(metric, selector, suffix)}[{span}])"


def increase(metric: str, selector: str = RELEASE, suffix: str = "", span: str = "1h") -> str:
    """Return how much a counter grew."""
    return f"increase({series(metric, selector, suffix)}[{span}])"


def share(part: str, whole: str, by: str) -> str:
    """Return part / whole by a label. A part that never happened has no series, and is 0 as long as there is a whole.

    >>> share("rate(bad[5m])", "rate(all[5m])", "release")
    '(sum by (release) (rate(bad[5m])) or sum by (release) (rate(all[5m])) * 0) / sum by (release) (rate(all[5m]))'
    """
    total = f"sum by ({by}) ({whole})"
    return f"(sum by ({by}) ({part}) or {total} * 0) / {total}"


def quantile(q: float, metric: str, by: str, selector: str = RELEASE) -> str:
    """Return a quantile of a histogram, by some labels."""
    return f"histogram_quantile({q:g}, sum by (le, {by}) ({rate(metric, selector, '_bucket')}))"
