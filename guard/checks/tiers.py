"""The port of the slower grounding tiers (detector models, a judge), and which claims they are asked about. Pure.

Order per answer: rules -> words, facts and the static embedding -> transformer for claims in the uncertain band ->
a detector model -> a sampled judge. Each tier answers for claims one probability of being unsupported; a contradiction
found by the rules is never overruled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from guard.checks.detector_spec import KINDS
from slo.metric_names import GROUNDING_TIERS
from slo.types import Finding

Band = tuple[float, float]
UNCALIBRATED_BAND: Band = (0.15, 0.85)
"""Where no calibration says between which probabilities the tiers before are unsure."""


RULES, WORDS, TRANSFORMER, DETECTOR, JUDGE = GROUNDING_TIERS


def deciding_tier(finding: Finding) -> str:
    """The dearest tier that had a say in a finding of the grounding check; a contradiction found by rule stands alone.

    >>> from slo.types import CheckResult
    >>> deciding_tier(Finding("grounding", CheckResult.PASS, 0.9, detector="lexical+all-MiniLM-L6-v2@0f+judge:small"))
    'judge'
    """
    said = finding.detector
    if said.startswith(f"{RULES}+"):
        return RULES
    if "+judge:" in said:
        return JUDGE
    if any(f"+{kind}:" in said for kind in (*KINDS, DETECTOR)):
        return DETECTOR
    return TRANSFORMER if "+" in said else WORDS


class TierUnavailable(Exception):
    """The tier cannot judge now; the message says why. The tiers before it stand."""


class DetectorTier(Protocol):
    """A second opinion on claims. Implementations live beside their model; none is imported by the tiers before."""

    @property
    def name(self) -> str:
        """Short name with a fingerprint, for `Finding.detector`: `nli:NAME@FINGERPRINT`, `judge:NAME`."""

    def score(self, question: str, claims: Sequence[str], contexts: Sequence[str]) -> Sequence[float] | None:
        """Probability in [0, 1] of being unsupported, one per claim, in order; None: not asked (sampling, budget).

        Raises:
            TierUnavailable: it should have answered and cannot.
        """


@dataclass(frozen=True, slots=True)
class Tier:
    """A detector tier in its place. band: claim probabilities of the tier before, between which it is asked."""

    detector: DetectorTier
    band: Band = UNCALIBRATED_BAND


@dataclass(frozen=True, slots=True)
class TierOutcome:
    """probabilities: of all claims, those of the band exchanged. asked: how many. problem: why not, "" when it ran."""

    probabilities: tuple[float, ...]
    asked_count: int
    problem: str = ""


def ask(
    tier: Tier, question: str, claims: Sequence[str], contexts: Sequence[str],
    probabilities: Sequence[float], *, settled: Sequence[bool] = (),
) -> TierOutcome:  # fmt: skip
    """Ask a tier about the claims in its band. settled: claims that no tier may change (contradictions).

    Never raises: a tier that breaks is a problem of its own, and the probabilities before it stand.
    """
    low, high = tier.band
    unsure = [
        i for i, p in enumerate(probabilities) if low < p < high and not (i < len(settled) and settled[i])
    ]  # fmt: skip
    before = tuple(probabilities)
    if not unsure:
        return TierOutcome(before, 0)
    try:
        said = tier.detector.score(question, [claims[i] for i in unsure], contexts)
    except TierUnavailable as error:
        return TierOutcome(before, 0, str(error) or "unavailable")
    except Exception as error:  # Whatever a model library raises, the tiers before it stand.
        return TierOutcome(before, 0, f"broke ({type(error).__name__})")
    if said is None:
        return TierOutcome(before, 0)
    if len(said) != len(unsure) or not all(0.0 <= s <= 1.0 for s in said):
        return TierOutcome(before, 0, f"answered {len(said)} of {len(unsure)} claims, or no probability")
    changed = dict(zip(unsure, map(float, said), strict=True))
    return TierOutcome(tuple(changed.get(i, p) for i, p in enumerate(before)), len(unsure))
