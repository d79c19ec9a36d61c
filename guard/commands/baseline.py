"""baseline collect, show, diff: what healthy traffic looks like, offline."""

from __future__ import annotations

import argparse
from pathlib import Path

from guard.commands.common import Groups, add_command, emit, progress
from guard.commands.times import time_range
from guard.settings import Settings, load_without_secrets
from slo.artefact import Baseline, IncidentSpan
from slo.clock import SystemClock
from slo.collecting import MAX_DAYS, SPAN_DAYS, Terms
from slo.errors import ConfigError
from slo.spec import load_slo_file, parse_duration_s
from slo.thresholds import RELATIVE

TOLD_INCIDENTS = 10


def register(baseline: Groups) -> None:
    """Add the commands to the group `baseline`."""
    collect = add_command(baseline, "collect", run_collect, "read healthy traffic into baseline.json",
                          "sft-guard baseline collect --log state/exchanges --incidents state --out baseline.json\n"
                          "  sft-guard baseline collect --prometheus http://127.0.0.1:9090 --service faq-bot "
                          "--out baseline.json")  # fmt: skip
    source = collect.add_mutually_exclusive_group(required=True)
    source.add_argument("--log", type=Path, nargs="+", metavar="PATH", help="segments or directories")
    source.add_argument("--prometheus", metavar="URL", help="a Prometheus, or a store that speaks its API")
    collect.add_argument("--service", help="with --prometheus: only this service")
    collect.add_argument("--job", help="with --prometheus: only this scrape job")
    about = "with --prometheus: variable of the environment that holds a bearer token"
    collect.add_argument("--token-env", metavar="NAME", help=about)
    collect.add_argument("--out", type=Path, required=True, help="where baseline.json is written")
    collect.add_argument("--window", default="1h", help="span of one value of the distribution (default 1h)")
    collect.add_argument(
        "--exclude", action="append", default=[], metavar="FROM/TO", help="Unix seconds or ISO times; an incident, say"
    )
    about = "leave out the incidents that the guard recorded in its state directory"
    collect.add_argument("--incidents", type=Path, metavar="STATE_DIR", help=about)
    about = f"of a longer span take the latest DAYS (default {MAX_DAYS:g}, at most {SPAN_DAYS:g})"
    collect.add_argument("--days", type=float, default=MAX_DAYS, help=about)
    collect.add_argument(
        "--force", action="store_true", help="accept less than 7 days or too few exchanges; marked in the file"
    )
    about = "guard.yaml: stamps embedder and configuration, and collects the windows that its rules need"
    collect.add_argument("-c", "--config", type=Path, help=about)
    collect.add_argument("--release", help="short id: only exchanges of this release, for a previous_baseline")
    collect.add_argument("--no-drift", action="store_true", help="leave out the references for drift")
    show = add_command(baseline, "show", run_show, "read a baseline", "sft-guard baseline show baseline.json")
    show.add_argument("file", type=Path, help="baseline.json")
    about = "compare two baselines: exit 0 alike, 1 something moved or was measured differently"
    diff = add_command(baseline, "diff", run_diff, about, "sft-guard baseline diff last-month.json baseline.json")
    diff.add_argument("before", type=Path, help="baseline.json")
    diff.add_argument("after", type=Path, help="baseline.json to compare with it")
    diff.add_argument("--all", action="store_true", help="also what did not move")


def run_collect(args: argparse.Namespace) -> int:
    """Collect and write; refuses too little traffic unless forced."""
    from slo.baselines import save_baseline, show

    terms = _terms(args)
    if args.log:
        baseline, left_out = _from_log(args, terms)
    else:
        baseline, left_out = _from_prometheus(args, terms), 0
    save_baseline(baseline, args.out)
    for note in baseline.notes:
        progress(f"sft-guard: {note}")
    result = {
        "out": str(args.out),
        "exchange_count": baseline.exchange_count,
        "days": baseline.days,
        "forced": baseline.forced,
        "lines_left_out": left_out,
        "excluded": dict(baseline.excluded),
        "notes": baseline.notes,
        "drift": [f"{d.component} {d.fingerprint}" for d in baseline.drift],
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


def run_diff(args: argparse.Namespace) -> int:
    """Compare two; exit 1 when a person should look."""
    from slo.baseline_diff import diff, show_diff
    from slo.baselines import load_baseline

    found = diff(load_baseline(args.before), load_baseline(args.after))
    result = {"material": found.material, "apart": found.apart, "only_in": found.only_in, "terms": found.terms,
              "changes": found.changes if args.all else ()}  # fmt: skip
    emit(args, result, show_diff(found, everything=args.all))
    return 1 if found.material else 0


def _from_log(args: argparse.Namespace, terms: Terms) -> tuple[Baseline, int]:
    """The baseline and how many lines were left out."""
    from guard.checks.drift_reference import TEXT_COUNT, make_references, words_of
    from slo.collecting import assemble
    from slo.sources.log_baseline import gather, sample_words
    from slo.sources.log_table import open_log

    with open_log(args.log) as table:
        gathered = gather(table, terms, lambda share: progress(f"  {share:.0%} of a pass over the log"))
        for problem in table.problems:
            progress(f"sft-guard: {problem}")
        if table.bad_count:
            progress(f"sft-guard: {table.bad_count} lines or files left out")
        baseline = assemble(gathered, terms)  # refuses before anything is embedded
        if args.no_drift:
            return baseline, table.bad_count
        words = words_of(sample_words(table, terms, gathered, TEXT_COUNT))
        if words:
            progress(f"  {len(words)} texts for the drift reference")
        return assemble(gathered, terms, *make_references(words, terms.embedder)), table.bad_count


def _from_prometheus(args: argparse.Namespace, terms: Terms) -> Baseline:
    from guard.settings.loading import environment_value
    from slo.collecting import assemble
    from slo.sources.prometheus_baseline import gather
    from slo.sources.prometheus_range import PrometheusApi

    token = environment_value(args.token_env) if args.token_env else None
    if args.token_env and token is None:
        raise ConfigError("--token-env", args.token_env, f"set the environment variable {args.token_env}")
    api = PrometheusApi(args.prometheus, token=token)
    gathered = gather(
        api, terms, service=args.service, job=args.job, on_progress=lambda name: progress(f"  asked for {name}")
    )
    return assemble(gathered, terms, drift_missing="Prometheus holds no text")


def _terms(args: argparse.Namespace) -> Terms:
    """What is asked for, from the options and, when named, guard.yaml."""
    settings = load_without_secrets(args.config)[0] if args.config else None
    now_wall_s = SystemClock().wall_s()
    try:
        window_s = parse_duration_s(args.window)
    except ValueError as error:
        raise ConfigError("--window", args.window, "write a duration such as 10m, 1h or 1d") from error
    if not 0 < args.days <= SPAN_DAYS:
        raise ConfigError("--days", args.days, f"write a number of days up to {SPAN_DAYS:g}")
    return Terms(
        now_wall_s=now_wall_s,
        window_s=window_s,
        more_windows_s=_windows_of(settings),
        max_days=args.days,
        force=args.force,
        exclusions=tuple(time_range("--exclude", text) for text in args.exclude),
        incidents=_incidents(args.incidents, now_wall_s),
        release=args.release,
        source="exchange log" if args.log else args.prometheus,
        embedder=settings.file.checks.embedder if settings else "",
        config_hash=_config_hash(settings),
    )


def _config_hash(settings: Settings | None) -> str:
    from guard.settings.measured_by import measuring_hash

    return measuring_hash(settings) if settings else ""


def _incidents(state_dir: Path | None, now_wall_s: float) -> tuple[IncidentSpan, ...]:
    if state_dir is None:
        return ()
    from guard.release.incident import utc
    from guard.release.recorded import recorded_incidents, unhealthy_spans

    incidents = {i.incident_id: i for i in recorded_incidents(state_dir)}
    spans = tuple(unhealthy_spans(tuple(incidents.values()), now_wall_s))
    for span in sorted(spans, key=lambda s: s.end_wall_s)[-TOLD_INCIDENTS:]:
        incident = incidents[span.incident_id]
        ended = f"to {utc(span.end_wall_s)}"
        if incident.closed_s is None:
            ended = f"on: it is open; if it is over, `sft-guard incident close {span.incident_id} --reason TEXT`"
        what = f"{incident.kind}, {incident.rule} of {incident.bad.name}"
        progress(f"sft-guard: {span.incident_id} ({what}) leaves out all traffic from {utc(span.start_wall_s)} {ended}")
    if len(spans) > TOLD_INCIDENTS:
        progress(f"sft-guard: and {len(spans) - TOLD_INCIDENTS} earlier incidents leave out their time")
    return spans


def _windows_of(settings: Settings | None) -> tuple[float, ...]:
    """Window lengths of the rules that need a baseline."""
    if settings is None or settings.file.slo is None:
        return ()
    objectives = load_slo_file(settings.resolve(settings.file.slo)).objectives
    return tuple(sorted({o.window.length_s for o in objectives if o.threshold.form in RELATIVE}))
