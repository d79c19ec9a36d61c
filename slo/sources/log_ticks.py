"""Recorded traffic out of the engine: what the rules of `slo.replay` count, summed by tick in one pass over the log.

Counted as the sidecar counts: at the end of an exchange (start + duration), by the votes of `slo.indicators`, and the
same trouble of the same session within 10 s once (`slo.sources.books` decides that, on the few bad events that have a
neighbour). Two things differ, and `Traffic.notes` says so where they can matter: what the checks said counts at the end
of the exchange and not seconds later, and no tenant's weight is capped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from slo.collecting import SPAN_DAYS
from slo.errors import DataError
from slo.fair_share import ACTIVE_S, CAP_RATIO
from slo.indicators import LATENCY
from slo.metric_names import INDICATORS
from slo.sources.books import REPEAT_S, ReleaseBooks
from slo.sources.log_table import USABLE, LogTable
from slo.sources.log_votes import BALLOTS, Ballot, number
from slo.traffic import Life, Quantity, Track, Traffic

MAX_LIVES = 200
_END_S = "(wall_s + duration_s)"
_BALLOTS = {b.indicator: b for b in BALLOTS}
_KEYS = 4  # usable, release, arm, tick
_CELLS = 5  # bad, count, unjudged, total, squares

Row = tuple[Any, ...]


def read_traffic(
    table: LogTable,
    quantities: Sequence[Quantity],
    tick_s: float = 10.0,
    *,
    on_progress: Callable[[float], None] | None = None,
) -> Traffic:
    """Sum the log by release and tick; the numbers of a log of JSON lines are staged first.

    Raises:
        DataError: as `LogTable.run`; no usable exchange; or exchanges spread over more than 100 days.
    """
    wanted = list(dict.fromkeys(quantities))
    table.stage(on_progress)
    rows = list(table.rows(_sums_sql(wanted, tick_s)))
    damaged = sum(row[_KEYS] for row in rows if not row[0])
    table.find_damage(damaged)
    by_arm: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row[0]:
            by_arm[row[1], row[2]].append(row)
    if not by_arm:
        left_out = f" ({table.bad_count} damaged lines or files)" if table.bad_count else ""
        raise DataError(f"exchange log: no usable exchange in it{left_out}; name the log's directory or its segments")
    _check_span(min(found[0][3] for found in by_arm.values()), max(f[-1][3] for f in by_arm.values()), tick_s)
    lives = tuple(
        Life(release, arm, found[0][3], found[-1][3], sum(row[_KEYS] for row in found))
        for (release, arm), found in sorted(by_arm.items(), key=lambda item: item[1][0][3])
    )
    notes = []
    if len(lives) > MAX_LIVES:
        kept = sorted(lives, key=lambda life: -life.exchange_count)[:MAX_LIVES]
        notes.append(f"{len(lives)} releases in the log: the {MAX_LIVES} with most traffic are judged")
        lives = tuple(life for life in lives if life in kept)
    repeats = _repeats(table, wanted, tick_s)
    tracks: dict[tuple[str, Quantity], Track] = {}
    for release in dict.fromkeys(life.release for life in lives):
        of_release = [row for (name, _), found in by_arm.items() if name == release for row in found]
        tracks.update(_tracks(release, of_release, wanted, repeats))
    notes += _notes(table, wanted)
    return Traffic(tick_s, lives, tracks, sum(life.exchange_count for life in lives), tuple(notes))


def _check_span(first_tick: int, last_tick: int, tick_s: float) -> None:
    """A wrong clock would ask for a tick every ten seconds since 1970."""
    days = (last_tick - first_tick) * tick_s / 86_400.0
    if days > SPAN_DAYS:
        raise DataError(
            f"exchange log: the exchanges span {days:.0f} days, at most {SPAN_DAYS:g} can be replayed at once; "
            "give fewer log files, and leave out those written with a wrong clock"
        )


def _sums_sql(wanted: Sequence[Quantity], tick_s: float) -> str:
    columns = [column for quantity in wanted for column in _columns(quantity) if column]
    tick = f"CAST(floor({_END_S} / {number(tick_s)}) AS BIGINT)"
    return (
        f"SELECT {USABLE} AS usable, release, arm, {tick} AS tick, count(*){''.join(', ' + c for c in columns)} "
        "FROM numbers GROUP BY ALL ORDER BY tick"
    )


def _columns(quantity: Quantity) -> list[str]:
    """bad, count, unjudged, total, squares of one quantity; "" where it is 0 anyway and need not be asked for."""
    ballot = _ballot(quantity.indicator)
    if ballot is None:
        return [""] * _CELLS
    due = _due(ballot, quantity)
    judged, bad = f"{due} AND ({ballot.judged})", _bad(ballot, quantity)
    columns = [
        "" if bad == "false" else f"count(*) FILTER ({judged} AND {bad})",
        f"count(*) FILTER ({judged})",
        "" if ballot.judged == "true" else f"count(*) FILTER ({due} AND NOT ({ballot.judged}))",
    ]
    if ballot.value and INDICATORS.get(quantity.indicator) and INDICATORS[quantity.indicator].kind == "mean":
        columns += [f"sum({v}) FILTER ({judged})" for v in (ballot.value, f"{ballot.value} * {ballot.value}")]
    else:
        columns += ["", ""]
    return columns


def _ballot(indicator: str) -> Ballot | None:
    """None: the indicator is not in an exchange log (thumbs, reopened questions)."""
    return _BALLOTS.get(indicator)


def _due(ballot: Ballot, quantity: Quantity) -> str:
    if not quantity.routes:
        return f"({ballot.due})"
    routes = ", ".join("'" + route.replace("'", "''") + "'" for route in quantity.routes)
    return f"({ballot.due}) AND route IN ({routes})"


def _bad(ballot: Ballot, quantity: Quantity) -> str:
    """Condition under which an event is bad."""
    if quantity.indicator != LATENCY:
        return ballot.bad if ballot.bad == "false" else f"({ballot.bad})"
    if not quantity.over_s:
        return "false"
    if len(quantity.over_s) == 1:
        return f"duration_s > {number(quantity.over_s[0])}"
    limits = ", ".join(number(limit) for limit in quantity.over_s)
    hour = f"((CAST(floor({_END_S} / 3600) AS BIGINT) + 72) % 168)"
    return f"duration_s > [{limits}][{hour} + 1]"


def _repeats(
    table: LogTable, wanted: Sequence[Quantity], tick_s: float
) -> dict[tuple[str, int], dict[int, int]]:  # fmt: skip
    """(release, place in `wanted`) -> tick -> bad events that are retries and do not count.

    Only bad events of a session with another one within 10 s leave the engine; `ReleaseBooks.repeated` sees them in
    the order of time, as it does live.
    """
    conditions = {}
    for place, quantity in enumerate(wanted):
        ballot = _ballot(quantity.indicator)
        bad = "false" if ballot is None else _bad(ballot, quantity)
        if ballot is not None and bad != "false":
            conditions[place] = f"{_due(ballot, quantity)} AND ({ballot.judged}) AND {bad}"
    if not conditions:
        return {}
    # One scan for all quantities: bad events are few, so what is done with them afterwards costs little.
    table.run(
        f"CREATE OR REPLACE TABLE troubles AS SELECT release, session, {_END_S} AS at_s"
        f"{''.join(f', {c} AS bad{place}' for place, c in conditions.items())} FROM numbers "
        f"WHERE session <> '' AND {USABLE} AND ({' OR '.join(f'({c})' for c in conditions.values())})"
    )
    parts = [f"SELECT {place} AS what, release, session, at_s FROM troubles WHERE bad{place}" for place in conditions]
    near = (
        f"SELECT what, release, session, at_s FROM ({' UNION ALL '.join(parts)}) "
        "WINDOW w AS (PARTITION BY what, release, session ORDER BY at_s) "
        f"QUALIFY at_s - lag(at_s) OVER w < {number(REPEAT_S)} OR lead(at_s) OVER w - at_s < {number(REPEAT_S)} "
        "ORDER BY at_s"
    )
    books: dict[str, ReleaseBooks] = {}
    found: dict[tuple[str, int], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for what, release, session, at_s in table.rows(near):
        book = books.get(release)
        if book is None:
            book = books[release] = ReleaseBooks({}, None, at_s)
        if book.repeated(str(what), session, at_s):
            found[release, what][int(at_s // tick_s)] += 1
    return found


def _tracks(
    release: str, rows: Sequence[Row], wanted: Sequence[Quantity], repeats: dict[tuple[str, int], dict[int, int]]
) -> Iterator[tuple[tuple[str, Quantity], Track]]:
    columns = list(zip(*rows, strict=True))
    ticks: tuple[int, ...] = columns[3]
    first = min(ticks)
    size = max(ticks) - first + 1
    fetched = iter(columns[_KEYS + 1 :])
    nothing = [0] * size
    for place, quantity in enumerate(wanted):
        cells = [_spread(ticks, next(fetched), first, size) if asked else nothing[:] for asked in _columns(quantity)]
        for tick, count in repeats.get((release, place), {}).items():
            cells[0][tick - first] -= count
            cells[1][tick - first] -= count
        yield (release, quantity), Track.of_columns(first, *cells)


def _spread(ticks: Sequence[int], column: Sequence[Any], first: int, size: int) -> list[Any]:
    """One value for every tick, silent ones included; two arms of a release may share a tick."""
    if len(ticks) == size and ticks[-1] - ticks[0] == size - 1:  # in order and without a gap
        return [value or 0 for value in column]
    cells: list[Any] = [0] * size
    for tick, value in zip(ticks, column, strict=True):
        if value:
            cells[tick - first] += value
    return cells


def _notes(table: LogTable, wanted: Sequence[Quantity]) -> list[str]:
    notes = [
        f"{quantity.indicator} is not in the exchange log: its rules are unknown throughout"
        for quantity in wanted
        if _ballot(quantity.indicator) is None
    ]
    if any(len(quantity.over_s) > 1 for quantity in wanted):
        notes.append("latency limits that change with the hour: each exchange is held to the limit of its own hour")
    few = next(table.rows("SELECT min(tenant), max(tenant) FROM numbers"))
    if few[0] == few[1]:  # one tenant: nothing to cap, and nothing to group by
        return notes
    spans, capped, most = next(
        table.rows(
            f"SELECT count(*), count(*) FILTER (tenants > {1 / CAP_RATIO:g} AND most > {CAP_RATIO}), "
            f"max(most) FILTER (tenants > {1 / CAP_RATIO:g}) FROM (SELECT count(*) AS tenants, max(n) / sum(n) AS most "
            f"FROM (SELECT release, floor({_END_S} / {ACTIVE_S:g}) AS span, tenant, count(*) AS n FROM numbers "
            f"WHERE {USABLE} GROUP BY ALL) GROUP BY release, span)"
        )
    )
    if capped:
        notes.append(
            f"in {capped} of {spans} quarter hours one of six or more tenants had over {CAP_RATIO:.0%} of the events "
            f"(up to {most:.0%}): live, its weight is capped; here every exchange has full weight"
        )
    return notes
