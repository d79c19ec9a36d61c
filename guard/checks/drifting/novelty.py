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
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zlib import crc32

from guard.checks.lexicon import is_cjk, normalise, terms, words

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
SHARPNESS = 0.7
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


Coded = tuple[frozenset[int], frozenset[int]]


def codes(question: str) -> Coded:
    """Hashed words (bigrams of Chinese) and hashed pairs of neighbours: what was said, without the words themselves."""
    found: list[str] = []
    for word in words(normalise(question).lower()):
        found += terms([word]) if is_cjk(word) else [word]
    return frozenset(map(_code, found)), frozenset(_code(f"{a}\x1f{b}") for a, b in pairwise(found))


def _code(text: str) -> int:
    return crc32(text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class Seen:
    """Words of the reference by how many questions have them, and pairs of neighbours; hashed."""

    count: int
    words: dict[int, int]
    pairs: frozenset[int]


def seen_in(coded: Iterable[Coded]) -> Seen:
    """Add up."""
    both = list(coded)
    counts: Counter[int] = Counter()
    for found, _ in both:
        counts.update(found)
    return Seen(len(both), dict(counts), frozenset().union(*(p for _, p in both)))


@dataclass(slots=True)
class Novelty:
    """A fitted model. Arrays: spaces one (reference_count, dim) each, groups (group_count, dim) in the first space.

    fingerprints: of the embedders of the spaces; a question read by another one is never compared.
    """

    fingerprints: tuple[str, ...]
    spaces: tuple[Matrix, ...]
    seen: Seen
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

    def features(self, vectors: Sequence[Matrix], coded: Sequence[Coded]) -> Matrix:
        """One row per question; vectors: (count, dim) per space."""
        import numpy as np

        columns = [column for v, space in zip(vectors, self.spaces, strict=True) for column in _nearest(v @ space.T)]
        columns += _wording(coded, self.seen)
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

        effect = _effect(_sums(logits, vectors @ vectors.T), self.spread)
        over = float(np.mean(logits > self.stranger_logit))
        return Window(effect, max(0.0, (over - 0.05) / 0.95), len(logits))


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
        ValueError: too few questions, or nearly all of them the same.
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
    seen = seen_in(coded[:cut])
    ordinary = _columns(near, coded[cut:], seen)
    groups, of_group = _grouped(spaces[0], min(GROUPS, cut // 20), chance)
    holes = _strangers(near, coded, cut, groups, of_group, (later[0] @ groups.T).argmax(axis=1))
    if not holes:
        raise ValueError("nearly all questions are the same, so none can stand for a stranger")
    centre, scale = ordinary.mean(axis=0), ordinary.std(axis=0) + 1e-6
    strangers = np.concatenate([features for _, features in holes])
    weights = _logistic(*(np.clip((f - centre) / scale, -CLIP, CLIP) for f in (ordinary, strangers)))
    shown = examples if examples is not None else questions
    model = Novelty(
        fingerprints, spaces, seen, centre, scale, weights, groups,
        (np.bincount(of_group, minlength=len(groups)) / cut).astype(np.float32),
        _examples(spaces[0], groups, shown), 0.0,
        len(later[0]), window, (0.0, 1.0, 0.0, 1.0), (0.0, 0.0, 0.0),
    )  # fmt: skip
    logits = model.logits(ordinary)
    model.stranger_logit = float(np.quantile(logits, 0.95))
    picks = [chance.choice(len(logits), min(window, len(logits)), replace=False) for _ in range(WINDOWS)]
    model.spread, model.limits = _calibrated(logits, later[0] @ later[0].T, picks)
    return model


Spread = tuple[float, float, float, float]


def _calibrated(logits: Matrix, likeness: Matrix, picks: Sequence[Any]) -> tuple[Spread, tuple[float, float, float]]:
    """Mean and deviation of both sums over windows drawn from ordinary questions, and the limits of the effect.

    The questions they are drawn from are a sample themselves: the deviation grows by sqrt(1 + window / questions), and
    windows drawn from few of them without replacement are more alike than those to come.
    """
    import numpy as np

    share = len(picks[0]) / len(logits)
    wider = np.sqrt(1.0 + share) / max(np.sqrt(max(0.0, 1.0 - share)), 0.3)
    found = np.array([_sums(logits[p], likeness[np.ix_(p, p)]) for p in picks])
    means, deviations = found.mean(axis=0), found.std(axis=0) * wider + 1e-9
    spread = (float(means[0]), float(deviations[0]), float(means[1]), float(deviations[1]))
    effects = np.array([_effect(tuple(f), spread) for f in found]) * wider
    drawn = (np.quantile(effects, 0.95), np.quantile(effects, 0.99), effects.max())
    mean, deviation = float(effects.mean()), float(effects.std())
    a, b, c = (max(float(q), mean + z * deviation) for q, z in zip(drawn, (1.75, 2.8, 4.3), strict=True))
    return spread, (a, b, c)


def _effect(sums: Sequence[float], spread: Spread) -> float:
    """Strangers may be many and different, or like each other: the larger of the first sum and of both together."""
    ratio = (sums[0] - spread[0]) / spread[1]
    alike = (sums[1] - spread[2]) / spread[3]
    return float(max(ratio, (ratio + alike) / 2.0**0.5))


def _sums(logits: Matrix, likeness: Matrix) -> tuple[float, float]:
    """(log-likelihood ratio of a tenth of strangers, likeness of the strangers to each other), both per question."""
    import numpy as np

    clipped = np.clip(logits, LOGIT_MIN, LOGIT_MAX)
    ratio = float(np.log(1.0 - SHARE + SHARE * np.exp(clipped)).mean())
    strange = 1.0 / (1.0 + np.exp(-SHARPNESS * np.clip(logits, -30.0, 30.0)))
    alike = np.maximum(likeness, 0.0) ** 3
    np.fill_diagonal(alike, 0.0)
    return ratio, float(strange @ alike @ strange) / len(logits)


def _nearest(cosines: Matrix) -> tuple[Matrix, Matrix]:
    """Distance to the nearest of the reference and mean distance to the nearest few. cosines: (count, reference)."""
    import numpy as np

    kept = min(NEAREST, cosines.shape[1])
    top = -np.partition(-cosines, kept - 1, axis=1)[:, :kept]
    return 1.0 - top.max(axis=1), 1.0 - top.mean(axis=1)


def _wording(coded: Sequence[Coded], seen: Seen) -> list[Any]:
    """Share of words and of pairs that are not in the reference, mean rarity of the words, length."""
    import numpy as np

    log_all, known = np.log(1.0 + seen.count), seen.words
    rarity = [
        float(np.mean([log_all - np.log(1.0 + known.get(w, 0)) for w in found])) if found else 0.0 for found, _ in coded
    ]
    return [
        np.array([sum(w not in known for w in found) / (len(found) + 2) for found, _ in coded]),
        np.array([len(pairs - seen.pairs) / (len(pairs) + 1) for _, pairs in coded]),
        np.array(rarity),
        np.array([np.log1p(len(found)) for found, _ in coded]),
    ]


def _columns(near: Sequence[Matrix], coded: Sequence[Coded], seen: Seen) -> Matrix:
    import numpy as np

    columns = [column for cosines in near for column in _nearest(cosines)]
    found: Matrix = np.stack([*columns, *_wording(coded, seen)], axis=1).astype(np.float32)
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
    near: Sequence[Matrix], coded: Sequence[Coded], cut: int, groups: Matrix, of_group: Any, of_later: Any
) -> list[tuple[Any, Matrix]]:
    """(which, features) of calibration questions whose own groups were taken out of the reference, by group."""
    import numpy as np

    found = []
    for group in range(len(groups)):
        mine = np.flatnonzero(of_later == group)
        out = np.argsort(-(groups @ groups[group]))[:HOLE_COUNT]
        kept = np.flatnonzero(~np.isin(of_group, out))
        if len(mine) and len(kept) >= NEAREST:
            seen = seen_in(coded[int(i)] for i in kept)
            columns = _columns([n[np.ix_(mine, kept)] for n in near], [coded[cut + int(i)] for i in mine], seen)
            found.append((mine, columns))
    return found


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
