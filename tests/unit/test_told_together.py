"""What ends in one turn of the loop is told to the recorders together; it must say the same as one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slo.sources.memory as memory_module
from exporters.exchange_log import ExchangeLog
from exporters.fanout import Fanout
from exporters.prometheus import PrometheusExporter
from guard.recent import RecentExchanges
from guard.sinks import ENDED_COUNT, PathSink
from slo.clock import SystemClock
from slo.sources.memory import MemorySource
from slo.spec import parse_slo
from slo.types import CacheStatus, CheckResult, Exchange, Finding, Outcome
from tests.unit.exporters_helpers import ManualClock

SLOS = parse_slo("service: bot\npreset: support-faq\n").objectives
SIMPLE = Exchange("e0", 5.0, "chat", "r1", "stable", Outcome.OK, 200, duration_s=0.2, cost_usd=0.1)

ends = st.builds(
    lambda number, **changes: replace(SIMPLE, exchange_id=f"e{number}", **changes),
    st.integers(0, 10_000),
    release=st.sampled_from(["r1", "r2"]),
    route=st.sampled_from(["chat", "other"]),
    outcome=st.sampled_from([Outcome.OK] * 6 + [*Outcome]),
    status=st.sampled_from([200, 200, 200, 302, 404, 429, 500, 0]),
    reason=st.sampled_from(["", "", "", "throttled"]),
    cache=st.sampled_from([CacheStatus.BYPASS] * 4 + [*CacheStatus]),
    duration_s=st.sampled_from([0.0, 0.1, 0.9, 7.0, 70.0]),
    cost_usd=st.sampled_from([None, 0.0, 0.001, 0.5]),
    session=st.sampled_from(["", "", "s1", "s2"]),
    tenant=st.sampled_from([""] * 8 + [f"t{n}" for n in range(8)]),
)
batches = st.lists(st.lists(ends, max_size=20), max_size=6)


@settings(max_examples=40)
@given(batches)
def test_windows_count_the_same_together(told: list[list[Exchange]]) -> None:
    clock = ManualClock()
    together, each = MemorySource(SLOS, clock), MemorySource(SLOS, clock)
    for batch in told:
        together.served_many(iter(batch))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(memory_module, "is_plain", lambda exchange: False)
            for exchange in batch:
                each.served(exchange)
    for slo in SLOS:
        for release in ("r1", "r2"):
            ours, theirs = together.reading(slo, release), each.reading(slo, release)
            assert (ours.bad_count, ours.count) == (theirs.bad_count, theirs.count), slo.name
            assert ours.coverage_ratio == pytest.approx(theirs.coverage_ratio)
            assert (ours.value_sum, ours.value_sq_sum) == pytest.approx((theirs.value_sum, theirs.value_sq_sum))
            assert together.objective_value(slo, release) == pytest.approx(each.objective_value(slo, release))


@settings(max_examples=40)
@given(batches)
def test_metrics_and_the_last_exchanges_say_the_same_together(told: list[list[Exchange]]) -> None:
    clock = ManualClock()
    together, each = PrometheusExporter("bot", (), clock=clock), PrometheusExporter("bot", (), clock=clock)
    recent_together, recent_each = RecentExchanges(kept_count=20), RecentExchanges(kept_count=20)
    for batch in told:
        together.served_many(iter(batch))
        recent_together.served_many(iter(batch))
        for exchange in batch:
            each.served(exchange)
            recent_each.served(exchange)
    assert together.render() == each.render()
    assert recent_together.newest(99) == recent_each.newest(99)
    for release in ("r1", "r2"):
        assert recent_together.exemplars(release) == recent_each.exemplars(release)


def test_a_series_over_the_cap_is_dropped_as_often_together() -> None:
    counts = []
    for together in (True, False):
        exporter = PrometheusExporter("bot", (), max_series=1)
        batch = [SIMPLE] * 3
        if together:
            exporter.served_many(iter(batch))
        else:
            for exchange in batch:
                exporter.served(exchange)
        counts.append(exporter._table.dropped_count)
    assert counts[0] == counts[1] > 0


class _Recorder:
    """Remembers; takes many at a time and breaks on some."""

    def __init__(self, *breaks_on: str) -> None:
        self.breaks_on = breaks_on
        self.told: list[tuple[str, str]] = []

    def served(self, exchange: Exchange) -> None:
        raise AssertionError("told together")

    def served_many(self, exchanges: Iterator[Exchange]) -> None:
        for exchange in exchanges:
            if exchange.exchange_id in self.breaks_on:
                raise RuntimeError("broken")
            self.told.append(("served", exchange.exchange_id))

    def checked(self, exchange: Exchange, text: Mapping[str, object] | None) -> None:
        self.told.append(("checked", exchange.exchange_id))


class _Stuck(_Recorder):
    def served_many(self, exchanges: Iterator[Exchange]) -> None:
        raise RuntimeError("takes none")


def test_a_recorder_that_breaks_on_some_gets_the_rest_and_one_that_takes_none_ends() -> None:
    whole, some, stuck = _Recorder(), _Recorder("e1", "e4"), _Stuck()
    fanout = Fanout({"stuck": stuck, "some": some, "whole": whole})
    fanout.served_many([replace(SIMPLE, exchange_id=f"e{n}") for n in range(5)])
    assert [name for _, name in whole.told] == ["e0", "e1", "e2", "e3", "e4"]
    assert [name for _, name in some.told] == ["e0", "e2", "e3"]
    assert fanout.failure_count == {"stuck": 1, "some": 2, "whole": 0}


@pytest.mark.anyio
async def test_ends_of_a_turn_are_counted_at_its_end_and_a_burst_is_cut() -> None:
    recorder = _Recorder()
    sink = PathSink(Fanout({"one": recorder}), None)
    for number in range(3):
        sink.finished(replace(SIMPLE, exchange_id=f"e{number}"), None)
    assert recorder.told == []
    await asyncio.sleep(0)
    assert recorder.told == [(what, f"e{n}") for what in ("served", "checked") for n in range(3)]
    for _ in range(ENDED_COUNT):
        sink.finished(SIMPLE, None)
    assert len(recorder.told) == 6 + 2 * ENDED_COUNT


def test_a_line_that_cannot_be_encoded_costs_the_others_nothing(tmp_path: Path) -> None:
    dropped: list[Any] = []
    findings = (Finding("pii", CheckResult.UNAVAILABLE, None, "not checked: queue_full"),)
    log = ExchangeLog(tmp_path, clock=SystemClock(), on_drop=lambda reason, count: dropped.append((reason, count)))
    batch = [replace(SIMPLE, exchange_id=f"e{n}", model="\ud800" if n == 1 else "m\u2028") for n in range(3)]
    log.given_up(batch, findings)
    assert log.close()
    lines = b"".join(path.read_bytes() for path in tmp_path.iterdir()).splitlines()
    assert [b'"e0"' in lines[0], b'"e2"' in lines[1], len(lines)] == [True, True, 2]
    assert all(b"\\u2028" in line and b"not checked" in line for line in lines)
    assert dropped == [("unencodable", 1)]


def test_a_full_queue_takes_what_fits_of_a_batch(tmp_path: Path) -> None:
    dropped: list[Any] = []
    log = ExchangeLog(
        tmp_path, clock=SystemClock(), queue_bytes=1000, on_drop=lambda reason, count: dropped.append((reason, count))
    )
    log.given_up([SIMPLE] * 9, ())
    assert log.close()
    written = sum(len(path.read_bytes().splitlines()) for path in tmp_path.iterdir())
    assert 1 <= written <= 2
    assert dropped == [("queue_full", 9 - written)]
