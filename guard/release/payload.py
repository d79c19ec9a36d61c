"""What a webhook says: the evidence of one incident in less than 20 kB. Pure.

Built once and stored; every try sends the same bytes. When the evidence is too large, exemplars go first, then details
of the difference, then verdicts beyond the first, then the length of texts; `truncated` says so.
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

EVENT_TYPES: dict[IncidentKind, str] = {
    IncidentKind.ROLLBACK: "release.rolled_back",
    IncidentKind.NO_TARGET: "release.no_target",
    IncidentKind.SHARED_UPSTREAM: "release.shared_upstream",
    IncidentKind.PAGE: "release.page",
    IncidentKind.CONDITION: "release.condition",
    IncidentKind.DRILL: "release.drill",
}

# What is left out, and how many bytes a text keeps: the last one fits whatever it is given.
_CUTS: tuple[tuple[Callable[[Incident], Incident], int], ...] = (
    (lambda i: i, 1000),
    (lambda i: replace(i, exemplars=i.exemplars[:10], timeline=i.timeline[-20:]), 500),
    (lambda i: replace(i, exemplars=i.exemplars[:3], differences=i.differences[:10], timeline=i.timeline[-10:]), 300),
    (lambda i: replace(i, exemplars=(), differences=i.differences[:5], evidence=i.evidence[:3], timeline=()), 200),
    (lambda i: replace(i, exemplars=(), differences=(), evidence=i.evidence[:1], timeline=()), 100),
)


def message_id(incident: Incident, suffix: str = "") -> str:
    """`webhook-id` of the message about this incident: the same on every replica, try and restart."""
    return message_id_of(incident.incident_id) + suffix


def message_id_of(incident_id: str) -> str:
    """As `message_id`, for whoever knows only the incident's id."""
    return f"msg_{incident_id.removeprefix('inc-')}"


def event_kind(incident: Incident) -> str:
    """The word by which a receiver asks for this event: rollback, shared_upstream, page, condition or drill.

    A rollback that found nothing to point to is a rollback to whoever asked for those.
    """
    return IncidentKind.ROLLBACK.value if incident.kind is IncidentKind.NO_TARGET else incident.kind.value


def webhook_body(incident: Incident, *, event: str = "") -> bytes:
    """Return the JSON body, below `LIMIT_BYTES`."""
    body = b""
    for cut, text_bytes in _CUTS:
        smaller = cut(incident)
        writer = _Writer(text_bytes)
        document = writer.document(smaller, event)
        document["data"]["truncated"] = writer.cut_count > 0 or smaller != incident
        body = msgspec.json.encode(document)
        if len(body) < LIMIT_BYTES:
            break
    return body


class _Writer:
    """Turns an incident into JSON objects; counts the texts it had to shorten."""

    def __init__(self, text_bytes: int) -> None:
        self._text_bytes = text_bytes
        self.cut_count = 0

    def document(self, incident: Incident, event: str) -> dict[str, Any]:
        text = self._text
        return {
            "type": event or EVENT_TYPES[incident.kind],
            "timestamp": _utc(incident.opened_s),
            "data": {
                "drill": incident.drill,
                "service": text(incident.service),
                "incident_id": incident.incident_id,
                "rule": text(incident.rule),
                "reason": text(incident.reason),
                "automatic": incident.automatic,
                "actor": text(incident.actor),
                "epoch": incident.epoch,
                "pointer": incident.pointer,
                "bad": self._version(incident.bad),
                "target": self._version(incident.target),
                "differences": [
                    {"part": text(d.part), "before": text(d.before), "after": text(d.after)}
                    for d in incident.differences
                ],
                "evidence": [self._evidence(e) for e in incident.evidence],
                "exemplars": [
                    {"exchange_id": text(x.exchange_id), "trace_id": text(x.trace_id)} for x in incident.exemplars
                ],
                "timeline": [{"time": _utc(t.wall_s), "what": text(t.what)} for t in incident.timeline],
                "truncated": False,
            },
        }

    def _version(self, version: Version) -> dict[str, str]:
        return {
            "release": version.release_id,
            "name": self._text(version.name),
            "model": self._text(version.model),
            "adapter": self._text(version.adapter),
            "kb": self._text(version.kb),
            "prompt": self._text(version.prompt),
            "policy": self._text(version.policy),
        }

    def _evidence(self, evidence: Evidence) -> dict[str, Any]:
        low, high = evidence.interval
        return {
            "rule": self._text(evidence.rule),
            "indicator": self._text(evidence.indicator),
            "release": self._text(evidence.release),
            "state": evidence.state,
            "window_s": evidence.window_s,
            "n": evidence.n,
            "bad_count": evidence.bad_count,
            "estimate": evidence.estimate,
            "interval": [low, high],
            "threshold": evidence.threshold,
            "baseline_hash": self._text(evidence.baseline_hash),
            "fast_path": evidence.fast,
            "reason": self._text(evidence.reason),
            "more": {self._text(name): self._text(value) for name, value in evidence.more[:20]},
        }

    def _text(self, text: str) -> str:
        """At most `text_bytes` of UTF-8, cut between characters; control characters swell in JSON: spaces instead."""
        clean = "".join(char if char >= " " else " " for char in text)
        raw = clean.encode(errors="replace")  # a lone surrogate cannot be encoded; it becomes "?"
        if len(raw) <= self._text_bytes:
            return raw.decode()
        self.cut_count += 1
        return raw[: self._text_bytes - 3].decode(errors="ignore") + "\u2026"


def _utc(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
