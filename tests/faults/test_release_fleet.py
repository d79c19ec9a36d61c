"""Rollbacks in a simulated fleet: crashes, partitions, late writers, operators. The long form is `make sim`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from guard.release.saga import POINTS
from tests.sim.__main__ import run_many
from tests.sim.fleet import play
from tests.sim.mutants import MUTANTS, Mutant, hunt
from tests.sim.schedule import ALL_POINTS, exhaustive_schedules, random_schedule

SEEDS = 1200


@pytest.mark.parametrize("part", range(3))
def test_random_schedules_lose_nothing_and_do_nothing_twice(part: int) -> None:
    each = SEEDS // 3
    result = run_many(random_schedule(seed) for seed in range(part * each, (part + 1) * each))
    assert result["violations"] == [], "replay one with: python -m tests.sim --show SEED"
    assert result["runs"] == each
    assert result["crashes"] > each / 2  # type: ignore[operator]
    assert result["rollbacks"] > each / 2  # type: ignore[operator]
    assert result["superseded"] > 0  # type: ignore[operator]


def test_every_schedule_with_one_crash() -> None:
    result = run_many(exhaustive_schedules(1))
    assert result["violations"] == []
    assert result["runs"] == result["crashes"] == 2 * 2 * len(ALL_POINTS)


def test_every_schedule_with_two_crashes() -> None:
    result = run_many(exhaustive_schedules(2))
    assert result["violations"] == []
    assert result["runs"] == 2 * 2 * len(ALL_POINTS) * 2 * len(ALL_POINTS)
    assert result["crashes"] > 3000  # type: ignore[operator] - some second points are never reached


def test_every_point_of_the_saga_is_one_of_the_schedules() -> None:
    points = {crash.point for schedule in exhaustive_schedules(1) for crash in schedule.crashes}
    assert points == {*POINTS, "receiver:got"}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_broken_saga_is_caught(mutant: Mutant) -> None:
    caught = hunt(mutant)
    assert caught.by, f"{mutant.name} ({mutant.breaks}) lived through {caught.runs} runs"


def test_a_seed_plays_the_same_in_every_process() -> None:
    seeds = range(40)
    here = [play(random_schedule(seed)).trace_hash for seed in seeds]
    assert here == [play(random_schedule(seed)).trace_hash for seed in seeds]
    assert len(set(here)) == len(here)
    code = "from tests.sim.fleet import play; from tests.sim.schedule import random_schedule as r; print(*(play(r(s)).trace_hash for s in range(40)))"  # noqa: E501
    for hash_seed in ("1", "2"):  # the order of sets and dicts of strings must not matter
        there = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},  # noqa: TID251 - a child of the test
        )  # fmt: skip
        assert there.stdout.split() == here
