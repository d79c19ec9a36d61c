"""What a soak run says: lines through the memory of each process, what was level, and what filled up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

GUARD, WORKER, OTHERS = "guard", "worker", "others"
"""The process that serves; its check worker; whatever else it started (the converter of its log comes and goes)."""

SETTLED_S = 600.0
LIMIT_PERCENT_PER_HOUR = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment. rss_mib: of each process. held: entries of each bounded table. None, {}: the guard did not say."""

    at_s: float
    rss_mib: Mapping[str, float]
    descriptors: int
    threads: int
    tasks: float | None
    blocks: float | None = None
    held: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """Percent of the mean per hour, and half of its 95 % interval. ends: median of the first and last third."""

    percent_per_hour: float
    half_width: float
    ends: tuple[float, float]


def line(points: Sequence[tuple[float, float]]) -> Line | None:
    """The least-squares line through (second, size); None of fewer than three points, or of nothing.

    Neighbouring samples resemble each other: the interval of independent ones is widened by the square root of
    (1 + r) / (1 - r), r being the correlation of one rest with the next, not below 0.

    >>> found = line([(0.0, 100.0), (1800.0, 101.0), (3600.0, 102.0)])
    >>> round(found.percent_per_hour, 2), round(found.half_width, 6), found.ends
    (1.98, 0.0, (100.0, 102.0))
    """
    n = len(points)
    mean_x, mean_y = (sum(p[i] for p in points) / max(1, n) for i in (0, 1))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if n < 3 or spread == 0.0 or mean_y == 0.0:
        return None
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rests = [y - mean_y - slope * (x - mean_x) for x, y in points]
    squares = sum(rest * rest for rest in rests)
    half = 1.96 * math.sqrt(squares / (n - 2) / spread)
    if squares > 1e-12:
        r = sum(a * b for a, b in pairwise(rests)) / squares
        half *= math.sqrt((1.0 + max(0.0, r)) / (1.0 - min(0.99, max(0.0, r))))
    hourly = 360_000.0 / mean_y
    third = max(1, n // 3)
    ends = (_middle([y for _, y in points[:third]]), _middle([y for _, y in points[-third:]]))
    return Line(slope * hourly, half * hourly, ends)


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def floor(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The least of each minute: what it falls back to between the bursts that faults make.

    >>> floor([(0.0, 5.0), (30.0, 3.0), (59.0, 4.0), (61.0, 9.0)])
    [(30.0, 3.0), (61.0, 9.0)]
    """
    least: dict[int, tuple[float, float]] = {}
    for at_s, size in points:
        minute = int(at_s // 60.0)
        if minute not in least or size < least[minute][1]:
            least[minute] = (at_s, size)
    return list(least.values())


def settled_s(minutes: float) -> float:
    """From when on a run counts: the tenth minute, or a third of a shorter one."""
    return min(SETTLED_S, 20.0 * minutes)


def said(samples: Sequence[Sample], minutes: float) -> dict[str, Any]:
    """What the samples of a run say, JSON-able. `ok`: the guard's own line rises by less than 1 % an hour."""
    late = [s for s in samples if s.at_s >= settled_s(minutes)]
    sizes: dict[str, Callable[[Sample], float | None]] = {
        name: lambda s, name=name: s.rss_mib.get(name) for name in (GUARD, WORKER, OTHERS)  # type: ignore[misc]
    }  # fmt: skip
    sizes["sum"] = lambda s: sum(s.rss_mib.values())
    sizes["blocks"] = lambda s: s.blocks
    found: dict[str, Any] = {"settled_s": settled_s(minutes)}
    ok = False
    points = {
        name if name == "blocks" else f"rss_{name}": [(s.at_s, v) for s in late if (v := size(s)) is not None]
        for name, size in sizes.items()
    }
    points["rss_guard_floor"] = floor(points[f"rss_{GUARD}"])
    for name, seen in points.items():
        fitted = line(seen)
        if fitted is None:
            continue
        found[name] = {
            "ends": [round(end, 1) for end in fitted.ends],
            "percent_per_hour": round(fitted.percent_per_hour, 2),
            "half_width": round(fitted.half_width, 2),
        }
        if name == f"rss_{GUARD}":
            ok = fitted.percent_per_hour < LIMIT_PERCENT_PER_HOUR
    third = max(1, len(late) // 3)
    level: dict[str, Callable[[Sample], float | None]] = {
        "descriptors": lambda s: s.descriptors, "threads": lambda s: s.threads, "tasks": lambda s: s.tasks
    }  # fmt: skip
    for name, value_of in level.items():
        thirds = [[v for s in part if (v := value_of(s)) is not None] for part in (late[:third], late[-third:])]
        found[name] = [_middle(values) if values else None for values in thirds]
    told = [s.held for s in samples if s.held]
    after = [s.held for s in late if s.held]
    if told and after:
        found["held"] = {table: [told[0].get(table), after[0].get(table), last] for table, last in after[-1].items()}
    return {**found, "ok": ok}
