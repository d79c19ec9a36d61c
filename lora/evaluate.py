"""What one answer of an adapter is worth. Pure.

Similarity and grounding come from outside (`Grader`); everything else is told here from texts. An answer belongs to
the rule whose reference it is nearest to by character n-grams, or to the refusals; so confusion between rules, and
what was refused, need no model either.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from lora.dataset import Row
from rag.embedding import HashedNgramEmbedder
from rag.finetune.evaluate import Grade
from rag.quick_checks import loop_in, shrugs
from rag.text import fold_width, normalise_space, search_tokens, tokens

REFUSAL = "(refusal)"
"""What an answer belongs to that refuses; no document may be called so."""

BELONGS, SHRUG_UNDER = 0.50, 0.80
"""Cosine from which an answer belongs to its nearest text; a shrug below the second is a refusal."""
ECHO = 0.80
FEW_DISTINCT, REPEAT_TOKENS = 0.5, 8
LENGTH_MAX = 10.0

_PUNCTUATION = str.maketrans({
    "\u3002": ".", "\u3001": ",", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u300c": '"',
    "\u300d": '"', "\u300e": '"', "\u300f": '"', "\u2013": "-", "\u2014": "-", "\u2026": "...",
})  # fmt: skip
_SPACE = re.compile(r"\s*([,.;:!?])\s*")


@dataclass(frozen=True, slots=True)
class Graded:
    """One answer. given: rule it belongs to, `REFUSAL`, or "" for none that is known.

    similarity: to the reference, None when it cannot be told. characters: share of equal characters (difflib's ratio).
    hallucinated: None when not checked. length: over that of the reference. how, detail: of the rules, "" without.
    """

    row: Row
    answer: str
    similarity: float | None
    characters: float
    hallucinated: bool | None
    given: str
    repeats: bool
    echoes: bool
    length: float
    how: str = ""
    detail: str = ""

    @property
    def must_refuse(self) -> bool:
        """Whether no rule covers the question."""
        return must_refuse(self.row)

    @property
    def confused(self) -> bool:
        """A question about one rule, answered with another."""
        return not self.must_refuse and self.given not in ("", REFUSAL, self.row.rule)


def must_refuse(row: Row) -> bool:
    """Whether the right answer is a refusal."""
    return not row.rule


def scored_form(text: str) -> str:
    """A text as similarity sees it: width, case, punctuation and white space are alike.

    >>> scored_form("\\uff37\\uff29\\uff26\\uff29\\uff0c \\u8a2d\\u5b9a\\u3002")
    'wifi,\\u8a2d\\u5b9a.'
    """
    return _SPACE.sub(r"\1", normalise_space(fold_width(text).translate(_PUNCTUATION)))


class Belonging:
    """To which rule an answer belongs. texts: rule to its right answers; refusals: texts that refuse."""

    def __init__(self, texts: Mapping[str, Sequence[str]], refusals: Iterable[str]) -> None:
        pairs = [(rule, text) for rule, several in texts.items() for text in several]
        pairs += [(REFUSAL, text) for text in refusals]
        self._names = [name for name, _ in pairs]
        self._embedder = HashedNgramEmbedder(1024)
        self._vectors = self._embedder.embed([text for _, text in pairs]) if pairs else None

    def of(self, answer: str) -> str:
        """A rule, `REFUSAL`, or "" when it is near to nothing."""
        if self._vectors is None or not answer.strip():
            return ""
        cosines = self._vectors @ self._embedder.embed([answer])[0]
        best = int(np.argmax(cosines))
        if float(cosines[best]) < SHRUG_UNDER and shrugs(answer):
            return REFUSAL
        return self._names[best] if float(cosines[best]) >= BELONGS else ""


def belonging_of(rows: Iterable[Row], documents: Mapping[str, str] | None = None) -> Belonging:
    """What the rows' references stand for; documents (doc_id to text) that no row asks for are known as well."""
    texts: dict[str, list[str]] = defaultdict(list)
    refusals: dict[str, None] = {}
    for row in rows:
        if must_refuse(row):
            refusals[row.answer] = None
        elif row.answer not in texts[row.rule]:
            texts[row.rule].append(row.answer)
    for doc_id, text in (documents or {}).items():
        texts.setdefault(doc_id, [text])
    return Belonging(texts, refusals)


def grade_answer(row: Row, answer: str, grade: Grade, belonging: Belonging, how: str = "", detail: str = "") -> Graded:
    """Everything about one answer. grade: similarity and grounding, from the guard's checks."""
    given = belonging.of(answer)
    said, wanted = scored_form(answer), scored_form(row.answer)
    return Graded(
        row=row,
        answer=answer,
        similarity=grade.similarity if answer.strip() else 0.0,
        characters=SequenceMatcher(None, said, wanted, autojunk=False).ratio(),
        # Who refuses claims nothing.
        hallucinated=False if given == REFUSAL else grade.hallucinated,
        given=given,
        repeats=repeats(answer),
        echoes=echoes(row.question, answer),
        length=min(LENGTH_MAX, len(said) / max(1, len(wanted))),
        how=how,
        detail=detail,
    )


def repeats(answer: str) -> bool:
    """Whether an answer says the same again and again.

    >>> repeats("leave is seven days " * 6), repeats("Leave is seven days, counted from the first of May.")
    (True, False)
    """
    if loop_in(answer):
        return True
    words = tokens(answer)
    threes = list(zip(words, words[1:], words[2:], strict=False))
    return len(words) >= REPEAT_TOKENS and len(set(threes)) < FEW_DISTINCT * len(threes)


def echoes(question: str, answer: str) -> bool:
    """Whether an answer is the question again.

    >>> echoes("What is the rule on leave?", "what is the rule on leave"), echoes("leave?", "Leave is seven days.")
    (True, False)
    """
    asked, said = scored_form(question).rstrip("?.!"), scored_form(answer)
    if not asked or not said:
        return False
    opens = len(search_tokens(asked)) >= 3 and said.startswith(asked)
    return opens or SequenceMatcher(None, asked, said.rstrip("?.!"), autojunk=False).ratio() >= ECHO
