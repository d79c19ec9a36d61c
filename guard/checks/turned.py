"""Clauses that are about the same thing and say it the other way round: permission, one of a closed set. Pure.

"You may bring flowers" where they are forbidden, "the southern route" where the contexts have the northern one. Answers
put it in other words, so "about the same thing" is looser here than for numbers: beginnings of words count, and in
Chinese single characters. In return every clause that is about as close must speak against the claim.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from guard.checks.facts import Statement
from guard.checks.lexicon import CJK_CHAR
from guard.checks.turned_words import CLASSES, LIGHT_ZH, SETS
from guard.simplified import folded

SHARE_RATIO = 0.75
"""Share of the claim's words that a clause must have."""

CLOSE_RATIO = 0.1
PREFIX_CHARS = 5
LEAST_WORDS = 2.0
MOST_WORDS = 14
"""Claims of more words say several things; a word of one does not tell about the other."""

MOST_TERMS = 40
"""A quick test of the same: fourteen words or twenty-eight characters have no more terms."""

CHARACTER = 0.5
"""A Chinese character is half a word."""

_FORBID = re.compile(
    r"\b(?:can(?:not|'t| not)|may not|must(?: not|n't)|forbidden|prohibited"
    r"|(?:not|isn't|aren't) (?:be )?(?:allowed|permitted|possible|\w+able))\b"
    + folded("|不可(?![或靠])|不得(?![低少高多超逾晚早遲])|不能|無法|禁止|不予|不准|不許|切勿|請勿")
)
_ALLOW = re.compile(
    r"\b(?:can|may|allowed|permitted|possible)\b(?! (?:be|also|vary|have|not)\b)"
    + folded("|(?<![不認許])可(?![能靠或是])|(?<![不可只性])能(?![源力量])|允許")
)
_CONDITION = re.compile(
    r"\b(?:unless|except|if|when|until|without|only|not only)\b|" + folded("除|若|如果|僅|只|未|時")
)
_NEGATED = re.compile(r"\b(?:not|no|never|none|neither|nor|\w+n't)\b|" + folded("[不未無沒非勿]"))
_ENGLISH = {
    word: (i, member.split("|")[0])
    for i, members in enumerate(SETS)
    for member in members
    if member.isascii()
    for word in member.split("|")
}
"""Word -> (its set, the first form of its member)."""

_CHINESE = [
    (i, member, re.compile(folded(member)))
    for i, members in enumerate(SETS)
    for member in members
    if not member.isascii()
]
_ANY_CHINESE = re.compile("|".join(pattern.pattern for _, _, pattern in _CHINESE))
"""One search instead of one per member: most texts name none."""

_CLASSES = [re.compile(folded(pattern)) for pattern in CLASSES]
_MAY_PERMIT = frozenset(
    [
        "can",
        "cannot",
        "can't",
        "may",
        "must",
        "mustn't",
        "forbidden",
        "prohibited",
        "allowed",
        "permitted",
        "possible",
        "not",
        "isn't",
        "aren't",
    ]
)
_MAY_PERMIT_ZH = re.compile(folded("[可能得禁許准予勿]"))
_LIGHT = frozenset(folded(LIGHT_ZH))


def _members(part: Statement) -> dict[int, frozenset[str]]:
    """Which members of which closed set a text names; nothing for most texts."""
    found: dict[int, set[str]] = {}
    for word in filter(_ENGLISH.__contains__, part.words):  # in the order of the text: so come the reasons
        which, member = _ENGLISH[word]
        found.setdefault(which, set()).add(member)
    if not part.folded.isascii():
        if _ANY_CHINESE.search(part.folded):
            for which, member, pattern in _CHINESE:
                if pattern.search(part.folded):
                    found.setdefault(which, set()).add(member)
        for i, pattern in enumerate(_CLASSES):
            if names := pattern.findall(part.folded):
                found[-1 - i] = set(names)
    return {which: frozenset(names) for which, names in found.items()}


def turned(claim: Statement, parts: Sequence[Statement]) -> Iterator[str]:
    """Reasons, each "kind: what the two say". parts: clauses of the sentences that cover the claim best."""
    if len(claim.term_set) > MOST_TERMS:
        return
    named = _members(claim)
    permits = not _MAY_PERMIT.isdisjoint(claim.words) or (
        not claim.folded.isascii() and _MAY_PERMIT_ZH.search(claim.folded) is not None
    )
    if not named and not permits:
        return
    mine = [t for t in claim.term_set if t.isascii()]
    characters = {c for c in claim.folded if c not in _LIGHT and CJK_CHAR.match(c)}
    size = len(mine) + CHARACTER * len(characters)
    if not LEAST_WORDS <= size <= MOST_WORDS:
        return
    shares = [(_share(mine, characters, part) / size, part) for part in parts]
    best = max([share for share, _ in shares], default=0.0)
    if permits and best >= SHARE_RATIO:
        yield from _permission(claim, [part for share, part in shares if share >= best - CLOSE_RATIO])
    if not named or max(best, _without_named(named, mine, characters, size, best)) < SHARE_RATIO:
        return
    close = [part for share, part in shares if share >= best - CLOSE_RATIO - 1.0 / size]
    denies = _NEGATED.search(claim.folded) is not None
    if denies != (_NEGATED.search(close[0].folded) is not None):
        return
    others = [_members(part) for part in close]
    for which, ours in named.items():
        theirs = [other.get(which) for other in others]
        if all(other and ours.isdisjoint(other) for other in theirs):
            yield f"other: the answer says {_shown(ours)}, the contexts {_shown(theirs[0] or ours)}"


def _without_named(
    named: dict[int, frozenset[str]], mine: list[str], characters: set[str], size: float, best: float
) -> float:
    """The best share when the words of closed sets are left out of the claim."""
    words = " ".join(word for group in named.values() for word in group)
    left_out = sum(t[: PREFIX_CHARS - 1] in words for t in mine) + CHARACTER * sum(c in words for c in characters)
    rest = size - left_out
    return best * size / rest if rest >= LEAST_WORDS else 0.0


def _permission(claim: Statement, close: Sequence[Statement]) -> Iterator[str]:
    if _CONDITION.search(claim.folded) or any(_CONDITION.search(p.folded) for p in close):
        return
    forbids, allows = _forbids(claim.folded), _allows(claim.folded)
    if (allows and all(_forbids(p.folded) for p in close)) or (forbids and all(_allows(p.folded) for p in close)):
        yield "permission: the contexts say the opposite"


def _forbids(lower: str) -> bool:
    return _FORBID.search(lower) is not None


def _allows(lower: str) -> bool:
    return _ALLOW.search(lower) is not None and not _NEGATED.search(lower)


def _share(mine: Sequence[str], characters: set[str], part: Statement) -> float:
    theirs = part.term_set
    got = 0.0
    beginnings: set[str] | None = None  # made when a word is missing; a copy needs none
    for term in mine:
        if term in theirs:
            got += 1.0
        elif len(term) >= PREFIX_CHARS:
            if beginnings is None:
                beginnings = {t[:PREFIX_CHARS] for t in theirs}
            got += term[:PREFIX_CHARS] in beginnings
    return got + CHARACTER * sum([c in part.folded for c in characters])


def _shown(members: frozenset[str]) -> str:
    return " and ".join(sorted(m.split("|")[0].removesuffix("?") for m in members))
