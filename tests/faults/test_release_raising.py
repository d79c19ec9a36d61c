"""A stage that the registry does not take: nothing is raised, it is told once, and no deed is told that was none."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from guard.release.records import AuditLine, last_deed
from registry.errors import RegistryRefused, RegistryUnreachable
from registry.model import Control
from slo.errors import UpstreamError
from tests.conftest import VIRTUAL
from tests.release_kit import BAD, HOLD, PASS, FlakyPort, ScriptedJudge, World


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


async def at_the_end_of_a_stage(directory: Path, worlds: list[World]) -> tuple[World, FlakyPort]:
    world = World(directory, ScriptedJudge(PASS))
    worlds.append(world)
    await world.up()
    await world.controller.start(BAD.name, actor="ann", advance="auto")
    world.events = 10
    await asyncio.sleep(61)
    assert isinstance(world.port, FlakyPort)
    return world, world.port


async def running(world: World, seconds: float) -> None:
    task = asyncio.create_task(world.controller.run())
    await asyncio.sleep(seconds)
    task.cancel()


def deeds(world: World) -> list[str]:
    return [line.action for line in reversed(world.journal.audit(1000))]


@pytest.mark.anyio
async def test_a_registry_that_is_silent_for_an_hour_costs_one_line_and_no_deed(
    tmp_path: Path, worlds: list[World]
) -> None:
    world, port = await at_the_end_of_a_stage(tmp_path, worlds)
    port.down = True
    await running(world, 3600)
    assert (world.weights(), world.alerts, deeds(world)) == ([0.0, 0.1], ["advance_refused"], ["start"])
    port.down = False
    await running(world, 310)
    assert (world.weights(), deeds(world)) == ([0.0, 0.1, 0.5], ["start", "advance"])


@pytest.mark.anyio
async def test_a_registry_that_takes_no_writes_is_told_and_asked_ever_more_seldom(
    tmp_path: Path, worlds: list[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, port = await at_the_end_of_a_stage(tmp_path, worlds)
    tries = 0

    async def refuse(_control: Control, *, expected_epoch: int, actor: str) -> Control:
        nonlocal tries
        tries += 1
        raise RegistryRefused("unauthorized", "this needs `Authorization: Bearer <token>`")

    monkeypatch.setattr(port, "put_control", refuse)
    await running(world, 3600)
    assert world.alerts == ["advance_refused"]
    assert 10 < tries < 25
    assert deeds(world) == ["start", *["advance", "refused"] * tries]
    assert world.journal.audit(1)[0].detail == "advance: this needs `Authorization: Bearer <token>`"
    worlds.remove(world)
    world.close()
    again = await World(tmp_path, ScriptedJudge(HOLD)).up()
    worlds.append(again)
    told = again.controller.status().last_deed
    assert told is not None
    assert (told.action, told.actor) == ("start", "ann")


@pytest.mark.anyio
async def test_a_stage_whose_answer_was_lost_is_a_deed_once_its_document_is_obeyed(
    tmp_path: Path, worlds: list[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, port = await at_the_end_of_a_stage(tmp_path, worlds)
    world.judge.script = [HOLD]
    put = port.put_control

    async def lose(control: Control, *, expected_epoch: int, actor: str) -> Control:
        await put(control, expected_epoch=expected_epoch, actor=actor)
        raise RegistryUnreachable("registry: the answer was lost")

    with monkeypatch.context() as lossy:
        lossy.setattr(port, "put_control", lose)
        with pytest.raises(UpstreamError):
            await world.controller.advance(actor="bob")
    assert world.controller.state.canary_ratio == 0.1
    await world.controller.tick()
    assert world.controller.state.canary_ratio == 0.5
    assert deeds(world) == ["start", "advance", "refused", "adopt"]
    worlds.remove(world)
    world.close()
    again = await World(tmp_path, ScriptedJudge(HOLD)).up()
    worlds.append(again)
    told = again.controller.status().last_deed
    assert told is not None
    assert (told.action, told.actor) == ("advance", "bob")


def test_a_deed_that_was_refused_hides_only_itself() -> None:
    def line(action: str, after: str = "") -> AuditLine:
        return AuditLine(0.0, action, "ann", "", after)

    start, raised, refused = line("start", "epoch=1"), line("advance", "epoch=2"), line("refused")
    assert last_deed([]) is None
    assert last_deed([line("recommend"), start]) == start
    assert last_deed([refused, raised, start]) == start
    assert last_deed([refused, raised, refused, raised]) is None
    assert last_deed([raised, refused, raised, start]) == raised
    assert last_deed([line("adopt", "epoch=2"), refused, raised, start]) == raised
    assert last_deed([line("adopt", "epoch=7"), refused, raised, start]) == start
