"""False rollbacks over months of healthy traffic, with canaries rolling out all the time.

    python -m bench.verdicts.days --full        9 x 30 days, one month per preset and rate; on two cores
    python -m bench.verdicts.days --quick       9 x 1 day, the same in small

Traffic: daily cycle, week, bursts, sessions, 1 % noise (0.5 % callers' errors, 0.4 % clients that leave, 0.1 % failed
calls; rates that drift by 1 %), and an upstream that is slower (up to 1.5 x), fails more (up to 3 x) and answers worse
(up to 1.3 x) for everybody, some spells a day. Rules: each preset as it is, and one relative to a baseline. As soon as
one healthy canary is through (or taken back), the next starts an hour later, by the default and the short plan in turn.
A canary that was shed is taken back by a person after an hour, one that is not through in three days as well.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy

from bench.traffic.arrivals import DAY_S, Load, random_bursts
from bench.traffic.baseline import known_from
from bench.traffic.behaviour import Course
from bench.traffic.record import Deed
from bench.traffic.rulesets import HEALTHY_BY_PRESET, preset_rules
from bench.traffic.service import Release, Service
from bench.traffic.upstream import both, outages, wobbling
from guard.release import state as rules
from guard.release.plan import DEFAULT, SHORT
from guard.release.state import Phase
from slo.types import Version

HOUR_S = 3600.0
RATES = (10.0, 50.0, 250.0)
"""Mean questions a second over the week; the canary's tenth of the quietest night hour is a hundredth of it or so."""
STEP_S = 30.0
STUCK_S = 3 * DAY_S


@dataclass(frozen=True, slots=True)
class Month:
    """What to simulate. tick_s: between two evaluations. outages_per_day: 0 is clean traffic."""

    preset: str
    rate: float
    seed: int
    days: float = 30.0
    tick_s: float = 60.0
    outages_per_day: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """What happened. false_rollbacks: all of them, since every release was healthy. cpu_s: of this process."""

    month: Month
    evaluations: int
    ticks: int
    started: int
    promoted: int
    shed: int
    stuck: int
    false_rollbacks: tuple[Deed, ...]
    alerts: int
    held_s: dict[str, float]
    cpu_s: float


def months(
    days: float = 30.0, *, tick_s: float = 60.0, outages_per_day: float = 0.0, first_seed: int = 1
) -> list[Month]:
    """Nine months: each preset at each rate, each with its own seed."""
    pairs = [(preset, rate) for preset in HEALTHY_BY_PRESET for rate in RATES]
    return [
        Month(preset, rate, first_seed + n, days, tick_s, outages_per_day) for n, (preset, rate) in enumerate(pairs)
    ]


def live(month: Month) -> Result:
    """Simulate one month."""
    began_s = time.process_time()
    chance = numpy.random.default_rng(1000 + month.seed)
    healthy = HEALTHY_BY_PRESET[month.preset]
    load = Load(month.rate, bursts=random_bursts(chance, month.days))
    upstream = wobbling(chance, month.days)
    if month.outages_per_day:
        upstream = both(upstream, outages(chance, month.days, per_day=month.outages_per_day))
    service = Service(
        preset_rules(month.preset, relative=True),
        load,
        Release(Version("v0", kb="0"), Course(healthy)),
        seed=month.seed,
        step_s=min(STEP_S, month.tick_s),
        tick_s=month.tick_s,
        known=known_from(healthy, load, seed=2000 + month.seed),
        upstream=upstream,
    )
    end_s, started, stuck = month.days * DAY_S, 0, 0
    while service.t_s + HOUR_S < end_s:
        service.run_until(service.t_s + HOUR_S)
        started += 1
        canary = Release(Version(f"v{started}", kb=str(started)), Course(healthy))
        service.start(canary, SHORT if started % 2 else DEFAULT)
        until_s = min(end_s, service.t_s + STUCK_S)
        service.run_until(until_s, stop=lambda now: now.state.phase is not Phase.ROLLING_OUT)
        if service.state.phase is Phase.ROLLING_OUT and service.t_s < end_s:
            stuck += 1
        if service.state.phase in (Phase.ROLLING_OUT, Phase.PAUSED) and service.t_s + HOUR_S < end_s:
            service.run_until(service.t_s + HOUR_S)
            service.state = rules.abort(service.state)
    record = service.record
    return Result(
        month=month,
        evaluations=record.evaluations,
        ticks=record.ticks,
        started=started,
        promoted=len(record.of("promoted")),
        shed=len(record.of("shed")),
        stuck=stuck,
        false_rollbacks=tuple(record.of("rollback")),
        alerts=len(record.of("alert")),
        held_s=dict(record.held_s),
        cpu_s=time.process_time() - began_s,
    )


def live_all(wanted: Sequence[Month], workers: int) -> Iterable[Result]:
    """Yield the results in order as they come."""
    if workers <= 1:
        yield from map(live, wanted)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(live, wanted)


def report(results: Sequence[Result], title: str) -> list[str]:
    """The table, the sums with their bounds, and what held healthy canaries up."""
    lines = [title, "", f"{'preset':12} {'rate/s':>6} {'seed':>4} {'days':>5} {'evaluations':>11} {'started':>7} "
             f"{'at 100 %':>8} {'shed':>4} {'stuck':>5} {'alerts':>6} {'rollbacks':>9} {'cpu s':>6}"]  # fmt: skip
    for r in results:
        m = r.month
        lines.append(
            f"{m.preset:12} {m.rate:6.0f} {m.seed:4d} {m.days:5.0f} {r.evaluations:11,d} {r.started:7d} "
            f"{r.promoted:8d} {r.shed:4d} {r.stuck:5d} {r.alerts:6d} {len(r.false_rollbacks):9d} {r.cpu_s:6.0f}"
        )
    days = sum(r.month.days for r in results)
    evaluations = sum(r.evaluations for r in results)
    rollbacks = sum(len(r.false_rollbacks) for r in results)
    started, promoted = (sum(getattr(r, name) for r in results) for name in ("started", "promoted"))
    lines += [
        "",
        f"{rollbacks} false rollbacks in {days:.0f} simulated days, {evaluations:,d} evaluations "
        f"({sum(r.ticks for r in results):,d} ticks); {promoted} of {started} healthy canaries reached 100 %",
    ]
    if rollbacks:
        lines.append(f"per day {rollbacks / days:.2g}, per evaluation {rollbacks / evaluations:.2g}")
        for r in results:
            for deed in r.false_rollbacks:
                at = f"{r.month.preset} seed {r.month.seed} day {deed.t_s / DAY_S:.2f}"
                lines.append(f"  {at}: {deed.code}: {deed.reason[:200]}")
    else:
        lines.append(f"at 95 % (rule of three) fewer than {3 / days:.2g} a day, {3 / evaluations:.1e} an evaluation")
    lines += ["", "why canaries were held, hours in all:"]
    held: Counter[str] = Counter()
    for r in results:
        held.update({cause: seconds / HOUR_S for cause, seconds in r.held_s.items()})
    lines += [f"  {hours:8.1f}  {cause}" for cause, hours in held.most_common(12)]
    return lines


def run(*, full: bool, workers: int = 2, seed: int = 1, tick_s: float = 60.0) -> list[str]:
    """Return the report; what has come so far goes to stderr."""
    results = []
    for result in live_all(months(30.0 if full else 1.0, tick_s=tick_s, first_seed=seed), workers):
        results.append(result)
        m = result.month
        told = f"{m.preset} {m.rate:g}/s seed {m.seed}: {len(result.false_rollbacks)} rollbacks, {result.cpu_s:.0f} s"
        print(
            told, *(f"  day {d.t_s / DAY_S:.2f} {d.reason}" for d in result.false_rollbacks), sep="\n", file=sys.stderr
        )
    lines = report(results, f"false rollbacks on healthy traffic, an evaluation every {tick_s:g} s")
    days = 30.0 if full else 1.0
    troubled = live_all(months(days, tick_s=tick_s, outages_per_day=0.5, first_seed=seed + 100)[1::3], workers)
    lines += [
        "",
        *report(list(troubled), "beside: the provider fails a third of the calls for minutes, every other day"),
    ]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.verdicts.days", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="9 x 30 days, about 30 minutes on two free cores")
    size.add_argument("--quick", action="store_true", help="9 x 1 day (default)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="first of the nine seeds (default 1)")
    parser.add_argument("--tick", type=float, default=60.0, help="seconds between two evaluations (default 60)")
    args = parser.parse_args()
    print("\n".join(run(full=args.full, workers=args.workers, seed=args.seed, tick_s=args.tick)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
