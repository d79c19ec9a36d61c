"""What is asked of the books of this process: readings, running totals, courses over time, and gauges. Any thread."""

from __future__ import annotations

from dataclasses import replace

from slo.clock import Clock
from slo.evaluation import MIN_COVERAGE_RATIO, MIN_SHOWN_EVENTS, current_value
from slo.history import Point
from slo.indicators import LATENCY
from slo.metric_names import INDICATORS, Indicator
from slo.sources.books import NO_TALLY, Tally
from slo.sources.shelf import Shelf
from slo.types import Reading, Slo

GAUGE_WINDOW_S = 3600.0

_EXACT = tuple(i for i in INDICATORS.values() if i.exact)


class Asking:
    """Answers from a shelf; changes nothing on it."""

    def __init__(self, shelf: Shelf, clock: Clock) -> None:
        self._shelf, self._clock = shelf, clock

    def reading(self, slo: Slo, release: str, length_s: float | None = None) -> Reading:
        """Return the reading of an objective for one release; of its own window unless `length_s` is given.

        An unknown release reads zero events: silence.
        """
        book = self._shelf.book(slo, release)
        if book is None:
            return Reading(0, 0)
        length_s = slo.window.length_s if length_s is None else length_s
        now_s = self._clock.now_s()
        windows = book.counted(slo)
        reading = windows.reading(now_s, length_s) if windows else Reading(0, 0)
        if INDICATORS[slo.indicator].kind == "latency":
            return reading
        ratio = book.coverage_ratio(slo.indicator, now_s, length_s, reading.count)
        return replace(reading, coverage_ratio=ratio) if ratio != 1.0 else reading

    def tally(self, slo: Slo, release: str) -> Tally:
        """Return all that this process counted for an objective and release; an unknown release has zeros."""
        book = self._shelf.book(slo, release)
        if book is None:
            return NO_TALLY
        windows = book.counted(slo)
        bad, count, value_sum, value_sq_sum = windows.totals() if windows else (0.0, 0.0, 0.0, 0.0)
        unjudged = book.unjudged.get(slo.indicator)
        return Tally(bad, count, unjudged.totals()[1] if unjudged else 0.0, value_sum, value_sq_sum)

    def history(self, slo: Slo, release: str, length_s: float) -> tuple[Point, ...]:
        """Return an objective of one release over time, oldest first; spans without events are left out."""
        book = self._shelf.book(slo, release)
        windows = book.counted(slo) if book is not None else None
        if windows is None:
            return ()
        kind, wall_s = INDICATORS[slo.indicator].kind, self._clock.wall_s()
        return tuple(
            Point(wall_s - age_s, bad, count, total / count if kind == "mean" else None)
            for age_s, bad, count, total in windows.history(self._clock.now_s(), length_s)
        )

    def objective_value(self, slo: Slo, release: str) -> float | None:
        """Return the present value of an objective in inside units (x `indicator.scale` at the border).

        Latency: the quantile, seconds, within 1 %. None while unknown: fewer than 20 events or half coverage.
        """
        return self._value(INDICATORS[slo.indicator], release, slo.routes, slo.window.length_s)

    def gauges(self) -> list[tuple[str, str, float]]:
        """Return (metric, release, value at the border) of the six exact gauges; absent while unknown."""
        found = []
        for indicator in _EXACT:
            own = (s.window.length_s for s in self._shelf.slos if s.indicator == indicator.name and not s.routes)
            length_s = next(own, GAUGE_WINDOW_S)
            for release in list(self._shelf.releases):
                value = self._value(indicator, release, (), length_s)
                if value is not None:
                    found.append((indicator.name, release, value * indicator.scale))
        return found

    def _value(self, indicator: Indicator, release: str, routes: tuple[str, ...], length_s: float) -> float | None:
        known = self._shelf.releases.get(release)
        book = known.books.get(routes) if known else None
        name = LATENCY if indicator.kind == "latency" else indicator.name
        windows = book.windows.get(name) if book else None
        if book is None or windows is None:
            return None
        now_s = self._clock.now_s()
        reading = windows.reading(now_s, length_s)
        if reading.count < MIN_SHOWN_EVENTS:
            return None
        if book.coverage_ratio(name, now_s, length_s, reading.count) < MIN_COVERAGE_RATIO:
            return None
        if indicator.quantile is not None:
            return windows.quantile(now_s, length_s, indicator.quantile)
        return current_value(indicator, reading)
