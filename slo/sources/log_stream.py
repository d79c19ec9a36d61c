"""Exchanges of a stretch of the log one after the other, in the order in which they ended, as columns of the engine.

For what must see every answer: the comparison of a canary with stable counts sessions over a whole rollout. Some
30,000 a second, where sums take millions. Words, tokens and checks that no indicator looks at are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from slo.indicators import LATENCY
from slo.metric_names import INDICATORS
from slo.replay import Lane
from slo.sources.log_table import USABLE, LogTable
from slo.sources.log_votes import BALLOTS, number
from slo.traffic import reach
from slo.types import CacheStatus, CheckResult, Exchange, Finding, Outcome

MAX_VALUES = 100
LONGEST_S = 3600.0
"""No answer takes longer; one that did would only be missing in a shown quantile."""
_END_S = "(wall_s + duration_s)"
_WAITED = next(ballot.due for ballot in BALLOTS if ballot.indicator == LATENCY)
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


def with_latencies(table: LogTable, lanes: Sequence[Lane], tick_s: float, most: int = MAX_VALUES) -> None:
    """Give the firings of latency rules the quantile that was measured in their window, for people to see.

    Rules decide on shares; a quantile costs a look at the log each, so at most `most` firings get theirs.
    """
    for lane in lanes:
        quantile = INDICATORS[lane.rule.slo.indicator].quantile
        if quantile is None:
            continue
        for place, firing in enumerate(lane.firings):
            if most <= 0:
                return
            most -= 1
            moment = round(firing.start_s / tick_s)
            slo = firing.rule.slo
            length_s = slo.fast.window.length_s if firing.verdict.fast and slo.fast else slo.window.length_s
            begin_s = reach(moment, length_s, tick_s) * tick_s
            where = f"{_of((firing.release,), begin_s, firing.start_s)} AND {_WAITED}"
            if slo.routes:
                where += f" AND route IN ({', '.join(_text(route) for route in slo.routes)})"
            # Segments and row groups know the span of `wall_s`, so the rest of the log is not read.
            where += f" AND wall_s < {number(firing.start_s)} AND wall_s >= {number(begin_s - LONGEST_S)}"
            (value,) = next(table.rows(f"SELECT quantile_cont(duration_s, {quantile}) FROM numbers WHERE {where}"))
            lane.firings[place] = replace(firing, verdict=replace(firing.verdict, value=value))


def _of(releases: Sequence[str], from_s: float, to_s: float) -> str:
    names = ", ".join(_text(name) for name in releases)
    return f"{USABLE} AND release IN ({names}) AND {_END_S} >= {number(from_s)} AND {_END_S} < {number(to_s)}"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
