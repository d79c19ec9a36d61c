"""What a webhook says: the evidence of one incident in less than 20 kB. Pure.

Built once and stored; every try sends the same bytes. When the evidence is too large, exemplars go first, then details
of the difference, then verdicts beyond the first; `truncated` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from guard.release.incident import Evidence, Incident, IncidentKind
from slo.types import Version

LIMIT_BYTES = 20_000
_TEXT_CHARS = 500

EVENT_TYPES: dict[IncidentKind, str] = {
    IncidentKind.ROLLBACK: "release.rolled_back",
    IncidentKind.NO_TARGET: "release.no_target",
    IncidentKind.SHARED_UPSTREAM: "release.shared_upstream",
    IncidentKind.DRILL: "release.drill",
}


def message_id(incident: Incident, suffix: str = "") -> str:
    """`webhook-id` of the message about this incident: the same on every replica, try and restart."""
    return f"msg_{incident.incident_id.removeprefix('inc-')}{suffix}"


def webhook_body(incident: Incident, *, event: str = "") -> bytes:
    """Return the JSON body, below `LIMIT_BYTES`."""
    cuts: tuple[Callable[[Incident], Incident], ...] = (
        lambda i: i,
        lambda i: replace(i, exemplars=i.exemplars[:10], timeline=i.timeline[-20:]),
        lambda i: replace(i, exemplars=i.exemplars[:3], differences=i.differences[:10], timeline=i.timeline[-10:]),
        lambda i: replace(i, exemplars=(), differences=i.differences[:5], evidence=i.evidence[:3], timeline=()),
        lambda i: replace(i, exemplars=(), differences=(), evidence=i.evidence[:1], timeline=()),
    )
    body = b""
    for cut in cuts:
        smaller = cut(incident)
        body = msgspec.json.encode(_document(smaller, event, truncated=smaller != incident))
        if len(body) < LIMIT_BYTES:
            break
    return body


def _document(incident: Incident, event: str, *, truncated: bool) -> dict[str, Any]:
    return {
        "type": event or EVENT_TYPES[incident.kind],
        "timestamp": _utc(incident.opened_s),
        "data": {
            "drill": incident.drill,
            "service": _cut(incident.service),
            "incident_id": incident.incident_id,
            "rule": _cut(incident.rule),
            "reason": _cut(incident.reason),
            "automatic": incident.automatic,
            "actor": _cut(incident.actor),
            "epoch": incident.epoch,
            "pointer": incident.pointer,
            "bad": _version(incident.bad),
            "target": _version(incident.target),
            "differences": [
                {"part": _cut(d.part), "before": _cut(d.before), "after": _cut(d.after)} for d in incident.differences
            ],
            "evidence": [_evidence(e) for e in incident.evidence],
            "exemplars": [
                {"exchange_id": _cut(x.exchange_id), "trace_id": _cut(x.trace_id)} for x in incident.exemplars
            ],
            "timeline": [{"time": _utc(t.wall_s), "what": _cut(t.what)} for t in incident.timeline],
            "truncated": truncated,
        },
    }


def _version(version: Version) -> dict[str, str]:
    return {
        "release": version.release_id,
        "name": _cut(version.name),
        "model": _cut(version.model),
        "adapter": _cut(version.adapter),
        "kb": _cut(version.kb),
        "prompt": _cut(version.prompt),
        "policy": _cut(version.policy),
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    low, high = evidence.interval
    return {
        "rule": _cut(evidence.rule),
        "indicator": _cut(evidence.indicator),
        "release": _cut(evidence.release),
        "state": evidence.state,
        "window_s": evidence.window_s,
        "n": evidence.n,
        "bad_count": evidence.bad_count,
        "estimate": evidence.estimate,
        "interval": [low, high],
        "threshold": evidence.threshold,
        "baseline_hash": _cut(evidence.baseline_hash),
        "fast_path": evidence.fast,
        "reason": _cut(evidence.reason),
        "more": {_cut(name): _cut(value) for name, value in evidence.more[:10]},
    }


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_CHARS else text[: _TEXT_CHARS - 1] + "\u2026"


def _utc(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
