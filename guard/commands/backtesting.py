"""slo replay and slo tune: rules held against recorded traffic before they are switched on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from guard import rollouts as rollouts_module
from guard.commands.common import Groups, add_command, emit, progress
from guard.commands.times import time_range
from slo.baselines import load_baseline
from slo.clock import SystemClock
from slo.errors import ConfigError, DataError, RefusedError
from slo.spec import SloFile, load_slo_file, parse_duration_s
from slo.traffic import Traffic, tick_of
from slo.windows import MAX_LENGTH_S

if TYPE_CHECKING:
    from guard.rollouts import Rollout
    from slo.artefact import Baseline
    from slo.backtest import Incident, Report
    from slo.replay import Rule
    from slo.sources.log_table import LogTable
    from slo.traffic import Quantity
    from slo.tuning import Grid, Tried
    from slo.types import Slo

T = TypeVar("T")

REPLAY_EXAMPLE = (
    "sft-guard slo replay --slo slo.yaml --log state/exchanges \\\n"
    "      --mark 2026-05-01T23:45/2026-05-02T02:00 --plot plots"
)


TUNE_EXAMPLE = (
    "sft-guard slo tune --slo slo.yaml --log state/exchanges --rule hallucination \\\n      --false-alarms-per-month 1"
)


def register(slo: Groups) -> None:
    """Add the commands to the group `slo`."""
    about = "run the rules over recorded traffic in virtual time: when each would have fired, and how often falsely"
    replay = add_command(slo, "replay", run_replay, about, REPLAY_EXAMPLE)
    replay.add_argument(
        "--rollouts", action="store_true", help="also decide on each canary again, compared with stable (slower)"
    )
    replay.add_argument("--plot", type=Path, metavar="DIR", help="write one PNG per rule")
    replay.add_argument("--rule", action="append", default=[], metavar="NAME", help="only this rule (repeatable)")
    _add_sources(replay)
    about = "propose factor, window and min_events for a wanted rate of false alarms, with the delay that each costs"
    tune = add_command(slo, "tune", run_tune, about, TUNE_EXAMPLE)
    tune.add_argument("--rule", required=True, metavar="NAME", help="the objective to tune")
    tune.add_argument(
        "--false-alarms-per-month",
        type=float,
        required=True,
        metavar="X",
        dest="wanted",
        help="how many false alarms a month are acceptable",
    )
    tune.add_argument("--factors", metavar="LIST", help="1.2,1.5,2: factors to try; default around the present one")
    tune.add_argument("--windows", metavar="LIST", help="15m,1h: windows to try; default half, present and double")
    tune.add_argument("--min-events", metavar="LIST", help="100,400: to try; default a quarter to double the present")
    tune.add_argument("--step", type=float, default=2.0, metavar="M", help="how much worse the injected step is: 2 x")
    tune.add_argument("--onsets", type=int, default=40, help="moments at which it is injected (default 40)")
    tune.add_argument("--seed", type=int, default=1, help="of the moments and of what is injected (default 1)")
    tune.add_argument("--plot", type=Path, metavar="FILE", help="write false alarms against delay as PNG")
    _add_sources(tune)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    """What every back-test needs."""
    parser.add_argument("--slo", type=Path, required=True, metavar="FILE", help="the rules")
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
    from slo.sources.log_stream import with_latencies

    every_s = _every(args.every)
    slo_file, rules, notes = _rules(args, args.rule)
    incidents = _incidents(args)
    with _opened(args) as table:
        traffic = _traffic(table, [rule.quantity for rule in rules], every_s)
        lanes = replay(traffic, rules, every_s)
        with_latencies(table, lanes, traffic.tick_s)
        rollouts = _rollouts(table, traffic, rules, every_s) if args.rollouts else None
    found = report(traffic, lanes, incidents, [*notes, *_overlaps(args, traffic)])
    result = as_json(found)
    text = as_text(found, slo_file.service)
    if rollouts is not None:
        result["rollouts"] = rollouts_module.as_json(rollouts)
        text += "\n" + rollouts_module.as_text(rollouts)
    if args.plot:
        paths = _draw(found, traffic, args.plot, every_s)
        result["plots"] = [str(path) for path in paths]
        text += f"\nwrote {len(paths)} pictures to {args.plot}" if paths else ""
    emit(args, result, text)
    return 1 if found.missed else 0


def run_tune(args: argparse.Namespace) -> int:
    """Try, show, draw. Exit 1 when no candidate does what is wanted."""
    from slo import tuning, tuning_report
    from slo.backtest import healthy_days_of

    every_s = _every(args.every)
    if args.wanted < 0:
        raise ConfigError("--false-alarms-per-month", args.wanted, "write 0 or more")
    if not 1.0 < args.step <= 100.0:
        raise ConfigError("--step", args.step, "write a factor over 1, such as 2")
    if not 5 <= args.onsets <= 1000:
        raise ConfigError("--onsets", args.onsets, "write a number from 5 to 1000")
    slo_file, rules, _ = _rules(args, [args.rule])
    slo = rules[0].slo
    candidates, reasons = tuning.candidates_of(slo, _grid(args, slo), *_baselines(args))
    if not candidates:
        raise ConfigError(f"{args.slo}: {slo.name}", slo.threshold.form, f"no candidate has a limit: {reasons[0]}")
    incidents = _incidents(args)
    with _opened(args) as table:
        traffic = _traffic(table, tuning.quantities_of(candidates, args.step), every_s)
    progress(f"{len(candidates)} candidates of {slo.name}")
    tried = tuning.tune(
        traffic, candidates, incidents, step_ratio=args.step, onset_count=args.onsets, seed=args.seed, every_s=every_s,
        on_progress=lambda done: progress(f"  {done} of {len(candidates)} tried") if done % 10 == 0 else None,
    )  # fmt: skip
    days = healthy_days_of(traffic, incidents)
    notes = [f"left out: {reason}" for reason in reasons] + [*traffic.notes, *_overlaps(args, traffic)]
    if not incidents:
        notes.append("no incident is marked: a firing in an unmarked one counts as a false alarm")
    text = tuning_report.as_text(slo, tried, args.wanted, args.step, days)
    text += "".join(f"\nnote: {note}" for note in notes)
    result = tuning_report.as_json(slo, tried, args.wanted, days, notes)
    if args.plot and _draw_tuning(slo_file.service, slo.name, tried, args):
        result["plot"] = str(args.plot)
    emit(args, result, text)
    return 0 if result["proposal"] else 1


def _grid(args: argparse.Namespace, slo: Slo) -> Grid:
    from slo.tuning import Grid, default_grid

    usual = default_grid(slo)
    events = _list("--min-events", args.min_events, int)
    factors, windows = _list("--factors", args.factors, float), _list("--windows", args.windows, parse_duration_s)
    if any(f <= 0 for f in factors):
        raise ConfigError("--factors", args.factors, "write factors above 0")
    if any(not 60.0 <= w <= MAX_LENGTH_S for w in windows):
        raise ConfigError("--windows", args.windows, "write windows from 1m to 30d")
    if any(e < 1 for e in events):
        raise ConfigError("--min-events", args.min_events, "write counts from 1")
    return Grid(factors or usual.factors, windows or usual.windows_s, events or usual.min_events)


def _list(place: str, text: str | None, read: Callable[[str], T]) -> tuple[T, ...]:
    """Values between commas, in order and each once; () when none were given."""
    if text is None:
        return ()
    try:
        return tuple(dict.fromkeys(read(part.strip()) for part in text.split(",")))
    except ValueError as error:
        raise ConfigError(place, text, "write values between commas, as the help shows") from error


def _draw_tuning(service: str, name: str, tried: Sequence[Tried], args: argparse.Namespace) -> bool:
    from guard.tuning_plot import plot_tuning

    try:
        plot_tuning(f"{service}: {name}", tried, args.wanted, args.step, args.plot)
    except RefusedError as error:
        progress(f"sft-guard: {error}")
        return False
    return True


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
    rules = rules_of(chosen, *_baselines(args))
    notes = [
        f"{rule.slo.name} has no limit, so it is unknown throughout: {rule.limits[0].reason}"
        for rule in rules
        if rule.limits[0].value is None
    ]
    if slo_file.outside:
        names = ", ".join(rule.name for rule in slo_file.outside)
        notes.append(f"rules on alerts of others are not in the exchange log and not replayed: {names}")
    return slo_file, rules, notes


def _baselines(args: argparse.Namespace) -> tuple[Baseline | None, Baseline | None]:
    """The baseline, and that of the previous release."""
    given = (args.baseline, args.previous)
    baseline, previous = (load_baseline(path) if path else None for path in given)
    return baseline, previous


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
        except OSError as error:
            raise DataError(f"{place}: {error.strerror}; name a JSON file or the guard's state directory") from error
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


def _opened(args: argparse.Namespace) -> LogTable:
    from slo.sources.log_table import open_log

    return open_log(args.log)


def _traffic(table: LogTable, quantities: Sequence[Quantity], every_s: float) -> Traffic:
    from slo.sources.log_ticks import read_traffic

    traffic = read_traffic(
        table, quantities, tick_of(every_s), on_progress=lambda share: progress(f"  {share:.0%} of the log read")
    )
    for problem in table.problems:
        progress(f"sft-guard: {problem}")
    if table.bad_count > len(table.problems):
        progress(f"sft-guard: {table.bad_count} unusable lines in all")
    return traffic


def _rollouts(table: LogTable, traffic: Traffic, rules: Sequence[Rule], every_s: float) -> list[Rollout]:
    from slo.sources.log_stream import exchanges_between, hourly_shares

    found = []
    for canary, stable in rollouts_module.pairs_of(traffic):
        begin_s, end_s = canary.first * traffic.tick_s, (canary.last + 1) * traffic.tick_s
        releases = (canary.release, stable.release)
        progress(f"rollout of {canary.release} beside {stable.release}")
        found.append(
            rollouts_module.decide_rollout(
                traffic, rules, canary, stable, exchanges_between(table, releases, begin_s, end_s),
                hourly_shares(table, *releases, begin_s, end_s), every_s,
                on_exchange=lambda count: progress(f"  {count} exchanges compared"),
            )
        )  # fmt: skip
    return found


def _draw(found: Report, traffic: Traffic, directory: Path, every_s: float) -> list[Path]:
    """Pictures, if they can be drawn; without matplotlib one line says so and the numbers are there all the same."""
    from guard.backtest_plots import plot_rules

    try:
        return plot_rules(found, traffic, directory, every_s)
    except RefusedError as error:
        progress(f"sft-guard: {error}")
        return []
