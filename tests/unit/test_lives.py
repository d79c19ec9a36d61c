"""A release that is started again: what its former life left behind is counted nowhere for the new one."""

from __future__ import annotations

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
    assert len(lives.numbers) == RELEASES


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


def test_the_fleet_is_told_under_which_label_the_former_life_went_on() -> None:
    told: list[tuple[str, str]] = []

    class Fleet:
        def forget(self, release: str, former: str = "") -> None:
            told.append((release, former))

    clock = ManualClock()
    memory = MemorySource((make_slo(AVAILABILITY),), clock)
    source = FleetSource(memory, Fleet(), None)  # type: ignore[arg-type]
    source.forget("c", 3)
    assert life_of("c", memory) == "4"
    source.forget("c", 8)
    assert (told, life_of("c", memory)) == ([("c", ""), ("c", "4")], "9")
