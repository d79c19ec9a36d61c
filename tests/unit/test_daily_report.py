"""The report of a day: numbers by hand, changes only where bounds part, and nobody's words become markup."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from guard.cli import main
from guard.commands import report
from slo.daily import Day, ReleaseDay, Sum, html, markdown, summary, tables
from slo.sources.daily import read_day
from slo.types import CheckResult, Exchange, Finding, Outcome
from tests.log_kit import START_S, write_log
from tests.slo_builders import make_exchange

TENANT = "\u5ba2\u6236"
HALLUCINATION, SUCCESS = "sft_quality_hallucination_rate", "sft_availability_success_rate"


def day(now: Sum, before: Sum | None, name: str = HALLUCINATION, release: str = "r1") -> Day:
    one = ReleaseDay(release, "stable", 400, {name: now}, {"p50": 0.2, "p95": 1.0, "p99": None})
    earlier = (ReleaseDay(release, "stable", 400, {name: before}, {}),) if before else ()
    return Day("2026-03-31", (one,), earlier, (("grounding", "<b>14 days</b>", 9),), (("acme|x", 1.5),), ())


@pytest.mark.parametrize(
    ("now", "before", "verdict"),
    [
        (Sum(32, 400), Sum(12, 400), "worse"),  # 8 % (5.7 to 10.6) after 3 % (1.7 to 5.1)
        (Sum(16, 400), Sum(12, 400), ""),
        (Sum(12, 400), Sum(32, 400), "better"),
        (Sum(4, 20), Sum(0, 20), ""),  # twenty answers say nothing
        (Sum(32, 400), None, ""),
    ],
)
def test_a_change_is_one_only_when_the_bounds_part(now: Sum, before: Sum | None, verdict: str) -> None:
    (row,) = tables(day(now, before))[0].rows
    cell = next(cell for cell in row[2:] if cell != "-")
    assert ("worse" in cell, "better" in cell) == (verdict == "worse", verdict == "better")
    assert ("hallucination of r1 (stable)" in summary(day(now, before))) is (verdict == "worse")


def test_a_success_rate_is_shown_as_one_with_its_bounds_the_right_way_round() -> None:
    (row,) = tables(day(Sum(4, 400), None, SUCCESS))[0].rows
    assert row[2] == "99 % (97.791 % to 99.55 %) of 400"  # Wilson at z = 1.645, by hand
    assert row[-1] == "200 / 1000 / -"


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)


def test_words_from_outside_stay_words() -> None:
    made = day(Sum(1, 400), None, release="<img src=x>")
    page = html("<script>x</script>", made)
    assert Tags(page).tags <= {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "thead",
                               "tbody", "tr", "th", "td"}  # fmt: skip
    text = markdown("a|b", made)
    assert "<b>" not in text.replace("\\<b\\>", "")
    assert "acme\\|x" in text


def exchange(number: int, wall_s: float, **changes: object) -> Exchange:
    return make_exchange(number=number, wall_s=wall_s, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "now", "before", "mark"),
    [
        (SUCCESS, Sum(40, 400), Sum(4, 400), "90 % (87.258 % to 92.205 %) of 400 \u2193 worse"),
        (SUCCESS, Sum(4, 400), Sum(40, 400), "\u2191 better"),
        (HALLUCINATION, Sum(40, 400), Sum(4, 400), "\u2191 worse"),
        (HALLUCINATION, Sum(4, 400), Sum(40, 400), "\u2193 better"),
    ],
)
def test_an_arrow_points_where_the_share_went(name: str, now: Sum, before: Sum, mark: str) -> None:
    (row,) = tables(day(now, before, name))[0].rows
    assert next(cell for cell in row[2:] if cell != "-").endswith(mark)


@pytest.mark.parametrize(
    ("days_after", "wanted", "said"),
    [(0, "2025-06-17", ()), (1, "2025-06-16", ()), (2, "2025-06-17", ()),
     (9, "2025-06-17", ("no exchange since 2025-06-17, 8 days ago: the report is of that day",))],
    ids=["none is whole", "second day", "quiet since midnight", "quiet for a week"],
)  # fmt: skip
def test_the_last_whole_day_is_told_by_the_clock_and_an_old_one_is_said_to_be(
    tmp_path: Path, days_after: int, wanted: str, said: tuple[str, ...]
) -> None:
    log = write_log(tmp_path / "a.jsonl", [exchange(n, START_S + n * 86_400, release="r1") for n in range(2)])
    found, problems = read_day([log], now_s=START_S + days_after * 86_400 + 60)
    assert (found.day, problems) == (wanted, said)


def test_the_command_takes_the_last_whole_day(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_now_s", lambda: START_S + 2 * 86_400 + 600)
    bad = (Finding("grounding", CheckResult.FAIL, 0.1, "7 days against 14"),)
    good = (Finding("grounding", CheckResult.PASS, 0.9),)
    log = write_log(
        tmp_path / "a.jsonl",
        [
            *(exchange(n, START_S + n, release="r1", findings=good, cost_usd=0.5, tenant=TENANT) for n in range(30)),
            *(exchange(100 + n, START_S + 86_400 + n, release="r1", duration_s=1.0, tenant=TENANT, cost_usd=0.25,
                       findings=bad if n < 10 else good) for n in range(30)),
            exchange(200, START_S + 86_400 + 50, release="r1", outcome=Outcome.SERVER_ERROR, status=500, cost_usd=None),
            exchange(300, START_S + 2 * 86_400, release="r1"),
        ],
    )  # fmt: skip
    out = tmp_path / "report.html"
    assert main(["report", "daily", "--json", "--log", str(log), "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["day"]["day"] == "2025-06-17"
    (release,) = found["day"]["releases"]
    assert release["exchange_count"] == 31
    assert release["sums"][HALLUCINATION] == {"bad": 10, "count": 30, "total": 0}
    assert release["sums"][SUCCESS]["bad"] == 1
    assert release["quantiles"]["p50"] == pytest.approx(1.0, rel=0.01)
    assert found["day"]["failures"] == [["grounding", "7 days against 14", 10]]
    assert found["day"]["spending"] == [[TENANT, 7.5]]
    assert "hallucination of r1 (stable)" in found["summary"]
    assert TENANT in out.read_text(encoding="utf-8")
    assert main(["report", "daily", "--log", str(log), "--date", "2025-06-16"]) == 0
    assert "33.3" not in capsys.readouterr().out
    assert main(["report", "daily", "--log", str(log), "--date", "2020-01-01"]) == 1
    assert "no traffic" in capsys.readouterr().out


def test_a_day_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["report", "daily", "--log", str(tmp_path), "--date", "yesterday"])
    assert stopped.value.code == 2
    assert "write a day such as 2026-03-31" in capsys.readouterr().err
