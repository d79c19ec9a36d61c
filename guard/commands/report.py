"""report: what a day was like, for the morning meeting."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

from guard.commands.common import Groups, add_command, add_group, emit, progress
from slo.clock import SystemClock


def register(groups: Groups) -> None:
    """Add the commands of this module."""
    report = add_group(groups, "report", "reports from the exchange log")
    daily = add_command(report, "daily", run_daily, "the quality of one day, beside the day before",
                        "sft-guard report daily --log state/exchanges --state state --out report.html")  # fmt: skip
    daily.add_argument("--log", type=Path, nargs="+", required=True, metavar="PATH", help="segments or directories")
    daily.add_argument("--date", type=_date, metavar="YYYY-MM-DD", help="day in UTC; default: the last whole one")
    daily.add_argument("--state", type=Path, metavar="STATE_DIR", help="the guard's state directory, for its incidents")
    daily.add_argument("--service", default="the bot", help="name for the title")
    daily.add_argument("--out", type=_out, help="FILE.md or FILE.html; default: Markdown on standard output")


def run_daily(args: argparse.Namespace) -> int:
    """Print or write the report; exit 1 when the day had no traffic."""
    from slo.daily import html, markdown, summary
    from slo.sources.daily import read_day

    incidents = _incidents(args.state) if args.state else ()
    day, problems = read_day(args.log, args.date, incidents, now_s=_now_s())
    for problem in problems:
        progress(f"sft-guard: {problem}")
    is_html = args.out is not None and args.out.suffix.lower() in (".html", ".htm")
    text = html(args.service, day) if is_html else markdown(args.service, day)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    out = str(args.out) if args.out else None
    emit(args, {"day": day, "summary": summary(day), "out": out}, f"{summary(day)}\nwrote {out}" if out else text)
    return 0 if day.releases else 1


def _now_s() -> float:
    return SystemClock().wall_s()


def _incidents(state_dir: Path) -> list[tuple[float, str, str]]:
    from guard.admin.views import incident_title
    from guard.release.recorded import recorded_incidents

    found = []
    for incident in recorded_incidents(state_dir):
        helped = incident.aftermath.recovery.value.replace("_", " ") if incident.aftermath else "-"
        found.append((incident.opened_s, incident_title(incident), helped))
    return found


def _out(text: str) -> Path:
    if Path(text).suffix.lower() not in (".md", ".html", ".htm"):
        raise argparse.ArgumentTypeError(f"got {text!r}; write a name that ends in .md or .html")
    return Path(text)


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}; write a day such as 2026-03-31") from None
