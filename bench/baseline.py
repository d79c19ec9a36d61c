"""Cost of `sft-guard baseline collect` against size: python -m bench.baseline [--rows N] [--dir DIR] [--json].

Parquet of 1, 10 and 100 million exchanges (14 days, stable and canary, cache hits, all outcomes, checks) is generated
and collected by the command itself in a process of its own, whose wall clock, CPU and peak memory are taken from the
operating system. JSON lines are compared with the engine's own plain scan of the same file. Nothing is asserted here:
goals stand in docs/performance.md.
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
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb

from slo.codec import encode_exchange
from slo.sources.log_table import COLUMNS, FINDINGS_TYPE
from slo.types import CacheStatus, CheckResult, Exchange, Finding, Outcome

SIZES = (1_000_000, 10_000_000, 100_000_000)
DAYS = 14
BYTES_PER_ROW = 60  # on disk; generous
LINES = 500_000
DAY_S = 86_400.0


@dataclass(frozen=True)
class Run:
    """One collection. Seconds are of the whole process, start included."""

    rows: int
    file_bytes: int
    wall_s: float
    cpu_s: float
    peak_mb: float

    @property
    def per_s(self) -> float:
        """Exchanges per second of wall clock."""
        return self.rows / self.wall_s


def generate(directory: Path, rows: int, seed: int = 1, days: int = DAYS) -> int:
    """Write `rows` exchanges of `days` days as one Parquet segment a day, in order of time; return the bytes.

    A daily cycle, two stable releases and a canary at 5 %, 30 % cache hits, 1.5 % failures, log-normal durations.
    """
    directory.mkdir(parents=True, exist_ok=True)
    start_s = (time.time() // DAY_S - days) * DAY_S  # noqa: TID251 - a label: the days before today
    with duckdb.connect(config={"memory_limit": "1GiB", "temp_directory": str(directory)}) as db:
        db.execute(f"SELECT setseed({seed % 1000 / 1000})")
        for day in range(days):
            count = rows // days + (day < rows % days)
            path = directory / f"exchanges-{_stamp(start_s + day * DAY_S)}-0000.parquet"
            db.execute(f"COPY ({_exchanges(count, start_s + day * DAY_S, day)}) TO '{path}' (FORMAT parquet)")
    return sum(path.stat().st_size for path in directory.glob("*.parquet"))


def _stamp(wall_s: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall_s))


def _exchanges(count: int, start_s: float, day: int) -> str:
    """SQL: the exchanges of one day. u: place in the day; traffic swings by a half around its mean."""
    chances = ", ".join(f"random() AS r{n}" for n in range(9))
    return f"""
    SELECT
        printf('%016x', {day} * 100000000 + i) AS exchange_id,
        {start_s!r}::DOUBLE + 86400.0 * (u - sin(2 * pi() * u) / (4 * pi())) AS wall_s,
        CASE WHEN r0 < 0.8 THEN 'chat' ELSE 'ask' END AS route,
        CASE WHEN r1 < 0.05 THEN 'c0ffee000003' WHEN {day} < 7 THEN 'c0ffee000001' ELSE 'c0ffee000002' END AS release,
        CASE WHEN r1 < 0.05 THEN 'canary' ELSE 'stable' END AS arm,
        CASE WHEN r2 < 0.965 THEN 'ok' WHEN r2 < 0.975 THEN 'server_error' WHEN r2 < 0.978 THEN 'timeout'
             WHEN r2 < 0.98 THEN 'incomplete' WHEN r2 < 0.99 THEN 'cancelled' ELSE 'client_error' END AS outcome,
        CASE WHEN r2 < 0.965 THEN 200 WHEN r2 < 0.975 THEN 500 WHEN r2 < 0.978 THEN 504 WHEN r2 < 0.98 THEN 200
             WHEN r2 < 0.99 THEN 0 ELSE 429 END::INTEGER AS status,
        CASE WHEN r2 >= 0.99 THEN 'throttled' ELSE '' END AS reason,
        round(exp(-0.7 + 0.6 * sqrt(-2 * ln(1 - r3)) * cos(2 * pi() * r4)), 6) AS duration_s,
        'tenant-' || (i % 40) AS tenant,
        printf('%08x', (i * 2654435761) % 4294967296) AS session,
        CASE WHEN r5 < 0.3 THEN 'hit' ELSE 'miss' END AS cache,
        (900 + 100 * r6)::BIGINT AS input_tokens,
        (250 * r7)::BIGINT AS output_tokens,
        'reported' AS usage,
        CASE WHEN r5 < 0.3 OR r2 >= 0.965 THEN NULL ELSE round(0.0003 * (1 + r6), 8) END AS cost_usd,
        CASE WHEN r8 < 0.03 THEN 'fail' WHEN r8 < 0.05 THEN 'unavailable' ELSE 'pass' END AS grounding,
        CASE WHEN r7 < 0.02 THEN 'fail' ELSE 'pass' END AS zero_hit,
        'pass' AS similarity,
        round(0.7 + 0.3 * r6, 4) AS similarity_score
    FROM (SELECT i, (i + 0.5) / {count} AS u, {chances} FROM range({count}) AS t(i))
    """


def collect(paths: list[Path], rows: int, work: Path) -> Run:
    """Run the command and ask the operating system what it took."""
    out, told = work / "baseline.json", work / "told.txt"
    command = [sys.executable, "-m", "guard.cli", "baseline", "collect", "--log", *map(str, paths), "--out", str(out)]
    began_s = time.perf_counter()
    with told.open("wb") as log:
        process = subprocess.Popen([*command, "--force", "--json"], stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"bench.baseline: collecting failed:\n{told.read_text()}")
    result = json.loads(told.read_text().splitlines()[-1])
    counted = result["exchange_count"] + sum(result["excluded"].values())
    assert counted == rows, f"{counted} of {rows} exchanges counted"
    size = sum(path.stat().st_size for path in paths)
    return Run(rows, size, wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def write_lines(path: Path, count: int) -> None:
    """JSON lines as the guard writes them, five findings each."""
    start_s = (time.time() // DAY_S - DAYS) * DAY_S  # noqa: TID251
    findings = [
        tuple(
            Finding(check, CheckResult.FAIL if n % 33 == place else CheckResult.PASS, 0.5 + (n % 50) / 100)
            for place, check in enumerate(("rules", "zero_hit", "grounding", "similarity", "pii"))
        )
        for n in range(100)
    ]
    with path.open("wb") as out:
        for n in range(count):
            exchange = Exchange(
                f"{n:016x}", start_s + n * (DAYS * DAY_S / count), "chat", "c0ffee000001", "stable",
                Outcome.SERVER_ERROR if n % 90 == 7 else Outcome.OK, 500 if n % 90 == 7 else 200,
                duration_s=0.2 + (n % 97) / 50, first_byte_s=0.1, overhead_s=0.0003, session=f"{n % 5000:08x}",
                cache=CacheStatus.HIT if n % 3 == 0 else CacheStatus.MISS, input_tokens=900, output_tokens=n % 300,
                usage="reported", cost_usd=0.0003, findings=findings[n % 100],
                traceparent=f"00-{n:032x}-{n:016x}-01",
            )  # fmt: skip
            out.write(encode_exchange(exchange) + b"\n")


def plain_scan(path: Path) -> tuple[float, float]:
    """The engine alone: every field of every line parsed, nothing counted. (wall, CPU) seconds, best of two."""
    kinds = {name: kind for name, (kind, _) in COLUMNS.items()} | {"findings": FINDINGS_TYPE}
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in kinds.items())
    wanted = ", ".join(f"max({name})" for name in kinds if name != "findings")
    sql = (
        f"SELECT {wanted}, max(len(findings)) FROM read_json('{path}', format='newline_delimited', "
        f"columns={{{columns}}})"
    )
    walls, cpus = [], []
    with duckdb.connect() as db:
        for _ in range(2):
            began_s, used_s = time.perf_counter(), time.process_time()
            db.execute(sql).fetchall()
            walls.append(time.perf_counter() - began_s)
            cpus.append(time.process_time() - used_s)
    return min(walls), min(cpus)


def main(arguments: list[str] | None = None) -> int:
    """Print one line per size and the ratio for JSON lines."""
    parser = argparse.ArgumentParser(prog="python -m bench.baseline", description=__doc__)
    parser.add_argument("--rows", type=int, default=SIZES[-1], help="largest size (default 100 million)")
    parser.add_argument("--lines", type=int, default=LINES, help="JSON lines (default 500,000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", type=Path, help="where the files are made (default: the temporary directory)")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args(arguments)
    work = Path(tempfile.mkdtemp(prefix="bench-baseline-", dir=args.dir))
    try:
        runs = _parquet(args, work)
        ratio = _json_lines(args.lines, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if args.json:
        print(json.dumps({"seed": args.seed, "parquet": [asdict(run) for run in runs], "json_lines": ratio}))
    return 0


def _parquet(args: argparse.Namespace, work: Path) -> list[Run]:
    sizes = [size for size in SIZES if size < args.rows] + [args.rows]
    print(f"baseline collect, Parquet of {DAYS} days, seed {args.seed}, {os.cpu_count()} cores")
    print(f"{'exchanges':>12} {'file MB':>8} {'wall s':>8} {'CPU s':>8} {'peak MB':>8} {'per s':>12} {'per CPU s':>12}")
    runs = []
    for rows in sizes:
        free = shutil.disk_usage(work).free
        if free < rows * BYTES_PER_ROW:
            print(f"{rows:>12,} left out: needs {rows * BYTES_PER_ROW >> 20} MB of disk, {free >> 20} MB are free")
            continue
        generate(work / "log", rows, args.seed)
        run = collect(sorted((work / "log").glob("*.parquet")), rows, work)
        shutil.rmtree(work / "log")
        runs.append(run)
        print(
            f"{run.rows:>12,} {run.file_bytes / 2**20:>8.0f} {run.wall_s:>8.2f} {run.cpu_s:>8.2f} {run.peak_mb:>8.0f} "
            f"{run.per_s:>12,.0f} {run.rows / run.cpu_s:>12,.0f}",
            flush=True,
        )
    return runs


def _json_lines(count: int, work: Path) -> dict[str, float]:
    path = work / "exchanges-20260101T000000Z-0000.jsonl"
    write_lines(path, count)
    scan_s, scan_cpu_s = plain_scan(path)
    run = collect([path], count, work)
    print(
        f"JSON lines: {count:,} ({run.file_bytes / 2**20:.0f} MB) in {run.wall_s:.2f} s, {run.cpu_s:.2f} s CPU, "
        f"{run.peak_mb:.0f} MB\n"
        f"  the engine's plain scan of that file: {scan_s:.2f} s, {scan_cpu_s:.2f} s CPU\n"
        f"  ratio {run.wall_s / scan_s:.2f} in time, {run.cpu_s / scan_cpu_s:.2f} in CPU, start of the process included"
    )
    return {**asdict(run), "scan_s": scan_s, "scan_cpu_s": scan_cpu_s, "ratio": run.wall_s / scan_s,
            "cpu_ratio": run.cpu_s / scan_cpu_s}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
