"""The rate that a detector measures, corrected by the labels of a few people: prediction-powered inference. Pure.

A detector is wrong in both directions, on all N answers; people are right, on n of them. With a verdict that is yes or
no, the stratified prediction-powered estimator (Angelopoulos et al., Science 382, 2023; Fisch et al. 2024, stratified)
is post-stratification by the verdict: a share `p1` of the flagged answers is truly bad, of the others `p0`, and

    rate = w * p1 + (1 - w) * p0,  w = flagged / N

so people may look at flagged answers more often than at others, which they do: only which answer *within* a stratum is
labelled has to be chance. Bounds: Wilson's of both shares and of w, put together by MOVER (Zou & Donner, Statistics in
Medicine 27, 2008), which keep their coverage where a count is 0 and a normal interval has width 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from slo.statistics import wilson_lower, wilson_upper

Z_TWO_SIDED = 1.959964
MIN_LABELS = 30
"""Labels under which nothing is said; the practice asks for 30 to 100 per release."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Counts of one release.

    answer_count, flagged_count: judged by the detector, and failed by it. Of labelled answers: `flagged_*` those that
    the detector failed, `clean_*` those that it passed; `*_bad` those that a person calls hallucinated.
    """

    answer_count: int
    flagged_count: int
    flagged_labels: int = 0
    flagged_bad: int = 0
    clean_labels: int = 0
    clean_bad: int = 0

    @property
    def label_count(self) -> int:
        """All labels."""
        return self.flagged_labels + self.clean_labels


@dataclass(frozen=True, slots=True)
class Corrected:
    """Shares. raw: what the detector alone says. low, high: bounds of `rate` (95 %)."""

    raw: float
    rate: float
    low: float
    high: float
    label_count: int


def corrected_rate(counts: Labelled, min_labels: int = MIN_LABELS) -> Corrected | None:
    """The true rate of bad answers with its bounds; None under `min_labels`, or before the first answer.

    A stratum without a label is unknown between 0 and 1 and widens the bounds by its share; the estimate then takes the
    detector's word for it.

    >>> found = corrected_rate(Labelled(1000, 100, 20, 15, 40, 1))
    >>> [round(v, 4) for v in (found.raw, found.rate, found.low, found.high)]
    [0.1, 0.0975, 0.0663, 0.1931]
    """
    n = counts.answer_count
    if counts.label_count < min_labels or n <= 0:
        return None
    w = counts.flagged_count / n
    p1, low1, high1 = _share(counts.flagged_bad, counts.flagged_labels, unknown=1.0)
    p0, low0, high0 = _share(counts.clean_bad, counts.clean_labels, unknown=0.0)
    _, low_w, high_w = _share(counts.flagged_count, n, unknown=w)
    rate = w * p1 + (1 - w) * p0
    gain = p1 - p0  # what moving an answer from one stratum to the other does
    w_down, w_up = (low_w, high_w) if gain >= 0 else (high_w, low_w)
    below = (w * (p1 - low1)) ** 2 + ((1 - w) * (p0 - low0)) ** 2 + (gain * (w - w_down)) ** 2
    above = (w * (high1 - p1)) ** 2 + ((1 - w) * (high0 - p0)) ** 2 + (gain * (w_up - w)) ** 2
    return Corrected(w, rate, max(0.0, rate - sqrt(below)), min(1.0, rate + sqrt(above)), counts.label_count)


def _share(bad: int, count: int, *, unknown: float) -> tuple[float, float, float]:
    """Estimate with bounds; without a count anything is possible."""
    if not count:
        return unknown, 0.0, 1.0
    return bad / count, wilson_lower(bad, count, Z_TWO_SIDED), wilson_upper(bad, count, Z_TWO_SIDED)
