"""Labels of people beside what the check said: the corrected rate, its coverage, its memory, its endpoint."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.coverage import blind_indicators, check_coverage, corrected_row
from guard.feedback import feedback_handler
from guard.human_labels import HumanLabels
from guard.recent import RecentExchanges
from slo.ppi import Labelled, corrected_rate
from slo.types import CacheStatus, CheckResult, Exchange, Finding, Outcome, Version


@st.composite
def labelled(draw: st.DrawFn) -> Labelled:
    count = draw(st.integers(1, 100_000))
    flagged = draw(st.integers(0, count))
    n1, n0 = draw(st.integers(0, min(flagged, 200))), draw(st.integers(0, min(count - flagged, 200)))
    return Labelled(count, flagged, n1, draw(st.integers(0, n1)), n0, draw(st.integers(0, n0)))


@given(labelled())
def test_bounds_are_shares_around_the_estimate_and_nothing_is_said_under_30_labels(counts: Labelled) -> None:
    found = corrected_rate(counts)
    assert (found is None) == (counts.label_count < 30)
    if found is not None:
        assert 0.0 <= found.low <= found.rate + 1e-12
        assert found.rate - 1e-12 <= found.high <= 1.0
        assert found.high > found.low  # 30 labels never say everything


@given(st.integers(30, 200), st.integers(30, 200))
def test_people_who_agree_with_the_detector_leave_its_rate_alone(n1: int, n0: int) -> None:
    found = corrected_rate(Labelled(1000, 200, n1, n1, n0, 0))
    assert found is not None
    assert found.rate == found.raw == 0.2


def test_a_worked_example() -> None:
    """100 of 1,000 flagged; 15 of 20 flagged labels bad, 1 of 40 others: 0.1 * 0.75 + 0.9 * 0.025 = 0.0975."""
    found = corrected_rate(Labelled(1000, 100, 20, 15, 40, 1))
    assert found is not None
    assert found.rate == pytest.approx(0.0975)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0663, 0.1931)


def test_ten_times_the_labels_narrow_the_bounds() -> None:
    few, many = (
        corrected_rate(Labelled(9000, 900, 20, 15, 40, 1)),
        corrected_rate(Labelled(9000, 900, 200, 150, 400, 10)),
    )
    assert few is not None
    assert many is not None
    assert many.high - many.low < 0.5 * (few.high - few.low)


@pytest.mark.parametrize(
    ("true", "hit", "false_alarm", "labels"),
    [(0.02, 0.7, 0.05, (15, 15)), (0.05, 0.8, 0.05, (10, 20)), (0.1, 0.6, 0.1, (50, 50)), (0.3, 0.9, 0.2, (5, 25))],
    ids=["rare", "usual", "weak-detector", "frequent"],
)
def test_nominal_95_percent_bounds_hold_the_truth_in_nine_of_ten_releases(
    true: float, hit: float, false_alarm: float, labels: tuple[int, int]
) -> None:
    """People look at flagged answers more often than at others; the raw rate is off by a factor, the bounds are not."""
    chance = random.Random(7)
    held = 0
    for _ in range(200):
        bad = [chance.random() < true for _ in range(400)]
        flag = [chance.random() < (hit if b else false_alarm) for b in bad]
        strata = [[b for b, f in zip(bad, flag, strict=True) if f is wanted] for wanted in (True, False)]
        seen = [chance.sample(rows, min(n, len(rows))) for rows, n in zip(strata, labels, strict=True)]
        counts = Labelled(400, sum(flag), len(seen[0]), sum(seen[0]), len(seen[1]), sum(seen[1]))
        found = corrected_rate(counts, min_labels=1)
        assert found is not None
        held += found.low <= true <= found.high
    assert held >= 180  # 190 expected; seeded, so it never changes


def judged(number: int, result: CheckResult = CheckResult.PASS, release: str = "r1") -> Exchange:
    finding = Finding("grounding", result, 0.5)
    return Exchange(f"e{number}", 0.0, "chat", release, "stable", Outcome.OK, 200, findings=(finding,))


@pytest.mark.anyio
async def test_labels_and_counts_survive_a_restart_and_the_last_label_counts(tmp_path: Path) -> None:
    labels = HumanLabels(tmp_path)
    for number in range(40):
        labels.checked(judged(number, CheckResult.FAIL if number < 8 else CheckResult.PASS))
    labels.checked(judged(90, CheckResult.UNAVAILABLE))
    assert await labels.label("e90", "supported") is None
    assert await labels.label("strange", "supported") is None
    for number in range(40):
        assert await labels.label(f"e{number}", "hallucinated" if number < 4 else "supported") == "r1"
    await labels.label("e0", "supported")
    again = HumanLabels(tmp_path)
    assert again.counts("r1") == Labelled(40, 8, 8, 3, 32, 0)
    version = Version("v1")
    assert corrected_row(version, again).rate_ratio is None
    rows = {labels["bound"]: value for name, labels, value in again.gauges() if "corrected" in name}
    assert rows["estimate"] == pytest.approx(0.075)
    assert rows["lower"] < 0.075 < rows["upper"]


def test_a_damaged_file_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / "human_labels.json").write_text("{")
    assert HumanLabels(tmp_path).counts("r1") == Labelled(0, 0)
    assert (tmp_path / "human_labels.damaged").read_text() == "{"


@pytest.mark.anyio
async def test_a_label_needs_the_token_and_an_answer_that_was_judged(tmp_path: Path) -> None:
    labels, recent, thumbs = HumanLabels(tmp_path), RecentExchanges(), []
    for number in (1, 2):
        recent.served(judged(number))
    labels.checked(judged(1))
    handle = feedback_handler(
        recent, lambda release, up: thumbs.append((release, up)), label=labels.label, token=lambda: "t" * 20
    )
    allowed = {b"authorization": b"Bearer " + b"t" * 20}

    async def post(headers: dict[bytes, bytes], **body: str) -> int:
        return (await handle(headers, json.dumps(body).encode()))[0]

    assert await post({}, exchange_id="e1", label="hallucinated") == 401
    assert await post({b"authorization": b"Bearer wrong"}, exchange_id="e1", label="hallucinated") == 401
    lower = {b"authorization": b"bearer  " + b"t" * 20}
    assert await post(lower, exchange_id="e2", label="hallucinated") == 409
    assert await post({b"authorization": b"Basic " + b"t" * 20}, exchange_id="e2", label="supported") == 401
    assert await post(allowed, exchange_id="e1") == 400
    assert await post(allowed, exchange_id="e1", label="perhaps") == 400
    assert await post(allowed, exchange_id="e2", label="hallucinated") == 409
    assert await post(allowed, exchange_id="e1", label="hallucinated") == 202
    assert await post(allowed, exchange_id="e1", label="supported", thumb="up") == 202
    assert thumbs == [("r1", True)]
    assert labels.counts("r1") == Labelled(1, 0, 0, 0, 1, 0)
    nobody = feedback_handler(recent, lambda *_: None, label=labels.label, token=lambda: None)
    assert (await nobody(allowed, b'{"exchange_id":"e1","label":"supported"}'))[0] == 401


def test_coverage_counts_what_was_judged_of_what_could_have_been() -> None:
    exchanges = [
        judged(1), judged(2, CheckResult.FAIL), judged(3, CheckResult.UNAVAILABLE), judged(4, CheckResult.SKIPPED),
        Exchange("e5", 0.0, "chat", "r1", "stable", Outcome.OK, 200),
        Exchange("e6", 0.0, "chat", "r1", "stable", Outcome.OK, 200, cache=CacheStatus.HIT),
    ]  # fmt: skip
    assert check_coverage(exchanges) == {"grounding": 0.5}
    assert check_coverage(()) == {}
    assert blind_indicators({"pii": "x", "similarity": "y"}) == {"sft_quality_similarity_score": "y"}


@pytest.mark.anyio
async def test_labels_at_the_same_time_are_all_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy of the first is written last: a slow thread must not put the older file over the newer one."""
    labels = HumanLabels(tmp_path)
    for number in (1, 2):
        labels.checked(judged(number))
    first, second = (judged(number).exchange_id for number in (1, 2))
    waiting = asyncio.Event()
    calls: list[str] = []

    async def to_thread(work: Any, *args: Any) -> None:
        calls.append("")
        if len(calls) == 1:
            await waiting.wait()
        work(*args)
        waiting.set()

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    await asyncio.gather(labels.label(first, "supported"), labels.label(second, "supported"))
    assert HumanLabels(tmp_path).counts("r1").clean_labels == 2
