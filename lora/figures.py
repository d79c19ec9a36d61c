"""Figures of a side from its graded answers, and whether they reach the scenario's minimum. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lora.evaluate import REFUSAL, Graded
from rag.finetune.evaluate import ACCURATE, HIGH, POOR
from slo.statistics import mean_interval, wilson_lower, wilson_upper

MIN_ROWS = 100
"""The governance checklist of the practice: fewer questions are said to be few."""


@dataclass(frozen=True, slots=True)
class Minimum:
    """Least and wanted average similarity of a scenario."""

    least: float
    wanted: float
    about: str


SCENARIOS: Mapping[str, Minimum] = {
    "internal-kb": Minimum(0.85, 0.90, "internal FAQ"),
    "support-faq": Minimum(0.80, 0.85, "customer-service bot"),
    "finance": Minimum(0.90, 0.95, "critical system"),
}
"""By preset; the numbers are those of the practice."""


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `count`; a share of none is unknown."""

    hits: int
    count: int

    @property
    def ratio(self) -> float | None:
        """0..1, None of none."""
        return self.hits / self.count if self.count else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """One-sided 95 % bounds on either side (Wilson)."""
        return (wilson_lower(self.hits, self.count), wilson_upper(self.hits, self.count)) if self.count else None


@dataclass(frozen=True, slots=True)
class Figures:
    """One side (base or adapter, raw or after the rules). Shares carry what they are of.

    refused: of what must be refused. answered: of what must be answered. length: mean, of what was answered.
    """

    count: int
    similarity: float | None
    similarity_interval: tuple[float, float] | None
    characters: float
    accuracy: Share
    high_quality: Share
    poor: Share
    refused: Share
    answered: Share
    hallucinated: Share
    confusion: Share
    repetition: Share
    echo: Share
    length: float | None


def figures(graded: Sequence[Graded]) -> Figures:
    """Figures of one side; at least one answer."""
    known = [g.similarity for g in graded if g.similarity is not None]
    checked = [g.hallucinated for g in graded if g.hallucinated is not None]
    ruled, refusals = [g for g in graded if not g.must_refuse], [g for g in graded if g.must_refuse]
    interval = mean_interval(sum(known), sum(s * s for s in known), len(known))
    lengths = [g.length for g in ruled if g.given != REFUSAL]
    return Figures(
        count=len(graded),
        similarity=fmean(known) if known else None,
        similarity_interval=(max(0.0, interval.low), min(1.0, interval.high)) if interval else None,
        characters=fmean(g.characters for g in graded),
        accuracy=Share(sum(s >= ACCURATE for s in known), len(known)),
        high_quality=Share(sum(s >= HIGH for s in known), len(known)),
        poor=Share(sum(s < POOR for s in known), len(known)),
        refused=Share(sum(g.given == REFUSAL for g in refusals), len(refusals)),
        answered=Share(sum(g.given != REFUSAL for g in ruled), len(ruled)),
        hallucinated=Share(sum(checked), len(checked)),
        confusion=Share(sum(g.confused for g in ruled), len(ruled)),
        repetition=Share(sum(g.repeats for g in graded), len(graded)),
        echo=Share(sum(g.echoes for g in graded), len(graded)),
        length=fmean(lengths) if lengths else None,
    )


@dataclass(frozen=True, slots=True)
class RuleFigures:
    """How the questions about one rule went. mixed_with: what was answered instead, with counts."""

    rule: str
    count: int
    similarity: float | None
    right: int
    mixed_with: tuple[tuple[str, int], ...]


def per_rule(graded: Sequence[Graded]) -> tuple[RuleFigures, ...]:
    """Every rule and the refusals, the worst first."""
    by_rule: dict[str, list[Graded]] = defaultdict(list)
    for one in graded:
        by_rule[one.row.rule or REFUSAL].append(one)
    found = []
    for rule, several in by_rule.items():
        known = [g.similarity for g in several if g.similarity is not None]
        wrong = Counter(g.given or "(nothing known)" for g in several if g.given != rule)
        right = sum(g.given == rule for g in several)
        found.append(
            RuleFigures(rule, len(several), fmean(known) if known else None, right, tuple(wrong.most_common()))
        )
    return tuple(sorted(found, key=lambda f: (f.right / f.count, f.similarity or 0.0, f.rule)))


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a release may go on. reasons: why not, one line each. notes: what a person should know."""

    passed: bool
    scenario: str
    minimum: float
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def decide(
    found: Figures, scenario: str, *, max_hallucinated: float | None = None, min_refused: float | None = None
) -> Decision:
    """Average similarity against the scenario's minimum, and what else was asked for.

    What could not be measured is no pass.
    """
    minimum = SCENARIOS[scenario]
    reasons, notes = [], []
    if found.similarity is None:
        reasons.append("similarity could not be told for any answer")
    elif found.similarity < minimum.least:
        reasons.append(f"average similarity {found.similarity:.1%}, at least {minimum.least:.0%} for {minimum.about}")
    else:
        if found.similarity < minimum.wanted:
            notes.append(f"average similarity {found.similarity:.1%} is below the recommended {minimum.wanted:.0%}")
        if found.similarity_interval and found.similarity_interval[0] < minimum.least:
            notes.append(
                f"the average may be as low as {found.similarity_interval[0]:.1%} (95 %): {found.count} answers are few"
            )
    for what, share, limit, above in (
        ("hallucinated", found.hallucinated, max_hallucinated, True),
        ("refused of what must be refused", found.refused, min_refused, False),
    ):
        if limit is None:
            continue
        if share.ratio is None:
            reasons.append(f"{what}: nothing to tell it from")
        elif share.ratio > limit if above else share.ratio < limit:
            word = "at most" if above else "at least"
            reasons.append(f"{what}: {share.ratio:.1%} of {share.count}, {word} {limit:.1%}")
    if found.count < MIN_ROWS:
        notes.append(f"{found.count} questions; an evaluation set should have {MIN_ROWS}")
    return Decision(not reasons, scenario, minimum.least, tuple(reasons), tuple(notes))
