"""Objectives, their comparison beside a canary, their course and the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One objective of the canary beside stable since the rollout began, or of stable since its promotion.

    e_value: evidence for harm, a fail at `e_needed`; None for scores. harm_low, harm_high: how much worse it is at
    least and at most, share of events or score. figures: all of them as text.
    """

    result: str  # pass | fail | inconclusive | unknown
    reason: str
    e_value: float | None
    e_needed: float | None
    harm_low: float | None
    harm_high: float | None
    figures: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SloRow:
    """One objective for one release. value, threshold, bound: in `unit` (ratio, seconds, usd)."""

    slo: str
    indicator: str
    release: str
    arm: str
    state: str  # ok | breach | unknown
    firing: bool
    value: float | None
    threshold: float | None
    bound: float | None
    unit: str
    window_s: float
    events_count: int
    min_events_count: int
    action: str
    reason: str
    fast: bool = False
    budget_remaining_ratio: float | None = None
    comparison: ComparisonRow | None = None


@dataclass(frozen=True, slots=True)
class SloReport:
    """All objectives as they stood at the last evaluation; evaluated_wall_s None: not yet."""

    service: str
    evaluated_wall_s: float | None
    objectives: tuple[SloRow, ...]


@dataclass(frozen=True, slots=True)
class BaselineValue:
    """One indicator of the baseline."""

    indicator: str
    count: int
    quantiles: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class BaselineInfo:
    """The baseline in use. present False: none, and `reason` says why and what to do."""

    present: bool
    reason: str = ""
    hash: str = ""
    created_wall_s: float | None = None
    expires_wall_s: float | None = None
    window_s: float | None = None
    forced: bool = False
    values: tuple[BaselineValue, ...] = ()


@dataclass(frozen=True, slots=True)
class Course:
    """One objective of one release over the last hour. points: (Unix seconds, value), shares of bad events or means.

    limit: what the points are held against; None while unknown.
    """

    slo: str
    release: str
    arm: str
    limit: float | None
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class History:
    """All objectives of the releases in traffic."""

    courses: tuple[Course, ...]
