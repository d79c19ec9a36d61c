"""How the near-miss gate reads English: the words that are left once the question around them is taken off. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from guard.cache.gate_facts import Refusal
from guard.cache.gate_words import (
    DIRECTIONAL_EN,
    DIRECTIONS_EN,
    FRAMES_EN,
    HALF_LIGHT_EN,
    LATIN_OTHER,
    LIGHT_EN,
    NO_QUESTION_EN,
    QUESTIONS_EN,
    SOFT_EN,
    SYNONYMS_EN,
)
from guard.checks.lexicon import STOPWORDS

_CONTRACTIONS = (
    (re.compile(r"\b(what|where|who|when|how|that|there|it|he|she)'?s\b"), r"\1 is"),
    (re.compile(r"\bi'?ve\b"), "i have"),
    (re.compile(r"\bthey'?ve\b"), "they have"),
    (re.compile(r"\bi'?d\b"), "i would"),
    (re.compile(r"\bi'm\b"), "i am"),
    (re.compile(r"\bdont\b"), "don't"),
    (re.compile(r"\b(?:have|has|had|i've) (?:i |been |already )?(?:used|taken|spent)(?: up)?\b"), "have spent"),
    (re.compile(r"\b(?:u\.s\.a?\.?|usa)(?!\w)"), "us"),
)
_FRAMES = re.compile("|".join(rf"\b(?:{frame})(?!\w)" for frame in FRAMES_EN))
_WORD = re.compile(r"[^\W_]+(?:['&.-][^\W_]+)*")
_SUFFIXES = (
    "ications", "ication", "ations", "ation", "itions", "ition", "ments", "ment", "ings", "ing", "ions", "ion", "ied",
    "ies", "edly", "ed", "es", "s", "ily", "ly", "y", "e",
)  # fmt: skip
_POSSESSIVE = {
    **dict.fromkeys(("i", "me", "my", "mine", "we", "us", "our"), "me"),
    **dict.fromkeys(("your", "yours"), "you"),
    **dict.fromkeys(("his", "him"), "he"),
    **dict.fromkeys(("her", "hers"), "she"),
}
_PREPOSITIONS = frozenset(
    [
        "from",
        "to",
        "by",
        "of",
        "for",
        "with",
        "in",
        "on",
        "at",
        "than",
        "over",
        "into",
        "onto",
        "through",
        "via",
        "against",
        "about",
        "as",
    ]
)
_QUESTIONS = tuple((kind, re.compile(pattern)) for kind, pattern in QUESTIONS_EN)
_NO_QUESTION = re.compile(NO_QUESTION_EN)
_DIRECTIONAL = frozenset(DIRECTIONAL_EN.split())
_STOP = STOPWORDS - frozenset(["important", "example", "information", "instead", "below", "above", "like"])
_FOREIGN = frozenset(LATIN_OTHER.split())
_DIRECTIONS = frozenset(DIRECTIONS_EN.split())
_SOFT = frozenset(SOFT_EN.split())
_SUFFERED = re.compile(
    r"\bwhom? (?:is|are|was|were|has been|have been|got|gets)\b(?: \w+ly)? \w+(?:ed|en|own|ought|ade|eld)\b"
)
"""Who had it done to them, not who did it: "who was defeated by"."""


def root(word: str) -> str:
    """A word without its inflection: verifying, verified, verifies and verification meet.

    >>> [root(w) for w in ("verification", "verifying", "exported", "cards", "pass", "us")]
    ['verif', 'verif', 'export', 'card', 'pass', 'us']
    """
    if len(word) < 4 or not word.isalpha() or word.endswith("ss"):
        return word
    for suffix in _SUFFIXES:
        base = word[: -len(suffix)]
        if (
            word.endswith(suffix)
            and len(base) >= (4 if suffix in ("ies", "ied") else 3)
            and any(c in "aeiouy" for c in base)
        ):
            if len(base) > 3 and base[-1] == base[-2] and base[-1] not in "lsz" and suffix in ("ing", "ed", "ings"):
                base = base[:-1]
            return base.removesuffix("i").removesuffix("y") if len(base) > 4 else base
    return word


def _classes() -> tuple[dict[str, frozenset[int]], tuple[tuple[re.Pattern[str], str], ...]]:
    classes: dict[str, frozenset[int]] = {}
    phrases = []
    for number, line in enumerate(SYNONYMS_EN.strip().splitlines()):
        for entry in line.split():
            if "-" in entry and entry not in ("e-mail", "web-site"):
                phrases.append((re.compile(rf"\b{entry.replace('-', ' ')}\b"), entry.replace("-", "")))
                entry = entry.replace("-", "")
            name = root(entry.replace("-", ""))
            classes[name] = classes.get(name, frozenset()) | {number}
    return classes, tuple(phrases)


_CLASSES, _PHRASES = _classes()
_HALF_LIGHT = frozenset(map(root, HALF_LIGHT_EN.split()))
_LIGHT = frozenset(map(root, LIGHT_EN.split())) | frozenset(LIGHT_EN.split())


SHARED_PER_EXTRA = 2
"""Shared words that a question needs for each word that it says beyond the other: in a short one every word counts."""


@dataclass(frozen=True, slots=True)
class EnglishReading:
    """words: roots of the content, in order; before: the preposition in front of each ("" without one)."""

    words: tuple[str, ...]
    before: tuple[str, ...]
    half_light: frozenset[str]
    asked_for: frozenset[str]
    directions: frozenset[str]
    persons: frozenset[str]
    suffered: bool
    known: bool


@lru_cache(maxsize=4096)
def english(lower: str) -> EnglishReading:
    """Read normalised lower-case text."""
    for pattern, plain in _CONTRACTIONS:
        lower = pattern.sub(plain, lower)
    lower = lower.replace("e-mail", "email")
    questions = _NO_QUESTION.sub(" ", lower)
    asked_for = frozenset(kind for kind, pattern in _QUESTIONS if pattern.search(questions))
    every = _WORD.findall(lower)
    foreign = sum(w in _FOREIGN for w in every)
    known = lower.isascii() and 3 * foreign <= sum(w in STOPWORDS for w in every)
    suffered = _SUFFERED.search(lower) is not None
    for pattern, name in _PHRASES:
        lower = pattern.sub(name, lower)
    bare = _FRAMES.sub(" ", lower)
    words: list[str] = []
    before: list[str] = []
    half_light: set[str] = set()
    persons: set[str] = set()
    directions: set[str] = set()
    last = ""
    for word in _WORD.findall(bare):
        for part in word.removesuffix("'s").replace("'", "").split("-"):
            if part in _PREPOSITIONS:
                last = part
            if part in _DIRECTIONS:
                directions.add(part)
            if part in _POSSESSIVE:
                persons.add(_POSSESSIVE[part])
            elif part and part not in _STOP and part not in _DIRECTIONS and part not in _LIGHT:
                name = root(part)
                if name in _HALF_LIGHT:
                    half_light.add(name)
                elif name not in _LIGHT:
                    words.append(name)
                    before.append(last)
                    last = ""
    return EnglishReading(
        tuple(words), tuple(before), frozenset(half_light), asked_for, frozenset(directions), frozenset(persons),
        suffered,
        known,
    )  # fmt: skip


def meet(one: str, other: str) -> bool:
    """Whether two roots mean the same as far as the gate knows."""
    return one == other or not _CLASSES.get(one, frozenset()).isdisjoint(_CLASSES.get(other, frozenset()))


def english_refusal(one: EnglishReading, other: EnglishReading) -> Refusal | None:
    """The first difference in words, roles or what is asked for; None when there is none that matters."""
    if not (one.known and other.known):
        return Refusal.LANGUAGE
    if one.asked_for != other.asked_for:
        return Refusal.ASKED_FOR
    if one.persons and other.persons and one.persons != other.persons:
        return Refusal.PERSON
    hard = (one.directions ^ other.directions) - _SOFT
    if hard or (one.directions - other.directions and other.directions - one.directions):
        return Refusal.OPPOSITE
    mine, theirs = left_over(one, other), left_over(other, one)
    if mine and theirs:
        return Refusal.WORDS  # one word in place of another
    if mine or theirs:
        longer, shorter = (one, other) if mine else (other, one)
        if (
            len(mine or theirs) * SHARED_PER_EXTRA > len(shorter.words)
            or len(longer.words) <= len(shorter.words)  # a word stands twice where the other has something else
            or shorter.half_light - longer.half_light
        ):
            return Refusal.WORDS
    elif (one.half_light - other.half_light) and (other.half_light - one.half_light):
        return Refusal.WORDS
    if not one.words or not other.words:
        return Refusal.WORDS  # nothing but frame: what it is about stands in an earlier turn
    return Refusal.ORDER if _moved(one, other) else None


def left_over(one: EnglishReading, other: EnglishReading) -> tuple[str, ...]:
    """Words of `one` that `other` has in no form."""
    # "auto play" and "autoplay", "web site" and "website": the same letters with other gaps.
    theirs = {*other.words, *map("".join, pairwise(other.words))}
    joined = [a for pair in pairwise(one.words) if "".join(pair) in other.words for a in pair]
    return tuple(w for w in dict.fromkeys(one.words) if w not in joined and not any(meet(w, o) for o in theirs))


def _moved(one: EnglishReading, other: EnglishReading) -> bool:
    """Whether words changed roles: two changed places, a preposition went to another word, or passive became active."""
    if one.suffered != other.suffered:
        return True
    order = []
    for i, word in enumerate(one.words):
        there = [j for j, o in enumerate(other.words) if meet(word, o)]
        if len(there) == 1 and sum(meet(w, other.words[there[0]]) for w in one.words) == 1:
            order.append((there[0], one.before[i], other.before[there[0]]))
    positions = [at for at, _, _ in order]
    if positions == sorted(positions):
        return False
    if any(x != y and x in _DIRECTIONAL and y in _DIRECTIONAL for _, x, y in order):
        return True
    ranks = [sorted(positions).index(p) for p in positions]
    return swapped(ranks)


def swapped(ranks: list[int]) -> bool:
    """Whether two blocks of a permutation changed places around a middle that stayed: who did what to whom.

    A block that moved as a whole ("in gmail, ..."), or words all anew, are other ways to say the same.

    >>> swapped([2, 3, 0, 1]), swapped([2, 1, 0]), swapped([0, 3, 2, 1, 4]), swapped([3, 1, 0, 2])
    (False, True, True, False)
    """
    start, end = 0, len(ranks)
    while start < end and ranks[start] == start:
        start += 1
    while end > start and ranks[end - 1] == end - 1:
        end -= 1
    middle = [rank - start for rank in ranks[start:end]]
    blocks: list[int] = []  # the first rank of each run that is in order
    for i, rank in enumerate(middle):
        if not i or rank != middle[i - 1] + 1:
            blocks.append(rank)
    return len(blocks) == 3 and blocks == sorted(blocks, reverse=True)
