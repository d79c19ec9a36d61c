"""The loop under faults nobody foresaw, and commands that come too late."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from guard.release.alertmanager import AlertmanagerPoster
from guard.release.journal import Journal
from guard.release.outbox import Outbox
from guard.release.state import Mode, Phase, ReleaseState
from registry.errors import RegistryUnreachable
from registry.model import Stage
from registry.store import RegistryStore
from slo.clock import LoopClock
from slo.errors import DataError, RefusedError
from slo.types import Action, ActionKind
from tests.conftest import VIRTUAL
from tests.release_kit import (
    BAD,
    GOOD,
    HOLD,
    NEXT,
    ROLL_BACK,
    SERVICE,
    FlakyPort,
    Receiver,
    ScriptedJudge,
    World,
    inline,
)

pytestmark = pytest.mark.anyio

SHED = Action(ActionKind.SHED, "breach: p95 over 3 s", ROLL_BACK.verdicts)


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


async def up(directory: Path, worlds: list[World], judge: object = None, **words: object) -> World:
    world = World(directory, judge or ScriptedJudge(HOLD), **words)  # type: ignore[arg-type]
    worlds.append(world)
    return await world.up()


async def twice_released(world: World) -> World:
    """v1.2.1 is stable and has a previous version; v1.3.0 is the canary."""
    await world.controller.start(BAD.name, actor="ann")
    await world.controller.promote(actor="ann")
    await world.controller.start(NEXT.name, actor="ann")
    return world


async def test_a_second_rollback_does_not_take_out_what_was_just_returned_to(
    tmp_path: Path, worlds: list[World]
) -> None:
    world = await twice_released(await up(tmp_path, worlds))
    world.judge.script = [ROLL_BACK]
    await asyncio.gather(
        world.controller.tick(), world.controller.rollback(actor="bob", reason="looks bad"), return_exceptions=True
    )
    assert (world.controller.state.stable, world.controller.state.phase) == (BAD.name, Phase.ROLLED_BACK)
    with pytest.raises(RefusedError, match=r"'v1\.2\.1' answers everybody") as caught:
        await world.controller.rollback(actor="bob")
    assert caught.value.reason == "nothing_to_roll_back"
    await world.controller.rollback(actor="bob", force=True)
    assert world.controller.state.stable == GOOD.name


async def test_after_an_abort_a_rollback_needs_force_too(tmp_path: Path, worlds: list[World]) -> None:
    world = await twice_released(await up(tmp_path, worlds))
    await world.controller.abort(actor="ann")
    with pytest.raises(RefusedError, match="repeat with --force"):
        await world.controller.rollback(actor="ann")
    assert world.controller.state.stable == BAD.name


@pytest.mark.parametrize("command", ["promote", "advance", "abort", "rollback", "pause", "resume", "start", "drill"])
async def test_a_command_for_another_epoch_is_a_conflict_and_changes_nothing(
    tmp_path: Path, worlds: list[World], command: str
) -> None:
    world = await twice_released(await up(tmp_path, worlds))
    before = world.controller.state
    words = {"canary": BAD.name} if command == "start" else {}
    call = getattr(world.controller, command)
    with pytest.raises(RefusedError) as caught:
        await call(**words, actor="bob", expected_epoch=before.epoch - 1)
    assert caught.value.reason == "conflict"
    assert world.controller.state == before


async def test_the_epoch_is_compared_when_the_command_has_its_turn(tmp_path: Path, worlds: list[World]) -> None:
    world = await up(tmp_path, worlds, ScriptedJudge(ROLL_BACK))
    await world.controller.start(BAD.name, actor="ann")
    seen = world.controller.state.epoch
    tick = asyncio.create_task(world.controller.tick())
    late = asyncio.create_task(world.controller.abort(actor="bob", expected_epoch=seen))
    await tick
    with pytest.raises(RefusedError) as caught:
        await late
    assert caught.value.reason == "conflict"


async def test_an_unforeseen_fault_costs_one_tick_and_is_told(tmp_path: Path, worlds: list[World]) -> None:
    world = await up(tmp_path, worlds)
    await world.controller.start(BAD.name, actor="ann")
    sync, calls = world.controller._enactor.sync, 0

    async def faulty() -> None:
        nonlocal calls
        calls += 1
        if calls <= 3:
            raise ZeroDivisionError("0/0")
        await sync()

    world.controller._enactor.sync = faulty  # type: ignore[method-assign]
    assert world.controller.last_tick_s is None
    task = asyncio.create_task(world.controller.run())
    await asyncio.sleep(12)
    assert (world.alerts, world.controller.failed_ticks_count, calls) == (["tick_failed"] * 3, 3, 3)
    assert world.controller.last_tick_s is None
    world.judge.script = [ROLL_BACK]
    await asyncio.sleep(5)
    assert world.controller.last_tick_s == world.clock.now_s() - 2
    assert world.controller.state.phase is Phase.ROLLED_BACK
    task.cancel()


async def test_a_malformed_page_while_running_is_a_disk_fault_and_the_rollback_goes_on(
    tmp_path: Path, worlds: list[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await up(tmp_path, worlds, ScriptedJudge(ROLL_BACK))
    await world.controller.start(BAD.name, actor="ann")

    @contextmanager
    def malformed() -> Iterator[sqlite3.Connection]:
        raise sqlite3.DatabaseError("database disk image is malformed")
        yield

    with monkeypatch.context() as broken:
        broken.setattr(world.journal, "_write", malformed)
        await world.controller.tick()
        assert world.applied[-1].canary_ratio == 0.0
        assert world.controller.status().pending == "rollback"
    await asyncio.sleep(5)
    await world.controller.tick()
    assert (world.controller.state.phase, world.controller.status().pending) == (Phase.ROLLED_BACK, "")
    assert "disk_fault" in world.faults


async def test_a_rollback_that_breaks_half_way_is_owed_and_finished(tmp_path: Path, worlds: list[World]) -> None:
    world = await up(tmp_path, worlds, ScriptedJudge(ROLL_BACK))
    await world.controller.start(BAD.name, actor="ann")
    steps = world.controller._enactor._saga._steps_of

    async def broken(_intent: object) -> frozenset[object]:
        world.controller._enactor._saga._steps_of = steps  # type: ignore[method-assign]
        raise ZeroDivisionError("0/0")

    world.controller._enactor._saga._steps_of = broken  # type: ignore[method-assign, assignment]
    with pytest.raises(ZeroDivisionError):
        await world.controller.tick()
    assert (world.applied[-1].canary_ratio, world.controller.status().pending) == (0.0, "rollback")
    await asyncio.sleep(5)
    await world.controller.tick()
    assert (world.controller.state.phase, world.controller.status().pending) == (Phase.ROLLED_BACK, "")


async def test_while_a_rollback_is_owed_the_judge_is_asked_at_every_tick(tmp_path: Path, worlds: list[World]) -> None:
    asked: list[ReleaseState] = []

    class Counting(ScriptedJudge):
        def judge(self, state: ReleaseState) -> object:  # type: ignore[override]
            asked.append(state)
            return super().judge(state)

    world = await up(tmp_path, worlds, Counting(ROLL_BACK))
    await world.controller.start(BAD.name, actor="ann")
    assert isinstance(world.port, FlakyPort)
    world.port.down = True
    for _ in range(20):
        await world.controller.tick()
        await asyncio.sleep(5)
    assert len(asked) == 20
    assert world.controller.status().last_judged_ago_s == 5.0
    assert len(world.rollbacks) == 1


async def test_a_pointer_on_a_third_version_stays_and_the_rollback_is_a_rollback(
    tmp_path: Path, worlds: list[World]
) -> None:
    world = await up(tmp_path, worlds, ScriptedJudge(ROLL_BACK))
    await world.controller.start(BAD.name, actor="ann")
    world.store.create_version(SERVICE, NEXT.name, actor="eve")
    world.store.transition(SERVICE, NEXT.name, Stage.STAGING, actor="eve")
    world.store.transition(SERVICE, NEXT.name, Stage.PRODUCTION, actor="eve")
    await world.controller.tick()
    assert (world.controller.state.phase, world.controller.state.canary_ratio) == (Phase.ROLLED_BACK, 0.0)
    assert world.stages()[NEXT.name] == "Production"
    (incident,) = world.journal.incidents()
    assert (incident.kind.value, incident.pointer, incident.closed_s) == ("rollback", "elsewhere", None)
    assert world.alerts == ["pointer_elsewhere"]
    await world.outbox.deliver_due()
    assert msgspec.json.decode(world.receivers["pager"].got[0].body)["type"] == "release.rolled_back"
    assert world.journal.read_intent() is None


async def test_leaving_enforce_ends_shedding_at_once(tmp_path: Path, worlds: list[World]) -> None:
    world = await up(tmp_path, worlds, ScriptedJudge(SHED))
    await world.controller.tick()
    assert world.applied[-1].shedding
    plan = world.controller._plan
    await world.controller.configure(plan=plan, mode=Mode.RECOMMEND, every_s=5.0, drain_unknown=False)
    assert not world.applied[-1].shedding
    assert not world.controller.state.shedding


async def test_a_restart_outside_of_enforce_does_not_bring_shedding_back(tmp_path: Path, worlds: list[World]) -> None:
    world = await up(tmp_path, worlds, ScriptedJudge(SHED))
    await world.controller.tick()
    worlds.remove(world)
    world.close()
    again = World(tmp_path, ScriptedJudge(HOLD), mode=Mode.OBSERVE)
    worlds.append(again)
    assert not again.controller.restore().shedding


async def test_how_long_unknown_may_last_is_configured(tmp_path: Path, worlds: list[World]) -> None:
    world = await up(tmp_path, worlds, ScriptedJudge(Action(ActionKind.HOLD, "unknown: no data")))
    plan = world.controller._plan
    await world.controller.configure(
        plan=plan, mode=Mode.ENFORCE, every_s=5.0, drain_unknown=False, unknown_after_s=20.0
    )
    await world.controller.start(BAD.name, actor="ann")
    for _ in range(4):
        await world.controller.tick()
        await asyncio.sleep(5)
    assert world.alerts == []
    await world.controller.tick()
    assert world.alerts == ["unknown_too_long"]


@pytest.mark.parametrize("command", ["promote", "advance", "resume"])
async def test_a_canary_that_left_the_configuration_is_not_raised(
    tmp_path: Path, worlds: list[World], command: str
) -> None:
    world = await up(tmp_path, worlds)
    await world.controller.start(BAD.name, actor="ann")
    if command == "resume":
        await world.controller.pause(actor="ann")
    before = world.controller.state
    del world.versions[BAD.name]
    with pytest.raises(RefusedError) as caught:
        await getattr(world.controller, command)(actor="ann")
    assert caught.value.reason == "unknown_version"
    assert world.controller.state == before
    await world.controller.abort(actor="ann")


async def test_a_receiver_gets_the_events_it_asked_for(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    senders = {"pager": Receiver("pager"), "chat": Receiver("chat"), "all": Receiver("all")}
    wants = {"pager": ("rollback",), "chat": ("rollback", "page")}
    outbox = Outbox(journal, senders, LoopClock(), wants=wants, offload=inline)
    assert [i.target for i in outbox.items("m", "i", b"", event="rollback")] == ["pager", "chat", "all"]
    assert [i.target for i in outbox.items("m", "i", b"", event="page")] == ["chat", "all"]
    assert outbox.targets_of("drill") == ("all",)
    assert outbox.targets_of("") == ("pager", "chat", "all")
    journal.close()


async def test_a_drill_passes_when_no_receiver_asks_for_drills(tmp_path: Path, worlds: list[World]) -> None:
    world = await up(tmp_path, worlds)
    world.outbox._wants = {"pager": frozenset({"rollback"})}
    result = await world.controller.drill(actor="ann")
    assert (result.passed, result.webhook_s) == (True, None)
    assert world.receivers["pager"].got == []


async def test_the_period_of_the_poster_is_configured() -> None:
    clock, asked = LoopClock(), []

    async def nothing() -> tuple[()]:
        asked.append(clock.now_s())
        return ()

    poster = AlertmanagerPoster(["http://am:9093"], None, clock, nothing, repost_s=7.0)  # type: ignore[arg-type]
    task = asyncio.create_task(poster.run())
    began_s = clock.now_s()
    await asyncio.sleep(15)
    task.cancel()
    assert [at - began_s for at in asked] == [0.0, 7.0, 14.0]


def test_a_state_directory_has_one_owner_and_is_free_after_it(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    with pytest.raises(DataError, match=rf"another sft-guard uses this state directory \(pid {os.getpid()}\)"):
        Journal(tmp_path)
    first.close()
    Journal(tmp_path).close()


def test_a_killed_owner_leaves_the_directory_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from guard.release.journal import Journal\n"
        "journal = Journal(sys.argv[1]); print('on', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"on\n"
        with pytest.raises(DataError, match=f"pid {owner.pid}"):
            Journal(tmp_path)
        owner.kill()
        owner.wait()
    Journal(tmp_path).close()


def test_a_journal_that_cannot_be_opened_lets_go_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "release.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(DataError, match="not a usable journal"):
        Journal(tmp_path)
    (tmp_path / "release.db").unlink()
    Journal(tmp_path).close()


@pytest.mark.parametrize("damage", ["foreign", "page"])
def test_a_damaged_registry_is_one_line_at_the_start(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "registry.sqlite"
    if damage == "foreign":
        path.write_bytes(b"this is no database" * 500)
    else:
        store = RegistryStore(f"sqlite:///{path}")
        for n in range(300):
            store.create_model(f"m{n}", "o" * 100, "d" * 300)
        store.close()
        raw = bytearray(path.read_bytes())
        raw[8192:20480] = b"\xa5" * 12288
        path.write_bytes(raw)
    with pytest.raises(RegistryUnreachable, match=r"registry\.sqlite.*moved aside") as caught:
        RegistryStore(f"sqlite:///{path}")
    assert "\n" not in str(caught.value)


def test_a_fault_while_room_is_made_is_the_registrys_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RegistryStore(f"sqlite:///{tmp_path}/registry.sqlite")

    def malformed(_connection: object) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr("registry.sqlite.top_up", malformed)
    with pytest.raises(RegistryUnreachable, match="what was written stands"):
        store.create_model("m", "o")
    assert [m.name for m in store.models()] == ["m"]
    store.close()


def test_the_recorded_state_keeps_the_rules_that_stable_breaches() -> None:
    state = replace(ReleaseState(SERVICE, GOOD.name), shared_rules=("p95",))
    assert msgspec.json.decode(msgspec.json.encode(state), type=ReleaseState) == state
