"""Exchanges nobody looked at are told to the recorders many at a time; it must say the same as one by one."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporters.exchange_log import ExchangeLog
from exporters.fanout import Fanout
from exporters.prometheus import PrometheusExporter
from guard.ports import Capture, Route
from guard.recent import KEPT_COUNT, RecentExchanges
from guard.sinks import WindowsRecorder
from slo.clock import SystemClock
from slo.drafts import exchange_of, maker_of, with_findings
from slo.sources.memory import MemorySource
from slo.spec import parse_slo
from slo.types import CacheStatus, CheckResult, Exchange, Finding, Outcome
from tests.unit.exporters_helpers import ManualClock

FINDINGS = tuple(
    Finding(check, CheckResult.UNAVAILABLE, None, "not checked: queue_full")
    for check in ("grounding", "similarity", "zero_hit", "pii", "intent", "reopen")
)


def exchanges() -> list[Exchange]:
    first = Exchange("e0", 5.0, "chat", "r1", "stable", Outcome.OK, 200, session="s", tenant="a", cost_usd=0.1)
    others = (
        replace(first, exchange_id="e1", release="r2", arm="canary", tenant="b"),
        replace(first, exchange_id="e2", outcome=Outcome.SERVER_ERROR, status=500),
        replace(first, exchange_id="e3", cache=CacheStatus.HIT),
        replace(first, exchange_id="e4", route="other", tenant="c"),
        replace(first, exchange_id="e5", route="\u8acb", tenant="d"),
    )
    return [first, *others, *(replace(first, exchange_id=f"f{n}", tenant=f"t{n % 9}") for n in range(40))]


def told_twice(make: Callable[[str], Any], say: Callable[[Any], object]) -> None:
    """One recorder is told one by one, another all at once; what they say then must be the same."""
    one_by_one, at_once = make("a"), make("b")
    for recorder in (one_by_one, at_once):
        for exchange in exchanges():
            recorder.served(exchange)
    for exchange in exchanges():
        one_by_one.checked(replace(exchange, findings=FINDINGS), None)
    at_once.given_up(exchanges(), FINDINGS)
    assert say(one_by_one) == say(at_once)


def test_metrics_say_the_same() -> None:
    clock = ManualClock()
    told_twice(lambda _: PrometheusExporter("bot", (), clock=clock), lambda exporter: exporter.render())


def test_windows_say_the_same() -> None:
    slos = parse_slo("service: bot\npreset: support-faq\n").objectives
    clock = ManualClock()
    sources: dict[str, MemorySource] = {}

    def make(name: str) -> WindowsRecorder:
        sources[name] = MemorySource(slos, clock)
        return WindowsRecorder(sources[name])

    def say(recorder: WindowsRecorder) -> list[Any]:
        source = recorder._memory
        rows: list[Any] = [(slo.name, r, source.reading(slo, r)) for slo in slos for r in ("r1", "r2")]
        unjudged = [source.tally(slo, r).unjudged for slo in slos for r in ("r1", "r2")]
        assert any(unjudged)
        return [*rows, [pytest.approx(count) for count in unjudged]]

    told_twice(make, say)


def test_the_exchange_log_says_the_same(tmp_path: Path) -> None:
    def say(log: ExchangeLog) -> list[bytes]:
        assert log.close()
        return [line for path in sorted(log.directory.glob("*")) for line in path.read_bytes().splitlines()]

    told_twice(lambda name: ExchangeLog(tmp_path / name, clock=SystemClock()), say)
    assert len(list((tmp_path / "a").iterdir())) == 1


def test_the_last_exchanges_say_the_same() -> None:
    told_twice(lambda _: RecentExchanges(kept_count=20), lambda recent: recent.newest(30))


def test_the_last_exchanges_are_bounded_and_thumbs_find_their_release_later() -> None:
    recent = RecentExchanges()
    first = exchanges()[0]
    for number in range(20_100):
        recent.served(replace(first, exchange_id=f"e{number}"))
        recent.given_up([replace(first, exchange_id=f"e{number}")], FINDINGS)
    assert len(recent.newest(99_999)) == KEPT_COUNT == len(recent._given_up)
    assert recent.newest(1)[0] == replace(first, exchange_id="e20099", findings=FINDINGS)
    assert recent.release_of("e-1") is None
    assert recent.release_of("e10100") == "r1"
    assert recent.event_count["r1"] == 20_100


def test_a_recorder_without_a_method_for_many_is_told_one_by_one_and_a_broken_one_costs_nobody_anything() -> None:
    class Single:
        def __init__(self) -> None:
            self.told: list[Exchange] = []

        def served(self, exchange: Exchange) -> None: ...

        def checked(self, exchange: Exchange, text: Mapping[str, object] | None) -> None:
            self.told.append(exchange)

    class Broken(Single):
        def given_up(self, exchanges: Sequence[Exchange], findings: tuple[Finding, ...]) -> None:
            raise RuntimeError("broken")

    single, broken, last = Single(), Broken(), Single()
    fanout = Fanout({"single": single, "broken": broken, "last": last})
    fanout.given_up(exchanges(), FINDINGS)
    assert single.told == last.told == [replace(exchange, findings=FINDINGS) for exchange in exchanges()]
    assert fanout.failure_count == {"single": 0, "broken": 1, "last": 0}


def test_a_draft_becomes_the_very_same_thing() -> None:
    for exchange in exchanges():
        made = exchange_of(**{f.name: getattr(exchange, f.name) for f in dataclasses.fields(exchange)})
        assert (made, type(made), hash(made), repr(made)) == (exchange, Exchange, hash(exchange), repr(exchange))
        assert with_findings(made, FINDINGS) == replace(exchange, findings=FINDINGS)
        with pytest.raises(dataclasses.FrozenInstanceError):
            made.status = 5  # type: ignore[misc]
    route = Route("r", "/", "json")
    made_capture = maker_of(Capture)(route, b"q", b"a", (), stream=False, truncated=True)
    assert made_capture == Capture(route, b"q", b"a", (), stream=False, truncated=True)


def test_makers_take_what_the_dataclass_takes() -> None:
    for cls in (Exchange, Capture):
        mine, theirs = inspect.signature(maker_of(cls)), inspect.signature(cls)
        assert [(p.name, p.default) for p in mine.parameters.values()] == [
            (p.name, p.default) for p in theirs.parameters.values()
        ]
    with pytest.raises(TypeError):
        exchange_of("e1")  # type: ignore[call-arg]
