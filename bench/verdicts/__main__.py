"""`python -m bench.verdicts [--quick] [--seed N] [--only NAME]`: how right verdicts are, and what they cost."""

from __future__ import annotations

import argparse
import sys
import time

from bench.verdicts.reports import REPORTS


def main(argv: list[str] | None = None) -> int:
    """Print the reports in order; progress goes to stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.verdicts",
        description="How right the verdicts are, by simulation with seeds, and what they cost.",
        epilog="example: python -m bench.verdicts --only reference --seed 7",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: minutes instead of an hour")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=[report.name for report in REPORTS], action="append")
    args = parser.parse_args(argv)
    for report in REPORTS:
        if args.only and report.name not in args.only:
            continue
        began_s = time.monotonic()
        print(f"\n== {report.name}: {report.title} (seed {args.seed}{', quick' if args.quick else ''})", flush=True)
        print(report.run(quick=args.quick, seed=args.seed), flush=True)
        print(f"   {report.name}: {time.monotonic() - began_s:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
