"""Command line of the simulation; see the package."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256

from tests.sim.fleet import play
from tests.sim.schedule import Schedule, exhaustive_schedules, random_schedule


def run_many(schedules: Iterable[Schedule]) -> dict[str, object]:
    """Play all; sums and every violation with its seed or name."""
    runs = crashes = restarts = rollbacks = superseded = excused = 0
    wrong: list[dict[str, object]] = []
    sizes: Counter[int] = Counter()
    for schedule in schedules:
        tally = play(schedule)
        runs += 1
        crashes += tally.crashes
        restarts += tally.restarts
        rollbacks += tally.rollbacks
        superseded += tally.superseded
        excused += tally.excused > 0
        sizes[len(schedule.replicas)] += 1
        if tally.violations:
            wrong.append({"schedule": schedule.name or schedule.seed, "violations": list(tally.violations)[:5]})
    return {
        "runs": runs, "crashes": crashes, "restarts": restarts, "rollbacks": rollbacks, "superseded": superseded,
        "disk_and_crash": excused, "replicas": dict(sorted(sizes.items())), "violations": wrong,
    }  # fmt: skip


def _part(bounds: tuple[int, int]) -> dict[str, object]:
    gc.freeze()
    return run_many(random_schedule(seed) for seed in range(*bounds))


def run_seeds(first: int, count: int, jobs: int) -> dict[str, object]:
    """Random schedules of the seeds first .. first + count - 1, in slices over processes."""
    if jobs == 1:
        return _part((first, first + count))
    total: dict[str, object] = {}
    slices = [(at, min(at + 1000, first + count)) for at in range(first, first + count, 1000)]
    with ProcessPoolExecutor(jobs) as pool:
        for number, part in enumerate(pool.map(_part, slices), 1):
            total = _added(total, part)
            print(f"  {number} of {len(slices)} slices, {total['runs']} runs", file=sys.stderr, flush=True)
    return total


def _added(total: dict[str, object], part: dict[str, object]) -> dict[str, object]:
    if not total:
        return part
    summed: dict[str, object] = {}
    for name, value in part.items():
        had = total[name]
        if isinstance(value, dict) and isinstance(had, dict):
            summed[name] = {k: had.get(k, 0) + value.get(k, 0) for k in sorted({*had, *value})}
        else:
            summed[name] = had + value  # type: ignore[operator]
    return summed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Rollbacks in a simulated fleet.")
    parser.add_argument("--seeds", type=int, default=0, help="so many random schedules")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--crashes", type=int, choices=(1, 2), help="every schedule with so many crashes")
    parser.add_argument("--mutants", action="store_true", help="break the saga by hand and see it caught")
    parser.add_argument("--replay", type=int, metavar="N", help="play N seeds twice and compare their traces")
    parser.add_argument("--show", type=int, help="print the trace of one seed")
    args = parser.parse_args()
    if args.show is not None:
        schedule = random_schedule(args.show)
        tally = play(schedule)
        print(schedule)
        print("\n".join(tally.trace))
        print("\n".join(tally.violations) or "no violation", tally.trace_hash)
        return 1 if tally.violations else 0
    if args.mutants:
        from tests.sim.mutants import table

        text, survived = table()
        print(text)
        return 1 if survived else 0
    if args.replay:
        seeds = range(args.first, args.first + args.replay)
        pairs = [(play(random_schedule(s)).trace_hash, play(random_schedule(s)).trace_hash) for s in seeds]
        alike = sum(first == second for first, second in pairs)
        whole = sha256("".join(first for first, _ in pairs).encode()).hexdigest()
        print(json.dumps({"replayed": len(pairs), "alike": alike, "hash_of_hashes": whole}))
        return 0 if alike == len(pairs) else 1
    started_s = time.monotonic()
    if args.crashes:
        result = run_many(exhaustive_schedules(args.crashes))
    else:
        result = run_seeds(args.first, args.seeds or 1000, args.jobs)
    took_s = time.monotonic() - started_s
    result |= {"first_seed": args.first, "seconds": round(took_s, 1)}
    print(f"  {result['runs'] / took_s:.0f} runs/s", file=sys.stderr)  # type: ignore[operator]
    print(json.dumps(result))
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
