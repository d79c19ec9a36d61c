"""Slower tiers behind the grounding check: held, answered, given up; what they may change and what not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from guard.checks.frames import Done
from guard.checks.grounding import read_claims
from guard.checks.opinion import Opinion, Question
from guard.checks.opinions import HELD_COUNT, Opinions
from guard.checks.spec import CheckSpec
from guard.checks.suite import CheckSuite
from guard.ports import ExchangeText
from slo.types import CheckResult, Finding

CONTEXT = "Employees receive 14 days of annual leave per year. Unused days expire on 31 March."
SUITE = CheckSuite(CheckSpec(embedder="none"))
EVERYTHING = (-0.1, 1.1)


class Slow:
    """A detector that answers when the test says so."""

    threshold = 0.5

    def __init__(self, check: str = "detector", problem: str = "", at_once: Opinion | None = None) -> None:
        self.check, self.name, self.problem, self._at_once = check, f"slow {check}", problem, at_once
        self.asked: list[tuple[int, Question]] = []
        self.said: list[tuple[int, Opinion]] = []

    def filenos(self) -> Sequence[int]:
        return ()

    def ask(self, ticket: int, asked: Question) -> Opinion | None:
        self.asked.append((ticket, asked))
        return self._at_once

    def collect(self) -> list[tuple[int, Opinion]]:
        said, self.said = self.said, []
        return said

    def look(self, *, retest: bool = False) -> None:
        """Nothing to look at."""

    def close(self) -> None:
        """Nothing to stop."""


def begin(opinions: Opinions, answer: str, job_id: int = 1) -> Done | None:
    text = ExchangeText("How much leave?", answer, (CONTEXT,))
    findings = SUITE.check(text, release="r", arm="stable")
    claims = tuple(c.text for c in read_claims(answer)[0])
    asked = Question("en", text.question, answer, claims, (CONTEXT,))
    return opinions.begin(Done(job_id, findings, None), asked, lambda tiers: SUITE.ground(text, tiers))


def of(done: Done | None, check: str) -> Finding:
    assert done is not None
    (found,) = [f for f in done.findings if f.check == check]
    return found


PLAIN = "Annual leave is granted to staff each year."


@pytest.mark.parametrize(
    ("chance", "result"), [(0.02, CheckResult.PASS), (0.98, CheckResult.FAIL)], ids=["good", "bad"]
)
def test_a_model_decides_claims_in_its_band(chance: float, result: CheckResult) -> None:
    slow = Slow()
    opinions = Opinions([slow], [EVERYTHING])
    assert begin(opinions, PLAIN) is None
    assert opinions.collect() == []
    ((ticket, asked),) = slow.asked
    assert (ticket, asked.claims, asked.unsure) == (1, (PLAIN,), True)
    slow.said = [(1, Opinion((chance,), cost_usd=0.25))]
    (done,) = opinions.collect()
    assert of(done, "grounding").result is result
    assert "slow detector" in of(done, "grounding").detector
    assert of(done, "detector").result is result
    assert done.judge_usd == 0.25
    assert len([f for f in done.findings if f.check == "grounding"]) == 1


def test_a_contradiction_stays_one_whatever_a_model_says() -> None:
    slow = Slow(at_once=Opinion((0.0,)))
    done = begin(Opinions([slow], [EVERYTHING]), "Employees receive 30 days of annual leave per year.")
    assert of(done, "grounding").result is CheckResult.FAIL
    assert of(done, "detector").result is CheckResult.PASS


def test_what_a_model_cannot_say_changes_nothing_and_is_never_a_pass() -> None:
    before = of(begin(Opinions([], []), PLAIN), "grounding")
    for opinion, result in (
        (Opinion(problem="detector: broke"), CheckResult.UNAVAILABLE),
        (Opinion(skipped="detector busy: sampled"), CheckResult.SKIPPED),
    ):
        done = begin(Opinions([Slow(at_once=opinion)], [EVERYTHING]), PLAIN)
        assert of(done, "grounding") == before
        assert of(done, "detector").result is result


def test_the_judge_is_asked_after_the_model_and_about_what_it_leaves_in_doubt() -> None:
    model, judge = Slow("detector"), Slow("judge")
    opinions = Opinions([model, judge], [EVERYTHING, (0.15, 0.85)])
    assert begin(opinions, PLAIN) is None
    model.said = [(1, Opinion((0.5,)))]
    assert opinions.collect() == []  # still in doubt: now the judge
    ((_, asked),) = judge.asked
    assert asked.unsure
    judge.said = [(1, Opinion((0.95,)))]
    (done,) = opinions.collect()
    assert (of(done, "grounding").result, of(done, "judge").result) == (CheckResult.FAIL, CheckResult.FAIL)
    sure = Slow("judge", at_once=Opinion(skipped="not sampled"))
    model = Slow("detector", at_once=Opinion((0.01,)))
    begin(Opinions([model, sure], [EVERYTHING, (0.15, 0.85)]), PLAIN)
    assert not sure.asked[0][1].unsure


def test_no_more_answers_are_held_than_the_pipeline_can_spare() -> None:
    opinions = Opinions([Slow()], [EVERYTHING])
    assert [begin(opinions, PLAIN, n) for n in range(HELD_COUNT)] == [None] * HELD_COUNT
    assert "too many answers wait" in of(begin(opinions, PLAIN, 99), "detector").reason


def test_problems_are_told_by_check() -> None:
    assert Opinions([Slow(problem="x"), Slow("judge")], [EVERYTHING] * 2).problems == {"detector": "x"}
