"""The five incidents of the practice. What happened and what the guard must do stands with each test."""

from __future__ import annotations

from dataclasses import replace

from bench.traffic.arrivals import Load, flat
from bench.traffic.behaviour import HEALTHY, change
from bench.traffic.rulesets import preset_rules, rules
from bench.traffic.upstream import Disturbance, Upstream
from guard.release.plan import SHORT, Plan, Stage
from tests.scenarios.playing import Scenario

HOUR_S = 3600.0
FAQ = preset_rules("support-faq")
LOAD_RULES = rules(
    """
service: faq-bot
objectives:
  - name: hallucination
    indicator: sft_quality_hallucination_rate
    window: 1h
    threshold: {absolute: 5%}
    for: 10m
    action: rollback
  - name: p95
    indicator: sft_perf_latency_p95_ms
    window: 15m
    threshold: {limit: 3000, factor: 0.7}
    for: 15m
    action: shed
"""
)
CACHE_RULES = rules(
    """
service: faq-bot
preset: support-faq
objectives:
  - {name: cache-hits-now, indicator: sft_cache_hit_rate, window: 1h, threshold: {absolute: 50%}, for: 5m, action: page}
"""
)

KNOWLEDGE_UPDATE = Scenario(
    "1 knowledge update",
    FAQ,
    # Retrieval 200 -> 500 ms adds 0.3 s to every answer.
    (change(0.0, zero_hit_ratio=0.15, p50_s=0.50, p95_s=0.65, similarity_mean=0.90),),
    fault_at_s=0.0,
    wanted="out",
    within_s=5 * 60.0,
    rules=("zero-hit", "p95"),
)
FINDS_NOTHING = replace(
    KNOWLEDGE_UPDATE,
    name="1 finds nothing, no slower",
    faults=(change(0.0, zero_hit_ratio=0.15, similarity_mean=0.90),),
    wanted="rollback",
    within_s=15 * 60.0,
    rules=("zero-hit",),
)

LOAD_ON_A_CANARY = Scenario(
    "2 load, canary out",
    LOAD_RULES,
    (change(0.0, hallucination_ratio=0.035),),
    fault_at_s=1800.0,
    wanted="shed",
    within_s=25 * 60.0,
    rules=("p95",),
    load=flat(500.0),
    shared=Upstream((Disturbance(1800.0, 1e9, latency_factor=2.7 / 0.35),)),
    plan=Plan((Stage(0.2, 600.0), Stage(0.5, 24 * HOUR_S))),
)
LOAD_AFTER_PROMOTION = replace(LOAD_ON_A_CANARY, name="2 load, promoted", promoted=True)

TWO_AM_CANARY = Scenario(
    "3 two a.m., canary",
    FAQ,
    (change(23.75 * HOUR_S, ramp_s=900.0, hallucination_ratio=0.08),),
    fault_at_s=23.75 * HOUR_S,
    wanted="rollback",
    within_s=75 * 60.0,
    rules=("hallucination",),
    load=Load(20.0, weekly=False),
    begin_s=22.5 * HOUR_S,
    until_s=26 * HOUR_S,
)
TWO_AM_PROMOTED = replace(TWO_AM_CANARY, name="3 two a.m., promoted", promoted=True)

CACHE_AFTER_AN_UPDATE = Scenario(
    "4 cache after update",
    CACHE_RULES,
    (change(1800.0, cache_hit_ratio=0.05),),
    fault_at_s=1800.0,
    wanted="fires",
    within_s=30 * 60.0,
    rules=("cache-hits-now",),
    stable=replace(HEALTHY, cache_hit_ratio=0.65),
    fresh=replace(HEALTHY, cache_hit_ratio=0.65),
    promoted=True,
)

FORGETTING = Scenario(
    "5 forgetting, canary",
    FAQ,
    (change(0.0, similarity_mean=0.10),),
    fault_at_s=0.0,
    wanted="rollback",
    within_s=5 * 60.0,
    rules=("similarity",),
    plan=SHORT,
    until_s=HOUR_S,
)
FORGETTING_FROM_78 = replace(
    FORGETTING,
    name="5 forgetting from 78 %",
    stable=replace(HEALTHY, similarity_mean=0.78),
    fresh=replace(HEALTHY, similarity_mean=0.78),
)
FORGETTING_PROMOTED = replace(
    FORGETTING,
    name="5 forgetting, promoted",
    faults=(change(1800.0, similarity_mean=0.10),),
    fault_at_s=1800.0,
    within_s=10 * 60.0,
    promoted=True,
)

INCIDENTS = (
    KNOWLEDGE_UPDATE,
    FINDS_NOTHING,
    LOAD_ON_A_CANARY,
    LOAD_AFTER_PROMOTION,
    TWO_AM_CANARY,
    TWO_AM_PROMOTED,
    CACHE_AFTER_AN_UPDATE,
    FORGETTING,
    FORGETTING_FROM_78,
    FORGETTING_PROMOTED,
)
HEALTHY_VARIANTS = (KNOWLEDGE_UPDATE, LOAD_ON_A_CANARY, TWO_AM_CANARY, TWO_AM_PROMOTED, CACHE_AFTER_AN_UPDATE)
"""One for each set of rules and plan: without their faults the others are the same histories."""
