"""Incidents of a state directory, read without its lock: for programs beside a running guard."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import msgspec

from guard.release.incident import Incident, IncidentKind
from slo.artefact import IncidentSpan
from slo.errors import DataError

HARMLESS = frozenset({IncidentKind.DRILL, IncidentKind.CONDITION})
"""A rehearsal touched no traffic; a condition is the guard's own trouble."""

MAX_LEAD_S = 6 * 3600.0


def recorded_incidents(state_dir: Path) -> tuple[Incident, ...]:
    """All incidents of the record, oldest first.

    Raises:
        DataError: no record there, or one that cannot be read.
    """
    path = state_dir / "release.db"
    if not path.is_file():
        raise DataError(f"{path}: does not exist; name the guard's state directory (state_dir in guard.yaml)")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5.0)) as db:
            rows = db.execute("SELECT doc FROM incidents ORDER BY opened_s").fetchall()
            return tuple(msgspec.json.decode(row[0], type=Incident) for row in rows)
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        raise DataError(f"{path}: incidents cannot be read ({error}); run it with the guard's own version") from error


def unhealthy_spans(incidents: tuple[Incident, ...], now_wall_s: float) -> Iterator[IncidentSpan]:
    """When traffic was not healthy: from the breach's own window before an incident opened until it closed.

    A rule tells of a breach when its window is full of it, so the shortest window among the evidence came before, at
    most 6 h of it. An open incident lasts until now.
    """
    for incident in incidents:
        if incident.kind in HARMLESS:
            continue
        lead_s = min((e.window_s for e in incident.evidence), default=0.0)
        end_s = now_wall_s if incident.closed_s is None else incident.closed_s
        yield IncidentSpan(
            incident.incident_id, incident.opened_s - min(lead_s, MAX_LEAD_S), max(end_s, incident.opened_s)
        )
