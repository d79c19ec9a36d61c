"""How often a healthy day raises an alarm: the rule that everybody writes first, and ours, on the same answers.

Naive: the share of bad answers was over 0.5 % in a window of 10 minutes. Published: at a true rate of 0.1 % and 200
requests per window, false on 92 % of days. Ours: the same limit by estimate and by Wilson bound on at least 400 events
of the last hour, found at every evaluation for 10 minutes; and, with a canary that answers a tenth, the two-arm test.
Traffic is steady: exactly so many requests in each window, as in the published figure.
"""

from __future__ import annotations

from math import log

import numpy

from bench.verdicts.reference import ALPHA, FACTOR, WEIGHT
from slo.evaluation import is_harmful
from slo.sequential import log_e_two_arms
from slo.types import Reading, Slo, Threshold, Window

TRUE_RATE, LIMIT = 0.001, 0.005
MINUTES, WINDOW_MIN, HOUR_MIN, FOR_MIN = 1440, 10, 60, 10
RULE = Slo("errors", "sft_availability_llm_error_rate", Window(3600.0), Threshold("absolute", {"absolute": LIMIT}))


def naive_is_false(bad: numpy.ndarray, count: numpy.ndarray) -> bool:
    """Whether any of the day's 144 windows of ten minutes, one after the other, is over the limit."""
    windows = bad.reshape(-1, WINDOW_MIN).sum(1), count.reshape(-1, WINDOW_MIN).sum(1)
    return bool(numpy.any(windows[0] > LIMIT * windows[1]))


def ours_is_false(bad: numpy.ndarray, count: numpy.ndarray) -> bool:
    """Whether the rule fires, evaluated each minute over the last hour."""
    bads, counts = (numpy.concatenate([[0], numpy.cumsum(each)]) for each in (bad, count))
    held = 0
    for minute in range(1, MINUTES + 1):
        start = max(0, minute - HOUR_MIN)
        reading = Reading(int(bads[minute] - bads[start]), int(counts[minute] - counts[start]))
        held = held + 1 if is_harmful(RULE, reading, LIMIT, RULE.min_events) else 0
        if held > FOR_MIN:
            return True
    return False


def sequential_is_false(bad: numpy.ndarray, chance: numpy.random.Generator) -> bool:
    """Whether the canary, as healthy as stable, is aborted; after each bad answer."""
    counts = [0, 0]
    for _ in range(int(bad.sum())):
        counts[int(chance.random() >= WEIGHT)] += 1
        if log_e_two_arms(counts[0], counts[1], WEIGHT, FACTOR) >= log(1 / ALPHA):
            return True
    return False


def report(*, quick: bool, seed: int) -> str:
    """One line for each rate of requests."""
    days = 100 if quick else 1000
    lines = [
        f"false days of {days}, true rate {TRUE_RATE:.1%}, limit {LIMIT:.1%}",
        "requests per 10 min   naive rule      ours (Wilson, 400 events, for 10 min)   two-arm test, canary at 10 %",
    ]
    for rate in (200, 500, 1000, 2000, 5000):
        chance = numpy.random.default_rng([seed, rate])
        false = [0, 0, 0]
        for _ in range(days):
            count = numpy.full(MINUTES, rate // WINDOW_MIN)
            bad = chance.binomial(count, TRUE_RATE)
            false[0] += naive_is_false(bad, count)
            false[1] += ours_is_false(bad, count)
            false[2] += sequential_is_false(bad, chance)
        shares = [f"{n} ({n / days:.1%})" for n in false]
        lines.append(f"{rate:19d}   {shares[0]:15s} {shares[1]:39s} {shares[2]}")
    return "\n".join(lines)
