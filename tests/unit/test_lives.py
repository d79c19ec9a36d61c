"""A release that is started again: what its former life left behind is counted nowhere for the new one."""

from __future__ import annotations

import asyncio
import json

from guard.fleet_windows import FleetSource
from guard.recent import RecentExchanges
from guard.rule_counters import life_of
from slo.sources.lives import FORMER_LIFE_S, LIVES, RELEASES, Lives
from slo.sources.memory import MemorySource
from tests.slo_builders import AVAILABILITY, make_exchange, make_slo
from tests.unit.exporters_helpers import ManualClock


def test_the_number_of_a_life_is_the_same_on_every_replica_and_goes_round() -> None:
    one, other = Lives(ManualClock()), Lives(ManualClock())
    one.begin("c", 3)
    one.begin("c", 4)
    other.begin("c", 4)  # began to run in between
    assert one.numbers == other.numbers == {"c": 5}
    one.begin("c", 4 + LIVES)
    assert one.numbers == {"c": 5}
    one.begin("d")
    one.begin("d")
    assert one.numbers["d"] == 2


def test_only_so_many_releases_are_remembered() -> None:
    lives = Lives(ManualClock())
    for number in range(3 * RELEASES):
        lives.begin(f"r{number}", 1)
    assert len(lives.numbers) == len(lives.began_wall_s) == RELEASES


def test_what_ends_late_counts_for_no_stage_of_the_new_life() -> None:
    clock = ManualClock()
    lives = Lives(clock)
    recent = RecentExchanges(lives=lives)
    recent.served(make_exchange(exchange_id="e1", release="c", wall_s=clock.wall_s()))
    late = make_exchange(exchange_id="e2", release="c", wall_s=clock.wall_s())
    clock.advance(5.0)
    lives.begin("c", 1)
    recent.served(late)
    assert recent.event_count["c"] == 1
    assert recent.release_of("e2") == "c"  # thumbs for it still find it
    recent.served(make_exchange(exchange_id="e3", release="c", wall_s=clock.wall_s()))
    assert recent.event_count["c"] == 2
    clock.advance(FORMER_LIFE_S + 1.0)
    recent.served(make_exchange(exchange_id="e4", release="c", wall_s=clock.wall_s() - 3600.0))  # a clock put back
    assert recent.event_count["c"] == 3


class Fleet:
    """Remembers what it is told of lives."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def forget(self, release: str, life: str = "") -> None:
        self.told.append((release, life))

    def go_on(self, release: str, life: str, began_wall_s: float) -> None:
        self.told.append((release, life, began_wall_s))

    async def run(self) -> None:
        self.told.append(("runs",))


class Client:
    async def close(self) -> None:
        """Nothing to close."""


def test_the_fleet_is_told_under_which_label_a_life_is_counted_also_after_a_restart() -> None:
    clock, fleet = ManualClock(), Fleet()
    memory = MemorySource((make_slo(AVAILABILITY),), clock)
    source = FleetSource(memory, fleet, None)  # type: ignore[arg-type]
    source.forget("c", 3)
    assert life_of("c", memory) == "4"
    clock.advance(60.0)
    began_s = clock.wall_s()
    source.forget("c", 8)
    assert (fleet.told, life_of("c", memory)) == ([("c", "4"), ("c", "9")], "9")

    clock.advance(3600.0)
    again, told_again = MemorySource((make_slo(AVAILABILITY),), clock), Fleet()
    again.load_pieces(json.loads(json.dumps(list(memory.dump_pieces()))))
    asyncio.run(FleetSource(again, told_again, Client()).run())  # type: ignore[arg-type]
    assert told_again.told == [("c", "9", began_s), ("runs",)]  # before anything is asked


def test_a_dump_that_does_not_know_when_lives_began_is_taken_over() -> None:
    memory = MemorySource((make_slo(AVAILABILITY),), ManualClock())
    memory.lives.begin("c", 3)
    old = {name: value for name, value in memory.dump().items() if name != "began"}
    memory.load(old)
    assert (memory.lives.numbers, memory.lives.began_wall_s) == ({"c": 4}, {})
