"""Whether two answers to what was taken for one question say the same; runs in the worker. Pure but for the embedder.

A model words the same fact in many ways, so the words may differ; numbers, identifiers and which side of an opposite is
taken may not, and on the whole the two have to be alike.
"""

from __future__ import annotations

from collections.abc import Callable

from guard.cache.gate_facts import facts_of
from guard.checks.lexicon import is_cjk, normalise
from guard.checks.numbers import same
from guard.checks.polarity import opposed
from guard.checks.similarity import lexical_cosine

ALIKE_LATIN = 0.75
ALIKE_HAN = 0.4
"""Least likeness: embedded cosine for Latin script, cosine of words and bigrams for the rest (and without embedder)."""

ANSWER_CHARS = 4000


def compare(served: str, fresh: str, cosine: Callable[[str, str], float] | None) -> tuple[bool | None, float]:
    """(whether the two say the same, their likeness); None when one of them is empty.

    cosine: of two texts, by an embedder that understands them.

    >>> compare("You have 14 days.", "You have 7 days.", None)[0]
    False
    """
    one, other = normalise(served[:ANSWER_CHARS]).strip(), normalise(fresh[:ANSWER_CHARS]).strip()
    if not one or not other:
        return None, 0.0
    if one == other:
        return True, 1.0
    latin = not is_cjk(one) and not is_cjk(other)
    likeness = cosine(one, other) if cosine is not None and latin else lexical_cosine(one, other)
    a, b = facts_of(one), facts_of(other)
    # One answer may say more than the other; a number on each side that the other lacks is one in another's place.
    mine = [x for x in a.numbers if not any(same(x, y) for y in b.numbers)]
    theirs = [y for y in b.numbers if not any(same(y, x) for x in a.numbers)]
    numbers = not (mine and theirs)
    exact = not (a.exact - b.exact and b.exact - a.exact)
    sides = not (opposed(a.sides, b.sides) and opposed(b.sides, a.sides))
    alike = likeness >= (ALIKE_LATIN if latin and cosine is not None else ALIKE_HAN)
    return numbers and exact and sides and alike, likeness
