"""Every scenario over many seeds, as a table: python -m tests.scenarios --seeds 200 [--only WORD]."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from slo.statistics import quantile
from tests.scenarios.conditions import CONDITIONS
from tests.scenarios.incidents import INCIDENTS
from tests.scenarios.playing import Played, Scenario, play

COLUMNS = ("scenario", "fault", "runs", "right", "wrong moves", "delay p50", "delay p95", "action", "rules")


def row(scenario: Scenario, faulty: bool, played: Sequence[Played]) -> tuple[str, ...]:
    """One line of the table."""
    delays = sorted(p.delay_s for p in played if p.delay_s is not None)
    deeds = Counter(p.deed.kind if p.deed else scenario.wanted for p in played if p.delay_s is not None)
    reasons = Counter(f"{p.deed.code}: {', '.join(p.deed.rules)}" for p in played if p.deed)
    shown = [_minutes(quantile(delays, q)) if delays else "-" for q in (0.5, 0.95)]
    common = deeds.most_common(1)[0][0] if deeds else "none"
    why = reasons.most_common(1)[0][0] if reasons else ", ".join(scenario.rules) if delays else "-"
    right = sum(p.caught for p in played)
    wrong = sum(len(p.wrong) for p in played)
    return (scenario.name, "yes" if faulty else "no", str(len(played)), str(right), str(wrong), *shown, common, why)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="histories of each scenario, seeds 1..N (default 20)")
    parser.add_argument("--only", default="", help="scenarios with this word in their name")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    chosen = [s for s in (*INCIDENTS, *CONDITIONS) if args.only in s.name]
    if not chosen:
        print(f"scenarios: none is called {args.only!r}; leave --only out to see their names", file=sys.stderr)
        return 2
    began_s, failed = time.monotonic(), 0
    rows: list[tuple[str, ...]] = [COLUMNS]
    with ProcessPoolExecutor(args.workers) as pool:
        for scenario in chosen:
            for faulty in (True, False):
                played = list(pool.map(partial(_play, scenario, faulty), range(1, args.seeds + 1), chunksize=4))
                rows.append(row(scenario, faulty, played))
                bad = [p for p in played if not p.caught]
                failed += len(bad)
                print("  ".join(rows[-1]), file=sys.stderr, flush=True)
                for one in bad[:2]:
                    print(one.tail, file=sys.stderr)
    widths = [max(len(r[i]) for r in rows) for i in range(len(COLUMNS))]
    for each in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(each, widths, strict=True)).rstrip())
    print(f"seeds 1..{args.seeds}, {failed} histories went wrong, {time.monotonic() - began_s:.0f} s")
    return 1 if failed else 0


def _play(scenario: Scenario, faulty: bool, seed: int) -> Played:
    return play(scenario, seed, faulty=faulty)


if __name__ == "__main__":
    sys.exit(main())
