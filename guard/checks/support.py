"""How well contexts support one claim: coverage, missing facts, and contradictions that embeddings cannot see. Pure.

A context is read once (`read_context`, cached: the same documents come back in RAG traffic). A claim is then compared
with all sentences through an inverted index, and with the clauses of the few best sentences where facts are at stake:
facts bind within a clause, plain words within the sentence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from guard.checks import novelty
from guard.checks.context import EXACT_WEIGHT, NUMBER_WEIGHT, Context
from guard.checks.contradictions import contradictions
from guard.checks.facts import Statement
from guard.checks.lexicon import weight
from guard.checks.numbers import Quantity, same
from guard.checks.polarity import negated, opposed, sides_of

NEAR_RATIO = 0.6
"""Sentences that cover less than this share of what the best one covers are about something else."""

PREFIX_CREDIT = 0.6
ALIGNED_RATIO = 0.60
"""Coverage of the rest of a claim from which a clause is about the same thing."""


@dataclass(frozen=True, slots=True)
class Support:
    """What the contexts say about one claim.

    features: numbers in the order of `FEATURES`. contradictions: one short reason each. best: text of the best
    supporting sentence, "" when none shares a term. term_count: distinct content terms of the claim.
    """

    features: tuple[float, ...]
    contradictions: tuple[str, ...]
    best: str
    best_coverage: float
    term_count: int


FEATURES = (
    "uncovered", "uncovered_best", "uncovered_best_two", "uncovered_pairs", "missing_numbers", "numbers_elsewhere",
    "missing_exact", "missing_names", "names_elsewhere", "negation_differs", "opposed", "log_terms", "missing_run",
    "missing_terms", "question_only", "contradicted", "first_person", "no_terms", *novelty.FEATURES,
)  # fmt: skip
"""Names of the features of one claim, all in about 0..1; a larger value means less support."""

_FIRST_PERSON = frozenset(
    (
        "i",
        "i'm",
        "i've",
        "i'd",
        "my",
        "me",
        "we",
        "haha",
        "lol",
        "wow",
        "oh",
        "yeah",
        "yes",
        "cool",
        "nice",
        "love",
        "sure",
    )
)


def assess(claim: Statement, contexts: Sequence[Context], question: Statement | None = None) -> Support:
    """Compare one claim with all contexts; question: read like a claim, for what the answer only repeats."""
    unique = dict.fromkeys(claim.terms)
    weights = {t: weight(t) for t in unique}
    total = sum(weights.values()) or 1.0
    covered = run = longest_run = only_question = 0.0
    missing: list[str] = []
    credits = {t: _credit(t, contexts) for t in unique}
    for term, credit in credits.items():
        covered += credit * weights[term]
        if credit == 0.0:
            missing.append(term)
            run += weights[term]
            longest_run = max(longest_run, run)
            only_question += weights[term] if question is not None and term in question.term_set else 0.0
        else:
            run = 0.0
    fact_weight = NUMBER_WEIGHT * len(claim.numbers) + EXACT_WEIGHT * len(claim.exact)
    ranked = _ranked(claim, weights, contexts)
    best_score = ranked[0][0] if ranked else 0.0
    two = _best_two(claim, ranked, contexts, weights)
    pair_list = list(zip(claim.terms, claim.terms[1:], strict=False))
    pairs_found = sum(any(p in c.pairs for c in contexts) for p in pair_list)
    lost_numbers = [n for n in claim.numbers if not _holders(n, contexts)]
    lost_exact = [e for e in claim.exact if not _exact_holders(e, contexts)]
    lost_names = [n for n in claim.names if not _known_name(n, contexts)]
    best = contexts[ranked[0][1]].sentences[ranked[0][2]] if ranked else None
    elsewhere = sum(
        1 for n in claim.numbers if best and n not in lost_numbers and not any(same(n, m) for m in best.numbers)
    )
    names_elsewhere = sum(1 for n in claim.names if best and n not in lost_names and n not in best.lower)
    aligned = best is not None and best_score / (total + fact_weight) >= ALIGNED_RATIO
    differs = aligned and best is not None and bool(negated(claim.lower)[0]) != bool(negated(best.lower)[0])
    against = aligned and best is not None and opposed(sides_of(claim.lower), sides_of(best.lower))
    near = tuple((contexts[ci], si) for score, ci, si in ranked[:5] if score >= NEAR_RATIO * best_score)
    found = contradictions(claim, near, contexts, weights, question) if near else ()
    first_words = claim.lower.split(maxsplit=6)[:6]
    features = (
        1 - covered / total,
        1 - best_score / (total + fact_weight),
        1 - two / (total + fact_weight),
        1 - pairs_found / len(pair_list) if pair_list else 1 - covered / total,
        min(len(lost_numbers), 3) / 3,
        min(elsewhere, 3) / 3,
        min(len(lost_exact), 2) / 2,
        min(len(lost_names), 4) / 4,
        min(names_elsewhere, 4) / 4,
        float(differs),
        float(against),
        math.log1p(len(unique) + len(claim.numbers)) / 4,
        min(longest_run, 6.0) / 6,
        min(sum(weights[t] for t in missing), 12.0) / 12,
        only_question / total,
        float(bool(found)),
        float(any(w.strip(",.!") in _FIRST_PERSON for w in first_words)),
        float(not unique),
        *novelty.novelty(contexts, weights, credits, question),
    )
    coverage = best_score / (total + fact_weight)
    return Support(features, found, best.text if best else "", coverage, len(unique))


def _credit(term: str, contexts: Sequence[Context]) -> float:
    if any(term in c.postings for c in contexts):
        return 1.0
    if len(term) >= 6 and term.isascii() and any(term[:5] in c.prefixes for c in contexts):
        return PREFIX_CREDIT
    return 0.0


def _ranked(claim: Statement, weights: dict[str, float], contexts: Sequence[Context]) -> list[tuple[float, int, int]]:
    """(coverage in weight, context, sentence) of the best eight sentences, best first."""
    ranked: list[tuple[float, int, int]] = []
    for ci, context in enumerate(contexts):
        scores: dict[int, float] = {}
        for term, value in weights.items():
            for si in context.postings.get(term, ()):
                scores[si] = scores.get(si, 0.0) + value
        for item in claim.exact:
            for si in context.exact.get(item, ()):
                scores[si] = scores.get(si, 0.0) + EXACT_WEIGHT
        for number in claim.numbers:
            for si in {si for si, n in context.numbers if same(number, n)}:
                scores[si] = scores.get(si, 0.0) + NUMBER_WEIGHT
        ranked.extend((score, ci, si) for si, score in scores.items())
    # Of equally covering sentences the shorter says it more directly; then the order of the text decides.
    ranked.sort(key=lambda r: (-r[0], len(contexts[r[1]].sentences[r[2]].terms), r[1], r[2]))
    return ranked[:8]


def _best_two(
    claim: Statement, ranked: list[tuple[float, int, int]], contexts: Sequence[Context], weights: dict[str, float]
) -> float:
    """Weight covered by the best sentence and the one of the next best that adds most."""
    if not ranked:
        return 0.0
    first = contexts[ranked[0][1]].sentences[ranked[0][2]]
    have = first.term_set
    numbers_left = [n for n in claim.numbers if not any(same(n, m) for m in first.numbers)]
    exact_left = [e for e in claim.exact if e not in first.exact]
    added = 0.0
    for _, ci, si in ranked[1:]:
        other = contexts[ci].sentences[si]
        gain = sum(weights[t] for t in other.term_set if t in weights and t not in have)
        gain += NUMBER_WEIGHT * sum(any(same(n, m) for m in other.numbers) for n in numbers_left)
        gain += EXACT_WEIGHT * sum(e in other.exact for e in exact_left)
        added = max(added, gain)
    return ranked[0][0] + added


def _holders(number: Quantity, contexts: Sequence[Context]) -> list[tuple[int, int]]:
    return [(ci, si) for ci, c in enumerate(contexts) for si, n in c.numbers if same(number, n)]


def _exact_holders(item: str, contexts: Sequence[Context]) -> list[tuple[int, int]]:
    return [(ci, si) for ci, c in enumerate(contexts) for si in c.exact.get(item, ())]


def _known_name(name: str, contexts: Sequence[Context]) -> bool:
    return any(name in c.lower for c in contexts)
