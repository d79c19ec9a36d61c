"""Baselines as users of them see it: collect, save, load, show.

    exchanges -> collect -> Baseline -> save_baseline -> baseline.json -> load_baseline -> thresholds

What a baseline is stands in `slo.artefact`, how one is made in `slo.collecting`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from slo.artefact import QUANTILES, Baseline, IndicatorBaseline, Measured, from_json, hour_of_week, to_json
from slo.collecting import TimeRange, collect
from slo.errors import DataError
from slo.metric_names import INDICATORS
from slo.wording import show_duration, show_ratio, show_value

MAX_BYTES = 64 * 1024 * 1024
SHOWN = 20
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def load_baseline(path: Path | str) -> Baseline:
    """Read and verify a baseline file.

    Raises:
        DataError: unreadable, too large, or anything `from_json` refuses.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(f"{path}: {size} bytes; a baseline has at most {MAX_BYTES}")
        text = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror or error}; name a file made by `sft-guard baseline collect`"
        ) from error
    return from_json(text, path.name)


def save_baseline(baseline: Baseline, path: Path | str) -> None:
    """Write the artefact beside its place and rename it, so that a reader sees the old one or the new one.

    Raises:
        DataError: the place cannot be written.
    """
    path = Path(path)
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_bytes(to_json(baseline))
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place with --out"
        ) from error


def show(baseline: Baseline) -> str:
    """Return the baseline as a page of text for a person."""
    valid = (baseline.expires_wall_s - baseline.created_wall_s) / 86_400.0
    first, last, made = (_day(t) for t in (baseline.first_wall_s, baseline.last_wall_s, baseline.created_wall_s))
    embedder, config = baseline.embedder or "not recorded", baseline.config_hash or "not recorded"
    left_out = ", ".join(f"{count} {reason}" for reason, count in baseline.excluded) or "nothing"
    lines = [
        f"baseline of {baseline.exchange_count} exchanges over {baseline.days:.1f} days",
        f"  from {first} to {last} UTC, valid {valid:g} days from {made}, until {_day(baseline.expires_wall_s)}",
        f"  source {baseline.source or 'not recorded'}  sha256 {baseline.sha256[:12]}",
        f"  embedder {embedder}  config {config}",
        f"  releases {', '.join(baseline.releases) or 'none named'}",
        f"  left out: {left_out}",
        *(f"    given: {_day(start)} to {_day(end)}" for start, end in baseline.exclusions[:SHOWN]),
        *(f"    {i.incident_id}: {_day(i.start_wall_s)} to {_day(i.end_wall_s)}" for i in baseline.incidents[:SHOWN]),
        *(f"  note: {note}" for note in baseline.notes),
    ]
    if baseline.forced:
        lines.append(f"  FORCED: {baseline.forced_reason}")
    lines += ["", *_table(baseline), "", *_hours(baseline), "", *_drift(baseline)]
    return "\n".join(lines)


def _hours(baseline: Baseline) -> Iterator[str]:
    """The week in a few lines: when there is traffic, and how far each indicator swings with the hour."""
    quiet = 168 - len(baseline.hours)
    yield f"hours of the week with traffic: {len(baseline.hours)} of 168, {quiet} silent"
    if baseline.hours:
        busiest = max(baseline.hours, key=lambda h: h.exchange_count)
        calmest = min(baseline.hours, key=lambda h: h.exchange_count)
        yield (
            f"busiest: {_hour(busiest.hour_of_week)} with {busiest.exchange_count} exchanges, "
            f"calmest: {_hour(calmest.hour_of_week)} with {calmest.exchange_count}"
        )
    judged = [(h.judged_ratio, h.hour_of_week) for h in baseline.hours if h.judged_ratio is not None]
    if judged:
        ratio, hour = min(judged)
        yield f"lowest share of judged answers: {show_ratio(ratio)} on {_hour(hour)}"
    for one in baseline.indicators:
        means = [(value.mean, value.hour_of_week) for value in one.profile]
        if one.window_s == baseline.window_s and len(means) > 1:
            (low, low_hour), (high, high_hour) = min(means), max(means)
            indicator = INDICATORS[one.indicator]
            yield (
                f"  {one.indicator}: {show_value(indicator, low)} on {_hour(low_hour)} "
                f"to {show_value(indicator, high)} on {_hour(high_hour)}"
            )


def _drift(baseline: Baseline) -> Iterator[str]:
    """What later questions and answers can be compared with."""
    for one in baseline.drift:
        spread = "not known" if one.day_spread is None else f"{one.day_spread:.4f}"
        yield (
            f"drift reference: {one.component}, embedder {one.fingerprint}, dim {one.dim}, {one.count} texts "
            f"({one.sample_count} kept), distance between days {spread}"
        )
        for spread_of in one.distributions:
            words = spread_of.shares or spread_of.quantiles
            shown = ", ".join(f"{name} {value:.3g}" for name, value in words)
            yield f"  {spread_of.name} of {spread_of.count}: {shown}"
    if baseline.drift_missing or not baseline.drift:
        yield f"no drift reference: {baseline.drift_missing or 'none was asked for'}"


def _hour(hour: int) -> str:
    """
    >>> _hour(0), _hour(167)
    ('Mon 00:00 UTC', 'Sun 23:00 UTC')
    """
    return f"{_WEEKDAYS[hour // 24]} {hour % 24:02d}:00 UTC"


def _table(baseline: Baseline) -> list[str]:
    """One line per indicator and window length, aligned."""
    rows = [("indicator", "window", "windows", "events", "overall", "p50", "p95 (95 % interval)")]
    for one in baseline.indicators:
        indicator = INDICATORS[one.indicator]
        middle, high = one.statistic("p50"), one.statistic("p95")
        p95 = "-"
        if high:
            low_end, estimate, high_end = (show_value(indicator, v) for v in (high.low, high.estimate, high.high))
            p95 = f"{estimate} ({low_end} to {high_end})"
        counts = (show_duration(one.window_s), str(one.window_count), str(one.event_count))
        p50 = show_value(indicator, middle.estimate) if middle else "-"
        rows.append((one.indicator, *counts, show_value(indicator, one.overall), p50, p95))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _day(wall_s: float) -> str:
    """Unix seconds as a UTC minute; the number itself when no calendar has it."""
    try:
        return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return f"{wall_s:g}"


__all__ = [
    "QUANTILES", "Baseline", "IndicatorBaseline", "Measured", "TimeRange", "collect", "from_json", "hour_of_week",
    "load_baseline", "save_baseline", "show", "to_json",
]  # fmt: skip
