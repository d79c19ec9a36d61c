"""Counters, gauges and histograms as plain cells, with a cap on how many lines a scrape may have.

The hot path keeps a reference to its cells and adds to them; nothing here is called per exchange once the cells exist.
Creating a cell takes a lock, because a scrape reads the table from another thread; adding to one does not: each
cell has one writing thread (see `exporters.prometheus`).
"""

from __future__ import annotations

import threading
import warnings
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from exporters.labels import OTHER, BoundedValues, clean, closed_set
from slo.metric_names import METRICS, Metric


class Cell:
    """One counter or gauge. An unknown gauge has no cell: it is absent, not 0."""

    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n: float = 0


Exemplar = tuple[str, float, float]
"""One observation worth looking at: trace id, value, Unix seconds. A tuple, because it is made per answer."""


class Distribution:
    """One histogram: `counts[i]` observations are <= `bounds[i]` and over the bound before it; the last is +Inf."""

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float) -> int:
        """Count `value` and return the index of its bucket."""
        index = bisect_left(self.bounds, value)
        self.counts[index] += 1
        self.total += value
        return index


@dataclass(slots=True)
class Family:
    """All series of one metric; `bounds` only for histograms."""

    metric: Metric
    bounds: tuple[float, ...] = ()
    cells: dict[tuple[str, ...], Cell] = field(default_factory=dict)
    distributions: dict[tuple[str, ...], Distribution] = field(default_factory=dict)

    @property
    def lines_per_series(self) -> int:
        """How many lines one more series adds to a scrape."""
        return len(self.bounds) + 3 if self.metric.kind == "histogram" else 1


class SeriesTable:
    """Every series of the process. At most `max_lines` lines; what does not fit is counted, not stored.

    A name that is not in `slo.metric_names` raises no error, because a typo must not break a rollback: it warns once
    (`RuntimeWarning`, which the tests turn into a failure) and counts as dropped.
    """

    def __init__(self, bounds_of: Mapping[str, Sequence[float]], max_lines: int) -> None:
        self.max_lines = max_lines
        self.line_count = 0
        self.dropped_count = 0
        self.lock = threading.Lock()
        self._values = BoundedValues()
        self._strangers: set[str] = set()
        self.families = {m.name: Family(m, tuple(bounds_of.get(m.name, ()))) for m in METRICS.values()}

    def key(self, name: str, labels: Mapping[str, str]) -> tuple[str, ...] | None:
        """Return the label values in the order of the table, or None when metric or label is unknown."""
        family = self.families.get(name)
        if family is None:
            self._stranger(name, f"metric `{name}`")
            return None
        wanted = family.metric.labels
        values = tuple([labels.get(label, "") for label in wanted])
        if len(labels) > len(wanted) or any(label not in wanted for label in labels):
            extra = ", ".join(sorted(set(labels) - set(wanted)))
            self._stranger(f"{name}{{{extra}}}", f"label `{extra}` of metric `{name}`")
            return None
        return values

    def cell(self, name: str, values: tuple[str, ...]) -> tuple[Cell | None, bool]:
        """Return the cell of these label values and whether they were taken as they are.

        (cell, False): a value became `other`. (None, False): the cap is reached. Both count as dropped when the
        values came from a bounded label or hit the cap; ask again next time instead of keeping the cell.
        """
        with self.lock:
            family = self.families[name]
            kept, exact = self._closed(family.metric, values)
            cell = family.cells.get(kept)
            if cell is None:
                if not self._reserve(family):
                    return None, False
                cell = family.cells[kept] = Cell()
            return cell, exact

    def distribution(self, name: str, values: tuple[str, ...]) -> tuple[Distribution | None, bool]:
        """As `cell`, for a histogram."""
        with self.lock:
            family = self.families[name]
            kept, exact = self._closed(family.metric, values)
            found = family.distributions.get(kept)
            if found is None:
                if not self._reserve(family):
                    return None, False
                found = family.distributions[kept] = Distribution(family.bounds)
            return found, exact

    def values_of(self, label: str) -> set[str]:
        """Every value that this label has, or had a place kept for on a series that found none itself."""
        with self.lock:
            return self._values.seen(label) | {
                values[family.metric.labels.index(label)]
                for family in self.families.values()
                if label in family.metric.labels
                for values in (*family.cells, *family.distributions)
            }

    def forget(self, label: str, value: str) -> None:
        """Remove every series with this label value: the release is gone and its numbers are in the log."""
        with self.lock:
            self._values.forget(label, value)
            for family in self.families.values():
                if label not in family.metric.labels:
                    continue
                place = family.metric.labels.index(label)
                for values in [v for v in (*family.cells, *family.distributions) if v[place] == value]:
                    family.cells.pop(values, None)
                    family.distributions.pop(values, None)
                    self.line_count -= family.lines_per_series

    def rebound(self, name: str, bounds: tuple[float, ...]) -> bool:
        """Give a histogram other bounds; True when they differ. It begins anew then, as a counter after a restart."""
        with self.lock:
            family = self.families[name]
            if family.bounds == bounds:
                return False
            self.line_count -= family.lines_per_series * len(family.distributions)
            family.bounds, family.distributions = bounds, {}  # a new table: a scrape may be reading the old one
            return True

    def remove(self, name: str, values: tuple[str, ...]) -> None:
        """Make a gauge absent."""
        with self.lock:
            family = self.families[name]
            if family.cells.pop(values, None) is not None:
                self.line_count -= family.lines_per_series

    def drop(self, n: int = 1) -> None:
        """Count `n` observations or samples that found no series of their own."""
        with self.lock:
            self.dropped_count += n

    def pulled_key(self, name: str, labels: Mapping[str, str]) -> tuple[str, ...] | None:
        """Label values of a gauge that is asked for at scrape time: closed words kept, the rest cleaned."""
        values = self.key(name, labels)
        if values is None:
            return None
        metric = self.families[name].metric
        return tuple(
            clean(value) if (words := closed_set(name, label)) is None or value in words or not value else OTHER
            for label, value in zip(metric.labels, values, strict=True)
        )

    def _closed(self, metric: Metric, values: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
        kept: list[str] = []
        exact = True
        for label, value in zip(metric.labels, values, strict=True):
            words = closed_set(metric.name, label)
            if words is not None:
                if value not in words and value:
                    value, exact = OTHER, False
            else:
                value = clean(value)
                if value and not self._values.admit(label, value):
                    value, exact = OTHER, False
                    self.dropped_count += 1
            kept.append(value)
        return tuple(kept), exact

    def _reserve(self, family: Family) -> bool:
        if self.line_count + family.lines_per_series > self.max_lines:
            self.dropped_count += 1
            return False
        self.line_count += family.lines_per_series
        return True

    def _stranger(self, key: str, what: str) -> None:
        self.drop()
        if key not in self._strangers and len(self._strangers) < 100:
            self._strangers.add(clean(key))
            warnings.warn(f"{what} is not in slo.metric_names; add it there or correct the name", RuntimeWarning, 4)
