"""Canary against the stable version that answers at the same time: pass, fail, inconclusive or unknown. Pure.

fail: harm is certainly over the tolerance. pass: harm is certainly under the non-inferiority margin. Everything between
is inconclusive, and holds. Certain means: at every moment of the rollout at once, so looking at every event is legal.

Harms that happen or do not (errors, hallucinations, over the latency limit) fail by an e-value: the canary is more
than `factor` times as bad as stable. They pass by bounds of both shares: certainly less than `margin` worse, or
certainly less than `factor` times as bad. Both ways are needed: with almost no bad events no ratio is ever certain, and
with many a small margin takes for ever. Scores in [0, 1] fail and pass by bounds of the difference of means.

The unit of chance is the session. For failing, a session's bad events count once: a session in trouble, or one bot
that sends a constant user, convicts nobody by repetition. For passing they all count: leaving some out would make harm
look small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from slo.confidence import Bounds, ScoreSums, mean_bounds, share_bounds
from slo.evaluation import allowed_share
from slo.metric_names import INDICATORS
from slo.sequential import Stretch, e_value, log_e_rollout, p_value, starting_capital
from slo.types import CanaryRule, Compared, Comparison, Slo
from slo.wording import show_ratio

PASS_ALPHA = 0.05
"""Probability that a canary that is worse by the margin passes one stage. Not shared over objectives: all must pass."""


@dataclass(frozen=True, slots=True)
class ArmSums:
    """What one arm did for one objective; weights of capped tenants make fractions.

    count: events. bad: bad ones. bad_sessions: bad ones, at most one a session. total, spread: of scores, see
    `slo.confidence.ScoreSums`.
    """

    count: float = 0.0
    bad: float = 0.0
    bad_sessions: float = 0.0
    total: float = 0.0
    spread: float = 0.0

    def __add__(self, other: ArmSums) -> ArmSums:
        return ArmSums(
            self.count + other.count,
            self.bad + other.bad,
            self.bad_sessions + other.bad_sessions,
            self.total + other.total,
            self.spread + other.spread,
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """Canary and stable over the same time."""

    canary: ArmSums = ArmSums()
    stable: ArmSums = ArmSums()

    def __add__(self, other: Pair) -> Pair:
        return Pair(self.canary + other.canary, self.stable + other.stable)


@dataclass(frozen=True, slots=True)
class Span:
    """One span of the rollout: planned share of the canary -> what happened at it. number: see `sequential.Stretch`."""

    number: int
    by_weight: Mapping[float, Pair]


MARGINS = (0.02, 0.05)
"""Smallest and largest default margin, share of events. Below the smallest a healthy canary would need thousands of
answers to pass (no bad one of 400 still leaves 1.8 % possible); above the largest passing would say little."""
SCORE_MARGIN = 0.05


def margin_of(slo: Slo, limit: float | None) -> float:
    """Return the non-inferiority margin of a compared objective: its own, else what its limit allows, within `MARGINS`.

    limit: in the indicator's unit, None while unknown.
    """
    if slo.canary is not None and slo.canary.margin is not None:
        return slo.canary.margin
    indicator = INDICATORS[slo.indicator]
    if indicator.kind == "mean":
        return SCORE_MARGIN
    return min(MARGINS[1], max(MARGINS[0], 0.0 if limit is None else allowed_share(indicator, limit)))


def compare(
    slo: Slo, spans: Sequence[Span], weight: float, limit: float | None = None, why_unknown: str = ""
) -> Comparison | None:
    """Return what the rollout says so far, None when this objective is not compared.

    Args:
        spans: all of the rollout, in order. What happened at weight 0 is left out: the canary then has only what it
            was asked before and answers late, which is the slow and the broken.
        weight: the canary's planned share of the sessions now.
        limit: of the objective, for the default margin.
        why_unknown: why nothing can be said now (coverage, own measurements sick); "" when it can.
    """
    rule = slo.canary
    if rule is None:
        return None
    if why_unknown:
        return Comparison(Compared.UNKNOWN, f"{slo.name}: {why_unknown}")
    spans = [Span(s.number, {w: pair for w, pair in s.by_weight.items() if w > 0.0}) for s in spans]
    present = _sum(span.by_weight[weight] for span in spans if weight in span.by_weight)
    margin = margin_of(slo, limit)
    if INDICATORS[slo.indicator].kind == "mean":
        return _scores(slo, rule, margin, spans, weight, present)
    return _harms(slo, rule, margin, spans, weight, present)


def _harms(
    slo: Slo, rule: CanaryRule, margin: float, spans: Sequence[Span], weight: float, present: Pair
) -> Comparison:
    log_e = log_e_rollout(_stretches(spans), rule.factor)
    e, needed = e_value(log_e), 1.0 / rule.alpha
    canary, stable = _share(present.canary), _share(present.stable)
    high, ratio_high = canary.high - stable.low, canary.high / stable.low if stable.low else None
    low = canary.low - stable.high
    whole = _sum(pair for span in spans for pair in span.by_weight.values())
    sides = f"canary {_of(whole.canary)}, stable {_of(whole.stable)}"
    if e >= needed:
        result = Compared.FAIL
        why = f"more than {rule.factor:g} x as bad as stable: e-value {e:.4g}, {needed:.4g} needed"
    elif weight >= 1.0:
        result, why = Compared.PASS, "the canary takes all traffic and there is nothing to compare it with"
    elif high < margin:
        result, why = Compared.PASS, f"at most {show_ratio(high)} more than stable, {show_ratio(margin)} allowed"
    elif ratio_high is not None and ratio_high < rule.factor:
        result, why = Compared.PASS, f"at most {ratio_high:.3g} x as bad as stable, {rule.factor:g} x allowed"
    else:
        result = Compared.INCONCLUSIVE
        why = (
            f"may still be {show_ratio(high)} worse than stable ({show_ratio(margin)} allowed), e-value {e:.3g} "
            f"of {needed:.4g}"
        )
    evidence = (
        ("comparison", result.value),
        ("e_value", f"{e:.6g}"),
        ("e_value_needed", f"{needed:.6g}"),
        ("p_value_anytime", f"{p_value(log_e):.3g}"),
        ("harm_factor", f"{rule.factor:g}"),
        ("canary_bad_of_count", f"{whole.canary.bad:g} of {whole.canary.count:g}"),
        ("stable_bad_of_count", f"{whole.stable.bad:g} of {whole.stable.count:g}"),
        ("bad_sessions", f"{whole.canary.bad_sessions:g} canary, {whole.stable.bad_sessions:g} stable"),
        ("harm_bounds", f"{low:.4g} to {high:.4g}, margin {margin:g}"),
        ("canary_weight", f"{weight:g}"),
    )
    return Comparison(result, f"{slo.name}: {sides}; {why}", e, needed, low, high, evidence)


def _scores(
    slo: Slo, rule: CanaryRule, margin: float, spans: Sequence[Span], weight: float, present: Pair
) -> Comparison:
    """Means: only at the present weight, because the hours at other weights had other questions."""
    down = INDICATORS[slo.indicator].worse == "down"
    low = float("-inf")
    since = Pair()
    for span in reversed(spans):
        if weight in span.by_weight:
            since = since + span.by_weight[weight]
            # Harm may begin late: a part of alpha is kept for each span that it might have begun in.
            alpha = rule.alpha * starting_capital(span.number)
            low = max(low, _difference(since, alpha, down=down).low)
    high = _difference(present, PASS_ALPHA, down=down).high
    sides = f"mean of canary {_mean_of(present.canary)}, of stable {_mean_of(present.stable)}"
    if low > margin:
        result, why = Compared.FAIL, f"at least {low:.3g} worse than stable, {margin:g} allowed"
    elif weight >= 1.0:
        result, why = Compared.PASS, "the canary takes all traffic and there is nothing to compare it with"
    elif high < margin:
        result, why = Compared.PASS, f"at most {high:.3g} worse than stable, {margin:g} allowed"
    else:
        result, why = Compared.INCONCLUSIVE, f"may still be {high:.3g} worse than stable ({margin:g} allowed)"
    evidence = (
        ("comparison", result.value),
        ("canary_mean_of_count", _mean_of(present.canary)),
        ("stable_mean_of_count", _mean_of(present.stable)),
        ("harm_bounds", f"{max(low, -1.0):.4g} to {high:.4g}, margin {margin:g}"),
        ("alpha", f"{rule.alpha:.4g}"),
        ("canary_weight", f"{weight:g}"),
    )
    return Comparison(result, f"{slo.name}: {sides}; {why}", None, None, max(low, -1.0), high, evidence)


def _difference(pair: Pair, alpha: float, *, down: bool) -> Bounds:
    """How much worse the mean of the canary is; each arm has half of alpha."""
    canary, stable = (mean_bounds(ScoreSums(a.count, a.total, a.spread), alpha / 2) for a in (pair.canary, pair.stable))
    if down:
        return Bounds(stable.low - canary.high, stable.high - canary.low)
    return Bounds(canary.low - stable.high, canary.high - stable.low)


def _share(arm: ArmSums) -> Bounds:
    return share_bounds(arm.bad, arm.count, PASS_ALPHA / 2)


def _stretches(spans: Sequence[Span]) -> list[Stretch]:
    """Bad sessions at the share that the canary really had where that is more than planned.

    A few busy sessions can give it more of the answers than of the sessions; taking the larger share is careful.
    """
    by_weight: dict[float, Pair] = {}
    for span in spans:
        for weight, pair in span.by_weight.items():
            by_weight[weight] = by_weight.get(weight, Pair()) + pair
    actual = {}
    for weight, pair in by_weight.items():
        both = pair.canary.count + pair.stable.count
        actual[weight] = max(weight, pair.canary.count / both) if both else weight
    stretches = []
    for span in spans:
        bad: dict[float, tuple[float, float]] = {}
        for weight, pair in span.by_weight.items():
            before = bad.get(actual[weight], (0.0, 0.0))
            mine, theirs = pair.canary.bad_sessions, pair.stable.bad_sessions
            bad[actual[weight]] = (before[0] + mine, before[1] + theirs)
        stretches.append(Stretch(span.number, bad))
    return stretches


def _sum(pairs: Iterable[Pair]) -> Pair:
    total = Pair()
    for pair in pairs:
        total = total + pair
    return total


def _of(arm: ArmSums) -> str:
    if not arm.count:
        return "nothing yet"
    return f"{show_ratio(arm.bad / arm.count)} bad of {round(arm.count)}"


def _mean_of(arm: ArmSums) -> str:
    return f"{arm.total / arm.count:.4g} of {round(arm.count)}" if arm.count else "nothing yet"
