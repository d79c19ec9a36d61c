"""The contexts of one exchange taken together: where each term, number and identifier stands, looked up once. Pure.

The claims of an answer speak of the same things, so each of them is searched for once per exchange, not once per claim.
Sentences of all contexts are numbered through; a place is such a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from guard.checks.context import Context
from guard.checks.facts import Statement
from guard.checks.lexicon import weight
from guard.checks.numbers import Quantity

PREFIX_CREDIT = 0.6
"""Of a word of which only the first five letters stand in the contexts."""

PREFIX_CHARS = 5
RARITY_FLOOR = 0.2


Known = tuple[float, float, float, Sequence[int]]
"""One term: how much it says; 1.0 when it stands in the contexts, `PREFIX_CREDIT` when its beginning does, else 0.0;
its weight by how few sentences have it; the sentences that have it."""


class Passages:
    """All contexts of one exchange."""

    def __init__(self, contexts: Sequence[Context]) -> None:
        self.contexts = contexts
        self.sentences: list[Statement] = []
        self._starts: list[int] = []
        for context in contexts:
            self._starts.append(len(self.sentences))
            self.sentences += context.sentences
        self.lengths = [len(s.terms) for s in self.sentences]
        self._top = math.log(max(1, len(self.sentences)) + 1)
        self._postings = [(start, c.postings) for start, c in zip(self._starts, contexts, strict=True)]
        self._known: dict[str, Known] = {}
        self._holders: dict[tuple[str, float, float], frozenset[int]] = {}
        self._names: dict[str, bool] = {}

    def term(self, term: str) -> Known:
        """What is known of a content term."""
        known = self._known.get(term)
        if known is None:
            known = self._known[term] = self._look(term)
        return known

    def _look(self, term: str) -> Known:
        places: list[int] = []
        for start, postings in self._postings:
            if found := postings.get(term):
                places += [start + i for i in found] if start else found
        says = weight(term)
        rare_weight = says * max(RARITY_FLOOR, self._top - math.log(len(places) + 0.5))
        credit = 1.0 if places else 0.0
        if not places and len(term) > PREFIX_CHARS and term.isascii():
            prefix = term[:PREFIX_CHARS]
            credit = PREFIX_CREDIT if any(prefix in c.prefixes for c in self.contexts) else 0.0
        return says, credit, rare_weight, places

    def holders(self, number: Quantity) -> frozenset[int]:
        """Sentences that state a number."""
        key = (number.dimension, number.value, number.plain)
        found = self._holders.get(key)
        if found is None:
            places = [
                start + i
                for start, context in zip(self._starts, self.contexts, strict=True)
                for i in context.numbers.holders(number)
            ]
            found = self._holders[key] = frozenset(places)
        return found

    def exact_holders(self, item: str) -> list[int]:
        """Sentences that have a URL, path or identifier."""
        return [
            start + i
            for start, context in zip(self._starts, self.contexts, strict=True)
            for i in context.exact.get(item, ())
        ]

    def mentions(self, text: str) -> bool:
        """Whether a text in lower case, a name say, stands anywhere in the contexts."""
        found = self._names.get(text)
        if found is None:
            found = self._names[text] = any(text in context.lower for context in self.contexts)
        return found

    def pair_count(self, pairs: list[tuple[str, str]]) -> int:
        """How many of these neighbours stand side by side in the contexts, repeats counted."""
        left = pairs
        for context in self.contexts:
            known = context.pairs
            left = [pair for pair in left if pair not in known]
        return len(pairs) - len(left)

    def clauses_of(self, place: int) -> tuple[Statement, ...]:
        """The clauses of one sentence."""
        which = len(self._starts) - 1
        while self._starts[which] > place:
            which -= 1
        return self.contexts[which].clauses_of(place - self._starts[which])
