"""Exchanges of a stretch of the log one after the other, in the order in which they ended, as columns of the engine.

For what must see every answer: the comparison of a canary with stable counts sessions over a whole rollout. Some
30,000 a second, where sums take millions. Words, tokens and checks that no indicator looks at are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from slo.sources.log_table import USABLE, LogTable
from slo.sources.log_votes import number
from slo.types import CacheStatus, CheckResult, Exchange, Finding, Outcome

_END_S = "(wall_s + duration_s)"
_CHECKS = ("grounding", "zero_hit", "similarity")


def hourly_shares(table: LogTable, canary: str, stable: str, from_s: float, to_s: float) -> dict[int, float]:
    """Return the canary's share of the answers of both, by hour (Unix seconds // 3600)."""
    rows = table.rows(
        f"SELECT CAST(floor({_END_S} / 3600) AS BIGINT) AS hour, avg(CASE WHEN release = {_text(canary)} THEN 1.0 "
        f"ELSE 0.0 END) FROM numbers WHERE {_of((canary, stable), from_s, to_s)} GROUP BY hour"
    )
    return dict(rows)


def exchanges_between(
    table: LogTable, releases: Sequence[str], from_s: float, to_s: float
) -> Iterator[Exchange]:  # fmt: skip
    """Iterate over what ended in [from_s, to_s). Raises DataError as `LogTable.run`."""
    rows = table.rows(
        "SELECT wall_s, duration_s, route, release, arm, outcome, status, reason, tenant, session, cache, cost_usd, "
        f"{', '.join(_CHECKS)}, similarity_score FROM numbers WHERE {_of(releases, from_s, to_s)} ORDER BY {_END_S}"
    )
    for row in rows:
        wall_s, duration_s, route, release, arm, outcome, status, reason, tenant, session, cache, cost_usd = row[:12]
        yield Exchange(
            "", wall_s, route, release, arm, Outcome(outcome), status, reason, duration_s, tenant=tenant,
            session=session, cache=CacheStatus(cache), cost_usd=cost_usd,
            findings=tuple(
                Finding(check, CheckResult(result), row[15] if check == "similarity" else None)
                for check, result in zip(_CHECKS, row[12:15], strict=True)
                if result is not None
            ),
        )  # fmt: skip


def _of(releases: Sequence[str], from_s: float, to_s: float) -> str:
    names = ", ".join(_text(name) for name in releases)
    return f"{USABLE} AND release IN ({names}) AND {_END_S} >= {number(from_s)} AND {_END_S} < {number(to_s)}"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
