"""The guard: what it is made of, and the order in which its parts are built, started and stopped.

The order matters: the last committed split is applied and an interrupted rollback is finished before the data listener
opens, so that no request ever sees a default split.
"""

from __future__ import annotations

import asyncio

from guard.admin.server import AdminHandle
from guard.backend import GuardBackend
from guard.c_heap import giver_back
from guard.judge import LOOP_LAG_S, Vitals
from guard.probing.build import probe_runner
from guard.release.controller import Controller
from guard.release.outbox import Outbox
from guard.rule_files import Rules
from guard.settings import Settings, split_host_port
from guard.sinks import CheckedSink
from guard.split import WeightedSplit
from guard.wiring.admin import open_admin
from guard.wiring.cache import CacheParts
from guard.wiring.checks import pipeline_of
from guard.wiring.data_path import data_path_of
from guard.wiring.following import follow
from guard.wiring.judging import Judging
from guard.wiring.loops import KeptWindows, Loops, give_memory_back, watch_lag
from guard.wiring.recorders import Recorders
from guard.wiring.release import ReleaseParts
from guard.zeros import begin, rare_events
from slo.clock import Clock, SystemClock
from slo.errors import ConfigError
from slo.types import Version


class Guard:
    """One sidecar, and its `guard.parts.Parts`. `start()`, then requests; `reload()` at any time; `stop()` once."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """Reads every file, opens no socket.

        Raises:
            ConfigError, DataError: a file cannot be used.
        """
        self.settings, self.clock = settings, clock or SystemClock()
        self.started_s = self.clock.now_s()
        self.rules = Rules(settings, self.clock)
        self.last_reload: tuple[bool, float] = (True, self.clock.wall_s())
        self.vitals = Vitals(self.clock)
        _make_state_dir(settings)

        self.recorders = Recorders(settings, self.rules, self.clock, self.version_by_id)
        self.exporter, self.memory = self.recorders.exporter, self.recorders.memory
        self.recent, self.labels, self.quality = self.recorders.recent, self.recorders.labels, self.recorders.quality
        self.exchange_log = self.recorders.exchange_log
        self.loops = Loops(self.exporter)
        self.windows = KeptWindows(settings.state_dir, self.memory, self.exporter, self.clock)

        self.split = WeightedSplit(settings.targets[settings.file.release.stable])
        self.cached = CacheParts(settings, self.split, self.recorders, self.clock)
        self.cache, self.kept_care = self.cached.cache, self.cached.care
        self.fanout = self.recorders.fanout(self.cached.recorders())
        checked = CheckedSink(self.fanout, self.kept_care.care if self.kept_care is not None else None)
        self.pipeline = pipeline_of(settings, self.rules, checked, self.exporter, self.clock)
        self.data_path = data_path_of(self, self.recorders.thumb, self.cached.flag)
        if self.kept_care is not None:
            self.kept_care.connect(self.data_path, self.pipeline, self.exporter, self._lags)
        self.probes = checked.probes = probe_runner(self)

        self.release = ReleaseParts(self)
        self.journal, self.last_rollbacks = self.release.journal, self.release.last_rollbacks
        self.judging = Judging(self, self.release.expected)
        self.outside, self.intake = self.judging.outside, self.judging.intake
        self.fleet, self.judge = self.judging.fleet, self.judging.judge

        self.exporter.gauge_source(GuardBackend(self).gauges)
        self.exporter.gauge_source(self.labels.gauges)
        begin(self.exporter, rare_events(settings, (*self.rules.slos, *self.rules.outside)))
        self._admin: AdminHandle | None = None
        self.addresses = (settings.file.listen.data, settings.file.listen.admin)

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Restore, recover, listen, then judge.

        Raises:
            ConfigError: an address is taken. DataError: the journal cannot be read.
        """
        self.windows.load()
        controller = self.release.open()
        controller.restore()
        await controller.recover()
        if self.pipeline is not None:
            await self.pipeline.start()
        await self.cached.start(self.loops)
        host, port = split_host_port(self.settings.file.listen.data)
        data_port = await self.data_path.start(host, port)
        self._admin, admin_address = await open_admin(self)
        self.addresses = (f"{host}:{data_port}", admin_address)
        if self.fleet is not None:
            self.loops.begin("fleet_windows", self.fleet.run())
        self.release.run(controller, self.loops)
        if self.probes is not None:
            self.loops.begin("probes", self.probes.run())
        self.loops.begin("windows", self.windows.run())
        self.loops.begin("lag", watch_lag(self.vitals, self.clock))
        if (give_back := giver_back()) is not None:
            self.loops.begin("memory", give_memory_back(give_back, self.clock))

    async def stop(self, *, drain: bool) -> None:
        """Finish streams, flush what is queued, close everything. Safe after a start that failed half-way."""
        await self.data_path.drain()
        await self.loops.cancel()
        if self.pipeline is not None:
            await self.pipeline.stop()
        if self._admin is not None:
            await self._admin.close()
        await self.cached.stop()
        await asyncio.to_thread(self._flush)
        await self.release.close()
        self.judging.alerts.close()

    async def reload(self, settings: Settings) -> None:
        """Swap to a new configuration as a whole, or raise and change nothing.

        Raises:
            ConfigError: it cannot be used, or it changes what only a restart can change.
        """
        await follow(self, settings)
        self.last_reload = (True, self.clock.wall_s())

    def reload_failed(self) -> None:
        """A new configuration was refused; say so on the metrics page."""
        self.last_reload = (False, self.clock.wall_s())

    # -- what others ask ----------------------------------------------------------------------------------------------

    @property
    def controller(self) -> Controller | None:
        """None before `start`."""
        return self.release.controller

    @property
    def outbox(self) -> Outbox:
        """There from `start` on."""
        return self.release.outbox

    def version_of(self, name: str) -> Version | None:
        """The Version called `name`, None when it is not configured."""
        target = self.settings.targets.get(name)
        return target.version if target else None

    def version_by_id(self, release: str) -> Version | None:
        """The configured Version with this short id."""
        return next((t.version for t in self.settings.targets.values() if t.version.release_id == release), None)

    def dead_loops(self) -> tuple[str, ...]:
        """Names of loops that ended although the guard runs."""
        return self.loops.dead()

    def status_line(self) -> str:
        """What a log line says about the release."""
        if self.controller is None:
            return self.settings.file.release.stable
        state = self.controller.state
        canary = f", canary {state.canary} at {state.canary_ratio:.0%}" if state.in_traffic else ""
        return f"{state.stable}{canary}, mode {state.mode.value}"

    def _lags(self) -> bool:
        return self.vitals.last_lag_s > LOOP_LAG_S

    def _flush(self) -> None:
        self.recorders.close()
        self.windows.close()


def _make_state_dir(settings: Settings) -> None:
    try:
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        cure = f"choose a directory that can be written ({error.strerror})"
        raise ConfigError(f"{settings.path.name}: state_dir", str(settings.state_dir), cure) from error
