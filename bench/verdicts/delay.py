"""How long 3 % -> 8 % bad answers stay unseen, against the best that any test can do.

Wald's bound is the mean number of answers that the sequential probability ratio test needs, which nothing beats at the
same error probabilities: 309 answers at a false alarm of 1e-4. The settings, from knowing most to knowing least:

  known rates     the test that Wald's bound is about: 3 % against 8 %, both known
  CUSUM x 2       after a promotion: 3 % known from the baseline, 6 % listened for, whenever it may begin: threshold for
                  a false alarm of 1e-4 in 10^5 healthy answers, found by simulation; beside it the one of theory
  mixture         3 % known, any harm above it: an e-value that is above 10^4 ever with probability 1e-4
  two arms        nothing known: a canary with half or a tenth of the answers beside stable, at the factor written; its
                  canary answers are counted. Its own best: Wald's bound for the odds of whose a bad answer is
  rule            what stands in slo.yaml: over 5 % by estimate and Wilson bound on 400 answers of the last hour; its
                  false alarms are not bounded by 1e-4

Answers come one by one and are looked at every 5 s, so at high rates the tick is the floor of any delay.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import log

import numpy

from slo.detection import gain, worse_share
from slo.evaluation import is_harmful
from slo.sequential import canary_share_limit, log_e_above, log_e_two_arms, wald_events
from slo.types import Reading, Slo, Threshold, Window

USUAL, HARM, FALSE_ALARM = 0.03, 0.08, 1e-4
TICK_S = 5.0
RATES = (0.2, 1.0, 5.0, 20.0, 100.0)
WATCHED = 100_000
RULE = Slo("hallucination", "sft_quality_hallucination_rate", Window(3600.0), Threshold("absolute", {"absolute": 0.05}))

Batches = tuple[numpy.ndarray, numpy.ndarray]
"""(bad, count) of each tick."""


def batches(rate: float, share: float, chance: numpy.random.Generator, answers: int) -> Batches:
    """About so many answers, tick by tick."""
    count = chance.poisson(rate * TICK_S, max(4, int(answers / (rate * TICK_S))))
    return chance.binomial(count, share), count


def known_rates(bad: numpy.ndarray, count: numpy.ndarray) -> int | None:
    """Answers until the likelihood ratio of 8 % against 3 % reaches 10^4."""
    return _first(numpy.cumsum(_gains(bad, count, USUAL, HARM)), log(1 / FALSE_ALARM), count)


def cusum(threshold: float) -> Callable[[numpy.ndarray, numpy.ndarray], int | None]:
    """Answers until the CUSUM for twice the usual reaches `threshold`."""

    def find(bad: numpy.ndarray, count: numpy.ndarray) -> int | None:
        return _first(_cusum_path(bad, count), threshold, count)

    return find


def _cusum_path(bad: numpy.ndarray, count: numpy.ndarray) -> numpy.ndarray:
    walk = numpy.concatenate([[0.0], numpy.cumsum(_gains(bad, count, USUAL, worse_share(USUAL, 2.0)))])
    return walk[1:] - numpy.minimum.accumulate(walk)[:-1]


def mixture(bad: numpy.ndarray, count: numpy.ndarray) -> int | None:
    """Answers until the e-value against "at most 3 %" reaches 10^4."""
    bads, counts = numpy.cumsum(bad), numpy.cumsum(count)
    for place in numpy.flatnonzero(bad):
        if log_e_above(float(bads[place]), float(counts[place] - bads[place]), USUAL) >= log(1 / FALSE_ALARM):
            return int(counts[place])
    return None


def rule(bad: numpy.ndarray, count: numpy.ndarray) -> int | None:
    """Answers until the rule is breached, its window empty at the beginning."""
    bads, counts = numpy.cumsum(bad), numpy.cumsum(count)
    back = int(RULE.window.length_s / TICK_S)
    for place in range(len(bads)):
        start = place - back
        gone = (bads[start], counts[start]) if start >= 0 else (0, 0)
        reading = Reading(int(bads[place] - gone[0]), int(counts[place] - gone[1]))
        if is_harmful(RULE, reading, 0.05, RULE.min_events):
            return int(counts[place])
    return None


@lru_cache(maxsize=200_000)
def _two_arms(canary_bad: int, stable_bad: int, weight: float, factor: float) -> float:
    return log_e_two_arms(canary_bad, stable_bad, weight, factor)


def two_arms(weight: float, factor: float, chance: numpy.random.Generator, most: int = 2_000_000) -> int | None:
    """Canary answers until the test fails it: 8 % against 3 % of stable beside it."""
    answers = chance.geometric(_rate_of_bad(weight), 40_000)  # answers from one bad one to the next
    canary = chance.random(len(answers)) < _share_of_bad(weight)
    counts, seen = [0, 0], 0
    for gap, mine in zip(answers, canary, strict=True):
        seen += int(gap)
        counts[not mine] += 1
        if _two_arms(counts[0], counts[1], weight, factor) >= log(1 / FALSE_ALARM):
            return round(seen * weight)
        if seen > most:
            break
    return None


def best_two_arms(weight: float, factor: float) -> float:
    """Wald's bound for the same: canary answers to tell the odds of 8 % beside 3 % from those of `factor`."""
    bad = wald_events(canary_share_limit(weight, factor), _share_of_bad(weight), FALSE_ALARM)
    return bad / _rate_of_bad(weight) * weight


def _rate_of_bad(weight: float) -> float:
    return weight * HARM + (1 - weight) * USUAL


def _share_of_bad(weight: float) -> float:
    return weight * HARM / _rate_of_bad(weight)


def calibrated(chance: numpy.random.Generator, paths: int) -> float:
    """The CUSUM's threshold for a false alarm of 1e-4 in `WATCHED` healthy answers: an exponential tail, fitted.

    Single answers: looking more rarely alarms less.
    """
    highest = []
    for _ in range(paths):
        bad = (chance.random(WATCHED) < USUAL).astype(float)
        highest.append(float(_cusum_path(bad, numpy.ones(WATCHED)).max()))
    middle = float(numpy.median(highest))
    above = [value - middle for value in highest if value > middle]
    return middle + max(1.0, float(numpy.mean(above))) * log(0.5 / FALSE_ALARM)


def report(*, quick: bool, seed: int) -> str:
    """A table by rate for one arm, and one by weight and factor for two."""
    runs, paths = (200, 200) if quick else (2000, 2000)
    bound = wald_events(USUAL, HARM, FALSE_ALARM)
    threshold = calibrated(numpy.random.default_rng([seed, 1]), paths)
    once = cusum(log(WATCHED / FALSE_ALARM))
    lines = [
        f"Wald's bound: {bound:.0f} answers at a false alarm of {FALSE_ALARM:g}; CUSUM threshold {threshold:.2f} "
        f"(theory alone: {log(WATCHED / FALSE_ALARM):.2f}); {runs} runs",
        "answers/s   known rates  CUSUM x 2   CUSUM, theory  mixture     rule        (mean answers / bound)",
    ]
    settings = (known_rates, cusum(threshold), once, mixture, rule)
    for rate in RATES:
        chance = numpy.random.default_rng([seed, int(rate * 10)])
        delays: list[list[int]] = [[] for _ in settings]
        missed = [0] * len(settings)
        for _ in range(runs if rate < 50 else max(100, runs // 4)):
            traffic = batches(rate, HARM, chance, 6000)
            for number, find in enumerate(settings):
                after = find(*traffic)
                if after is None:
                    missed[number] += 1
                else:
                    delays[number].append(after)
        cells = [
            f"{numpy.mean(each) / bound:5.2f}{f' (-{lost})' if lost else '':6s}"
            for each, lost in zip(delays, missed, strict=True)
        ]
        lines.append(f"{rate:9g}   {'  '.join(cells)}")
    lines += [
        "",
        "two arms: canary share, factor   mean canary answers   / 309   / Wald's bound for the same two arms   missed",
    ]
    for weight in (0.1, 0.5):
        for factor in (1.0, 1.5, 2.0):
            chance = numpy.random.default_rng([seed, int(weight * 10), int(factor * 10)])
            found = [two_arms(weight, factor, chance) for _ in range(max(50, runs // 10))]
            seen = [after for after in found if after is not None]
            mean = float(numpy.mean(seen)) if seen else float("nan")
            best = best_two_arms(weight, factor)
            lines.append(
                f"{weight:12.0%}, x {factor:<15g} {mean:15.0f}     {mean / bound:9.2f}   {mean / best:20.2f}"
                f"                    {len(found) - len(seen)} of {len(found)}"
            )
    return "\n".join(lines)


def _gains(bad: numpy.ndarray, count: numpy.ndarray, usual: float, worse: float) -> numpy.ndarray:
    one_bad, one_good = gain(1.0, 0.0, usual, worse), gain(0.0, 1.0, usual, worse)
    return bad * one_bad + (count - bad) * one_good


def _first(path: numpy.ndarray, threshold: float, count: numpy.ndarray) -> int | None:
    over = numpy.flatnonzero(path >= threshold)
    return int(numpy.cumsum(count)[over[0]]) if len(over) else None
