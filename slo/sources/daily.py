"""One day of the exchange log for `slo.daily`. Needs the `analysis` extra."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from slo.daily import Day, ReleaseDay, release_days
from slo.errors import DataError
from slo.sources.log_table import LogTable, open_log
from slo.sources.log_votes import latency_bins, tallies
from slo.windows import quantile_of_bins

DAY_S = 86_400.0
FAILURES_COUNT, TENANTS_COUNT = 10, 10
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def read_day(
    paths: Iterable[Path], day: date | None = None, incidents: Iterable[tuple[float, str, str]] = (), *, now_s: float
) -> tuple[Day, tuple[str, ...]]:
    """Return the day (default: the last whole one in the log, else the last) and what was left out, in words.

    incidents: (Unix seconds, title, whether the rollback helped) of any day. now_s: Unix seconds; its day is not over.

    Raises:
        DataError: nothing to read, or the extra is missing.
    """
    with open_log(list(paths)) as table:
        today = int(now_s // DAY_S)
        number = _number(table, today) if day is None else (day - date(1970, 1, 1)).days
        wanted = (number, number - 1)
        counts: dict[int, Counter[tuple[str, str]]] = defaultdict(Counter)
        sums: dict[int, list[tuple[str, str, str, float, float, float]]] = defaultdict(list)
        for tally in tallies(table, DAY_S):
            if tally.bucket in wanted:
                row = (tally.release, tally.arm, tally.indicator, tally.bad, tally.count, tally.total)
                sums[tally.bucket].append(row)
        at = f"floor(wall_s / {DAY_S})"
        for bucket, release, arm, count in table.rows(
            f"SELECT {at}::BIGINT AS b, release, arm, count(*) FROM exchanges "
            f"WHERE {at} IN ({number}, {number - 1}) GROUP BY ALL"
        ):
            counts[bucket][release, arm] += count
        bins = _quantiles(table, wanted)
        days = [release_days(counts[b], sums[b], bins.get(b, {})) for b in wanted]
        told = _day(table, number, days, incidents)
        stale = f"no exchange since {_iso(number)}, {today - number} days ago: the report is of that day"
        return told, (*table.problems, *((stale,) if day is None and number < today - 1 else ()))


def _day(
    table: LogTable, number: int, days: list[tuple[ReleaseDay, ...]], incidents: Iterable[tuple[float, str, str]]
) -> Day:
    span = f"floor(wall_s / {DAY_S}) = {number}"
    failures = table.rows(
        'SELECT f."check", left(f.reason, 120), count(*) FROM (SELECT unnest(findings) AS f FROM exchanges '
        f"WHERE {span} AND findings IS NOT NULL) WHERE f.result = 'fail' GROUP BY ALL ORDER BY 3 DESC, 1, 2 "
        f"LIMIT {FAILURES_COUNT}"
    ) if _has_findings(table) else iter(())  # fmt: skip
    spending = table.rows(
        f"SELECT tenant, sum(cost_usd) FROM exchanges WHERE {span} AND cost_usd IS NOT NULL GROUP BY tenant "
        f"ORDER BY 2 DESC, 1 LIMIT {TENANTS_COUNT}"
    )
    that_day = sorted((wall_s, title, helped) for wall_s, title, helped in incidents if wall_s // DAY_S == number)
    return Day(
        day=_iso(number),
        releases=days[0],
        before=days[1],
        failures=tuple((check, reason or "(no reason given)", count) for check, reason, count in failures),
        spending=tuple(spending),
        incidents=tuple(
            (datetime.fromtimestamp(wall_s, UTC).strftime("%H:%M:%S"), title, helped)
            for wall_s, title, helped in that_day
        ),
        lines_left_out=table.bad_count,
    )


def _has_findings(table: LogTable) -> bool:
    return any(row[0] == "findings" for row in table.rows("DESCRIBE exchanges"))


def _iso(number: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=number)).isoformat()


def _number(table: LogTable, today: int) -> int:
    found = table.db.execute(f"SELECT DISTINCT floor(wall_s / {DAY_S})::BIGINT FROM exchanges ORDER BY 1").fetchall()
    if not found:
        raise DataError("exchange log: no usable exchange; name the segments of a guard that has served")
    numbers = [int(row[0]) for row in found]
    return max((number for number in numbers if number < today), default=numbers[-1])


def _quantiles(table: LogTable, wanted: tuple[int, int]) -> dict[int, dict[tuple[str, str], dict[str, float | None]]]:
    bins: dict[tuple[int, str, str], dict[int, float]] = defaultdict(dict)
    where = f"floor(wall_s / {DAY_S}) IN ({wanted[0]}, {wanted[1]})"
    for row in latency_bins(table, DAY_S, where=where):
        mine = bins[row.bucket, row.release, row.arm]
        mine[row.key] = mine.get(row.key, 0.0) + row.count
    found: dict[int, dict[tuple[str, str], dict[str, float | None]]] = defaultdict(dict)
    for (bucket, release, arm), mine in bins.items():
        found[bucket][release, arm] = {name: quantile_of_bins(mine, q) for name, q in QUANTILES.items()}
    return found
