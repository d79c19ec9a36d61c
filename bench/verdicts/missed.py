"""Missed breaches, and how long a bad canary answers users.

    python -m bench.verdicts.missed --full      1,000 breaches and 30 histories of each kind of harm; on two cores
    python -m bench.verdicts.missed --quick     40 and 4

A breach: one rule of a preset (or one relative to a baseline), a healthy canary at 10, 20 or 50 %, and then its figure
at 1.5 to 4 times the rule's threshold for good. The rate gives the canary 1.5 to 40 times the events that the rule asks
for in its window. Missed: the guard has not done what the rule asks for within 12 hours.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from statistics import NormalDist

import numpy

from bench.traffic.arrivals import flat
from bench.traffic.baseline import known_from
from bench.traffic.behaviour import Behaviour, Course, change
from bench.traffic.rulesets import HEALTHY_BY_PRESET, preset_rules
from bench.traffic.service import Release, Service
from guard.release.plan import Plan, Stage
from slo.evaluation import BURN_PAIRS, allowed_share
from slo.metric_names import INDICATORS
from slo.statistics import quantile
from slo.thresholds import limit_for
from slo.types import OnBreach, Slo, Version

WITHIN_S = 12 * 3600.0
WARM_S, HEALTHY_S = 300.0, 900.0
STEP_S = 30.0
RULES = (
    "hallucination",
    "hallucination-relative",
    "similarity",
    "zero-hit",
    "p95",
    "p99",
    "availability",
    "llm-errors",
)
GOOD, BAD = Version("v1", kb="1"), Version("v2", kb="2")


@dataclass(frozen=True, slots=True)
class Breach:
    """One case, drawn from its seed. factor: times the threshold. needed_times: of the rule's min_events in its window.

    weight: share of the canary; rate: questions a second in all.
    """

    seed: int
    preset: str
    rule: str
    factor: float
    weight: float
    needed_times: float
    rate: float


@dataclass(frozen=True, slots=True)
class Found:
    """delay_s None: missed. answers: of the canary, from the beginning of the breach on. by: word of the reason."""

    breach: Breach
    delay_s: float | None
    answers: float
    by: str


def breach_of(seed: int) -> Breach:
    """Draw a case."""
    chance = numpy.random.default_rng(seed)
    preset = str(chance.choice(list(HEALTHY_BY_PRESET)))
    rule = RULES[seed % len(RULES)]
    weight = float(chance.choice([0.1, 0.2, 0.5]))
    times = float(numpy.exp(chance.uniform(numpy.log(1.5), numpy.log(40.0))))
    slo = _rule(preset, rule)
    window_s = BURN_PAIRS[0].long_s if slo.burn_rate else slo.window.length_s
    rate = times * slo.min_events / window_s / weight
    return Breach(seed, preset, rule, float(chance.uniform(1.5, 4.0)), weight, times, rate)


def find(breach: Breach) -> Found:
    """Play one case with its rule alone, so that no other rule can find it first."""
    slo = _rule(breach.preset, breach.rule)
    healthy = HEALTHY_BY_PRESET[breach.preset]
    known = known_from(healthy, flat(breach.rate), seed=breach.seed + 500_000)
    service = Service((slo,), flat(breach.rate), Release(GOOD, Course(healthy)), seed=breach.seed, step_s=STEP_S)
    service.known = known
    service.run_until(WARM_S)
    limit = limit_for(slo, replace(known, wall_s=service.clock.wall_s())).value
    assert limit is not None, breach
    begins_s = WARM_S + HEALTHY_S
    worse = Course(healthy, (change(begins_s, **_worse(slo, limit, healthy, breach.factor)),))
    service.start(Release(BAD, worse), Plan((Stage(breach.weight, 1e9),)))
    kinds = ("shed", "rollback") if slo.action is OnBreach.SHED else ("rollback",)
    service.run_until(begins_s + WITHIN_S, stop=lambda now: now.record.first(*kinds) is not None)
    deed = service.record.first(*kinds)
    if deed is None:
        return Found(breach, None, 0.0, "missed")
    delay_s = deed.t_s - begins_s
    if delay_s < 0.0:
        return Found(breach, delay_s, 0.0, "false")
    return Found(breach, delay_s, delay_s * breach.rate * breach.weight, deed.code)


def _rule(preset: str, name: str) -> Slo:
    return next(slo for slo in preset_rules(preset, relative=True) if slo.name == name)


def _worse(slo: Slo, limit: float, healthy: Behaviour, factor: float) -> dict[str, float]:
    """The behaviour whose figure is `factor` times the threshold, on its bad side; shares at most 95 %."""
    kind = INDICATORS[slo.indicator].kind
    if slo.name == "similarity":
        return {"similarity_mean": healthy.similarity_mean * (1.0 - (1.0 - limit / healthy.similarity_mean) * factor)}
    if kind == "latency":
        # A quantile at `factor` times its limit; the other one moves with it.
        z = NormalDist().inv_cdf(INDICATORS[slo.indicator].quantile or 0.5)
        p50_s = limit * factor / numpy.exp(z * healthy.latency_sigma)
        return {"p50_s": float(p50_s), "p95_s": float(p50_s * healthy.p95_s / healthy.p50_s)}
    share = allowed_share(INDICATORS[slo.indicator], limit)
    if slo.burn_rate:  # what rolls back is the slower of the pages: 6 times the budget
        share *= BURN_PAIRS[1].factor
    field = {"hallucination": "hallucination_ratio", "hallucination-relative": "hallucination_ratio",
             "zero-hit": "zero_hit_ratio"}.get(slo.name, "failed_ratio")  # fmt: skip
    return {field: min(0.95, share * factor)}


# -- how long users are exposed ---------------------------------------------------------------------------------------

HARMS: dict[str, dict[str, float]] = {
    "canary fails wholly": {"failed_ratio": 1.0},
    "canary fails by half": {"failed_ratio": 0.5},
    "latency x 2": {"p50_s": 0.40, "p95_s": 0.70},
    "hallucination x 2 (3 % -> 6 %)": {"hallucination_ratio": 0.06},
    "hallucination 3 % -> 8 %": {"hallucination_ratio": 0.08},
}
CANARY_RATES = (5.0, 20.0)


def exposure(harm: str, rate: float, seed: int) -> tuple[float | None, float]:
    """Return (seconds from the fault to weight 0, answers of the canary meanwhile); None after an hour.

    Preset support-faq with the relative rule, canary at 10 % with `rate` questions a second, healthy for 10 minutes.
    Traffic by the second once the fault is there, evaluations every 5 s, the fault at any second between two of them.
    """
    healthy = HEALTHY_BY_PRESET["support-faq"]
    load = flat(rate * 10.0)
    service = Service(
        preset_rules("support-faq", relative=True), load, Release(GOOD, Course(healthy)), seed=seed, step_s=5.0,
        tick_s=5.0, known=known_from(healthy, load, seed=seed + 500_000),
    )  # fmt: skip
    service.run_until(300.0)
    calm_s = 300.0 + 600.0
    begins_s = calm_s + seed % 5
    service.start(Release(BAD, Course(healthy, (change(begins_s, **HARMS[harm]),))), Plan((Stage(0.1, 1e9),)))
    service.run_until(calm_s, stop=lambda now: not now.state.in_traffic)
    service.step_s = 1.0
    service.run_until(begins_s + 300.0, stop=lambda now: not now.state.in_traffic)
    service.step_s = 5.0
    service.run_until(begins_s + 3600.0, stop=lambda now: not now.state.in_traffic)
    if service.state.in_traffic:
        return None, 3600.0 * rate
    return service.t_s - begins_s, (service.t_s - begins_s) * rate


def expose(case: tuple[str, float, int]) -> tuple[float | None, float]:
    """`exposure` of one argument, for a pool."""
    return exposure(*case)


# -- reports ----------------------------------------------------------------------------------------------------------


def report(found: Sequence[Found]) -> list[str]:
    """Missed of all, and delays by rule."""
    missed = [f for f in found if f.delay_s is None]
    false = [f for f in found if f.by == "false"]
    seeds = f"{min(f.breach.seed for f in found)}..{max(f.breach.seed for f in found)}"
    lines = [
        f"sustained breaches of 1.5 to 4 x threshold: {len(missed)} missed of {len(found)} (seeds {seeds}), "
        f"{len(false)} canaries taken back before their breach",
        "",
        f"{'rule':24} {'cases':>5} {'missed':>6} {'delay p50':>10} {'p95':>10} {'max':>10} {'answers p50':>11}",
    ]
    by_rule: dict[str, list[Found]] = defaultdict(list)
    for f in found:
        by_rule[f.breach.rule].append(f)
    for rule, mine in (*sorted(by_rule.items()), ("all", list(found))):
        delays = sorted(f.delay_s for f in mine if f.delay_s is not None and f.delay_s >= 0)
        answers = sorted(f.answers for f in mine if f.delay_s is not None and f.delay_s >= 0)
        shown = [_minutes(quantile(delays, q)) if delays else "-" for q in (0.5, 0.95, 1.0)]
        middle = f"{quantile(answers, 0.5):,.0f}" if answers else "-"
        gone = sum(f.delay_s is None for f in mine)
        lines.append(f"{rule:24} {len(mine):5d} {gone:6d} {shown[0]:>10} {shown[1]:>10} {shown[2]:>10} {middle:>11}")
    for f in missed[:20]:
        lines.append(f"  missed: {f.breach}")
    return lines


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def report_exposure(map_: Callable[..., object], seeds: Sequence[int]) -> list[str]:
    """Time until the canary takes no traffic."""
    lines = [
        f"from the fault to weight 0, canary at 10 %, support-faq, seeds {seeds[0]}..{seeds[-1]}", "",
        f"{'harm':32} {'canary/s':>8} {'runs':>4} {'p50':>9} {'p95':>9} {'answers p50':>11} {'p95':>8} {'over 1 h':>8}",
    ]  # fmt: skip
    for harm in HARMS:
        few = seeds[: max(4, len(seeds) // 3)] if "hallucination" in harm else seeds  # they take most of an hour each
        for rate in CANARY_RATES:
            cases = [(harm, rate, seed) for seed in few]
            times = list(map_(expose, cases))  # type: ignore[call-overload]
            seen = sorted(t for t, _ in times if t is not None)
            answers = sorted(n for t, n in times if t is not None)
            p50, p95 = (_minutes(quantile(seen, q)) if seen else "-" for q in (0.5, 0.95))
            n50, n95 = (f"{quantile(answers, q):,.0f}" if answers else "-" for q in (0.5, 0.95))
            late = len(times) - len(seen)
            lines.append(f"{harm:32} {rate:8.0f} {len(times):4d} {p50:>9} {p95:>9} {n50:>11} {n95:>8} {late:8d}")
    return lines


def run(*, full: bool, workers: int = 2, seed: int = 1) -> list[str]:
    """Return both reports."""
    breaches, histories = (1000, 30) if full else (40, 4)
    with ProcessPoolExecutor(workers) as pool:
        cases = [breach_of(seed + n) for n in range(breaches)]
        found = []
        for number, one in enumerate(pool.map(find, cases, chunksize=4), 1):
            found.append(one)
            if number % 100 == 0:
                missed = sum(f.delay_s is None for f in found)
                print(f"{number} breaches, {missed} missed", file=sys.stderr, flush=True)
        lines = report(found)
        mapped = partial(pool.map, chunksize=4)
        lines += ["", *report_exposure(mapped, range(seed, seed + histories))]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.verdicts.missed", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="1,000 breaches and 30 histories a harm")
    size.add_argument("--quick", action="store_true", help="40 and 4 (default)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="first seed (default 1)")
    args = parser.parse_args()
    print("\n".join(run(full=args.full, workers=args.workers, seed=args.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
