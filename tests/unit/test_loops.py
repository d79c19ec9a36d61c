"""Loops of a running guard: one that ended is told, one that was ended with the guard is not."""

from __future__ import annotations

import asyncio

import pytest

from exporters.prometheus import PrometheusExporter
from guard.wiring.loops import Loops


@pytest.mark.anyio
async def test_a_loop_that_ended_is_dead_until_the_guard_stops() -> None:
    """During a drain `/healthz` said of every loop "ended; see the log, then restart"."""
    loops = Loops(PrometheusExporter("bot", ()))

    async def fails() -> None:
        raise RuntimeError("full")

    async def goes_on() -> None:
        await asyncio.Event().wait()

    loops.begin("fails", fails())
    loops.begin("goes on", goes_on())
    for _ in range(3):  # turns: one to run it, one to end it
        await asyncio.sleep(0)
    assert loops.dead() == ("fails",)
    await loops.cancel()
    assert loops.dead() == ()
