"""Key intents, thumbs and reopens of one release, as they are shown. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from slo.statistics import wilson_lower, wilson_upper

MIN_COUNT = 20
"""Judged answers below which no ratio is shown."""


@dataclass(frozen=True, slots=True)
class IntentRow:
    """One key intent of one release since the start. good_ratio None: too few judged answers.

    low, high: one-sided 95 % bounds of the ratio. state: ok | low | unknown; it is `low` when the upper bound is under
    the minimum, beyond chance.
    """

    release: str
    intent: str
    good_count: int
    bad_count: int
    unknown_count: int
    minimum_ratio: float
    good_ratio: float | None
    low: float | None
    high: float | None
    state: str


@dataclass(frozen=True, slots=True)
class UserRow:
    """One release since the start: thumbs, and questions asked again of those that a session asked."""

    release: str
    up_count: int
    down_count: int
    thumbs_up_ratio: float | None
    asked_count: int
    reopened_count: int
    reopen_ratio: float | None


def intent_row(release: str, name: str, good: int, bad: int, unknown: int, minimum: float = 0.85) -> IntentRow:
    """Judge one intent of one release.

    >>> intent_row("r1", "leave", 60, 40, 0).state, intent_row("r1", "leave", 4, 1, 0).state
    ('low', 'unknown')
    """
    judged = good + bad
    if judged < MIN_COUNT:
        return IntentRow(release, name, good, bad, unknown, minimum, None, None, None, "unknown")
    low, high = wilson_lower(good, judged), wilson_upper(good, judged)
    return IntentRow(
        release, name, good, bad, unknown, minimum, good / judged, low, high, "low" if high < minimum else "ok"
    )
