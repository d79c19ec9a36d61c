"""What is left of an error budget: of the objective's own window, whichever window the verdict was read from."""

from __future__ import annotations

import pytest

from guard.judge import SloJudge, Vitals
from guard.release.state import ReleaseState
from slo.clock import HandClock
from slo.sources.memory import MemorySource
from slo.thresholds import NOTHING_KNOWN
from slo.types import FastPath, Slo, State
from tests.release_kit import GOOD, VERSIONS, inline
from tests.slo_builders import AVAILABILITY, make_slo

pytestmark = pytest.mark.anyio

DAY_S = 86_400.0
MONTH = make_slo(AVAILABILITY, "tier", 30 * DAY_S, params={"tier": "general"}, burn_rate=True)
HOURLY = make_slo(AVAILABILITY, "tier", params={"tier": "general"}, fast=FastPath())


async def left_after(slo: Slo, *counted: tuple[float, int, int]) -> tuple[State, float | None, float | None]:
    """State, value and budget after (days ago, bad, count), oldest first."""
    clock = HandClock(40 * DAY_S, 1_750_000_000.0)
    source = MemorySource((slo,), clock)
    now_s = clock.at_s
    for days_ago, bad, count in counted:
        clock.at_s = now_s - days_ago * DAY_S
        source.shelf.release(GOOD.release_id, clock.at_s).books[()].window(AVAILABILITY).add(clock.at_s, bad, count)
    clock.at_s = now_s
    judge = SloJudge((slo,), source, lambda: NOTHING_KNOWN, VERSIONS.get, Vitals(clock), clock, offload=inline)
    await judge.judge(ReleaseState("faq-bot", GOOD.name))
    assert judge.last is not None
    (one,) = judge.last.judged
    return one.verdict.state, one.value, one.budget_remaining_ratio


async def test_of_a_month_that_burns_for_an_hour_nearly_all_is_left() -> None:
    """100 bad of the 1,010 that a month of 101,000 allows: 0.901 left; the hour alone would be overspent 9 times."""
    state, value, left = await left_after(MONTH, (10.0, 0, 100_000), (0.001, 100, 1_000))
    assert state is State.BREACH
    assert value == pytest.approx(1 - 100 / 101_000)
    assert left == pytest.approx(1 - 100 / 1_010)


async def test_a_quiet_hour_gives_nothing_back() -> None:
    """1,500 bad of the 1,010 allowed: overspent, although nothing failed lately."""
    state, _, left = await left_after(MONTH, (10.0, 1_500, 100_000), (0.001, 0, 1_000))
    assert state is State.OK
    assert left == pytest.approx(1 - 1_500 / 1_010)


async def test_of_an_hour_in_which_a_minute_is_a_catastrophe() -> None:
    """60 bad of the 101 that the hour's 10,100 allow: 0.406 left; the minute alone would be overspent 59 times."""
    state, _, left = await left_after(HOURLY, (0.02, 0, 10_000), (0.0002, 60, 100))
    assert state is State.BREACH
    assert left == pytest.approx(1 - 60 / 101)
