"""A baseline's counts out of the exchange log, made by the engine: constant memory, each line parsed once.

The same decisions as `slo.collecting.collect` makes one exchange at a time; a test holds both to the same artefact.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import gcd
from typing import Any

from slo.artefact import DAY_S, hour_of_week
from slo.collecting import (
    CANARY,
    EXCLUDED,
    FUTURE_S,
    HITS,
    INCIDENT,
    LATENCIES,
    MIN_WINDOW_EVENTS,
    OTHER_RELEASE,
    RELEASE_COUNT,
    TOO_OLD,
    WRONG_CLOCK,
    Gathered,
    Terms,
    TimeRange,
    value_of,
)
from slo.errors import ConfigError
from slo.indicators import CACHE_HITS, LATENCY
from slo.metric_names import INDICATORS
from slo.sources.log_table import USABLE, LogTable
from slo.sources.log_votes import BALLOTS, SERVED, bin_sql, bucket, number, profiles, tally_sql
from slo.windows import quantile_of_bins

HOUR_S = 3600
_CHECKED = tuple(b.indicator for b in BALLOTS if b.indicator.startswith("sft_quality_"))

Progress = Callable[[float], None]


def gather(table: LogTable, terms: Terms, on_progress: Progress | None = None) -> Gathered:
    """Count what `terms` ask for; the table's problems are complete afterwards. on_progress: share done, 0 to 1.

    Raises:
        ConfigError: a window that is no whole number of seconds. DataError: as `LogTable.run`.
    """
    width_s = _width_s(terms)
    table.stage(on_progress)
    profiles(table, width_s, name="kinds", keys=f"{_left_out_sql(terms)} AS left_out, release", on_progress=on_progress)
    table.run(
        f"CREATE OR REPLACE TABLE latencies AS SELECT {bucket(width_s)} AS bucket, {bin_sql('duration_s')} AS key, "
        f"count(*) AS n FROM numbers WHERE {USABLE} AND {SERVED} AND {_left_out_sql(terms)} = '' GROUP BY ALL",
        on_progress,
    )
    notes = _leave_old_out(table, terms, width_s)
    # Cache hits are left out, and yet the hit rate is made of them; the hit rate of the rest is made of misses.
    votes = f"left_out = '' OR (left_out = '{HITS}' AND indicator = '{CACHE_HITS}')"
    table.run(f"CREATE OR REPLACE TABLE sums AS SELECT * FROM ({tally_sql('kinds', 'left_out, bucket')}) WHERE {votes}")
    count, first_s, last_s, day_count = next(
        table.rows(
            f"SELECT coalesce(sum(n), 0)::BIGINT, min(first_s), max(last_s), count(DISTINCT bucket * {width_s} // "
            f"{int(DAY_S)}) FROM kinds WHERE left_out = ''"
        )
    )
    gathered = Gathered(
        exchange_count=count,
        day_count=day_count,
        excluded=dict(table.rows("SELECT left_out, sum(n)::BIGINT FROM kinds WHERE left_out <> '' GROUP BY ALL")),
        hours=_hours(table, width_s),
        notes=notes,
    )
    if count:
        gathered.first_wall_s, gathered.last_wall_s = first_s, last_s
        # Not a key of the counts: five thousand releases would make five thousand times the rows.
        named = table.rows(
            f"SELECT DISTINCT release FROM numbers WHERE {USABLE} AND {_left_out_sql(terms)} = '' AND "
            f"{_between(first_s, last_s)} ORDER BY release LIMIT {RELEASE_COUNT}"
        )
        gathered.releases = tuple(release for (release,) in named)
    _values(table, terms, width_s, gathered)
    return gathered


def sample_words(table: LogTable, terms: Terms, gathered: Gathered, count: int) -> list[tuple[float, dict[str, Any]]]:
    """(Unix seconds, text object) of at most `count` exchanges that went in, the same ones for the same log.

    Raises:
        DataError: as `LogTable.run`.
    """
    if not table.has_text or not gathered.exchange_count:
        return []
    span = _between(gathered.first_wall_s, gathered.last_wall_s)
    sql = (
        f"SELECT wall_s, text FROM worded WHERE text IS NOT NULL AND {USABLE} AND {span} "
        f"AND {_left_out_sql(terms)} = '' ORDER BY pick, wall_s LIMIT {count}"
    )
    return [(wall_s, json.loads(text)) for wall_s, text in table.rows(sql)]


def _width_s(terms: Terms) -> int:
    """The widest bucket that all windows and the hours of the week are made of."""
    for window_s in terms.windows_s:
        if window_s < 1 or window_s != int(window_s):
            raise ConfigError("window", f"{window_s:g}s", "write whole seconds, such as 10m, 1h or 1d")
    return gcd(HOUR_S, *(int(window_s) for window_s in terms.windows_s))


def _left_out_sql(terms: Terms) -> str:
    """SQL: why an exchange is left out, '' to take it; the order is that of `slo.collecting`."""
    cases = [
        ("arm = 'canary'", CANARY),
        (f"NOT (wall_s >= 0 AND wall_s <= {number(terms.now_wall_s + FUTURE_S)})", WRONG_CLOCK),
        (_within(terms.exclusions), EXCLUDED),
        (_within(tuple((i.start_wall_s, i.end_wall_s) for i in terms.incidents)), INCIDENT),
    ]
    if terms.release is not None:
        quoted = terms.release.replace("'", "''")
        cases.append((f"release <> '{quoted}'", OTHER_RELEASE))
    cases.append(("cache = 'hit'", HITS))
    return "CASE " + " ".join(f"WHEN {when} THEN '{reason}'" for when, reason in cases) + " ELSE '' END"


def _within(ranges: tuple[TimeRange, ...]) -> str:
    """SQL: the exchange lies in one of the ranges. Overlapping ones are joined, so a thousand incidents stay few."""
    joined: list[list[float]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    parts = [f"(wall_s >= {number(start)} AND wall_s < {number(end)})" for start, end in joined]
    return f"({' OR '.join(parts)})" if parts else "false"


def _between(first_s: float, last_s: float) -> str:
    """SQL: the exchange lies in the span, both ends included."""
    return f"wall_s >= {number(first_s)} AND wall_s <= {number(last_s)}"


def _leave_old_out(table: LogTable, terms: Terms, width_s: int) -> tuple[str, ...]:
    """Of more than `terms.max_days` keep the latest, by whole hours, and say so."""
    taken = "left_out IN ('', '" + HITS + "')"
    first_s, last_s = next(table.rows("SELECT min(first_s), max(last_s) FROM kinds WHERE left_out = ''"))
    hours = round(terms.max_days * 24)
    if first_s is None or last_s - first_s <= terms.max_days * DAY_S:
        return ()
    cut = (int(last_s // HOUR_S) - hours + 1) * HOUR_S // width_s
    table.run(f"UPDATE kinds SET left_out = '{TOO_OLD}' WHERE {taken} AND bucket < {cut}")
    table.run(f"DELETE FROM latencies WHERE bucket < {cut}")
    all_days = (last_s // HOUR_S - first_s // HOUR_S + 1) / 24
    return (f"the log spans {all_days:.1f} days; the latest {terms.max_days:g} were used",)


def _hours(table: LogTable, width_s: int) -> dict[int, list[int]]:
    hours: dict[int, list[int]] = {}
    seen = f"SELECT bucket * {width_s} // {HOUR_S}, sum(n)::BIGINT FROM kinds WHERE left_out = '' GROUP BY ALL"
    for hour, count in table.rows(seen):
        hours.setdefault(hour_of_week(hour * HOUR_S), [0, 0, 0])[0] += count
    names = ", ".join(f"'{name}'" for name in _CHECKED)
    checked = (
        f"SELECT bucket * {width_s} // {HOUR_S}, sum(count)::BIGINT, sum(unjudged)::BIGINT FROM sums "
        f"WHERE left_out = '' AND indicator IN ({names}) GROUP BY ALL"
    )
    for hour, judged, unjudged in table.rows(checked):
        row = hours[hour_of_week(hour * HOUR_S)]
        row[1] += judged
        row[2] += judged + unjudged
    return hours


def _values(table: LogTable, terms: Terms, width_s: int, gathered: Gathered) -> None:
    """Fill in the value of each indicator, per window and over all."""
    whole = "SELECT indicator, sum(count)::BIGINT, sum(bad)::BIGINT, fsum(total) FROM sums GROUP BY ALL"
    for name, count, bad, total in table.rows(whole):
        if name != LATENCY and (value := value_of(name, count, bad, total, {})) is not None:
            gathered.overall[name] = (count, value)
    bins = dict(table.rows("SELECT key, sum(n)::BIGINT FROM latencies GROUP BY ALL"))
    _latency_values(gathered.overall, bins)
    for window_s in map(int, terms.windows_s):
        place = f"bucket // {window_s // width_s} AS place"
        sql = (
            f"SELECT indicator, {place}, sum(count)::BIGINT, sum(bad)::BIGINT, fsum(total) FROM sums "
            f"WHERE indicator <> '{LATENCY}' GROUP BY ALL HAVING sum(count) >= {MIN_WINDOW_EVENTS} ORDER BY place"
        )
        for name, at, count, bad, total in table.rows(sql):
            value = value_of(name, count, bad, total, {})
            if value is not None:
                gathered.values.setdefault((name, float(window_s)), []).append((float(at * window_s), value))
        for at, *keys in table.rows(_quantiles_sql(place)):
            for name, key in zip(LATENCIES, keys, strict=True):
                value = quantile_of_bins({key: 1.0}, 0.5)
                assert value is not None
                gathered.values.setdefault((name, float(window_s)), []).append((float(at * window_s), value))


def _latency_values(into: dict[str, tuple[int, float]], bins: dict[int, int]) -> None:
    count = sum(bins.values())
    for name in LATENCIES:
        value = value_of(name, count, 0, 0.0, bins)
        if value is not None:
            into[name] = (count, value)


def _quantiles_sql(place: str) -> str:
    """SQL: the bin of each latency quantile per window, as `quantile_of_bins` finds it; windows with enough events."""
    found = ", ".join(
        f"min(key) FILTER (seen > {number(q)} * CAST(total - 1 AS DOUBLE)) AS bin{n}"
        for n, q in enumerate(LATENCIES.values())
    )
    return (
        f"WITH bins AS (SELECT {place}, key, sum(n)::BIGINT AS n FROM latencies GROUP BY ALL), "
        "run AS (SELECT place, key, sum(n) OVER (PARTITION BY place ORDER BY key) AS seen, "
        "sum(n) OVER (PARTITION BY place) AS total FROM bins) "
        f"SELECT place, {found} FROM run WHERE total >= {MIN_WINDOW_EVENTS} GROUP BY place ORDER BY place"
    )


assert set(_CHECKED) <= set(INDICATORS)
