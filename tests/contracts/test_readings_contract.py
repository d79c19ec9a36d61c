"""Readings of a fleet out of a real Prometheus, beside one process that counted all of it: the same answers.

Tolerance, and why: samples are 15 s apart, so a window of Prometheus may begin and end one scrape earlier; the windows
of a process have buckets of 10 s up to an hour, 5 min up to a day. So much traffic may be counted here and not there.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from guard.rule_counters import objective_rows
from slo.errors import SourceError
from slo.evaluation import judge
from slo.sources.memory import MemorySource
from slo.sources.prometheus_http import PrometheusClient, PrometheusWindows, Row
from slo.sources.window_queries import lengths_of
from slo.thresholds import limit_for
from slo.types import FastPath, Outcome, Reading, Slo, Window
from tests import prometheus_kit
from tests.slo_builders import AVAILABILITY, COST, HALLUCINATION, P95, SIMILARITY, found, make_exchange, make_slo
from tests.unit.exporters_helpers import ManualClock

pytestmark = pytest.mark.anyio


SCRAPE_S, HOUR_S = 15.0, 3600.0
START_S = 1_750_032_000.0
END_S = START_S + 3 * HOUR_S
PROBES_S = (START_S + 0.5 * HOUR_S, START_S + 2.1 * HOUR_S, START_S + 2.8 * HOUR_S, END_S)
GOOD, BAD, AGAIN = "r-good", "r-bad", "r-again"
AGAIN_S = START_S + 2 * HOUR_S

SLOS: tuple[Slo, ...] = (
    make_slo(HALLUCINATION, name="hallucination", fast=FastPath(0.2, Window(60.0), 20)),
    make_slo(AVAILABILITY, name="availability", window_s=24 * HOUR_S, params={"absolute": 0.99}, burn_rate=True),
    make_slo(P95, name="p95", window_s=900.0, params={"absolute": 0.5}),
    make_slo(COST, name="cost", params={"absolute": 0.0005}),
    make_slo(SIMILARITY, name="similarity", window_s=1800.0, params={"absolute": 0.7}),
    make_slo("sft_availability_http_error_rate", name="ask-errors", routes=("ask.v1",)),
)

LENGTHS_S = sorted({length_s for slo in SLOS for length_s in lengths_of(slo)})


def edge_s(length_s: float) -> float:
    """How much of the traffic may be on one side only, seconds."""
    return 2 * SCRAPE_S + (10.0 if length_s <= HOUR_S else 300.0)


def traffic() -> Iterator[tuple[float, str, Any]]:
    """(second, replica, exchange): two releases over three replicas, one of which lives for forty minutes only."""
    chance = random.Random(5)
    at_s = START_S + 1.0
    while at_s < END_S:
        replicas = ["a", "b"] + (["c"] if START_S + 2 * HOUR_S < at_s < START_S + 2.66 * HOUR_S else [])
        bad = chance.random() < 0.3
        failed = chance.random() < (0.08 if bad else 0.002)
        yield at_s, chance.choice(replicas), make_exchange(
            wall_s=at_s, release=BAD if bad else GOOD, route=chance.choice(("chat", "ask.v1")),
            outcome=Outcome.SERVER_ERROR if failed else Outcome.OK, status=500 if failed else 200,
            duration_s=0.9 if chance.random() < (0.2 if bad else 0.02) else 0.3,
            cost_usd=0.0008 if bad else 0.0003 + 0.0001 * chance.random(),
            findings=(
                found("grounding", "unavailable" if chance.random() < 0.05 else
                      "fail" if chance.random() < (0.2 if bad else 0.01) else "pass"),
                found("similarity", "pass", min(1.0, max(0.0, chance.gauss(0.6 if bad else 0.85, 0.05)))),
            ),
        )  # fmt: skip
        at_s += chance.expovariate(0.8)


class Replica:
    """One process: counts, and shows its counters when scraped."""

    def __init__(self) -> None:
        self.clock = ManualClock(START_S)
        self.source = MemorySource(SLOS, self.clock, tenant_cap_ratio=None)

    def count(self, at_s: float, exchange: Any) -> None:
        self.clock.at_s = at_s - START_S
        self.source.served(exchange)
        self.source.checked(exchange)


def started_again() -> Iterator[tuple[str, dict[str, str], float, float]]:
    """(metric, labels, value, second): replica a starts a canary again at AGAIN_S, replica b hears of it 45 s later.

    Meanwhile b is told by its checks that ten answers of the former life were bad. Then each counts 30 good ones.
    """
    replicas = {"a": Replica(), "b": Replica()}

    def count(name: str, at_s: float, result: str, number: int) -> None:
        findings = (found("grounding", result),)
        session = f"{name}{number}"
        replicas[name].count(at_s, make_exchange(wall_s=at_s, release=AGAIN, session=session, findings=findings))

    at_s = AGAIN_S - 300.0
    while at_s <= AGAIN_S + 300.0:
        for name, replica in replicas.items():
            if at_s == AGAIN_S + (0.0 if name == "a" else 45.0):
                replica.clock.at_s = at_s - START_S
                replica.source.forget(AGAIN, 7)
            if at_s == AGAIN_S - 300.0:
                replica.clock.at_s = at_s - START_S
                replica.source.forget(AGAIN, 6)
            if name == "b" and at_s == AGAIN_S + 30.0:
                for number in range(10):
                    count(name, at_s - 1.0, "fail", number)
            if AGAIN_S + 60.0 <= at_s < AGAIN_S + 210.0:
                for number in range(3):
                    count(name, at_s + 1.0, "pass", number)
            for metric, labels, value in objective_rows(SLOS, (AGAIN,), replica.source):
                yield metric, {"instance": name, **labels}, value, at_s
        at_s += SCRAPE_S


@dataclass
class Recorded:
    """What was scraped, and what a process that saw everything said at the probes."""

    openmetrics: str
    said: dict[tuple[float, str, str, float], Reading]
    values: dict[tuple[float, str, str], float | None]


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    replicas = {"a": Replica(), "b": Replica(), "c": Replica()}
    all_of_it = Replica()
    rows: dict[str, list[str]] = defaultdict(list)
    said: dict[tuple[float, str, str, float], Reading] = {}
    values: dict[tuple[float, str, str], float | None] = {}
    events = traffic()
    event = next(events)
    at_s = START_S
    while at_s <= END_S:
        while event is not None and event[0] <= at_s:
            replicas[event[1]].count(event[0], event[2])
            all_of_it.count(event[0], event[2])
            event = next(events, None)  # type: ignore[assignment]
        if at_s == START_S + 1.5 * HOUR_S:
            replicas["b"] = Replica()  # it began again; its counters are at zero
        for name, replica in replicas.items():
            alive = name != "c" or START_S + 2 * HOUR_S <= at_s <= START_S + 2.66 * HOUR_S
            for metric, labels, value in objective_rows(SLOS, (GOOD, BAD), replica.source) if alive else ():
                text = ",".join(f'{k}="{v}"' for k, v in {"service": "faq-bot", "instance": name, **labels}.items())
                rows[metric].append(f"{metric}{{{text}}} {value!r} {at_s:.0f}")
        if at_s in PROBES_S:
            all_of_it.clock.at_s = at_s - START_S
            for slo in SLOS:
                for release in (GOOD, BAD, "r-none"):
                    values[at_s, slo.name, release] = all_of_it.source.objective_value(slo, release)
                    for length_s in LENGTHS_S:
                        reading = all_of_it.source.reading(slo, release, length_s)
                        said[at_s, slo.name, release, length_s] = reading
        at_s += SCRAPE_S
    for metric, labels, value, second in started_again():
        text = ",".join(f'{k}="{v}"' for k, v in {"service": "faq-bot", **labels}.items())
        rows[metric].append(f"{metric}{{{text}}} {value!r} {second:.0f}")
    parts = [line for name, lines in rows.items() for line in (f"# TYPE {name.removesuffix('_total')} counter", *lines)]
    return Recorded("\n".join([*parts, "# EOF", ""]), said, values)


@pytest.fixture(scope="module")
def address(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not prometheus_kit.installed():
        pytest.skip(prometheus_kit.PACKAGE)
    with prometheus_kit.backfilled(tmp_path_factory.mktemp("prometheus"), recorded.openmetrics) as url:
        yield url


async def windows_at(address: str, at_s: float, **settings: Any) -> tuple[PrometheusWindows, PrometheusClient]:
    client = PrometheusClient(address, timeout_s=30.0)

    async def ask(promql: str, asked_s: float | None) -> list[Row]:
        return await client(promql, at_s if asked_s is None else asked_s)

    windows = PrometheusWindows(SLOS, ask, ManualClock(at_s), service="faq-bot", budget_s=60.0, **settings)
    await windows.refresh()
    return windows, client


@pytest.mark.parametrize("at_s", PROBES_S)
async def test_prometheus_says_what_one_process_would_have_counted(
    recorded: Recorded, address: str, at_s: float
) -> None:
    windows, client = await windows_at(address, at_s + 3.0)
    await client.close()
    assert windows.problem == ""
    compared = 0
    for (probe_s, name, release, length_s), mine in recorded.said.items():
        slo = next(s for s in SLOS if s.name == name)
        if probe_s != at_s:
            continue
        if length_s not in lengths_of(slo):
            with pytest.raises(SourceError, match="was not asked for"):  # never a zero
                windows.reading(slo, release, length_s)
            continue
        theirs = windows.reading(slo, release, length_s)
        compared += 1
        per_s = max(mine.count / min(length_s, at_s - START_S), 0.01)
        assert abs(theirs.count - mine.count) <= edge_s(length_s) * per_s * 1.25 + 5, (name, release, length_s)
        if mine.count < 100:
            continue
        assert theirs.bad_count / theirs.count == pytest.approx(
            mine.bad_count / mine.count, abs=0.03 if length_s < 900 else 0.012
        )
        assert theirs.coverage_ratio == pytest.approx(mine.coverage_ratio, abs=0.02)
        if mine.mean:
            assert theirs.mean == pytest.approx(mine.mean, rel=0.01)
    assert compared > 30
    for slo in SLOS:
        for release in (GOOD, BAD):

            def read(length_s: float, slo: Slo = slo, release: str = release) -> Reading:
                return windows.reading(slo, release, length_s)

            def own(length_s: float, slo: Slo = slo, release: str = release) -> Reading:
                return recorded.said[at_s, slo.name, release, length_s]

            limit = limit_for(slo)
            assert judge(slo, release, read, limit).state is judge(slo, release, own, limit).state, (slo.name, release)
            value, mine_value = windows.objective_value(slo, release), recorded.values[at_s, slo.name, release]
            if slo.name != "p95":  # its quantile is read from the histogram, which is not part of these samples
                assert value == pytest.approx(mine_value, rel=0.02, abs=0.01)


async def test_a_release_that_nobody_counted_is_silent_not_healthy(address: str) -> None:
    windows, client = await windows_at(address, END_S)
    await client.close()
    for slo in SLOS:
        assert windows.reading(slo, "r-none") == Reading(0, 0)
        assert windows.objective_value(slo, "r-none") is None


async def test_another_service_and_other_labels_are_silent(address: str) -> None:
    windows, client = await windows_at(address, END_S, labels={"instance": "z"})
    await client.close()
    assert windows.reading(SLOS[0], GOOD) == Reading(0, 0)


async def test_of_a_release_started_again_only_its_new_life_counts(address: str) -> None:
    """Forgotten at 2 h, asked at 2.1 h: six minutes of events in a window of an hour."""
    client = PrometheusClient(address, timeout_s=30.0)
    now_s = START_S + 2 * HOUR_S

    async def ask(promql: str, asked_s: float | None) -> list[Row]:
        return await client(promql, now_s if asked_s is None else asked_s)

    clock = ManualClock(now_s)
    windows = PrometheusWindows(SLOS, ask, clock, service="faq-bot", budget_s=60.0)
    await windows.refresh()
    before = windows.reading(SLOS[0], BAD)
    windows.forget(BAD)
    assert windows.reading(SLOS[0], BAD) == Reading(0, 0)
    await windows.refresh()
    assert windows.reading(SLOS[0], BAD) == Reading(0, 0)
    now_s += 0.1 * HOUR_S
    clock.advance(0.1 * HOUR_S)
    await windows.refresh()
    after, other = windows.reading(SLOS[0], BAD), windows.reading(SLOS[0], GOOD)
    await client.close()
    assert 0.6 < after.count / (before.count / 10) < 1.6
    assert other.count > 5 * after.count
    assert windows.reading(SLOS[0], BAD, 60.0).count < after.count / 3


async def test_what_another_replica_still_counts_of_the_former_life_is_not_held_against_the_new_one(
    address: str,
) -> None:
    client = PrometheusClient(address, timeout_s=30.0)
    now_s = AGAIN_S

    async def ask(promql: str, asked_s: float | None) -> list[Row]:
        return await client(promql, now_s if asked_s is None else asked_s)

    clock = ManualClock(now_s)
    windows = PrometheusWindows(SLOS, ask, clock, service="faq-bot", budget_s=60.0)
    await windows.refresh()
    windows.forget(AGAIN, "8")  # the label of its life from now on: 7 starts, counted round
    await windows.refresh()
    now_s += 300.0
    clock.advance(300.0)
    await windows.refresh()
    await client.close()
    assert windows.reading(SLOS[0], AGAIN) == Reading(0, 60)


async def test_a_judge_that_was_started_again_knows_the_life_that_began_before(address: str) -> None:
    """Five minutes into the new life; the hour behind it holds ten bad answers of the former one."""
    client = PrometheusClient(address, timeout_s=30.0)
    now_s = AGAIN_S + 300.0

    async def ask(promql: str, asked_s: float | None) -> list[Row]:
        return await client(promql, now_s if asked_s is None else asked_s)

    windows = PrometheusWindows(SLOS, ask, ManualClock(now_s), service="faq-bot", budget_s=60.0)
    await windows.refresh()
    assert windows.reading(SLOS[0], AGAIN) == Reading(10, 70)
    windows.go_on(AGAIN, "8", AGAIN_S)
    await windows.refresh()
    await client.close()
    assert windows.reading(SLOS[0], AGAIN) == Reading(0, 60)


async def test_samples_that_stopped_are_unknown_and_after_five_minutes_silence(address: str) -> None:
    windows, client = await windows_at(address, END_S + 50.0)
    assert windows.reading(SLOS[0], GOOD).count > 0
    windows, other = await windows_at(address, END_S + 120.0)
    with pytest.raises(SourceError, match="newest sample is 120 s old"):
        windows.reading(SLOS[0], GOOD)
    windows, third = await windows_at(address, END_S + 400.0)
    assert windows.reading(SLOS[0], GOOD) == Reading(0, 0)
    for each in (client, other, third):
        await each.close()


async def test_what_prometheus_refuses_is_one_line(address: str) -> None:
    client = PrometheusClient(address)
    with pytest.raises(SourceError, match="parse error") as caught:
        await client("sum(", None)
    assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="instead of a vector"):
        await client("1", None)
    await client.close()
    gone = PrometheusClient("http://127.0.0.1:9", timeout_s=1.0)
    with pytest.raises(SourceError, match="does it run"):
        await gone("up", None)
    await gone.close()
    wrong = PrometheusClient(address + "/nowhere")
    with pytest.raises(SourceError, match="check the URL"):
        await wrong("up", None)
    await wrong.close()
