"""Windows of a fleet when Prometheus is slow, wrong, silent or away: never a zero where nothing is known."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import aiohttp.web
import pytest

from guard.fleet_windows import FleetSource
from guard.judge import SloJudge, Vitals
from guard.release.state import Phase, ReleaseState
from slo.clock import LoopClock
from slo.errors import SourceError
from slo.sources.memory import MemorySource
from slo.sources.prometheus_http import PrometheusClient, PrometheusWindows, Row, rows_of
from slo.sources.window_queries import asks_for, grown, lengths_of, newest_sample
from slo.thresholds import NOTHING_KNOWN
from slo.types import FastPath, Reading, Slo, State, Window
from tests.conftest import VIRTUAL
from tests.release_kit import BAD, GOOD, VERSIONS, inline
from tests.slo_builders import AVAILABILITY, COST, HALLUCINATION, P95, make_slo

pytestmark = pytest.mark.anyio

RATIO = make_slo(HALLUCINATION, name="ratio", fast=FastPath(0.2, Window(60.0), 20))
MEAN = make_slo(COST, name="mean", params={"absolute": 0.0005})
SLOS = (RATIO, MEAN)
Answer = list[tuple[dict[str, str], float]] | SourceError | None


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


class Prometheus:
    """Answers by the counter in the query. None: it never answers."""

    def __init__(self, clock: LoopClock, **answers: Answer) -> None:
        self.clock, self.answers = clock, answers
        self.age_s = 5.0
        self.asked: list[str] = []

    async def __call__(self, promql: str, at_s: float | None) -> list[Row]:
        self.asked.append(promql)
        now_s = self.clock.wall_s()
        if promql.startswith("max(timestamp"):
            what = "newest"
        elif promql.startswith("histogram_quantile"):
            what = "quantile"
        else:
            found = re.search(r"sft_slo_(\w+?)_total", promql)
            assert found is not None
            what = found[1]
        answer = self.answers.get(what, [] if what != "newest" else [({}, now_s - self.age_s)])
        if answer is None:
            await asyncio.sleep(3600)
            return []
        if isinstance(answer, SourceError):
            raise answer
        return [(labels, now_s, value) for labels, value in answer]


def of(slo: Slo, value: float, release: str = "r1") -> tuple[dict[str, str], float]:
    return {"release": release, "slo": slo.name}, value


def known(**changes: Answer) -> dict[str, Answer]:
    events: Answer = [of(RATIO, 500.0), of(MEAN, 400.0)]
    return {
        "events": events, "bad_events": [of(RATIO, 40.0)], "unjudged_events": [of(RATIO, 100.0), of(MEAN, 0.0)],
        "values": [of(MEAN, 0.2)], "value_squares": [of(MEAN, 0.0002)], **changes,
    }  # fmt: skip


def windows(prometheus: Prometheus, slos: tuple[Slo, ...] = SLOS, **settings: Any) -> PrometheusWindows:
    return PrometheusWindows(slos, prometheus, prometheus.clock, service="faq-bot", **settings)


async def test_counts_become_readings() -> None:
    source = windows(Prometheus(LoopClock(), **known()))
    await source.refresh()
    assert source.reading(RATIO, "r1") == Reading(40, 500, coverage_ratio=500 / 600)
    assert source.reading(MEAN, "r1") == Reading(0, 400, 0.2, 0.0002)
    assert source.objective_value(RATIO, "r1") == pytest.approx(0.08)
    assert source.objective_value(MEAN, "r1") == pytest.approx(0.0005)
    assert source.problem == ""


async def test_before_the_first_answer_nothing_is_known() -> None:
    with pytest.raises(SourceError, match="not asked yet"):
        windows(Prometheus(LoopClock())).reading(RATIO, "r1")


@pytest.mark.parametrize("answer", [SourceError("prometheus: refused"), None], ids=["refused", "never answers"])
async def test_a_prometheus_that_is_away_is_unknown_and_costs_its_budget_at_most(answer: Answer) -> None:
    faults: list[str] = []
    clock = LoopClock()
    prometheus = Prometheus(clock, **known())
    source = windows(prometheus, budget_s=3.0, on_fault=faults.append)
    await source.refresh()
    assert source.reading(RATIO, "r1").count == 500
    prometheus.answers["newest"] = answer
    before_s = clock.now_s()
    await source.refresh()
    assert clock.now_s() - before_s <= 3.0
    with pytest.raises(SourceError, match=r"refused|no answer in 3 s"):
        source.reading(RATIO, "r1")  # what was known before is not served as if it were now
    assert faults == ["timeout" if answer is None else "error"]
    del prometheus.answers["newest"]
    await source.refresh()
    assert source.reading(RATIO, "r1").count == 500


@pytest.mark.parametrize("what", ["events", "bad_events", "unjudged_events"])
@pytest.mark.parametrize("answer", [SourceError("prometheus: refused"), None], ids=["refused", "never answers"])
async def test_a_counter_that_could_not_be_asked_is_not_a_zero(what: str, answer: Answer) -> None:
    """Without its bad events a sick release would look perfectly well."""
    source = windows(Prometheus(LoopClock(), **known(**{what: answer})))
    await source.refresh()
    with pytest.raises(SourceError):
        source.reading(RATIO, "r1")
    if what == "bad_events":
        assert source.reading(MEAN, "r1").count == 400  # others go on


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
async def test_a_value_that_is_no_number_is_unknown(value: float) -> None:
    source = windows(Prometheus(LoopClock(), **known(bad_events=[of(RATIO, value)])))
    await source.refresh()
    with pytest.raises(SourceError, match="bad of ratio"):
        source.reading(RATIO, "r1")


async def test_an_empty_answer_is_silence() -> None:
    source = windows(Prometheus(LoopClock(), newest=[]))
    await source.refresh()
    assert source.reading(RATIO, "r1") == Reading(0, 0)
    assert source.objective_value(RATIO, "r1") is None
    source = windows(Prometheus(LoopClock(), **known()))
    await source.refresh()
    assert source.reading(RATIO, "r2") == Reading(0, 0)


async def test_old_samples_and_a_loop_that_stopped_are_unknown() -> None:
    clock = LoopClock()
    prometheus = Prometheus(clock, **known())
    source = windows(prometheus, stale_s=60.0)
    prometheus.age_s = 90.0
    await source.refresh()
    with pytest.raises(SourceError, match="newest sample is 90 s old"):
        source.reading(RATIO, "r1")
    prometheus.age_s = 5.0
    await source.refresh()
    await asyncio.sleep(45.0)
    assert source.reading(RATIO, "r1").count == 500
    await asyncio.sleep(30.0)
    with pytest.raises(SourceError, match=r"last asked 75 s ago"):
        source.reading(RATIO, "r1")


async def test_long_windows_are_asked_for_less_often() -> None:
    clock = LoopClock()
    month = make_slo(AVAILABILITY, name="month", window_s=30 * 86_400.0, fast=FastPath(0.2, Window(60.0), 20))
    prometheus = Prometheus(clock, **known())
    source = windows(prometheus, (month,), every_s=5.0)
    asked: dict[float, int] = {}
    for _ in range(721):
        prometheus.asked.clear()
        await source.refresh()
        for length_s in (60.0, 30 * 86_400.0):
            asked[length_s] = asked.get(length_s, 0) + any(f"[{length_s * 1000:.0f}ms]" in q for q in prometheus.asked)
        await asyncio.sleep(5.0)
    assert asked == {60.0: 721, 30 * 86_400.0: 2}


async def test_a_new_objective_is_unknown_until_it_was_asked_for_and_old_ones_are_dropped() -> None:
    source = windows(Prometheus(LoopClock(), **known()))
    await source.refresh()
    other = make_slo(HALLUCINATION, name="other")
    source.replace_objectives((*SLOS, other))
    with pytest.raises(SourceError, match="other over 3600 s was not asked for yet"):
        source.reading(other, "r1")
    await asyncio.sleep(10.0)
    await source.refresh()
    assert source.reading(other, "r1") == Reading(0, 0)


async def test_every_query_names_the_service_and_the_labels_and_quotes_them() -> None:
    prometheus = Prometheus(LoopClock(), **known())
    source = windows(prometheus, (*SLOS, make_slo(P95, name="p.95", routes=("ask",))), labels={"namespace": 'b"o\\t'})
    await source.refresh()
    assert len(prometheus.asked) > 6
    for promql in prometheus.asked:
        assert 'service="faq-bot"' in promql
        assert 'namespace="b\\"o\\\\t"' in promql
    assert any('route=~"ask"' in promql for promql in prometheus.asked)


def test_the_queries_by_hand() -> None:
    assert newest_sample({"service": "bot"}) == 'max(timestamp(sft_slo_events_total{service="bot"}))'
    assert grown("c", 90.0) == (
        "sum by (release, slo) (((max_over_time(c[90000ms]) - (c offset 90000ms or min_over_time(c[90000ms]))) "
        "unless resets(c[90000ms]) > 0) or (increase(c[90000ms]) and resets(c[90000ms]) > 0))"
    )
    assert lengths_of(RATIO) == {3600.0, 60.0}
    assert lengths_of(MEAN) == {3600.0}
    assert [(a.what, a.length_s) for a in asks_for(SLOS, 60.0, {})] == [
        ("events", 60.0), ("bad", 60.0), ("unjudged", 60.0),
    ]  # fmt: skip
    assert {a.what for a in asks_for(SLOS, 3600.0, {})} == {"events", "bad", "unjudged", "values", "squares"}
    assert list(asks_for(SLOS, 61.0, {})) == []


async def asked_of(source: PrometheusWindows, prometheus: Prometheus) -> set[str]:
    """The queries of the next batch for events of one release."""
    prometheus.asked.clear()
    await source.refresh()
    return {q for q in prometheus.asked if "sft_slo_events_total" in q and 'release="' in q}


async def test_after_a_restart_only_the_present_life_is_read() -> None:
    clock = LoopClock()
    prometheus = Prometheus(clock, **known())
    source = windows(prometheus, (RATIO,), scrape_s=15.0)
    source.go_on("r1", "8", clock.wall_s() - 1800.0)
    (asked,) = await asked_of(source, prometheus)
    assert 'release="r1",life=~"|8",slo=~"ratio"' in asked  # half an hour of the hour; the minute is all of it anyway
    span_ms = round((1800.0 - prometheus.age_s) * 1000)
    assert asked.count(f"[{span_ms}ms]") > 1
    assert source.reading(RATIO, "r1") == Reading(40, 500, coverage_ratio=500 / 600)


async def test_a_life_whose_number_has_come_round_is_not_left_out() -> None:
    """Numbers of lives are counted round: the label of a former life may be that of the present one."""
    prometheus = Prometheus(LoopClock(), **known())
    source = windows(prometheus, (RATIO,), scrape_s=15.0)
    for life in ("5", "12", "5"):
        source.forget("r1", life)
        await source.refresh()
        assert source.reading(RATIO, "r1") == Reading(0, 0)
        await asyncio.sleep(60.0)
        asked = await asked_of(source, prometheus)
        assert asked
        assert all(f'life=~"|{life}"' in promql for promql in asked)
    assert source.reading(RATIO, "r1").count == 500


async def test_what_a_former_life_was_read_with_is_not_shown_for_the_next() -> None:
    clock = LoopClock()
    prometheus = Prometheus(clock, **known())
    source = windows(prometheus, (RATIO,), scrape_s=5.0, every_s=60.0)
    source.go_on("r1", "8", clock.wall_s() - 600.0)
    await source.refresh()
    assert source.reading(RATIO, "r1").count == 500
    source.forget("r1", "9")
    await source.refresh()
    await asyncio.sleep(20.0)
    prometheus.answers["events"] = [of(RATIO, 3.0)]
    await source.refresh()  # due at once, not a minute after the windows of the life before
    assert source.reading(RATIO, "r1").count == 3


async def test_long_windows_of_a_long_life_are_asked_for_less_often() -> None:
    clock = LoopClock()
    month = make_slo(AVAILABILITY, name="month", window_s=30 * 86_400.0)
    prometheus = Prometheus(clock, **known())
    source = windows(prometheus, (month,), every_s=5.0)
    source.go_on("r1", "8", clock.wall_s() - 20 * 86_400.0)  # a 720th of it: 40 minutes apart
    asked = 0
    for _ in range(500):
        asked += bool(await asked_of(source, prometheus))
        await asyncio.sleep(5.0)
    assert asked == 2


@pytest.mark.parametrize(
    "raw",
    [b"", b"<html>", b"[]", b"{}", b'{"status":"success"}', b'{"status":"success","data":{"resultType":"vector"}}',
     b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1]}]}}',
     b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"x"]}]}}',
     b'{"status":"error","errorType":"bad_data","error":"parse error"}',
     b'{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}'],
)  # fmt: skip
def test_an_answer_of_another_kind_is_a_source_error_in_one_line(raw: bytes) -> None:
    with pytest.raises(SourceError) as caught:
        rows_of(raw, 200, "http://p/api/v1/query")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_client_follows_no_redirect_and_sends_its_token() -> None:
    seen: list[tuple[str, str]] = []

    async def answer(request: aiohttp.web.Request) -> aiohttp.web.Response:
        seen.append((request.path, request.headers.get("authorization", "")))
        return aiohttp.web.Response(status=302, headers={"location": "/elsewhere"})

    app = aiohttp.web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    client = PrometheusClient(f"http://127.0.0.1:{runner.addresses[0][1]}/prefix/", token="t0ken")
    with pytest.raises(SourceError, match="HTTP 302"):
        await client("up", None)
    await client.close()
    await runner.cleanup()
    assert seen == [("/prefix/api/v1/query", "Bearer t0ken")]


class _Nothing:
    async def close(self) -> None:
        return None


async def test_the_judge_is_unknown_not_blind_where_one_objective_cannot_be_read() -> None:
    clock = LoopClock()
    r1 = GOOD.release_id
    answers = known(events=[of(RATIO, 500.0, r1), of(MEAN, 400.0, r1)], bad_events=SourceError("prometheus: refused"),
                    values=[of(MEAN, 0.1, r1)], value_squares=[of(MEAN, 0.0001, r1)])  # fmt: skip
    prometheus = Prometheus(clock, **answers)
    fleet = windows(prometheus)
    await fleet.refresh()
    client: Any = _Nothing()
    source = FleetSource(MemorySource(SLOS, clock), fleet, client)
    find: Callable[[str], Any] = VERSIONS.get
    judge = SloJudge(SLOS, source, lambda: NOTHING_KNOWN, find, Vitals(clock), clock, offload=inline)
    state = ReleaseState("faq-bot", GOOD.name, canary=BAD.name, canary_ratio=0.1, phase=Phase.ROLLING_OUT)
    action, verdicts = await judge.judge(state)
    by_name = {(v.slo.name, v.release): v for v in verdicts}
    assert by_name["ratio", r1].state is State.UNKNOWN
    assert by_name["ratio", r1].reason == "ratio: prometheus: refused"
    assert by_name["mean", r1].state is State.OK
    assert action.kind.value == "hold"


class OnlyShort(Prometheus):
    """Has no answer for windows of a day and more."""

    async def __call__(self, promql: str, at_s: float | None) -> list[Row]:
        if any(int(ms) >= 86_400_000 for ms in re.findall(r"\[(\d+)ms\]", promql)):
            raise SourceError("prometheus: no answer in 3 s")
        return await super().__call__(promql, at_s)


async def test_a_window_that_is_only_shown_keeps_nothing_from_being_judged() -> None:
    """The catastrophe of a minute, while the day that the rule is about cannot be read."""
    clock, r1 = LoopClock(), GOOD.release_id
    day = make_slo(AVAILABILITY, name="day", window_s=86_400.0, params={"absolute": 0.99}, fast=FastPath())
    prometheus = OnlyShort(clock, events=[of(day, 100.0, r1)], bad_events=[of(day, 70.0, r1)])
    fleet = windows(prometheus, (day,))
    await fleet.refresh()
    client: Any = _Nothing()
    source = FleetSource(MemorySource((day,), clock), fleet, client)
    find: Callable[[str], Any] = VERSIONS.get
    judge = SloJudge((day,), source, lambda: NOTHING_KNOWN, find, Vitals(clock), clock, offload=inline)
    _, verdicts = await judge.judge(ReleaseState("faq-bot", GOOD.name))
    assert [(v.state, v.fast, v.firing) for v in verdicts] == [(State.BREACH, True, True)]
    assert judge.last is not None
    assert [(one.value, one.budget_remaining_ratio) for one in judge.last.judged] == [(None, None)]
    prometheus.answers["bad_events"] = [of(day, 0.0, r1)]
    await asyncio.sleep(10.0)
    await fleet.refresh()
    _, verdicts = await judge.judge(ReleaseState("faq-bot", GOOD.name))
    assert [(v.state, v.reason) for v in verdicts] == [(State.UNKNOWN, "day: prometheus: no answer in 3 s")]
