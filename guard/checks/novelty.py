"""How much of a claim is new against its contexts, rarity weighed. Pure.

Coverage (`support`) weighs words by class; these features weigh them by how telling each is among these very contexts,
and look at what the question did not say already. All in 0..1, a larger value means less support. Novelty of every
token and token pair was tried too: better where models copy (BEGIN), worse on paraphrase, so it is not here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from guard.checks.context import Context
from guard.checks.facts import Statement

FEATURES = ("rare_uncovered", "rare_uncovered_best", "new_uncovered", "last_missing")


def novelty(
    contexts: Sequence[Context],
    weights: dict[str, float],
    credits: Mapping[str, float],
    question: Statement | None,
) -> tuple[float, ...]:
    """The features, in the order of `FEATURES`. weights, credits: of each distinct term of the claim."""
    rare, rare_best = _rare(contexts, weights, credits)
    asked = question.term_set if question is not None else frozenset()
    new = [t for t in weights if t not in asked]
    new_weight = sum(weights[t] for t in new)
    new_uncovered = 1 - sum(weights[t] * credits[t] for t in new) / new_weight if new_weight else 0.0
    last = next(reversed(weights), None)
    return rare, rare_best, new_uncovered, float(last is not None and credits[last] == 0.0)


def _rare(
    contexts: Sequence[Context], weights: Mapping[str, float], credits: Mapping[str, float]
) -> tuple[float, float]:
    """Uncovered share, in all contexts and in the best sentence, with words weighed by how few sentences have them."""
    count = max(1, sum(len(c.sentences) for c in contexts))
    top = math.log(count + 1)
    total = covered = 0.0
    best: dict[tuple[int, int], float] = {}
    for term, weight in weights.items():
        places = [c.postings.get(term, ()) for c in contexts]
        frequency = sum(map(len, places))
        value = weight * max(0.2, top - math.log(frequency + 0.5))
        total += value
        covered += value * (credits[term] > 0.0)
        for ci, where in enumerate(places):
            for si in where:
                best[ci, si] = best.get((ci, si), 0.0) + value
    if not total:
        return 0.5, 0.5
    return 1 - covered / total, 1 - max(best.values(), default=0.0) / total
