"""The process itself: health, readiness, configuration, sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the process. status: ok | degraded | off."""

    name: str
    status: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """The process lives. status: ok, or degraded when a part fails open."""

    status: str
    version: str
    uptime_s: float
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the data listener takes traffic, and why not."""

    ready: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigView:
    """The running configuration. settings: guard.yaml as read, secrets removed."""

    hash: str
    path: str
    last_reload_ok: bool
    last_reload_wall_s: float | None
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stats:
    """Sizes of what is bounded, for people who look for the tight one."""

    values: Mapping[str, float]
