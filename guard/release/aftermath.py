"""After a rollback: since when it was bad, how the indicators went, and whether the rollback helped. Pure.

The answer to "did it help" is given once, from what users get since the traffic moved: no answer of the bad release any
more, and every rule that had spoken within its limit on enough events. Until there is enough it is pending; what stays
unknown is said, never taken for a success.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from slo.evaluation import allowed_share, evaluate
from slo.history import Point, first_bad_s, thinned
from slo.metric_names import INDICATORS
from slo.thresholds import Limit
from slo.types import Reading, Slo, State
from slo.wording import show_value

GRACE_S = 10.0
"""Answers under way when the traffic moved may end within this time."""
MIN_EVENTS = 30
GIVE_UP_S = 900.0
POINT_COUNT = 120
_OUTSIDE = {State.OK: "does not fire", State.BREACH: "still fires", State.UNKNOWN: "is not known"}


class Recovery(StrEnum):
    """Whether the rollback helped."""

    PENDING = "pending"
    RECOVERED = "recovered"
    NOT_RECOVERED = "not_recovered"
    UNKNOWN = "unknown"  # nobody asked enough in the time after it


@dataclass(frozen=True, slots=True)
class Series:
    """One rule of one release over time, as it is plotted. limit: in the indicator's own unit, None while unknown.

    scale: values x scale are what people read (ms, percent stays a ratio). share: the points are shares of bad events
    and `allowed` is the share that the limit allows.
    """

    rule: str
    indicator: str
    release: str
    arm: str  # bad | stable
    limit: float | None
    allowed: float | None
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What is added to the incident of a rollback. since_s: when it was bad first, Unix seconds."""

    recovery: Recovery
    words: str
    since_s: float | None = None
    series: tuple[Series, ...] = ()


def series_of(slo: Slo, limit: float | None, release: str, arm: str, points: Sequence[Point]) -> Series:
    """Freeze a rule's history, thinned to what a picture can show."""
    indicator = INDICATORS[slo.indicator]
    allowed = limit
    if limit is not None and indicator.kind != "mean":
        allowed = allowed_share(indicator, limit)
    return Series(slo.name, slo.indicator, release, arm, limit, allowed, thinned(points, POINT_COUNT))


def bad_since_s(found: Sequence[Series]) -> float | None:
    """The earliest moment at which the bad release was past a limit of the rules that spoke."""
    moments = []
    for one in found:
        if one.arm != "bad" or one.allowed is None:
            continue
        indicator = INDICATORS[one.indicator]
        worse_up = indicator.worse == "up" if indicator.kind == "mean" else True
        moment = first_bad_s(one.points, one.allowed, worse_up=worse_up)
        if moment is not None:
            moments.append(moment)
    return min(moments, default=None)


def recovery_of(
    rules: Mapping[str, tuple[Slo, float | None]],
    stable_since: Mapping[str, Reading],
    bad_since_count: float,
    *,
    after_s: float,
    outside: Mapping[str, State] | None = None,
) -> tuple[Recovery, str]:
    """Return whether the rollback helped, and the line for the timeline.

    Args:
        rules: name -> (rule, its limit) of those that had spoken.
        stable_since: name -> what stable did since the traffic moved (and `GRACE_S`).
        bad_since_count: exchanges of the bad release that ended since then.
        after_s: seconds since the traffic moved.
        outside: rules on alerts of others that had spoken, and what they say of stable now.
    """
    said, states = [], []
    for name, (slo, limit) in rules.items():
        reading = stable_since.get(name, Reading(0, 0))
        asked = replace(slo, min_events=MIN_EVENTS, fast=None, burn_rate=False)
        verdict = evaluate(asked, "stable", reading, None, Limit(limit, "no limit is known", "incident"))
        states.append(verdict.state)
        indicator = INDICATORS[slo.indicator]
        shown = show_value(indicator, verdict.value) if verdict.value is not None else f"{reading.bad_count} over"
        against = f", limit {show_value(indicator, limit)}" if limit is not None else ""
        said.append(f"{name} {shown} of {reading.count}{against}")
    for name, state in (outside or {}).items():
        states.append(state)
        said.append(f"{name} {_OUTSIDE[state]}")
    gone = "no answer of the bad release since" if not bad_since_count else f"{bad_since_count:g} answers of it since"
    words = f"{gone}; {'; '.join(said)}" if said else gone
    if State.BREACH in states:
        return Recovery.NOT_RECOVERED, f"not recovered: {words}"
    if not states and not bad_since_count:
        return Recovery.UNKNOWN, f"traffic moved, and no rule can say whether it helped: {words}"
    if not bad_since_count and State.UNKNOWN not in states:
        return Recovery.RECOVERED, f"verified, it helped: {words}"
    if after_s >= GIVE_UP_S:
        return Recovery.UNKNOWN, f"cannot tell whether it helped: {words}; {MIN_EVENTS} events needed"
    return Recovery.PENDING, ""
