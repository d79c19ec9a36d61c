"""`python -m exporters.docs`: write docs/metrics.md from the table of names, so that it can never lag behind."""

from __future__ import annotations

import sys
from pathlib import Path

from exporters.bounds import LATENCY_BOUNDS_S, OVERHEAD_BOUNDS_S, REDIS_BOUNDS_S, RETRIEVAL_BOUNDS_S, SCORE_BOUNDS
from exporters.labels import BOUNDED_COUNT, BOUNDED_COUNT_DEFAULT, closed_set
from slo.metric_names import INDICATORS, METRICS, Metric

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"

_INTRO = """\
# Metrics

This page is generated from the table of names by `python -m exporters.docs`; do not edit it by hand.

Every series carries the label `service`. Durations are seconds, shares are ratios 0..1, money is USD; only the gauges
that end in `_ms` are milliseconds. A gauge that is unknown is absent, never 0; counters of rare events stand at 0 from
the start, so that `increase` sees the first one. `/metrics` answers text format 0.0.4, or OpenMetrics with trace
exemplars when the `Accept` header asks for it.

Label values come from closed sets; a value outside its set appears as `other`. Labels without a set of their own
(routes, releases, rule names...) keep their first {default} distinct values ({exceptions}), then `other`.
At most 1,500 lines of a scrape are of what is counted as it happens, and 2,000 of what is asked for at scrape time:
gauges, and the counters of objectives. So no flood of label values can push those out. What found no place is counted
in `sft_guard_series_dropped_total`. The series of a version that is taken out of `guard.yaml` go with the reload.
"""


def page() -> str:
    """Return docs/metrics.md."""
    exceptions = ", ".join(f"{label}: {count}" for label, count in sorted(BOUNDED_COUNT.items()))
    parts = [_INTRO.format(default=BOUNDED_COUNT_DEFAULT, exceptions=exceptions)]
    exact = [m for m in METRICS.values() if m.name in INDICATORS]
    parts.append("## The six exact gauges\n\nRolling window, per release.\n")
    parts += [_entry(metric) for metric in exact]
    for title, prefix in (
        ("Availability", "sft_availability_"), ("Performance", "sft_perf_"), ("Quality", "sft_quality_"),
        ("Cost", "sft_cost_"), ("Cache", "sft_cache_"), ("Objectives", "sft_slo_"), ("Releases", "sft_release_"),
        ("The guard itself", "sft_guard_"), ("Training of adapters", "sft_train_"), ("`lora serve`", "sft_serve_"),
    ):  # fmt: skip
        parts.append(f"## {title}\n")
        parts += [_entry(m) for m in METRICS.values() if m.name.startswith(prefix) and m not in exact]
    parts.append("## Indicators that rules are written on\n")
    parts.append("| indicator | kind | worse when | unit | meaning |\n|---|---|---|---|---|")
    parts += [f"| `{i.name}` | {i.kind} | {i.worse} | {i.unit} | {_cell(i.help)} |" for i in INDICATORS.values()]
    parts.append("")
    parts.append("## Bucket bounds\n")
    parts.append("Every latency threshold of the SLO file is a further bound of `sft_perf_request_duration_seconds`.\n")
    for name, bounds in (
        ("request duration, time to first token", LATENCY_BOUNDS_S), ("retrieval", RETRIEVAL_BOUNDS_S),
        ("commands on Redis", REDIS_BOUNDS_S), ("overhead", OVERHEAD_BOUNDS_S), ("score", SCORE_BOUNDS),
    ):  # fmt: skip
        parts.append(f"- {name}: {', '.join(f'{bound:g}' for bound in bounds)}")
    return "\n".join(parts) + "\n"


def _entry(metric: Metric) -> str:
    lines = [f"### `{metric.name}`\n", f"{metric.help}. {metric.kind.capitalize()}.\n"]
    for label in metric.labels:
        words = closed_set(metric.name, label)
        lines.append(f"- `{label}`: " + (", ".join(f"`{word}`" for word in sorted(words)) if words else "bounded"))
    if metric.labels:
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Write the page and say where."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote docs/{PAGE.name}: {len(METRICS)} metrics\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
