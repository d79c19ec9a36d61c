"""Fitting the combiner: logistic regression and boosted trees over claim features. Needs scikit-learn.

The two parts are averaged in log odds. The trees are monotone in every feature that can only speak against a claim, so
that no corner of a small training set makes a better supported claim look worse.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from guard.checks.calibration import THRESHOLDS, Language
from guard.checks.combiner import Tree, log_odds
from guard.checks.grounding import (
    CONTRADICTION_CHANCE,
    CONTRADICTION_MARGIN,
    LONG_TERMS,
    NO_CLAIM_SUPPORT,
    SHORT_TERMS,
    answer_score,
    sigmoid,
)
from guard.checks.support import FEATURES
from guard.checks.training_rows import Row
from slo.errors import ConfigError, DataError

TREE_COUNT, LEAF_COUNT, LEARNING_RATE, LEAF_ROWS = 60, 8, 0.1, 40
FREE = frozenset(("negation_differs", "log_terms", "question_only", "first_person", "no_terms", "log_words"))
"""Features that may speak for a claim as well."""

MIN_ROWS = 40
"""Labelled answers of each kind below which nothing is fitted."""

SINGLE_RATIO = 0.6
FOLDS = 5


def libraries() -> tuple[Any, Any]:
    """numpy and scikit-learn's two models.

    Raises:
        ConfigError: the extra is missing.
    """
    try:
        import numpy
        import sklearn.ensemble
        import sklearn.linear_model
    except ImportError as error:
        raise ConfigError("training", str(error), 'install the extra: pip install "sft-guard[train]"') from None
    return numpy, sklearn


def fold_of(group: str, count: int = FOLDS) -> int:
    """A stable fold of a source."""
    return zlib.crc32(group.encode()) % count


def fit(rows: Sequence[Row], lang: str, *, single_terms: int = SHORT_TERMS) -> Language:
    """Fit one language: the model of a claim, what many claims together mean, the thresholds.

    Sets of which most rows are single claims teach the model of a claim (the label is the claim's); the others, of long
    answers, only the rest. Sets weigh by the root of their size.

    Raises:
        DataError: too few rows.
    """
    np, sklearn = libraries()
    mine = [r for r in rows if r.lang == lang and r.features]
    single = _single_sets(mine)
    train = [r for r in mine if r.name in single and (len(r.features) == 1 or r.term_count <= single_terms)]
    for label, what in ((True, "unsupported"), (False, "supported")):
        if sum(r.unsupported == label for r in train) < MIN_ROWS:
            raise DataError(
                f"language {lang}: fewer than {MIN_ROWS} {what} answers of one claim or {single_terms} words; add rows"
            )
    x = np.array([_worst(r.features) for r in train])
    y = np.array([r.unsupported for r in train])
    sizes = {n: sum(r.name == n for r in train) for n in {r.name for r in train}}
    w = np.array([sizes[r.name] ** -0.5 for r in train])
    w *= len(w) / w.sum()
    linear = sklearn.linear_model.LogisticRegression(C=0.3, max_iter=5000).fit(x, y, sample_weight=w)
    boosted = sklearn.ensemble.HistGradientBoostingClassifier(
        max_iter=TREE_COUNT, learning_rate=LEARNING_RATE, max_leaf_nodes=LEAF_COUNT, min_samples_leaf=LEAF_ROWS,
        l2_regularization=5.0, early_stopping=False, random_state=0,
        monotonic_cst=[0 if f in FREE else 1 for f in FEATURES],
    ).fit(x, y, sample_weight=w)  # fmt: skip
    language = Language(
        intercept=round(float(linear.intercept_[0] + boosted._baseline_prediction.ravel()[0]) / 2, 5),
        weights=tuple(round(float(v) / 2, 5) for v in linear.coef_[0]),
        length_shift=0.0,
        thresholds={},
        sample_count={n: sum(r.name == n for r in mine) for n in sorted({r.name for r in mine})},
        trees=tuple(_tree(stage[0].nodes) for stage in boosted._predictors),
    )
    limit = _best_threshold([(score_of(r, language), r.unsupported) for r in train if r.term_count <= SHORT_TERMS])
    many = [r for r in mine if r.term_count >= LONG_TERMS and len(r.features) > 1]
    if sum(r.unsupported for r in many) >= MIN_ROWS:
        # Shift so that the best cut of long answers is the best cut of single claims: one threshold serves both.
        cut = _expected_threshold([(score_of(r, language), r.unsupported) for r in many])
        shift = float(np.log(cut / (1 - cut)) - np.log(limit / (1 - limit)))
        language = msgspec.structs.replace(language, length_shift=round(shift, 4))
    return msgspec.structs.replace(language, thresholds=_thresholds(mine, language, limit), band=_band(train, language))


def _single_sets(rows: Sequence[Row]) -> set[str]:
    """Sets whose rows are claims; the few short answers of a set of long ones are no fair sample of it."""
    names = {r.name for r in rows}
    sizes = {n: [len(r.features) == 1 for r in rows if r.name == n] for n in names}
    return {n for n, single in sizes.items() if sum(single) >= SINGLE_RATIO * len(single)}


def _worst(features: Sequence[tuple[float, ...]]) -> list[float]:
    return [max(column) for column in zip(*features, strict=True)]


def _tree(nodes: Any) -> Tree:
    """A fitted tree as arrays, its leaves halved: it is averaged with the logistic part."""
    return Tree(
        tuple(-1 if n["is_leaf"] else int(n["feature_idx"]) for n in nodes),
        tuple(round(float(n["value"]) / 2, 5) if n["is_leaf"] else float(f"{n['num_threshold']:.6g}") for n in nodes),
        tuple(0 if n["is_leaf"] else int(n["left"]) for n in nodes),
        tuple(0 if n["is_leaf"] else int(n["right"]) for n in nodes),
    )


def score_of(row: Row, language: Language, adjust: Callable[[int, float], float] | None = None) -> float:
    """Hallucination score as the check gives it. adjust: another tier's word on claim i with its probability."""
    if not row.features:
        return 1 - NO_CLAIM_SUPPORT
    chances = [sigmoid(log_odds(f, language.intercept, language.weights, language.trees)) for f in row.features]
    if adjust is not None:
        chances = [adjust(i, p) for i, p in enumerate(chances)]
    chances = [max(p, CONTRADICTION_CHANCE) if c else p for p, c in zip(chances, row.contradicted, strict=True)]
    score = answer_score(chances, row.term_count, language)
    if row.must_fail and language.thresholds:
        score = max(score, min(1.0, language.thresholds["balanced"] + CONTRADICTION_MARGIN))
    return score


def _thresholds(rows: Sequence[Row], language: Language, balanced: float) -> dict[str, float]:
    """Cut of best F1, and the cuts that flag a named share of the supported answers."""
    np, _ = libraries()
    good = [score_of(r, language) for r in rows if not r.unsupported]
    found = {"balanced": round(balanced, 4)}
    for name in THRESHOLDS[1:]:
        found[name] = round(float(min(0.999, np.quantile(good, 1 - int(name[-2:]) / 100) + 1e-4)), 4)
    return found


def _band(rows: Sequence[Row], language: Language) -> tuple[float, float]:
    """Probabilities outside which the model is right for nine claims in ten, at least (0.3, 0.6)."""
    np, _ = libraries()
    p = np.array(
        [sigmoid(log_odds(_worst(r.features), language.intercept, language.weights, language.trees)) for r in rows]
    )
    y = np.array([r.unsupported for r in rows])
    grid = np.arange(0.05, 0.96, 0.05)
    low = max((t for t in grid if (p <= t).sum() >= 20 and 1 - y[p <= t].mean() >= 0.9), default=0.05)
    high = min((t for t in grid if (p >= t).sum() >= 20 and y[p >= t].mean() >= 0.9), default=0.95)
    return round(float(min(low, 0.3)), 2), round(float(max(high, 0.6)), 2)


def _expected_threshold(pairs: list[tuple[float, bool]]) -> float:
    """Cut with the best F1 that a logistic curve through the scores leads to expect.

    Few long answers are labelled: the best cut of a sample of 70 bad ones jumps, the curve through all does not.
    """
    np, sklearn = libraries()
    scores = np.clip(np.array([p for p, _ in pairs]), 1e-9, 1 - 1e-9)
    logits = np.log(scores / (1 - scores))
    curve = sklearn.linear_model.LogisticRegression(C=10.0).fit(logits[:, None], np.array([y for _, y in pairs]))
    order = np.argsort(-logits)
    chances = curve.predict_proba(logits[order, None])[:, 1]
    flagged = np.arange(1, len(order) + 1)
    best = int(np.argmax(2 * np.cumsum(chances) / (flagged + chances.sum())))
    return float(np.clip(scores[order[best]], 0.05, 0.999))


def _best_threshold(pairs: list[tuple[float, bool]], largest: float = 0.85) -> float:
    """Cut with the best F1, in the middle of the plateau around it."""
    np, _ = libraries()
    scores = np.array([p for p, _ in pairs])
    labels = np.array([y for _, y in pairs])
    grid = np.unique(np.quantile(scores, np.linspace(0.02, 0.98, 97)))
    f1 = np.array([2 * (labels & (scores >= t)).sum() / max(1, labels.sum() + (scores >= t).sum()) for t in grid])
    return float(np.clip(np.median(grid[f1 >= f1.max() - 0.005]), 0.05, largest))
