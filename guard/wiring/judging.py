"""What the judge judges by: rules, windows of this process or the fleet, and alerts from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from guard.alert_intake import AlertIntake
from guard.coverage import blind_indicators
from guard.fleet_windows import fleet_source
from guard.judge import SloJudge
from guard.outside import OutsideAlerts
from guard.state_files import AlertStore

if TYPE_CHECKING:
    from guard.parts import Parts


class Judging:
    """The judge of one guard with its sources. `fleet`: None where this process judges by its own windows."""

    def __init__(self, guard: Parts, expected: Callable[[str], Mapping[str, float]]) -> None:
        """expected: what an evaluation found for a version before it had traffic."""
        rules, clock = guard.rules, guard.clock
        self._guard = guard
        self.alerts = AlertStore(guard.settings.state_dir, clock.wall_s())
        self.outside = OutsideAlerts(rules.outside, self.alerts.known, clock)
        self.fleet = fleet_source(
            guard.settings, rules.slos, guard.memory, clock, lambda why: guard.exporter.fail_open("windows", why)
        )
        self.intake = AlertIntake(self.alerts, self.outside, clock)
        self.judge = SloJudge(
            rules.slos,
            self.fleet or guard.memory,
            rules.known,
            guard.version_of,
            guard.vitals,
            clock,
            outside=self.outside.verdicts,
            blind=self._blind,
            expected=expected,
        )

    def _blind(self) -> dict[str, str]:
        pipeline = self._guard.pipeline
        return blind_indicators(pipeline.stats().blind) if pipeline is not None else {}
