"""The release conditions of the practice one by one, and faults that are not the release's."""

from __future__ import annotations

from dataclasses import replace

from bench.traffic.behaviour import change
from bench.traffic.rulesets import RELEASE_CONDITIONS, preset_rules, rules
from bench.traffic.upstream import Disturbance, Upstream
from guard.release.plan import SHORT, Plan, Stage
from tests.scenarios.playing import Scenario

RULES = rules(RELEASE_CONDITIONS)
FAULT_S = 900.0

_CONDITION = Scenario(
    "", RULES, (), fault_at_s=FAULT_S, wanted="rollback", within_s=0.0, plan=SHORT, until_s=3600.0
)  # fmt: skip
SLOW = replace(
    _CONDITION,
    name="P95 > 3 s for 15 min",
    faults=(change(FAULT_S, p50_s=1.5, p95_s=4.0),),
    within_s=22 * 60.0,
    rules=("p95-3s",),
)
ERRORS = replace(
    _CONDITION,
    name="errors > 0.5 % for 10 min",
    faults=(change(FAULT_S, failed_ratio=0.02),),
    within_s=20 * 60.0,
    rules=("errors",),
)
ZERO_HIT = replace(
    _CONDITION,
    name="zero-hit > 5 %",
    faults=(change(FAULT_S, zero_hit_ratio=0.15),),
    within_s=15 * 60.0,
    rules=("zero-hit",),
)
QUALITY = replace(
    _CONDITION,
    name="quality < 85 %",
    faults=(change(FAULT_S, similarity_mean=0.70),),
    within_s=20 * 60.0,
    rules=("quality",),
)

OUTAGE = replace(
    _CONDITION,
    name="canary fails wholly",
    slos=preset_rules("support-faq"),
    faults=(change(FAULT_S, failed_ratio=1.0),),
    within_s=60.0,
    rules=("availability", "llm-errors"),
    step_s=5.0,
    until_s=1800.0,
)
UPSTREAM_OUTAGE = replace(
    OUTAGE,
    name="upstream fails for all",
    faults=(),
    shared=Upstream((Disturbance(FAULT_S, FAULT_S + 900.0, failed_factor=400.0),)),
    wanted="shed",
    within_s=180.0,
)
BLIND_CHECKS = replace(
    _CONDITION,
    name="check worker down",
    plan=Plan((Stage(0.2, 1800.0), Stage(0.5))),
    slos=preset_rules("support-faq"),
    faults=(change(FAULT_S, coverage_ratio=0.0),),
    wanted="",
    rules=(),
    until_s=1.5 * 3600.0,
)

CONDITIONS = (SLOW, ERRORS, ZERO_HIT, QUALITY, OUTAGE, UPSTREAM_OUTAGE, BLIND_CHECKS)
HEALTHY_VARIANTS = (SLOW, OUTAGE, BLIND_CHECKS)
"""One for each set of rules and plan: without their faults the others are the same histories."""
