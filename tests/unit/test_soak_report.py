"""What a soak run makes of its samples."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from bench.soak import FAULT_S, WELL_S, figures
from bench.soak_report import GUARD, SETTLED_S, WORKER, Sample, line, said, settled_s
from tests.faults.dead_dependencies import DEPENDENCIES, DISK
from tests.faults.tcp_proxy import MODES


def test_a_line_by_hand() -> None:
    # Slope 0.5 a second, mean 102; rests -0.5, 1, -0.5: squares 1.5, spread 2; they alternate: the interval stays.
    found = line([(0.0, 101.0), (1.0, 103.0), (2.0, 102.0)])
    assert found is not None
    assert found.percent_per_hour == pytest.approx(0.5 * 360_000 / 102)
    assert found.half_width == pytest.approx(1.96 * (1.5 / 1 / 2) ** 0.5 * 360_000 / 102)
    assert found.ends == (101.0, 102.0)


def test_samples_that_resemble_their_neighbours_say_less() -> None:
    dice = random.Random(1)
    apart = [100.0 + dice.gauss(0.0, 1.0) for _ in range(120)]
    wander, wandering = 0.0, []
    for _ in range(120):
        wander = 0.9 * wander + dice.gauss(0.0, 0.436)  # as wide: 0.436 / sqrt(1 - 0.81) = 1
        wandering.append(100.0 + wander)
    halves = []
    for values in (apart, wandering):
        found = line([(10.0 * at, value) for at, value in enumerate(values)])
        assert found is not None
        halves.append(found.half_width)
    assert halves[1] > 2.0 * halves[0]


def test_too_little_to_draw_a_line() -> None:
    assert line([]) is line([(0.0, 1.0), (1.0, 1.0)]) is line([(5.0, 1.0)] * 4) is None


def samples(growth_percent_per_hour: float) -> list[Sample]:
    found = []
    for at in range(180):
        at_s = 10.0 * at
        filling = 30.0 * min(1.0, at_s / SETTLED_S)  # before it settles
        guard = 100.0 + filling + 1.3 * growth_percent_per_hour * max(0.0, at_s - SETTLED_S) / 3600.0
        sizes = {GUARD: guard, WORKER: 80.0 if at % 60 else 40.0}
        found.append(Sample(at_s, sizes, 60, 12, 18.0, 500_000.0, {"verdicts": at_s}))
    return found


@pytest.mark.parametrize(("growth", "ok"), [(0.0, True), (0.5, True), (2.0, False), (54.0, False)])
def test_the_guards_own_line_decides_from_the_tenth_minute_on(growth: float, ok: bool) -> None:
    found = said(samples(growth), 30.0)
    assert found["ok"] is ok
    assert found["rss_guard"]["percent_per_hour"] == pytest.approx(growth, abs=0.02 + growth / 10)
    assert {"rss_worker", "rss_sum", "blocks"} <= set(found)
    assert found["rss_guard_floor"]["percent_per_hour"] == pytest.approx(growth, abs=0.02 + growth / 10)
    assert found["held"]["verdicts"] == [0.0, 600.0, 1790.0]
    assert (found["descriptors"], found["threads"], found["tasks"]) == ([60, 60], [12, 12], [18.0, 18.0])


def test_a_guard_that_does_not_say_its_tables_is_measured_all_the_same() -> None:
    silent = [replace(s, tasks=None, blocks=None, held={}) for s in samples(0.0)]
    found = said(silent, 30.0)
    assert found["ok"]
    assert found["tasks"] == [None, None]
    assert not {"blocks", "held", "rss_others"} & set(found)


def test_a_run_without_samples_shows_nothing_and_is_not_well() -> None:
    assert said([], 30.0)["ok"] is False


def test_every_fault_has_been_once_before_the_line_begins() -> None:
    reloads_and_kills = 6
    faults = len(DEPENDENCIES) * len(MODES) + len(DISK)
    assert faults * (FAULT_S + WELL_S) + reloads_and_kills * WELL_S <= SETTLED_S
    assert settled_s(1440.0) == SETTLED_S
    assert settled_s(15.0) == 300.0


def test_a_page_is_read() -> None:
    page = '# HELP sft_x y\nsft_guard_tasks{service="a"} 18\nother 1\n'
    page += 'sft_guard_held_entries{service="a",table="verdicts"} 5\n'
    assert figures(page) == {
        'sft_guard_tasks{service="a"}': 18.0,
        'sft_guard_held_entries{service="a",table="verdicts"}': 5.0,
    }
