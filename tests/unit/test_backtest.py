"""Back-testing by hand: when a rule would have fired, which firings were true, how often a month, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from guard.cli import main
from slo.artefact import hour_of_week
from slo.backtest import Incident, as_json, as_text, healthy_days_of, per_month, report
from slo.codec import encode_exchange
from slo.curves import curve
from slo.replay import Firing, Lane, Rule, moments_of, replay, rules_of, run_lane
from slo.statistics import poisson_interval
from slo.thresholds import Limit
from slo.traffic import Life, Quantity, Sums, Track, Traffic, reach, tick_of
from slo.types import FastPath, Outcome, Slo, State, Window
from tests.slo_builders import AVAILABILITY, HALLUCINATION, P95, found, make_exchange, make_slo

DAY_S = 86_400.0
BEGIN = 175_000_320  # tick; 2025-06-15T16:00:00Z
GROUNDED = Quantity(HALLUCINATION)
INCIDENT = Incident(BEGIN * 10.0 + 1200.0, BEGIN * 10.0 + 1800.0, "bad data")


def traffic_of(sums: list[Sums], quantity: Quantity = GROUNDED, arm: str = "stable") -> Traffic:
    """One release, one quantity, ticks of 10 s."""
    life = Life("r1", arm, BEGIN, BEGIN + len(sums) - 1, sum(s.count for s in sums))
    return Traffic(10.0, (life,), {("r1", quantity): Track(BEGIN, sums)}, life.exchange_count)


def rule(slo: Slo | None = None, limit: float = 0.05, **changes: Any) -> Rule:
    settings: dict[str, Any] = {"window_s": 60.0, "min_events": 20, "for_s": 30.0, "keep_firing_for_s": 60.0}
    return Rule(slo or make_slo(**{**settings, **changes}), (Limit(limit, "", "test"),))


# Twenty minutes of 10 events per tick without a bad one, ten minutes with 4 bad of 10, ten good minutes.
STORY = [Sums(0, 10)] * 120 + [Sums(4, 10)] * 60 + [Sums(0, 10)] * 60


class TestReplay:
    def test_the_hand_computed_firing(self) -> None:
        lane = run_lane(traffic_of(STORY), rule(), traffic_of(STORY).lives[0])
        (firing,) = lane.firings
        begin_s = BEGIN * 10.0
        # Bad ones of 60 in the window: after one bad tick 4 (6.7 %, bound 3.1 %), after two 8 (13.3 %, bound 7.7 %).
        assert firing.since_s == begin_s + 1220
        assert firing.start_s == begin_s + 1250  # held 30 s
        # The window holds over 5 % by its bound until two of its six ticks are bad: last at 1800 + 40.
        assert firing.end_s == begin_s + 1840 + 60
        assert (firing.verdict.reading and firing.verdict.reading.bad_count, firing.verdict.threshold) == (20, 0.05)
        assert firing.worst.reading is not None
        assert firing.worst.reading.bad_count == 24
        assert lane.unknown_s == 10  # the first evaluation sees 10 of the 20 events it needs
        assert lane.breach_s == 630
        assert lane.ok_s == 2400 - 640
        assert lane.judged_count < 80  # the sieve spared the rest

    def test_a_firing_that_outlives_the_log_has_no_end(self) -> None:
        (firing,) = run_lane(traffic_of(STORY[:150]), rule(), traffic_of(STORY[:150]).lives[0]).firings
        assert firing.end_s is None

    def test_the_fast_path_does_not_wait(self) -> None:
        sums = [Sums(0, 10)] * 60 + [Sums(10, 10)] * 30
        fast = rule(window_s=3600.0, min_events=400, for_s=600.0, fast=FastPath())
        (firing,) = run_lane(traffic_of(sums), fast, traffic_of(sums).lives[0]).firings
        assert firing.verdict.fast
        assert (
            firing.start_s == firing.since_s == BEGIN * 10.0 + 600 + 30
        )  # bound of 30 bad of 60: 23.8 %; of 20: 12.8 %

    def test_silence_is_unknown_and_no_limit_is_unknown(self) -> None:
        sums = [Sums()] * 50 + [Sums(1, 1)]
        lane = run_lane(traffic_of(sums), rule(), traffic_of(sums).lives[0])
        assert (lane.ok_s, lane.breach_s, lane.unknown_s, lane.firings) == (0, 0, 510, [])
        without = Rule(make_slo(), (Limit(None, "no baseline", "p95"),))
        lane = run_lane(traffic_of(STORY), without, traffic_of(STORY).lives[0])
        assert (lane.ok_s, lane.unknown_s) == (0, 2400)

    def test_every_minute_sees_every_sixth_moment(self) -> None:
        life = Life("r1", "stable", 7, 100, 1)
        assert list(moments_of(life, 60.0, 10.0))[:2] == [12, 18]
        assert moments_of(life, 60.0, 10.0)[-1] == 102

    def test_limits_by_hour_of_the_week(self) -> None:
        hours = [Limit(0.05, "", "")] * 168
        hours[hour_of_week(BEGIN * 10.0 + 1200)] = Limit(0.9, "", "kind hour")
        kind = Rule(rule().slo, tuple(hours))
        assert kind.limit_at(BEGIN * 10.0 + 1200).value == 0.9
        # The bad minutes, 16:20 to 16:30, lie in the kind hour.
        assert run_lane(traffic_of(STORY), kind, traffic_of(STORY).lives[0]).firings == []

    def test_relative_rules_take_a_baseline_of_any_age(self) -> None:
        from slo.baselines import collect
        from tests.unit.test_slo_baselines import WEEK_END_S, week

        baseline = collect(week(), window_s=3600.0, now_wall_s=WEEK_END_S)
        slo = make_slo(AVAILABILITY, "baseline", params={"baseline": "p05", "factor": 0.9})
        (found_rule,) = rules_of([slo], baseline)
        assert found_rule.limits[0].value is not None
        assert rules_of([slo])[0].limits[0].value is None

    def test_where_windows_begin_is_where_the_rings_say(self) -> None:
        # An hour in 10 s buckets; two hours in 5 min buckets, the last of them not yet full.
        assert reach(1000, 3600.0, 10.0) == 640
        assert reach(1000, 7200.0, 10.0) == (999 // 30 - 24 + 1) * 30
        assert [tick_of(s) for s in (1, 2, 5, 10, 30)] == [1, 2, 5, 10, 10]
        for odd in (3.0, 7.0, 15.0, 0.5):
            with pytest.raises(ValueError, match="10 s buckets"):
                tick_of(odd)


class TestReport:
    def lanes(self) -> tuple[Traffic, list[Lane]]:
        traffic = traffic_of(STORY)
        return traffic, replay(traffic, [rule()])

    def test_true_and_false_alarms(self) -> None:
        traffic, lanes = self.lanes()
        marked = report(traffic, lanes, [INCIDENT])
        assert [len(r.false_firings) for r in marked.rules] == [0]
        assert marked.rules[0].found == ((0, 50.0),)  # fired 50 s after the incident began
        assert marked.missed == ()
        plain = report(traffic, lanes)
        assert [len(r.false_firings) for r in plain.rules] == [1]
        assert "every firing counts as a false alarm" in plain.notes[0]

    def test_a_missed_incident_and_one_outside_the_log(self) -> None:
        traffic, lanes = self.lanes()
        quiet, outside = Incident(BEGIN * 10.0, BEGIN * 10.0 + 600), Incident(5.0, 6.0)
        found_report = report(traffic, lanes, [outside, quiet])
        assert found_report.missed == (1,)
        assert "1 of 2 marked incidents lie outside the log" in found_report.notes
        assert "MISSED" in as_text(found_report, "bot")

    def test_rates_are_per_month_of_healthy_time(self) -> None:
        day = traffic_of([Sums(0, 1)] * 8640)
        assert healthy_days_of(day, []) == 1.0
        begin_s = BEGIN * 10.0
        twice = [Incident(begin_s, begin_s + 3600), Incident(begin_s + 1800, begin_s + 7200), Incident(0, 1)]
        assert healthy_days_of(day, twice) == pytest.approx(1 - 2 / 24)  # overlapping ones count once
        assert per_month(3, 10.0).estimate == 9.0
        assert per_month(0, 10.0).high == pytest.approx(3 * 2.9957, abs=1e-3)  # rule of three
        assert per_month(0, 0.0).high == float("inf")

    @pytest.mark.parametrize(("count", "low", "high"), [(1, 0.0253, 5.572), (5, 1.623, 11.668), (100, 81.36, 121.63)])
    def test_poisson_bounds_are_those_of_the_table(self, count: int, low: float, high: float) -> None:
        found_interval = poisson_interval(count)  # Garwood; Ulm (1990), table 1
        assert (found_interval.low, found_interval.high) == (
            pytest.approx(low, rel=1e-3),
            pytest.approx(high, rel=1e-3),
        )

    def test_json_has_the_evidence(self) -> None:
        traffic, lanes = self.lanes()
        (firing,) = as_json(report(traffic, lanes, [INCIDENT]))["firings"]
        assert firing["since"] == "2025-06-15T16:20:20Z"
        assert (firing["bad_count"], firing["count"], firing["incident"], firing["false_alarm"]) == (
            20,
            60,
            "bad data",
            False,
        )
        assert firing["evidence"]["threshold_source"] == "test"

    def test_a_curve_keeps_the_worst_moment_of_each_stretch(self) -> None:
        sums = [Sums(0, 100)] * 6000
        sums[3000] = Sums(100, 100)
        points = curve(traffic_of(sums), rule(min_events=1), traffic_of(sums).lives[0], most=50)
        assert len(points) <= 51
        assert max(p.value or 0 for p in points) == pytest.approx(100 / 600)


def write_log(path: Path, *, bad_from: int = 600, bad_to: int = 900, count: int = 1200) -> None:
    """An answer every 2 s for 40 minutes; in the middle every third is not grounded and slow."""
    lines = []
    for number in range(count):
        bad = bad_from <= number < bad_to and number % 3 == 0
        lines.append(
            encode_exchange(
                make_exchange(
                    number, wall_s=1_750_003_200.0 + 2 * number, duration_s=3.0 if bad else 0.4,
                    outcome=Outcome.OK, findings=(found("grounding", "fail" if bad else "pass", 0.5),),
                )
            )
        )  # fmt: skip
    path.write_bytes(b"\n".join(lines) + b"\nnot a line\n")


SLO_YAML = """\
service: faq-bot
objectives:
  - name: grounded
    indicator: sft_quality_hallucination_rate
    window: 5m
    threshold: {absolute: 5%}
    for: 1m
    min_events: 50
    action: rollback
  - name: slow
    indicator: sft_perf_latency_p95_ms
    window: 5m
    threshold: {absolute: 2000}
    min_events: 50
    action: shed
  - {name: thumbs, indicator: sft_quality_thumbs_up_rate, window: 1h, threshold: {absolute: 80%}}
  - {name: alike, indicator: sft_quality_similarity_score, window: 1h, threshold: {baseline: p05, factor: 0.9}}
"""


class TestCommand:
    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[str, str]:
        pytest.importorskip("duckdb", reason="needs the analysis extra: pip install 'sft-guard[analysis]'")
        slo, log = tmp_path / "slo.yaml", tmp_path / "exchanges-20250615T150640Z-0000.jsonl"
        slo.write_text(SLO_YAML)
        write_log(log)
        return str(slo), str(log)

    def test_json_as_other_programs_read_it(
        self, files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        marked = tmp_path / "incidents.json"
        marked.write_text(json.dumps([{"from": "2025-06-15T16:20", "to": 1_750_005_300, "name": "2 a.m."}]))
        code = main(["slo", "replay", "--slo", files[0], "--log", files[1], "--incidents", str(marked), "--json"])
        printed, told = capsys.readouterr()
        result = json.loads(printed.splitlines()[-1])
        assert code == 0
        assert [f["rule"] for f in result["firings"]] == ["slow", "grounded"]
        slow = result["firings"][0]
        assert slow["value"] == pytest.approx(3.0)  # a third of the window took 3 s: that is its P95
        assert slow["threshold"] == 2.0
        assert result["false_alarms_per_month"] == 0
        assert [i["name"] for i in result["incidents"]] == ["2 a.m."]
        assert {f["rule"] for f in result["incidents"][0]["found_by"]} == {"slow", "grounded"}
        assert result["exchange_count"] == 1200
        rules = {r["name"]: r for r in result["rules"]}
        assert rules["thumbs"]["ok_s"] == rules["alike"]["ok_s"] == 0
        assert any("sft_quality_thumbs_up_rate is not in the exchange log" in n for n in result["notes"])
        assert any("alike has no limit" in n for n in result["notes"])
        assert "not an exchange" in told  # the damaged line is named

    def test_for_people_with_pictures(
        self, files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pytest.importorskip("matplotlib", reason="needs the analysis extra: pip install 'sft-guard[analysis]'")
        plots = tmp_path / "plots"
        arguments = ["slo", "replay", "--slo", files[0], "--log", files[1], "--rule", "grounded", "--plot", str(plots)]
        assert main([*arguments, "--mark", "2025-06-15T16:00/2025-06-15T16:05"]) == 1  # nothing fired in it: missed
        printed = capsys.readouterr().out
        assert "grounded  rollback  5 %    1      1" in printed
        assert "MISSED" in printed
        assert [p.name for p in plots.iterdir()] == ["grounded.png"]
        assert (plots / "grounded.png").read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize(
        ("arguments", "word"),
        [
            (["--every", "7s"], "multiple of 10s"),
            (["--mark", "yesterday"], "FROM/TO"),
            (["--mark", "20/10"], "earlier time first"),
            (["--rule", "none"], "grounded"),
            (["--incidents", "slo.yaml"], "not JSON"),
        ],
    )
    def test_a_mistake_is_one_line(
        self, files: tuple[str, str], arguments: list[str], word: str, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.chdir(Path(files[0]).parent)
        assert main(["slo", "replay", "--slo", files[0], "--log", files[1], *arguments]) == 2
        error = capsys.readouterr().err
        assert word in error
        assert error.count("\n") == 1

    def test_a_log_with_a_wrong_clock_is_refused(
        self, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with Path(files[1]).open("ab") as stream:
            stream.write(encode_exchange(make_exchange(1, wall_s=5.0)) + b"\n")
        assert main(["slo", "replay", "--slo", files[0], "--log", files[1]]) == 2
        assert "wrong clock" in capsys.readouterr().err


def test_a_latency_rule_counts_what_was_over_its_own_limit() -> None:
    slow = Rule(make_slo(P95, params={"absolute": 2.0}, window_s=300.0), (Limit(2.0, "", ""),))
    assert slow.quantity == Quantity("latency", (), (2.0,))
    assert Rule(slow.slo, (Limit(None, "x", ""),)).quantity.over_s == ()


def test_an_incident_overlaps_what_it_touches() -> None:
    lane = run_lane(traffic_of(STORY), rule(), traffic_of(STORY).lives[0])
    firing: Firing = lane.firings[0]
    assert firing.end_s is not None
    assert not Incident(0, firing.start_s).overlaps(firing)
    assert Incident(0, firing.start_s + 1).overlaps(firing)
    assert not Incident(firing.end_s, firing.end_s + 1).overlaps(firing)
    assert State.BREACH is firing.verdict.state
    assert firing.rule.slo.window == Window(60.0)
