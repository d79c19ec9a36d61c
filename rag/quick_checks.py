"""Cheap looks at a model's answer before it goes out: reasons to ask the stronger model, once. Pure, fast.

They find what can be seen without meaning: nothing said, a shrug, a cut, a loop, the wrong script, numbers that stand
neither in the documents nor in the question, hardly a word of the documents. A fluent wrong answer passes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from rag.text import fold_width, has_cjk, language, search_tokens

SUPPORT_RATIO_MIN = 0.25
"""Least share of the answer's words that the documents or the question hold."""

_SUPPORT_TOKENS_MIN = 6  # of a shorter answer ("Yes.") nothing can be said
_LOOP_COUNT = 4
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_LIST_MARK = re.compile(r"(?m)^[^\S\n]*\d{1,2}[.)\u3001]\s*|\[\d{1,2}\]")
_SHRUG = re.compile(
    r"\b(?:i (?:do not|don't|cannot|can't) (?:know|find|answer)|(?:not|no) (?:mentioned|stated|information|answer)|"
    r"as an ai\b|unable to (?:find|answer))"
    r"|\u7121\u6cd5(?:\u56de\u7b54|\u78ba\u5b9a|\u5f97\u77e5)|\u4e0d\u77e5\u9053|\u6c92\u6709(?:\u76f8\u95dc|\u63d0\u4f9b|\u63d0\u5230|\u7b54\u6848)"
    r"|\u672a(?:\u63d0\u53ca|\u63d0\u4f9b|\u8aaa\u660e)",
    re.IGNORECASE,
)


class QuickCheck(Protocol):
    """Why an answer should be asked again of the stronger model; "" for a good one."""

    def __call__(self, question: str, contexts: Sequence[str], answer: str, finish_reason: str) -> str: ...


def doubt(question: str, contexts: Sequence[str], answer: str, finish_reason: str = "stop") -> str:
    """The first reason to doubt the answer, "" when there is none.

    >>> doubt("How long?", ["Leave is 14 days."], "Leave is 15 days.")
    'number 15 is neither in the documents nor in the question'
    """
    if not answer.strip():
        return "empty answer"
    if finish_reason == "length":
        return "cut off at the token limit"
    if shrugs(answer):
        return "says that it does not know, although retrieval is confident"
    if language(question) == "zh-TW" and not has_cjk(answer):
        return "answers in another script than the question"
    if loop := loop_in(answer):
        return f"repeats itself: {loop!r}"
    known = fold_width("\n".join((question, *contexts)))
    numbers = set(_NUMBER.findall(known))
    for number in _NUMBER.findall(_LIST_MARK.sub(" ", fold_width(answer))):
        if number not in numbers and number not in known:
            return f"number {number} is neither in the documents nor in the question"
    said = dict.fromkeys(search_tokens(answer))
    if len(said) >= _SUPPORT_TOKENS_MIN:
        held = set(search_tokens(known))
        ratio = sum(token in held for token in said) / len(said)
        if ratio < SUPPORT_RATIO_MIN:
            return f"only {ratio:.0%} of its words are in the documents"
    return ""


def shrugs(answer: str) -> bool:
    """Whether the answer says that it does not know."""
    return _SHRUG.search(answer) is not None


def loop_in(answer: str) -> str:
    """A clause that is said again and again, "" without one."""
    clauses = [part.strip() for part in re.split(r"[\n.!?;,\u3002\uff01\uff1f\uff1b\uff0c]+", answer)]
    counts: dict[str, int] = {}
    for clause in clauses:
        if len(clause) >= 4:
            counts[clause] = counts.get(clause, 0) + 1
            if counts[clause] >= _LOOP_COUNT:
                return clause[:40]
    return ""
