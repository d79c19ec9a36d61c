"""Prometheus text format 0.0.4 and OpenMetrics 1.0 from plain samples.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exporters.labels import clean
from exporters.series import Exemplar
from slo.metric_names import Metric

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Sample:
    """One series: label values in the order of the metric's labels, and its value."""

    values: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """One histogram series: counts per bucket (not cumulative, last is +Inf) and the sum of what was observed."""

    values: tuple[str, ...]
    bounds: Sequence[float]
    counts: Sequence[int]
    total: float
    exemplars: dict[int, Exemplar]


@dataclass(frozen=True, slots=True)
class FamilyText:
    """What one metric shows in this scrape; a family without series is left out."""

    metric: Metric
    samples: Sequence[Sample | Histogram]


def wants_openmetrics(accept: str) -> bool:
    """True when the `Accept` header asks for OpenMetrics before plain text.

    >>> wants_openmetrics("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"), wants_openmetrics("*/*")
    (True, False)
    """
    best: dict[str, float] = {}
    for part in accept.split(","):
        kind, *params = (p.strip().lower() for p in part.split(";"))
        quality = 1.0
        for param in params:
            if param.startswith("q="):
                try:
                    quality = float(param[2:])
                except ValueError:
                    quality = 0.0
        best[kind] = max(best.get(kind, 0.0), quality)
    asked = best.get("application/openmetrics-text", 0.0)
    return asked > 0.0 and asked >= best.get("text/plain", 0.0)


def number(value: float) -> str:
    """Render a number: integers without a point, the rest as the shortest text that reads back the same.

    >>> number(3.0), number(0.1), number(float("inf")), number(float("nan"))
    ('3', '0.1', '+Inf', 'NaN')
    """
    if isinstance(value, int):
        return str(value)
    if math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if math.isnan(value):
        return "NaN"
    return "+Inf" if value > 0 else "-Inf"


def escape(value: str) -> str:
    r"""Escape a label value.

    >>> escape('a"b\\c')
    'a\\"b\\\\c'
    """
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render(service: str, families: Iterable[FamilyText], *, openmetrics: bool = False) -> bytes:
    """Return the scrape. Families come in the order given, series sorted by label values.

    service: value of the label every series carries.
    """
    first = f'service="{escape(service)}"'
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        metric = family.metric
        name, kind = metric.name, metric.kind
        if openmetrics and kind == "counter":
            name = name.removesuffix("_total")
        elif openmetrics and kind == "gauge" and name.endswith("_info"):
            # OpenMetrics has a type for these, and reserves the suffix for it.
            name, kind = name.removesuffix("_info"), "info"
        help_text = metric.help.replace("\\", "\\\\").replace("\n", "\\n")
        if openmetrics:
            help_text = help_text.replace('"', '\\"')
        lines.append(f"# HELP {name} {help_text}")
        lines.append(f"# TYPE {name} {kind}")
        # What something is made of is read by people and scripts: a part that it lacks is shown as such.
        whole = metric.name.endswith("_info")
        for sample in sorted(family.samples, key=_values):
            labels = first + "".join(
                [f',{label}="{escape(v)}"' for label, v in zip(metric.labels, sample.values, strict=True) if v or whole]
            )
            if isinstance(sample, Histogram):
                _histogram(lines, metric.name, labels, sample, openmetrics)
            else:
                lines.append(f"{metric.name}{{{labels}}} {number(sample.value)}")
    if openmetrics:
        lines.append("# EOF")
    lines.append("")
    return "\n".join(lines).encode("utf-8", "replace")


def _values(sample: Sample | Histogram) -> tuple[str, ...]:
    return sample.values


def _histogram(lines: list[str], name: str, labels: str, sample: Histogram, openmetrics: bool) -> None:
    count = 0
    for index, bucket in enumerate(sample.counts):
        count += bucket
        bound = repr(float(sample.bounds[index])) if index < len(sample.bounds) else "+Inf"
        line = f'{name}_bucket{{{labels},le="{bound}"}} {count}'
        if openmetrics and (exemplar := sample.exemplars.get(index)):
            trace_id, value, wall_s = exemplar
            line += f' # {{trace_id="{escape(clean(trace_id))}"}} {number(value)} {wall_s:.3f}'
        lines.append(line)
    lines.append(f"{name}_sum{{{labels}}} {number(sample.total)}")
    # The sum of the buckets just copied, so that _count and the +Inf bucket can never disagree within one scrape.
    lines.append(f"{name}_count{{{labels}}} {count}")
