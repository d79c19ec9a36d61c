"""What the server counts. Plain numbers: whoever shows them decides how."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

OUTCOMES = ("ok", "cancelled", "timeout", "error", "queue_full", "draining")


class Durations:
    """Counts of durations per bucket, by model."""

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self.bounds_s = tuple(bounds_s)
        self.counts: dict[str, list[int]] = {}
        self.totals_s: Counter[str] = Counter()

    def add(self, model: str, duration_s: float) -> None:
        """One more."""
        buckets = self.counts.setdefault(model, [0] * (len(self.bounds_s) + 1))
        buckets[bisect_left(self.bounds_s, duration_s)] += 1
        self.totals_s[model] += duration_s  # type: ignore[assignment]


class Meters:
    """Counters of one server; models are the names that are or were loaded, so their number is bounded by people."""

    def __init__(self, bounds_s: Sequence[float] = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()  # model, result
        self.tokens: Counter[tuple[str, str]] = Counter()  # model, input | output
        self.loads: Counter[str] = Counter()  # ok | refused | failed
        self.duration = Durations(bounds_s)
        self.first_token = Durations(bounds_s)
