"""The engine counts what one exchange at a time counts, to the last digit of the artefact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slo.artefact import Baseline, IncidentSpan
from slo.baselines import collect, to_json
from slo.collecting import Terms, assemble
from slo.errors import ConfigError, RefusedError
from slo.indicators import LATENCY_P95
from slo.sources.log_baseline import gather
from slo.sources.log_table import open_log
from slo.sources.parquet import convert
from slo.types import CacheStatus, Exchange, Outcome
from tests.log_kit import write_log
from tests.slo_builders import AVAILABILITY, make_exchange
from tests.unit.test_slo_baselines import DAY_S, HOUR_S, START_S, WEEK_END_S, week

pytest.importorskip("duckdb", reason="needs the `analysis` extra: pip install 'sft-guard[analysis]'")

INCIDENT = IncidentSpan("inc-1", START_S + 30 * HOUR_S, START_S + 33 * HOUR_S)


def mixed() -> list[Exchange]:
    """A week with everything that is left out or counts oddly."""
    strangers: list[Exchange] = []
    for number in range(400):
        at = START_S + number * 1400.5
        strangers += [
            make_exchange(number, wall_s=at, arm="canary", outcome=Outcome.SERVER_ERROR, status=500),
            make_exchange(number, wall_s=at + 1, cache=CacheStatus.HIT),
            make_exchange(number, wall_s=at + 2, cache=CacheStatus.MISS, cost_usd=None, release="r2"),
            make_exchange(number, wall_s=at + 3, outcome=Outcome.TIMEOUT, status=504, duration_s=9.0 + number % 7),
            make_exchange(number, wall_s=at + 4, outcome=Outcome.CANCELLED, status=0, cost_usd=0.001),
            make_exchange(number, wall_s=at + 5, outcome=Outcome.CLIENT_ERROR, status=400, cost_usd=None),
            make_exchange(number, wall_s=at + 6, outcome=Outcome.SERVER_ERROR, status=429, reason="throttled"),
        ]
    strangers += [make_exchange(1, wall_s=WEEK_END_S + 301), make_exchange(2, wall_s=-5.0)]
    return [*week(), *strangers]


def by_engine(path: Path, terms: Terms) -> Baseline:
    with open_log(path, threads=2) as table:
        return assemble(gather(table, terms), terms)


def test_the_artefact_is_the_same_whoever_counts_and_whatever_the_format(tmp_path: Path) -> None:
    exchanges = mixed()
    settings = {
        "more_windows_s": (900.0, 7200.0),
        "exclusions": ((START_S + 5 * HOUR_S, START_S + 6 * HOUR_S), (START_S + 5.5 * HOUR_S, START_S + 7 * HOUR_S)),
        "incidents": (INCIDENT,),
    }
    expected = replace(collect(exchanges, now_wall_s=WEEK_END_S, **settings), source="")  # type: ignore[arg-type]
    assert dict(expected.excluded).keys() == {"canary", "cache hits", "excluded time", "incident", "wrong clock"}
    terms = Terms(WEEK_END_S, **settings)  # type: ignore[arg-type]
    write_log(tmp_path / "exchanges-1.jsonl", exchanges[:5000])
    write_log(tmp_path / "exchanges-2.jsonl", exchanges[5000:])
    assert to_json(by_engine(tmp_path, terms)) == to_json(expected)
    convert(tmp_path / "exchanges-2.jsonl")
    assert to_json(by_engine(tmp_path, terms)) == to_json(expected)


def test_one_release_and_a_name_that_looks_like_sql(tmp_path: Path) -> None:
    path = write_log(tmp_path / "a.jsonl", [*week(), *week(days=1, release="r'2")])
    assert dict(by_engine(path, Terms(WEEK_END_S, release="r1")).excluded) == {"other release": 960}
    other = by_engine(path, Terms(WEEK_END_S, release="r'2", force=True))
    assert (other.releases, other.exchange_count) == (("r'2",), 960)


def test_of_more_than_two_weeks_the_latest_are_used_and_it_says_so(tmp_path: Path) -> None:
    path = write_log(
        tmp_path / "a.jsonl", [*week(days=17, per_hour=20), make_exchange(cache=CacheStatus.HIT, wall_s=START_S)]
    )
    now = START_S + 17 * DAY_S
    latest = by_engine(path, Terms(now))
    assert latest.notes == ("the log spans 17.0 days; the latest 14 were used",)
    assert (latest.days, latest.exchange_count) == (14.0, 14 * 24 * 20)
    assert latest.first_wall_s == START_S + 3 * DAY_S
    assert dict(latest.excluded) == {"too old": 3 * 24 * 20 + 1}
    success, p95 = latest.of(AVAILABILITY, HOUR_S), latest.of(LATENCY_P95, HOUR_S)
    assert success is not None
    assert p95 is not None
    assert (success.window_count, p95.window_count, p95.event_count) == (336, 336, 336 * 20)
    assert by_engine(path, Terms(now, max_days=17)).notes == ()
    everything = by_engine(path, Terms(now, max_days=30))
    assert (everything.days, everything.notes) == (17.0, ())


def test_refusals_name_what_is_missing(tmp_path: Path) -> None:
    path = write_log(tmp_path / "a.jsonl", week(3.5))
    with pytest.raises(RefusedError, match=r"3\.5 days of traffic, 7 needed: 3\.5 days missing.*--force"):
        by_engine(path, Terms(WEEK_END_S))
    nothing = write_log(tmp_path / "b.jsonl", [make_exchange(arm="canary", wall_s=START_S)])
    with pytest.raises(RefusedError, match="1 canary"):
        by_engine(nothing, Terms(WEEK_END_S, force=True))
    with pytest.raises(ConfigError, match="whole seconds"):
        by_engine(path, Terms(WEEK_END_S, window_s=0.5))


def test_clocks_gone_mad_are_left_out(tmp_path: Path) -> None:
    mad = [make_exchange(n, wall_s=wall_s) for n, wall_s in enumerate((1e300, -1e300, 1e18))]
    baseline = by_engine(write_log(tmp_path / "a.jsonl", [*week(), *mad]), Terms(WEEK_END_S))
    assert dict(baseline.excluded) == {"wrong clock": 3}


def test_the_same_log_gives_the_same_file_with_any_number_of_threads(tmp_path: Path) -> None:
    path = write_log(tmp_path / "a.jsonl", (replace(e, cost_usd=0.1 + n * 1e-7) for n, e in enumerate(week())))
    files = set()
    for threads in (1, 2, 4):
        with open_log(path, threads=threads) as table:
            files.add(to_json(assemble(gather(table, Terms(WEEK_END_S)), Terms(WEEK_END_S))))
    assert len(files) == 1
