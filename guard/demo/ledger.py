"""What really happened to the users, by the demo's own ground truth: the facts a right answer must hold.

Independent of the guard: it never sees a finding or a verdict.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache

from guard.demo.content import general_policies, holds_facts
from guard.demo.model import is_refusal
from guard.demo.visitors import Answered
from rag.text import sentences

RIGHT, WRONG, INVENTED, REFUSED, FAILED = "right", "wrong", "invented", "refused", "failed"


@dataclass(frozen=True, slots=True)
class ArmTruth:
    """Counts of one arm. wrong: answered without the expected fact, word for word from documents; invented: with a
    statement that is in no document; refused: said that it does not know; failed: no answer."""

    answers_count: int
    right_count: int
    wrong_count: int
    invented_count: int
    refused_count: int
    failed_count: int

    @property
    def invented_ratio(self) -> float | None:
        """Share of answers with an invented statement, None without answers."""
        return self.invented_count / self.answers_count if self.answers_count else None

    @property
    def bad_ratio(self) -> float | None:
        """Share of answers that were wrong or invented, None without answers."""
        return (self.wrong_count + self.invented_count) / self.answers_count if self.answers_count else None


def truth_of(answered: Answered) -> str:
    """right | wrong | invented | refused | failed."""
    question, text = answered.ask.question, answered.text
    if answered.status != 200 or not text:
        return FAILED
    if any(line in text for line in _inventions(question.lang)):
        return INVENTED
    if answered.refused or is_refusal(text):
        return REFUSED
    if question.facts and holds_facts(text, question.facts):
        return RIGHT
    return WRONG


class Ledger:
    """Counts answers by arm while they come."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}
        self._first_bad_wall_s: dict[str, float] = {}

    def enter(self, answered: Answered) -> str:
        """Count one answer under the release that gave it; returns its truth."""
        truth = truth_of(answered)
        self._counts.setdefault(answered.release, Counter())[truth] += 1
        if truth in (WRONG, INVENTED):
            first = self._first_bad_wall_s.get(answered.release, answered.ended_wall_s)
            self._first_bad_wall_s[answered.release] = min(first, answered.ended_wall_s)
        return truth

    def arm(self, release: str) -> ArmTruth:
        """Counts of one release."""
        counts = self._counts.get(release, Counter())
        answers_count = sum(counts.values()) - counts[FAILED]
        return ArmTruth(answers_count, counts[RIGHT], counts[WRONG], counts[INVENTED], counts[REFUSED], counts[FAILED])

    def first_bad_wall_s(self, release: str) -> float | None:
        """When a user got the first wrong or invented answer of a release, Unix seconds."""
        return self._first_bad_wall_s.get(release)


@cache
def _inventions(lang: str) -> tuple[str, ...]:
    return tuple(line for row in general_policies() if row.lang == lang for line in sentences(row.text))
