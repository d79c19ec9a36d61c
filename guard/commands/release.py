"""release and incident: the operator's side of the admin API."""

from __future__ import annotations

import argparse
import getpass
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from guard.commands.common import Groups, add_command, add_group, emit
from guard.settings import environment_value, load_settings
from slo.errors import RefusedError, UpstreamError


def register(groups: Groups) -> None:
    """Add the commands of this module."""
    release = add_group(groups, "release", "canary releases")
    commands = [add_command(release, "status", run_status, "what is serving, and why", "sft-guard release status")]
    start = add_command(release, "start", run_change, "send a share of the sessions to a version",
                        "sft-guard release start v1.2.1 --advance auto")  # fmt: skip
    start.add_argument("version")
    start.add_argument("--plan", help="default, short, or `20%% for 2h`")
    about = "auto: the guard may raise the weight along the plan, one stage at a time, on pass"
    start.add_argument("--advance", choices=("manual", "auto"), default="manual", help=about)
    start.add_argument("--again", action="store_true", help="although this version was rolled back before")
    commands.append(start)
    for name, help_text in (
        ("promote", "one stage up; at the last one the canary becomes stable"),
        ("abort", "take all traffic from the canary"),
        ("rollback", "take all traffic from the canary, or return to the previous release"),
        ("pause", "hold the present weight"),
        ("resume", "go on after a pause"),
        ("drill", "rehearse a rollback and report how long it took; traffic is not touched"),
    ):
        command = add_command(release, name, run_change, help_text, f"sft-guard release {name}")
        command.set_defaults(now=False, force=False)
        if name == "rollback":
            command.add_argument("--force", action="store_true", help="also when no release is under way")
        if name == "promote":
            command.add_argument("--now", action="store_true", help="make it stable at once, whatever the stage")
        commands.append(command)
    for parser in commands[2:]:
        parser.add_argument("--reason", default="", help="a word for the audit log")
    start.set_defaults(reason="")

    incident = add_group(groups, "incident", "what happened, with evidence")
    commands.append(add_command(incident, "list", run_incidents, "all incidents", "sft-guard incident list"))
    for name, run, help_text in (
        ("show", run_incident, "one incident: timeline and evidence"),
        ("postmortem", run_postmortem, "its facts as Markdown"),
    ):
        parser = add_command(incident, name, run, help_text, f"sft-guard incident {name} ID")
        parser.add_argument("id")
        commands.append(parser)
    for parser in commands:
        parser.add_argument("-c", "--config", type=Path, help="take the admin address and token from this guard.yaml")
        parser.add_argument("--admin", help="admin listener (default http://127.0.0.1:8801)")
        parser.add_argument("--token-env", default="SFT_GUARD_TOKEN", help="environment variable with the bearer token")


def run_status(args: argparse.Namespace) -> int:
    """Print the release status."""
    status = _call(args, "GET", "/api/v1/release")
    emit(args, status, _status_text(status))
    return 0


def run_change(args: argparse.Namespace) -> int:
    """Carry out one release command."""
    body: dict[str, Any] = {"reason": args.reason, "actor": getpass.getuser()}
    if args.release_command == "start":
        body |= {"version": args.version, "advance": args.advance, "force": args.again}
        if args.plan:
            body["plan"] = args.plan
    if args.release_command == "promote":
        body["force"] = args.now
    elif args.release_command == "rollback":
        body["force"] = args.force
    result = _call(args, "POST", f"/api/v1/release/{args.release_command}", body)
    text = str(result.get("message", "done"))
    if result.get("mttr_s") is not None:
        text += f"\nfrom the verdict to the last receiver told: {result['mttr_s']:.2f} s"
    if result.get("incident_id"):
        text += f"\nincident {result['incident_id']}"
    emit(args, result, f"{text}\n\n{_status_text(result['status'])}" if "status" in result else text)
    return 0


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
    if status["stage_number"]:
        held = f"held {status['stage_held_s']:.0f} of {status['stage_hold_s']:.0f} s"
        events = f"{status['stage_events_count']} of {status['stage_min_events_count']} events"
        lines.append(f"stage        {status['stage_number']} of {status['stage_count']}: {held}, {events}")
    for key in ("reason", "recommendation", "incident_id"):
        if status[key]:
            lines.append(f"{key:12} {status[key]}")
    lines += [f"condition    {condition}" for condition in status["conditions"]]
    return "\n".join(lines)


def run_incidents(args: argparse.Namespace) -> int:
    """List incidents; exit 0 also when there is none."""
    incidents = _call(args, "GET", "/api/v1/incidents")
    rows = incidents.get("incidents", [])
    emit(args, incidents, "\n".join(f"{r['id']}  {r['kind']:16} {r.get('title', '')}" for r in rows) or "no incident")
    return 0


def run_incident(args: argparse.Namespace) -> int:
    """Show one incident."""
    incident = _call(args, "GET", f"/api/v1/incidents/{args.id}")
    emit(args, incident, json.dumps(incident, indent=2, ensure_ascii=False))
    return 0


def run_postmortem(args: argparse.Namespace) -> int:
    """Print the post-mortem of one incident."""
    result = _call(args, "GET", f"/api/v1/incidents/{args.id}/postmortem")
    emit(args, result, result["markdown"])
    return 0


def _call(args: argparse.Namespace, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the admin listener.

    Raises:
        UpstreamError: it cannot be reached or answers nonsense.
        RefusedError: it says no; the message is its own.
    """
    base, token = args.admin or "http://127.0.0.1:8801", environment_value(args.token_env)
    if args.config:
        settings = load_settings(args.config)
        base = args.admin or f"http://{settings.file.listen.admin}"
        token = settings.admin_token or token
    request = urllib.request.Request(base.rstrip("/") + path, method=method)  # noqa: S310 - http(s) checked below
    if request.type not in ("http", "https"):
        raise UpstreamError(f"--admin {base}: write http://host:port")
    request.add_header("content-type", "application/json")
    if token:
        request.add_header("authorization", f"Bearer {token}")
    data = json.dumps(body).encode() if body is not None else None
    try:
        with urllib.request.urlopen(request, data, timeout=30) as response:  # noqa: S310
            answer = response.read()
            kind = response.headers.get_content_type()
    except urllib.error.HTTPError as error:
        raise _refusal(error, base + path) from error
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UpstreamError(
            f"{base}: {reason}; is `sft-guard serve` running, and is this its admin address?"
        ) from error
    if kind != "application/json":
        return {"markdown": answer.decode("utf-8", "replace")}
    try:
        result = json.loads(answer)
    except ValueError as error:
        raise UpstreamError(f"{base}{path}: the answer is not JSON; is this the admin listener?") from error
    return result if isinstance(result, dict) else {"items": result}


def _refusal(error: urllib.error.HTTPError, url: str) -> RefusedError:
    """The server's own words, or what the status means."""
    try:
        detail = json.loads(error.read())["error"]
        return RefusedError(str(detail.get("type", error.code)), str(detail["message"]))
    except (ValueError, KeyError, TypeError):
        cure = {401: "set the token", 404: "changing state is off until the guard has an admin token"}.get(
            error.code, "see its log"
        )
        return RefusedError(str(error.code), f"{url} answers {error.code}; {cure}")
