"""What a whole guard is made of, for those who look at all of it: the admin listener, the metrics page, probes, wiring.

`guard.wiring` builds it. Whoever needs one or two parts takes those, not this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from exporters.exchange_log import ExchangeLog
    from exporters.fanout import Fanout
    from exporters.prometheus import PrometheusExporter
    from guard.alert_intake import AlertIntake
    from guard.cache.build import GuardCache
    from guard.cache.care_build import KeptCare
    from guard.fleet_windows import FleetSource
    from guard.human_labels import HumanLabels
    from guard.judge import SloJudge, Vitals
    from guard.outside import OutsideAlerts
    from guard.pipeline import WorkerPipeline
    from guard.probing.runner import ProbeRunner
    from guard.proxy import DataPath
    from guard.quality import QualityRecorder
    from guard.recent import RecentExchanges
    from guard.release.controller import Controller
    from guard.release.journal import Journal
    from guard.release.outbox import Outbox
    from guard.rule_files import Rules
    from guard.settings import Settings
    from guard.split import WeightedSplit
    from slo.clock import Clock
    from slo.sources.memory import MemorySource
    from slo.types import Version


class Parts(Protocol):
    """One guard. None stands for what its settings do not ask for.

    settings, rules: change with a reload; ask anew each time. started_s: monotonic. last_reload: (it was taken, Unix
    seconds). last_rollbacks: release -> Unix seconds, of this process.
    """

    settings: Settings
    rules: Rules
    clock: Clock
    vitals: Vitals
    started_s: float
    last_reload: tuple[bool, float]

    exporter: PrometheusExporter
    memory: MemorySource
    recent: RecentExchanges
    labels: HumanLabels
    quality: QualityRecorder
    exchange_log: ExchangeLog | None
    fanout: Fanout

    split: WeightedSplit
    data_path: DataPath
    pipeline: WorkerPipeline | None
    cache: GuardCache | None
    kept_care: KeptCare | None
    probes: ProbeRunner | None

    judge: SloJudge
    outside: OutsideAlerts
    intake: AlertIntake
    fleet: FleetSource | None
    journal: Journal
    last_rollbacks: dict[str, float]

    @property
    def controller(self) -> Controller | None:
        """None before the start."""
        ...

    @property
    def outbox(self) -> Outbox:
        """There from the start on."""
        ...

    def version_of(self, name: str) -> Version | None:
        """The Version called `name`, None when it is not configured."""
        ...

    def dead_loops(self) -> tuple[str, ...]:
        """Names of loops that ended although the guard runs."""
        ...
