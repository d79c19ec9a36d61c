"""A rehearsal that breaks off leaves nothing behind that the next one trips over."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from registry.errors import RegistryUnreachable
from slo.errors import UpstreamError
from tests.conftest import VIRTUAL
from tests.release_kit import BAD, HOLD, NEXT, FlakyPort, ScriptedJudge, World


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


@pytest.mark.anyio
@pytest.mark.parametrize("nth", range(1, 17))
async def test_whatever_call_fails_the_next_canary_is_rehearsed_as_if_nothing_had_been(
    tmp_path: Path, nth: int
) -> None:
    world = await World(tmp_path, ScriptedJudge(HOLD)).up()
    await world.controller.start(BAD.name, actor="ann")
    assert isinstance(world.port, FlakyPort)
    sound, calls = world.port._offload, 0

    async def away_once(call: Callable[[], Any]) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise RegistryUnreachable("registry: refused; is it up?")
        return await sound(call)

    world.port._offload = away_once
    with suppress(UpstreamError):  # it could not even be set up
        assert not (await world.controller.drill(actor="ann")).passed or calls < nth
    world.port._offload = sound
    await world.controller.abort(actor="ann")
    await world.controller.start(NEXT.name, actor="ann")
    again = await world.controller.drill(actor="ann")
    assert (again.passed, again.pointer) == (True, "at_target"), again.message
    world.close()


@pytest.mark.anyio
@pytest.mark.parametrize("away", [False, True], ids=["passes", "does not pass"])
async def test_what_came_of_a_rehearsal_stands_in_its_incident(tmp_path: Path, away: bool) -> None:
    """Whoever looks later, as `cost advise` does, could not tell a rehearsal that failed from one that did not."""
    world = await World(tmp_path, ScriptedJudge(HOLD)).up()
    await world.controller.start(BAD.name, actor="ann")
    assert isinstance(world.port, FlakyPort)
    sound = world.port._offload

    async def is_away(call: Callable[[], Any]) -> Any:
        if world.journal.incidents():  # from the moment on at which the rehearsal itself began
            raise RegistryUnreachable("registry: refused; is it up?")
        return await sound(call)

    if away:
        world.port._offload = is_away
    result = await world.controller.drill(actor="ann")
    kept = world.journal.incident(result.incident_id)
    assert kept is not None
    assert (result.passed, kept.mttr_s) == ((False, None) if away else (True, result.mttr_s))
    assert kept.timeline[-1].what == result.message
    world.close()
