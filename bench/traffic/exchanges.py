"""The same traffic as single exchanges: sessions that ask several questions, tenants, streams and JSON, findings.

For what needs more than counts: repeats of one session, a tenant that floods, the release controller end to end, logs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from math import exp, log

from numpy.random import Generator

from bench.traffic.arrivals import Load
from bench.traffic.behaviour import COST_SIGMA, Behaviour
from bench.traffic.upstream import CALM, NONE, Disturbance, Upstream
from slo.types import CacheStatus, CheckResult, Exchange, Finding, Outcome

THINK_S = 40.0
"""Mean time between two questions of a session."""
CORRELATION = 0.3
"""Of bad answers within a session, about: this share of its questions fares as the session fares."""
ROUTE = "chat"


@dataclass(frozen=True, slots=True)
class Tenants:
    """names and their shares of the sessions."""

    names: tuple[str, ...] = ("sales", "support", "hr", "it", "field", "partners")
    shares: tuple[float, ...] = (0.30, 0.25, 0.15, 0.15, 0.10, 0.05)


@dataclass(frozen=True, slots=True)
class Question:
    """One question before it is answered. luck: the session's, in [0, 1); small is bad."""

    t_s: float
    session: str
    tenant: str
    stream: bool
    luck: float


def questions(
    chance: Generator,
    load: Load,
    from_s: float,
    until_s: float,
    tenants: Tenants = Tenants(),
    stream_ratio: float = 0.7,
) -> Iterator[Question]:
    """Yield the questions of a time in order. Sessions begin by the load, so its beginning is a little quiet."""
    numbers = count()
    waiting: list[tuple[float, int, Question]] = []
    t_s, most = from_s, _most(load, from_s, until_s)
    while t_s < until_s:
        # Thinning: sessions at the highest rate, kept with the share of it that the moment has.
        t_s += chance.exponential(load.session_questions / most)
        while waiting and waiting[0][0] <= min(t_s, until_s):
            yield heappop(waiting)[2]
        if t_s >= until_s or chance.random() > load.rate(t_s) / most:
            continue
        tenant = str(chance.choice(tenants.names, p=tenants.shares))
        session = f"{int(chance.integers(1 << 48)):012x}"
        stream, luck = bool(chance.random() < stream_ratio), float(chance.random())
        at_s = t_s
        for _ in range(int(chance.geometric(1.0 / load.session_questions))):
            heappush(waiting, (at_s, next(numbers), Question(at_s, session, tenant, stream, luck)))
            at_s += chance.exponential(THINK_S)


def _most(load: Load, from_s: float, until_s: float) -> float:
    """The highest rate of the time, looked for every minute and at the bursts."""
    steps = range(int((until_s - from_s) // 60.0) + 1)
    at = [from_s + 60.0 * step for step in steps] + [b.at_s for b in load.bursts if from_s <= b.at_s < until_s]
    return max(load.rate(t_s) for t_s in at) * 1.01


def answer(
    chance: Generator,
    question: Question,
    behaviour: Behaviour,
    *,
    release: str,
    arm: str,
    number: int,
    wall_s: float,
    disturbance: Disturbance = NONE,
) -> Exchange:
    """Return the exchange of one question, its findings filled in where there are any."""
    b = behaviour
    hit = chance.random() < b.cache_hit_ratio
    outcome, status = _outcome(chance, b, disturbance, question.luck, hit=hit)
    duration_s = 0.005 if hit else float(chance.lognormal(log(b.p50_s * disturbance.latency_factor), b.latency_sigma))
    whole = outcome is Outcome.OK
    fresh = whole and not hit
    cache = CacheStatus.HIT if hit else CacheStatus.MISS if b.cache_hit_ratio else CacheStatus.BYPASS
    cost_usd = float(b.cost_usd * chance.lognormal(-(COST_SIGMA**2) / 2.0, COST_SIGMA)) if fresh else None
    return Exchange(
        exchange_id=f"x{number:08d}",
        wall_s=wall_s,
        route=ROUTE,
        release=release,
        arm=arm,
        outcome=outcome,
        status=status,
        duration_s=duration_s,
        first_byte_s=duration_s * 0.4 if whole else None,
        first_token_s=duration_s * 0.45 if whole and question.stream else None,
        stream=question.stream,
        tenant=question.tenant,
        session=question.session,
        cache=cache,
        output_tokens=250 if fresh else None,
        usage="reported" if fresh else "none",
        cost_usd=cost_usd,
        findings=_findings(chance, b, disturbance, question.luck) if fresh else (),
    )


def exchanges(
    chance: Generator,
    load: Load,
    behaviour: Behaviour,
    *,
    from_s: float,
    until_s: float,
    release: str,
    wall_origin_s: float,
    arm: str = "stable",
    upstream: Upstream = CALM,
    tenants: Tenants = Tenants(),
) -> Iterator[Exchange]:
    """Yield the exchanges of one release that takes all the traffic of a time, in order."""
    for number, asked in enumerate(questions(chance, load, from_s, until_s, tenants)):
        yield answer(
            chance, asked, behaviour, release=release, arm=arm, number=number,
            wall_s=wall_origin_s + asked.t_s, disturbance=upstream.at(asked.t_s),
        )  # fmt: skip


def _bad(chance: Generator, ratio: float, luck: float) -> bool:
    """Whether what befalls this share of all answers befalls this one: with the session's luck, or by itself."""
    if chance.random() < CORRELATION**0.5:
        return luck < ratio
    return bool(chance.random() < ratio)


def _outcome(
    chance: Generator, b: Behaviour, disturbance: Disturbance, luck: float, *, hit: bool
) -> tuple[Outcome, int]:
    if chance.random() < b.cancelled_ratio:
        return Outcome.CANCELLED, 0
    if chance.random() < b.client_error_ratio:
        return Outcome.CLIENT_ERROR, 400
    if not hit and _bad(chance, min(1.0, b.failed_ratio * disturbance.failed_factor), luck):
        return Outcome.SERVER_ERROR, 502
    return Outcome.OK, 200


def _findings(chance: Generator, b: Behaviour, disturbance: Disturbance, luck: float) -> tuple[Finding, ...]:
    zero_hit = CheckResult.FAIL if _bad(chance, b.zero_hit_ratio, luck) else CheckResult.PASS
    found = [Finding("zero_hit", zero_hit, 1.0 if zero_hit is CheckResult.FAIL else 0.0)]
    if chance.random() < b.empty_ratio:
        skipped = (Finding(check, CheckResult.SKIPPED, None, "empty answer") for check in ("grounding", "similarity"))
        return (*found, *skipped)
    if chance.random() >= b.coverage_ratio:
        missed = (Finding(check, CheckResult.UNAVAILABLE) for check in ("grounding", "similarity"))
        return (*found, *missed)
    ratio = min(1.0, b.hallucination_ratio * disturbance.hallucination_factor)
    grounding = CheckResult.FAIL if _bad(chance, ratio, luck) else CheckResult.PASS
    score = min(1.0, max(0.0, float(chance.normal(b.similarity_mean, b.similarity_sd))))
    support = exp(-2.0) if grounding is CheckResult.FAIL else 0.8
    found += [Finding("grounding", grounding, support), Finding("similarity", CheckResult.PASS, score)]
    return tuple(found)
