"""What the cache has saved and what warming has cost, per day and release. Pure: wall time comes in as a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

DAYS_COUNT = 400
RELEASES_PER_DAY_COUNT = 32
OTHER = "other"


@dataclass(slots=True)
class Row:
    """One day of one release. saved_*: what the hits would have cost again. seconds: what people would have waited.

    misses_avoided: hits that would have been misses without warming (the first hit of each warmed answer);
    avoided_usd: what those would have cost.
    """

    hits: int = 0
    misses: int = 0
    semantic_hits: int = 0
    saved_input_tokens: int = 0
    saved_output_tokens: int = 0
    saved_usd: float = 0.0
    saved_s: float = 0.0
    unpriced_hits: int = 0
    spent_usd: float = 0.0
    warm_requests: int = 0
    warm_usd: float = 0.0
    recheck_requests: int = 0
    recheck_usd: float = 0.0
    misses_avoided: int = 0
    avoided_usd: float = 0.0

    def add(self, other: Row) -> None:
        """Sum up."""
        for field in fields(Row):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    @property
    def hit_ratio(self) -> float | None:
        """None without a lookup."""
        total = self.hits + self.misses
        return self.hits / total if total else None

    @property
    def usd_without_cache(self) -> float:
        """What the users' questions would have cost without any cache."""
        return self.spent_usd + self.saved_usd

    @property
    def usd_without_warming(self) -> float:
        """What they would have cost with the cache and without warming: the misses that it spared are paid."""
        return self.spent_usd + self.avoided_usd

    @property
    def usd_with_warming(self) -> float:
        """What they did cost, warm-up and re-check requests included."""
        return self.spent_usd + self.warm_usd + self.recheck_usd


def day_of(wall_s: float) -> str:
    """UTC day.

    >>> day_of(0.0)
    '1970-01-01'
    """
    return datetime.fromtimestamp(wall_s, UTC).date().isoformat()


class Savings:
    """Rows by (day, release); bounded, oldest day first to go."""

    def __init__(self) -> None:
        self._days: dict[str, dict[str, Row]] = {}

    def row(self, wall_s: float, release: str) -> Row:
        """The row to add to; releases beyond the bound share one."""
        day = day_of(wall_s)
        rows = self._days.get(day)
        if rows is None:
            rows = self._days[day] = {}
            while len(self._days) > DAYS_COUNT:
                del self._days[min(self._days)]
        if release not in rows and len(rows) >= RELEASES_PER_DAY_COUNT:
            release = OTHER
        return rows.setdefault(release, Row())

    def rows(self) -> list[tuple[str, str, Row]]:
        """(day, release, row), newest day first."""
        return [(day, name, row) for day in sorted(self._days, reverse=True) for name, row in self._days[day].items()]

    def total(self) -> Row:
        """Over all days and releases."""
        found = Row()
        for _, _, row in self.rows():
            found.add(row)
        return found

    def dump(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {day: {name: asdict(row) for name, row in rows.items()} for day, rows in self._days.items()}

    def load(self, document: Mapping[str, Any]) -> None:
        """Take what `dump` gave, as far as it can be read; anything else is left out."""
        known = {name: type(value) for name, value in asdict(Row()).items()}
        for day, rows in document.items():
            if not isinstance(rows, Mapping):
                continue
            for name, values in rows.items():
                if not isinstance(values, Mapping):
                    continue
                numbers = {
                    key: known[key](value)
                    for key, value in values.items()
                    if key in known and isinstance(value, int | float) and not isinstance(value, bool)
                }
                self._days.setdefault(str(day), {})[str(name)] = Row(**numbers)
