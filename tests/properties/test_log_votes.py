"""The votes in the engine are the votes of the live windows, on JSON lines and on Parquet alike."""

from __future__ import annotations

from collections import Counter, defaultdict
from math import floor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slo.indicators import LATENCY, checked_votes, served_votes
from slo.sources.exchange_log import LogReader
from slo.sources.log_table import LogTable, open_log
from slo.sources.log_votes import Tally, latency_bins, tallies, votes_view
from slo.sources.parquet import convert
from slo.types import Exchange
from slo.windows import bin_key
from tests.log_kit import EXCHANGES, write_log

pytest.importorskip("duckdb", reason="needs the `analysis` extra: pip install 'sft-guard[analysis]'")

WIDTH_S = 600.0
LIMITS_S = (0.5, 30.0)


def expected(exchanges: list[Exchange]) -> dict[tuple[object, ...], list[float]]:
    """(indicator, arm, release, route, bucket) -> count, bad, total, squares, unjudged, over each limit."""
    sums: dict[tuple[object, ...], list[float]] = defaultdict(lambda: [0.0] * 7)
    for exchange in exchanges:
        for name, bad, value in served_votes(exchange) + checked_votes(exchange):
            row = sums[name, exchange.arm, exchange.release, exchange.route, floor(exchange.wall_s / WIDTH_S)]
            row[4] += bad is None
            row[0] += bad is not None
            row[1] += bool(bad)
            row[2] += value or 0.0
            row[3] += (value or 0.0) ** 2
            if name == LATENCY and value is not None:
                row[5] += value > LIMITS_S[0]
                row[6] += value > LIMITS_S[1]
    return sums


def counted(rows: list[Tally]) -> dict[tuple[object, ...], list[float]]:
    return {
        (t.indicator, t.arm, t.release, t.route, t.bucket): [t.count, t.bad, t.total, t.squares, t.unjudged, *t.over]
        for t in rows
    }


def check_sums(table: LogTable, exchanges: list[Exchange]) -> None:
    found, wanted = counted(list(tallies(table, WIDTH_S, over_s=LIMITS_S))), expected(exchanges)
    assert found.keys() == wanted.keys()
    for key, row in wanted.items():
        assert found[key] == pytest.approx(row, rel=1e-12, abs=1e-15), key
    bins = Counter({(b.arm, b.release, b.route, b.bucket, b.key): b.count for b in latency_bins(table, WIDTH_S)})
    assert bins == Counter(
        (e.arm, e.release, e.route, floor(e.wall_s / WIDTH_S), bin_key(value))
        for e in exchanges
        for name, _, value in served_votes(e)
        if name == LATENCY and value is not None
    )


@settings(max_examples=25)
@given(st.lists(EXCHANGES, min_size=1, max_size=60))
def test_sums_are_those_of_the_votes_whatever_the_format(exchanges: list[Exchange]) -> None:
    with TemporaryDirectory() as directory:
        segment = write_log(Path(directory) / "exchanges-1.jsonl", exchanges, {"question": "\u8acb\u5047\uff1f"})
        with open_log(segment) as table:
            check_sums(table, exchanges)
        parquet = convert(segment)
        assert not segment.exists()
        with open_log(Path(directory)) as table:
            assert table.files == (parquet,)
            check_sums(table, exchanges)
        kept = list(LogReader(parquet))
        assert [e for e, _ in kept] == exchanges
        assert all(text == {"question": "\u8acb\u5047\uff1f"} for _, text in kept)


@settings(max_examples=15)
@given(st.lists(EXCHANGES, min_size=1, max_size=30))
def test_each_vote_of_each_exchange(exchanges: list[Exchange]) -> None:
    with TemporaryDirectory() as directory, open_log(write_log(Path(directory) / "a.jsonl", exchanges)) as table:
        votes_view(table)
        found = Counter(table.rows("SELECT exchange_id, indicator, bad, value FROM votes"))
    assert found == Counter(
        (e.exchange_id, *vote) for e in exchanges for vote in served_votes(e) + checked_votes(e)
    )  # fmt: skip
