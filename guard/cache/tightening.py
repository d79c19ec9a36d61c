"""When a semantic cache has to be stricter: from re-checked hits to a threshold. Pure.

A share of the semantic hits is asked again beside the answer that was served. While the share of wrong ones could still
be within the budget nothing happens; once even its lower bound is above, the threshold goes up one step and counting
begins anew; at the last step the route is switched off. It never loosens by itself: a person does, in guard.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from slo.statistics import wilson_lower, wilson_upper

STEP = 0.01
CEILING = 0.99
"""Above it the wording is the same but for punctuation; if that is still wrong, it is not the wording."""


@dataclass(frozen=True, slots=True)
class Strictness:
    """What a route has come to. rechecked, wrong: since the threshold last moved; total_*: since the start."""

    threshold: float
    rechecked: int = 0
    wrong: int = 0
    off: bool = False
    total_rechecked: int = 0
    total_wrong: int = 0


@dataclass(frozen=True, slots=True)
class FalseHits:
    """Share of wrong semantic hits with its one-sided 95 % bounds (Wilson); None before the first re-check."""

    estimate: float | None
    lower: float | None
    upper: float | None


def false_hits(state: Strictness) -> FalseHits:
    """Of the present threshold.

    >>> found = false_hits(Strictness(0.92, rechecked=100, wrong=2))
    >>> round(found.estimate, 3), round(found.lower, 3), round(found.upper, 3)
    (0.02, 0.007, 0.059)
    """
    if not state.rechecked:
        return FalseHits(None, None, None)
    lower, upper = wilson_lower(state.wrong, state.rechecked), wilson_upper(state.wrong, state.rechecked)
    return FalseHits(state.wrong / state.rechecked, lower, upper)


def rechecked(state: Strictness, *, wrong: bool, budget_ratio: float) -> Strictness:
    """The state after one more re-check.

    budget_ratio: share of semantic hits that may be wrong, in [0, 1].
    """
    counted = replace(
        state,
        rechecked=state.rechecked + 1,
        wrong=state.wrong + wrong,
        total_rechecked=state.total_rechecked + 1,
        total_wrong=state.total_wrong + wrong,
    )
    lower = false_hits(counted).lower
    if state.off or not wrong or lower is None or lower <= budget_ratio:
        return counted
    if state.threshold >= CEILING:
        return replace(counted, off=True)
    return replace(counted, threshold=round(min(CEILING, state.threshold + STEP), 6), rechecked=0, wrong=0)
