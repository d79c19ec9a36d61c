"""Puts what a rollout says of canary against stable beside the verdicts of the canary. The tests are in `slo`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import log
from types import MappingProxyType
from typing import Protocol

from guard.release.state import Phase, ReleaseState
from slo.actions import DAY_S
from slo.comparison import Span, compare
from slo.evaluation import MIN_COVERAGE_RATIO
from slo.sources.trial import TrialSetup
from slo.types import Compared, Comparison, Slo, Verdict, Version
from slo.wording import show_ratio

COMPARED_NUMBER = {Compared.PASS: 0.0, Compared.FAIL: 1.0, Compared.INCONCLUSIVE: 2.0, Compared.UNKNOWN: 3.0}
"""Values of the gauge `sft_release_comparison_state`."""

SEES_ALL: Mapping[str, str] = MappingProxyType({})
SEES_NOTHING: Mapping[str, float] = MappingProxyType({})


class TrialSource(Protocol):
    """Counts both arms of a rollout since it began; () where nothing was counted."""

    def spans(self, slo: Slo) -> tuple[Span, ...]: ...


def trial_setup(
    state: ReleaseState,
    versions: Callable[[str], Version | None],
    now_s: float,
    expected: Callable[[str], Mapping[str, float]] = lambda name: SEES_NOTHING,
) -> TrialSetup | None:
    """Return whom to count beside whom now, None when nothing is being tried.

    expected: name of a version -> indicator -> score that an evaluation found for it beforehand.

    A paused canary keeps what was counted, also at weight 0. For a day after a promotion stable is watched alone.
    """
    stable = versions(state.stable)
    if stable is None:
        return None
    if state.phase in (Phase.ROLLING_OUT, Phase.PAUSED):
        canary = versions(state.canary)
        if canary is None or canary.release_id == stable.release_id:
            return None
        return TrialSetup("rollout", canary.release_id, stable.release_id, state.canary_ratio,
                          tuple(sorted(expected(state.canary).items())))  # fmt: skip
    if state.phase is Phase.PROMOTED and now_s - state.stage_started_s <= DAY_S:
        return TrialSetup("promoted", "", stable.release_id, 0.0)
    return None


def comparisons(
    canary: tuple[Verdict, ...], stable: tuple[Verdict, ...], source: TrialSource, weight: float, sick: str,
    blind: Mapping[str, str] = SEES_ALL,
) -> tuple[Verdict, ...]:  # fmt: skip
    """Return the verdicts of the canary with their comparisons. blind: indicator -> why it cannot be compared now."""
    others = {verdict.slo.name: verdict for verdict in stable}
    return tuple(
        replace(
            verdict,
            comparison=_comparison(
                verdict, others.get(verdict.slo.name), source, weight, sick or blind.get(verdict.slo.indicator, "")
            ),
        )
        for verdict in canary
    )


def _comparison(
    verdict: Verdict, other: Verdict | None, source: TrialSource, weight: float, sick: str
) -> Comparison | None:
    slo = verdict.slo
    if slo.canary is None:
        return None
    spans = source.spans(slo)
    if not spans and other is not None and other.release == verdict.release:
        return None  # the same release twice: nothing can differ
    uncounted = "" if spans else "canary and stable are not being counted beside each other"
    why = sick or uncounted or _unjudged("canary", verdict) or _unjudged("stable", other)
    return compare(slo, spans, weight, verdict.threshold, why)


def _unjudged(arm: str, verdict: Verdict | None) -> str:
    """Why the counts of an arm cannot be believed: half of its answers were not judged."""
    reading = verdict.reading if verdict else None
    if reading is None or not reading.count or reading.coverage_ratio >= MIN_COVERAGE_RATIO:
        return ""
    judged, needed = show_ratio(reading.coverage_ratio), show_ratio(MIN_COVERAGE_RATIO)
    return f"only {judged} of the answers of {arm} could be judged, {needed} needed"


def evidence_ratio(comparison: Comparison) -> float | None:
    """Return how far the evidence for harm has come on its way to a fail: 1 is there, below 0 speaks for the canary.

    On the log scale, on which evidence grows evenly. None for scores and while unknown.

    >>> evidence_ratio(Comparison(Compared.INCONCLUSIVE, "", e_value=10.0, e_needed=100.0))
    0.5
    """
    if comparison.e_value is None or comparison.e_needed is None or comparison.e_value <= 0.0:
        return None
    return log(comparison.e_value) / log(comparison.e_needed)


def told_by(verdict: Verdict, result: Compared) -> str:
    """Why the comparison says `result`; "" when it says anything else."""
    comparison = verdict.comparison
    return comparison.reason if comparison is not None and comparison.result is result else ""


def told_unless_passed(verdict: Verdict) -> str:
    """Why the comparison does not pass yet; "" when it does, or when there is none."""
    comparison = verdict.comparison
    return comparison.reason if comparison is not None and comparison.result is not Compared.PASS else ""
