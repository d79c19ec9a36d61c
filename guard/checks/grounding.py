"""Does the answer say what its contexts say? One claim at a time, with the reasons.

    answer -> claims -> (coverage, missing facts, contradictions) -> probability per claim -> score of the answer

Word overlap weighted by how much a word says, and facts compared exactly, carry most of what is cheap; the cosine of an
embedder, where it covers the language, is asked only about claims that are neither clearly supported nor clearly not.
The embedder never overrules a contradiction: it cannot see one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from guard.checks.calibration import Calibration, Language
from guard.checks.claims import split_claims
from guard.checks.combiner import log_odds
from guard.checks.context import Context, read_context
from guard.checks.facts import Statement, statement
from guard.checks.in_doubt import Cosines, compared
from guard.checks.languages import calibration_for
from guard.checks.passages import Passages
from guard.checks.pii import excerpt
from guard.checks.support import Support, assess
from guard.checks.tiers import RULES, Tier
from guard.checks.tiers import ask as ask_tier
from slo.types import CheckResult, Finding

CHECK = "grounding"
CONTRADICTION_CHANCE = 0.8
"""Probability of a contradicted claim, at least."""

CONTRADICTION_MARGIN = 0.05
"""An answer with a contradiction scores at least this much over the threshold."""

SHORT_TERMS, LONG_TERMS = 12, 20
"""Content terms up to which an answer is read as single claims, and from which as a long text."""

NO_CLAIM_SUPPORT = 0.7
"""Support of an answer that neither claims nor refuses: nothing speaks against it, nothing for it."""

ANSWER_CHARS = 32_000
CONTEXT_CHARS = 64_000
CONTEXT_COUNT = 50
CLAIM_COUNT = 200
EVIDENCE_COUNT = 5
EVIDENCE_CHARS = 200
HAZARD_NORM = 1.5
"""Claims add up by this norm of their hazards -log(1 - p): one wild claim weighs more than many mild ones."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One claim and what was found. probability: of being unsupported."""

    claim: str
    probability: float
    support: Support


def check_grounding(
    question: str,
    answer: str,
    contexts: Sequence[str] | None,
    calibration: Calibration,
    *,
    threshold: float | None = None,
    named_threshold: str = "balanced",
    transformer: Cosines | None = None,
    tiers: Sequence[Tier] = (),
) -> Finding:
    """Finding of one answer; `score` is the support, 1 - hallucination score.

    contexts None: unknown, so the answer is unchecked, never passed. (): nothing was retrieved, so an answer that
    asserts anything is unsupported and a refusal passes. threshold: hallucination score in [0, 1].
    Of very long texts a part is read. What is not found in a part of the contexts may stand in the rest, and a part of
    the answer is not all of it: then the answer is `unavailable`, neither failed nor passed.
    """
    if contexts is None:
        return Finding(CHECK, CheckResult.SKIPPED, None, "contexts unknown")
    if not answer.strip():
        return Finding(CHECK, CheckResult.SKIPPED, None, "empty answer")
    claims, refusal_count, whole = _read_claims(answer)
    held = [c for c in contexts if c.strip()]
    used = [c[:CONTEXT_CHARS] for c in held[:CONTEXT_COUNT]]
    if not claims:
        if refusal_count:
            return Finding(CHECK, CheckResult.PASS, 1.0, "a refusal claims nothing", detector="lexical")
        return Finding(CHECK, CheckResult.PASS, NO_CLAIM_SUPPORT, "no claim in the answer", detector="lexical")
    if not used:
        shown = tuple(excerpt(c.text, EVIDENCE_CHARS) for c in claims[:EVIDENCE_COUNT])
        return Finding(CHECK, CheckResult.FAIL, 0.0, "asserts without any context", shown, "lexical")
    name, foreign = calibration_for(answer, calibration.languages)
    language = calibration.languages[name]
    judged, detector = judge(question, claims, used, language, transformer, calibration.embedder, tiers)
    if foreign:
        detector += f" (numbers of {name}: {foreign} has no calibration)"
    limit = language.thresholds[named_threshold] if threshold is None else threshold
    term_count = sum(j.support.term_count for j in judged)
    score = answer_score([j.probability for j in judged], term_count, language)
    if any(must_fail(j.support, term_count) for j in judged):
        detector = f"{RULES}+{detector}"
        score = max(score, min(1.0, limit + CONTRADICTION_MARGIN))  # one false fact in a long answer is a false answer
    if score < limit:
        if not whole:
            return _unread(f"the answer has more than {ANSWER_CHARS:,} characters or {CLAIM_COUNT} claims", detector)
        return Finding(CHECK, CheckResult.PASS, 1.0 - score, "", (), detector)
    if used != held:
        return _unread(f"of the contexts {CONTEXT_COUNT} are read, {CONTEXT_CHARS:,} characters of each", detector)
    bad = sorted(judged, key=lambda j: (not j.support.contradictions, -j.probability))
    worst = [j for j in bad if j.support.contradictions or j.probability >= 0.5] or bad[:1]
    evidence = tuple(f"{excerpt(j.claim, EVIDENCE_CHARS)} [{_why(j)}]" for j in worst[:EVIDENCE_COUNT])
    return Finding(CHECK, CheckResult.FAIL, 1.0 - score, _why(worst[0]), evidence, detector)


def read_claims(answer: str) -> tuple[list[Statement], int]:
    """Claims of an answer that say anything comparable, at most `CLAIM_COUNT`, and the number of refusals."""
    return _read_claims(answer)[:2]


def _read_claims(answer: str) -> tuple[list[Statement], int, bool]:
    """As `read_claims`, and whether they are all there are."""
    texts, refusal_count = split_claims(answer[:ANSWER_CHARS])
    whole = len(answer) <= ANSWER_CHARS and len(texts) <= CLAIM_COUNT
    if len(answer) > ANSWER_CHARS and len(texts) > 1:
        texts.pop()  # cut in the middle
    read = (statement(text) for text in texts[:CLAIM_COUNT])
    return [s for s in read if s.terms or s.numbers or s.exact], refusal_count, whole


def _unread(limit: str, detector: str) -> Finding:
    return Finding(CHECK, CheckResult.UNAVAILABLE, None, f"too long to be judged whole: {limit}", (), detector)


def judge(
    question: str,
    claims: Sequence[Statement],
    contexts: Sequence[str],
    language: Language,
    transformer: Cosines | None = None,
    calibrated_embedder: str = "",
    tiers: Sequence[Tier] = (),
) -> tuple[list[Judged], str]:
    """Every claim with its probability of being unsupported, and the name of what said so.

    The cosine takes part only when the calibration was made with this very embedder.
    """
    read = [read_context(c) for c in contexts]
    passages = Passages(read)
    asked = statement(question[:CONTEXT_CHARS])
    supports = [assess(c, passages, asked) for c in claims]
    chances = [claim_probability(s.features, language) for s in supports]
    detector = "lexical"
    term_count = sum(s.term_count for s in supports)
    if transformer is not None:
        if not language.cosine or transformer.name != calibrated_embedder:
            detector = "lexical (no calibration for this language and embedder)"
        elif not transformer.covers("\n".join(c.text for c in claims)):
            detector = "lexical (embedder does not cover the text)"
        else:
            chances, said = _with_cosines(claims, supports, chances, read, language, transformer)
            detector += said
    for tier in tiers:
        settled = [must_fail(s, term_count) for s in supports]
        asked_tier = ask_tier(tier, question, [c.text for c in claims], contexts, chances, settled=settled)
        chances = list(asked_tier.probabilities)
        detector += f"+{tier.detector.name}" if asked_tier.asked_count else ""
    judged = [
        Judged(c.text, max(p, CONTRADICTION_CHANCE) if must_fail(s, term_count) else p, s)
        for c, s, p in zip(claims, supports, chances, strict=True)
    ]
    return judged, detector


def claim_probability(features: Sequence[float], language: Language) -> float:
    """The combiner's word on one claim."""
    return sigmoid(log_odds(features, language.intercept, language.weights, language.trees))


def answer_score(probabilities: Sequence[float], term_count: int, language: Language) -> float:
    """Hallucination score in [0, 1] of claims taken together.

    A short answer: the probability that any claim is unsupported. In a long one some harmless sentence always looks
    unsupported, so its logit is lowered by the calibrated `length_shift`; in between by a part of it.
    """
    hazards = [-math.log(max(1e-9, 1.0 - p)) for p in probabilities]
    joint = math.fsum(h**HAZARD_NORM for h in hazards) ** (1.0 / HAZARD_NORM)
    share = min(1.0, max(0.0, (term_count - SHORT_TERMS) / (LONG_TERMS - SHORT_TERMS)))
    return sigmoid(_logit(-math.expm1(-joint)) - share * language.length_shift)


NEGATION_TERMS = 28
"""Content terms of an answer up to which a negation decides alone."""


def must_fail(support: Support, term_count: int) -> bool:
    """Whether a contradiction decides alone. In long texts negation is read wrongly too often for that."""
    return any(term_count <= NEGATION_TERMS or not r.startswith("negation") for r in support.contradictions)


def with_cosine(probability: float, cosine: float, language: Language) -> float:
    """The second model of a claim in doubt: the first one's logit and the best cosine, weighed as calibrated."""
    intercept, logit_weight, cosine_weight = language.cosine
    return sigmoid(intercept + logit_weight * _logit(probability) + cosine_weight * cosine)


def _with_cosines(
    claims: Sequence[Statement], supports: Sequence[Support], chances: Sequence[float], contexts: Sequence[Context],
    language: Language, transformer: Cosines,
) -> tuple[list[float], str]:  # fmt: skip
    """Probabilities with the cosine where there is doubt, and what is added to the name of what said so."""
    low, high = language.band
    unsure = [i for i, p in enumerate(chances) if low < p < high and not supports[i].contradictions]
    found = list(chances)
    if not unsure:
        return found, ""
    cosines = transformer.best_cosines([(claims[i].text, compared(claims[i], contexts)) for i in unsure])
    if cosines is None:
        return found, " (no time for the transformer)"
    for i, cosine in zip(unsure, cosines, strict=True):
        found[i] = with_cosine(chances[i], cosine, language)
    return found, f"+{transformer.name}"


def _why(judged: Judged) -> str:
    if judged.support.contradictions:
        return judged.support.contradictions[0]
    if not judged.support.best:
        return "no context sentence shares a word with it"
    return f"best context sentence covers {judged.support.best_coverage:.0%} of it"


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), x clipped to +-30."""
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, x))))


def _logit(p: float) -> float:
    p = min(max(p, 1e-9), 1 - 1e-9)
    return math.log(p / (1 - p))
