"""How many of its own answers a healthy canary needs to pass a stage, and how often a bad one passes.

Looked at after every ten answers of the canary, as the guard does every few seconds. Bad: worse by exactly the margin,
and more than twice as bad, so that neither way of passing is right; it may pass in 1 of 20 rollouts at most.
"""

from __future__ import annotations

import numpy

from slo.comparison import ArmSums, Pair, Span, compare, margin_of
from slo.types import CanaryRule, Compared, Slo, Threshold, Window

STEP, MOST = 10, 20_000
RULE = CanaryRule(factor=2.0, margin=None, alpha=0.01 / 8)
CASES = (
    # what, bad share of a healthy release, limit
    ("errors 0.1 %, limit 0.5 %", 0.001, 0.005),
    ("hallucination 0.5 %, limit 1 %", 0.005, 0.01),
    ("zero hits 1 %, limit 5 %", 0.01, 0.05),
    ("hallucination 3 %, limit 5 %", 0.03, 0.05),
    ("hallucination 6 %, limit 10 %", 0.06, 0.10),
)


def objective(limit: float) -> Slo:
    """A rule on a share with this limit."""
    threshold = Threshold("absolute", {"absolute": limit})
    return Slo("share", "sft_quality_zero_hit_rate", Window(3600.0), threshold, canary=RULE)


def passes_after(
    slo: Slo, limit: float, shares: tuple[float, float], weight: float, chance: numpy.random.Generator, most: int = MOST
) -> int | None:
    """Canary answers until it passes; None when it fails first, or has not passed after `most`."""
    steps = most // STEP
    others = round(STEP * (1 - weight) / weight)
    mine = numpy.cumsum(chance.binomial(STEP, shares[0], steps))
    theirs = numpy.cumsum(chance.binomial(others, shares[1], steps))
    for step in range(steps):
        bad, other_bad, count = float(mine[step]), float(theirs[step]), (step + 1) * STEP
        pair = Pair(ArmSums(count, bad, bad), ArmSums((step + 1) * others, other_bad, other_bad))
        comparison = compare(slo, [Span(0, {weight: pair})], weight, limit)
        assert comparison is not None
        if comparison.result is Compared.PASS:
            return count
        if comparison.result is Compared.FAIL:
            return None
    return None


def report(*, quick: bool, seed: int) -> str:
    """One line for each case and weight."""
    runs = 20 if quick else 200
    lines = [f"{runs} rollouts each; canary answers until it passes", "case                              canary  margin"
             "  median    90 %   never   bad ones that pass"]  # fmt: skip
    for name, share, limit in CASES:
        slo = objective(limit)
        margin = margin_of(slo, limit)
        worse = max(share + margin, 2.0 * share)
        for weight in (0.1, 0.5):
            chance = numpy.random.default_rng([seed, int(share * 1e4), int(weight * 10)])
            found = [passes_after(slo, limit, (share, share), weight, chance) for _ in range(runs)]
            wrong = [passes_after(slo, limit, (worse, share), weight, chance, 4000) for _ in range(runs)]
            seen = sorted(after for after in found if after is not None)
            middle, late = (seen[int(q * (len(seen) - 1))] if seen else 0 for q in (0.5, 0.9))
            through = sum(after is not None for after in wrong)
            lines.append(
                f"{name:32s}  {weight:5.0%}   {margin:5.1%}   {middle:6d}  {late:6d}  {len(found) - len(seen):6d}"
                f"   {worse:.1%}: {through} of {runs}"
            )
    return "\n".join(lines)
