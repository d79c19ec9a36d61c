"""Numbers of a component against their own spread: retrieval, answer, knowledge base, language. Pure.

Each number has a baseline: mean and deviation of single values, and the deviation of window means around the overall
mean, which is what "ordinary" varies by. A window's effect is its move in those spreads; a move that is small beside
the deviation of single values is no drift however many questions confirm it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from guard.checks.drifting.alarm import Alarm

LIMITS = (3.0, 3.5, 5.0)
"""Of the effect: a signal, two in a row, an alarm at once. Several numbers share a component, hence above 1.645."""

MIN_SIZE = 0.25
"""Least move, in deviations of single values, that counts (Cohen's d)."""

MIN_WINDOWS = 5


@dataclass(slots=True)
class Track:
    """One number: what was learnt and the window under way."""

    learnt: list[tuple[int, float, float]] = field(default_factory=list)  # count, mean, sum of squared deviations


@dataclass(frozen=True, slots=True)
class Ordinary:
    """Baseline of one number. between: deviation of window means beyond what chance gives."""

    count: int
    mean: float
    deviation: float
    between: float


def ordinary_of(windows: Sequence[tuple[int, float, float]]) -> Ordinary:
    """Baseline out of (count, mean, sum of squared deviations) of learnt windows.

    >>> ordinary_of([(2, 1.0, 2.0), (2, 3.0, 2.0)])
    Ordinary(count=4, mean=2.0, deviation=1.4142135623730951, between=1.224744871391589)
    """
    count = sum(n for n, _, _ in windows)
    mean = sum(n * m for n, m, _ in windows) / count
    squares = sum(s + n * (m - mean) ** 2 for n, m, s in windows)
    deviation = math.sqrt(squares / count)
    within = sum(s for _, _, s in windows) / count
    spread = sum((m - mean) ** 2 for _, m, _ in windows) / max(1, len(windows) - 1)
    chance = within / (count / len(windows))
    return Ordinary(count, mean, deviation, math.sqrt(max(0.0, spread - chance)))


@dataclass(frozen=True, slots=True)
class Moved:
    """A component's window. effect: spreads, of the number that moved most; size: the move in deviations."""

    effect: float
    size: float
    state: str  # learning | steady | signal | alarm
    reason: str


class ComponentWatch:
    """Numbers of one component of one release, window by window."""

    def __init__(self, window: int, learn_windows: int = MIN_WINDOWS) -> None:
        self._window, self._learn_windows = window, max(MIN_WINDOWS, learn_windows)
        self._learnt: dict[str, list[tuple[int, float, float]]] = {}
        self._ordinary: dict[str, Ordinary] = {}
        self._values: dict[str, dict[str, list[float]]] = {}
        self._alarms: dict[str, Alarm] = {}

    def take(self, release: str, values: Mapping[str, float], *, stable: bool) -> Moved | None:
        """Take one exchange's numbers; a result at the end of a window."""
        held = self._values.setdefault(release, {})
        for name, value in values.items():
            held.setdefault(name, []).append(value)
        if max((len(v) for v in held.values()), default=0) < self._window:
            return None
        del self._values[release]
        full = {name: v for name, v in held.items() if len(v) >= self._window // 2}
        if not self._ordinary:
            return self._learn(full) if stable else Moved(0.0, 0.0, "learning", "stable is still being learnt")
        return self._judge(release, full)

    def _learn(self, full: Mapping[str, Sequence[float]]) -> Moved:
        for name, values in full.items():
            mean = math.fsum(values) / len(values)
            squares = math.fsum((v - mean) ** 2 for v in values)
            self._learnt.setdefault(name, []).append((len(values), mean, squares))
        done = max((len(w) for w in self._learnt.values()), default=0)
        if done >= self._learn_windows:
            self._ordinary = {n: ordinary_of(w) for n, w in self._learnt.items() if len(w) >= MIN_WINDOWS}
        return Moved(0.0, 0.0, "learning", f"{done} of {self._learn_windows} windows of {self._window}")

    def _judge(self, release: str, full: Mapping[str, Sequence[float]]) -> Moved:
        worst = (0.0, 0.0, "nothing measured")
        for name, values in full.items():
            known = self._ordinary.get(name)
            if known is None:
                continue
            mean = math.fsum(values) / len(values)
            # A number that never varied has no deviation; the floor makes any visible move one.
            deviation = max(known.deviation, 0.02 * max(abs(known.mean), 0.5))
            chance = deviation * math.sqrt(1 / len(values) + 1 / known.count)
            effect = abs(mean - known.mean) / math.hypot(chance, known.between)
            size = abs(mean - known.mean) / deviation
            if effect > worst[0]:
                said = f"{name} {mean:.3g}, ordinary {known.mean:.3g} \u00b1 {deviation:.2g}"
                worst = (effect, size, f"{said}: {effect:.1f} spreads, size {size:.2f}")
        effect, size, reason = worst
        counted = effect if size >= MIN_SIZE else min(effect, LIMITS[0])
        state = self._alarms.setdefault(release, Alarm(LIMITS)).take(counted)
        return Moved(effect, size, state, reason)
