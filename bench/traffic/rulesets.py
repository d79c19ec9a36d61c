"""Rules that simulations run under: the presets as they are, the practice's release conditions, single rules."""

from __future__ import annotations

from dataclasses import replace

from bench.traffic.behaviour import Behaviour
from slo.spec import parse_slo
from slo.types import Slo

RELATIVE = """
  - name: hallucination-relative
    indicator: sft_quality_hallucination_rate
    window: 1h
    threshold: {baseline: p95, factor: 1.5}
    for: 10m
    action: rollback
"""

RELEASE_CONDITIONS = """
service: faq-bot
objectives:
  - name: p95-3s
    indicator: sft_perf_latency_p95_ms
    window: 15m
    threshold: {absolute: 3000}
    for: 15m
    action: rollback
  - name: errors
    indicator: sft_availability_llm_error_rate
    window: 10m
    threshold: {absolute: 0.5%}
    for: 10m
    action: rollback
  - {name: zero-hit, indicator: sft_quality_zero_hit_rate, window: 1h, threshold: {absolute: 5%}, action: rollback}
  - {name: quality, indicator: sft_quality_similarity_score, window: 1h, threshold: {absolute: 85%}, action: rollback}
"""
"""What ends a release in the practice: P95 > 3 s for 15 minutes; errors > 0.5 % for 10 minutes; zero-hit > 5 %; quality
of key intents < 85 %. The last one is written on the similarity of all answers: there is no indicator per intent."""

HEALTHY_BY_PRESET = {
    "support-faq": Behaviour(),
    "finance": replace(Behaviour(), hallucination_ratio=0.006, p50_s=0.12, p95_s=0.21, failed_ratio=0.0003),
    "internal-kb": replace(Behaviour(), hallucination_ratio=0.06, p50_s=0.4, p95_s=0.7),
}
"""A healthy release keeps 60 to 70 % of each limit of its preset."""


def preset_rules(name: str, *, relative: bool = False) -> tuple[Slo, ...]:
    """Return the objectives of a preset, and with `relative` one more against the baseline."""
    more = f"objectives:{RELATIVE}" if relative else ""
    return parse_slo(f"service: faq-bot\npreset: {name}\n{more}").objectives


def rules(text: str) -> tuple[Slo, ...]:
    """Return the objectives of an slo.yaml."""
    return parse_slo(text).objectives
