"""Sections about what is told by many exchanges: drift, key intents, questions asked again, probes."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from guard.settings.fields import Model, Name, Seconds


class DriftSettings(Model):
    """Drift by component."""

    reference: Path | None = Field(
        None,
        description="A reference or a baseline; else that of `baseline`, else learnt from the first questions.",
    )
    window: int = Field(200, ge=20, le=10_000, description="Questions per comparison.")
    embedder: str = Field(
        "",
        description="Reads questions for drift, e.g. all-MiniLM-L6-v2 (`embeddings` extra); else as the checks.",
    )
    learn: int = Field(12_000, ge=600, le=50_000, description="Questions of stable that are learnt from at most.")


class ProbeSettings(Model):
    """Labelled questions of our own, asked on a schedule."""

    file: Path = Field(description="probes.yaml or a file of JSON lines.")
    route: Name = Field(description="Name of the route they go through.")
    every: Seconds = Field(900.0, ge=10, description="One round: every probe once for each release in traffic.")
    per_hour: int = Field(240, ge=1, le=10_000, description="Requests an hour at most, all releases together.")
    k: int = Field(3, ge=1, le=50, description="How many passages count for recall.")
    before_traffic: tuple[Name, ...] = Field((), description="Versions asked also while they have no traffic.")
    model: str = Field("", description="`model` of the request; default: that of the version.")
