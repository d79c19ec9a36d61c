"""Listens for a change in a version that was just promoted and has nothing beside it to be compared with.

What it listens for is in `slo.detection`; here is the memory between two evaluations. Sums are kept with the counts of
the trial, so they survive a restart; thresholds are found again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from guard.comparing import SEES_ALL
from slo.actions import DAY_S
from slo.artefact import Baseline, IndicatorBaseline
from slo.comparison import ArmSums, Span, margin_of
from slo.detection import (
    calibrated_threshold,
    cusum,
    gain,
    guaranteed_threshold,
    score_gain,
    usual_now,
    worse_share,
)
from slo.metric_names import INDICATORS
from slo.sequential import e_value
from slo.thresholds import Known, why_unusable
from slo.types import CanaryRule, Compared, Comparison, Slo, Verdict
from slo.wording import show_ratio

STEP_S = 5.0
WINDOW_S = 3600.0


class WatchSource(Protocol):
    """Counts a promoted version, and keeps what is remembered of each objective."""

    def spans(self, slo: Slo) -> tuple[Span, ...]: ...

    def alarm(self, objective: str) -> list[float] | None:
        """The list to remember in, changed in place; None when nothing is counted."""
        ...


class PromotionWatch:
    """One per judge; not thread-safe."""

    def __init__(self) -> None:
        self._thresholds: dict[tuple[str, str, float], float] = {}

    def beside(
        self, stable: tuple[Verdict, ...], source: WatchSource, known: Known, sick: str,
        blind: Mapping[str, str] = SEES_ALL,
    ) -> tuple[Verdict, ...]:  # fmt: skip
        """Return the verdicts of a promoted stable, each with what the watch says. blind: as in `comparisons`.

        Objectives without a usable baseline, and latency, whose baseline keeps no share over the limit, get none: the
        rules alone watch them.
        """
        calibrated = False
        watched = []
        for verdict in stable:
            why = sick or blind.get(verdict.slo.indicator, "")
            values = None if verdict.slo.canary is None else _values(verdict.slo, known)
            if values is None or known.baseline is None or verdict.slo.canary is None:
                watched.append(verdict)
                continue
            key = (verdict.slo.name, known.baseline.sha256, verdict.slo.canary.alpha)
            if key not in self._thresholds:
                # Half a second each: at most one at an evaluation, or answers would wait for the interpreter.
                if calibrated:
                    watched.append(verdict)
                    continue
                self._thresholds[key] = _threshold(values, known.baseline, verdict.slo.canary)
                calibrated = True
            comparison = _listen(verdict.slo, verdict.slo.canary, values, self._thresholds[key], source, known, why)
            watched.append(replace(verdict, comparison=comparison))
        return tuple(watched)


def _values(slo: Slo, known: Known) -> IndicatorBaseline | None:
    """The baseline's values of an objective, over windows as close to an hour as there are."""
    baseline = known.baseline
    if INDICATORS[slo.indicator].kind == "latency" or baseline is None:
        return None
    if why_unusable(slo, baseline, known, "baseline", same_config=True):
        return None
    found = [values for values in baseline.indicators if values.indicator == slo.indicator]
    return min(found, key=lambda values: abs(values.window_s - WINDOW_S)) if found else None


def _threshold(values: IndicatorBaseline, baseline: Baseline, rule: CanaryRule) -> float:
    if INDICATORS[values.indicator].kind == "mean":
        return guaranteed_threshold(DAY_S / STEP_S / rule.alpha)
    usual = usual_now(replace(values, profile=()), 0.0).share
    assert usual is not None, "only means have no share, and latency is not watched"
    return calibrated_threshold(
        values,
        usual=usual,
        factor=rule.factor,
        events_per_s=values.event_count / max(baseline.days, 1 / 24) / DAY_S,
        length_s=DAY_S,
        false_alarm=rule.alpha,
        step_s=STEP_S,
    )


def _listen(
    slo: Slo,
    rule: CanaryRule,
    values: IndicatorBaseline,
    threshold: float,
    source: WatchSource,
    known: Known,
    sick: str,
) -> Comparison | None:
    kept = source.alarm(slo.name)
    if kept is None:
        return None
    if sick:
        return Comparison(Compared.UNKNOWN, f"{slo.name}: {sick}")
    now = ArmSums()
    for span in source.spans(slo):
        for pair in span.by_weight.values():
            now = now + pair.stable
    sum_now, before = (kept[0], kept[1:]) if kept else (0.0, [0.0] * 4)
    count, bad, total, spread = (
        new - old for new, old in zip((now.count, now.bad_sessions, now.total, now.spread), before, strict=True)
    )
    usual = usual_now(values, known.wall_s)
    if count > 0.0:
        if usual.share is not None:
            sum_now = cusum(sum_now, gain(bad, count - bad, usual.share, worse_share(usual.share, rule.factor)))
        elif usual.score is not None:
            # Half the margin is no change yet; a bet against just below usual would win a little for ever.
            allowed = usual.score - margin_of(slo, None) / 2
            sum_now = cusum(sum_now, score_gain(count, total, spread, allowed))
        kept[:] = [sum_now, now.count, now.bad_sessions, now.total, now.spread]
    return _said(slo, rule, sum_now, threshold, now, usual.share, usual.score)


def _said(
    slo: Slo, rule: CanaryRule, sum_now: float, threshold: float, now: ArmSums, share: float | None, score: float | None
) -> Comparison:
    alarmed = sum_now >= threshold
    if share is not None:
        seen = f"{show_ratio(now.bad_sessions / now.count)} bad of {round(now.count)}" if now.count else "nothing"
        usual = f"usual at this hour {show_ratio(share)}, listened for {show_ratio(worse_share(share, rule.factor))}"
    else:
        seen = f"mean {now.total / now.count:.4g} of {round(now.count)}" if now.count else "nothing"
        usual = f"usual at this hour {score:.4g}"
    word = "changed" if alarmed else "no change"
    reason = f"{slo.name}: {word} since the promotion: {seen}; {usual}; evidence {sum_now:.3g} of {threshold:.3g}"
    evidence = (
        ("comparison", "change" if alarmed else "no change"),
        ("cusum", f"{sum_now:.4g}"),
        ("cusum_threshold", f"{threshold:.4g}"),
        ("since_promotion", seen),
        ("usual", usual),
        ("alpha", f"{rule.alpha:.4g}"),
    )
    result = Compared.FAIL if alarmed else Compared.PASS
    return Comparison(result, reason, e_value(sum_now), e_value(threshold), None, None, evidence)
