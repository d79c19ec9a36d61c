"""What each indicator counts, in the engine: the votes of `slo.indicators` as SQL, and their sums per bucket.

    numbers ── GROUP BY what a vote depends on ──► profiles (few rows per bucket) ── a SELECT per indicator ──► tallies

Grouping first makes the votes almost free: a bucket holds thousands of exchanges and some dozens of kinds of them. A
property test holds `BALLOTS` to `served_votes` and `checked_votes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from slo.indicators import (
    AVAILABILITY,
    CACHE_HITS,
    COST,
    HALLUCINATION,
    HTTP_ERRORS,
    LATENCY,
    LLM_ERRORS,
    SIMILARITY,
    THROTTLED,
    ZERO_HIT,
)
from slo.sources.log_table import USABLE, LogTable
from slo.windows import BINS_PER_DOUBLING, MIN_BIN_VALUE


@dataclass(frozen=True, slots=True)
class Ballot:
    """One indicator's votes as conditions over columns of `exchanges`.

    due: an exchange should be judged. judged: it was (only where due). value: column of the value.
    """

    indicator: str
    due: str
    judged: str = "true"
    bad: str = "false"
    value: str = ""


SERVED = f"outcome IN ('ok', 'server_error', 'timeout', 'incomplete') AND reason <> '{THROTTLED}'"
"""Condition: a user waited for it."""
_FRESH = "outcome = 'ok' AND cache <> 'hit'"
_SAID = "IN ('pass', 'fail')"

BALLOTS = (
    Ballot(HTTP_ERRORS, "outcome NOT IN ('blocked', 'cancelled')", bad="status >= 400"),
    Ballot(AVAILABILITY, SERVED, bad="outcome <> 'ok'"),
    Ballot(LATENCY, SERVED, value="duration_s"),
    Ballot(LLM_ERRORS, f"{SERVED} AND cache <> 'hit'", bad="outcome <> 'ok'"),
    Ballot(
        COST,
        "outcome NOT IN ('blocked', 'client_error') AND cache <> 'hit' AND (cost_usd IS NOT NULL OR outcome = 'ok')",
        judged="cost_usd IS NOT NULL",
        value="cost_usd",
    ),
    Ballot(CACHE_HITS, "outcome <> 'blocked' AND cache <> 'bypass'", bad="cache <> 'hit'"),
    Ballot(
        HALLUCINATION,
        f"{_FRESH} AND grounding IS NOT NULL",
        judged=f"grounding {_SAID}",
        bad="grounding = 'fail'",
    ),
    Ballot(
        SIMILARITY,
        f"{_FRESH} AND similarity IS NOT NULL",
        judged=f"similarity {_SAID} AND similarity_score IS NOT NULL",
        value="similarity_score",
    ),
    Ballot(ZERO_HIT, f"{_FRESH} AND zero_hit IS NOT NULL", judged=f"zero_hit {_SAID}", bad="zero_hit = 'fail'"),
)
"""Reasons stand in `slo.indicators`; thumbs and reopened questions are not in the exchange log."""

_VALUES = ("duration_s", "cost_usd", "similarity_score")


@dataclass(frozen=True, slots=True)
class Tally:
    """Votes of one indicator (or `slo.indicators.LATENCY`) in one bucket.

    bucket: number, floor(wall_s / width). unjudged: due and not judged. over: events over each of the asked limits
    (latency only).
    """

    indicator: str
    arm: str
    release: str
    route: str
    bucket: int
    count: int
    bad: int
    total: float
    squares: float
    unjudged: int
    over: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BinCount:
    """How many latencies of one bucket lie in one bin of `slo.windows.bin_key`."""

    arm: str
    release: str
    route: str
    bucket: int
    key: int
    count: int


def votes_view(table: LogTable) -> None:
    """Create the view `votes` (exchange_id, wall_s, arm, release, route, indicator, bad, value): one row per vote.

    bad NULL: due, not judged. For looking at single exchanges; sums come from `tallies`.
    """
    labels = "exchange_id, wall_s, arm, release, route"
    parts = [
        f"SELECT {labels}, '{b.indicator}' AS indicator, CASE WHEN {b.judged} THEN {b.bad} END AS bad, "
        f"CASE WHEN {b.judged} THEN {b.value or 'NULL::DOUBLE'} END AS value FROM exchanges WHERE {b.due}"
        for b in BALLOTS
    ]
    table.run(f"CREATE OR REPLACE VIEW votes AS {' UNION ALL '.join(parts)}")


def profiles(
    table: LogTable,
    width_s: float,
    *,
    name: str = "profiles",
    keys: str = "arm, release, route",
    over_s: Sequence[float] = (),
    on_progress: Callable[[float], None] | None = None,
) -> None:
    """Read the log once into the table `name`; fill `table.bad_count` and `table.problems`.

    One row per `keys` (columns or expressions AS a name) x bucket x kind of exchange, with the columns that ballots
    look at: n exchanges; duration_s, cost_usd and similarity_score are sums here (NULL still means absent), beside the
    sums of their squares; over0... for the limits `over_s`; first_s and last_s.

    Raises:
        DataError: as `LogTable.run`.
    """
    over = "".join(f", count(*) FILTER (duration_s > {number(limit)}) AS over{n}" for n, limit in enumerate(over_s))
    # fsum: the order in which threads add must not show in the tenth digit.
    sums = ", ".join(f"fsum({c}) AS {c}, fsum({c} * {c}) AS {c}_squares" for c in _VALUES)
    table.run(
        f"CREATE OR REPLACE TABLE {name} AS SELECT {keys}, {bucket(width_s)} AS bucket, outcome, "
        f"CASE WHEN status >= 400 THEN 400 ELSE 200 END AS status, "
        f"CASE WHEN reason = '{THROTTLED}' THEN reason ELSE '' END AS reason, cache, grounding, zero_hit, similarity, "
        f"cost_usd IS NULL AS no_cost, similarity_score IS NULL AS no_score, missing, count(*) AS n, {sums}{over}, "
        "min(wall_s) AS first_s, max(wall_s) AS last_s FROM numbers GROUP BY ALL",
        on_progress,
    )
    (damaged,) = next(table.rows(f"SELECT coalesce(sum(n), 0)::BIGINT FROM {name} WHERE NOT ({USABLE})"))
    if damaged:
        table.run(f"DELETE FROM {name} WHERE NOT ({USABLE})")
    table.find_damage(damaged)


def tallies(
    table: LogTable,
    width_s: float,
    *,
    over_s: Sequence[float] = (),
    on_progress: Callable[[float], None] | None = None,
) -> Iterator[Tally]:
    """Sums of all votes by (indicator, arm, release, route, bucket), in the order of buckets; the log is read once.

    over_s: latency limits in seconds; `Tally.over` tells how many events were longer, exactly.

    Raises:
        DataError: as `LogTable.run`.
    """
    profiles(table, width_s, over_s=over_s, on_progress=on_progress)
    for row in table.rows(f"SELECT * FROM ({tally_sql(over_count=len(over_s))}) ORDER BY bucket"):
        indicator, arm, release, route, place, count, bad, total, squares, unjudged, *over = row
        yield Tally(indicator, arm, release, route, place, count, bad, total, squares, unjudged, tuple(over))


def tally_sql(source: str = "profiles", keys: str = "arm, release, route, bucket", over_count: int = 0) -> str:
    """SELECT with the columns of `Tally` over a table that `profiles` made; `keys` are those to group by."""
    return " UNION ALL ".join(_tally_of(b, source, keys, over_count) for b in BALLOTS)


def latency_bins(table: LogTable, width_s: float, *, where: str = "true") -> Iterator[BinCount]:
    """Bins of what users waited for, by (arm, release, route, bucket, bin), in order; reads the log once more.

    where: a condition over columns of `exchanges`.

    Raises:
        DataError: as `LogTable.run`.
    """
    sql = (
        f"SELECT arm, release, route, {bucket(width_s)} AS bucket, {bin_sql('duration_s')} AS key, count(*) "
        f"FROM numbers WHERE {USABLE} AND {SERVED} AND ({where}) GROUP BY ALL ORDER BY bucket, arm, release, route, key"
    )
    for row in table.rows(sql):
        yield BinCount(*row)


def bucket(width_s: float) -> str:
    """SQL: number of the bucket of an exchange."""
    return f"TRY_CAST(floor(wall_s / {number(width_s)}) AS BIGINT)"  # a clock gone mad has no bucket


def bin_sql(column: str) -> str:
    """SQL: `slo.windows.bin_key` of a column."""
    return f"CAST(ceil(log2(greatest({column}, {number(MIN_BIN_VALUE)})) * {number(BINS_PER_DOUBLING)}) AS INTEGER)"


def number(value: float) -> str:
    """SQL: a number as a double; a plain literal would be a decimal.

    >>> number(0.1)
    "CAST('0.1' AS DOUBLE)"
    """
    return f"CAST('{float(value)!r}' AS DOUBLE)"


def _tally_of(b: Ballot, source: str, keys: str, over_count: int) -> str:
    total = squares = "0.0"
    if b.value:
        total = f"coalesce(fsum({b.value}) FILTER ({b.judged}), 0.0)"
        squares = f"coalesce(fsum({b.value}_squares) FILTER ({b.judged}), 0.0)"
    over = "".join(
        f", {f'sum(over{n})' if b.indicator == LATENCY else '0'}::BIGINT AS over{n}" for n in range(over_count)
    )
    return (
        f"SELECT '{b.indicator}' AS indicator, {keys}, coalesce(sum(n) FILTER ({b.judged}), 0)::BIGINT AS count, "
        f"coalesce(sum(n) FILTER (({b.judged}) AND ({b.bad})), 0)::BIGINT AS bad, {total}::DOUBLE AS total, "
        f"{squares}::DOUBLE AS squares, coalesce(sum(n) FILTER (NOT ({b.judged})), 0)::BIGINT AS unjudged{over} "
        f"FROM {source} WHERE {b.due} GROUP BY ALL"
    )
