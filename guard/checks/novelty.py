"""How much of a claim is new against its contexts, rarity weighed. Pure.

Coverage (`support`) weighs words by class; these features weigh them by how telling each is among these very contexts,
and look at what the question did not say already. All in 0..1, a larger value means less support. Novelty of every
token and token pair was tried too: better where models copy (BEGIN), worse on paraphrase, so it is not here.
"""

from __future__ import annotations

from collections.abc import Mapping

from guard.checks.facts import Statement
from guard.checks.passages import Known

FEATURES = ("rare_uncovered", "rare_uncovered_best", "new_uncovered", "last_missing")


def novelty(looked_up: Mapping[str, Known], sentence_count: int, question: Statement | None) -> tuple[float, ...]:
    """The features, in the order of `FEATURES`. looked_up: each distinct term of the claim, in order."""
    asked = question.term_set if question is not None else frozenset()
    total = covered = new_weight = new_covered = credit = 0.0
    best = [0.0] * sentence_count
    for term, (says, credit, rare_weight, places) in looked_up.items():
        total += rare_weight
        if credit > 0.0:
            covered += rare_weight
        for place in places:
            best[place] += rare_weight
        if term not in asked:
            new_weight += says
            new_covered += says * credit
    new_uncovered = 1 - new_covered / new_weight if new_weight else 0.0
    last_missing = float(bool(looked_up) and credit == 0.0)
    if not total:
        return 0.5, 0.5, new_uncovered, last_missing
    return 1 - covered / total, 1 - max(best, default=0.0) / total, new_uncovered, last_missing
