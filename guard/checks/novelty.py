"""How much of a claim is new against its contexts, rarity weighed. Pure.

Coverage (`support`) weighs words by class; these features weigh them by how telling each is among these very contexts,
and look at what the question did not say already. All in 0..1, a larger value means less support. Novelty of every
token and token pair was tried too: better where models copy (BEGIN), worse on paraphrase, so it is not here.
"""

from __future__ import annotations

from collections.abc import Mapping

from guard.checks.facts import Statement
from guard.checks.passages import Passages

FEATURES = ("rare_uncovered", "rare_uncovered_best", "new_uncovered", "last_missing")


def novelty(
    passages: Passages, weights: dict[str, float], credits: dict[str, float], question: Statement | None
) -> tuple[float, ...]:
    """The features, in the order of `FEATURES`. weights, credits: of each distinct term of the claim."""
    rare, rare_best = _rare(passages, credits)
    asked = question.term_set if question is not None else frozenset()
    new = [t for t in weights if t not in asked]
    new_weight = sum([weights[t] for t in new])
    new_uncovered = 1 - sum([weights[t] * credits[t] for t in new]) / new_weight if new_weight else 0.0
    last = next(reversed(credits), None)
    return rare, rare_best, new_uncovered, float(last is not None and credits[last] == 0.0)


def _rare(passages: Passages, credits: Mapping[str, float]) -> tuple[float, float]:
    """Uncovered share, in all contexts and in the best sentence, with words weighed by how few sentences have them."""
    total = covered = 0.0
    best = [0.0] * len(passages.sentences)
    for term, credit in credits.items():
        _, _, value, places = passages.term(term)
        total += value
        covered += value * (credit > 0.0)
        for place in places:
            best[place] += value
    if not total:
        return 0.5, 0.5
    return 1 - covered / total, 1 - max(best, default=0.0) / total
