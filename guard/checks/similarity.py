"""How close the answer is to its reference, or else to its best context: cosine in [0, 1]."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache

import rag.text
from guard.checks.lexicon import normalise, terms, weight, words
from guard.checks.semantic import Semantic
from slo.types import CheckResult, Finding

CHECK = "similarity"
LIMIT = 0.5
"""Below this a single answer is called poor (share of answers under 50 % in the practice's vocabulary)."""

LEXICAL_CHARS = 16_000
NUMBER_WEIGHT = 1.5
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
CONTEXT_COUNT = 20
MAX_STEPS = 2_000
"""Sentences looked at per context, a run counted by its length: 16,000 characters against as many took 3 s without."""


def check_similarity(
    answer: str,
    contexts: Sequence[str] | None,
    reference: str = "",
    semantic: Semantic | None = None,
    waiting_for: str = "",
) -> Finding:
    """Cosine of the answer with the reference when there is one, else with the best context.

    Without an embedder that covers the text it is the cosine of words, and `detector` says so; so it is of a context
    that only hashed characters would be compared with. waiting_for: why an
    embedder that will serve such texts cannot just now; then the check is skipped, because the two scales differ and a
    mean over both would move with the load.
    """
    others = [reference] if reference.strip() else [c for c in contexts or () if c.strip()][:CONTEXT_COUNT]
    if not answer.strip() or not others:
        return Finding(CHECK, CheckResult.SKIPPED, None, "nothing to compare with")
    embedded = semantic is not None and semantic.covers(answer)
    if waiting_for and (embedded or semantic is None):
        return Finding(CHECK, CheckResult.SKIPPED, None, waiting_for)
    to = "to the reference" if reference.strip() else "to the best context"
    reader = semantic.semantic_for(answer, *others) if semantic is not None and embedded else None
    if semantic is not None and reader is not None and not (reader.by_characters and not reference.strip()):
        score, detector = semantic.best_cosine(answer, others), reader.name
    else:
        compare = lexical_cosine if reference.strip() else best_part_cosine
        score = max(compare(answer[:LEXICAL_CHARS], other[:LEXICAL_CHARS]) for other in others)
        detector = "lexical (words and character bigrams)"
    result = CheckResult.PASS if score >= LIMIT else CheckResult.FAIL
    return Finding(CHECK, result, score, to, (), detector)


def lexical_cosine(one: str, other: str) -> float:
    """Cosine of two texts as weighted sets of terms (stems, CJK bigrams, numbers), in [0, 1].

    >>> round(lexical_cosine("The leave is approved by HR", "HR approves leave"), 2)
    1.0
    """
    a, b = _profile(one), _profile(other)
    shared = a.keys() & b.keys()
    norm = math.sqrt(sum(w * w for w in a.values()) * sum(w * w for w in b.values()))
    return min(1.0, sum(a[t] * b[t] for t in shared) / norm) if norm else 0.0


def best_part_cosine(answer: str, context: str) -> float:
    """Cosine of words with the best run of sentences of a context that is about as long as the answer, in [0, 1].

    A cosine of sets of words falls with the length of the longer one alone: one sentence of ten, word for word, has
    sqrt(1/10) = 0.32 to the whole. What embedders say of such a pair does not fall like that, and the two stand under
    one limit.

    >>> best_part_cosine("HR approves leave.", "Leave is 10 days. HR approves leave. Ask early. Rooms are upstairs.")
    1.0
    """
    wanted = _profile(answer)
    full = sum(w * w for w in wanted.values())
    best = lexical_cosine(answer, context)
    if not full or best >= 1.0:
        return best
    lines = (rag.text.sentences(rag.text.normalise_space(line)) for line in context.splitlines())
    parts = [_profile(sentence) for line in lines for sentence in line]
    left = MAX_STEPS
    for start, first in enumerate(parts):
        if first.keys().isdisjoint(wanted):
            continue
        if left <= 0:
            break
        seen: set[str] = set()
        shared = norm = 0.0
        for part in parts[start : start + left]:
            left -= 1
            for term in part.keys() - seen:
                norm += part[term] * part[term]
                shared += part[term] * wanted.get(term, 0.0)
            seen |= part.keys()
            best = max(best, shared / math.sqrt(full * norm) if norm else 0.0)
            if norm >= full:
                break
    return min(1.0, best)


@lru_cache(maxsize=2048)
def _profile(text: str) -> dict[str, float]:
    lower = normalise(text).lower()
    found = {term: weight(term) for term in terms(words(lower))}
    found.update((number, NUMBER_WEIGHT) for number in _NUMBER.findall(lower))
    return found


def check_zero_hit(contexts: Sequence[str] | None) -> Finding:
    """Whether retrieval found anything. None: unknown. Score 1.0: a zero-hit."""
    if contexts is None:
        return Finding("zero_hit", CheckResult.SKIPPED, None, "contexts unknown")
    if any(c.strip() for c in contexts):
        return Finding("zero_hit", CheckResult.PASS, 0.0)
    return Finding("zero_hit", CheckResult.FAIL, 1.0, "nothing was retrieved")
