"""When segments are put together. Pure.

Every add makes one segment. Eight of about one size become one, so a row is copied a handful of times in its life and
an add costs what it adds; above `MERGED_MAX` rows only `kb compact` merges, so that no small add pays for a large one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

FAN_IN: Final = 8
MERGED_MAX: Final = 50_000
"""Rows of a segment that an add of few rows may make; an add of more rows may make one of eight times its own."""

_SMALLEST = 64


def trailing_to_merge(counts: Sequence[int], added_count: int) -> int:
    """How many of the last segments, with these row counts, an add should put together with its own rows.

    >>> trailing_to_merge([1000, 1, 1, 1, 1, 1, 1, 1], 1)
    7
    >>> trailing_to_merge([1000, 1, 1], 1)
    0
    """
    limit = max(MERGED_MAX, FAN_IN * added_count)
    merged, total = 0, added_count
    while True:
        level = _level(total)
        alike = 0
        while merged + alike < len(counts) and _level(counts[-1 - merged - alike]) <= level:
            alike += 1
        rows = sum(counts[len(counts) - merged - alike : len(counts) - merged])
        if alike < FAN_IN - 1 or total + rows > limit:
            return merged
        merged, total = merged + alike, total + rows


def _level(count: int) -> int:
    level, size = 0, _SMALLEST
    while count > size:
        level, size = level + 1, size * FAN_IN
    return level
