"""grade, slo, and the group of the baseline commands: measuring and explaining, offline."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from guard.commands import backtesting, capacity, interop
from guard.commands import baseline as baseline_commands
from guard.commands.common import Groups, add_command, add_group, emit, to_json
from slo.clock import SystemClock
from slo.errors import ConfigError
from slo.spec import load_slo_file


def register(groups: Groups) -> None:
    """Add the commands of this module."""
    example = 'echo \'{"id":1,"question":"?","contexts":["..."],"answer":"..."}\' | sft-guard grade --json'
    grade = add_command(groups, "grade", run_grade, "run the quality checks on given answers, offline", example)
    grade.add_argument("file", nargs="?", type=Path, help="JSON lines; default: standard input")
    grade.add_argument(
        "--embedder", default="none", help="all-MiniLM-L6-v2, a name or path; default none: lexical and fast"
    )
    grade.add_argument(
        "--threshold", type=float, help="hallucination score from which an answer fails; default: calibrated"
    )

    baseline = add_group(groups, "baseline", "what healthy traffic looks like, and where the load limit is")
    baseline_commands.register(baseline)
    capacity.register(baseline)

    slo = add_group(groups, "slo", "the objectives of slo.yaml: explain, back-test, tune, import, export")
    explain = add_command(
        slo, "explain", run_explain, "what each rule means now, in words", "sft-guard slo explain --slo slo.yaml"
    )
    explain.add_argument("--slo", type=Path, default=Path("slo.yaml"), help="the rules")
    explain.add_argument("--baseline", type=Path, help="baseline.json, for relative limits")
    backtesting.register(slo)
    interop.register(slo)


def run_grade(args: argparse.Namespace) -> int:
    """One result line per input line; exit 1 when a line could not be read."""
    from guard.checks.grade import grade
    from guard.checks.spec import CheckSpec

    if args.threshold is not None and not 0.0 <= args.threshold <= 1.0:
        raise ConfigError("--threshold", args.threshold, "write a hallucination score between 0 and 1")
    spec = CheckSpec(embedder=args.embedder, grounding_threshold=args.threshold)
    bad_count = 0
    if args.file and not args.file.exists():
        raise ConfigError("FILE", str(args.file), "name a file of JSON lines that is there, or write to standard input")
    # As bytes: a line that is not UTF-8 is one bad line, and the others are graded.
    source = args.file.open("rb") if args.file else sys.stdin.buffer
    with source:
        for row in grade(source, spec):
            if "error" in row:
                bad_count += 1
                print(f"sft-guard: {row['error']}", file=sys.stderr)
            elif args.json:
                print(to_json(row))
            else:
                print(_graded_line(row))
    return 1 if bad_count else 0


def _graded_line(row: dict[str, Any]) -> str:
    """One graded answer for people; an answer without known contexts was not judged."""
    mark = {True: "FAIL", False: "ok  ", None: "?   "}[row["hallucinated"]]
    score = "   -" if row["score"] is None else f"{row['score']:.2f}"
    failed = [f for f in row["findings"] if f["result"] == "fail"]
    why = "; ".join(e for f in failed for e in f.get("evidence", ())) or ("" if failed else _unjudged(row))
    return f"{mark} {score}  {row['id']}  {why}".rstrip()


def _unjudged(row: dict[str, Any]) -> str:
    return "contexts unknown: unchecked, not passed" if row["score"] is None else ""


def run_explain(args: argparse.Namespace) -> int:
    """Each rule in words, with its limit now."""
    from slo.baselines import load_baseline
    from slo.explain import as_rows, explain

    slo_file = load_slo_file(args.slo)
    baseline = load_baseline(args.baseline) if args.baseline else None
    now_wall_s = SystemClock().wall_s()
    text = explain(slo_file, baseline, now_wall_s=now_wall_s)
    rows = as_rows(slo_file, baseline, now_wall_s=now_wall_s)
    emit(args, {"service": slo_file.service, "objectives": rows, "text": text}, text)
    return 0
