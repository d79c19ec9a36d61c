"""Where the numbers of a text stand, found by value. Pure.

`numbers.same` allows a rounding error, so a plain look-up by value would miss some. The values are sorted: those near
enough are few, and they alone are compared.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from guard.checks.numbers import ALLIES, Quantity, same

SLACK = 1e-8
"""Wider than the rounding error that `same` allows, so that nothing is missed."""


class NumberIndex:
    """The numbers of one text, each with its place."""

    def __init__(self, numbers: Iterable[tuple[int, Quantity]]) -> None:
        rows = list(numbers)
        self._rows = rows
        by_dimension: dict[str, list[tuple[float, int]]] = {}
        for i, (_, number) in enumerate(rows):
            by_dimension.setdefault(number.dimension, []).append((number.value, i))
        self._values = {dimension: _sorted(found) for dimension, found in by_dimension.items()}
        self._bare = _sorted([(n.plain, i) for i, (_, n) in enumerate(rows) if not n.dimension])
        self._plains = _sorted([(n.plain, i) for i, (_, n) in enumerate(rows) if n.dimension])

    def holders(self, claimed: Quantity) -> list[int]:
        """Places of the numbers that are the `same` as the claimed one; a place as often as it has one."""
        if not self._rows:
            return []
        if claimed.dimension == "byte":  # kilobytes of 1,000 and of 1,024 are the same to most writers
            return [place for place, number in self._rows if same(claimed, number)]
        dimension = claimed.dimension
        near = _near(self._values[dimension], claimed.value) if dimension in self._values else []
        if dimension:
            for ally in ALLIES.get(dimension, ()):
                if ally in self._values:
                    near += _near(self._values[ally], claimed.value)
        others = self._bare if dimension else self._plains
        if others[0]:
            near += _near(others, claimed.plain)
        return [self._rows[i][0] for i in near if same(claimed, self._rows[i][1])]


Sorted = tuple[list[float], list[int]]


def _sorted(rows: Sequence[tuple[float, int]]) -> Sorted:
    ordered = sorted(rows)
    return [value for value, _ in ordered], [i for _, i in ordered]


def _near(found: Sorted, value: float) -> list[int]:
    values, rows = found
    slack = SLACK * (1.0 + abs(value))
    begin = bisect_left(values, value - slack)
    end = begin
    while end < len(values) and values[end] <= value + slack:
        end += 1
    return rows[begin:end]
