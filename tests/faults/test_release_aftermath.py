"""The loop after a rollback, in virtual time: what is added to the incident, when, and that nothing gets lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from guard.release.aftermath import GIVE_UP_S, Recovery
from guard.release.incident import Incident
from slo.history import Point
from slo.outside import Arm, OutsideAlert, OutsideRule, judge_outside
from slo.types import Action, ActionKind, OnBreach, State, Verdict
from tests.conftest import VIRTUAL
from tests.release_kit import BAD, GOOD, ROLL_BACK, SLO, ScriptedJudge, World

pytestmark = pytest.mark.anyio
STABLE_OK = Verdict(SLO, GOOD.release_id, State.OK, 0.01, 0.045, "ok")
AFTER = Action(ActionKind.HOLD, "steady: no release is under way", (STABLE_OK,))


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


class Courses:
    """What the windows would hold: bad from 30 s before the verdict, stable well before and as told after."""

    def __init__(self, world: World, stable_bad: int = 0, asked: bool = True) -> None:
        self.world, self.stable_bad, self.asked = world, stable_bad, asked
        self.verdict_s = world.clock.wall_s()

    def __call__(self, slo: object, name: str) -> tuple[Point, ...]:
        now_s = self.world.clock.wall_s()
        if name == BAD.name:
            return tuple(Point(self.verdict_s + t, 0 if t < -30 else 5, 10) for t in range(-100, 0, 10))
        until_s = now_s if self.asked else self.verdict_s
        return tuple(
            Point(self.verdict_s + t, self.stable_bad if t > 0 else 0, 10)
            for t in range(-100, int(until_s - self.verdict_s), 10)
        )


async def rolled_back(
    tmp_path: Path, worlds: list[World], ago_s: float = 90.0, **course: int | bool
) -> World:  # fmt: skip
    world = World(tmp_path, ScriptedJudge(ROLL_BACK, AFTER))
    worlds.append(world)
    facts = world.controller._facts
    await world.up()
    await world.controller.start(BAD.name, actor="ann")
    await world.clock.sleep(ago_s)
    courses = Courses(world, **course)  # type: ignore[arg-type]
    for holder in (world.controller, world.controller._cases, world.controller._cases._follower):
        holder._facts = replace(facts, history=courses)  # type: ignore[attr-defined]
    await world.controller.tick()
    return world


async def incident_after(world: World, seconds: float) -> Incident:
    end_s = world.clock.now_s() + seconds
    while world.clock.now_s() < end_s:
        await world.clock.sleep(5.0)
        await world.controller.tick()
    found = world.journal.incident(world.controller.state.incident_id)
    assert found is not None
    return found


async def test_it_says_since_when_and_that_it_helped(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolled_back(tmp_path, worlds)
    incident = await incident_after(world, 5.0)
    assert incident.aftermath is not None
    assert incident.aftermath.recovery is Recovery.PENDING
    assert incident.aftermath.since_s == pytest.approx(incident.opened_s - 30.0, abs=1.0)
    series = incident.aftermath.series
    assert [(one.rule, one.arm) for one in series] == [("hallucination", "bad"), ("hallucination", "stable")]
    incident = await incident_after(world, 60.0)
    assert incident.aftermath is not None
    assert incident.aftermath.recovery is Recovery.RECOVERED
    assert any(e.what.startswith("verified, it helped") for e in incident.timeline)
    assert incident.closed_s is None  # a person, or the next rollout, closes it


async def test_it_was_not_bad_before_it_began(tmp_path: Path, worlds: list[World]) -> None:
    """The span that its first answers fall into began some seconds before."""
    world = await rolled_back(tmp_path, worlds, ago_s=25.0)
    incident = await incident_after(world, 5.0)
    assert incident.aftermath is not None
    assert incident.aftermath.since_s == incident.began_s == pytest.approx(incident.opened_s - 25.0, abs=0.1)
    assert any(e.what.startswith("bad since") for e in incident.timeline)


async def test_when_it_began_survives_a_restart(tmp_path: Path, worlds: list[World]) -> None:
    world = World(tmp_path, ScriptedJudge(AFTER))
    await world.up()
    await world.controller.start(BAD.name, actor="ann", reason="try it")
    began_s = world.clock.wall_s()
    world.close()
    await world.clock.sleep(40.0)
    again = World(tmp_path, ScriptedJudge(ROLL_BACK), clock=world.clock)
    worlds.append(again)
    await again.up()
    deed = again.controller.status().last_deed
    assert deed is not None
    assert (deed.action, deed.actor, deed.detail) == ("start", "ann", "try it")
    await again.controller.tick()
    judged_s = again.clock.now_s()
    incident = again.journal.incident(again.controller.state.incident_id)
    assert incident is not None
    assert incident.began_s == pytest.approx(began_s, abs=0.1)
    status = again.controller.status()
    judged = status.judged
    assert judged is not None
    assert (judged.action, judged.verdict, judged.rule) == ("roll_back", "breach", "hallucination")
    assert judged.reason == status.last_reason
    drill = await again.controller.drill(actor="ann")
    assert drill.passed
    assert again.controller.status().judged == replace(judged, ago_s=again.clock.now_s() - judged_s)
    assert status.last_deed is not None
    assert (status.last_deed.action, status.last_deed.actor) == ("rollback", "guard")
    await again.controller.close_incident(incident.incident_id, actor="ann", reason="done")
    assert again.controller.status().last_deed == status.last_deed


async def test_it_says_when_it_did_not_help(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolled_back(tmp_path, worlds, stable_bad=4)
    incident = await incident_after(world, 120.0)
    assert incident.aftermath is not None
    assert incident.aftermath.recovery is Recovery.NOT_RECOVERED
    assert incident.aftermath.words.startswith("not recovered: no answer of the bad release since; hallucination 40 %")


async def test_silence_is_no_recovery(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolled_back(tmp_path, worlds, asked=False)
    incident = await incident_after(world, GIVE_UP_S - 20.0)
    assert incident.aftermath is not None
    assert incident.aftermath.recovery is Recovery.PENDING
    incident = await incident_after(world, 60.0)
    assert incident.aftermath is not None
    assert incident.aftermath.recovery is Recovery.UNKNOWN
    assert "cannot tell" in incident.timeline[-1].what


async def test_the_bad_release_still_answering_somebody_is_no_recovery(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolled_back(tmp_path, worlds)
    await incident_after(world, 20.0)
    world.events += 1
    incident = await incident_after(world, 60.0)
    assert incident.aftermath is not None
    assert incident.aftermath.recovery is Recovery.PENDING


async def test_a_person_who_closes_it_meanwhile_is_not_undone(tmp_path: Path, worlds: list[World]) -> None:
    world = await rolled_back(tmp_path, worlds)
    await incident_after(world, 10.0)
    await world.controller.close_incident(world.controller.state.incident_id, actor="ann")
    incident = await incident_after(world, 60.0)
    assert incident.closed_s is not None
    assert any("closed by ann" in e.what for e in incident.timeline)
    assert incident.aftermath is not None
    assert incident.aftermath.recovery is Recovery.RECOVERED


async def test_a_rollback_by_somebody_elses_alert_is_followed_too(tmp_path: Path, worlds: list[World]) -> None:
    rule = OutsideRule("errors", "HighErrorRate", {}, action=OnBreach.ROLLBACK)
    alert = OutsideAlert("f1", {"alertname": "HighErrorRate"}, starts_s=0.0, seen_s=1.0, about=BAD.release_id)
    fires = judge_outside(rule, Arm(BAD.release_id), [alert], 1.0)
    quiet = judge_outside(rule, Arm(GOOD.release_id), [alert], 1.0)
    assert (fires.state, quiet.state) == (State.BREACH, State.OK)
    verdict = Action(ActionKind.ROLL_BACK, "breach: errors", (replace(fires, firing=True),))
    world = World(tmp_path, ScriptedJudge(verdict, replace(AFTER, verdicts=(quiet,))))
    worlds.append(world)
    await world.up()
    await world.controller.start(BAD.name, actor="ann")
    await world.controller.tick()
    incident = await incident_after(world, 60.0)
    assert incident.aftermath is not None
    assert incident.aftermath.recovery is Recovery.RECOVERED
    assert "errors does not fire" in incident.aftermath.words
    assert world.controller.last_tick_s == world.clock.now_s()
