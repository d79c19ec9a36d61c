"""Cost of `sft-guard slo replay` against size: python -m bench.replay [--rows N] [--dir DIR] [--json].

The Parquet of `bench.baseline` (14 days, three releases, one of them a canary, forty tenants) is replayed against six
rules of every kind by the command itself, in a process of its own that is held to one core. Seconds are those of the
operating system, start of the process included. Nothing is asserted here: goals stand in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from bench.baseline import BYTES_PER_ROW, DAYS, SIZES, Run, generate

SLO = """\
service: bench
objectives:
  - name: hallucination
    indicator: sft_quality_hallucination_rate
    window: 1h
    threshold: {absolute: 5%}
    for: 10m
    action: rollback
  - name: similarity
    indicator: sft_quality_similarity_score
    window: 1h
    threshold: {absolute: 0.75}
  - name: p95
    indicator: sft_perf_latency_p95_ms
    window: 15m
    threshold: {limit: 4300, factor: 0.7}
    for: 15m
    action: shed
  - name: http-errors
    indicator: sft_availability_http_error_rate
    window: 5m
    threshold: {absolute: 5%}
    action: page
  - name: cost
    indicator: sft_cost_inference_per_request_usd
    window: 24h
    threshold: {budget_usd: 3000, requests: 60000, factor: 1.2}
  - name: availability
    indicator: sft_availability_success_rate
    window: 30d
    threshold: {tier: internal}
    action: rollback
    burn_rate: true
"""


def replay(paths: list[Path], rows: int, work: Path) -> tuple[Run, int]:
    """Run the command on one core; (what it took, firings)."""
    slo, told = work / "slo.yaml", work / "told.txt"
    slo.write_text(SLO)
    command = [sys.executable, "-m", "guard.cli", "slo", "replay", "--slo", str(slo), "--log", *map(str, paths)]
    core = min(os.sched_getaffinity(0))
    began_s = time.perf_counter()
    with told.open("wb") as log:
        process = subprocess.Popen(
            [*command, "--json"], stdout=log, stderr=log, preexec_fn=lambda: os.sched_setaffinity(0, {core})
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"bench.replay: replaying failed:\n{told.read_text()}")
    result = json.loads(told.read_text().splitlines()[-1])
    assert result["exchange_count"] == rows, f"{result['exchange_count']} of {rows} exchanges counted"
    size = sum(path.stat().st_size for path in paths)
    cpu_s = usage.ru_utime + usage.ru_stime
    return Run(rows, size, wall_s, cpu_s, usage.ru_maxrss / 1024), len(result["firings"])


def main(arguments: list[str] | None = None) -> int:
    """Print one line per size."""
    parser = argparse.ArgumentParser(prog="python -m bench.replay", description=__doc__)
    parser.add_argument("--rows", type=int, default=SIZES[-1], help="largest size (default 100 million)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", type=Path, help="where the files are made (default: the temporary directory)")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args(arguments)
    work = Path(tempfile.mkdtemp(prefix="bench-replay-", dir=args.dir))
    runs = []
    print(f"slo replay, Parquet of {DAYS} days, 6 rules, evaluated every 10 s, seed {args.seed}, one core")
    print(
        f"{'exchanges':>12} {'file MB':>8} {'wall s':>8} {'CPU s':>8} {'peak MB':>8} {'per CPU s':>12} {'firings':>8}"
    )
    try:
        for rows in [size for size in SIZES if size < args.rows] + [args.rows]:
            free = shutil.disk_usage(work).free
            if free < rows * BYTES_PER_ROW:
                print(f"{rows:>12,} left out: needs {rows * BYTES_PER_ROW >> 20} MB of disk, {free >> 20} MB are free")
                continue
            generate(work / "log", rows, args.seed)
            run, firings = replay(sorted((work / "log").glob("*.parquet")), rows, work)
            shutil.rmtree(work / "log")
            runs.append(run)
            print(
                f"{run.rows:>12,} {run.file_bytes / 2**20:>8.0f} {run.wall_s:>8.2f} {run.cpu_s:>8.2f} "
                f"{run.peak_mb:>8.0f} {run.rows / run.cpu_s:>12,.0f} {firings:>8}",
                flush=True,
            )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if args.json:
        print(json.dumps({"seed": args.seed, "parquet": [asdict(run) for run in runs]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
