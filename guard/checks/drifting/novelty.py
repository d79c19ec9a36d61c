"""How new a question is to those that healthy traffic asked, and how new a window of questions is. Needs numpy.

    reference (first questions) ─► distance to the nearest, in one or two vector spaces ┐
    words of the reference      ─► share of words and word pairs never seen             ┴─► logit ─► window statistic
    calibration (later ones)    ─► what the same numbers are for ordinary questions

What a strange question looks like is learnt from the baseline itself: a group of like questions is taken out of the
reference, and its own members are then the strangers. No other traffic and no label is needed. A window of questions is
judged by two sums: the log-likelihood ratio of "a tenth of them are strangers" and how alike its strangers are to each
other. Both are held against windows drawn from the calibration questions, which are later than the reference, so that
the slow change of healthy traffic is part of the spread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zlib import crc32

from guard.checks.lexicon import normalise, terms, words

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Matrix = npt.NDArray[np.float32]

NEAREST = 5
HOLE_COUNT = 2
"""Groups taken out of the reference at once: one alone leaves its twin behind."""
GROUPS = 40
SHARE = 0.1
"""The share of strangers that the window statistic is best at."""
CLIP = 4.0
LOGIT_MIN, LOGIT_MAX = -8.0, 5.0
RIDGE = 1.0
WINDOWS = 400
"""Ordinary windows drawn for the spread."""
MIN_REFERENCE, MIN_CALIBRATION = 200, 150


@dataclass(frozen=True, slots=True)
class Window:
    """What a window of questions says. effect: spreads of ordinary windows; share: of strangers, a lower estimate."""

    effect: float
    share: float
    count: int


def plain(question: str) -> str:
    """The question without what only style puts there: case, width, punctuation.

    >>> plain("Where IS my card?!")
    'where is my card'
    """
    return " ".join(words(normalise(question).lower()))


def codes(question: str) -> tuple[frozenset[int], frozenset[int]]:
    """Hashed terms and hashed pairs of neighbours: what was said without the words themselves."""
    found = terms(words(normalise(question).lower()))
    pairs = zip(found, found[1:], strict=False)
    return frozenset(map(_code, found)), frozenset(_code(f"{a}\x1f{b}") for a, b in pairs)


def _code(text: str) -> int:
    return crc32(text.encode("utf-8", "surrogatepass"))


@dataclass(slots=True)
class Novelty:
    """A fitted model. Arrays: spaces one (reference_count, dim) each, groups (group_count, dim) in the first space.

    fingerprints: of the embedders of the spaces; a question read by another one is never compared.
    """

    fingerprints: tuple[str, ...]
    spaces: tuple[Matrix, ...]
    terms: frozenset[int]
    pairs: frozenset[int]
    centre: Matrix
    scale: Matrix
    weights: Matrix
    groups: Matrix
    group_shares: Matrix
    group_examples: tuple[str, ...]
    stranger_logit: float  # 95 % of ordinary questions are below
    calibration_count: int
    window: int
    spread: tuple[float, float, float, float]  # mean and deviation of both sums over ordinary windows
    limits: tuple[float, float, float]  # of the effect: passed by 5 %, 1 % and 0.01 % of ordinary windows

    def features(self, vectors: Sequence[Matrix], coded: Sequence[tuple[frozenset[int], frozenset[int]]]) -> Matrix:
        """One row per question; vectors: (count, dim) per space."""
        import numpy as np

        columns = [column for v, space in zip(vectors, self.spaces, strict=True) for column in _nearest(v @ space.T)]
        columns += _unseen(coded, self.terms, self.pairs)
        found: Matrix = np.stack(columns, axis=1).astype(np.float32)
        return found

    def logits(self, features: Matrix) -> Matrix:
        """Log-odds of each question being a stranger."""
        import numpy as np

        z = np.clip((features - self.centre) / self.scale, -CLIP, CLIP)
        found: Matrix = z @ self.weights[:-1] + self.weights[-1]
        return found

    def judge(self, logits: Matrix, vectors: Matrix) -> Window:
        """One window: its questions' logits and their vectors in the first space, shape (count, dim)."""
        import numpy as np

        sums = _sums(logits, vectors @ vectors.T)
        mean_a, deviation_a, mean_b, deviation_b = self.spread
        effect = ((sums[0] - mean_a) / deviation_a + (sums[1] - mean_b) / deviation_b) / np.sqrt(2.0)
        over = float(np.mean(logits > self.stranger_logit))
        return Window(float(effect), max(0.0, (over - 0.05) / 0.95), len(logits))


def fit(
    questions: Sequence[str], vectors: Sequence[Matrix], fingerprints: tuple[str, ...], *, window: int = 200,
    seed: int = 0, examples: Sequence[str] | None = None, reference_count: int = 0,
) -> Novelty:  # fmt: skip
    """Learn from the questions of healthy traffic, oldest first: two thirds are the reference, the rest calibrates.

    Args:
        reference_count: how many are the reference, where it is not two thirds.
        vectors: per space the unit vectors of the questions, shape (count, dim). examples: the questions as they may be
            shown to people (redacted). seed: of the windows that are drawn and of the groups' beginnings.
    Raises:
        ValueError: too few questions.
    """
    import numpy as np

    cut = reference_count or len(questions) * 2 // 3
    if cut < MIN_REFERENCE or len(questions) - cut < MIN_CALIBRATION:
        raise ValueError(f"{len(questions)} questions, at least {MIN_REFERENCE + 2 * MIN_CALIBRATION} needed")
    chance = np.random.default_rng(seed)
    coded = [codes(q) for q in questions]
    spaces = tuple(np.ascontiguousarray(v[:cut], dtype=np.float32) for v in vectors)
    later = [np.asarray(v[cut:], dtype=np.float32) for v in vectors]
    near = [v @ space.T for v, space in zip(later, spaces, strict=True)]
    ordinary = _columns(near, coded[cut:], *_seen(coded[:cut]))
    groups, of_group = _grouped(spaces[0], min(GROUPS, cut // 20), chance)
    strangers = _strangers(near, coded, cut, groups, of_group, (later[0] @ groups.T).argmax(axis=1))
    centre, scale = ordinary.mean(axis=0), ordinary.std(axis=0) + 1e-6
    weights = _logistic(*(np.clip((f - centre) / scale, -CLIP, CLIP) for f in (ordinary, strangers)))
    shown = examples if examples is not None else questions
    model = Novelty(
        fingerprints, spaces, *_seen(coded[:cut]), centre, scale, weights, groups,
        np.bincount(of_group, minlength=len(groups)) / cut, _examples(spaces[0], groups, shown), 0.0,
        len(later[0]), window, (0.0, 1.0, 0.0, 1.0), (0.0, 0.0, 0.0),
    )  # fmt: skip
    logits = model.logits(ordinary)
    model.stranger_logit = float(np.quantile(logits, 0.95))
    _calibrate(model, logits, later[0], chance)
    return model


def _calibrate(model: Novelty, logits: Matrix, vectors: Matrix, chance: np.random.Generator) -> None:
    """Mean, spread and limits over windows drawn from ordinary questions.

    The questions they are drawn from are a sample themselves: the deviation grows by sqrt(1 + window / questions).
    """
    import numpy as np

    likeness = vectors @ vectors.T
    size = min(model.window, len(logits))
    picks = [chance.choice(len(logits), size, replace=False) for _ in range(WINDOWS)]
    # Without replacement the windows of a small sample are more alike than those to come.
    finite = np.sqrt(max(1e-3, 1.0 - size / len(logits)))
    wider = np.sqrt(1.0 + size / len(logits)) / max(finite, 0.3)
    sums = np.array([_sums(logits[p], likeness[np.ix_(p, p)]) for p in picks])
    means, deviations = sums.mean(axis=0), sums.std(axis=0) * wider + 1e-9
    model.spread = (float(means[0]), float(deviations[0]), float(means[1]), float(deviations[1]))
    effects = ((sums - means) / deviations).sum(axis=1) / np.sqrt(2.0) * wider
    deviation = float(effects.std()) + 1e-9
    drawn = (np.quantile(effects, 0.95), np.quantile(effects, 0.99), effects.max())
    a, b, c = (max(float(q), z * deviation) for q, z in zip(drawn, (1.645, 2.326, 3.72), strict=True))
    model.limits = (a, b, c)


def _sums(logits: Matrix, likeness: Matrix) -> tuple[float, float]:
    """(log-likelihood ratio of a tenth of strangers, likeness of the strangers to each other), both per question."""
    import numpy as np

    clipped = np.clip(logits, LOGIT_MIN, LOGIT_MAX)
    ratio = np.log(1.0 - SHARE + SHARE * np.exp(clipped)).mean()
    strange = 1.0 / (1.0 + np.exp(-logits))
    alike = np.maximum(likeness, 0.0) ** 2
    np.fill_diagonal(alike, 0.0)
    return float(ratio), float(strange @ alike @ strange) / len(logits)


def _nearest(cosines: Matrix) -> tuple[Matrix, Matrix]:
    """Distance to the nearest of the reference and mean distance to the nearest few. cosines: (count, reference)."""
    import numpy as np

    kept = min(NEAREST, cosines.shape[1])
    top = -np.partition(-cosines, kept - 1, axis=1)[:, :kept]
    return 1.0 - top.max(axis=1), 1.0 - top.mean(axis=1)


def _seen(coded: Iterable[tuple[frozenset[int], frozenset[int]]]) -> tuple[frozenset[int], frozenset[int]]:
    both = list(coded)
    return frozenset().union(*(t for t, _ in both)), frozenset().union(*(p for _, p in both))


def _unseen(
    coded: Sequence[tuple[frozenset[int], frozenset[int]]], seen: frozenset[int], seen_pairs: frozenset[int]
) -> list[Any]:
    """Share of terms and of pairs that are not in the reference; short questions weigh less."""
    import numpy as np

    single = np.array([len(t - seen) / (len(t) + 1) for t, _ in coded])
    double = np.array([len(p - seen_pairs) / (len(p) + 1) for _, p in coded])
    return [single, double]


def _columns(
    near: Sequence[Matrix], coded: Sequence[tuple[frozenset[int], frozenset[int]]], seen: frozenset[int],
    seen_pairs: frozenset[int],
) -> Matrix:  # fmt: skip
    import numpy as np

    columns = [column for cosines in near for column in _nearest(cosines)]
    found: Matrix = np.stack([*columns, *_unseen(coded, seen, seen_pairs)], axis=1).astype(np.float32)
    return found


def _grouped(vectors: Matrix, count: int, chance: np.random.Generator) -> tuple[Matrix, Any]:
    """Groups of like questions: (centres of shape (count, dim), group of each). Spherical k-means, ten rounds."""
    import numpy as np

    centres = vectors[chance.choice(len(vectors), count, replace=False)].copy()
    for _ in range(10):
        of_group = (vectors @ centres.T).argmax(axis=1)
        for group in range(count):
            mine = vectors[of_group == group]
            if len(mine):
                mean = mine.mean(axis=0)
                centres[group] = mean / (np.linalg.norm(mean) + 1e-9)
    return centres, (vectors @ centres.T).argmax(axis=1)


def _strangers(
    near: Sequence[Matrix], coded: Sequence[tuple[frozenset[int], frozenset[int]]], cut: int, groups: Matrix,
    of_group: Any, of_later: Any,
) -> Matrix:  # fmt: skip
    """Features of calibration questions whose own groups were taken out of the reference."""
    import numpy as np

    found = []
    for group in range(len(groups)):
        mine = np.flatnonzero(of_later == group)
        out = np.argsort(-(groups @ groups[group]))[:HOLE_COUNT]
        kept = np.flatnonzero(~np.isin(of_group, out))
        if len(mine) and len(kept) >= NEAREST:
            seen = _seen(coded[i] for i in kept)
            found.append(_columns([n[np.ix_(mine, kept)] for n in near], [coded[cut + i] for i in mine], *seen))
    return np.concatenate(found)


def _logistic(ordinary: Matrix, strangers: Matrix) -> Matrix:
    """Weights and, last, the bias of a ridge logistic regression; both sides weigh the same. Newton's method."""
    import numpy as np

    x = np.concatenate([ordinary, strangers]).astype(np.float64)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    y = np.concatenate([np.zeros(len(ordinary)), np.ones(len(strangers))])
    share = np.where(y > 0, len(y) / (2 * len(strangers)), len(y) / (2 * len(ordinary)))
    ridge = np.eye(x.shape[1]) * RIDGE
    ridge[-1, -1] = 1e-6
    weights = np.zeros(x.shape[1])
    for _ in range(15):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (share * (p - y)) + ridge @ weights
        bend = (x * (share * p * (1 - p))[:, None]).T @ x + ridge
        weights -= np.linalg.solve(bend, slope)
    found: Matrix = weights.astype(np.float32)
    return found


def _examples(reference: Matrix, groups: Matrix, shown: Sequence[str]) -> tuple[str, ...]:
    """The question nearest to each group's centre."""
    return tuple(shown[int(i)] for i in (groups @ reference.T).argmax(axis=1))
