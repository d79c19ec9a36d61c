"""Incidents."""

from __future__ import annotations

from dataclasses import dataclass

from guard.admin.shapes.release import VersionView
from guard.release.aftermath import Aftermath
from guard.release.incident import Difference, Evidence, Exemplar, TimelineEntry


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """One incident in the list. closed_wall_s None: open. mttr_s: of a rehearsal that passed, seconds."""

    id: str
    kind: str
    title: str
    opened_wall_s: float
    closed_wall_s: float | None
    automatic: bool
    mttr_s: float | None = None


@dataclass(frozen=True, slots=True)
class IncidentClosed:
    """An incident is closed. changed: it was open before."""

    id: str
    message: str
    closed_wall_s: float
    changed: bool


@dataclass(frozen=True, slots=True)
class IncidentList:
    """Newest first."""

    incidents: tuple[IncidentRow, ...]


@dataclass(frozen=True, slots=True)
class IncidentDetail:
    """One incident with its evidence."""

    id: str
    kind: str
    title: str
    service: str
    opened_wall_s: float
    closed_wall_s: float | None
    automatic: bool
    actor: str
    rule: str
    reason: str
    bad: VersionView
    target: VersionView
    epoch: int
    pointer: str
    timeline: tuple[TimelineEntry, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    differences: tuple[Difference, ...] = ()
    exemplars: tuple[Exemplar, ...] = ()
    notes: tuple[str, ...] = ()
    aftermath: Aftermath | None = None
