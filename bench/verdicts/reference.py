"""The reference table of the two-arm test, by simulation of every request of every rollout.

Published results to reproduce: equal arms 0 aborts of 600; canary 2 % bad: all, median 285 canary requests; 20 %: all,
median 18; 0.5 %: about 58 % within 50,000 requests.
"""

from __future__ import annotations

from functools import lru_cache
from math import log

import numpy

from slo.sequential import log_e_two_arms

CONTROL, WEIGHT, FACTOR, ALPHA = 0.001, 0.1, 2.0, 0.01
REQUESTS = 50_000
EXPECTED = {0.001: "0 of 600", 0.02: "all, median 285", 0.2: "all, median 18", 0.005: "about 58 %"}


@lru_cache(maxsize=100_000)
def _log_e(canary_bad: int, stable_bad: int) -> float:
    return log_e_two_arms(canary_bad, stable_bad, WEIGHT, FACTOR)


def aborted_after(canary_rate: float, chance: numpy.random.Generator, requests: int = REQUESTS) -> int | None:
    """Return the canary requests until the abort, None when there was none; looked at after every bad answer."""
    canary = chance.random(requests) < WEIGHT
    bad = chance.random(requests) < numpy.where(canary, canary_rate, CONTROL)
    seen = numpy.cumsum(canary)
    counts = [0, 0]
    for place in numpy.flatnonzero(bad):
        counts[not canary[place]] += 1
        if _log_e(*counts) >= log(1 / ALPHA):
            return int(seen[place])
    return None


def report(*, quick: bool, seed: int) -> str:
    """One line for each rate of the canary."""
    rollouts = 200 if quick else 600
    lines = ["canary bad   aborted            median canary requests   published"]
    for rate in EXPECTED:
        chance = numpy.random.default_rng([seed, int(rate * 1e6)])
        found = [after for _ in range(rollouts) if (after := aborted_after(rate, chance)) is not None]
        median = f"{numpy.median(found):.0f}" if found else "-"
        share = f"{len(found)} of {rollouts} ({len(found) / rollouts:.1%})"
        lines.append(f"{rate:9.1%}    {share:18s} {median:>10s}               {EXPECTED[rate]}")
    return "\n".join(lines)
