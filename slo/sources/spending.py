"""The exchange log as daily sums of money: what `cost report` reads. Needs the `analysis` extra."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from slo.economics.spending import OTHER, Spent
from slo.sources.log_table import LogTable, open_log

LABEL_COUNT = 50
"""Tenants and models are free text: the dearest so many keep their names, the rest is one line."""

_SUMS = """
    SELECT floor(wall_s / 86400)::BIGINT AS day, release,
           CASE WHEN tenant IN (SELECT tenant FROM dear_tenants) THEN tenant ELSE '{other}' END AS who,
           CASE WHEN model IN (SELECT model FROM dear_models) THEN model ELSE '{other}' END AS what,
           sum(coalesce(cost_usd, 0)), count(*), count(*) FILTER (cache = 'hit'),
           count(cost_usd) FILTER (cache <> 'hit'),
           count(*) FILTER (outcome = 'ok' AND coalesce(grounding, '') <> 'fail'),
           sum(coalesce(input_tokens, 0))::BIGINT, sum(coalesce(output_tokens, 0))::BIGINT
    FROM exchanges WHERE {span} GROUP BY day, release, who, what ORDER BY day, release, who, what
"""
_DEAREST = """
    CREATE OR REPLACE TEMP TABLE dear_{name}s AS
    SELECT {name} FROM exchanges WHERE {span} GROUP BY {name} ORDER BY sum(coalesce(cost_usd, 0)) DESC, {name}
    LIMIT {count}
"""


def spent(paths: Iterable[Path], days: float | None = None) -> tuple[list[Spent], LogTable]:
    """Return daily sums of the log, and the table for what was left out of it.

    days: only the last so many days before the newest exchange.

    Raises:
        DataError: nothing to read, or the extra is missing.
    """
    with open_log(list(paths)) as table:
        return list(_rows(table, days)), table


def _rows(table: LogTable, days: float | None) -> Iterator[Spent]:
    span = "true"
    if days is not None:
        span = f"wall_s > (SELECT max(wall_s) FROM exchanges) - {days * 86_400.0!r}"
    for name in ("tenant", "model"):
        table.run(_DEAREST.format(name=name, span=span, count=LABEL_COUNT))
    for row in table.db.execute(_SUMS.format(span=span, other=OTHER)).fetchall():
        yield Spent(*row)
    table.find_damage()
