"""The line between knowledge base and model, fitted on labelled questions. Pure.

Per language three candidates are tried: the line of the practice, a line on the best similarity, a line on the
confidence of retrieval. Each is fitted on four fifths of the questions and judged on the last, in turn; the one with
the best balanced accuracy there is kept and fitted once more on all. Figures are those of the questions held out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from rag.routing import Signals, Thresholds, is_confident
from slo.statistics import quantile, split_mix, wilson_lower, wilson_upper

FOLDS = 5
QUESTIONS_MIN = 20
"""Of each kind and language; with fewer the line of the practice stays."""

_RESAMPLES = 100
_TRUSTED_RATIO_MIN = 0.9
_NEVER = 1.0  # a mean similarity that no question reaches: the best one alone decides


@dataclass(frozen=True, slots=True)
class Observed:
    """One labelled question. answerable: by the knowledge base. key: splits folds, the question itself."""

    signals: Signals
    answerable: bool
    key: str


@dataclass(frozen=True, slots=True)
class Share:
    """hits of count, with the 95 % Wilson interval."""

    hits: int
    count: int

    def shown(self) -> dict[str, float | int | None]:
        """As JSON; None where nothing was counted."""
        if not self.count:
            return {"count": 0, "ratio": None, "low": None, "high": None}
        low, high = wilson_lower(self.hits, self.count, 1.96), wilson_upper(self.hits, self.count, 1.96)
        return {
            "count": self.count, "ratio": round(self.hits / self.count, 4), "low": round(low, 4), "high": round(high, 4)
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The line of one language. answered, kept_out: answerable questions the knowledge base gets, others it does not.

    low, high: 95 % bootstrap interval of the fitted threshold; None for the practice's line, which is not fitted.
    """

    line: Thresholds
    method: str
    answered: Share
    kept_out: Share
    balanced_accuracy: float
    others: tuple[tuple[str, float], ...]
    low: float | None = None
    high: float | None = None
    note: str = ""


def calibrate(observed: Sequence[Observed], seed: int = 1) -> Calibrated:
    """The best line for questions of one language."""
    wanted = sum(one.answerable for one in observed)
    if min(wanted, len(observed) - wanted) < QUESTIONS_MIN:
        line = Thresholds()
        note = f"{wanted} answerable and {len(observed) - wanted} others: at least {QUESTIONS_MIN} of each are needed"
        return Calibrated(line, "practice", *_shares(observed, [line] * len(observed)), 0.0, (), note=note)
    trusted = sum(one.signals.trusted for one in observed) / len(observed) >= _TRUSTED_RATIO_MIN
    methods = FITS if trusted else {"confidence": FITS["confidence"]}
    judged = {name: held_out(observed, fit) for name, fit in methods.items()}
    scores = {name: _balanced(*_shares(observed, lines)) for name, lines in judged.items()}
    method = max(scores, key=lambda name: scores[name])  # of equals the first: confidence transfers best
    fit = methods[method]
    answered, kept_out = _shares(observed, judged[method])
    low = high = None
    if method != "practice":
        low, high = _interval(observed, fit, method, seed)
    others = tuple((name, round(score, 4)) for name, score in scores.items() if name != method)
    return Calibrated(fit(observed), method, answered, kept_out, round(scores[method], 4), others, low, high)


def threshold_of(line: Thresholds, method: str) -> float:
    """The one number that was fitted."""
    return line.confidence if method == "confidence" else line.best


def _practice(observed: Sequence[Observed]) -> Thresholds:
    return Thresholds()


def _fit_confidence(observed: Sequence[Observed]) -> Thresholds:
    return Thresholds(confidence=_best_cut(observed, lambda s: s.confidence), by="confidence")


def _fit_best(observed: Sequence[Observed]) -> Thresholds:
    return Thresholds(best=_best_cut(observed, lambda s: s.best), mean=_NEVER)


def _best_cut(observed: Sequence[Observed], value: Callable[[Signals], float]) -> float:
    """The cut with the best balanced accuracy; the middle between the two values it falls between."""
    ranked = sorted((value(one.signals), one.answerable) for one in observed)
    positive = sum(answerable for _, answerable in ranked) or 1
    negative = len(ranked) - positive or 1
    best_score, best_at = -1.0, 0.0
    passed, below = positive, 0  # at or above the cut, and answerable; below it, and not
    for i, (at, answerable) in enumerate(ranked):
        if i == 0 or at > ranked[i - 1][0]:
            score = passed / positive + below / negative
            if score > best_score + 1e-12:
                best_score, best_at = score, at if i == 0 else (at + ranked[i - 1][0]) / 2
        passed -= answerable
        below += not answerable
    return round(min(1.0, max(0.0, best_at)), 4)


FITS: Mapping[str, Callable[[Sequence[Observed]], Thresholds]] = {
    "confidence": _fit_confidence,
    "similarity": _fit_best,
    "practice": _practice,
}
"""Candidates by name; of equals the first is taken."""


def held_out(observed: Sequence[Observed], fit: Callable[[Sequence[Observed]], Thresholds]) -> list[Thresholds]:
    """For every question the line that was fitted without its fold."""
    folds = [int(sha256(one.key.encode("utf-8", "replace")).hexdigest()[:8], 16) % FOLDS for one in observed]
    lines = [fit([one for one, fold in zip(observed, folds, strict=True) if fold != number]) for number in range(FOLDS)]
    return [lines[fold] for fold in folds]


def _shares(observed: Sequence[Observed], lines: Sequence[Thresholds]) -> tuple[Share, Share]:
    right = [is_confident(one.signals, line)[0] is one.answerable for one, line in zip(observed, lines, strict=True)]
    sides = {
        side: [r for r, one in zip(right, observed, strict=True) if one.answerable is side] for side in (True, False)
    }
    return Share(sum(sides[True]), len(sides[True])), Share(sum(sides[False]), len(sides[False]))


def _balanced(answered: Share, kept_out: Share) -> float:
    return (answered.hits / answered.count + kept_out.hits / kept_out.count) / 2


def _interval(
    observed: Sequence[Observed], fit: Callable[[Sequence[Observed]], Thresholds], method: str, seed: int
) -> tuple[float, float]:
    chance = split_mix(seed)
    found = sorted(
        threshold_of(fit([observed[int(chance() * len(observed))] for _ in observed]), method)
        for _ in range(_RESAMPLES)
    )
    return round(quantile(found, 0.025), 4), round(quantile(found, 0.975), 4)
