"""What the judge may still spend today. Money is set aside before a question is asked and settled after the answer.

The day is UTC and never goes back: a clock that is set back, a crash or a restart gives no second budget. Money that
was set aside and never settled (a crash between the two) stays spent.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from slo.errors import DataError


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one day (UTC)."""

    calls_count: int
    usd: float


@dataclass(frozen=True, slots=True)
class Spent:
    """Calls begun and USD set aside or spent on `day` (ISO, "" before the first)."""

    day: str = ""
    calls_count: int = 0
    usd: float = 0.0


def day_of(wall_s: float) -> str:
    """ISO day in UTC."""
    return datetime.fromtimestamp(wall_s, UTC).date().isoformat()


def set_aside(spent: Spent, limits: Limits, wall_s: float, most_usd: float) -> Spent | None:
    """Reserve one call that costs `most_usd` at most; None when the day does not allow it.

    >>> set_aside(Spent("2026-01-01", 2, 0.5), Limits(2, 1.0), 1767225600.0, 0.1) is None
    True
    >>> set_aside(Spent("2026-01-01", 2, 0.5), Limits(2, 1.0), 1767312000.0, 0.1)
    Spent(day='2026-01-02', calls_count=1, usd=0.1)
    """
    if (day := day_of(wall_s)) > spent.day:
        spent = Spent(day)
    if spent.calls_count + 1 > limits.calls_count or spent.usd + most_usd > limits.usd:
        return None
    return replace(spent, calls_count=spent.calls_count + 1, usd=spent.usd + most_usd)


def settle(spent: Spent, day: str, most_usd: float, cost_usd: float) -> Spent:
    """Replace what was set aside on `day` by what it cost; nothing to do when the day is over."""
    if spent.day != day:
        return spent
    return replace(spent, usd=max(0.0, spent.usd - most_usd + cost_usd))


def load_spent(path: Path) -> Spent:
    """What the file says; nothing spent when there is none.

    Raises:
        DataError: damaged. Not taken for an empty one: that would be a second budget.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Spent)
    except FileNotFoundError:
        return Spent()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name}: cannot be read ({error}); remove it to begin a new daily budget") from error


def save_spent(path: Path, spent: Spent) -> None:
    """Durable before it returns. Raises OSError."""
    beside = path.with_suffix(".tmp")
    with beside.open("wb") as target:
        target.write(msgspec.json.encode(spent))
        target.flush()
        os.fsync(target.fileno())
    os.replace(beside, path)
