"""alerts build: rules, tests, runbooks and an Alertmanager configuration from slo.yaml."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from alerts.build import RUNBOOKS, build, rules_of
from alerts.model import Options
from guard.commands.common import Groups, add_command, add_group, emit, progress
from slo.baselines import load_baseline
from slo.clock import SystemClock
from slo.errors import ConfigError
from slo.spec import load_slo_file, parse_duration_s
from slo.thresholds import Known

_URLS = ("guard_url", "pager_url", "ticket_url")
_ADDRESSES = {
    "pager_url": "pages go to",
    "ticket_url": "tickets go to",
    "guard_url": "alerts are told to the guard at",
    "alertmanager": "Prometheus looks for Alertmanager at",
}


def register(groups: Groups) -> None:
    """Add the commands of this module."""
    alerts = add_group(groups, "alerts", "rules for Prometheus and Alertmanager")
    made = add_command(
        alerts, "build", run_build,
        "write Prometheus rules, promtool tests, runbooks and an Alertmanager configuration from slo.yaml",
        "sft-guard alerts build --slo slo.yaml --baseline baseline.json --out alerts-out",
    )  # fmt: skip
    defaults = Options()
    made.add_argument("--slo", type=Path, default=Path("slo.yaml"), help="the rules")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="files of the same name are replaced")
    made.add_argument("--baseline", type=Path, help="baseline.json, for limits of the forms baseline and current")
    made.add_argument("--previous-baseline", type=Path, help="for limits of the form previous")
    made.add_argument("--runbook-url", default=defaults.runbook_url, metavar="PREFIX",
                      help="what stands before the name of a runbook page (default %(default)s)")  # fmt: skip
    made.add_argument("--scrape-interval", default="15s", help="of Prometheus, and of the rules (default 15s)")
    made.add_argument("--job", default=defaults.job, help="name of the scrape job (default %(default)s)")
    made.add_argument("--guard-url", help=f"admin listener (example: {defaults.guard_url})")
    made.add_argument("--guard-token-file", default=defaults.token_file, metavar="FILE",
                      help="its bearer token, as Alertmanager sees it (default %(default)s)")  # fmt: skip
    made.add_argument("--pager-url", help=f"webhook that pages (example: {defaults.pager_url})")
    made.add_argument("--alertmanager", metavar="HOST:PORT",
                      help=f"where Prometheus finds Alertmanager (example: {defaults.alertmanager})")  # fmt: skip
    made.add_argument("--ticket-url", help=f"webhook for tickets (example: {defaults.ticket_url})")


def run_build(args: argparse.Namespace) -> int:
    """Write the files; objectives that are not covered are told on standard error and in the files."""
    slo_file = load_slo_file(args.slo)
    examples = _with_examples(args)
    options = _options(args)
    known = Known(
        SystemClock().wall_s(),
        load_baseline(args.baseline) if args.baseline else None,
        load_baseline(args.previous_baseline) if args.previous_baseline else None,
    )
    files = build(slo_file, known, options)
    for name, text in files.items():
        path = args.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    gone = _remove_old_pages(args.out / RUNBOOKS, files)
    missing = [rule for rule in rules_of(slo_file, known) if rule.limit.value is None]
    for rule in missing:
        progress(f"sft-guard: {rule.slo.name}: not covered: {rule.limit.reason}")
    result = {
        "out": str(args.out),
        "files": sorted(files),
        "objectives": len(slo_file.objectives),
        "not_covered": [rule.slo.name for rule in missing],
        "removed": gone,
        "examples": examples,
    }
    for line in examples:
        progress(f"sft-guard: {line}")
    covered = len(slo_file.objectives) - len(missing)
    text = f"wrote {len(files)} files to {args.out}; {covered} of {len(slo_file.objectives)} objectives covered"
    emit(args, result, text)
    return 0


def _with_examples(args: argparse.Namespace) -> list[str]:
    """Fill in the shipped example for every address that was not given; a line for each, as nobody is paged by one."""
    said = []
    for name, what in _ADDRESSES.items():
        if getattr(args, name) is None:
            setattr(args, name, getattr(Options(), name))
            said.append(f"{what} {getattr(args, name)}, an example; --{name.replace('_', '-')} names yours")
    return said


def _remove_old_pages(directory: Path, files: dict[str, str]) -> list[str]:
    """Pages of alerts that no longer exist would send somebody the wrong way at night; only our own names go."""
    gone = [p for p in directory.glob("Sft*.md") if f"{RUNBOOKS}/{p.name}" not in files]
    for page in gone:
        os.unlink(page)
    return sorted(page.name for page in gone)


def _options(args: argparse.Namespace) -> Options:
    try:
        scrape_s = parse_duration_s(args.scrape_interval)
    except ValueError as error:
        raise ConfigError("--scrape-interval", args.scrape_interval, "write a duration such as 15s") from error
    if not 1.0 <= scrape_s <= 60.0:
        raise ConfigError("--scrape-interval", args.scrape_interval, "between 1s and 1m, or fast paths see nothing")
    for name in _URLS:
        if not getattr(args, name).startswith(("http://", "https://")):
            raise ConfigError(f"--{name.replace('_', '-')}", getattr(args, name), "write http(s)://host:port")
    return Options(
        scrape_s,
        args.job,
        args.guard_url,
        args.guard_token_file,
        args.pager_url,
        args.ticket_url,
        args.alertmanager,
        args.runbook_url,
    )
