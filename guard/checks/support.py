"""How well contexts support one claim: coverage, missing facts, and contradictions that embeddings cannot see. Pure.

A context is read once (`read_context`, cached: the same documents come back in RAG traffic); those of an exchange
are searched together (`passages`). A claim is compared with all sentences through an inverted index, and with the
clauses of the few best sentences where facts are at stake: facts bind within a clause, plain words within the sentence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from guard.checks import novelty
from guard.checks.context import EXACT_WEIGHT, NUMBER_WEIGHT
from guard.checks.contradictions import contradictions
from guard.checks.facts import Statement
from guard.checks.passages import Passages
from guard.checks.polarity import negated, opposed, sides_of

NEAR_RATIO = 0.6
"""Sentences that cover less than this share of what the best one covers are about something else."""

RANKED_COUNT, NEAR_COUNT = 8, 5
"""Sentences that are kept as the best, and those of them that may contradict."""

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
    "unknown_name", "log_words",
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


def assess(claim: Statement, passages: Passages, question: Statement | None = None) -> Support:
    """Compare one claim with all contexts; question: read like a claim, for what the answer only repeats."""
    asked = question.term_set if question is not None else frozenset()
    looked_up = {term: passages.term(term) for term in claim.terms}
    weights: dict[str, float] = {}
    covered = run = longest_run = only_question = missing_weight = 0.0
    scores = [0.0] * len(passages.sentences)
    for term, (says, credit, _, places) in looked_up.items():
        weights[term] = says
        covered += credit * says
        for place in places:
            scores[place] += says
        if credit == 0.0:
            missing_weight += says
            run += says
            if run > longest_run:
                longest_run = run
            if term in asked:
                only_question += says
        else:
            run = 0.0
    total = sum(weights.values()) or 1.0
    whole = total + NUMBER_WEIGHT * len(claim.numbers) + EXACT_WEIGHT * len(claim.exact)
    ranked = _ranked(claim, scores, passages)
    best_score = ranked[0][0] if ranked else 0.0
    best_place = ranked[0][1] if ranked else -1
    best = passages.sentences[best_place] if ranked else None
    pairs = list(zip(claim.terms, claim.terms[1:], strict=False))
    held = [holders for number in claim.numbers if (holders := passages.holders(number))]
    lost_exact = sum(not passages.exact_holders(item) for item in claim.exact)
    known_names = [name for name in claim.names if passages.mentions(name)]
    coverage = best_score / whole
    aligned = best is not None and coverage >= ALIGNED_RATIO
    differs = aligned and best is not None and bool(negated(claim.lower)[0]) != bool(negated(best.lower)[0])
    against = aligned and best is not None and opposed(sides_of(claim.lower), sides_of(best.lower))
    near = tuple(place for score, place in ranked[:NEAR_COUNT] if score >= NEAR_RATIO * best_score)
    found = contradictions(claim, near, passages, weights, question) if near else ()
    features = (
        1 - covered / total,
        1 - coverage,
        1 - _best_two(claim, ranked, passages, weights) / whole,
        1 - passages.pair_count(pairs) / len(pairs) if pairs else 1 - covered / total,
        min(len(claim.numbers) - len(held), 3) / 3,
        min(sum(best_place not in holders for holders in held) if best else 0, 3) / 3,
        min(lost_exact, 2) / 2,
        min(len(claim.names) - len(known_names), 4) / 4,
        min(sum(name not in best.lower for name in known_names) if best else 0, 4) / 4,
        float(differs),
        float(against),
        math.log1p(len(weights) + len(claim.numbers)) / 4,
        min(longest_run, 6.0) / 6,
        min(missing_weight, 12.0) / 12,
        only_question / total,
        float(bool(found)),
        float(not _FIRST_PERSON.isdisjoint([w.strip(",.!") for w in claim.lower.split(maxsplit=6)[:6]])),
        float(not weights),
        *novelty.novelty(looked_up, len(passages.sentences), question),
        float(len(known_names) < len(claim.names)),
        math.log1p(len(claim.words)) / 4,
    )
    return Support(features, found, best.text if best else "", coverage, len(weights))


def _ranked(claim: Statement, scores: list[float], passages: Passages) -> list[tuple[float, int]]:
    """(coverage in weight, sentence) of the best eight sentences, best first. scores: by terms alone; is added to."""
    for item in claim.exact:
        for place in passages.exact_holders(item):
            scores[place] += EXACT_WEIGHT
    for number in claim.numbers:
        for place in passages.holders(number):
            scores[place] += NUMBER_WEIGHT
    lowest = sorted(scores)[-RANKED_COUNT] if len(scores) > RANKED_COUNT else 0.0
    # Of equally covering sentences the shorter says it more directly; then the order of the text decides.
    lengths = passages.lengths
    rows = [(-score, lengths[place], place) for place, score in enumerate(scores) if score >= lowest and score]
    rows.sort()
    return [(-score, place) for score, _, place in rows[:RANKED_COUNT]]


def _best_two(
    claim: Statement, ranked: list[tuple[float, int]], passages: Passages, weights: dict[str, float]
) -> float:
    """Weight covered by the best sentence and the one of the next best that adds most."""
    if not ranked:
        return 0.0
    score, place = ranked[0]
    first = passages.sentences[place]
    have = first.term_set
    left = [(term, says) for term, says in weights.items() if term not in have]
    numbers_left = [places for n in claim.numbers if place not in (places := passages.holders(n))]
    exact_left = [e for e in claim.exact if e not in first.exact]
    if not (left or numbers_left or exact_left):
        return score
    added = 0.0
    for _, other_place in ranked[1:]:
        other = passages.sentences[other_place]
        own = other.term_set
        gain = sum([says for term, says in left if term in own])
        gain += NUMBER_WEIGHT * sum([other_place in places for places in numbers_left])
        gain += EXACT_WEIGHT * sum([e in other.exact for e in exact_left])
        added = max(added, gain)
    return score + added
