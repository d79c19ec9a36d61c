"""Which way a sentence points: what it denies, which of two opposites it uses, which period it names. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from guard.checks import opposites
from guard.checks.lexicon import NEGATION_FREE, stem, terms, words
from guard.simplified import folded

_NEGATION_EN = re.compile(
    r"\b(?:not|no|never|none|nobody|nothing|neither|nor|cannot|without|unable to|\w+n't|hardly)\b"
    r"|\bun(used|paid|taken|authori[sz]ed|available|limited|necessary|approved|known|registered|"
    r"supported|encrypted|changed)\b"
)
_NEGATORS_TEXT = """
not no never none nobody nothing neither nor cannot without unable hardly unused unpaid untaken unauthorised
unauthorized unavailable unlimited unnecessary unapproved unknown unregistered unsupported unencrypted unchanged
"""
_NEGATORS = frozenset(_NEGATORS_TEXT.split())
"""A match of the pattern above holds one of these words, or "n't"."""

_CONDITION = re.compile(r"\b(?:if|when|whenever|unless|until|whether|once|who|which|that|because|case|where)\b[^,.;]*$")
_AFTER = re.compile(r"[^.,;:!?()]{0,48}")
_NEGATION_FREE_EN = re.compile(
    r"\bnot only\b|\bno (?:later|more|less|fewer|longer|sooner|matter|doubt)\b(?: than)?|"
    r"\bnot (?:later|more|less|fewer) than\b"
    r"|\bwhether or not\b|\bor not\b|\bif not\b|\bno\.\s*\d|\bnot necessarily\b"
)
_NEGATION_ZH = re.compile(
    folded("(?:不|沒有|沒|無|未|非|勿|毋|禁止|拒絕|免於|停止)[得可能應予會必須需再以有要被許准]*([\u4e00-\u9fff]{1,4})")
)
_NEGATION_FREE_ZH = re.compile(folded("|".join(NEGATION_FREE)))

_OPPOSITE_ZH = [(re.compile(folded(one)), re.compile(folded(other))) for one, other in opposites.CHINESE]
_PAIR_COUNT = len(opposites.ENGLISH) + len(_OPPOSITE_ZH)
_FIRST = sum(1 << (2 * i) for i in range(_PAIR_COUNT))
_SECOND = _FIRST << 1
_SIDE_OF_WORD: dict[str, int] = {}
_SIDE_OF_PHRASE: list[tuple[str, int]] = []
for _i, _pair in enumerate(opposites.ENGLISH):
    for _side, _names in enumerate(_pair):
        for _name in _names:
            if " " in _name or "-" in _name:
                _SIDE_OF_PHRASE.append((_name, 1 << (2 * _i + _side)))
            else:
                _SIDE_OF_WORD[_name] = _SIDE_OF_WORD.get(_name, 0) | 1 << (2 * _i + _side)
# Longer phrases first: "not less than" holds "less than".
_SIDE_OF_PHRASE.sort(key=lambda p: -len(p[0]))
_LETTERS = re.compile(r"[a-z]+")
_ADVERB_PERIOD = {"hourly": "hour", "daily": "day", "nightly": "night", "weekly": "week", "monthly": "month",
                  "quarterly": "quarter", "annual": "year", "annually": "year", "yearly": "year"}  # fmt: skip
_PERIOD_EN = re.compile(
    r"(?:\b(?:per|an?|each|every)\s+|/)(hour|day|night|week|month|quarter|year)\b|\b("
    + "|".join(_ADVERB_PERIOD)
    + r")\b"
)
_PERIOD_ZH_NAME = {"日": "day", "天": "day", "晚": "night", "週": "week", "周": "week", "星期": "week", "月": "month"}
_PERIOD_ZH_NAME |= {"個月": "month", "季": "quarter", "年": "year", "小時": "hour"}
_PERIOD_ZH_NAME |= {folded(name): period for name, period in _PERIOD_ZH_NAME.items()}
_PERIOD_ZH = re.compile(folded("每(?:一)?(日|天|晚|週|周|星期|個月|月|季|年|小時)"))


REMEMBERED_COUNT = 8192
"""Sentences of contexts come back; each entry is about a kilobyte."""


@lru_cache(maxsize=REMEMBERED_COUNT)
def negated(lower: str) -> tuple[frozenset[str], frozenset[str]]:
    """Terms that are denied: the first behind each negator, and all near it; stems, or bigrams in Chinese.

    Phrases that only look negative ("not only", "no later than") and conditions ("if it does not start") deny nothing.

    >>> [sorted(part) for part in negated("split tunnelling is not allowed here; unpaid leave")]
    [['allow', 'paid'], ['allow', 'paid']]
    """
    first: set[str] = set()
    near: set[str] = set()
    if "n't" in lower or not _NEGATORS.isdisjoint(_LETTERS.findall(lower)):
        text = _NEGATION_FREE_EN.sub(" ", lower) if "no" in lower else lower
        for match in _NEGATION_EN.finditer(text):
            if match[1]:
                first.add(stem(match[1]))
                continue
            following = terms(words(_AFTER.match(text, match.end())[0]))[:2]  # type: ignore[index]
            near.update(following)
            if not _CONDITION.search(text, max(0, match.start() - 48), match.start()):
                first.update(following[:1])
    if not lower.isascii():
        for match in _NEGATION_ZH.finditer(_NEGATION_FREE_ZH.sub(" ", folded(lower))):
            run = match[1]
            near.update(run[i : i + 2] for i in range(len(run) - 1))
            first.add(run[:2])
    return frozenset(first), frozenset(first | near)


@lru_cache(maxsize=REMEMBERED_COUNT)
def sides_of(lower: str) -> int:
    """Which sides of the known opposites the text takes: bit 2i for the first of pair i, bit 2i + 1 for the second."""
    mask = 0
    for phrase, side in _SIDE_OF_PHRASE:
        if phrase in lower:
            mask |= side
            lower = lower.replace(phrase, " ")
    for word in _LETTERS.findall(lower):
        mask |= _SIDE_OF_WORD.get(word, 0)
    if not lower.isascii():
        lower = folded(lower)
        shift = 2 * len(opposites.ENGLISH)
        for i, (one, other) in enumerate(_OPPOSITE_ZH):
            rest = lower
            if other.search(lower):
                mask |= 2 << (2 * i + shift)
                rest = other.sub(" ", lower)
            if one.search(rest):
                mask |= 1 << (2 * i + shift)
    return mask


def periods_of(lower: str) -> frozenset[str]:
    """Periods of a rate: "per month", "a year", "weekly" and their Chinese forms."""
    found = {m[1] or _ADVERB_PERIOD[m[2]] for m in _PERIOD_EN.finditer(lower)}
    if not lower.isascii():
        found.update(_PERIOD_ZH_NAME[m[1]] for m in _PERIOD_ZH.finditer(folded(lower)))
    return frozenset(found)


def opposed(claim: int, support: int) -> bool:
    """Whether the claim takes only the other side of a pair that the support takes only one side of."""
    mine_one, mine_other = claim & _FIRST, (claim & _SECOND) >> 1
    their_one, their_other = support & _FIRST, (support & _SECOND) >> 1
    return bool(mine_one & ~mine_other & their_other & ~their_one | mine_other & ~mine_one & their_one & ~their_other)
