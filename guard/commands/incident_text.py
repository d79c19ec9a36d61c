"""One incident as lines for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from guard.release.incident import utc

SHOWN_EXCHANGES = 5


def incident_text(incident: dict[str, Any]) -> str:
    """What happened, when, to whom, on what evidence, and whether it helped.

    incident: the body of `GET /api/v1/incidents/{id}`. Control characters of text from outside are taken out: a
    version's name must not move the cursor of the person on call.
    """
    return "\n".join(_printable(line) for line in _lines(incident))


def _lines(incident: dict[str, Any]) -> Iterator[str]:
    closed_s = incident["closed_wall_s"]
    ended = "still open" if closed_s is None else f"closed after {closed_s - incident['opened_wall_s']:.0f} s"
    bad, target = incident["bad"], incident["target"]
    yield f"{incident['id']}  {incident['kind']}, {ended}"
    yield f"reason     {incident['reason']}"
    yield f"release    {bad['name']} [{bad['release']}]"
    yield f"stable     {target['name']} [{target['release']}]; registry pointer {incident['pointer']}"
    yield f"decided by {incident['actor']}{', automatically' if incident['automatic'] else ''}, rule {incident['rule']}"
    after = incident.get("aftermath") or {}
    if after.get("since_s") is not None:
        yield f"bad since  {utc(after['since_s'])}, {incident['opened_wall_s'] - after['since_s']:.0f} s before"
    if after.get("words"):
        yield f"since then {after['words']}"
    yield from _section("timeline", [f"{utc(e['wall_s'])}  {e['what']}" for e in incident["timeline"]])
    yield from _section("evidence", [f"{e['rule']}: {e['state']}, {e['reason']}" for e in incident["evidence"]])
    changed = [f"{d['part']}: {d['before'] or '-'} -> {d['after'] or '-'}" for d in incident["differences"]]
    yield from _section("changed between the versions", changed)
    exchanges = [e["exchange_id"] for e in incident["exemplars"]]
    rest = len(exchanges) - SHOWN_EXCHANGES
    shown = exchanges[:SHOWN_EXCHANGES] + ([f"and {rest} more"] if rest > 0 else [])
    yield from _section("answers to look at", shown)
    yield from _section("notes", list(incident["notes"]))
    yield ""
    yield f"next: sft-guard incident postmortem {incident['id']} --out DIR"
    if closed_s is None and incident["kind"] in ("rollback", "no_target"):
        yield f"dealt with? sft-guard incident close {incident['id']} --reason TEXT (baselines wait for it)"


def _section(title: str, rows: list[str]) -> Iterator[str]:
    if rows:
        yield ""
        yield f"{title}:"
        yield from (f"  {row}" for row in rows)


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() else " " for char in line)
