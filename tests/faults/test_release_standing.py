"""What people are told while something stands: rules that page, conditions, a fault that stable shares."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from guard.release.alertmanager import alerts_of
from guard.release.incident import Incident, IncidentKind, postmortem
from guard.release.journal import JournalError
from guard.release.payload import event_kind
from guard.release.state import Condition, Mode
from guard.settings import load_settings
from guard.wiring import Guard
from slo.actions import ReleaseSnapshot, decide
from slo.types import Action, ActionKind, OnBreach, State, Verdict
from tests.conftest import VIRTUAL
from tests.faults.test_release_replicas import GUARD
from tests.faults.test_release_replicas import SLO as SLO_FILE
from tests.release_kit import BAD, BREACH, GOOD, HOLD, ROLL_BACK, SLO, ScriptedJudge, World

pytestmark = pytest.mark.anyio

PAGE = replace(BREACH, slo=replace(SLO, name="http-errors", action=OnBreach.PAGE))
PAGE_OK = replace(PAGE, state=State.OK, firing=False)
SICK = Action(ActionKind.HOLD, "sick: own event loop stalled for 120 ms")
STABLE = replace(BREACH, release=GOOD.release_id)
SHARED = Action(ActionKind.SHED, "shared_upstream: stable suffers too; 8 %", (BREACH, STABLE))
NO_TARGET = Action(ActionKind.HOLD, "no_target: stable was not promoted lately; 8 %", (STABLE,))
STEADY = Action(ActionKind.HOLD, "steady: no release is under way")


def hold(*verdicts: Verdict, reason: str = "breach: http-errors") -> Action:
    return Action(ActionKind.HOLD, reason, verdicts)


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


async def rolling(directory: Path, worlds: list[World], *script: Action, mode: Mode = Mode.ENFORCE) -> World:
    world = await World(directory, ScriptedJudge(*script), mode=mode).up()
    worlds.append(world)
    await world.controller.start(BAD.name, actor="ann")
    return world


async def ticks(world: World, *script: Action, seconds: float = 5.0) -> None:
    for said in script:
        world.judge.script = [said]
        await asyncio.sleep(seconds)
        await world.controller.tick()


def standing(world: World) -> list[Incident]:
    return list(world.journal.incidents(only_open=True))


async def test_a_rule_that_pages_opens_one_incident_and_it_closes_when_the_rule_is_quiet(
    tmp_path: Path, worlds: list[World]
) -> None:
    world = await rolling(tmp_path, worlds, HOLD)
    await ticks(world, *[hold(PAGE)] * 4, SICK, hold(replace(PAGE, state=State.UNKNOWN, firing=False)), hold(PAGE))
    (incident,) = standing(world)
    assert (incident.kind, incident.rule, incident.bad) == (IncidentKind.PAGE, "http-errors", BAD)
    await world.outbox.deliver_due()
    (item,) = world.receivers["pager"].got
    said = msgspec.json.decode(item.body)
    assert (said["type"], said["data"]["incident_id"]) == ("release.page", incident.incident_id)
    (alert,) = alerts_of(await world.controller.open_incidents(), 1.75e9)
    assert (alert["labels"]["alertname"], alert["labels"]["severity"]) == ("SftGuardPage", "critical")
    assert alert["annotations"]["summary"] == "rule http-errors fires on v1.2.1"
    await ticks(world, hold(PAGE_OK, reason="waiting: hold"))
    assert standing(world) == []
    await ticks(world, hold(PAGE))
    assert len(world.journal.incidents()) == 2
    assert "| about | v1.2.1" in postmortem(incident)


async def test_stable_pages_beside_the_canary_and_a_version_that_is_gone_is_no_page(
    tmp_path: Path, worlds: list[World]
) -> None:
    world = await rolling(tmp_path, worlds, HOLD)
    await ticks(world, hold(PAGE, replace(PAGE, release=GOOD.release_id)))
    assert {i.bad.name for i in standing(world)} == {"v1.2.0", "v1.2.1"}
    await world.controller.abort(actor="ann")
    await ticks(world, hold(replace(PAGE, release=GOOD.release_id)))
    assert [i.bad.name for i in standing(world)] == ["v1.2.0"]


async def test_a_page_that_a_person_closed_stays_closed_while_the_rule_goes_on_firing(
    tmp_path: Path, worlds: list[World]
) -> None:
    world = await rolling(tmp_path, worlds, HOLD)
    await ticks(world, hold(PAGE))
    await world.controller.close_incident(standing(world)[0].incident_id, actor="ann")
    await ticks(world, hold(PAGE), hold(PAGE))
    assert (standing(world), len(world.journal.incidents())) == ([], 1)


async def test_after_a_restart_the_same_page_is_not_opened_again(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolling(tmp_path, worlds, HOLD)
    await ticks(world, hold(PAGE))
    worlds.remove(world)
    world.close()
    again = await World(tmp_path, ScriptedJudge(hold(PAGE))).up()
    worlds.append(again)
    await again.controller.tick()
    assert len(again.journal.incidents()) == 1
    await ticks(again, hold(PAGE_OK))
    assert standing(again) == []


async def test_a_disk_that_refuses_keeps_no_page_from_people(
    tmp_path: Path, worlds: list[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await rolling(tmp_path, worlds, HOLD)

    def full(*_args: object, **_words: object) -> None:
        raise JournalError("disk_full", "release.db: writing failed (disk full)")

    with monkeypatch.context() as broken:
        broken.setattr(world.journal, "record", full)
        broken.setattr(world.journal, "incidents", full)
        await ticks(world, hold(PAGE), hold(PAGE))
        await world.outbox.deliver_due()
        assert len(world.receivers["pager"].got) == 1
        assert [i.rule for i in await world.controller.open_incidents()] == ["http-errors"]
        await ticks(world, hold(PAGE_OK))
        assert [i.closed_s is None for i in await world.controller.open_incidents()] == [False]
    await ticks(world, hold(PAGE_OK))
    (incident,) = world.journal.incidents()
    assert incident.closed_s is not None


async def test_a_canary_nobody_can_judge_is_told_and_closed_when_somebody_can(
    tmp_path: Path, worlds: list[World]
) -> None:
    world = await rolling(tmp_path, worlds, HOLD)
    await ticks(world, *[Action(ActionKind.HOLD, "unknown: cannot be judged")] * 70)
    (incident,) = standing(world)
    assert (incident.kind, incident.rule) == (IncidentKind.CONDITION, "unknown_too_long")
    await world.outbox.deliver_due()
    assert msgspec.json.decode(world.receivers["pager"].got[0].body)["type"] == "release.condition"
    assert alerts_of([incident], 0.0)[0]["labels"]["alertname"] == "SftGuardCondition"
    await ticks(world, HOLD)
    assert standing(world) == []


async def test_a_suppressed_rollback_is_told_once_and_survives_a_blind_evaluation(
    tmp_path: Path, worlds: list[World]
) -> None:
    world = await World(tmp_path, ScriptedJudge(HOLD)).up()
    worlds.append(world)
    plan, mode = world.controller._plan, Mode.ENFORCE
    await world.controller.configure(plan=plan, mode=mode, every_s=5.0, drain_unknown=False, max_rollbacks_per_day=0)
    assert world.controller.status().rollbacks_allowed == 0
    await world.controller.start(BAD.name, actor="ann")
    await ticks(world, ROLL_BACK, SICK, ROLL_BACK)
    assert world.alerts == ["rollback_suppressed"]
    (incident,) = standing(world)
    assert (incident.rule, incident.bad) == ("rollback_suppressed", BAD)
    await ticks(world, HOLD)
    assert standing(world) == []


async def test_a_breach_of_stable_with_nothing_to_return_to_is_told(tmp_path: Path, worlds: list[World]) -> None:
    world = await World(tmp_path, ScriptedJudge(HOLD)).up()
    worlds.append(world)
    await ticks(world, NO_TARGET, SICK, NO_TARGET)
    (incident,) = standing(world)
    assert (incident.kind, incident.rule, incident.bad) == (IncidentKind.CONDITION, "no_target", GOOD)
    await ticks(world, STEADY)
    assert standing(world) == []


async def test_a_previous_version_that_is_not_configured_any_more_is_told(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolling(tmp_path, worlds, HOLD)
    await world.controller.promote(actor="ann")
    del world.versions["v1.2.0"]
    await ticks(world, ROLL_BACK, ROLL_BACK)
    (incident,) = standing(world)
    assert (incident.rule, incident.bad) == ("no_target", BAD)
    assert "v1.2.0 is not configured" in incident.reason


async def test_a_shared_fault_is_one_incident_until_stable_was_seen_to_be_well(
    tmp_path: Path, worlds: list[World]
) -> None:
    world = await rolling(tmp_path, worlds, HOLD)
    unknown = Action(ActionKind.HOLD, "unknown: cannot be judged: few events")
    await ticks(world, SHARED, SICK, SHARED, unknown, SHARED)
    await ticks(world, SHARED, seconds=61.0)  # drains the canary
    assert world.controller.state.canary_ratio == 0.0
    await ticks(world, NO_TARGET, hold(STABLE, reason="breach: another rule"))
    await ticks(world, hold(replace(STABLE, state=State.UNKNOWN, firing=False), reason="steady: x"))
    (incident,) = world.journal.incidents()
    assert (incident.kind, incident.closed_s) == (IncidentKind.SHARED_UPSTREAM, None)
    assert world.alerts.count("shared_upstream") == 1
    await ticks(world, hold(replace(STABLE, state=State.OK, firing=False), reason="steady: x"))
    (incident,) = world.journal.incidents()
    assert incident.closed_s is not None
    assert incident.timeline[-1].what == "closed: stable does not breach hallucination any more"


async def test_a_shared_fault_is_remembered_over_a_restart(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolling(tmp_path, worlds, HOLD)
    await ticks(world, SHARED)
    worlds.remove(world)
    world.close()
    again = await World(tmp_path, ScriptedJudge(hold(STABLE, reason="breach: x"))).up()
    worlds.append(again)
    await again.controller.tick()
    await ticks(again, SHARED)
    assert [i.kind for i in standing(again)] == [IncidentKind.SHARED_UPSTREAM]
    assert len(again.journal.incidents()) == 1


async def test_the_line_of_an_alert_names_its_condition_once(tmp_path: Path, worlds: list[World]) -> None:
    world = await World(tmp_path, ScriptedJudge(HOLD)).up()
    worlds.append(world)
    plan, rolling = world.controller._plan, ReleaseSnapshot(has_canary=True, weight=0.1)
    await world.controller.configure(
        plan=plan, mode=Mode.ENFORCE, every_s=5.0, drain_unknown=False, max_rollbacks_per_day=0, unknown_after_s=5.0
    )
    await ticks(world, decide((), (STABLE,), ReleaseSnapshot(has_canary=False)))
    await world.controller.start(BAD.name, actor="ann")
    unknown = replace(BREACH, state=State.UNKNOWN, firing=False, reason="few events")
    await ticks(world, *[decide((unknown,), (), rolling)] * 3)
    await ticks(world, decide((BREACH,), (STABLE,), rolling), decide((BREACH,), (), rolling))
    assert set(world.alerts) == set(Condition)
    for line in world.alert_lines:
        assert sum(line.count(condition) for condition in Condition) == 1, line


def test_the_log_has_that_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "guard.yaml").write_text(GUARD, encoding="utf-8")
    (tmp_path / "slo.yaml").write_text(SLO_FILE, encoding="utf-8")

    async def told() -> None:
        guard = Guard(load_settings(tmp_path / "guard.yaml", {}))
        try:
            hooks = guard.release._hooks()
            hooks.on_alert(Condition.NO_TARGET, "no_target: stable was not promoted lately")
            hooks.on_alert(Condition.NO_TARGET, "v1 cannot be served")
        finally:
            await guard.stop(drain=False)

    asyncio.run(told())
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [
        "release: no_target: stable was not promoted lately",
        "release: no_target: v1 cannot be served",
    ]


@pytest.mark.parametrize("kind", list(IncidentKind))
def test_a_receiver_of_rollbacks_hears_of_one_without_a_target(kind: IncidentKind) -> None:
    incident = Incident("inc-1", kind, "s", 0.0, "r", "x", BAD, GOOD, 1)
    assert event_kind(incident) == ("rollback" if kind is IncidentKind.NO_TARGET else kind.value)
