"""What of the windows outlasts the process: the dump, its pieces, and what a changed rule or clock makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from slo.clock import HandClock
from slo.sources.memory import MAX_RELEASES, MemorySource
from slo.spec import parse_slo, preset_text
from slo.types import Outcome, Slo
from slo.windows import PART_CELLS
from tests.slo_builders import AVAILABILITY, P95, found, make_exchange, make_slo
from tests.unit.test_slo_memory import WALL_ORIGIN_S


@pytest.fixture
def clock() -> HandClock:
    return HandClock(1000.0, WALL_ORIGIN_S)


def source_of(clock: HandClock, *slos: Slo) -> MemorySource:
    return MemorySource(slos, clock)


def test_the_order_of_giving_way_survives_a_restart(clock: HandClock) -> None:
    slos = (make_slo(AVAILABILITY),)
    source = source_of(clock, *slos)
    for name in ("stable", *(f"r{n}" for n in range(MAX_RELEASES - 1)), "stable"):
        source.served(make_exchange(release=name))
        clock.advance(1.0)
    restarted = MemorySource(slos, clock)
    restarted.load_pieces(source.dump_pieces())
    restarted.served(make_exchange(release="new"))
    assert "stable" in restarted.releases()
    assert "r0" not in restarted.releases()


def filled(clock: HandClock, slos: tuple[Slo, ...]) -> MemorySource:
    source = MemorySource(slos, clock)
    for number in range(300):
        outcome = Outcome.SERVER_ERROR if number % 10 == 0 else Outcome.OK
        findings = (found("grounding", "fail" if number % 20 == 0 else "pass" if number % 3 else "unavailable"),)
        exchange = make_exchange(number, outcome=outcome, duration_s=0.1 + number % 7 / 10, findings=findings)
        source.served(exchange)
        source.checked(exchange)
        clock.advance(7.0)
    return source


def test_windows_survive_a_restart_with_another_clock(clock: HandClock) -> None:
    slos = parse_slo(preset_text("support-faq")).objectives
    source = filled(clock, slos)
    dump = json.loads(json.dumps(source.dump()))
    later = HandClock(5.0, clock.wall_s() + 25.0)
    restarted = MemorySource(slos, later)
    restarted.load(dump)
    clock.advance(30.0)
    for slo in slos:
        before, after = source.reading(slo, "r1", 3600.0), restarted.reading(slo, "r1", 3600.0)
        assert after.bad_count == pytest.approx(before.bad_count, abs=2), slo.name
        assert after.count == pytest.approx(before.count, abs=3), slo.name
        assert after.coverage_ratio == pytest.approx(before.coverage_ratio, abs=0.02)
    assert restarted.objective_value(slos[3], "r1") == source.objective_value(slos[3], "r1")


def test_pieces_are_the_dump(clock: HandClock) -> None:
    slos = (*parse_slo(preset_text("support-faq")).objectives, make_slo(AVAILABILITY, name="chat", routes=("chat",)))
    source = filled(clock, slos)
    source.served(make_exchange(release="r2"))
    pieces = [json.loads(json.dumps(piece)) for piece in source.dump_pieces()]
    restarted, whole = MemorySource(slos, clock), MemorySource(slos, clock)
    restarted.load_pieces(iter(pieces))
    whole.load_pieces([json.loads(json.dumps(source.dump()))])  # a whole dump is one piece
    for other in (restarted, whole):
        assert other.releases() == ("r1", "r2")
        assert other.gauges() == source.gauges() != []
        for slo in slos:
            for release in ("r1", "r2"):
                for length_s in (300.0, 3600.0, 86_400.0, 30 * 86_400.0):
                    before, after = source.reading(slo, release, length_s), other.reading(slo, release, length_s)
                    assert (after.bad_count, after.count) == (before.bad_count, before.count)
                    assert after.value_sum == pytest.approx(before.value_sum)
                    assert after.coverage_ratio == pytest.approx(before.coverage_ratio)


def cell_count(value: object) -> int:
    if isinstance(value, dict):
        return sum(cell_count(each) for each in value.values())
    return sum(cell_count(each) for each in value) if isinstance(value, list | tuple) else 1


def test_no_piece_is_large(clock: HandClock) -> None:
    slos = parse_slo(preset_text("support-faq")).objectives
    source = MemorySource(slos, clock)
    for number in range(2000):
        source.served(make_exchange(number, duration_s=0.01 * 1.021 ** (number % 400)))
        clock.advance(30.0)
    sizes = [cell_count(piece) for piece in source.dump_pieces()]
    assert sum(sizes) > 4 * PART_CELLS
    assert max(sizes) <= 1.25 * PART_CELLS


def test_what_is_too_old_to_be_read_is_not_dumped(clock: HandClock) -> None:
    slo = make_slo(AVAILABILITY)
    source = filled(clock, (slo,))
    clock.advance(2 * 3600.0)
    source.served(make_exchange(release="r2"))
    rings = [piece["windows"]["rings"] for piece in source.dump_pieces() if piece.get("release") == "r1"]
    assert rings
    assert all(fine == [] for fine, _, _ in rings)
    assert any(middle for _, middle, _ in rings)
    clock.advance(30 * 86_400.0)
    source.served(make_exchange(release="r2"))
    assert {piece.get("release", "r2") for piece in source.dump_pieces()} == {"r2"}
    restarted = MemorySource((slo,), clock)
    restarted.load(source.dump())
    assert restarted.releases() == ("r2",)


@pytest.mark.parametrize("change", [lambda p: p[:-1], lambda p: p[:3], lambda p: p[:2] + p[3:], lambda p: []])
def test_missing_pieces_are_refused(
    clock: HandClock, change: Callable[[list[dict[str, object]]], list[dict[str, object]]]
) -> None:
    slos = (make_slo(AVAILABILITY),)
    source = filled(clock, slos)
    pieces = list(source.dump_pieces())
    with pytest.raises(ValueError, match=r"torn dump|empty"):
        source.load_pieces(change(pieces))
    assert source.reading(slos[0], "r1").count == 300


@pytest.mark.parametrize("pieces", [[{}], [{"v": 9, "wall_s": 0}], [{"v": 1, "wall_s": 0}, {}], [3], [{"v": 1}]])
def test_foreign_pieces_are_refused(clock: HandClock, pieces: list[dict[str, object]]) -> None:
    with pytest.raises(ValueError, match=r"not a dump|version"):
        source_of(clock).load_pieces(pieces)


def test_counting_goes_on_between_pieces(clock: HandClock) -> None:
    slo = make_slo(AVAILABILITY)
    source = filled(clock, (slo,))
    pieces = []
    for piece in source.dump_pieces():
        pieces.append(json.loads(json.dumps(piece)))
        source.served(make_exchange(outcome=Outcome.SERVER_ERROR))
        clock.advance(4.0)
    restarted = MemorySource((slo,), clock)
    restarted.load_pieces(pieces)
    counts = {restarted.reading(slo, "r1", length_s).count for length_s in (3600.0, 86_400.0, 30 * 86_400.0)}
    assert len(counts) == 1  # no event in one ring and not in another
    assert 300 <= counts.pop() <= source.reading(slo, "r1", 3600.0).count


def test_a_long_absence_empties_the_windows_and_a_clock_gone_back_does_not(clock: HandClock) -> None:
    slos = (make_slo(AVAILABILITY, window_s=3600.0),)
    dump = filled(clock, slos).dump()
    for wall_s, expected in ((clock.wall_s() + 4 * 3600, 0), (clock.wall_s() - 3600, 300)):
        restarted = MemorySource(slos, HandClock(1e6, wall_s - 1e6))
        restarted.load(dump)
        assert restarted.reading(slos[0], "r1").count == expected


def test_a_changed_latency_limit_is_counted_again_after_a_restart(clock: HandClock) -> None:
    old = make_slo(P95, params={"absolute": 0.25})
    dump = filled(clock, (old,)).dump()
    new = make_slo(P95, params={"absolute": 0.65})
    restarted = MemorySource((new,), clock)
    restarted.load(dump)
    again = filled(HandClock(1000.0, WALL_ORIGIN_S), (new,))
    assert restarted.reading(new, "r1").bad_count == again.reading(new, "r1").bad_count > 0


@pytest.mark.parametrize(
    "dump", [{}, {"v": 99}, {"v": 1, "wall_s": 0, "releases": {"r1": [{}]}}, {"v": 1, "wall_s": 0, "releases": 3}]
)
def test_a_foreign_dump_is_refused_and_changes_nothing(clock: HandClock, dump: dict[str, object]) -> None:
    slos = (make_slo(AVAILABILITY),)
    source = filled(clock, slos)
    with pytest.raises(ValueError, match=r"not a dump|version"):
        source.load(dump)
    assert source.reading(slos[0], "r1").count == 300
