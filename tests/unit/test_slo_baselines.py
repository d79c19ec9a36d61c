"""From exchanges to an artefact that says what it knows, and only that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from slo.artefact import Baseline, Measured
from slo.baselines import collect, from_json, load_baseline, save_baseline, show, to_json
from slo.collecting import MIN_WINDOW_EVENTS
from slo.errors import DataError, RefusedError
from slo.thresholds import Known, limit_for
from slo.types import CacheStatus, Exchange, Outcome
from tests.slo_builders import AVAILABILITY, COST, HALLUCINATION, P95, SIMILARITY, found, make_exchange, make_slo

HOUR_S, DAY_S = 3600.0, 86_400.0
START_S = 1_750_032_000.0  # Monday 2025-06-16 00:00 UTC
WEEK_END_S = START_S + 7 * DAY_S


def week(days: float = 7, per_hour: int = 40, **changes: object) -> Iterator[Exchange]:
    """`per_hour` answers each hour; in every hour one of them is ungrounded, two at noon."""
    for hour in range(int(days * 24)):
        for number in range(per_hour):
            bad = number == 0 or (number == 1 and hour % 24 == 12)
            findings = (
                found("grounding", "fail" if bad else "pass"),
                found("similarity", "pass", 0.9 if number % 2 else 0.8),
            )
            yield make_exchange(
                hour * per_hour + number,
                wall_s=START_S + hour * HOUR_S + number * (HOUR_S / per_hour),
                duration_s=1.0 if number == 0 else 0.4,
                findings=findings,
                **changes,
            )


def of_week(**settings: object) -> Baseline:
    return collect(week(), now_wall_s=WEEK_END_S, **settings)  # type: ignore[arg-type]


def test_a_week_becomes_hourly_values_with_their_quantiles() -> None:
    baseline = of_week()
    rates = baseline.of(HALLUCINATION, HOUR_S)
    assert rates is not None
    assert (rates.window_count, rates.event_count) == (168, 168 * 40)
    assert rates.overall == pytest.approx((168 + 7) / (168 * 40))
    estimates = {s.name: s.estimate for s in rates.statistics}
    assert (estimates["p50"], estimates["p99"]) == (0.025, 0.05)  # 7 of 168 hours at 2 of 40
    assert estimates["mean"] == pytest.approx((161 * 0.025 + 7 * 0.05) / 168)
    assert all(s.low <= s.estimate <= s.high for s in rates.statistics)
    noon = rates.hour(12)
    assert noon is not None
    assert (noon.window_count, noon.mean) == (1, 0.05)


def test_every_kind_of_indicator_has_its_value() -> None:
    baseline = of_week()
    overall = {i.indicator: i.overall for i in baseline.indicators}
    assert overall[AVAILABILITY] == 1.0
    assert overall[SIMILARITY] == pytest.approx(0.85)
    assert overall[COST] == pytest.approx(0.0003)
    assert overall[P95] == pytest.approx(0.4, rel=0.011)
    assert overall["sft_perf_latency_p99_ms"] == pytest.approx(1.0, rel=0.011)


def test_it_carries_its_provenance() -> None:
    measured = (Measured(SIMILARITY, 0.9, 85, START_S),)
    baseline = of_week(embedder="mini-1", config_hash="c1", measured=measured)
    assert (baseline.days, baseline.exchange_count, baseline.forced) == (7.0, 6720, False)
    assert (baseline.first_wall_s, baseline.created_wall_s) == (START_S, WEEK_END_S)
    assert baseline.expires_wall_s == WEEK_END_S + 30 * DAY_S
    assert (baseline.embedder, baseline.config_hash, baseline.releases) == ("mini-1", "c1", ("r1",))
    assert baseline.measured == measured
    assert len(baseline.hours) == 168
    assert baseline.hours[0].exchange_count == 40
    assert baseline.hours[0].judged_ratio == 1.0


def test_order_does_not_matter_and_the_same_exchanges_give_the_same_file() -> None:
    assert to_json(collect(reversed(list(week())), now_wall_s=WEEK_END_S)) == to_json(of_week())


def test_only_healthy_stable_fresh_traffic_goes_in() -> None:
    broken = make_exchange(outcome=Outcome.SERVER_ERROR, wall_s=START_S + 5 * HOUR_S)
    strangers = [
        *[make_exchange(n, arm="canary", outcome=Outcome.SERVER_ERROR, wall_s=START_S) for n in range(30)],
        *[make_exchange(n, cache=CacheStatus.HIT, wall_s=START_S) for n in range(20)],
        *[broken] * 50,
        *[make_exchange(n, wall_s=WEEK_END_S + 301) for n in range(3)],
    ]
    incident = (START_S + 5 * HOUR_S, START_S + 6 * HOUR_S)
    baseline = collect([*week(), *strangers], now_wall_s=WEEK_END_S, exclusions=[incident])
    assert dict(baseline.excluded) == {"canary": 30, "cache hits": 20, "excluded time": 90, "wrong clock": 3}
    assert baseline.exclusions == (incident,)
    success = baseline.of(AVAILABILITY, HOUR_S)
    assert success is not None
    assert (success.overall, success.window_count) == (1.0, 167)
    hits = baseline.of("sft_cache_hit_rate", HOUR_S)
    assert hits is not None  # made of the hits, which nothing else counts
    assert hits.event_count == 20


def test_one_release_can_be_taken_for_rules_on_the_previous_one() -> None:
    both = [*week(), *week(days=1, release="r2")]
    baseline = collect(both, now_wall_s=WEEK_END_S, release="r1")
    assert baseline.releases == ("r1",)
    assert dict(baseline.excluded) == {"other release": 960}


def test_windows_of_several_lengths_serve_rules_of_several_lengths() -> None:
    baseline = collect(week(per_hour=100), now_wall_s=WEEK_END_S, more_windows_s=[900.0, 900.0])
    assert baseline.windows_of(P95) == (900.0, HOUR_S)
    rule = make_slo(P95, "baseline", window_s=900.0, params={"baseline": "p95", "factor": 1.5})
    assert limit_for(rule, Known(WEEK_END_S, baseline)).value == pytest.approx(0.6, rel=0.011)


def test_a_window_with_too_few_events_gives_no_value() -> None:
    thin = collect(week(per_hour=MIN_WINDOW_EVENTS - 1), now_wall_s=WEEK_END_S)
    assert thin.indicators == ()
    assert thin.exchange_count == 168 * (MIN_WINDOW_EVENTS - 1)


@pytest.mark.parametrize(
    ("days", "per_hour", "message"),
    [
        (3.5, 40, "3.5 days of traffic, 7 needed: 3.5 days missing"),
        (167 / 24, 40, "167 hours of traffic, 168 needed: 1 hour missing"),
        (7, 2, "336 exchanges, 1000 needed: 664 exchanges missing"),
        (1, 2, "1.0 days of traffic, 7 needed and 48 exchanges, 1000 needed: 6.0 days and 952 exchanges missing"),
    ],
)
def test_too_little_is_refused_saying_by_how_much(days: float, per_hour: int, message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        collect(week(days, per_hour), now_wall_s=WEEK_END_S)
    assert caught.value.reason == "too_little_traffic"
    assert message in str(caught.value)
    assert "--force" in str(caught.value)
    forced = collect(week(days, per_hour), now_wall_s=WEEK_END_S, force=True)
    assert forced.forced
    assert forced.forced_reason == message


def test_days_with_gaps_do_not_count_as_covered() -> None:
    gappy = [e for e in week() if (e.wall_s - START_S) // DAY_S in (0, 6)]
    with pytest.raises(RefusedError, match=r"2\.0 days of traffic"):
        collect(gappy, now_wall_s=WEEK_END_S)


def test_nothing_usable_is_refused_even_when_forced() -> None:
    only_canary = [make_exchange(arm="canary", wall_s=START_S)]
    with pytest.raises(RefusedError, match="1 canary"):
        collect(only_canary, now_wall_s=WEEK_END_S, force=True)


def test_a_span_that_no_memory_holds_is_refused() -> None:
    ends = [make_exchange(wall_s=START_S), make_exchange(wall_s=START_S + 101 * DAY_S)]
    with pytest.raises(RefusedError, match="more than 100 days"):
        collect(ends, now_wall_s=START_S + 102 * DAY_S, force=True)


def test_progress_is_told() -> None:
    told: list[int] = []
    collect(week(per_hour=150), now_wall_s=WEEK_END_S, on_progress=told.append)
    assert told == [20_000]


# The file


@pytest.fixture(scope="module")
def artefact() -> Baseline:
    return of_week(embedder="mini-1")


def test_a_file_read_back_is_the_same(artefact: Baseline, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    save_baseline(artefact, path)
    assert load_baseline(path) == artefact
    assert [p.name for p in tmp_path.iterdir()] == ["baseline.json"]
    assert json.loads(path.read_bytes())["sha256"] == artefact.sha256


def test_every_changed_number_is_noticed(artefact: Baseline) -> None:
    text = to_json(artefact)
    for old, new in ((b'"exchange_count": 6720', b'"exchange_count": 6721'), (b'"forced": false', b'"forced": true')):
        assert old in text
        with pytest.raises(DataError, match="changed or damaged"):
            from_json(text.replace(old, new), "baseline.json")


def test_layout_is_not_content(artefact: Baseline) -> None:
    assert from_json(json.dumps(json.loads(to_json(artefact)), indent=4).encode(), "b") == artefact


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"null", b'{"sha256": 3}', b"\xff", b"[" * 100_000, b'{"sha256": "x"}']
)
def test_what_is_no_baseline_is_refused_with_the_cure(text: bytes) -> None:
    with pytest.raises(DataError, match=r"b\.json: .*sft-guard baseline collect"):
        from_json(text, "b.json")


def test_every_truncation_is_refused(artefact: Baseline) -> None:
    text = to_json(artefact).rstrip()
    for length in range(0, len(text), 997):
        with pytest.raises(DataError):
            from_json(text[:length], "b.json")


def test_flipped_bytes_are_refused(artefact: Baseline) -> None:
    text = bytearray(to_json(artefact))
    places = [i for i in range(0, len(text), 1013) if not chr(text[i]).isspace()]
    assert len(places) > 20
    for place in places:
        flipped = bytearray(text)
        flipped[place] ^= 1
        with pytest.raises(DataError):
            from_json(bytes(flipped), "b.json")


def test_a_missing_file_and_an_unwritable_place_are_told(artefact: Baseline, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name a file made by"):
        load_baseline(tmp_path / "none.json")
    with pytest.raises(DataError, match="cannot be written"):
        save_baseline(artefact, tmp_path / "no" / "such" / "place.json")


def test_the_page_for_people_says_what_matters() -> None:
    page = show(collect(week(2), now_wall_s=WEEK_END_S, force=True, exclusions=[(START_S, START_S + HOUR_S)]))
    assert "baseline of 1880 exchanges over 2.0 days" in page
    assert "FORCED: 2.0 days of traffic, 7 needed: 5.0 days missing" in page
    assert "left out: 40 excluded time" in page
    assert "from 2025-06-16 01:00 to 2025-06-17 23:58 UTC" in page
    assert "hours of the week with traffic: 47 of 168, 121 silent" in page
    line = next(line for line in page.splitlines() if line.startswith(HALLUCINATION))
    assert line.split()[:4] == [HALLUCINATION, "1h", "47", "1880"]
    assert "5 %" in line
