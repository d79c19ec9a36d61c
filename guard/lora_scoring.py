"""Scores answers of an adapter and of its base, raw and after the rules, with the guard's own checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from guard.checks.spec import CheckSpec
from guard.finetune_grading import grader
from lora.dataset import Row
from lora.evaluate import Belonging, Graded, belonging_of, grade_answer, scored_form
from lora.evaluation import ADAPTER, ADAPTER_RULES, BASE, BASE_RULES
from lora.postprocess import PostProcessor
from rag.finetune.evaluate import Case, Grade
from slo.errors import DataError

Grader = Callable[[Case, str], Grade]
_AFTER = {ADAPTER: ADAPTER_RULES, BASE: BASE_RULES}


class Scorer:
    """Grades against the rows of one set. documents: doc_id to text, as far as known: what claims may rest on.

    graded_by: the embedder of similarity, in words.

    Raises:
        DataError: the embedder that was named cannot be used.
    """

    def __init__(self, rows: Sequence[Row], documents: Mapping[str, str], embedder: str) -> None:
        self._rows, self._documents = rows, documents
        self._grade, self.graded_by = grader(CheckSpec(embedder=embedder), scored_form)
        if embedder != "none" and self.graded_by.startswith("embedder"):
            raise DataError(f"--embedder {embedder}: {self.graded_by}")
        self._belonging: Belonging = belonging_of(rows, documents)

    def sides(self, answers: Mapping[str, Sequence[str]], rules: PostProcessor | None) -> dict[str, tuple[Graded, ...]]:
        """Every side of `answers` (by name), and with rules each of them again after the rules."""
        found: dict[str, tuple[Graded, ...]] = {}
        for name, texts in answers.items():
            found[name] = tuple(self._one(row, text) for row, text in zip(self._rows, texts, strict=True))
            if rules is not None:
                found[_AFTER[name]] = tuple(self._processed(one, rules) for one in found[name])
        return found

    def _one(self, row: Row, answer: str, how: str = "", detail: str = "") -> Graded:
        contexts = tuple(dict.fromkeys(filter(None, (self._documents.get(row.rule, ""), row.answer))))
        case = Case(row.kind, row.question, row.answer, contexts, "", row.rule)
        return grade_answer(row, answer, self._grade(case, answer), self._belonging, how, detail)

    def _processed(self, raw: Graded, rules: PostProcessor) -> Graded:
        after = rules.process(raw.row.question, raw.answer)
        return self._one(raw.row, after.text, after.how, after.detail)
