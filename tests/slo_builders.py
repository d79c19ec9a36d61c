"""Small makers of Slo, Verdict and Exchange for the tests of the SLO core."""

from __future__ import annotations

from typing import Any

from slo.types import CheckResult, Exchange, FastPath, Finding, OnBreach, Outcome, Slo, Threshold, Window

HALLUCINATION = "sft_quality_hallucination_rate"
SIMILARITY = "sft_quality_similarity_score"
P95 = "sft_perf_latency_p95_ms"
P99 = "sft_perf_latency_p99_ms"
COST = "sft_cost_inference_per_request_usd"
AVAILABILITY = "sft_availability_success_rate"


def make_slo(indicator: str = HALLUCINATION, form: str = "absolute", window_s: float = 3600.0, **changes: Any) -> Slo:
    """An objective with threshold {absolute: 0.05} unless `params` says otherwise."""
    params = changes.pop("params", {"absolute": 0.05})
    settings: dict[str, Any] = {
        "name": "rule",
        "indicator": indicator,
        "window": Window(window_s),
        "threshold": Threshold(form, params),
        "action": OnBreach.ROLLBACK,
    }
    return Slo(**{**settings, **changes})


FAST = FastPath()


def make_exchange(number: int = 1, **changes: Any) -> Exchange:
    """A good answer of stable release r1."""
    settings: dict[str, Any] = {
        "exchange_id": f"e{number}",
        "wall_s": 1_750_000_000.0,
        "route": "chat",
        "release": "r1",
        "arm": "stable",
        "outcome": Outcome.OK,
        "status": 200,
        "duration_s": 0.4,
        "cost_usd": 0.0003,
    }
    return Exchange(**{**settings, **changes})


def found(check: str, result: str, score: float | None = None) -> Finding:
    """One finding."""
    return Finding(check, CheckResult(result), score)
