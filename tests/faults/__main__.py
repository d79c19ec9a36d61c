"""Runs every test of the fault table and writes the result into docs/reliability.md: `python -m tests.faults`.

.venv/bin/python -m tests.faults                # everything; writes the tables
.venv/bin/python -m tests.faults --rows 23,28   # some rows; the others stay as they stand, the matrix is not run
.venv/bin/python -m tests.faults --requests 1000 --streams 100000  # a release: requests per cell of the matrix of dead
                                                # dependencies, mutated streams against nginx and haproxy
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from bench.report_section import ROOT, table, write_section
from tests.faults.rows import ROWS, Row

PAGE = ROOT / "docs" / "reliability.md"
HEAD = ["#", "where", "fault", "promise", "tests", "result", "seen"]


def ran(tests: list[str], jobs: int, streams: int | None = None) -> dict[str, Counter[str]]:
    """Run them with pytest; per test how many cases passed, failed, were skipped. streams: of the framing test."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(jobs), "--dist", "worksteal", f"--junitxml={report}"]
        # PYTEST_* of a surrounding run would be obeyed by this one.
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}  # noqa: TID251 - a child's
        if streams is not None:
            clean["FRAMING_STREAMS"] = str(streams)
        subprocess.run([*command, *(f"tests/{test}" for test in tests)], cwd=ROOT, check=False, env=clean)
        if not report.exists():
            raise SystemExit("tests.faults: pytest wrote no report; its own words are above")
        found: dict[str, Counter[str]] = {}
        for case in ElementTree.parse(report).iter("testcase"):
            place = str(case.get("classname")).removeprefix("tests.").replace(".", "/") + ".py"
            name = str(case.get("name")).partition("[")[0]
            kinds = {child.tag for child in case}
            result = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
            found.setdefault(f"{place}::{name}", Counter())[result] += 1
    return found


def result_of(row: Row, found: dict[str, Counter[str]]) -> str:
    """`12 passed`, `1 failed, 3 passed`; a test that did not run at all is a failure."""
    total: Counter[str] = Counter()
    for test in row.tests:
        total += found.get(test, Counter(failed=1))
    return ", ".join(f"{total[kind]} {kind}" for kind in ("failed", "skipped", "passed") if total[kind]) or "no test"


def line_of(row: Row, result: str, day: str) -> list[str]:
    """One line of the table; the promise and the names as they stand in `rows`."""
    names = "<br>".join(f"`{test.rpartition('/')[2]}`" for test in row.tests)
    return [
        str(row.number),
        row.area,
        row.fault,
        row.promise,
        names + (f"<br>{row.gap}" if row.gap else ""),
        result,
        day,
    ]


def shown() -> dict[int, list[str]]:
    """The rows that stand on the page, by number."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = line.strip("| ").split(" | ")
        if line.startswith("| ") and len(cells) == len(HEAD) and cells[0].isdigit():
            found[int(cells[0])] = cells
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", help="numbers, comma-separated; the others stay")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--requests", type=int, default=1000, help="per cell of the dead-dependency matrix; 0: not run")
    about = "mutated streams of the framing test; default: FRAMING_STREAMS, or as few as in the tests"
    parser.add_argument("--streams", type=int, help=about)
    args = parser.parse_args()
    if args.requests < 0 or (args.streams is not None and args.streams < 1):
        parser.error("--requests is from 0, --streams from 1")
    wanted = {int(number) for number in args.rows.split(",")} if args.rows else {row.number for row in ROWS}
    rows = [row for row in ROWS if row.number in wanted]
    found = ran(sorted({test for row in rows for test in row.tests}), args.jobs, args.streams)
    results = {row.number: result_of(row, found) for row in rows}
    failed = [number for number, result in results.items() if "failed" in result]
    for row in rows:
        print(f"{row.number:3d} {results[row.number]:30s} {row.fault}")
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    lines = {**shown(), **{row.number: line_of(row, results[row.number], day) for row in rows}}
    write_section("fault table", table(HEAD, [lines[number] for number in sorted(lines)]), PAGE)
    if args.requests and not args.rows:
        from tests.faults.dead_dependencies import report

        body, failed_count = asyncio.run(report(args.requests))
        write_section("dead dependencies", f"Seen on {day}.\n\n{body}", PAGE)
        failed += [0] * bool(failed_count)
    print(f"{len(rows)} rows, failed: {failed or 'none'} (0: a dead dependency)")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
