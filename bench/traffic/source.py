"""Counts straight into the windows that the judge reads, without an exchange for every question.

Everything about books, limits, coverage and releases is the guard's own `MemorySource`; only the windows are kept as
running sums, so that a reading costs the same for a minute and for a month. A property test holds them to the guard's.
"""

from __future__ import annotations

from bisect import bisect_right
from math import ceil, floor
from typing import Any

from bench.traffic.counting import Counts
from slo.clock import Clock
from slo.confidence import guess
from slo.indicators import (
    AVAILABILITY,
    CACHE_HITS,
    COST,
    HALLUCINATION,
    HTTP_ERRORS,
    LLM_ERRORS,
    SIMILARITY,
    THUMBS_UP,
    ZERO_HIT,
)  # fmt: skip
from slo.sources.memory import MemorySource
from slo.sources.trial import Cell
from slo.types import Reading, Slo
from slo.windows import FINE_S, RINGS

Sums = tuple[float, float, float, float]
"""(events, bad ones, sum of values, sum of their squares) since the beginning."""
_ZERO: Sums = (0.0, 0.0, 0.0, 0.0)
_KEEP = 2


class SummedWindows:
    """Reads as `slo.windows.Windows` does, at bucket accuracy; keeps no quantiles and cannot be dumped."""

    __slots__ = ("_index", "_numbers", "_open", "_sums")

    def __init__(self) -> None:
        self._numbers: tuple[list[int], ...] = tuple([] for _ in RINGS)
        self._sums: tuple[list[Sums], ...] = tuple([] for _ in RINGS)
        self._open = _ZERO
        self._index: int | None = None

    def add_sums(self, now_s: float, events: float, bad: float, total: float = 0.0, squares: float = 0.0) -> None:
        """Count some events at `now_s`."""
        index = floor(now_s / FINE_S)
        if self._index is not None and index > self._index:
            self._close()
        if self._index is None or index > self._index:
            self._index = index
        a, b, c, d = self._open
        self._open = (a + events, b + bad, c + total, d + squares)

    def _close(self) -> None:
        assert self._index is not None
        if not self._open[0]:
            return
        start_s = self._index * FINE_S
        a, b, c, d = self._open
        for numbers, sums, (width_s, longest_s) in zip(self._numbers, self._sums, RINGS, strict=True):
            number = floor(start_s / width_s)
            w, x, y, z = sums[-1] if sums else _ZERO
            after = (w + a, x + b, y + c, z + d)
            if numbers and numbers[-1] == number:
                sums[-1] = after
            else:
                numbers.append(number)
                sums.append(after)
                most = int(longest_s / width_s) + _KEEP
                if len(numbers) > 2 * most:
                    del numbers[:-most], sums[:-most]
        self._open = _ZERO

    def reading(self, now_s: float, length_s: float, *, coverage_ratio: float = 1.0) -> Reading:
        """Return what happened in the last `length_s` (> 0, at most 30 d)."""
        if self._index is None:
            return Reading(0, 0, coverage_ratio=coverage_ratio)
        place = 0 if length_s <= RINGS[0][1] else 1 if length_s <= RINGS[1][1] else 2
        width_s, longest_s = RINGS[place]
        first = floor(now_s / width_s) - ceil(min(length_s, longest_s) / width_s)
        sums = self._sums[place]
        start = bisect_right(self._numbers[place], first)
        events = bad = total = squares = 0.0
        if start < len(sums):
            events, bad, total, squares = sums[-1]
            if start > 0:
                w, x, y, z = sums[start - 1]
                events, bad, total, squares = events - w, bad - x, total - y, squares - z
        if floor(self._index * FINE_S / width_s) > first:
            w, x, y, z = self._open
            events, bad, total, squares = events + w, bad + x, total + y, squares + z
        return Reading(round(bad), round(events), total, squares, coverage_ratio)


class CountedSource(MemorySource):
    """The guard's source, told counts. Objectives limited to routes are not simulated.

    Raises:
        ValueError: an objective names routes.
    """

    def __init__(self, slos: tuple[Slo, ...], clock: Clock) -> None:
        if any(slo.routes for slo in slos):
            raise ValueError("objectives limited to routes are not simulated with counts; use exchanges")
        super().__init__(slos, clock, tenant_cap_ratio=None)

    def limits_s(self) -> dict[str, float]:
        """Limit of every latency objective that has one, seconds by name."""
        return dict(self.shelf.limits)

    def objective_value(self, slo: Slo, release: str) -> float | None:
        """None: the value is shown to people and never decided on, and for a quantile it costs more than the rest."""
        return None

    def count(self, release: str, found: Counts) -> None:
        """Count one step of one release now."""
        now_s = self._clock.now_s()
        book = self.shelf.release(release, now_s).books[()]
        seen = found.questions - found.cancelled
        carried = seen - found.client_errors
        made = found.fresh + found.failed
        rows: tuple[tuple[str, float, float, float, float], ...] = (
            (HTTP_ERRORS, seen, found.client_errors + found.failed, 0.0, 0.0),
            (AVAILABILITY, carried, found.failed, 0.0, 0.0),
            (LLM_ERRORS, made, found.failed, 0.0, 0.0),
            (COST, found.fresh, 0, found.cost_sum_usd, found.cost_squares),
            (CACHE_HITS, carried if found.cached else 0, carried - found.hits, 0.0, 0.0),
            (HALLUCINATION, found.judged, found.hallucinated, 0.0, 0.0),
            (SIMILARITY, found.similarity_count, 0, found.similarity_sum, found.similarity_squares),
            (ZERO_HIT, found.fresh, found.zero_hits, 0.0, 0.0),
            (THUMBS_UP, found.thumbs, found.thumbs_down, 0.0, 0.0),
        )
        for name, events, bad, total, squares in rows:
            if events > 0:
                _summed(book.windows, name).add_sums(now_s, events, bad, total, squares)
        self._compare(release, found)
        unjudged = found.fresh - found.judged
        if unjudged > 0:
            for name in (HALLUCINATION, SIMILARITY):
                _summed(book.unjudged, name).add_sums(now_s, unjudged, 0)
        for objective, over in found.over.items():
            if objective in book.over:
                _over(book.over, objective).add_sums(now_s, carried, over)

    def _compare(self, release: str, found: Counts) -> None:
        """Beside the windows, what the rollout under comparison counts: without cache hits, bad sessions once."""
        trial = self.trial
        arm = trial.arm_of(release) if trial is not None else None
        if trial is None or arm is None:
            return
        made = found.fresh + found.failed
        errors = found.client_errors + found.failed
        failed, n = found.sessions.get("failed", 0), found.judged
        rows: tuple[tuple[str, float, float, float, float, float], ...] = (
            (HTTP_ERRORS, made + found.client_errors, errors, found.client_errors + failed, 0.0, 0.0),
            (AVAILABILITY, made, found.failed, failed, 0.0, 0.0),
            (LLM_ERRORS, made, found.failed, failed, 0.0, 0.0),
            (HALLUCINATION, n, found.hallucinated, found.sessions.get("hallucinated", 0), 0.0, 0.0),
            (ZERO_HIT, found.fresh, found.zero_hits, found.sessions.get("zero_hits", 0), 0.0, 0.0),
            (SIMILARITY, n, 0, 0, found.similarity_sum, found.similarity_squares),
        )
        for name, *sums in rows:
            for ledger in trial._by_indicator.get(((), name), ()):
                _add(ledger.cells[arm], *sums)
        for objective, over in found.over.items():
            ledger_of = trial._ledgers.get(objective)
            if ledger_of is not None:
                _add(ledger_of.cells[arm], made, over, over, 0.0, 0.0)


def _add(cell: Cell, events: float, bad: float, bad_sessions: float, total: float, squares: float) -> None:
    """Count many events as `Cell.add` counts one; the guess of a score is that of the beginning of the step."""
    cell.count += events
    cell.bad += bad
    cell.bad_sessions += bad_sessions
    if total:
        expected = guess(cell.seen_total, cell.seen_count)
        cell.spread += max(0.0, squares - 2.0 * expected * total + events * expected * expected)
        cell.total += total
        cell.seen_count += events
        cell.seen_total += total


def _over(over: dict[str, Any], objective: str) -> SummedWindows:
    limit_s, windows = over[objective]
    if not isinstance(windows, SummedWindows):
        windows = SummedWindows()
        over[objective] = (limit_s, windows)
    return windows


def _summed(windows: dict[str, Any], name: str) -> SummedWindows:
    found = windows.get(name)
    if found is None:
        found = windows[name] = SummedWindows()
    assert isinstance(found, SummedWindows)
    return found
