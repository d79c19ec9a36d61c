"""The facts of a question that an answer depends on, in both languages: numbers, identifiers, names, polarity. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from guard.cache.gate_words import CONTRAST_EN
from guard.checks.facts import statement
from guard.checks.numbers import Quantity, same
from guard.checks.polarity import opposed, periods_of, sides_of


class Refusal(StrEnum):
    """Why two questions may not share an answer. Closed set: it is a metric label."""

    NUMBER = "number"
    IDENTIFIER = "identifier"
    NAME = "name"
    NEGATION = "negation"
    OPPOSITE = "opposite"
    PERIOD = "period"
    ASKED_FOR = "asked_for"  # who against when, why against how
    PERSON = "person"  # my name, your name
    ORDER = "order"  # the same words with other roles
    WORDS = "words"  # a word that is no known synonym
    LANGUAGE = "language"  # a script or language the gate has no words for
    LENGTH = "length"


_NEGATION_EN = re.compile(
    r"\b(?:not|no|never|none|nobody|nothing|neither|nor|cannot|without|unable|\w+n't|dont|doesnt|didnt|cant|wont|isnt"
    r"|hardly|fail(?:s|ed|ing)?|refus(?:e|es|ed|ing)|reject(?:s|ed|ing|ion)?|avoid(?:s|ed|ing)?|lack(?:s|ed|ing)?"
    r"|except|unlike|instead)\b|\bnon[- ]"
)
_NEGATION_ZH = re.compile("[不沒没無无未非勿毋否]|拒絕|拒绝|禁止|除了|以外")
_NOT_NEGATION_ZH = re.compile(
    "是否|能否|可否|是不是|能不能|可不可以|有沒有|有没有|要不要|會不會|会不会|不同|不過|不过|不僅|不仅|不但|不只|無論|无论|不論|不论|"
    "無線|无线|非洲|非常|南非|北非|東非|西非|无锡|無錫"
)


@dataclass(frozen=True, slots=True)
class Facts:
    """negations: how many words deny. sides, contrasts: which sides of known opposites the text takes, as bits."""

    numbers: tuple[Quantity, ...]
    digits: tuple[str, ...]
    exact: frozenset[str]
    names: frozenset[str]
    negations: int
    sides: int
    contrasts: int
    periods: frozenset[str]
    lower: str


def _contrasts() -> tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]:
    lines = (line.split() for line in CONTRAST_EN.strip().splitlines())
    return tuple((re.compile(rf"\b(?:{a})\b"), re.compile(rf"\b(?:{b})\b")) for a, b in lines)


_CONTRASTS = _contrasts()
_DIGITS = re.compile(r"\d+(?:[.,:/-]\d+)*")


def facts_of(text: str) -> Facts:
    """Read the facts of normalised text."""
    read = statement(text)
    contrasts = 0
    for i, (one, other) in enumerate(_CONTRASTS):
        contrasts |= (1 if one.search(read.lower) else 0) << (2 * i) | (1 if other.search(read.lower) else 0) << (
            2 * i + 1
        )
    plain = _NOT_NEGATION_ZH.sub(" ", read.lower)
    return Facts(
        numbers=tuple(sorted(read.numbers, key=lambda n: n.start)),
        digits=tuple(sorted(_DIGITS.findall(read.lower))),
        exact=frozenset(read.exact),
        names=frozenset(read.names),
        negations=len(_NEGATION_EN.findall(plain)) + len(_NEGATION_ZH.findall(plain)),
        sides=sides_of(read.lower),
        contrasts=contrasts,
        periods=periods_of(read.lower),
        lower=read.lower,
    )


def facts_refusal(one: Facts, other: Facts) -> Refusal | None:
    """The first fact in which two questions differ; None when they agree on all of them."""
    if not (_stated(one.numbers, other.numbers) and _stated(other.numbers, one.numbers)):
        return Refusal.NUMBER
    if len(one.numbers) != len(other.numbers) and one.digits != other.digits:
        return Refusal.NUMBER
    if not all(same(a, b) for a, b in zip(one.numbers, other.numbers, strict=False)):
        return Refusal.ORDER  # 8 of 10 is not 10 of 8
    if one.exact != other.exact:
        return Refusal.IDENTIFIER
    if one.negations != other.negations:
        return Refusal.NEGATION
    if opposed(one.sides, other.sides) or opposed(other.sides, one.sides):
        return Refusal.OPPOSITE
    if _contrast(one.contrasts, other.contrasts):
        return Refusal.OPPOSITE
    if one.periods != other.periods:
        return Refusal.PERIOD
    return None


def _stated(these: tuple[Quantity, ...], those: tuple[Quantity, ...]) -> bool:
    return all(any(same(one, other) and same(other, one) for other in those) for one in these)


def _contrast(one: int, other: int) -> bool:
    """Whether one text takes only one side of a pair and the other text only the other side."""
    first = int("01" * len(_CONTRASTS), 2)
    a, b, c, d = one & first, (one >> 1) & first, other & first, (other >> 1) & first
    return bool(a & ~b & d & ~c | b & ~a & c & ~d)
