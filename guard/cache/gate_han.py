"""How the near-miss gate reads Chinese: near-identical wording only, character by character. Pure.

No sentence encoder that ships with the software understands Chinese, and the words of a question come without spaces.
So two questions share an answer only when, politeness, particles, punctuation and known synonyms aside, their
characters are the same in the same order; light characters may be missing, nothing may change places.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache

from guard.cache.gate_facts import Refusal
from guard.cache.gate_words import FRAMES_ZH, LIGHT_ZH, SYNONYMS_ZH
from guard.checks.lexicon import CJK

_FRAMES = re.compile(FRAMES_ZH)
_TOKEN = re.compile(f"[{CJK}\ue000-\uf8ff]|[^\\W\\d_{CJK}\ue000-\uf8ff]+|\\d+(?:[.,]\\d+)*")
_FOREIGN = re.compile("[\u3040-\u30ff\uac00-\ud7af\u0400-\u04ff\u0600-\u06ff\u0e00-\u0e7f]")
_LIGHT = frozenset(LIGHT_ZH)
_PRONOUNS = frozenset("他她它牠")


def _synonyms() -> tuple[re.Pattern[str], dict[str, str], dict[str, str]]:
    codes, firsts = {}, {}
    for number, line in enumerate(SYNONYMS_ZH.strip().splitlines()):
        for word in line.split():
            codes[word], firsts[word] = chr(0xE000 + number), line.split()[0]
    longest_first = sorted(codes, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))), codes, firsts


_SYNONYM, _CODES, _FIRSTS = _synonyms()


@dataclass(frozen=True, slots=True)
class HanReading:
    """tokens: one per character, Latin word or number; a private-use character stands for a class of synonyms. plain:
    the text without politeness, synonyms by their first word; what n-grams are counted of."""

    tokens: tuple[str, ...]
    plain: str
    known: bool


@lru_cache(maxsize=4096)
def han(lower: str) -> HanReading:
    """Read normalised lower-case text."""
    bare = _FRAMES.sub("", lower)
    coded = _SYNONYM.sub(lambda m: _CODES[m[0]], bare)
    plain = _SYNONYM.sub(lambda m: _FIRSTS[m[0]], bare)
    return HanReading(tuple(_TOKEN.findall(coded)), plain, _FOREIGN.search(lower) is None)


def han_refusal(one: HanReading, other: HanReading) -> Refusal | None:
    """The first difference that is more than a light character; None when there is none."""
    if not (one.known and other.known):
        return Refusal.LANGUAGE
    if not one.tokens or not other.tokens:
        return Refusal.WORDS
    if one.tokens == other.tokens:
        return None
    # The matcher is not symmetric; the gate is.
    first, second = sorted((one.tokens, other.tokens))
    removed: list[str] = []
    added: list[str] = []
    for tag, a, b, c, d in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if tag != "equal":
            removed += first[a:b]
            added += second[c:d]
    if all(t in _LIGHT for t in removed + added):
        return None
    # "..., he was" and "..., was": a pronoun may be left out, but not exchanged.
    if all(t in _LIGHT or t in _PRONOUNS for t in removed + added) and not (
        _PRONOUNS.intersection(removed) and _PRONOUNS.intersection(added)
    ):
        return None
    return Refusal.ORDER if sorted(removed) == sorted(added) else Refusal.WORDS
