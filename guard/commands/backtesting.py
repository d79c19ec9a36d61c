"""slo replay and slo tune: rules held against recorded traffic before they are switched on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from guard.commands.common import Groups, add_command, emit, progress
from guard.commands.times import time_range
from slo.baselines import load_baseline
from slo.clock import SystemClock
from slo.errors import ConfigError, DataError, RefusedError
from slo.spec import SloFile, load_slo_file, parse_duration_s
from slo.traffic import Traffic, tick_of

if TYPE_CHECKING:
    from slo.backtest import Incident, Report
    from slo.replay import Rule

REPLAY_EXAMPLE = (
    "sft-guard slo replay --slo slo.yaml --log state/exchanges \\\n"
    "      --mark 2026-05-01T23:45/2026-05-02T02:00 --plot plots"
)


def register(slo: Groups) -> None:
    """Add the commands to the group `slo`."""
    about = "run the rules over recorded traffic in virtual time: when each would have fired, and how often falsely"
    replay = add_command(slo, "replay", run_replay, about, REPLAY_EXAMPLE)
    replay.add_argument("--plot", type=Path, metavar="DIR", help="write one PNG per rule")
    replay.add_argument("--rule", action="append", default=[], metavar="NAME", help="only this rule (repeatable)")
    _add_sources(replay)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    """What every back-test needs."""
    parser.add_argument("--slo", type=Path, required=True, metavar="FILE")
    parser.add_argument("--log", type=Path, nargs="+", required=True, metavar="PATH", help="segments or directories")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="for rules of the forms baseline and current")
    parser.add_argument("--previous", type=Path, metavar="FILE", help="baseline of the previous release")
    about = 'JSON [{"from": ..., "to": ..., "name": ...}], or a state directory: the incidents recorded there'
    parser.add_argument("--incidents", type=Path, metavar="PATH", help=about)
    parser.add_argument(
        "--mark", action="append", default=[], metavar="FROM/TO", help="an incident; Unix seconds or ISO times, UTC"
    )
    parser.add_argument(
        "--every", default="10s", help="time between two evaluations (default 10s; the sidecar's is 5s)"
    )


def run_replay(args: argparse.Namespace) -> int:
    """Replay, report, draw. Exit 1 when a marked incident was missed."""
    from slo.backtest import as_json, as_text, report
    from slo.replay import replay

    every_s = _every(args.every)
    slo_file, rules, notes = _rules(args, args.rule)
    incidents = _incidents(args)
    traffic = _traffic(args, rules, every_s)
    found = report(traffic, replay(traffic, rules, every_s), incidents, [*notes, *_overlaps(args, traffic)])
    result = as_json(found)
    text = as_text(found, slo_file.service)
    if args.plot:
        paths = _draw(found, traffic, args.plot, every_s)
        result["plots"] = [str(path) for path in paths]
        text += f"\nwrote {len(paths)} pictures to {args.plot}" if paths else ""
    emit(args, result, text)
    return 1 if found.missed else 0


def _every(text: str) -> float:
    try:
        every_s = parse_duration_s(text)
        tick_of(every_s)
    except ValueError as error:
        raise ConfigError("--every", text, "write 1s, 2s, 5s, 10s or a multiple of 10s") from error
    return every_s


def _rules(args: argparse.Namespace, names: Sequence[str]) -> tuple[SloFile, tuple[Rule, ...], list[str]]:
    """The rules to test, and what must be said about their limits."""
    from slo.replay import rules_of

    slo_file = load_slo_file(args.slo)
    known = [objective.name for objective in slo_file.objectives]
    for name in names:
        if name not in known:
            raise ConfigError("--rule", name, f"{args.slo} has {', '.join(known)}")
    chosen = [o for o in slo_file.objectives if not names or o.name in names]
    baseline = load_baseline(args.baseline) if args.baseline else None
    previous = load_baseline(args.previous) if args.previous else None
    rules = rules_of(chosen, baseline, previous)
    notes = [
        f"{rule.slo.name} has no limit, so it is unknown throughout: {rule.limits[0].reason}"
        for rule in rules
        if rule.limits[0].value is None
    ]
    return slo_file, rules, notes


def _overlaps(args: argparse.Namespace, traffic: Traffic) -> list[str]:
    """A rule tested on the traffic that its limit was made of looks better than it is."""
    if not args.baseline:
        return []
    baseline = load_baseline(args.baseline)
    if baseline.first_wall_s < traffic.last_s and baseline.last_wall_s > traffic.first_s:
        return ["the baseline was collected from some of this log: on other traffic its rules may fire more often"]
    return []


def _incidents(args: argparse.Namespace) -> list[Incident]:
    from slo.backtest import Incident

    found = [Incident(*time_range("--mark", text)) for text in args.mark]
    if args.incidents and args.incidents.is_dir():
        from guard.release.recorded import recorded_incidents, unhealthy_spans

        spans = unhealthy_spans(recorded_incidents(args.incidents), SystemClock().wall_s())
        found += [Incident(span.start_wall_s, span.end_wall_s, span.incident_id) for span in spans]
    elif args.incidents:
        place = str(args.incidents)
        try:
            rows = json.loads(args.incidents.read_text(encoding="utf-8"))
        except (ValueError, UnicodeDecodeError) as error:
            raise DataError(f"{place}: not JSON ({error}); write [{{'from': ..., 'to': ..., 'name': ...}}]") from error
        if not isinstance(rows, list):
            raise ConfigError(place, rows, 'write a list: [{"from": ..., "to": ..., "name": ...}]')
        for number, row in enumerate(rows):
            if not isinstance(row, dict) or not {"from", "to"} <= set(row) <= {"from", "to", "name"}:
                raise ConfigError(f"{place}: [{number}]", row, 'write {"from": ..., "to": ..., "name": ...}')
            span = time_range(f"{place}: [{number}]", f"{row['from']}/{row['to']}")
            found.append(Incident(*span, str(row.get("name", ""))))
    return sorted(found, key=lambda incident: incident.from_s)


def _traffic(args: argparse.Namespace, rules: Sequence[Rule], every_s: float) -> Traffic:
    from slo.sources.log_table import open_log
    from slo.sources.log_ticks import read_traffic

    with open_log(args.log) as table:
        traffic = read_traffic(
            table, [rule.quantity for rule in rules], tick_of(every_s),
            on_progress=lambda share: progress(f"  {share:.0%} of the log read"),
        )  # fmt: skip
        for problem in table.problems:
            progress(f"sft-guard: {problem}")
        if table.bad_count > len(table.problems):
            progress(f"sft-guard: {table.bad_count} unusable lines in all")
    return traffic


def _draw(found: Report, traffic: Traffic, directory: Path, every_s: float) -> list[Path]:
    """Pictures, if they can be drawn; without matplotlib one line says so and the numbers are there all the same."""
    from guard.backtest_plots import plot_rules

    try:
        return plot_rules(found, traffic, directory, every_s)
    except RefusedError as error:
        progress(f"sft-guard: {error}")
        return []
