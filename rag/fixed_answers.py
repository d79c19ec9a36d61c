"""Fixed answers for what is asked all the time: the first stage of the answer path (`RULE`). Pure.

Worth it for few questions that come often (the practice: fewer than 100 answers, more than 80 % repeats). A phrasing
matches as a whole, whatever its width, case and punctuation; keywords match when all of `all`, one of
`any` and none of `none`, in a short question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rag.text import count_tokens, fold_width, near_hash

ANSWERS_MAX = 100
QUESTION_TOKENS_MAX = 30
"""Keywords say little about a longer question: it may ask for something beside the topic."""


@dataclass(frozen=True, slots=True)
class FixedAnswer:
    """One answer. topic: its name in the response and in logs."""

    topic: str
    answer: str
    phrasings: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    none: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleAnswer:
    """What a rule says. topic: which one. how: `phrasing` or `keywords`."""

    text: str
    topic: str
    how: str


class RuleStage(Protocol):
    """The port of the first stage: an answer by rule, or None to go on."""

    def answer(self, question: str) -> RuleAnswer | None: ...


class FixedAnswers:
    """`RuleStage` over a list; the first entry that matches answers, phrasings before keywords."""

    def __init__(self, answers: Sequence[FixedAnswer] = ()) -> None:
        self._answers = tuple(answers)
        self._by_phrasing = {
            near_hash(phrasing): entry for entry in reversed(self._answers) for phrasing in entry.phrasings
        }

    def answer(self, question: str) -> RuleAnswer | None:
        """The fixed answer to this question."""
        if entry := self._by_phrasing.get(near_hash(question)):
            return RuleAnswer(entry.answer, entry.topic, "phrasing")
        if count_tokens(question) > QUESTION_TOKENS_MAX:
            return None
        padded = padded_letters(question)
        for entry in self._answers:
            if (entry.all or entry.any) and _matches(entry, padded):
                return RuleAnswer(entry.answer, entry.topic, "keywords")
        return None


def _matches(entry: FixedAnswer, padded: str) -> bool:
    return (
        all(holds(padded, word) for word in entry.all)
        and (not entry.any or any(holds(padded, word) for word in entry.any))
        and not any(holds(padded, word) for word in entry.none)
    )


def padded_letters(text: str) -> str:
    """A text as `holds` looks at it."""
    return f" {' '.join(_letters(text).split())} "


def holds(padded: str, keyword: str) -> bool:
    """Whether the keyword is in a text of `padded_letters`.

    Latin keywords match whole words (`vpn` is not in `vpns`), Chinese ones anywhere: it has no word breaks.
    """
    wanted = " ".join(_letters(keyword).split())
    return f" {wanted} " in padded if wanted.isascii() else wanted in padded


def _letters(text: str) -> str:
    """Width and case folded, punctuation out; Latin words inside Chinese stand alone."""
    out: list[str] = []
    was_ascii = True
    for character in fold_width(text):
        if not character.isalnum():
            out.append(" ")
            continue
        if out and out[-1] != " " and character.isascii() != was_ascii:
            out.append(" ")
        was_ascii = character.isascii()
        out.append(character)
    return "".join(out)
