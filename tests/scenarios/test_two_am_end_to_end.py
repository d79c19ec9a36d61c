"""Incident 3 through everything: exchanges, windows, judge, controller, journal, registry, outbox; in virtual time."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from bench.traffic.arrivals import Load
from bench.traffic.behaviour import HEALTHY, Course, change
from bench.traffic.exchanges import answer, questions
from guard.judge import SloJudge, Vitals
from guard.release.plan import parse_plan
from guard.release.state import Phase
from guard.split import bucket
from slo.clock import LoopClock
from slo.sources.memory import MemorySource
from slo.spec import parse_slo
from slo.thresholds import NOTHING_KNOWN
from tests.conftest import VIRTUAL
from tests.release_kit import BAD, GOOD, World, inline

HOUR_S = 3600.0
BEGIN_S, FAULT_S, TWO_AM_S = 23.25 * HOUR_S, 23.75 * HOUR_S, 26 * HOUR_S
RULES = """
service: faq-bot
objectives:
  - name: hallucination
    indicator: sft_quality_hallucination_rate
    window: 1h
    threshold: {absolute: 5%}
    for: 10m
    action: rollback
"""


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


@pytest.mark.anyio
async def test_the_guard_rolls_back_alone_and_says_what_changed(tmp_path: Path) -> None:
    """v1.2.1 as a canary at 30 % on a quiet night: hallucination 3 % -> 8 % from 23:45 on. Long before 02:00 the canary
    takes no traffic, the registry points to v1.2.0, and the page names the figures and the chunking that changed."""
    clock = LoopClock(wall_origin_s=1_795_392_000.0 + BEGIN_S)
    slos = parse_slo(RULES).objectives
    source = MemorySource(slos, clock)
    versions = {v.name: v for v in (GOOD, BAD)}
    judge = SloJudge(slos, source, lambda: NOTHING_KNOWN, versions.get, Vitals(clock), clock, offload=inline)
    world = World(tmp_path, judge=judge, clock=clock)
    await world.up()
    controller, pager = world.controller, world.receivers["pager"]
    await controller.start(BAD.name, actor="anna", plan=parse_plan("30% for 24h"), advance="auto")
    chance = numpy.random.default_rng(23)
    course = Course(HEALTHY, (change(FAULT_S, ramp_s=900.0, hallucination_ratio=0.08),))
    steady = Course(HEALTHY)
    due_s = BEGIN_S
    rolled_back_s = None
    for number, asked in enumerate(questions(chance, Load(10.0, weekly=False), BEGIN_S, TWO_AM_S)):
        while asked.t_s >= due_s and rolled_back_s is None:
            await clock.sleep(due_s - BEGIN_S - clock.now_s())
            await controller.tick()
            due_s += 10.0
            if controller.state.phase is Phase.ROLLED_BACK:
                rolled_back_s = due_s
        if rolled_back_s is not None:
            break
        # Behind the split: the same sessions, by the weight that the controller has applied.
        mine = bucket(asked.session.encode(), BAD.name.encode()) < controller.state.canary_ratio
        version, behaviour = (BAD, course.at(asked.t_s)) if mine else (GOOD, steady.at(asked.t_s))
        made = answer(
            chance, asked, behaviour, release=version.release_id, arm="canary" if mine else "stable", number=number,
            wall_s=clock.wall_s(),
        )  # fmt: skip
        source.served(made)
        source.checked(made)
        world.events += mine
    assert rolled_back_s is not None
    assert FAULT_S < rolled_back_s < 25 * HOUR_S  # 01:00
    assert world.weights()[-1] == 0.0
    assert controller.state.stable == GOOD.name
    await world.outbox.deliver_due()
    pages = [item.body.decode() for item in pager.got]
    world.close()
    [page] = [body for body in pages if '"rollback' in body] or [str(pages)]
    for said in ("600/100", "350/50", "hallucination", "v1.2.1", "v1.2.0"):
        assert said in page
