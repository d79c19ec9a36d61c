"""Training of the two injection models: logistic regression over the very features that the checks compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from bench.safety.sets import Page, Text
from guard.safety.cues import NAMES, words_of
from guard.safety.hidden import SIGNS, reveal
from guard.safety.injection import (
    CERTAIN,
    context_features,
    orders,
    question_features,
    question_parts,
    read_all,
    terms_of,
)
from guard.safety.linear import MASK, Features, Model

RATES = {"0.1%": 0.001, "1%": 0.01, "5%": 0.05}
KEPT_WEIGHT = 0.02
"""Bucket weights smaller than this are dropped: a smaller file, no difference."""

STRENGTH = 1.0
"""Inverse of the L2 penalty; 0.3 to 3 differ by less than the folds do."""


_CUES = frozenset(NAMES) | {f"sign_{sign}" for sign in SIGNS}


@dataclass(slots=True)
class Table:
    """Every text in its scored pieces. x: features, one row a piece; unit: the text a row belongs to; label: 1 attack,
    0 harmless, -1 scored only; certain: rows that a sign alone convicts; silent: rows that
    the check scores 0, because no strong cue is there."""

    names: list[str]
    x: csr_matrix
    unit: np.ndarray
    label: np.ndarray
    certain: np.ndarray
    silent: np.ndarray
    source: list[str]
    unit_count: int


def _table(
    found: list[Features],
    unit: list[int],
    label: list[int],
    certain: list[bool],
    silent: list[bool],
    source: list[str],
    count: int,
) -> Table:
    names = sorted({name for f in found for name in f.named})
    column = {name: i for i, name in enumerate(names)}
    at, columns, values = [0], [], []
    for piece in found:
        for name, value in piece.named.items():
            columns.append(column[name])
            values.append(value)
        for bucket in piece.buckets:
            columns.append(len(names) + bucket)
            values.append(piece.scale)
        at.append(len(columns))
    x = csr_matrix((values, columns, at), shape=(len(found), len(names) + MASK + 1))
    return Table(names, x, np.array(unit), np.array(label), np.array(certain), np.array(silent), source, count)


def question_table(texts: Sequence[Text]) -> Table:
    """Each text as a whole, to train on, and its windows, to score."""
    found: list[Features] = []
    unit: list[int] = []
    label: list[int] = []
    for number, text in enumerate(texts):
        for i, part in enumerate(question_parts(text.text)):
            found.append(question_features(part))
            unit.append(number)
            label.append(int(text.attack) if i == 0 else -1)
    return _table(
        found, unit, label, [False] * len(found), [False] * len(found), [texts[u].source for u in unit], len(texts)
    )


def page_table(pages: Sequence[Page]) -> Table:
    """Each sentence. Those of a planted attack are positive; harmless ones count once, from the page without it."""
    found: list[Features] = []
    unit: list[int] = []
    label: list[int] = []
    certain: list[bool] = []
    silent: list[bool] = []
    for number, page in enumerate(pages):
        sentences = read_all(page.text)
        plain = reveal(page.question).plain
        wanted = "".join(page.planted.split())
        for sentence, piece in zip(
            sentences, context_features(sentences, terms_of(plain, words_of(plain))), strict=True
        ):
            squeezed = "".join(sentence.text.split())
            attack = bool(wanted) and (
                squeezed in wanted or wanted in squeezed or bool({"encoded"} & sentence.signs)
            )  # fmt: skip
            assert piece is not None
            found.append(piece)
            unit.append(number)
            label.append(1 if attack else (-1 if page.planted else 0))
            certain.append(bool(sentence.signs & CERTAIN))
            silent.append(not orders(piece.named.keys() & _CUES))
    return _table(found, unit, label, certain, silent, [pages[u].category or pages[u].source for u in unit], len(pages))


def fit(table: Table, units: np.ndarray) -> Model:
    """Fit on the pieces of some texts (a mask over texts); thresholds are empty until `calibrated`."""
    rows = np.flatnonzero((table.label >= 0) & units[table.unit])
    y = table.label[rows] == 1
    weight = np.where(y, len(y) / (2 * y.sum()), len(y) / (2 * (~y).sum()))
    fitted = LogisticRegression(C=STRENGTH, max_iter=300, tol=1e-3).fit(table.x[rows], y, sample_weight=weight)
    w = fitted.coef_[0]
    named = {name: round(float(w[i]), 3) for i, name in enumerate(table.names)}
    tail = w[len(table.names) :]
    buckets = {int(i): round(float(tail[i]), 2) for i in np.flatnonzero(np.abs(tail) >= KEPT_WEIGHT)}
    counts = Counter(table.source[i] for i in rows)
    return Model(round(float(fitted.intercept_[0]), 4), named, buckets, {}, dict(sorted(counts.items())))


def scores(table: Table, model: Model) -> np.ndarray:
    """Score of each text: its worst piece. The same numbers as the checks give, to rounding; a test holds it."""
    w = np.zeros(table.x.shape[1])
    w[: len(table.names)] = [model.named.get(name, 0.0) for name in table.names]
    for bucket, value in model.buckets.items():
        w[len(table.names) + bucket] = value
    piece = 1.0 / (1.0 + np.exp(-(table.x @ w + model.intercept)))
    piece[table.silent] = 0.0
    piece[table.certain] = 1.0
    worst = np.zeros(table.unit_count)
    np.maximum.at(worst, table.unit, piece)
    return worst


def threshold_over(groups: Sequence[np.ndarray], rate: float) -> float:
    """Smallest score that flags at most `rate` of harmless texts, every group weighing the same whatever its size."""
    values = np.concatenate(groups)
    weights = np.concatenate([np.full(len(g), 1 / len(g) / len(groups)) for g in groups])
    order = np.argsort(-values)
    passed = np.cumsum(weights[order])
    index = int(np.searchsorted(passed, rate, side="right"))
    return float(min(0.99999, np.nextafter(values[order][min(index, len(values) - 1)], 1.0)))


def calibrated(model: Model, groups: Sequence[np.ndarray]) -> Model:
    """The model with its thresholds; groups: scores of harmless texts by models that had not seen them."""
    thresholds = {name: round(threshold_over(groups, rate), 5) for name, rate in RATES.items()}
    return Model(model.intercept, model.named, model.buckets, thresholds, model.counts)
