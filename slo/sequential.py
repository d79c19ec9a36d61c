"""Tests that may be looked at after every event: e-values for harms that either happen or not. Pure.

An e-value is the money of somebody who bets against "the canary is not worse than allowed" with fair odds: if that is
true it is at most 1 on average at every moment, so it ever reaches 1/alpha with probability at most alpha, however
often anybody looks (Ville's inequality). Values are kept as logarithms: real canaries reach e^1000.

Sources:
    Ville (1939), Etude critique de la notion de collectif; Robbins (1970), Statistical methods related to the law of
    the iterated logarithm, Ann. Math. Statist. 41 (mixtures); Ramdas, Gruenwald, Vovk, Shafer (2023), Game-theoretic
    statistics and safe anytime-valid inference, Statist. Sci. 38.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import exp, inf, log, log1p

from slo.betas import log_upper_beta

_EXACT_LOG = 700.0  # exp of more is beyond floats


def log_e_above(bad: float, good: float, limit: float, *, a: float = 1.0, b: float = 1.0) -> float:
    """Return the log e-value against "each event is bad with probability at most `limit`".

    The likelihood ratio of p against `limit`, averaged over all p in (limit, 1) by a Beta(a, b) density cut off there:
    each ratio is at most 1 on average when the truth is at most `limit`, so their average is, too.

    Args:
        bad, good: events; fractions are allowed (an event of weight 0.4 counts as its ratio to the power 0.4, which
            by Jensen's inequality keeps the promise).
        limit: in [0, 1]. At 1 nothing is evidence. At 0 one bad event is proof.
        a, b: what harms are expected; 1, 1 is "any".
    Source:
        Robbins (1970); the closed form is the incomplete beta integral.

    Three bad of three against 1/2: ((1 - 1/2^4) / 4) / (1/2) / (1/2)^3 = 3.75.

    >>> round(exp(log_e_above(3, 0, 0.5)), 6)
    3.75
    """
    if limit >= 1.0 or bad + good <= 0.0:
        return 0.0
    if limit <= 0.0:
        return inf if bad > 0.0 else log_upper_beta(a, b + good, 0.0) - log_upper_beta(a, b, 0.0)
    whole = log1p(-limit) if a == b == 1.0 else log_upper_beta(a, b, limit)  # the flat density: 1 over its length
    averaged = log_upper_beta(a + bad, b + good, limit) - whole
    return averaged - bad * log(limit) - good * log1p(-limit)


def canary_share_limit(weight: float, factor: float) -> float:
    """Return the probability that a bad event is the canary's when the canary is exactly `factor` times as bad.

    weight: the canary's share of the traffic, [0, 1]; at 1 everything is the canary's and nothing can be compared.

    >>> round(canary_share_limit(0.1, 2.0), 4), canary_share_limit(1.0, 2.0)
    (0.1818, 1.0)
    """
    canary = factor * weight
    return canary / (canary + 1.0 - weight) if weight < 1.0 else 1.0


def log_e_two_arms(canary_bad: float, stable_bad: float, weight: float, factor: float) -> float:
    """Return the log e-value against "the canary is at most `factor` times as bad", over a time of constant weight.

    Only bad events count, and only whose they were: the rate they have in common drops out, so a wobble of an upstream
    that both share is no evidence. No bad event, no evidence.

    Source:
        Przyborowski and Wilenski (1940), Biometrika 31 (two Poisson rates compared given their sum), made sequential
        by the mixture of `log_e_above`.

    Four bad answers, all of a canary with a tenth of the traffic: ((1 - t^5) / 5) / (1 - t) / t^4 with t = 2/11.

    >>> round(exp(log_e_two_arms(4, 0, 0.1, 2.0)), 1)
    223.6
    """
    return log_e_above(canary_bad, stable_bad, canary_share_limit(weight, factor))


def p_value(log_e: float) -> float:
    """Return the p-value that is right at every moment: 1/e, at most 1.

    >>> p_value(log(50.0)), p_value(-3.0)
    (0.02, 1.0)
    """
    return min(1.0, exp(-max(-_EXACT_LOG, log_e)))


def e_value(log_e: float) -> float:
    """Return the e-value itself, cut off at e^700, beyond which floats end."""
    return exp(min(_EXACT_LOG, log_e))


BadCounts = tuple[float, float]
"""(bad events of the canary, bad events of stable)."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What was seen in one span of a rollout. by_weight: the canary's share of the traffic -> bad events at it.

    number: 0 for the first span, growing by one, also over spans that were merged away.
    """

    number: int
    by_weight: Mapping[float, BadCounts]


def starting_capital(number: int) -> float:
    """Return the share of the starting money that is bet from span `number` on; over all spans it adds up to 1.

    >>> starting_capital(0), starting_capital(1), starting_capital(2)
    (0.5, 0.25, 0.08333333333333333)
    """
    return 0.5 if number == 0 else 0.5 / (number * (number + 1))


def log_e_rollout(stretches: Iterable[Stretch], factor: float) -> float:
    """Return the log e-value of a whole rollout: weights may change, and harm may begin late.

    * Weights: bad events at different weights have different odds, so each weight has its own bet, and the bets are
      multiplied. Which weight holds is known before each event, so the product is a fair game.
    * Late harm: a canary that was well for a day has lost the money of a bet that began with it, and could fall ill
      unseen. So a part of the money waits and is bet from the beginning of each span (`starting_capital`). Money whose
      span was merged into an older one is given up, which only makes the test more careful.

    A stretch that was never told of holds its money unbet. An empty rollout has 1, log 0.

    Source:
        Shin, Ramdas, Rinaldo (2023), E-detectors, NEJSDS 2 (starting times); here as a mixture, so that the
        probability of ever a false alarm, not only their frequency, is bounded.
    """
    known = sorted(stretches, key=lambda stretch: stretch.number)
    if not known:
        return 0.0
    newest = known[-1].number
    unbet = 0.5 / (newest + 1)  # what the spans after the newest hold: the sum of 0.5 / (n (n + 1)) from there on
    logs = [log(unbet)]
    so_far: dict[float, BadCounts] = {}
    for stretch in reversed(known):
        for weight, (canary, stable) in stretch.by_weight.items():
            before = so_far.get(weight, (0.0, 0.0))
            so_far[weight] = (before[0] + canary, before[1] + stable)
        bets = sum(log_e_two_arms(canary, stable, weight, factor) for weight, (canary, stable) in so_far.items())
        logs.append(log(starting_capital(stretch.number)) + bets)
    return log_sum(logs)


def log_sum(logs: Iterable[float]) -> float:
    """Return the log of the sum of exponentials, without leaving the range of floats.

    >>> round(log_sum([log(2.0), log(3.0)]), 12) == round(log(5.0), 12)
    True
    """
    kept = list(logs)
    top = max(kept, default=-inf)
    if top in (inf, -inf):
        return top
    return top + log(sum(exp(each - top) for each in kept))


def wald_events(p0: float, p1: float, false_alarm: float, miss: float = 0.0) -> float:
    """Return how many events the best possible test needs on average when p1 is true: the yardstick for delays.

    p0, p1: shares of bad events, both in (0, 1) and different. false_alarm, miss: error probabilities; no test with
    these has a smaller mean under p1.

    Source:
        Wald (1945), Sequential tests of statistical hypotheses, Ann. Math. Statist. 16; optimality: Wald and
        Wolfowitz (1948).

    >>> round(wald_events(0.03, 0.08, 1e-4), 1)
    309.3
    """
    gain = p1 * log(p1 / p0) + (1.0 - p1) * log((1.0 - p1) / (1.0 - p0))
    wanted = (1.0 - miss) * log((1.0 - miss) / false_alarm)
    if miss > 0.0:
        wanted += miss * log(miss / (1.0 - false_alarm))
    return wanted / gain
