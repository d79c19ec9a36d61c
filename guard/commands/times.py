"""Times as a person types them."""

from __future__ import annotations

from datetime import UTC, datetime

from slo.collecting import TimeRange
from slo.errors import ConfigError


def time_range(place: str, text: str) -> TimeRange:
    """Return `FROM/TO` as Unix seconds; each is Unix seconds or an ISO time, in UTC unless it says otherwise.

    Raises:
        ConfigError: anything else, or an end that is not after its begin; `place` names where it was written.

    >>> time_range("--mark", "2025-06-15T15:06:40/1750000100")
    (1750000000.0, 1750000100.0)
    """
    parts = text.split("/")
    try:
        begin_s, end_s = (_seconds(part.strip()) for part in parts)
    except ValueError as error:
        raise ConfigError(place, text, "write FROM/TO, for example 2026-05-01T23:45/2026-05-02T02:10") from error
    if not begin_s < end_s:
        raise ConfigError(place, text, "write the earlier time first")
    return begin_s, end_s


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
