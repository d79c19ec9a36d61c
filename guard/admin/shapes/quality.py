"""Drift and quality."""

from __future__ import annotations

from dataclasses import dataclass

from guard.probing.results import ProbeRow
from guard.quality_rows import IntentRow, UserRow


@dataclass(frozen=True, slots=True)
class DriftRow:
    """Drift of one component. score: effect size, in spreads of ordinary windows; None: not measured.

    state: unavailable | learning | steady | signal | alarm. clusters: the questions that moved most, redacted.
    """

    release: str
    component: str
    score: float | None
    state: str = "unknown"
    reason: str = ""
    clusters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What users make of the answers since the start, and what the last round of probes found."""

    intents: tuple[IntentRow, ...] = ()
    users: tuple[UserRow, ...] = ()
    probes: tuple[ProbeRow, ...] = ()
    probes_note: str = ""


@dataclass(frozen=True, slots=True)
class DriftReport:
    """All components of all releases in traffic."""

    components: tuple[DriftRow, ...]
