"""Deliveries that wait together are written together, and everybody hears the truth about his own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from guard.admin.shapes import AlertBatch, AlertIn, AlertsStored
from guard.alert_intake import AlertIntake
from guard.outside import OutsideAlerts
from guard.state_files import AlertStore
from slo.outside import OutsideRule
from slo.types import State
from tests.unit.exporters_helpers import ManualClock

pytestmark = pytest.mark.anyio
RULE = OutsideRule("errors", "HighErrorRate", {})


def batch(*fingerprints: str, truncated: int = 0) -> AlertBatch:
    labels = {"alertname": "HighErrorRate"}
    alerts = tuple(AlertIn(f, "firing", "2025-06-15T15:06:40Z", "", labels, {}) for f in fingerprints)
    return AlertBatch("guard", "", "firing", truncated, alerts)


class Spied(AlertStore):
    """Counts transactions; fails while it is told to."""

    sizes: list[int]
    failing = False

    def store_all(self, deliveries: Sequence[tuple[AlertBatch, str]], wall_s: float) -> list[AlertsStored]:
        self.sizes.append(len(deliveries))
        if self.failing:
            raise OSError("disk full")
        return super().store_all(deliveries, wall_s)


def made(directory: Path) -> tuple[AlertIntake, Spied, OutsideAlerts]:
    clock = ManualClock()
    store = Spied(directory, 1.0)
    store.sizes = []
    outside = OutsideAlerts((RULE,), store.known, clock)
    outside.in_traffic("r1", "r2")
    return AlertIntake(store, outside, clock), store, outside


async def test_what_waits_together_is_one_transaction_with_an_answer_each(tmp_path: Path) -> None:
    intake, store, outside = made(tmp_path)
    answers = await asyncio.gather(*(intake.take(batch(f"f{n}", "same", truncated=n)) for n in range(50)))
    store.close()
    assert sum(store.sizes) == 50
    assert len(store.sizes) <= 3
    assert sum(a.stored_count for a in answers) == 51
    assert sum(a.duplicate_count for a in answers) == 49
    assert [a.truncated_count for a in answers] == list(range(50))
    assert outside.verdicts("r2")[0].state is State.BREACH


async def test_when_the_disk_refuses_nobody_is_told_otherwise_and_nothing_acts(tmp_path: Path) -> None:
    intake, store, outside = made(tmp_path)
    store.failing = True
    answers: list[Any] = await asyncio.gather(*(intake.take(batch(f"f{n}")) for n in range(5)), return_exceptions=True)
    assert all(isinstance(a, OSError) for a in answers)
    assert outside.verdicts("r2")[0].state is State.OK
    store.failing = False
    assert (await intake.take(batch("f0"))).stored_count == 1, "it was not remembered as written"
    store.close()


async def test_an_alert_told_again_at_once_costs_no_write_and_later_is_renewed(tmp_path: Path) -> None:
    store = AlertStore(tmp_path, 1.0)
    assert store.store(batch("a"), 100.0).stored_count == 1
    for wall_s, seen_s in ((110.0, 100.0), (129.0, 100.0), (131.0, 131.0), (140.0, 131.0)):
        assert store.store(batch("a"), wall_s).duplicate_count == 1
        assert [k.seen_s for k in store.known(0.0)] == [seen_s]
    store.close()
