"""The quality report of one day: every release's indicators beside the day before, what failed, what it cost. Pure.

Rates are shown with their 95 % bounds, because a day of a small canary says little; a change is called one only when
the bounds of the two days do not meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from slo.indicators import LATENCY
from slo.metric_names import INDICATORS
from slo.statistics import wilson_lower, wilson_upper
from slo.wording import show_ratio

REPORTED = (
    "sft_availability_success_rate", "sft_availability_http_error_rate", "sft_quality_hallucination_rate",
    "sft_quality_zero_hit_rate", "sft_quality_similarity_score", "sft_cost_inference_per_request_usd",
    "sft_cache_hit_rate",
)  # fmt: skip
TITLES = {
    "sft_availability_success_rate": "success",
    "sft_availability_http_error_rate": "HTTP errors",
    "sft_quality_hallucination_rate": "hallucination",
    "sft_quality_zero_hit_rate": "nothing found",
    "sft_quality_similarity_score": "similarity",
    "sft_cost_inference_per_request_usd": "USD per request",
    "sft_cache_hit_rate": "cache hits",
}


@dataclass(frozen=True, slots=True)
class Sum:
    """An indicator of a release on a day."""

    bad: float
    count: float
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class ReleaseDay:
    """One release on one day. quantiles: "p50" ... -> seconds."""

    release: str
    arm: str
    exchange_count: int
    sums: Mapping[str, Sum]
    quantiles: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Day:
    """All that the report needs. day: ISO date (UTC). failures: (check, reason, count), the commonest first."""

    day: str
    releases: tuple[ReleaseDay, ...]
    before: tuple[ReleaseDay, ...]
    failures: tuple[tuple[str, str, int], ...]
    spending: tuple[tuple[str, float], ...]
    incidents: tuple[tuple[str, str, str], ...]  # (time, title, whether it helped)
    lines_left_out: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """Heads and rows of text, whatever they are printed as."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    empty: str


def tables(day: Day) -> tuple[Table, ...]:
    """The report as tables."""
    before = {(r.release, r.arm): r for r in day.before}
    rows = []
    for one in day.releases:
        known = before.get((one.release, one.arm))
        cells = [_cell(name, one.sums.get(name), known.sums.get(name) if known else None) for name in REPORTED]
        latency = " / ".join(_ms(one.quantiles.get(q)) for q in ("p50", "p95", "p99"))
        rows.append((f"{one.release} ({one.arm})", str(one.exchange_count), *cells, latency))
    heads = ("release", "exchanges", *(TITLES[name] for name in REPORTED), "p50 / p95 / p99 ms")
    return (
        Table("Releases", heads, tuple(rows), "No exchange on this day."),
        Table("What failed most", ("check", "reason", "answers"), tuple((c, r, str(n)) for c, r, n in day.failures),
              "No check failed."),
        Table("Incidents", ("time (UTC)", "what", "did it help?"), day.incidents, "None."),
        Table("Spending by tenant", ("tenant", "USD"), tuple((n or "(none)", f"{usd:.4f}") for n, usd in day.spending),
              "Nothing with a known price."),
    )  # fmt: skip


def summary(day: Day) -> str:
    """One sentence for whoever reads only that."""
    count = sum(r.exchange_count for r in day.releases)
    if not count:
        return f"{day.day}: no traffic."
    worse = [
        f"{TITLES[name]} of {one.release} ({one.arm})"
        for one in day.releases
        for known in day.before
        if (known.release, known.arm) == (one.release, one.arm)
        for name in REPORTED
        if _verdict(name, one.sums.get(name), known.sums.get(name)) == "worse"
    ]
    told = f"worse than the day before: {'; '.join(worse)}" if worse else "nothing is clearly worse than the day before"
    incidents = f"{len(day.incidents)} incident{'' if len(day.incidents) == 1 else 's'}"
    return f"{day.day}: {count} exchanges, {incidents}; {told}."


def markdown(service: str, day: Day) -> str:
    """The report as Markdown."""
    lines = [f"# Quality of {_md(service)} on {day.day}", "", _md(summary(day)), ""]
    for table in tables(day):
        lines += [f"## {table.title}", ""]
        if table.rows:
            lines += ["| " + " | ".join(table.heads) + " |", "|" + "---|" * len(table.heads)]
            lines += ["| " + " | ".join(_md(cell) for cell in row) + " |" for row in table.rows]
        else:
            lines.append(table.empty)
        lines.append("")
    return "\n".join([*lines, _foot(day), ""])


def html(service: str, day: Day) -> str:
    """The report as one HTML file: no script, nothing from elsewhere."""
    parts = [f"<h1>Quality of {escape(service)} on {day.day}</h1><p>{escape(summary(day))}</p>"]
    for table in tables(day):
        parts.append(f"<h2>{escape(table.title)}</h2>")
        if not table.rows:
            parts.append(f"<p>{escape(table.empty)}</p>")
            continue
        heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in table.heads)
        rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
        parts.append(f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>")
    style = "body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:1rem auto;padding:0 1rem}"
    style += "table{border-collapse:collapse}th,td{text-align:left;padding:.3rem .7rem;border-bottom:1px solid #ccc}"
    title = escape(f"{service} {day.day}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{style}</style></head><body>{''.join(parts)}<p>{escape(_foot(day))}</p></body></html>\n"
    )


def _foot(day: Day) -> str:
    left_out = f" {day.lines_left_out} damaged lines were left out." if day.lines_left_out else ""
    return (
        "Shares carry their one-sided 95 % bounds; an arrow, up or down as the share went, marks a change from the day "
        "before whose bounds do not meet. "
        f"Days are UTC.{left_out}"
    )


def _cell(name: str, now: Sum | None, before: Sum | None) -> str:
    if now is None or not now.count:
        return "-"
    down = INDICATORS[name].worse == "down"
    if INDICATORS[name].kind == "mean":
        return f"{now.total / now.count:.4g} of {now.count:g}"
    verdict = _verdict(name, now, before)
    arrow = "\u2193" if down is (verdict == "worse") else "\u2191"
    mark = f" {arrow} {verdict}" if verdict else ""
    low, high = _bounds(now)
    value, low, high = (1 - now.bad / now.count, 1 - high, 1 - low) if down else (now.bad / now.count, low, high)
    span = f"{show_ratio(round(low, 5))} to {show_ratio(round(high, 5))}"
    return f"{show_ratio(value)} ({span}) of {now.count:g}{mark}"


def _verdict(name: str, now: Sum | None, before: Sum | None) -> str:
    """worse | better | "" for an indicator of two days; means are not compared, their spread is not in the sums."""
    if now is None or before is None or not now.count or not before.count or INDICATORS[name].kind == "mean":
        return ""
    (low, high), (low_before, high_before) = _bounds(now), _bounds(before)
    if low > high_before:
        return "worse"
    return "better" if high < low_before else ""


def _bounds(one: Sum) -> tuple[float, float]:
    return wilson_lower(one.bad, one.count), wilson_upper(one.bad, one.count)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}"


def _md(text: str) -> str:
    """One cell of Markdown that cannot become markup, a link or HTML."""
    line = " ".join(text.split())
    for char in "\\`*_[]<>|#!":
        line = line.replace(char, "\\" + char)
    return line


def release_days(
    counts: Mapping[tuple[str, str], int],
    sums: Sequence[tuple[str, str, str, float, float, float]],
    bins: Mapping[tuple[str, str], Mapping[str, float | None]],
) -> tuple[ReleaseDay, ...]:
    """Put the rows of a day together. sums: (release, arm, indicator, bad, count, total)."""
    found = []
    for (release, arm), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        mine: dict[str, Sum] = {}
        for one, its_arm, name, bad, of, total in sums:
            if (one, its_arm) == (release, arm) and name != LATENCY:
                known = mine.get(name, Sum(0.0, 0.0))
                mine[name] = Sum(known.bad + bad, known.count + of, known.total + total)
        found.append(ReleaseDay(release, arm, count, mine, bins.get((release, arm), {})))
    return tuple(found)
