"""Sections about what is measured off the path: checks and the exchange log."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from guard.settings.fields import Bytes, Model, Ratio, Seconds
from guard.settings.following import DriftSettings, ProbeSettings
from guard.settings.safety import SafetySettings
from guard.settings.slower_tiers import DetectorSettings, JudgeSettings


class CheckSettings(Model):
    """Checks off the path."""

    enabled: bool = Field(True, description="Check answers at all; without it quality objectives are unknown.")
    embedder: str = Field(
        "static",
        description="static, all-MiniLM-L6-v2, the name or path of a sentence-transformers model, a directory made by "
        "`sft-guard embedder distill`, endpoint (see `embeddings`), or none.",
    )
    transformer: str = Field(
        "none",
        description="An embedder by name or path that is asked about claims in doubt, such as all-MiniLM-L6-v2; needs "
        "numbers of `sft-guard combiner train --transformer`. Or none.",
    )
    rules: Path | None = Field(None, description="rules.yaml")
    calibration: Path | None = Field(None, description="Numbers of the grounding check; default: the shipped ones.")
    grounding_threshold: Ratio | None = Field(None, description="Else the calibrated one.")
    queue: int = Field(
        2000, ge=1, le=100_000, description="Exchanges that may wait for the checks; more are dropped and counted."
    )
    queue_bytes: Bytes = Field(8 * 2**20, description="Bytes of them; what is over either limit is dropped.")
    pii: bool = Field(
        True, description="Look for personal data and secrets in answers, and redact them in what is stored."
    )
    drift: DriftSettings = DriftSettings()
    intents: Path | None = Field(None, description="intents.yaml: key intents and how good their answers must be.")
    probes: ProbeSettings | None = None
    safety: SafetySettings = SafetySettings()
    detector: DetectorSettings | None = Field(None, description="A model for claims in doubt; see docs/detectors.md.")
    judge: JudgeSettings | None = Field(None, description="A judging model, sampled, within a daily budget.")

    @model_validator(mode="after")
    def _enforced_when_on(self) -> CheckSettings:
        if not self.enabled and self.safety.enforces:
            raise ValueError("a safety check is set to enforce and checks are off; turn the checks on, or write report")
        return self


class LogSettings(Model):
    """Exchange log."""

    enabled: bool = Field(True, description="Write the exchange log; baselines, reports and replays are made from it.")
    dir: Path | None = Field(None, description="Default: exchanges/ in the state directory.")
    text: Literal["none", "redacted", "full"] = Field(
        "redacted", description="Questions and answers in the log: none, with personal data taken out, or as they were."
    )
    segment: Bytes = Field(64 * 2**20, description="A file of the log is closed at this size.")
    keep: Seconds = Field(30 * 86400.0, description="Older files are deleted.")
    max_total: Bytes = Field(10 * 2**30, description="Of the whole log; beyond, the oldest files are deleted.")
    parquet: bool = Field(
        True, description="Closed segments become Parquet, in a process of their own; needs the `analysis` extra."
    )
