"""One step of one arm's traffic as counts, drawn directly: some 15 random numbers whatever the rate.

Not as plain binomials: questions of one session come together and fail together (a topic that is not in the knowledge
base is asked about three times), so arrivals and bad events vary more than independent ones would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from numpy.random import Generator

from bench.traffic.behaviour import COST_SPREAD, Behaviour
from bench.traffic.upstream import NONE, Disturbance

ARRIVAL_SPREAD = 1.5
"""Variance of the number of questions in a step, as a multiple of its mean (1 would be Poisson)."""
TRIPLE_RATIO = 0.3
"""Share of the questions that come three to a session and are answered well or badly together. It makes the variance
of the number of bad answers 1.6 times the binomial one: sessions of three questions with a correlation of 0.3."""


@dataclass(slots=True)
class Counts:
    """What came out of one step of one arm. `over`: objective -> answers slower than its limit.

    sessions: of the bad answers, how many sessions they were in: `failed`, `hallucinated`, `zero_hits`.
    """

    questions: int = 0
    client_errors: int = 0
    cancelled: int = 0
    failed: int = 0
    cached: bool = False  # there is a cache to ask
    hits: int = 0
    fresh: int = 0  # whole answers that were generated
    judged: int = 0
    hallucinated: int = 0
    zero_hits: int = 0
    similarity_sum: float = 0.0
    similarity_squares: float = 0.0
    similarity_count: int = 0
    cost_sum_usd: float = 0.0
    cost_squares: float = 0.0
    thumbs: int = 0
    thumbs_down: int = 0
    over: dict[str, int] = field(default_factory=dict)
    sessions: dict[str, int] = field(default_factory=dict)


def arrivals(chance: Generator, expected: float) -> int:
    """Return a number of questions around `expected`."""
    if expected <= 0.0:
        return 0
    spread = ARRIVAL_SPREAD - 1.0
    return int(chance.poisson(chance.gamma(expected / spread, spread)))


def bad_of(chance: Generator, count: int, ratio: float) -> tuple[int, int]:
    """Return how many of `count` are bad at a true share `ratio`, varying as sessions make them vary, and in how many
    sessions they are."""
    if count <= 0 or ratio <= 0.0:
        return 0, 0
    triples = min(count // 3, int(count * TRIPLE_RATIO / 3.0 + chance.random()))
    singles = count - 3 * triples
    if ratio >= 1.0:
        return count, singles + triples
    bad = int(chance.binomial(singles, ratio))
    together = int(chance.binomial(triples, ratio)) if triples else 0
    return bad + 3 * together, bad + together


def draw(
    chance: Generator,
    expected: float,
    behaviour: Behaviour,
    limits: Mapping[str, float],
    disturbance: Disturbance = NONE,
    noise: float = 1.0,
) -> Counts:
    """Return the counts of one step with about `expected` questions.

    limits: seconds by latency objective. noise: factor on the shares of bad answers and on latency, about 1.
    """
    found = Counts(questions=arrivals(chance, expected), cached=behaviour.cache_hit_ratio > 0.0)
    if not found.questions:
        return found
    b = behaviour
    found.cancelled = int(chance.binomial(found.questions, b.cancelled_ratio))
    found.client_errors = int(chance.binomial(found.questions - found.cancelled, b.client_error_ratio))
    carried = found.questions - found.cancelled - found.client_errors
    found.hits = int(chance.binomial(carried, b.cache_hit_ratio)) if b.cache_hit_ratio else 0
    failed_ratio = min(1.0, b.failed_ratio * disturbance.failed_factor * noise)
    found.failed, found.sessions["failed"] = bad_of(chance, carried - found.hits, failed_ratio)
    found.fresh = carried - found.hits - found.failed
    _latencies(chance, found, behaviour, limits, disturbance.latency_factor * noise)
    _quality(chance, found, behaviour, disturbance.hallucination_factor * noise)
    found.cost_sum_usd = max(0.0, b.cost_usd * (found.fresh + COST_SPREAD * chance.normal() * found.fresh**0.5))
    found.cost_squares = found.fresh * b.cost_usd**2 * (1.0 + COST_SPREAD**2)
    found.thumbs = int(chance.binomial(found.fresh, b.thumb_ratio)) if b.thumb_ratio else 0
    found.thumbs_down = int(chance.binomial(found.thumbs, 1.0 - b.thumbs_up_ratio)) if found.thumbs else 0
    return found


def _latencies(chance: Generator, found: Counts, b: Behaviour, limits: Mapping[str, float], factor: float) -> None:
    """Slower than one limit is slower than every smaller one: thinned from limit to limit."""
    left, share = found.fresh + found.failed, 1.0
    for name, limit_s in sorted(limits.items(), key=lambda item: item[1]):
        over = b.over_ratio(limit_s, factor)
        left = int(chance.binomial(left, min(1.0, over / share))) if share > 0.0 else 0
        found.over[name], share = left, over


def _quality(chance: Generator, found: Counts, b: Behaviour, factor: float) -> None:
    judged = int(chance.binomial(found.fresh, b.coverage_ratio)) if b.coverage_ratio < 1.0 else found.fresh
    empty = int(chance.binomial(judged, b.empty_ratio)) if b.empty_ratio else 0
    # An empty answer claims nothing, so neither grounding nor similarity can judge it.
    found.judged = judged - empty
    ratio = min(1.0, b.hallucination_ratio * factor)
    found.hallucinated, found.sessions["hallucinated"] = bad_of(chance, found.judged, ratio)
    found.zero_hits, found.sessions["zero_hits"] = bad_of(chance, found.fresh, b.zero_hit_ratio)
    found.similarity_count = found.judged
    mean = b.similarity_mean + b.similarity_sd * chance.normal() / max(1, found.judged) ** 0.5
    found.similarity_sum = found.judged * mean
    found.similarity_squares = found.judged * (mean**2 + b.similarity_sd**2)
