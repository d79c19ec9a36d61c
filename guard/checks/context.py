"""A context read once: its sentences, where each term stands, and its clauses on demand. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import rag.text
from guard.checks.claims import clauses
from guard.checks.facts import Statement, statement
from guard.checks.number_index import NumberIndex

NUMBER_WEIGHT = 2.0
"""A number counts as much as two plain words."""

EXACT_WEIGHT = 2.5
"""A URL, path or identifier counts as much as two and a half."""


@dataclass(slots=True)
class Context:
    """One context, read: its sentences and where each term stands."""

    sentences: tuple[Statement, ...]
    postings: dict[str, list[int]]
    pairs: set[tuple[str, str]]
    prefixes: set[str]
    numbers: NumberIndex
    exact: dict[str, list[int]]
    lower: str
    clauses: dict[int, tuple[Statement, ...]] = field(default_factory=dict)

    def clauses_of(self, index: int) -> tuple[Statement, ...]:
        """Clauses of a sentence, read when they are first needed."""
        known = self.clauses.get(index)
        if known is None:
            parts = clauses(self.sentences[index].text)
            known = tuple(statement(p) for p in parts) if len(parts) > 1 else (self.sentences[index],)
            self.clauses[index] = known
        return known


CACHED_CHARS = 8_000
CACHED_COUNT = 512
"""Contexts kept in memory: at most about 60 MB, whatever comes."""


def read_context(text: str) -> Context:
    """Read a context; cached by its text unless it is very long."""
    return _read_cached(text) if len(text) <= CACHED_CHARS else _read(text)


def _read(text: str) -> Context:
    found = tuple(
        statement(s) for line in text.splitlines() for s in rag.text.sentences(rag.text.normalise_space(line))
    )
    postings: dict[str, list[int]] = {}
    pairs: set[tuple[str, str]] = set()
    exact: dict[str, list[int]] = {}
    for i, sentence in enumerate(found):
        for term in sentence.term_set:
            postings.setdefault(term, []).append(i)
        pairs.update(zip(sentence.terms, sentence.terms[1:], strict=False))
        for item in sentence.exact:
            exact.setdefault(item, []).append(i)
    numbers = NumberIndex((i, number) for i, sentence in enumerate(found) for number in sentence.numbers)
    prefixes = {t[:5] for t in postings if len(t) >= 6 and t.isascii()}
    return Context(found, postings, pairs, prefixes, numbers, exact, "\n".join(s.lower for s in found))


_read_cached = lru_cache(maxsize=CACHED_COUNT)(_read)
