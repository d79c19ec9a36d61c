"""Where a claim says something else than the clause it is about. Pure.

"14 days" where the contexts say "7 days" for the same thing, a fact that stands in the contexts beside another name,
another path or URL, a negation, an opposite word, two facts that changed places. Cosine sees none of these. A clause is
"about the same thing" when it covers the rest of the claim; the fact itself is left out of that measure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from guard.checks.claims import clauses
from guard.checks.facts import Statement, statement
from guard.checks.fits import Fits
from guard.checks.lexicon import CJK, CJK_CHAR, stem
from guard.checks.numbers import NUMBER_WORDS, Quantity, same
from guard.checks.passages import Passages
from guard.checks.polarity import negated, opposed, periods_of, sides_of
from guard.checks.turned import turned
from guard.checks.units import compatible

MARGIN_RATIO = 0.12
"""How much better the best clause must fit than the one that holds the fact, before the two contradict each other."""

ALIGNED_RATIO = 0.55
"""Coverage of the rest of a claim from which a clause is about the same thing."""

COPY_RATIO = 0.85
"""Coverage of the rest of a claim from which it is a copy of the clause but for the fact."""

POLARITY_RATIO = 0.72
"""The same for opposite words and periods, which need a closer match."""

NEGATION_RATIO = 0.65
CLOSE_RATIO = 0.08
"""Clauses within this of the best one fit about as well."""

NAMES_RATIO = 0.75
NAMES_MARGIN_RATIO = 0.2
NAMES_NEED_WEIGHT = 3.0
"""Names need a closer fit, a wider margin and a claim of some words: people and places are often left to a pronoun."""

CLAUSE_NEEDS_WEIGHT = 1.5
"""A clause with fewer words than this is not looked at alone."""

_PRONOUN = re.compile(r"\b(?:he|she|they|it|his|her|their|its|him|them)\b")
_DURATION = frozenset(("time", "month", "workday"))
_MONEY = frozenset(("usd", "twd", "cny", "eur", "gbp", "jpy", "yuan"))

BEFORE_CHARS = 40
_WORD_AFTER = re.compile(r"\s([^\W\d_]+)")
_BEFORE = re.compile(rf"([{CJK}]{{2}}|[^\W\d_]+)[\s:#(]*$")
_NEXT = re.compile(
    rf"\s*(?:[\d.,]+|\b(?:{'|'.join(sorted(NUMBER_WORDS))})\b|"
    rf"[零〇一二三四五六七八九十百千万两]+)(?:\s*个)?[\s-]*([{CJK}]{{2}}|[^\W\d_]+)"
)
Parts = list[tuple[Statement, Statement]]


def contradictions(
    claim: Statement,
    near: Sequence[int],
    passages: Passages,
    weights: dict[str, float],
    question: Statement | None = None,
) -> tuple[str, ...]:
    """Reasons, each "kind: what the claim says, what the contexts say"; empty when nothing speaks against the claim.

    near: the sentences that cover the claim best, best first. weights: of the claim's terms. question: what an answer
    repeats of it needs no support, unless the contexts say the opposite.
    """
    core = claim.folded.strip(" .,!;:\u3002")
    sentences = [passages.sentences[place] for place in near]
    if any(core in sentence.folded for sentence in sentences):
        return ()  # a quotation contradicts nothing
    parts = [(s, part) for place, s in zip(near, sentences, strict=True) for part in passages.clauses_of(place)]
    wholes = [(s, s) for s in sentences]
    fits = Fits(claim, weights)
    found = [
        *_numbers(fits, parts, wholes, passages, question),
        *_numbers_of_clauses(fits, parts, passages),
        *_exact(fits, parts, passages, question),
        *_names(fits, parts, passages),
        *_polarity(fits, parts, wholes),
        *_swapped(claim, sentences, weights),
        *turned(claim, [part for _, part in parts]),
    ]
    return tuple(dict.fromkeys(found))


def _numbers(
    fits: Fits, parts: Parts, wholes: Parts, passages: Passages, question: Statement | None = None
) -> Iterator[str]:
    claim = fits.claim
    for i, number in enumerate(claim.numbers):
        holders = passages.holders(number)
        asked = not holders and question is not None and any(same(number, n) for n in question.numbers)
        rivals = []
        # A number that stands nowhere needs no fine comparison: the whole sentence tells what it is about.
        for sentence, part in parts if holders else parts + wholes:
            others = fits.other_numbers(part)
            if not others or (fit := fits.of(sentence, part, number)) < ALIGNED_RATIO:
                continue
            for other in others:
                # In a near copy a number that stands nowhere has taken the place of whichever number is left over.
                if _rival(claim, number, part, other) or (not holders and not asked and fit >= COPY_RATIO):
                    rivals.append((fit, part, other))
        if not rivals:
            continue
        best, part, rival = max(rivals, key=lambda r: r[0])
        holding = max(
            (
                fits.of(passages.sentences[place], held, number)
                for place in holders
                for held in passages.clauses_of(place)
                if fits.held(held)[i]
            ),
            default=0.0,
        )
        if best - holding >= MARGIN_RATIO:
            yield f"number: the answer says {_shown(claim, number)}, the contexts {_shown(part, rival)}"


def _numbers_of_clauses(fits: Fits, parts: Parts, passages: Passages) -> Iterator[str]:
    """The same for each clause of a long claim alone: one wrong number among two things said."""
    if not fits.claim.numbers or not any(part.numbers for _, part in parts):
        return
    if len(own := clauses(fits.claim.text)) < 2:
        return
    for text in own:
        part = statement(text)
        part_weights = {t: fits.weights.get(t, 1.0) for t in part.terms}
        if part.numbers and sum(part_weights.values()) >= CLAUSE_NEEDS_WEIGHT:
            yield from _numbers(Fits(part, part_weights), parts, [], passages)


def _rival(claim: Statement, number: Quantity, part: Statement, other: Quantity) -> bool:
    """Whether `other`, which the claim does not state, fills the slot of `number` with another value, or the same value
    with another unit."""
    one, two = number.dimension, other.dimension
    if not one and not two:  # "14 characters" is no rival of "14 users", "extension 4400" none of "page 12"
        before, after = _words_around(claim, number)
        other_before, other_after = _words_around(part, other)
        return bool(after and after == other_after) or bool(not after and before and before == other_before)
    if not one or not two:
        return False
    return (
        compatible(one, two)
        or number.plain == other.plain
        or (one in _DURATION and two in _DURATION)
        or (one in _MONEY and two in _MONEY)
    )


def _words_around(part: Statement, number: Quantity) -> tuple[str, str]:
    """The word before a bare number and the one it counts (two characters in Chinese); "" where there is none."""
    match = _NEXT.match(part.folded, number.start)
    before = _BEFORE.search(part.folded[max(0, number.start - BEFORE_CHARS) : number.start])
    return before[1] if before else "", stem(match[1]) if match else ""


def _shown(part: Statement, number: Quantity) -> str:
    """The words of a number, from the text it stands in."""
    text = part.lower[number.start : number.start + 18].strip().rstrip(".,;:\u3002\uff0c\uff1b")
    return f'"{text}"' if text else f"{number.plain:g}"


def _exact(fits: Fits, parts: Parts, passages: Passages, question: Statement | None = None) -> Iterator[str]:
    for item in fits.claim.exact:
        if question is not None and item in question.lower:
            continue
        if not passages.mentions(item):
            yield f"identifier: {item} is not in the contexts"
            continue
        kind = _kind_of(item)
        rivals = [(s, p) for s, p in parts if p.exact and item not in p.lower and kind in map(_kind_of, p.exact)]
        if not rivals:
            continue
        best = max(fits.of(s, p, item) for s, p in rivals)
        holders = [
            (passages.sentences[place], p)
            for place in passages.exact_holders(item)
            for p in passages.clauses_of(place)
        ]  # fmt: skip
        holding = max((fits.of(s, p, item) for s, p in holders if item in p.exact), default=1.0)
        if best >= POLARITY_RATIO and best - holding >= MARGIN_RATIO:
            yield f"identifier: {item} stands elsewhere in the contexts"


def _kind_of(item: str) -> str:
    return "url" if "/" in item or "@" in item else "id"


def _names(fits: Fits, parts: Parts, passages: Passages) -> Iterator[str]:
    """A name of the contexts that the aligned clause does not have, where it has another one instead."""
    claim = fits.claim
    if not claim.names or fits.total < NAMES_NEED_WEIGHT:
        return
    for name in claim.names:
        around = _neighbours(claim.lower, name)
        best, rival = 0.0, ""
        for s, p in parts:
            if not p.names or name in s.lower or not (other := _rival_name(claim, around, p)):
                continue
            if not _PRONOUN.search(p.lower) and (fit := fits.of(s, p, name)) > best:
                best, rival = fit, other
        if not rival or best < NAMES_RATIO:
            continue
        known = [s for s in passages.sentences if name in s.lower]
        holding = max((fits.of(s, s, name) for s in known), default=0.0)
        if best - holding >= NAMES_MARGIN_RATIO:
            yield f"name: the answer says {name}, the contexts {rival}"


def _rival_name(claim: Statement, around: tuple[str, str], part: Statement) -> str:
    """A name in `part` that stands between the same words as a name of the claim; "" when there is none."""
    before, after = around
    for other in part.names:
        if other in claim.lower:
            continue
        other_before, other_after = _neighbours(part.lower, other)
        if (before and before == other_before) or (after and after == other_after):
            return other
    return ""


def _neighbours(lower: str, name: str) -> tuple[str, str]:
    left, _, right = lower.partition(name)
    before, after = _BEFORE.search(left[-BEFORE_CHARS:]), _WORD_AFTER.match(right)
    return before[1] if before else "", stem(after[1]) if after else ""


def _close(found: Sequence[tuple[float, Statement]], least: float) -> list[Statement]:
    """Clauses that fit about as well as the best; none when that one fits less well than `least`."""
    best = max([fit for fit, _ in found], default=0.0)
    return [p for fit, p in found if fit >= best - CLOSE_RATIO] if best >= least else []


def _polarity(fits: Fits, parts: Parts, wholes: Parts) -> Iterator[str]:
    claim = fits.claim
    found = [(fits.of(s, p, None), p) for s, p in parts]
    # Clauses only: in "updates keep the settings, a reset deletes them" each says the opposite of the other.
    close = _close(found, NEGATION_RATIO)
    if close and all(_denies(claim, p) for p in close):
        yield "negation: the contexts say the opposite"
    # Every clause that fits about as well must point the other way, else one of them supports the claim.
    close = _close([*found, *((fits.of(s, p, None), p) for s, p in wholes)], POLARITY_RATIO)
    if not close:
        return
    mine = periods_of(claim.lower)
    if mine and all((theirs := periods_of(p.lower)) and mine.isdisjoint(theirs) for p in close):
        yield "period: the contexts name another period"
    elif all(opposed(sides_of(claim.lower), sides_of(p.lower)) for p in close):
        yield "opposite: the contexts use the opposite word"


def _denies(claim: Statement, part: Statement) -> bool:
    """Whether one of the two denies a term that the other states."""
    (mine, mine_near), (theirs, theirs_near) = negated(claim.lower), negated(part.lower)
    if mine and theirs:
        return False  # "none may be used again" and "cannot be reused" deny the same thing in other words
    return any(_states(claim, t) for t in theirs - mine_near) or any(_states(part, t) for t in mine - theirs_near)


def _states(part: Statement, term: str) -> bool:
    return term in part.terms


def _swapped(claim: Statement, near: Sequence[Statement], weights: dict[str, float]) -> Iterator[str]:
    """Two facts that changed places in a sentence that is otherwise the same, word for word and in order."""
    if not near:
        return
    best = near[0]
    once = [t for t in (*claim.names, *claim.exact) if claim.lower.count(t) == 1 and best.lower.count(t) == 1]
    digits = [t for n in claim.numbers if claim.lower.count(t := f"{n.plain:g}") == 1 and best.lower.count(t) == 1]
    facts = next((f for f in (once, digits) if len(set(f)) >= 2), [])
    order = sorted(dict.fromkeys(facts), key=claim.lower.index)
    if len(order) < 2 or order == sorted(order, key=best.lower.index):
        return
    plain = [t for t in claim.terms if t not in facts and not any(t in f or f in t for f in facts)]
    other = [t for t in best.terms if t in set(plain)]
    mine = [t for t in plain if t in set(other)]
    covered = sum(weights.get(t, 0.0) for t in set(mine)) >= 0.8 * sum(weights.get(t, 0.0) for t in set(plain))
    passive = (" by " in claim.lower and " by " not in best.lower) or (
        " by " in best.lower and " by " not in claim.lower
    )
    if (
        covered
        and len(mine) >= 2
        and mine == other[: len(mine)]
        and not passive
        and not CJK_CHAR.search("".join(facts))
    ):
        yield f"order: {order[0]} and {order[1]} have changed places"
