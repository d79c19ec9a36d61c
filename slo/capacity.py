"""From the steps of an open-loop load test to the knee of the latency curve, and to the limits of slo.yaml. Pure.

A rate is *sustained* when, over the measured part of its step, at least 99 % of the answers were good, as much came
back as was sent (no backlog grows), and P95 stayed within the bound: the one given, or else `departure` times the P95
of the lightest step. The knee is the highest sustained rate below the lowest one that was not.

Source:
    R. Jain (1991), The Art of Computer Systems Performance Analysis, section 3.3: usable capacity, "the maximum
    throughput achievable without exceeding a prespecified response time limit". The default limit of 5 times the idle
    P95 is where an M/M/1 queue stands at 80 % load: its response time, and every quantile of it, is S / (1 - load)
    (L. Kleinrock (1975), Queueing Systems, volume 1, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

GOODPUT_RATIO = 0.99
DEPARTURE = 5.0
LIMIT_FACTOR = 0.7
"""Head room of the practice: threshold = capacity limit x 0.7."""
FAR_GONE_RATIO = 0.9
"""Less goodput than this is no hiccup, so the rate is not tried again."""
LAG_RATIO = 0.25
LAG_S = 0.02


@dataclass(frozen=True, slots=True)
class Step:
    """One rate held for some seconds; counts and latencies are those of its measured part, the warm-up left out.

    sent_count: requests that were due. ok_count: those answered well. finished_count: good answers that arrived within
    the measured part, whenever they were due. in_flight_count: requests under way when the measured part began.
    Latencies are seconds from the moment a request was *due* to the end of its answer, over good answers and timeouts;
    None without any. lag_p95_s: how late this machine sent them. aborted: why the step was cut short, "" when not.
    """

    rate_per_s: float
    span_s: float
    sent_count: int
    ok_count: int
    finished_count: int
    in_flight_count: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    first_byte_p95_s: float | None = None
    lag_p95_s: float = 0.0
    errors: tuple[tuple[str, int], ...] = ()
    aborted: str = ""

    @property
    def ok_ratio(self) -> float:
        """Share of the requests that were answered well."""
        return self.ok_count / self.sent_count if self.sent_count else 0.0

    @property
    def goodput_per_s(self) -> float:
        """Good answers per second."""
        return self.finished_count / self.span_s if self.span_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a sustained rate is. p95_bound_s None: `departure` times the P95 of the lightest step."""

    goodput_ratio: float = GOODPUT_RATIO
    p95_bound_s: float | None = None
    departure: float = DEPARTURE

    def bound_s(self, steps: Sequence[Step]) -> float | None:
        """The bound on P95, None while no step was answered."""
        if self.p95_bound_s is not None:
            return self.p95_bound_s
        lightest = min(steps, key=lambda step: step.rate_per_s, default=None)
        return None if lightest is None or lightest.p95_s is None else lightest.p95_s * self.departure


@dataclass(frozen=True, slots=True)
class Plan:
    """Which rates are tried: from `from_per_s` up by `growth`, then between the last good and the first bad one."""

    from_per_s: float
    to_per_s: float
    growth: float = 1.5
    resolution: float = 0.05
    max_steps: int = 40


@dataclass(frozen=True, slots=True)
class Knee:
    """rate_per_s, p95_s None: not even the lightest step was sustained. reached: a rate above it was seen to fail.

    reason: what ended the search, in words.
    """

    rate_per_s: float | None
    p95_s: float | None
    reached: bool
    reason: str


@dataclass(frozen=True, slots=True)
class LatencyLimit:
    """What `{limit, factor}` of slo.yaml would mean. usable False: an idle service would breach it; see `why`."""

    limit_ms: float
    factor: float
    threshold_ms: float
    idle_p95_ms: float
    usable: bool
    why: str


def why_not_sustained(step: Step, bound_s: float | None, goodput_ratio: float = GOODPUT_RATIO) -> str:
    """Return why a rate was not sustained, "" when it was.

    Good answers that came back within the span may be fewer than those sent by chance alone: what is under way at a
    moment is Poisson (M/G/infinity queue), so the difference of two moments has variance 2 L. Two such deviations are
    allowed beside the 1 %, else a slow service could never pass a short step.
    """
    if step.aborted:
        return step.aborted
    if not step.sent_count or step.p95_s is None:
        return "nothing was answered"
    if step.ok_ratio < goodput_ratio:
        worst = max(step.errors, key=lambda pair: pair[1], default=("errors", 0))[0]
        return f"{step.ok_ratio:.1%} of {step.sent_count} answers were good, mostly: {worst}"
    missing = step.sent_count - step.finished_count
    allowed = (1.0 - goodput_ratio) * step.sent_count + 2.0 * sqrt(2.0 * max(step.in_flight_count, 1))
    if missing > allowed:
        return f"a backlog grows: {step.goodput_per_s:.4g} good answers/s of {step.sent_count / step.span_s:.4g}/s sent"
    if bound_s is not None and step.p95_s > bound_s:
        return f"P95 {step.p95_s * 1000:.4g} ms is over {bound_s * 1000:.4g} ms"
    return ""


def is_sender_late(step: Step) -> bool:
    """Whether this machine, not the service, may have been what was slow: it sent too late to say anything.

    A step that was cut short because answers failed says enough by itself.
    """
    return not step.aborted and step.lag_p95_s > max(LAG_S, LAG_RATIO * (step.p95_s or 0.0))


def next_rate(steps: Sequence[Step], plan: Plan, criteria: Criteria) -> float | None:
    """Return the rate to try now, None when the knee is found or there is nothing left to try.

    Geometric steps until one fails; the first failure, when near, is tried once more, because one pause of a garbage
    collector is no capacity limit (not the later ones: two tries each would favour rates that pass by luck); then
    halfway (geometrically) between the highest good and the lowest bad rate, until they are within `resolution`.
    """
    if not steps:
        return plan.from_per_s
    if len(steps) >= plan.max_steps:
        return None
    good, bad = _sorted_out(steps, criteria)
    last = steps[-1]
    if bad == {last.rate_per_s} and _is_near(last) and sum(s.rate_per_s == last.rate_per_s for s in steps) == 1:
        return last.rate_per_s
    below = [rate for rate in good if not bad or rate < min(bad)]
    if not below:
        return None
    highest = max(below)
    if not bad:
        return None if highest >= plan.to_per_s else min(plan.to_per_s, highest * plan.growth)
    lowest_bad = min(bad)
    if lowest_bad <= highest * (1.0 + plan.resolution):
        return None
    return sqrt(highest * lowest_bad)


def find_knee(steps: Sequence[Step], criteria: Criteria, stopped: str = "") -> Knee:
    """Return the knee of the steps so far. stopped: why the test ended before it was done, "" when it was.

    >>> def step(rate, p95_s):
    ...     return Step(rate, 10.0, int(rate * 10), int(rate * 10), int(rate * 10), 1, p95_s / 2, p95_s, p95_s * 2)
    >>> find_knee([step(10, 0.1), step(20, 0.12), step(40, 0.9)], Criteria()).rate_per_s
    20
    """
    good, bad = _sorted_out(steps, criteria)
    below = [rate for rate in good if not bad or rate < min(bad)]
    bound_s = criteria.bound_s(steps)
    if not below:
        why = why_not_sustained(steps[-1], bound_s, criteria.goodput_ratio) if steps else "nothing was measured"
        return Knee(None, None, bool(bad), stopped or f"not even the lightest step was sustained: {why}")
    rate = max(below)
    held = [s for s in steps if s.rate_per_s == rate and not why_not_sustained(s, bound_s, criteria.goodput_ratio)]
    p95_s = held[-1].p95_s
    if not bad:
        reason = stopped or "every rate up to the highest was sustained; raise --rate-to to find the knee"
        return Knee(rate, p95_s, False, reason)
    failed = next(s for s in reversed(steps) if s.rate_per_s == min(bad))
    why = why_not_sustained(failed, bound_s, criteria.goodput_ratio)
    return Knee(rate, p95_s, True, f"at {failed.rate_per_s:.4g}/s {why}{f'; {stopped}' if stopped else ''}")


def latency_limit(knee: Knee, steps: Sequence[Step], factor: float = LIMIT_FACTOR) -> LatencyLimit | None:
    """Return the P95 at the knee as the limit of `{limit: X, factor: 0.7}`, None without a knee.

    A service whose latency is flat until it saturates has a P95 at the knee close to its idle P95; 0.7 of that would be
    breached by an idle service, and the limit says so instead of being believed.
    """
    idle_p95_s = min(steps, key=lambda step: step.rate_per_s).p95_s if steps else None
    if knee.p95_s is None or idle_p95_s is None:
        return None
    threshold_s = knee.p95_s * factor
    usable = threshold_s > idle_p95_s
    why = "" if usable else (
        f"P95 at the knee x {factor:g} is {threshold_s * 1000:.4g} ms and the lightest step already had "
        f"{idle_p95_s * 1000:.4g} ms: an idle service would breach it; limit the rate, or use an sla"
    )  # fmt: skip
    limit_ms = _rounded(knee.p95_s * 1000)
    return LatencyLimit(limit_ms, factor, _rounded(threshold_s * 1000), _rounded(idle_p95_s * 1000), usable, why)


def _rounded(value_ms: float) -> float:
    """Four digits: more would claim more than a load test knows."""
    return float(f"{value_ms:.4g}")


def _sorted_out(steps: Sequence[Step], criteria: Criteria) -> tuple[set[float], set[float]]:
    """(rates sustained at least once, rates never sustained). A rate tried twice is judged by its better try."""
    bound_s = criteria.bound_s(steps)
    good = {s.rate_per_s for s in steps if not why_not_sustained(s, bound_s, criteria.goodput_ratio)}
    return good, {s.rate_per_s for s in steps} - good


def _is_near(step: Step) -> bool:
    return not step.aborted and step.goodput_per_s >= FAR_GONE_RATIO * step.rate_per_s


__all__ = [
    "Criteria", "Knee", "LatencyLimit", "Plan", "Step", "find_knee", "is_sender_late", "latency_limit", "next_rate",
    "why_not_sustained",
]  # fmt: skip
