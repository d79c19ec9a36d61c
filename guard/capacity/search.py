"""The whole load test: one step after the other until the knee is found, the budget is spent or something is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from guard.capacity.open_loop import OpenLoop, Send, Shape
from slo.capacity import (
    Criteria,
    Knee,
    LatencyLimit,
    Plan,
    Step,
    find_knee,
    is_sender_late,
    latency_limit,
    next_rate,
    why_not_sustained,
)
from slo.statistics import split_mix

SENT_LATE = "this machine sent too late"
REST_S = 1.0
"""Pause between two steps, so that what one left behind does not stand in the next."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a load test found. stopped: why it ended early, "" when it did not."""

    steps: tuple[Step, ...]
    criteria: Criteria
    knee: Knee
    limit: LatencyLimit | None
    stopped: str


async def search(
    send: Send,
    plan: Plan,
    criteria: Criteria,
    shape: Shape,
    *,
    budget_s: float,
    seed: int = 1,
    on_step: Callable[[Step, str], None] = lambda step, why: None,
) -> Outcome:
    """Load the service step by step. on_step: told each step and why it was not sustained ("": it was)."""
    loop = asyncio.get_running_loop()
    driver = OpenLoop(send, shape, split_mix(seed))
    deadline_s = loop.time() + budget_s
    steps: list[Step] = []
    stopped = ""
    while (rate := next_rate(steps, plan, criteria)) is not None:
        needed_s = shape.length_s(rate)
        if loop.time() + needed_s > deadline_s:
            stopped = f"the time budget of {budget_s:g} s is spent (the next step takes {needed_s:.3g} s)"
            break
        if steps:
            await asyncio.sleep(REST_S)
        settle_s = steps[-1].p95_s or 0.0 if steps else 0.0
        step = await driver.step(rate, settle_s)
        steps.append(step)
        on_step(step, why_not_sustained(step, criteria.bound_s(steps), criteria.goodput_ratio))
        if is_sender_late(step):
            # Its numbers are about us: they may neither convict the service nor move the knee.
            steps[-1] = replace(step, aborted=SENT_LATE)
            stopped = f"at {rate:.4g}/s this machine sent {step.lag_p95_s * 1000:.3g} ms late (P95): it is the limit"
            break
    knee = find_knee(steps, criteria, stopped)
    if steps and steps[-1].aborted == SENT_LATE:
        knee = replace(knee, reached=False, reason=stopped)
    return Outcome(tuple(steps), criteria, knee, latency_limit(knee, steps), stopped)


def as_json(outcome: Outcome, url: str, shape: Shape, seed: int) -> dict[str, Any]:
    """Return everything that was measured, for capacity.json."""
    bound_s = outcome.criteria.bound_s(outcome.steps)
    knee, limit = outcome.knee, outcome.limit
    return {
        "url": url,
        "arrivals": "poisson" if shape.poisson else "uniform",
        "seed": seed,
        "sustained_means": {
            "goodput_ratio": outcome.criteria.goodput_ratio,
            "p95_bound_ms": _ms(bound_s),
            "bound_from": "given" if outcome.criteria.p95_bound_s else f"{outcome.criteria.departure:g} x idle P95",
        },
        "knee": {
            "rate_per_s": _short(knee.rate_per_s),
            "p95_ms": _ms(knee.p95_s),
            "reached": knee.reached,
            "reason": knee.reason,
        },
        "rate_limit": None if knee.rate_per_s is None else {
            "limit_per_s": _short(knee.rate_per_s), "factor": 0.7, "threshold_per_s": _short(knee.rate_per_s * 0.7),
        },
        "latency_limit": None if limit is None else {
            "limit_ms": limit.limit_ms, "factor": limit.factor, "threshold_ms": limit.threshold_ms,
            "idle_p95_ms": limit.idle_p95_ms, "usable": limit.usable, "why": limit.why,
            "yaml": f"threshold: {{limit: {limit.limit_ms:g}, factor: {limit.factor:g}}}",
        },
        "stopped": outcome.stopped,
        "steps": [_step_json(step, bound_s, outcome.criteria) for step in outcome.steps],
    }  # fmt: skip


def _step_json(step: Step, bound_s: float | None, criteria: Criteria) -> dict[str, Any]:
    why = why_not_sustained(step, bound_s, criteria.goodput_ratio)
    return {
        "rate_per_s": _short(step.rate_per_s),
        "span_s": round(step.span_s, 3),
        "sent_count": step.sent_count,
        "ok_count": step.ok_count,
        "goodput_per_s": _short(step.goodput_per_s),
        "p50_ms": _ms(step.p50_s),
        "p95_ms": _ms(step.p95_s),
        "p99_ms": _ms(step.p99_s),
        "first_byte_p95_ms": _ms(step.first_byte_p95_s),
        "sender_lag_p95_ms": _ms(step.lag_p95_s),
        "errors": dict(step.errors),
        "sustained": not why,
        "why": why,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
