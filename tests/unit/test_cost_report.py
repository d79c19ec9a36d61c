"""What measured traffic cost: by release, tenant and model, and where the month is going."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.cli import main
from slo.economics.spending import Spent, summarise
from slo.types import CacheStatus, CheckResult, Exchange, Finding, Outcome
from tests.log_kit import START_S, write_log
from tests.slo_builders import make_exchange

DAY_S = 86_400.0


def spent(day: int, usd: float, *, release: str = "r1", tenant: str = "a", good: int = 1) -> Spent:
    return Spent(day, release, tenant, "m", usd, 2, 1, 1, good, 100, 10)


def test_shares_by_hand() -> None:
    found = summarise([spent(1, 3.0), spent(1, 1.0, release="r2", tenant="b", good=0), spent(2, 4.0)])
    assert (found.usd, found.request_count, found.day_count, found.unpriced_count) == (8.0, 6, 2, 0)
    first, second = found.by_release
    assert (first.name, first.usd, first.share_ratio, first.hit_ratio) == ("r1", 7.0, 0.875, 0.5)
    assert (first.usd_per_request, first.usd_per_good_answer) == (7.0 / 4, 7.0 / 2)
    assert (second.name, second.usd_per_good_answer) == ("r2", None)
    assert [share.name for share in found.by_tenant] == ["a", "b"]


@pytest.mark.parametrize(
    ("budget", "state", "alerts"),
    [(None, "unknown", 0), (400.0, "within", 0), (305.0, "at_risk", 1), (100.0, "over", 1)],
)
def test_the_forecast_against_the_budget(budget: float | None, state: str, alerts: int) -> None:
    # Whole days cost 9, 10, 11, 10: 10 a day; the partial first and last say nothing about a day.
    days = [spent(d, usd) for d, usd in enumerate([1.0, 9.0, 10.0, 11.0, 10.0, 2.0])]
    found = summarise(days, budget_usd=budget)
    assert found.forecast is not None
    assert found.forecast.expected_usd == pytest.approx(304.375)
    assert (found.forecast.state, len(found.alerts)) == (state, alerts)


def test_a_day_without_traffic_costs_nothing_and_counts() -> None:
    found = summarise([spent(0, 1.0), spent(1, 6.0), spent(3, 1.0)])
    assert found.daily_usd == ((0, 1.0), (1, 6.0), (2, 0.0), (3, 1.0))
    assert found.forecast is not None
    assert found.forecast.expected_usd == pytest.approx(3.0 * 365.25 / 12)


def test_nothing_is_nothing() -> None:
    found = summarise([])
    assert (found.usd, found.day_count, found.forecast, found.alerts) == (0.0, 0, None, ())


@given(st.lists(st.builds(spent, st.integers(0, 30), st.floats(0, 1e3), release=st.sampled_from("xyz")), max_size=30))
def test_every_table_adds_up_to_the_whole(rows: list[Spent]) -> None:
    found = summarise(rows)
    for shares in (found.by_release, found.by_tenant, found.by_model):
        assert sum(share.usd for share in shares) == pytest.approx(found.usd)
        assert sum(share.request_count for share in shares) == found.request_count
    assert sum(usd for _, usd in found.daily_usd) == pytest.approx(found.usd)


def exchange(number: int, **changes: object) -> Exchange:
    return make_exchange(number=number, wall_s=START_S + number * DAY_S / 4, **changes)  # type: ignore[arg-type]


def test_the_command_reads_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = (Finding("grounding", CheckResult.FAIL, 0.1),)
    log = write_log(
        tmp_path / "a.jsonl",
        [
            *(exchange(n, release="r1", tenant="\u5ba2\u6236", cost_usd=0.5) for n in range(16)),
            exchange(16, release="r2", tenant="b", cost_usd=2.0, findings=bad),
            exchange(17, release="r2", tenant="b", cost_usd=None, cache=CacheStatus.HIT),
            exchange(18, release="r2", tenant="b", cost_usd=None, outcome=Outcome.SERVER_ERROR),
        ],
    )
    rc = main(["cost", "report", "--json", "--log", str(log), "--budget", "20"])
    out, _ = capsys.readouterr()
    found = json.loads(out.splitlines()[-1])
    assert rc == 1
    assert (found["usd"], found["request_count"], found["unpriced_count"]) == (10.0, 19, 1)
    by_tenant = {share["name"]: share for share in found["by_tenant"]}
    assert by_tenant["\u5ba2\u6236"]["usd_per_good_answer"] == 0.5
    # One flagged, one from the cache, one failed: only the hit was a good answer.
    assert by_tenant["b"]["usd_per_good_answer"] == 2.0
    assert found["forecast"]["state"] == "over"
    assert main(["cost", "report", "--log", str(log), "--days", "1"]) == 0
    assert "have no known price" in capsys.readouterr().out


def test_a_log_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "report", "--log", str(tmp_path / "none")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
