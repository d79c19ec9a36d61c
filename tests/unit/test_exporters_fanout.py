"""A broken recorder costs a counter, never an answer, and never its neighbours."""

from __future__ import annotations

from collections.abc import Mapping

from exporters.fanout import Fanout
from slo.types import Exchange, Outcome

EXCHANGE = Exchange("e1", 0.0, "chat", "r1", "stable", Outcome.OK, 200)


class Remembering:
    def __init__(self) -> None:
        self.told: list[tuple[str, str, object]] = []

    def served(self, exchange: Exchange) -> None:
        self.told.append(("served", exchange.exchange_id, None))

    def checked(self, exchange: Exchange, text: Mapping[str, object] | None) -> None:
        self.told.append(("checked", exchange.exchange_id, text))


class Broken:
    def served(self, exchange: Exchange) -> None:
        raise RuntimeError("served")

    def checked(self, exchange: Exchange, text: Mapping[str, object] | None) -> None:
        raise MemoryError("checked")


def test_every_recorder_is_told_once_though_one_is_broken() -> None:
    first, last, failures = Remembering(), Remembering(), []
    fanout = Fanout(
        {"first": first, "broken": Broken(), "last": last}, lambda name, error: failures.append((name, str(error)))
    )
    fanout.served(EXCHANGE)
    fanout.checked(EXCHANGE, {"question": "q"})
    fanout.checked(EXCHANGE)
    told = [("served", "e1", None), ("checked", "e1", {"question": "q"}), ("checked", "e1", None)]
    assert first.told == last.told == told
    assert fanout.failure_count == {"first": 0, "broken": 3, "last": 0}
    assert failures == [("broken", "served"), ("broken", "checked"), ("broken", "checked")]


def test_even_the_counter_of_failures_may_fail() -> None:
    def raising(name: str, error: Exception) -> None:
        raise RuntimeError("boom")

    last = Remembering()
    fanout = Fanout({"broken": Broken(), "last": last}, raising)
    fanout.served(EXCHANGE)
    assert fanout.failure_count["broken"] == 2
    assert last.told == [("served", "e1", None)]
