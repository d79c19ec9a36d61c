"""A model that refuses one question is there: its circuit closes."""

from __future__ import annotations

import asyncio

import pytest

from rag.model_client import REFUSED, ModelConfig, ModelError
from rag.router import Router
from rag.routes_file import Routes
from rag.routing import Slot
from tests.unit.exporters_helpers import ManualClock


@pytest.mark.parametrize(("kind", "allowed"), [(REFUSED, True), ("upstream_status", False)], ids=["refused", "down"])
def test_a_trial_that_is_refused_ends_the_wait_and_one_that_fails_does_not(kind: str, allowed: bool) -> None:
    asyncio.run(trial(kind, allowed))


async def trial(kind: str, allowed: bool) -> None:
    clock = ManualClock()
    routes = Routes({Slot.RAG: ModelConfig("http://127.0.0.1:9/v1", "m")})
    router = Router(routes, clock)
    circuit = router.circuits[Slot.RAG]
    for _ in range(2):
        circuit.failed(clock.now_s())
    assert not circuit.allows(clock.now_s())
    clock.advance(routes.retry_s)
    circuit.started(clock.now_s())
    router._failed(circuit, ModelError(502, kind, "no"))
    assert circuit.allows(clock.now_s()) is allowed
    await router.close()
