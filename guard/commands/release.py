"""release and incident: the operator's side of the admin API."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any
from urllib.parse import quote

from guard.commands.admin_call import add_admin_options, call_admin
from guard.commands.common import Groups, add_command, add_group, emit, login
from guard.commands.incident_text import incident_text
from guard.release.incident import utc
from slo.errors import ConfigError


def register(groups: Groups) -> None:
    """Add the commands of this module."""
    release = add_group(groups, "release", "canary releases: who serves, start, promote, roll back")
    commands = [add_command(release, "status", run_status, "what is serving, and why", "sft-guard release status")]
    start = add_command(release, "start", run_change, "send a share of the sessions to a version",
                        "sft-guard release start v1.2.1 --advance auto")  # fmt: skip
    start.add_argument("version", help="name under versions in guard.yaml")
    start.add_argument("--plan", help="default, short, or `20%% for 2h`")
    about = "auto: in mode enforce the guard raises the weight along the plan, one stage at a time, on pass"
    start.add_argument("--advance", choices=("manual", "auto"), default="manual", help=about)
    start.add_argument("--again", action="store_true", help="start it although it was rolled back before")
    commands.append(start)
    for name, help_text in (
        ("promote", "one stage up; at the last one the canary becomes stable"),
        ("abort", "take all traffic from the canary"),
        ("rollback", "take all traffic from the canary, or return to the previous release"),
        ("pause", "hold the present weight"),
        ("resume", "go on after a pause"),
        ("drill", "rehearse a rollback and report how long it took; traffic is not touched; exit 1: it did not pass"),
    ):
        command = add_command(release, name, run_change, help_text, f"sft-guard release {name}")
        command.set_defaults(now=False, force=False)
        if name == "rollback":
            about = "return to the previous version also when no release is under way"
            command.add_argument("--force", action="store_true", help=about)
        if name == "promote":
            command.add_argument("--now", action="store_true", help="make it stable at once, whatever the stage")
        commands.append(command)
    for parser in commands[1:]:
        if not parser.prog.endswith(" drill"):  # it touches nothing that the audit log tells of
            parser.add_argument("--reason", default="", help="why, for the audit log")
        parser.set_defaults(reason="")

    incident = add_group(groups, "incident", "what happened, with evidence: list, show, close")
    commands.append(add_command(incident, "list", run_incidents, "all incidents", "sft-guard incident list"))
    for name, run, help_text in (
        ("show", run_incident, "one incident: timeline and evidence"),
        ("postmortem", run_postmortem, "its facts as Markdown"),
    ):
        parser = add_command(incident, name, run, help_text, f"sft-guard incident {name} ID")
        parser.add_argument("id", help="id of the incident")
        if name == "postmortem":
            about = "write postmortem.md there, with a picture of each rule over time"
            parser.add_argument("--out", type=Path, metavar="DIR", help=about)
        commands.append(parser)
    about = "say that it is dealt with: its alert ends, and baselines take traffic again"
    close = add_command(incident, "close", run_close, about,
                        'sft-guard incident close ID --reason "wrong index; v1.2.2 has the right one"')  # fmt: skip
    close.add_argument("id", help="id of the incident")
    close.add_argument("--reason", required=True, help="why it is over, for its timeline and the audit log")
    commands.append(close)
    for parser in commands:
        add_admin_options(parser)


def run_status(args: argparse.Namespace) -> int:
    """Print the release status."""
    status = call_admin(args, "GET", "/api/v1/release")
    emit(args, status, _status_text(status))
    return 0


def run_change(args: argparse.Namespace) -> int:
    """Carry out one release command; exit 1 when a rehearsal was carried out and did not pass."""
    body: dict[str, Any] = {"reason": args.reason, "actor": login()[:64]}
    if args.release_command == "start":
        body |= {"version": args.version, "advance": args.advance, "force": args.again}
        if args.plan:
            body["plan"] = args.plan
    if args.release_command == "promote":
        body["force"] = args.now
    elif args.release_command == "rollback":
        body["force"] = args.force
    result = call_admin(args, "POST", f"/api/v1/release/{args.release_command}", body)
    text = str(result.get("message", "done"))
    if result.get("mttr_s") is not None:
        text += f"\nfrom the verdict to the last receiver told: {result['mttr_s']:.2f} s"
    if result.get("incident_id"):
        text += f"\nincident {result['incident_id']}"
    emit(args, result, f"{text}\n\n{_status_text(result['status'])}" if "status" in result else text)
    return 1 if result.get("passed") is False else 0


def _status_text(status: dict[str, Any]) -> str:
    """The release for people: who answers, how far the canary is, what holds it."""

    def name(view: dict[str, Any] | None) -> str:
        if not view:
            return "none"
        made_of = " x ".join(view[part] for part in ("model", "adapter", "kb", "prompt", "policy") if view[part])
        return f"{view['name']} [{view['release']}] {made_of}"

    lines = [
        f"phase        {status['phase']}, mode {status['mode']}, advance {status['advance']}",
        f"stable       {name(status['stable'])}",
        f"canary       {name(status['canary'])}, {status['canary_ratio']:.0%} of the sessions",
        f"previous     {name(status['previous'])}",
    ]
    if status["stage_number"] and status["phase"] in ("rolling_out", "paused"):
        held = f"held {status['stage_held_s']:.0f} of {status['stage_hold_s']:.0f} s"
        events = f"{status['stage_events_count']} of {status['stage_min_events_count']} events"
        lines.append(f"stage        {status['stage_number']} of {status['stage_count']}: {held}, {events}")
    lines += [f"last judged  {_judged_text(status['last_judged'])}", f"last deed    {_deed_text(status['last_deed'])}"]
    for key in ("recommendation", "incident_id"):
        if status[key]:
            lines.append(f"{key:12} {status[key]}")
    if owed := status.get("owed"):  # a guard of before has none
        lines.append(f"owed         {_OWED.get(owed, owed)}")
    lines += [f"condition    {condition}" for condition in status["conditions"]]
    lines += [f"labels       {corrected_text(row)}" for row in status.get("hallucination", ()) if row["label_count"]]
    return "\n".join(lines)


_OWED = {
    "rollback": "a rollback: the weight is 0 here; the registry or the disk did not take all of it yet",
    "control": "the registry was not told of the last change; the other replicas go on as before",
    "pointer": "the registry's pointer does not show the release yet",
}


def _judged_text(judged: dict[str, Any] | None) -> str:
    """What the last evaluation came to."""
    if judged is None:
        return "not yet"
    verdict = f" (rules {judged['verdict']})" if judged["verdict"] else ""
    rule = f", rule {judged['rule']}" if judged["rule"] else ""
    return f"{utc(judged['wall_s'])} {judged['action']}{verdict}{rule}: {judged['reason']}"


def _deed_text(deed: dict[str, Any] | None) -> str:
    """What changed the release last, and who did it."""
    if deed is None:
        return "none: nothing was ever started here"
    return f"{utc(deed['wall_s'])} {deed['action']} by {deed['actor']}{': ' if deed['reason'] else ''}{deed['reason']}"


def corrected_text(row: dict[str, Any]) -> str:
    """One version's hallucination rate with what people said about it.

    >>> corrected_text({"name": "v2", "measured_ratio": 0.1, "label_count": 12, "label_needed_count": 30,
    ...                 "rate_ratio": None, "low_ratio": None, "high_ratio": None})
    'v2: hallucination 10.0% measured; 12 of 30 labels needed to correct it'
    """
    measured = "unknown" if row["measured_ratio"] is None else f"{row['measured_ratio']:.1%}"
    if row["rate_ratio"] is None:
        labels = f"{row['label_count']} of {row['label_needed_count']} labels needed to correct it"
        return f"{row['name']}: hallucination {measured} measured; {labels}"
    bounds = f"{row['low_ratio']:.1%} to {row['high_ratio']:.1%}"
    return (
        f"{row['name']}: hallucination {measured} measured, {row['rate_ratio']:.1%} ({bounds}) corrected by "
        f"{row['label_count']} labels"
    )


def run_incidents(args: argparse.Namespace) -> int:
    """List incidents; exit 0 also when there is none."""
    incidents = call_admin(args, "GET", "/api/v1/incidents")
    rows = incidents.get("incidents", [])
    emit(args, incidents, "\n".join(map(_incident_line, rows)) or "no incident")
    return 0


def _incident_line(row: dict[str, Any]) -> str:
    """When, whether it still stands, what."""
    state = "open" if row.get("closed_wall_s") is None else "closed"
    opened = f"{utc(row['opened_wall_s'])}  " if "opened_wall_s" in row else ""
    return f"{row['id']}  {opened}{state:6}  {row['kind']:16} {row.get('title', '')}"


def run_incident(args: argparse.Namespace) -> int:
    """Show one incident."""
    incident = call_admin(args, "GET", f"/api/v1/incidents/{quote(args.id, safe='')}")
    emit(args, incident, incident_text(incident))
    return 0


def run_close(args: argparse.Namespace) -> int:
    """Close one incident; exit 0 also when somebody did so before."""
    if not args.reason.strip():
        raise ConfigError("--reason", args.reason, "say in a few words why it is over")
    body = {"reason": args.reason, "actor": login()[:64]}
    result = call_admin(args, "POST", f"/api/v1/incidents/{quote(args.id, safe='')}/close", body)
    emit(args, result, result["message"])
    return 0


def run_postmortem(args: argparse.Namespace) -> int:
    """Print the post-mortem of one incident, or write it with a picture per rule."""
    result = call_admin(args, "GET", f"/api/v1/incidents/{quote(args.id, safe='')}/postmortem")
    if args.out is None:
        emit(args, result, result["markdown"])
        return 0
    from guard.commands.incident_plots import write_postmortem

    incident = call_admin(args, "GET", f"/api/v1/incidents/{quote(args.id, safe='')}")
    written = [str(path) for path in write_postmortem(result["markdown"], incident, args.out)]
    emit(args, {**result, "written": written}, "\n".join(f"wrote {path}" for path in written))
    return 0
