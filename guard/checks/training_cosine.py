"""Fitting what a transformer's cosine says of claims in doubt, per language. Needs scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from guard.checks.calibration import Language
from guard.checks.combiner import log_odds
from guard.checks.context import read_context
from guard.checks.facts import statement
from guard.checks.grounding import sigmoid, with_cosine
from guard.checks.in_doubt import compared
from guard.checks.semantic import Semantic
from guard.checks.training import MIN_ROWS, libraries
from guard.checks.training_rows import Row

BATCH_COUNT = 256


def claim_chance(features: Sequence[float], language: Language) -> float:
    """The combiner's probability of one claim being unsupported."""
    return sigmoid(log_odds(features, language.intercept, language.weights, language.trees))


def in_band(row: Row, language: Language) -> bool:
    """Whether the tiers before are unsure about a claim of this answer."""
    return any(language.band[0] < claim_chance(f, language) < language.band[1] for f in row.features)


def embed_claims(rows: Sequence[Row], semantic: Semantic, told: Callable[[int], None] = lambda _: None) -> None:
    """Fill in `cosines` of rows that the embedder covers: of each claim, the best with what it is compared with.

    told: how many rows are done, now and then.
    """
    for number, row in enumerate(rows):
        contexts = [read_context(c) for c in row.contexts if c.strip()]
        if row.claims and contexts and not row.cosines and semantic.covers("\n".join(row.claims)):
            sentences = [compared(statement(c), contexts) for c in row.claims]
            texts = sorted({*row.claims, *(s for found in sentences for s in found)}, key=len)
            for start in range(0, len(texts), BATCH_COUNT):  # alike lengths together
                semantic.vectors(texts[start : start + BATCH_COUNT])
            row.cosines = [semantic.best_cosine(c, s) for c, s in zip(row.claims, sentences, strict=True)]
        if number % 100 == 99:
            told(number + 1)


def fit_cosine(rows: Sequence[Row], lang: str, language: Language) -> tuple[float, ...]:
    """Second model of claims in doubt: (intercept, logit of the first model, best cosine); () with too few claims.

    Rows need `cosines`; only answers of one claim teach it, because the label is theirs.
    """
    np, sklearn = libraries()
    mine = [r for r in rows if r.lang == lang and len(r.features) == 1 and r.cosines and in_band(r, language)]
    x = [(_logit(claim_chance(r.features[0], language)), r.cosines[0]) for r in mine]
    y = [r.unsupported for r in mine]
    if min(sum(y), len(y) - sum(y)) < MIN_ROWS:
        return ()
    model = sklearn.linear_model.LogisticRegression(C=1.0).fit(np.array(x), np.array(y))
    return (round(float(model.intercept_[0]), 4), *(round(float(v), 4) for v in model.coef_[0]))


def cosine_adjust(row: Row, language: Language) -> Callable[[int, float], float]:
    """What `training.score_of` takes to give the score with the cosine."""

    def adjust(i: int, p: float) -> float:
        unsure = language.cosine and row.cosines and language.band[0] < p < language.band[1]
        return with_cosine(p, row.cosines[i], language) if unsure else p

    return adjust


def _logit(p: float) -> float:
    import math

    return math.log(p / (1 - p))
