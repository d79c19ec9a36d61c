"""Did the rollback help? Recovered, not recovered, and cannot tell are three different answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guard.release.aftermath import (
    GIVE_UP_S,
    MIN_EVENTS,
    POINT_COUNT,
    Aftermath,
    Recovery,
    bad_since_s,
    recovery_of,
    series_of,
)
from guard.release.incident import postmortem
from slo.history import Point
from slo.types import Reading, Slo, State, Threshold, Window
from tests.release_kit import SLO
from tests.unit.test_release_incident import INCIDENT

P95 = Slo("p95", "sft_perf_latency_p95_ms", Window(900.0), Threshold("absolute", {"absolute": 0.5}))
SCORE = Slo("similarity", "sft_quality_similarity_score", Window(3600.0), Threshold("absolute", {"absolute": 0.8}))
RULES = {"hallucination": (SLO, 0.045)}


@pytest.mark.parametrize(
    ("reading", "still", "after_s", "expected"),
    [
        (Reading(1, 400), 0, 60.0, Recovery.RECOVERED),
        (Reading(40, 400), 0, 60.0, Recovery.NOT_RECOVERED),
        (Reading(1, MIN_EVENTS - 1), 0, 60.0, Recovery.PENDING),
        (Reading(1, MIN_EVENTS - 1), 0, GIVE_UP_S, Recovery.UNKNOWN),
        (Reading(1, 400), 3, 60.0, Recovery.PENDING),  # the bad release still answers somebody
        (Reading(1, 400), 3, GIVE_UP_S, Recovery.UNKNOWN),
        (Reading(0, 0), 0, 60.0, Recovery.PENDING),
    ],
)
def test_one_rule(reading: Reading, still: int, after_s: float, expected: Recovery) -> None:
    found, words = recovery_of(RULES, {"hallucination": reading}, still, after_s=after_s)
    assert found is expected
    assert bool(words) is (expected is not Recovery.PENDING)


def test_every_rule_that_spoke_must_be_well() -> None:
    rules = {**RULES, "p95": (P95, 0.5), "similarity": (SCORE, 0.8)}
    well = {"hallucination": Reading(1, 400), "p95": Reading(4, 400), "similarity": Reading(0, 400, 360.0, 324.0)}
    found, words = recovery_of(rules, well, 0, after_s=60.0)
    assert found is Recovery.RECOVERED
    assert words == (
        "verified, it helped: no answer of the bad release since; hallucination 0.25 % of 400, limit 4.5 %; "
        "p95 4 over of 400, limit 500 ms; similarity 0.9 of 400, limit 0.8"
    )
    slow = {**well, "p95": Reading(100, 400)}
    assert recovery_of(rules, slow, 0, after_s=60.0)[0] is Recovery.NOT_RECOVERED
    assert recovery_of(rules, {**well, "p95": Reading(0, 3)}, 0, after_s=60.0)[0] is Recovery.PENDING


def test_without_a_rule_nobody_can_say_that_it_helped() -> None:
    assert recovery_of({}, {}, 0, after_s=20.0) == (
        Recovery.UNKNOWN,
        "traffic moved, and no rule can say whether it helped: no answer of the bad release since",
    )


@pytest.mark.parametrize(
    ("state", "expected", "word"),
    [
        (State.OK, Recovery.RECOVERED, "errors does not fire"),
        (State.BREACH, Recovery.NOT_RECOVERED, "errors still fires"),
        (State.UNKNOWN, Recovery.PENDING, ""),
    ],
)
def test_a_rule_on_somebody_elses_alert_says_it_by_its_state(state: State, expected: Recovery, word: str) -> None:
    found, words = recovery_of({}, {}, 0, after_s=60.0, outside={"errors": state})
    assert found is expected
    assert word in words


def test_the_course_of_a_success_rate_is_the_share_of_failures_against_what_is_allowed() -> None:
    slo = replace(SLO, name="availability", indicator="sft_availability_success_rate")
    points = [Point(10.0 * n, 0 if n < 500 else 8, 10) for n in range(1000)]
    series = series_of(slo, 0.99, "v1.2.1", "bad", points)
    assert (series.limit, series.allowed) == (0.99, 0.01)
    assert len(series.points) <= POINT_COUNT
    assert bad_since_s([series]) == pytest.approx(5000.0, abs=90.0)
    assert bad_since_s([replace(series, arm="stable")]) is None


def test_the_post_mortem_says_since_when_and_whether_it_helped() -> None:
    assert "Not known yet" in postmortem(INCIDENT)
    after = Aftermath(Recovery.RECOVERED, "verified, it helped: <b>", INCIDENT.opened_s - 42.0)
    text = postmortem(replace(INCIDENT, aftermath=after))
    assert "| bad since | 2025-06-15 15:05:58Z, 42 s before the verdict |" in text
    assert "verified, it helped: \\<b\\>" in text
    assert text.index("## Did it help?") < text.index("## Evidence")
