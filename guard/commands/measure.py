"""grade, baseline, slo: measuring and explaining, offline."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from guard.commands import capacity
from guard.commands.common import Groups, add_command, add_group, emit, progress, to_json
from guard.settings import load_settings
from slo.clock import SystemClock
from slo.errors import ConfigError
from slo.spec import load_slo_file, parse_duration_s
from slo.thresholds import RELATIVE


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

    baseline = add_group(groups, "baseline", "what healthy traffic looks like")
    collect = add_command(baseline, "collect", run_collect, "read the exchange log into baseline.json",
                          "sft-guard baseline collect --log state/exchanges --out baseline.json")  # fmt: skip
    collect.add_argument("--log", type=Path, nargs="+", required=True, metavar="PATH", help="segments or directories")
    collect.add_argument("--out", type=Path, required=True)
    collect.add_argument("--window", default="1h", help="span of one value of the distribution (default 1h)")
    collect.add_argument(
        "--exclude", action="append", default=[], metavar="FROM/TO", help="Unix seconds or ISO times; an incident, say"
    )
    collect.add_argument(
        "--force", action="store_true", help="accept less than 7 days or too few exchanges; marked in the file"
    )
    about = "guard.yaml: stamps the embedder, and collects the windows that its rules need"
    collect.add_argument("-c", "--config", type=Path, help=about)
    collect.add_argument("--release", help="short id: only exchanges of this release, for a previous_baseline")
    show = add_command(baseline, "show", run_show, "read a baseline", "sft-guard baseline show baseline.json")
    show.add_argument("file", type=Path)
    capacity.register(baseline)

    slo = add_group(groups, "slo", "the rules")
    explain = add_command(
        slo, "explain", run_explain, "what each rule means now, in words", "sft-guard slo explain --slo slo.yaml"
    )
    explain.add_argument("--slo", type=Path, default=Path("slo.yaml"))
    explain.add_argument("--baseline", type=Path)


def run_grade(args: argparse.Namespace) -> int:
    """One result line per input line; exit 1 when a line could not be read."""
    from guard.checks.grade import grade
    from guard.checks.spec import CheckSpec

    if args.threshold is not None and not 0.0 <= args.threshold <= 1.0:
        raise ConfigError("--threshold", args.threshold, "write a hallucination score between 0 and 1")
    spec = CheckSpec(embedder=args.embedder, grounding_threshold=args.threshold)
    bad_count = 0
    source = args.file.open(encoding="utf-8") if args.file else sys.stdin
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


def run_collect(args: argparse.Namespace) -> int:
    """Collect and write; refuses too little traffic unless forced."""
    from slo.baselines import collect, save_baseline, show
    from slo.sources.exchange_log import LogReader

    settings = load_settings(args.config) if args.config else None
    slo = settings.resolve(settings.file.slo) if settings and settings.file.slo else None
    try:
        window_s = parse_duration_s(args.window)
    except ValueError as error:
        raise ConfigError("--window", args.window, "write a duration such as 10m, 1h or 1d") from error
    reader = LogReader(args.log)
    exclusions = tuple(_time_range(text) for text in args.exclude)
    baseline = collect(
        (exchange for exchange, _ in reader),
        window_s=window_s,
        more_windows_s=_windows_of(slo) if slo else (),
        embedder=settings.file.checks.embedder if settings else "",
        now_wall_s=SystemClock().wall_s(),
        force=args.force,
        exclusions=exclusions,
        release=args.release,
        on_progress=lambda n: progress(f"  {n} exchanges read"),
    )
    for problem in reader.problems:
        progress(f"sft-guard: {problem}")
    save_baseline(baseline, args.out)
    result = {
        "out": str(args.out),
        "exchange_count": baseline.exchange_count,
        "forced": baseline.forced,
        "lines_left_out": reader.bad_count,
        "sha256": baseline.sha256,
    }
    emit(args, result, f"{show(baseline)}\nwrote {args.out}")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print a baseline, hash verified."""
    from slo.baselines import load_baseline, show

    baseline = load_baseline(args.file)
    emit(args, baseline, show(baseline))
    return 0


def run_explain(args: argparse.Namespace) -> int:
    """Each rule in words, with its limit now."""
    from slo.baselines import load_baseline
    from slo.explain import explain

    slo_file = load_slo_file(args.slo)
    baseline = load_baseline(args.baseline) if args.baseline else None
    text = explain(slo_file, baseline, now_wall_s=SystemClock().wall_s())
    emit(args, {"service": slo_file.service, "text": text}, text)
    return 0


def _windows_of(slo: Path) -> tuple[float, ...]:
    """Window lengths of the rules that need a baseline."""
    relative = [o for o in load_slo_file(slo).objectives if o.threshold.form in RELATIVE]
    return tuple(sorted({o.window.length_s for o in relative}))


def _time_range(text: str) -> tuple[float, float]:
    """`FROM/TO` as Unix seconds."""
    from datetime import UTC, datetime

    def seconds(part: str) -> float:
        try:
            return float(part)
        except ValueError:
            when = datetime.fromisoformat(part)
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()

    try:
        start, end = (seconds(part) for part in text.split("/"))
    except ValueError as error:
        raise ConfigError("--exclude", text, "write FROM/TO, for example 2026-05-01T23:45/2026-05-02T02:10") from error
    return start, end
