"""What a fine-tuned model learnt: asked in the phrasings it was trained on, and in others. Pure.

The practice saw trained phrasings answered exactly, and unseen ones in the right tone and form with invented content.
So tone and form are measured beside similarity and support: a good form says nothing about the facts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rag.finetune.rows import Templates, examples_of, reply
from rag.finetune.topics import topic_of
from rag.text import fold_width, language, normalise_space
from rag.types import Document

TRAINED, UNSEEN = "trained", "unseen"
ACCURATE, HIGH, POOR = 0.90, 0.85, 0.50
"""Lines of the practice: accuracy, high-quality rate, poor rate."""

_POINT = re.compile(r"(?m)^[^\S\n]*([123])[.)\u3001]")


@dataclass(frozen=True, slots=True)
class Case:
    """One question. reference: the reply that would be right. contexts: what its claims may rest on."""

    kind: str
    question: str
    reference: str
    contexts: tuple[str, ...]
    system: str
    doc_id: str


@dataclass(frozen=True, slots=True)
class Grade:
    """similarity: to the reference, 0..1, None when it cannot be told. hallucinated: None when not checked."""

    similarity: float | None
    hallucinated: bool | None


@dataclass(frozen=True, slots=True)
class Graded:
    """A case, what the model said, and what that is worth."""

    case: Case
    answer: str
    grade: Grade

    @property
    def exact(self) -> bool:
        """Word for word, white space aside."""
        return normalise_space(self.answer) == normalise_space(self.case.reference)

    @property
    def formed(self) -> bool:
        """Three numbered points, as trained."""
        return list(_POINT.findall(fold_width(self.answer))) == ["1", "2", "3"]


def cases_of(documents: Sequence[Document], templates: Templates, data_date: str) -> list[Case]:
    """Trained phrasings (those that `ft export` writes) and the `unseen` ones of the templates, per document."""
    by_id = {document.doc_id: document for document in documents}
    cases = [
        Case(TRAINED, e.question, e.answer, (by_id[e.group].text, e.answer), e.system, e.group)
        for e in examples_of(documents, templates, data_date).examples
    ]
    for document in documents:
        words = templates.by_language.get(document.lang or language(document.text))
        topic = topic_of(document)
        if words is None or not topic:
            continue
        right = reply(document, words, data_date)
        cases += [
            Case(UNSEEN, ask.format(topic=topic), right, (document.text, right), words.system, document.doc_id)
            for ask in words.unseen
        ]
    return cases


def evaluate(
    cases: Iterable[Case], ask: Callable[[Case], str], grade: Callable[[Case, str], Grade], tell: Callable[[int], None]
) -> list[Graded]:
    """Ask every case. tell: how many are done."""
    graded: list[Graded] = []
    for case in cases:
        answer = ask(case)
        graded.append(Graded(case, answer, grade(case, answer)))
        tell(len(graded))
    return graded


def summary(graded: Sequence[Graded]) -> dict[str, object]:
    """Figures of one kind of question; ratios are None where nothing could be measured."""
    known = [one.grade.similarity for one in graded if one.grade.similarity is not None]
    checked = [one.grade.hallucinated for one in graded if one.grade.hallucinated is not None]

    def share(hits: int, of: int) -> float | None:
        return round(hits / of, 4) if of else None

    return {
        "count": len(graded),
        "exact_ratio": share(sum(one.exact for one in graded), len(graded)),
        "form_ratio": share(sum(one.formed for one in graded), len(graded)),
        "similarity_mean": round(sum(known) / len(known), 4) if known else None,
        "accuracy_ratio": share(sum(s >= ACCURATE for s in known), len(known)),
        "high_quality_ratio": share(sum(s >= HIGH for s in known), len(known)),
        "poor_ratio": share(sum(s < POOR for s in known), len(known)),
        "hallucinated_ratio": share(sum(checked), len(checked)),
        "unchecked_count": len(graded) - len(checked),
    }
