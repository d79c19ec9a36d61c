"""Whether two questions may share one answer. Pure, and the same whichever of the two comes first.

Cosine cannot tell "7 days" from "14 days", "is" from "is not", nor who did what to whom; in Chinese it is all but
blind. So a near neighbour is served only when nothing that could change the answer differs: numbers, identifiers,
names, negation, opposites, periods, what is asked for, whose thing it is, roles, and every word without a synonym. What
the gate cannot read (a script or language it has no words for) it refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from guard.cache.gate_english import EnglishReading, english, english_refusal, meet
from guard.cache.gate_facts import Facts, Refusal, facts_of, facts_refusal
from guard.cache.gate_han import HanReading, han, han_refusal
from guard.checks.lexicon import CJK_CHAR, normalise
from guard.checks.numbers import quantities

MAX_CHARS = 600
"""Longer messages hold more than one question; they are left to the exact cache."""


class Script(StrEnum):
    """How a question is read."""

    LATIN = "latin"
    HAN = "han"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Reading:
    """One question as the gate compares it. words: None when the gate has no words for it."""

    script: Script
    facts: Facts
    words: EnglishReading | HanReading | None


def script_of(text: str) -> Script:
    """Which of the two readings fits: any Han character makes it Chinese, a letter that is not Latin neither.

    >>> [script_of(t).value for t in ("How do I reset it?", "VPN \u5bc6\u78bc", "\u043a\u0430\u043a")]
    ['latin', 'han', 'other']
    """
    if text.isascii():
        return Script.LATIN
    if CJK_CHAR.search(text):
        return Script.HAN
    return Script.LATIN if all(c < "\u0250" or not c.isalpha() for c in text) else Script.OTHER


@lru_cache(maxsize=8192)
def reading(text: str) -> Reading:
    """Read a question. Never raises, whatever the text."""
    clean = " ".join(normalise(text[:MAX_CHARS]).split())
    script = script_of(clean)
    facts = facts_of(clean)
    if script is Script.LATIN:
        # "14 days" and "two weeks" are one number; it has been compared by its value.
        return Reading(script, facts, english(quantities(facts.lower)[1]))
    return Reading(script, facts, han(facts.lower) if script is Script.HAN else None)


def refusal(one: str, other: str) -> Refusal | None:
    """Why two questions may not share an answer; None when they may.

    >>> refusal("How many days of leave do I get?", "how many leave days do I get") is None
    True
    >>> refusal("Is the limit 14 days?", "Is the limit 7 days?").value
    'number'
    """
    if len(one) > MAX_CHARS or len(other) > MAX_CHARS:
        return Refusal.LENGTH
    return refusal_of(reading(one), reading(other))


def refusal_of(one: Reading, other: Reading) -> Refusal | None:
    """The same for questions that were read already."""
    if one.words is None or other.words is None or one.script is not other.script:
        return Refusal.LANGUAGE
    found = facts_refusal(one.facts, other.facts)
    if found is not None:
        return found
    if isinstance(one.words, EnglishReading) and isinstance(other.words, EnglishReading):
        return _unheard_name(one, other) or english_refusal(one.words, other.words)
    assert isinstance(one.words, HanReading)
    assert isinstance(other.words, HanReading)
    return han_refusal(one.words, other.words)


def _unheard_name(one: Reading, other: Reading) -> Refusal | None:
    """A capitalised word of one question that the other has in no spelling and no synonym."""
    for here, there in ((one, other), (other, one)):
        known = there.words.words if isinstance(there.words, EnglishReading) else ()
        for name in here.facts.names:
            parts = english(name).words
            if name not in there.facts.lower and not all(any(meet(p, k) for k in known) for p in parts):
                return Refusal.NAME
    return None
