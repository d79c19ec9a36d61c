"""How a canary grows: stages with a weight, a minimum hold and a minimum of events. Pure.

default             10 % for 24 h, 30 %, 50 %, 100 % (one hour each)
short               20 % for 2 h
20% for 2h          the same, written out; stages are separated by commas, `min N` sets the events
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slo.errors import ConfigError

MIN_EVENTS = 400
HOLD_S = 3600.0
STAGE_COUNT = 20

_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_STAGE = re.compile(
    r"\s*(?P<weight>\d{1,3}(?:\.\d{1,6})?)\s*%(?:\s+for\s+(?P<hold>[0-9.smhd]{1,16}))?(?:\s+min\s+(?P<min>\d{1,9}))?\s*"
)
_CURE = "write stages such as `10% for 24h, 30%, 50%, 100%`, or `default`, or `short`"


@dataclass(frozen=True, slots=True)
class Stage:
    """weight: share of sessions, (0, 1]. hold_s: least time in the stage. min_events: least canary exchanges."""

    weight: float
    hold_s: float = HOLD_S
    min_events: int = MIN_EVENTS


@dataclass(frozen=True, slots=True)
class Plan:
    """Stages with growing weights; passing the last one promotes."""

    stages: tuple[Stage, ...]

    @property
    def text(self) -> str:
        """`weight/hold_s/min_events` of each stage, as the control document carries it."""
        return ",".join(f"{s.weight:.9g}/{s.hold_s:.9g}/{s.min_events}" for s in self.stages)


DEFAULT = Plan((Stage(0.10, hold_s=24 * 3600.0), Stage(0.30), Stage(0.50), Stage(1.0)))
SHORT = Plan((Stage(0.20, hold_s=2 * 3600.0),))
_NAMED = {"default": DEFAULT, "short": SHORT}


def parse_plan(plan: str | Sequence[object], place: str = "plan") -> Plan:
    """Return the plan that a person or guard.yaml wrote.

    A list holds stages as text or as `{weight, hold, min_events}`; a weight is a ratio or a percent string.

    Raises:
        ConfigError: with `place`, what was written and how to write it.

    >>> parse_plan("20% for 2h") == SHORT
    True
    >>> parse_plan(["10% for 24h min 50", {"weight": 0.5}]).text
    '0.1/86400/50,0.5/3600/400'
    """
    if isinstance(plan, str):
        if plan.strip() in _NAMED:
            return _NAMED[plan.strip()]
        parts: Sequence[object] = plan.split(",")
    else:
        parts = plan
    if not 1 <= len(parts) <= STAGE_COUNT:
        raise ConfigError(place, plan, f"between 1 and {STAGE_COUNT} stages; {_CURE}")
    stages = tuple(_stage(part, f"{place}[{n}]") for n, part in enumerate(parts))
    for n in range(1, len(stages)):
        if stages[n].weight <= stages[n - 1].weight:
            raise ConfigError(f"{place}[{n}].weight", stages[n].weight, "weights grow from stage to stage")
    return Plan(stages)


def plan_from_text(text: str) -> Plan:
    """Inverse of `Plan.text`; an empty or foreign text is the default plan (another version wrote it)."""
    stages = []
    for part in text.split(",") if text else ():
        try:
            weight, hold_s, events = part.split("/")
            stages.append(Stage(float(weight), float(hold_s), int(events)))
        except ValueError:
            return DEFAULT
    return Plan(tuple(stages)) if stages else DEFAULT


def _stage(part: object, place: str) -> Stage:
    if isinstance(part, str):
        match = _STAGE.fullmatch(part)
        if match is None:
            raise ConfigError(place, part, _CURE)
        weight = round(float(match["weight"]) / 100, 9)
        hold_s = _seconds(match["hold"], place) if match["hold"] else HOLD_S
        stage = Stage(weight, hold_s, int(match["min"]) if match["min"] else MIN_EVENTS)
    elif isinstance(part, Mapping):
        foreign = set(part) - {"weight", "hold", "min_events"}
        if foreign or "weight" not in part:
            raise ConfigError(place, dict(part), "a stage has `weight`, and may have `hold` and `min_events`")
        stage = Stage(
            _ratio(part["weight"], f"{place}.weight"),
            _seconds(part.get("hold", HOLD_S), f"{place}.hold"),
            _count(part.get("min_events", MIN_EVENTS), f"{place}.min_events"),
        )
    else:
        raise ConfigError(place, part, _CURE)
    if not 0.0 < stage.weight <= 1.0:
        raise ConfigError(f"{place}.weight", stage.weight, "a weight is more than 0 and at most 100%")
    return stage


def _ratio(value: object, place: str) -> float:
    if isinstance(value, str) and re.fullmatch(r"\d{1,3}(\.\d{1,6})?%", value):
        return round(float(value[:-1]) / 100, 9)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise ConfigError(place, value, "write a ratio such as 0.1 or a percentage such as 10%")


def _seconds(value: object, place: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e9:
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"(\d{1,6}(\.\d{1,3})?[smhd]){1,4}", value):
        return sum(float(number) * _UNIT_S[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", value))
    raise ConfigError(place, value, "write a duration such as 90s, 10m, 2h or 1d12h")


def _count(value: object, place: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ConfigError(place, value, "write a whole number of events, 0 or more")
