"""The release loop in virtual time: what users get, what the registry says, what is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from guard.release.control import control_of
from guard.release.incident import IncidentKind
from guard.release.state import Mode, Phase
from guard.release.webhook import Delivery
from registry.model import Stage
from slo.errors import DataError, RefusedError, UpstreamError
from slo.types import Action, ActionKind
from tests.conftest import VIRTUAL
from tests.release_kit import (
    BAD,
    BLIND,
    GOOD,
    HOLD,
    PASS,
    ROLL_BACK,
    SERVICE,
    FlakyPort,
    Receiver,
    ScriptedJudge,
    World,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[list[World]]:
    made: list[World] = []
    yield made
    for world in made:
        world.close()


def flaky(world: World) -> FlakyPort:
    assert isinstance(world.port, FlakyPort)
    return world.port


async def rolling(world: World, advance: str = "auto") -> World:
    await world.up()
    await world.controller.start(BAD.name, actor="ann", advance=advance)
    return world


async def test_a_good_canary_climbs_the_plan_and_becomes_stable(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolling(World(tmp_path, ScriptedJudge(PASS)))
    worlds.append(world)
    assert world.stages() == {"v1.2.0": "Production", "v1.2.1": "Staging"}

    async def users() -> None:
        while True:
            await asyncio.sleep(5)
            world.events += 1

    tasks = [asyncio.create_task(users()), asyncio.create_task(world.controller.run())]
    await asyncio.sleep(300)
    for task in tasks:
        task.cancel()
    assert world.weights() == [0.0, 0.1, 0.5, 0.0]
    status = world.controller.status()
    assert (status.phase, status.stable, status.previous) == ("promoted", "v1.2.1", "v1.2.0")
    assert world.stages() == {"v1.2.0": "Staging", "v1.2.1": "Production"}
    control = world.store.control(SERVICE)
    assert control == control_of(world.controller.state)


async def test_a_breach_ends_exposure_moves_the_pointer_and_tells(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolling(World(tmp_path, ScriptedJudge(HOLD, ROLL_BACK)))
    worlds.append(world)
    await world.controller.promote(actor="ann")
    await world.controller.tick()
    await world.controller.tick()
    assert world.controller.state.phase is Phase.ROLLED_BACK
    assert (world.applied[-1].stable, world.applied[-1].canary_ratio) == ("v1.2.0", 0.0)
    assert world.stages() == {"v1.2.0": "Production", "v1.2.1": "Staging"}
    assert world.rollbacks == [("hallucination", True)]
    await world.outbox.deliver_due()
    (item,) = world.receivers["pager"].got
    said = msgspec.json.decode(item.body)
    assert said["type"] == "release.rolled_back"
    data = said["data"]
    assert (data["bad"]["name"], data["target"]["name"], data["pointer"]) == ("v1.2.1", "v1.2.0", "at_target")
    assert data["evidence"] == [
        {
            "rule": "hallucination",
            "indicator": "sft_quality_hallucination_rate",
            "release": BAD.release_id,
            "state": "breach",
            "window_s": 3600.0,
            "n": 500,
            "bad_count": 40,
            "estimate": 0.08,
            "interval": [0.062, None],
            "threshold": 0.045,
            "baseline_hash": "ab" * 32,
            "fast_path": False,
            "reason": "8 % of 500 answers unsupported, limit 4.5 %",
            "more": {},
        }
    ]
    assert {"part": "kb.chunking", "before": "600/100", "after": "350/50"} in data["differences"]
    assert data["exemplars"][0]["exchange_id"] == "ex-1"
    control = world.store.control(SERVICE)
    assert control is not None
    assert (control.epoch, control.canary_ratio, control.cache_epoch) == (3, 0.0, 3)
    assert (control.incident_id, control.outbox_id) == (data["incident_id"], item.message_id)
    assert control.phase == "rolled_back"


async def test_the_guards_own_rollback_does_not_wait_for_a_gate_and_the_audit_says_what_it_passed(
    tmp_path: Path, worlds: list[World]
) -> None:
    world = await rolling(World(tmp_path, ScriptedJudge(ROLL_BACK)))
    worlds.append(world)
    await world.controller.promote(actor="ann")
    failed = {"blocks": ["Staging", "Production"], "evidence": ["recall 40 %"]}
    world.store.evaluate(SERVICE, GOOD.name, "kb-gate", failed, actor="ci")
    await world.controller.tick()
    assert world.stages() == {"v1.2.0": "Production", "v1.2.1": "Staging"}
    line = next(e for e in world.store.audit(5, SERVICE) if e.action == "rollback")
    assert line.detail.startswith("forced, version 'v1.2.0': kb-gate failed, Production is closed to it: recall 40 %; ")


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.RECOMMEND])
async def test_without_enforce_traffic_stays_and_the_advice_is_kept(
    tmp_path: Path, worlds: list[World], mode: Mode
) -> None:
    world = await rolling(World(tmp_path, ScriptedJudge(ROLL_BACK), mode=mode))
    worlds.append(world)
    for _ in range(3):
        await world.controller.tick()
    assert world.weights() == [0.0, 0.1]
    assert world.recommended == ["roll back v1.2.1 to v1.2.0: breach: hallucination 8 % over 4.5 %"]
    assert world.journal.audit(1)[0].action == "recommend"


async def test_a_blind_hour_costs_an_hour_and_nothing_else(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolling(World(tmp_path, ScriptedJudge(*[BLIND] * 720, HOLD)))
    worlds.append(world)
    task = asyncio.create_task(world.controller.run())
    await asyncio.sleep(3600)
    task.cancel()
    assert world.weights() == [0.0, 0.1]
    assert world.alerts == ["unknown_too_long"]


async def test_a_judge_that_breaks_holds_the_release_and_is_told(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolling(World(tmp_path, ScriptedJudge(ZeroDivisionError("0/0"), PASS)))
    worlds.append(world)
    await world.controller.tick()
    assert world.alerts == ["judge_failed"]
    assert world.controller.status().last_reason == "unknown: the judge failed (ZeroDivisionError)"


async def test_after_a_command_the_reason_is_what_the_person_did(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolling(World(tmp_path, ScriptedJudge(HOLD, HOLD)))
    worlds.append(world)
    await world.controller.tick()
    result = await world.controller.rollback(actor="ada")
    assert result.status.last_reason.startswith("rollback by a person: v1.2.1 takes no traffic")
    await world.controller.tick()
    assert not world.controller.status().last_reason.startswith("rollback by a person")


async def test_a_dead_registry_does_not_delay_the_end_of_exposure_or_the_message(
    tmp_path: Path, worlds: list[World]
) -> None:
    world = await rolling(World(tmp_path, ScriptedJudge(ROLL_BACK)))
    worlds.append(world)
    await world.controller.promote(actor="ann")
    flaky(world).down = True
    await world.controller.tick()
    assert (world.applied[-1].stable, world.applied[-1].canary_ratio) == ("v1.2.0", 0.0)
    assert world.controller.status().pending == "rollback"
    assert world.controller.status().registry == "unreachable"
    await world.outbox.deliver_due()
    assert msgspec.json.decode(world.receivers["pager"].got[0].body)["data"]["pointer"] == "pending"
    with pytest.raises(RefusedError, match="being finished"):
        await world.controller.start("v1.3.0", actor="ann")
    incident_id = world.controller.status().incident_id
    with pytest.raises(RefusedError, match="not finished") as refused:
        await world.controller.close_incident(incident_id, actor="ann", reason="enough")
    assert refused.value.reason == "busy"
    task = asyncio.create_task(world.controller.run())
    await asyncio.sleep(3 * 3600)
    assert world.stages()["v1.2.1"] == "Production"  # nobody could move it
    assert world.alerts == ["rollback_pending"]
    flaky(world).down = False
    await asyncio.sleep(310)
    task.cancel()
    assert world.stages() == {"v1.2.0": "Production", "v1.2.1": "Staging"}
    assert world.controller.status().pending == ""
    assert (await world.controller.close_incident(incident_id, actor="ann", reason="enough")).closed_s is not None
    assert len(world.pointer_moves()) == 1
    assert world.journal.read_intent() is None


async def test_a_lost_answer_moves_the_pointer_once(tmp_path: Path, worlds: list[World]) -> None:
    for lost in range(1, 6):
        directory = tmp_path / str(lost)
        directory.mkdir()
        world = await rolling(World(directory, ScriptedJudge(ROLL_BACK)))
        worlds.append(world)
        await world.controller.promote(actor="ann")
        flaky(world).lose_answers = lost
        for _ in range(20):
            await world.controller.tick()
            await asyncio.sleep(60)
        await world.outbox.deliver_due()
        assert world.pointer_moves() == [("v1.2.0", "Staging", "Production")], lost
        control = world.store.control(SERVICE)
        assert control is not None
        assert control.epoch == 3
        assert len({item.message_id for item in world.receivers["pager"].got}) == 1
        assert world.controller.state.phase is Phase.ROLLED_BACK


async def test_a_promotion_that_wins_the_race_is_not_undone(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolling(World(tmp_path, ScriptedJudge(ROLL_BACK)))
    worlds.append(world)
    promoted = replace(
        control_of(world.controller.state), epoch=2, stable="v1.2.1", canary="", previous="v1.2.0", canary_ratio=0.0,
        phase="promoted",
    )  # fmt: skip

    def operator(point: str) -> None:
        if point == "control:begin" and world.store.control(SERVICE) != promoted:
            world.store.put_control(promoted, expected_epoch=1, actor="ann")
            world.store.transition(SERVICE, "v1.2.1", Stage.PRODUCTION, actor="ann", epoch=2)

    world.controller._enactor._saga._at = operator
    await world.controller.tick()
    assert world.store.control(SERVICE) == promoted
    assert world.stages()["v1.2.1"] == "Production"
    assert world.pointer_moves() == []
    assert (world.controller.state.stable, world.controller.state.epoch) == ("v1.2.1", 2)
    await world.outbox.deliver_due()
    assert msgspec.json.decode(world.receivers["pager"].got[0].body)["type"] == "release.rollback_superseded"


async def test_an_operator_who_loses_a_race_gets_a_conflict_and_sees_the_winner(
    tmp_path: Path, worlds: list[World]
) -> None:
    world = await rolling(World(tmp_path, ScriptedJudge(HOLD)))
    worlds.append(world)
    theirs = replace(control_of(world.controller.state), epoch=2, canary_ratio=0.0, canary="", phase="idle")
    world.store.put_control(theirs, expected_epoch=1, actor="bob")
    with pytest.raises(RefusedError) as caught:
        await world.controller.promote(actor="ann")
    assert caught.value.reason == "conflict"
    assert (world.controller.state.epoch, world.controller.state.canary_ratio) == (2, 0.0)


@pytest.mark.parametrize("count", [2, 3, 5])
async def test_replicas_that_see_the_same_breach_have_one_effect(
    tmp_path: Path, worlds: list[World], count: int
) -> None:
    receiver = Receiver()
    for n in range(count):
        (tmp_path / str(n)).mkdir()
        worlds.append(World(tmp_path / str(n), ScriptedJudge(ROLL_BACK), receivers={"pager": receiver}))
    shared = worlds[0].store
    for world in worlds[1:]:
        flaky(world)._store = shared
    await worlds[0].up()
    await worlds[0].controller.start(BAD.name, actor="ann")
    await worlds[0].controller.promote(actor="ann")
    for world in worlds[1:]:
        await world.up()
        assert world.applied[-1].stable == "v1.2.1"  # obeys the document before it answers
    flaky(worlds[-1]).down = True  # this one is cut off
    await asyncio.gather(*(world.controller.tick() for world in worlds))
    flaky(worlds[-1]).down = False
    for _ in range(5):
        await asyncio.sleep(60)
        for world in worlds:
            await world.controller.tick()
    for world in worlds:
        await world.outbox.deliver_due()
        assert (world.applied[-1].stable, world.applied[-1].canary_ratio) == ("v1.2.0", 0.0)
        assert world.controller.state.epoch == 3
    assert worlds[0].pointer_moves() == [("v1.2.0", "Staging", "Production")]
    assert len({item.message_id for item in receiver.got}) == 1
    assert len({world.controller.state.incident_id for world in worlds}) == 1


async def test_a_missing_previous_version_keeps_weight_0_and_the_pointer(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolling(World(tmp_path, ScriptedJudge(ROLL_BACK)))
    worlds.append(world)
    await world.controller.promote(actor="ann")
    del world.versions["v1.2.0"]
    await world.controller.tick()
    await world.controller.tick()
    assert world.alerts == ["no_target"]
    assert (world.controller.state.stable, world.stages()["v1.2.1"]) == ("v1.2.1", "Production")
    with pytest.raises(RefusedError, match=r"guard\.yaml"):
        await world.controller.rollback(actor="ann")


async def test_a_canary_whose_stable_was_archived_loses_its_traffic_and_pages(
    tmp_path: Path, worlds: list[World]
) -> None:
    world = await rolling(World(tmp_path, ScriptedJudge(ROLL_BACK)))
    worlds.append(world)
    world.store.transition(SERVICE, "v1.2.0", Stage.ARCHIVED, actor="eve")
    await world.controller.tick()
    assert world.applied[-1].canary_ratio == 0.0
    assert world.alerts == ["no_target"]
    assert world.pointer_moves() == []
    await world.outbox.deliver_due()
    assert msgspec.json.decode(world.receivers["pager"].got[0].body)["type"] == "release.no_target"


async def test_stable_breaching_too_opens_one_incident_and_closes_it_again(tmp_path: Path, worlds: list[World]) -> None:
    shared = Action(ActionKind.SHED, "shared_upstream: stable suffers too", ROLL_BACK.verdicts)
    world = await rolling(World(tmp_path, ScriptedJudge(shared, shared, shared, HOLD)))
    worlds.append(world)
    for _ in range(3):
        await asyncio.sleep(60)
        await world.controller.tick()
    (incident,) = world.journal.incidents(only_open=True)
    assert incident.kind is IncidentKind.SHARED_UPSTREAM
    assert world.pointer_moves() == []
    assert world.alerts == ["shared_upstream"]
    await world.controller.tick()
    assert world.journal.incidents(only_open=True) == ()


async def test_a_restart_keeps_the_last_split_and_most_of_the_hold(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolling(World(tmp_path, ScriptedJudge(HOLD)))
    world.events = 7
    for _ in range(10):
        await asyncio.sleep(61)
        await world.controller.tick()
    world.close()
    again = World(tmp_path, ScriptedJudge(HOLD))
    worlds.append(again)
    again.controller.restore()
    assert [(s.stable, s.canary, s.canary_ratio) for s in again.applied] == [("v1.2.0", "v1.2.1", 0.1)]
    status = again.controller.status()
    assert (status.stage_events, status.stage_held_s) == (7, pytest.approx(610.0))
    assert status.advance == "auto"


async def test_a_restart_with_the_registry_down_still_serves_the_last_split(
    tmp_path: Path, worlds: list[World]
) -> None:
    (await rolling(World(tmp_path, ScriptedJudge(HOLD)))).close()
    again = World(tmp_path, ScriptedJudge(HOLD))
    worlds.append(again)
    flaky(again).down = True
    await again.up()
    assert again.applied[-1].canary_ratio == 0.1
    with pytest.raises(UpstreamError):
        await again.controller.advance(actor="ann")  # raising exposure needs the registry
    assert again.controller.state.canary_ratio == 0.1
    await again.controller.abort(actor="ann")  # reducing it does not
    assert again.applied[-1].canary_ratio == 0.0
    assert again.controller.status().pending == "control"
    flaky(again).down = False
    await again.controller.tick()
    control = again.store.control(SERVICE)
    assert control is not None
    assert (control.epoch, control.phase, control.canary_ratio) == (2, "idle", 0.0)


async def test_a_version_that_left_the_configuration_gets_no_traffic(tmp_path: Path, worlds: list[World]) -> None:
    (await rolling(World(tmp_path, ScriptedJudge(HOLD)))).close()
    again = World(tmp_path, ScriptedJudge(HOLD), versions={GOOD.name: GOOD})
    worlds.append(again)
    again.controller.restore()
    assert (again.applied[-1].stable, again.applied[-1].canary_ratio) == ("v1.2.0", 0.0)


async def test_commands_are_audited_with_their_actor(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolling(World(tmp_path, ScriptedJudge(HOLD)))
    worlds.append(world)
    await world.controller.pause(actor="bob")
    assert "pause by a person" in world.controller.status().last_reason
    assert world.controller.status().judged is None  # a person's word is no evaluation
    await world.controller.resume(actor="bob")
    await world.controller.advance(actor="cid")
    result = await world.controller.rollback(actor="dan", reason="users complain")
    assert result.incident_id.startswith("inc-")
    assert [(a.action, a.actor) for a in reversed(world.journal.audit())] == [
        ("start", "ann"),
        ("pause", "bob"),
        ("resume", "bob"),
        ("advance", "cid"),
        ("rollback", "dan"),
    ]
    last = world.journal.audit(1)[0]
    assert last.before == "epoch=4 rolling_out stable=v1.2.0 canary=v1.2.1@0.5"
    assert last.after == "epoch=5 rolling_back stable=v1.2.0 canary=v1.2.1@0"
    incident = world.journal.incident(result.incident_id)
    assert incident is not None
    assert (incident.rule, incident.automatic, incident.actor) == ("manual", False, "dan")
    closed = await world.controller.close_incident(result.incident_id, actor="dan", reason="wrong index")
    assert closed.closed_s is not None
    last = world.journal.audit(1)[0]
    assert (last.action, last.actor, last.detail) == ("close_incident", "dan", f"{result.incident_id}: wrong index")
    assert closed.timeline[-1].what == "closed by dan: wrong index"
    assert await world.controller.close_incident(result.incident_id, actor="eve", reason="me too") == closed
    assert world.journal.audit(1)[0].actor == "dan"
    with pytest.raises(RefusedError, match="not known"):
        await world.controller.close_incident("inc-ghost", actor="dan")


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [({"canary": "v9"}, "unknown_version"), ({"canary": "v1.2.1", "advance": "fast"}, "invalid")],
)
async def test_a_start_that_makes_no_sense_is_refused(
    tmp_path: Path, worlds: list[World], kwargs: dict[str, str], reason: str
) -> None:
    world = await World(tmp_path, ScriptedJudge(HOLD)).up()
    worlds.append(world)
    with pytest.raises(RefusedError) as caught:
        await world.controller.start(kwargs.pop("canary"), actor="ann", **kwargs)
    assert caught.value.reason == reason


async def test_flapping_ends_after_three_rollbacks(tmp_path: Path, worlds: list[World]) -> None:
    world = await World(tmp_path, ScriptedJudge(ROLL_BACK)).up()
    worlds.append(world)
    for _ in range(4):
        await world.controller.start(BAD.name, actor="ann", again=True)
        await world.controller.tick()
        await asyncio.sleep(600)
    assert world.rollbacks == [("hallucination", True)] * 3
    assert world.alerts == ["rollback_suppressed"]
    assert world.controller.status().rollbacks_24h == 3


async def test_a_drill_rehearses_everything_and_touches_no_traffic(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolling(World(tmp_path, ScriptedJudge(HOLD)))
    worlds.append(world)
    applied = len(world.applied)
    before = world.store.control(SERVICE)
    for _ in range(2):
        result = await world.controller.drill(actor="ann")
        assert result.passed, result.message
        assert result.pointer == "at_target"
        assert result.mttr_s is not None
        assert result.webhook_s is not None
    assert len(world.applied) == applied
    assert world.store.control(SERVICE) == before
    assert world.stages() == {"v1.2.0": "Production", "v1.2.1": "Staging"}
    first, second = (msgspec.json.decode(i.body) for i in world.receivers["pager"].got)
    assert (first["type"], first["data"]["drill"]) == ("release.drill", True)
    assert first["data"]["incident_id"] != second["data"]["incident_id"]
    assert all(i.kind is IncidentKind.DRILL and i.closed_s for i in world.journal.incidents())
    assert world.controller.state.canary_ratio == 0.1
    moves = [e for e in world.store.audit(100, f"{SERVICE}.drill") if e.action == "rollback"]
    assert [(m.version, m.from_value, m.to_value) for m in moves] == [("v1.2.0", "Staging", "Production")] * 2


async def test_a_drill_says_what_is_broken(tmp_path: Path, worlds: list[World]) -> None:
    world = await World(tmp_path, ScriptedJudge(HOLD), receivers={"pager": Receiver(forever=Delivery.HTTP_ERROR)}).up()
    worlds.append(world)
    result = await world.controller.drill(actor="ann")
    assert (result.passed, result.mttr_s) == (False, None)
    assert "receiver" in result.message
    assert world.journal.read_intent(drill=True) is None


async def test_without_a_registry_one_process_does_it_all(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolling(World(tmp_path, ScriptedJudge(ROLL_BACK), use_registry=False))
    worlds.append(world)
    await world.controller.tick()
    assert world.controller.state.phase is Phase.ROLLED_BACK
    assert world.controller.status().registry == "none"
    (incident,) = await world.controller.open_incidents()
    assert incident.pointer == "local"
    assert (await world.controller.drill(actor="ann")).passed


async def test_a_journal_that_cannot_be_read_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    path = tmp_path / "state" / "release.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(DataError, match="move it aside"):
        World(tmp_path, ScriptedJudge(HOLD))
    assert path.read_bytes().startswith(b"this is no database")
