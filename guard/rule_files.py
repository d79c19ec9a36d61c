"""What is read from files beside guard.yaml: objectives, baselines, prices, plan. Replaced as a whole on reload."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

from guard.checks.spec import DRIFT_COMPONENT, HASHED_FINGERPRINT
from guard.release.plan import Plan, parse_plan
from guard.settings import Settings
from guard.settings.measured_by import measuring_hash
from slo.artefact import Baseline
from slo.baselines import load_baseline
from slo.clock import Clock
from slo.errors import DataError
from slo.outside import OutsideRule
from slo.pricing import PriceTable
from slo.spec import SloFile, load_slo_file
from slo.thresholds import Known
from slo.types import Slo

log = logging.getLogger("sft-guard")


class Rules:
    """What is read from files beside guard.yaml: objectives, baseline, prices. Replaced as a whole on reload."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Raises ConfigError, DataError: a file cannot be used."""
        file = settings.file
        self.slo_file: SloFile | None = load_slo_file(settings.resolve(file.slo)) if file.slo else None
        self.slos: tuple[Slo, ...] = self.slo_file.objectives if self.slo_file else ()
        self.outside: tuple[OutsideRule, ...] = self.slo_file.outside if self.slo_file else ()
        today = datetime.fromtimestamp(clock.wall_s(), UTC).date().isoformat()
        self.prices = PriceTable.load(settings.resolve(file.prices) if file.prices else None, today=today)
        self.baseline, self.baseline_problem = _baseline(settings, file.baseline)
        self.previous_baseline, _ = _baseline(settings, file.previous_baseline)
        self.drift_reference = self._drift_reference(settings, clock.wall_s())
        self._clock, self._embedder, self._config_hash = clock, file.checks.embedder, measuring_hash(settings)
        self.plan: Plan = parse_plan(written_plan(settings), f"{settings.path}: release.plan")

    def known(self) -> Known:
        """What limits may be taken from, now."""
        return Known(self._clock.wall_s(), self.baseline, self.previous_baseline, self._embedder, self._config_hash)

    def _drift_reference(self, settings: Settings, wall_s: float) -> str:
        """The file that the check worker compares questions with: the one named, else a valid baseline that has one.

        "" where there is neither: the check then learns from the first questions.
        """
        named, path, baseline = settings.file.checks.drift.reference, settings.file.baseline, self.baseline
        if named is not None:
            return str(settings.resolve(named))
        if path is None or baseline is None or baseline.expires_wall_s <= wall_s:
            return ""
        usable = any(d.component == DRIFT_COMPONENT and d.fingerprint == HASHED_FINGERPRINT for d in baseline.drift)
        return str(settings.resolve(path)) if usable else ""


def _baseline(settings: Settings, path: Path | None) -> tuple[Baseline | None, str]:
    """The baseline at `path`, or why there is none."""
    if path is None:
        return None, "none is configured; collect one with `sft-guard baseline collect`"
    try:
        return load_baseline(settings.resolve(path)), ""
    except DataError as error:
        # Rules that need it are unknown and say so; absolute ones still act, so this does not stop the start.
        log.error("baseline: %s", error)
        return None, str(error)


def written_plan(settings: Settings) -> str | list[object]:
    """release.plan as `parse_plan` takes it."""
    plan = settings.file.release.plan
    if isinstance(plan, str):
        return plan
    return [{"weight": s.weight, "hold": s.hold, "min_events": s.min_events} for s in plan]
