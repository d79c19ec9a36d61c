"""Bucket bounds of the histograms. Every latency threshold of the SLO file is one, so that no rule interpolates."""

from __future__ import annotations

import math
from collections.abc import Iterable

LATENCY_BOUNDS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0)
RETRIEVAL_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
OVERHEAD_BOUNDS_S = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1)
REDIS_BOUNDS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
SCORE_BOUNDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def merge_bounds(*groups: Iterable[float]) -> tuple[float, ...]:
    """Return the sorted union of bucket bounds, seconds.

    Nine digits keep float noise such as 4.3 * 0.7 = 3.0099999999999998 out of the `le` labels that rules quote.

    >>> merge_bounds((0.5, 1.0), (4.3 * 0.7, 1.0))
    (0.5, 1.0, 3.01)

    Raises:
        ValueError: a bound is not a positive finite number.
    """
    bounds = {round(float(bound), 9) for group in groups for bound in group}
    for bound in bounds:
        if not math.isfinite(bound) or bound <= 0:
            raise ValueError(f"latency bound {bound!r}: histogram bounds are positive finite seconds")
    return tuple(sorted(bounds))
