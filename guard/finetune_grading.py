"""Grades the answers of a fine-tuned model with the guard's own checks: similarity to the reference, grounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from guard.checks.similarity import check_similarity
from guard.checks.spec import CheckSpec
from guard.checks.suite import CheckSuite
from guard.checks.worker import load_semantic
from guard.ports import ExchangeText
from rag.finetune.evaluate import Case, Grade
from slo.types import CheckResult


def grader(spec: CheckSpec, form: Callable[[str], str] | None = None) -> tuple[Callable[[Case, str], Grade], str]:
    """(grade an answer, by what).

    form: how texts are seen by similarity, for one that leaves width and punctuation aside; grounding reads them as
    they are.

    Raises:
        DataError: the calibration file is damaged.
    """
    suite = CheckSuite(replace(spec, drift=False, pii=False))
    line = suite.embedder_line
    if spec.embedder != "none":
        line, suite.semantic = load_semantic(spec)
    seen = form or (lambda text: text)

    def grade(case: Case, answer: str) -> Grade:
        text = ExchangeText(case.question, answer, case.contexts, None, case.reference)
        grounding = suite.ground(text, ())
        similar = check_similarity(seen(answer), None, seen(case.reference), suite.semantic)
        known = grounding.result in (CheckResult.PASS, CheckResult.FAIL)
        return Grade(similar.score, grounding.result is CheckResult.FAIL if known else None)

    return grade, line
