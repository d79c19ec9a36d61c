"""baseline collect, show and diff as a person uses them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from guard.cli import main
from guard.release.incident import Evidence, Incident, IncidentKind
from guard.release.journal import Journal
from guard.release.recorded import recorded_incidents, unhealthy_spans
from slo.artefact import Baseline, sealed
from slo.baseline_diff import diff, show_diff
from slo.baselines import collect, load_baseline, save_baseline
from slo.clock import SystemClock
from slo.errors import DataError
from slo.types import Exchange, Version
from tests.log_kit import write_log
from tests.slo_builders import AVAILABILITY, HALLUCINATION
from tests.unit.test_prometheus_range import fake, matrix
from tests.unit.test_slo_baselines import HOUR_S, START_S, WEEK_END_S, week

pytest.importorskip("duckdb", reason="needs the `analysis` extra: pip install 'sft-guard[analysis]'")


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    told = capsys.readouterr()
    return status, told.out, told.err


def log_of(tmp_path: Path, exchanges: Iterable[Exchange]) -> Path:
    (tmp_path / "exchanges").mkdir(exist_ok=True)
    write_log(tmp_path / "exchanges" / "exchanges-1.jsonl", exchanges)
    return tmp_path / "exchanges"


def test_collect_writes_the_artefact_and_show_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, out = log_of(tmp_path, week()), tmp_path / "baseline.json"
    range_text = "2025-06-16T03:00/2025-06-16T05:00"
    status, told, _ = run(capsys, "baseline", "collect", "--log", log, "--out", out, "--exclude", range_text, "--json")
    result = json.loads(told.splitlines()[-1])
    assert status == 0
    assert (result["exchange_count"], result["forced"], result["excluded"]) == (6640, False, {"excluded time": 80})
    assert load_baseline(out).source == "exchange log"
    status, page, _ = run(capsys, "baseline", "show", out)
    assert status == 0
    for line in (
        "given: 2025-06-16 03:00 to 2025-06-16 05:00",
        "hours of the week with traffic: 166 of 168, 2 silent",
        "busiest: Mon 00:00 UTC with 40 exchanges",
        f"{HALLUCINATION}: 2.5 % on Mon 00:00 UTC to 5 % on Sun 12:00 UTC",
    ):
        assert line in page


def test_too_little_is_refused_with_the_amount_and_the_cure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, out = log_of(tmp_path, week(2)), tmp_path / "baseline.json"
    status, _, told = run(capsys, "baseline", "collect", "--log", log, "--out", out)
    assert status == 2
    assert "2.0 days of traffic, 7 needed: 5.0 days missing" in told
    assert not out.exists()
    assert run(capsys, "baseline", "collect", "--log", log, "--out", out, "--force")[0] == 0
    assert load_baseline(out).forced


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--exclude", "yesterday"), "--exclude: got 'yesterday'; write FROM/TO"),
        (("--exclude", "20/10"), "write the earlier time first"),
        (("--window", "often"), "--window: got 'often'"),
        (("--days", "400"), "--days: got 400.0; write a number of days up to 100"),
        (("--incidents", "/nowhere"), "/nowhere/release.db: does not exist; name the guard's state directory"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    log = log_of(tmp_path, week(1))
    status, _, told = run(capsys, "baseline", "collect", "--log", log, "--out", tmp_path / "b.json", *words)
    assert status == 2
    assert message in told
    assert "Traceback" not in told


def incident(kind: IncidentKind, opened_s: float, closed_s: float | None, window_s: float = 600.0) -> Incident:
    evidence = Evidence("r", HALLUCINATION, "r1", "breach", window_s, 500, 40, 0.08, (0.06, None), 0.05, "over")
    return Incident(
        f"inc-{kind}", kind, "bot", opened_s, "r", "over", Version("v1"), Version("v0"), 1,
        closed_s=closed_s, evidence=(evidence,),
    )  # fmt: skip


def test_recorded_incidents_are_left_out_from_before_they_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    journal = Journal(state)
    journal.record(incident=incident(IncidentKind.ROLLBACK, START_S + 5 * HOUR_S, START_S + 6 * HOUR_S))
    journal.record(incident=incident(IncidentKind.DRILL, START_S + 50 * HOUR_S, START_S + 60 * HOUR_S))
    journal.record(incident=incident(IncidentKind.PAGE, START_S + 160 * HOUR_S, None, window_s=30 * 86_400.0))
    out = tmp_path / "baseline.json"
    status, page, told = run(capsys, "baseline", "collect", "--log", log_of(tmp_path, week()), "--incidents", state,
                             "--out", out, "--force")  # fmt: skip
    journal.close()  # it was open, and locked, all the while
    assert status == 0
    spans = {i.incident_id: (i.start_wall_s, i.end_wall_s) for i in load_baseline(out).incidents}
    assert spans["inc-rollback"] == (START_S + 5 * HOUR_S - 600, START_S + 6 * HOUR_S)
    assert spans["inc-page"][0] == START_S + 154 * HOUR_S  # six hours of the thirty days
    assert spans["inc-page"][1] == pytest.approx(SystemClock().wall_s(), abs=60)
    assert "inc-rollback: 2025-06-16 04:50 to 2025-06-16 06:00" in page
    all_of = "leaves out all traffic from"
    assert f"inc-rollback (rollback, r of v1) {all_of} 2025-06-16 04:50:00Z to 2025-06-16 06:00:00Z" in told
    assert (
        f"inc-page (page, r of v1) {all_of} 2025-06-22 10:00:00Z on: it is open; if it is over, `sft-guard in" in told
    )
    assert "inc-drill" not in told
    # In 04:50-05:00 fall 6 or 7 of 40 an hour, in 05:00-06:00 all 40, from hour 154 on all 14 hours.
    assert dict(load_baseline(out).excluded)["incident"] in (46 + 560, 47 + 560)


def test_collecting_for_a_guard_needs_none_of_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BOT_TOKEN", raising=False)
    run(capsys, "init", "--dir", tmp_path)
    config = tmp_path / "guard.yaml"
    config.write_text(config.read_text() + "\nadmin: {token_env: BOT_TOKEN}\n")
    status, _, told = run(capsys, "baseline", "collect", "--log", log_of(tmp_path, week()), "-c", config,
                          "--out", tmp_path / "b.json", "--no-drift")  # fmt: skip
    assert status == 0, told


def test_a_record_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "release.db").write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match="incidents cannot be read"):
        recorded_incidents(tmp_path)
    assert list(unhealthy_spans((), 0.0)) == []


def test_prometheus_without_data_is_refused_and_a_dead_one_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "b.json"
    with fake(lambda _: matrix()) as (url, asked):
        status, _, told = run(capsys, "baseline", "collect", "--prometheus", url, "--service", 'a"b', "--out", out)
    assert status == 2
    assert "0.0 days of traffic, 7 needed" in told
    assert all(r'service="a\"b"' in one["query"] for one in asked)
    status, _, told = run(capsys, "baseline", "collect", "--prometheus", url, "--out", out)
    assert status == 2
    assert f"sft-guard: {url}: not reachable" in told


# diff


def of(exchanges: Iterable[Exchange], **settings: object) -> Baseline:
    return collect(exchanges, now_wall_s=WEEK_END_S, **settings)  # type: ignore[arg-type]


def test_the_same_traffic_is_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = tmp_path / "one.json"
    save_baseline(of(week()), one)
    status, told, _ = run(capsys, "baseline", "diff", one, one)
    assert (status, told) == (0, "0 of 64 statistics moved beyond their 95 % intervals\n")


def test_what_moved_beyond_its_interval_is_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    save_baseline(of(week()), before)
    save_baseline(of(slower()), after)
    status, told, _ = run(capsys, "baseline", "diff", before, after, "--json")
    result = json.loads(told)
    assert status == 1
    assert result["material"]
    apart = {(c["indicator"], c["statistic"]) for c in result["apart"]}
    assert ("sft_perf_latency_p95_ms", "p50") in apart
    assert not any(indicator == AVAILABILITY for indicator, _ in apart)
    (p50,) = (c for c in result["apart"] if (c["indicator"], c["statistic"]) == ("sft_perf_latency_p95_ms", "p50"))
    assert p50["relative"] == pytest.approx(1.0, abs=0.03)
    assert p50["after_interval"][0] > p50["before_interval"][1]


def slower() -> Iterable[Exchange]:
    return (replace(e, duration_s=e.duration_s * 2) for e in week())


def test_baselines_that_were_measured_differently_are_no_comparison() -> None:
    plain = of(week())
    noon = (START_S + 12 * HOUR_S, START_S + 13 * HOUR_S)
    other = of(week(), embedder="mini-2", config_hash="c9", exclusions=[noon])
    found = diff(plain, other)
    assert found.apart == ()
    assert found.material
    text = show_diff(found)
    for line in ("embedder: none -> mini-2", "config: none -> c9", "excluded ranges: 0 -> 1"):
        assert line in text
    fewer = sealed(Baseline(0, 1, 0, 1, 7, HOUR_S, 10, plain.indicators[:1]))
    assert len(diff(plain, fewer).only_in) == len(plain.indicators) - 1


def test_what_cannot_be_read_is_an_error_not_a_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, told = run(capsys, "baseline", "diff", tmp_path / "a.json", tmp_path / "b.json")
    assert status == 2
    assert "name a file made by" in told
