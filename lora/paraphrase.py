"""More questions about a rule by a language model, and which of them are kept. Pure.

A model asked for other words may change what is asked: another number is another rule. What is not the same question by
number, language, length or form is left out and named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rag.text import fold_width, has_cjk, near_hash, normalise_space

CHARACTERS_MAX = 200
LINES_MAX = 40
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|\(?\d{1,2}[.):\u3001\uff0e])\s*")
_QUOTES = "\"'\u201c\u201d\u2018\u2019\u300c\u300d`"
_DIGITS = re.compile(r"\d+(?:[.,:/]\d+)*")

Numbers = Callable[[str], Sequence[tuple[float, str]]]
"""Quantities of a text as (value, unit): words and Chinese numerals count as well."""


@dataclass(frozen=True, slots=True)
class Paraphrases:
    """kept: doc_id to questions. rejected: (doc_id, question, why)."""

    kept: Mapping[str, tuple[str, ...]]
    rejected: tuple[tuple[str, str, str], ...] = ()


def request_of(topic: str, examples: Sequence[str], count: int, lang: str) -> str:
    """What the model is asked.

    >>> "5 other" in request_of("leave", ["leave?"], 5, "en")
    True
    """
    shown = "\n".join(f"- {example}" for example in examples)
    if lang.startswith("zh"):
        return (
            f"\u8acb\u7528 {count} \u7a2e\u4e0d\u540c\u8aaa\u6cd5\u8a62\u554f\u300c{topic}\u300d"
            f"\u7684\u898f\u5b9a\u3002"
            f"\u4e00\u884c\u4e00\u500b\u554f\u984c\uff0c\u4e0d\u52a0\u7de8\u865f\uff0c\u4e0d\u8981\u56de\u7b54\uff0c"
            f"\u6240\u6709\u6578\u5b57\u8207\u540d\u7a31\u7167\u539f\u6a23\u5beb\u3002\u4f8b\u5982\uff1a\n{shown}"
        )
    return (
        f"Write {count} other questions about the rule on \u201c{topic}\u201d, as different people would ask them: "
        f"some short, some formal, some chatty. One a line, without numbering, without answers. Keep every number and "
        f"name as it is. For example:\n{shown}"
    )


def questions_in(reply: str) -> list[str]:
    """The lines of a reply without bullets and quotation marks.

    >>> questions_in('1. How much leave?\\n\\n- "Leave, how long?"')
    ['How much leave?', 'Leave, how long?']
    """
    lines = (_BULLET.sub("", line).strip().strip(_QUOTES).strip() for line in reply.splitlines())
    return [normalise_space(line) for line in lines if line]


def why_not(question: str, topic: str, lang: str, known: set[str], numbers: Numbers) -> str:
    """Why a question is left out; empty when it is kept. known: `near_hash` of the questions that are there.

    >>> why_not("Leave after 8 days?", "leave after 7 days", "en", set(), lambda text: [])
    'other numbers'
    """
    if len(question) > CHARACTERS_MAX:
        return "too long"
    if near_hash(question) in known:
        return "already there"
    if has_cjk(question) != lang.startswith("zh"):
        return "another language"
    if _digits(question) != _digits(topic) or sorted(numbers(question)) != sorted(numbers(topic)):
        return "other numbers"
    return ""


def kept_of(
    replies: Mapping[str, str], topics: Mapping[str, tuple[str, str]], known: set[str], numbers: Numbers, count: int
) -> Paraphrases:
    """Sort the replies. topics: doc_id to (topic, language). count: kept a rule at most."""
    kept: dict[str, tuple[str, ...]] = {}
    rejected = []
    seen = set(known)
    for doc_id, reply in replies.items():
        topic, lang = topics[doc_id]
        taken: list[str] = []
        for question in questions_in(reply)[:LINES_MAX]:
            why = why_not(question, topic, lang, seen, numbers) or (
                "more than asked for" if len(taken) >= count else ""
            )
            if why:
                rejected.append((doc_id, question[:CHARACTERS_MAX], why))
            else:
                taken.append(question)
                seen.add(near_hash(question))
        kept[doc_id] = tuple(taken)
    return Paraphrases(kept, tuple(rejected))


def _digits(text: str) -> list[str]:
    return sorted(_DIGITS.findall(fold_width(text)))
