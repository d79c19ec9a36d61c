"""How well a clause of the contexts fits one claim: what both say, one fact left out. Pure.

A claim is held against the same few clauses again and again, each time with another fact left out; what does not change
is computed once.
"""

from __future__ import annotations

from guard.checks.context import EXACT_WEIGHT, NUMBER_WEIGHT
from guard.checks.facts import Statement
from guard.checks.numbers import Quantity, same

ELSEWHERE_CREDIT = 0.5
"""Share of a word's weight when it stands in the same sentence but in another clause."""


class Fits:
    """One claim and what is known of it against clauses. weights: of the claim's terms; total: their sum.

    Clauses are told apart as objects: they must outlive this.
    """

    def __init__(self, claim: Statement, weights: dict[str, float]) -> None:
        self.claim, self.weights = claim, weights
        self.total = sum(weights.values())
        self._words: dict[tuple[int, int], float] = {}
        self._numbers: dict[int, tuple[list[bool], list[Quantity]]] = {}

    def of(self, sentence: Statement, part: Statement, without: Quantity | str | None) -> float:
        """Share of the claim, one fact left out, that a clause covers; words elsewhere in its sentence count half."""
        claim = self.claim
        if isinstance(without, str):
            left = {
                term: says
                for term, says in self.weights.items()
                if term != without and not (len(term) > 3 and without.startswith(term))
            }
            total, got = sum(left.values()), _words(left, sentence, part)
        else:
            total = self.total
            key = (id(sentence), id(part))
            known = self._words.get(key)
            got = self._words[key] = _words(self.weights, sentence, part) if known is None else known
        if claim.numbers:
            held = self.held(part)
            for i, number in enumerate(claim.numbers):
                if number is not without:
                    total += NUMBER_WEIGHT
                    got += NUMBER_WEIGHT * held[i]
        for item in claim.exact:
            if item != without:
                total += EXACT_WEIGHT
                got += EXACT_WEIGHT * (item in part.exact)
        return got / total if total else 0.0

    def held(self, part: Statement) -> list[bool]:
        """Of each number of the claim, whether the clause states it."""
        return self._compared(part)[0]

    def other_numbers(self, part: Statement) -> list[Quantity]:
        """Numbers of the clause that the claim does not state."""
        return self._compared(part)[1] if part.numbers else []

    def _compared(self, part: Statement) -> tuple[list[bool], list[Quantity]]:
        known = self._numbers.get(id(part))
        if known is None:
            held = [False] * len(self.claim.numbers)
            others = []
            for theirs in part.numbers:
                stated = False
                for i, mine in enumerate(self.claim.numbers):
                    if same(mine, theirs):
                        held[i] = stated = True
                if not stated:
                    others.append(theirs)
            known = self._numbers[id(part)] = held, others
        return known


def _words(weights: dict[str, float], sentence: Statement, part: Statement) -> float:
    """Weight of the words that a clause has.

    Everything is added in the order of the claim, so that each form below gives the same sum to the last bit.
    """
    own, whole = part.term_set, sentence.term_set
    characters = "" if part.folded.isascii() else part.folded
    if not characters and own is whole:
        return sum([says for term, says in weights.items() if term in own], 0.0)
    if not characters:
        half = ELSEWHERE_CREDIT
        return sum([
            says if term in own else half * says
            for term, says in weights.items() if term in own or term in whole
        ], 0.0)  # fmt: skip
    got = 0.0
    for term, says in weights.items():
        if term in own:
            got += says
        elif term in whole or (
            len(term) == 2 and not term.isascii() and term[0] in characters and term[1] in characters
        ):
            got += ELSEWHERE_CREDIT * says  # Two characters apart: the same word in another compound, as often as not.
    return got
