"""Composition: the only module that knows every adapter. Builds the guard from its settings, starts and stops it.

Start order matters: the last committed split is applied and an interrupted rollback is finished before the data
listener opens, so that no request ever sees a default split.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from exporters.exchange_log import ExchangeLog
from exporters.fanout import Fanout
from exporters.parquet import ParquetConverter
from exporters.prometheus import PrometheusExporter
from guard.admin.api import create_admin_app
from guard.admin.server import AdminHandle, serve_admin
from guard.alert_intake import AlertIntake
from guard.backend import GuardBackend
from guard.cache.build import GuardCache, fixed_part
from guard.cache.care_build import KeptCare
from guard.cache_backend import CacheBackend
from guard.checks.spec import CheckSpec
from guard.coverage import blind_indicators
from guard.embeddings import endpoint_spec
from guard.feedback import PATH as FEEDBACK_PATH
from guard.feedback import feedback_handler
from guard.fleet_windows import fleet_source
from guard.follow_settings import follow_spec, intents_of
from guard.human_labels import HumanLabels
from guard.judge import LOOP_LAG_S, SloJudge, Vitals
from guard.outside import OutsideAlerts
from guard.pipeline import PipelineLimits, WorkerPipeline
from guard.probing.build import probe_runner
from guard.proxy import DataPath
from guard.quality import QualityRecorder
from guard.recent import RecentExchanges
from guard.release.adapter_facts import AdapterFacts
from guard.release.alertmanager import AlertmanagerPoster
from guard.release.chat import ChatSender
from guard.release.controller import Controller
from guard.release.facts import Facts
from guard.release.incident import Incident, IncidentKind
from guard.release.journal import Journal
from guard.release.kb_facts import KbFacts
from guard.release.outbox import Outbox
from guard.release.pointer import ReleaseRegistry, translated
from guard.release.report import Hooks
from guard.release.state import Mode, Phase, ReleaseState
from guard.release.webhook import Sender, WebhookSender
from guard.rule_files import Rules
from guard.safety.screen import Screen
from guard.settings import Settings, split_host_port
from guard.settings.safety import safety_spec
from guard.sinks import CheckedSink, PathSink, WindowsRecorder
from guard.slower_tiers import detector_spec, judge_spec
from guard.split import WeightedSplit
from guard.state_files import AlertStore, load_windows, save_windows
from guard.tracing import onward_of, tracing_of
from registry.port import RegistryPort
from slo.actions import reason_code
from slo.clock import Clock, SystemClock
from slo.errors import ConfigError, DataError
from slo.sources.memory import MemorySource
from slo.thresholds import latency_bounds_s
from slo.types import Version

if TYPE_CHECKING:
    import aiohttp

    from registry.store import RegistryStore

log = logging.getLogger("sft-guard")

SAVE_EVERY_S = 30.0
LAG_EVERY_S = 0.05
LOG_QUEUE_BYTES = 4 * 2**20  # a second of peak traffic; what a stalled disk costs in memory at most
HISTORY_S = 3600.0
"""What is kept of an indicator's course with an incident: the span of the finest windows."""
SHED_RATIO = 0.25
"""Share of the traffic refused while a rule asks to shed and there is no canary; the lowest priority first."""


class Guard:
    """One sidecar. `start()`, then requests; `reload()` at any time; `stop()` once."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """Reads every file, opens no socket.

        Raises:
            ConfigError, DataError: a file cannot be used.
        """
        self.settings, self.clock = settings, clock or SystemClock()
        self.started_s = self.clock.now_s()
        self.rules = Rules(settings, self.clock)
        self.last_reload: tuple[bool, float] = (True, self.clock.wall_s())
        self.last_rollbacks: dict[str, float] = {}  # release -> Unix seconds, of this process
        self.vitals = Vitals(self.clock)
        file = settings.file
        try:
            settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            cure = f"choose a directory that can be written ({error.strerror})"
            raise ConfigError(f"{settings.path.name}: state_dir", str(settings.state_dir), cure) from error

        bounds = latency_bounds_s(self.rules.slos, self.rules.known())
        self.exporter = PrometheusExporter(file.service, bounds, clock=self.clock)
        self.memory = MemorySource(self.rules.slos, self.clock)
        self.recent = RecentExchanges()
        self.labels = HumanLabels(settings.state_dir)
        self.parquet: ParquetConverter | None = None
        self.exchange_log = self._exchange_log()
        cached = file.cache is not None and file.cache.enabled
        self.cache = GuardCache(settings, self.exporter, self.clock) if cached else None
        self.quality = QualityRecorder(self.memory, self.exporter.inc, intents_of(settings))
        recorders: dict[str, Any] = {
            "quality": self.quality,
            "prometheus": self.exporter,
            "windows": WindowsRecorder(self.memory),
            "recent": self.recent,
            "labels": self.labels,
        }
        if self.exchange_log is not None:
            recorders["exchange_log"] = self.exchange_log
        self.tracing = tracing_of(settings, self.version_by_id, self._spans_dropped)
        if self.tracing is not None:
            recorders["otel"] = self.tracing
        self.split = WeightedSplit(settings.targets[file.release.stable])
        self.kept_care: KeptCare | None = None
        if self.cache is not None:
            self.kept_care = KeptCare(settings, self.cache.answers, self.split, self.exporter, self.clock)
            recorders["cache"] = self.cache.answers
            recorders["cache_care"] = self.kept_care.care
            self.quality.source_of = self.cache.answers.source_of
            self.exporter.gauge_source(self.kept_care.care.gauges)
            self.exporter.gauge_source(self.cache.gauges)
        self.fanout = Fanout(recorders, self._recorder_failed)
        self.safety = safety_spec(settings)
        self._checked_sink = CheckedSink(self.fanout, self.kept_care.care if self.kept_care is not None else None)
        self.pipeline = self._pipeline()
        self.data_path = DataPath(
            settings.routes,
            self.split,
            PathSink(self.fanout, self.pipeline),
            self.rules.prices,
            file.limits.to_ports(),
            file.timeouts.to_ports(),
            clock=self.clock,
            trace=onward_of(settings),
            own_posts={
                FEEDBACK_PATH: feedback_handler(
                    self.recent,
                    self._thumb,
                    self._flag,
                    label=self.labels.label,
                    token=lambda: self.settings.admin_token,
                )
            },
            cache=self.cache.answers if self.cache is not None else None,
            screen=Screen(self.safety, self.exporter, self.clock.now_s) if self.safety.screens else None,
        )
        if self.kept_care is not None:
            sick = lambda: self.vitals.last_lag_s > LOOP_LAG_S  # noqa: E731 - a question, asked twice a second
            self.kept_care.connect(self.data_path, self.pipeline, self.exporter, sick)
        self.probes = self._checked_sink.probes = probe_runner(self)
        self.journal = Journal(settings.state_dir, on_fault=self._disk_fault)
        self.alerts = AlertStore(settings.state_dir, self.clock.wall_s())
        self.outside = OutsideAlerts(self.rules.outside, self.alerts.known, self.clock)
        self.fleet = fleet_source(
            settings, self.rules.slos, self.memory, self.clock, lambda why: self.exporter.fail_open("windows", why)
        )
        self.intake = AlertIntake(self.alerts, self.outside, self.clock)
        self.judge = SloJudge(
            self.rules.slos,
            self.fleet or self.memory,
            self.rules.known,
            self.version_of,
            self.vitals,
            self.clock,
            outside=self.outside.verdicts,
            blind=lambda: blind_indicators(self.pipeline.stats().blind) if self.pipeline is not None else {},
            expected=self._expected,
        )
        self.exporter.gauge_source(GuardBackend(self).gauges)
        self.exporter.gauge_source(self.labels.gauges)
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None
        self._registry: ReleaseRegistry | None = None
        self._admin: AdminHandle | None = None
        self._poster: AlertmanagerPoster | None = None
        self._store: RegistryStore | None = None
        self.controller: Controller | None = None
        self.addresses = (file.listen.data, file.listen.admin)

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Restore, recover, listen, then judge.

        Raises:
            ConfigError: an address is taken. DataError: the journal cannot be read.
        """
        file = self.settings.file
        self._load_windows()
        self.controller = self._controller()
        self.controller.restore()
        await self.controller.recover()
        if self.pipeline is not None:
            await self.pipeline.start()
        if self.cache is not None:
            await self.cache.start()
            self._background("cache", self.cache.run())
        if self.kept_care is not None:
            self.kept_care.care.start()
            self._background("cache_care", self.kept_care.care.run())
            self._background("cache_figures", self.kept_care.save())
        host, port = split_host_port(file.listen.data)
        data_port = await self.data_path.start(host, port)
        admin_host, admin_port = split_host_port(file.listen.admin)
        app = create_admin_app(
            GuardBackend(self),
            token=self.settings.admin_token,
            allowed_hosts=file.admin.allowed_hosts,
            clock=self.clock,
            on_refusal=lambda refusal: log.warning("admin: refused %s", refusal),
            cache=CacheBackend(self),
        )
        self._admin = await serve_admin(app, admin_host, admin_port)
        self.addresses = (f"{host}:{data_port}", f"{admin_host}:{self._admin.port}")
        if self.fleet is not None:
            self._background("fleet_windows", self.fleet.run())
        self._background("release", self.controller.run())
        if self.probes is not None:
            self._background("probes", self.probes.run())
        self._background("outbox", self.outbox.run())
        self._background("kb_facts", self.kb_facts.run())
        self._background("adapter_facts", self.adapter_facts.run())
        self._background("windows", self._save_windows())
        self._background("lag", self._watch_lag())
        if file.alertmanager is not None and self._session is not None:
            self._poster = AlertmanagerPoster(
                [file.alertmanager.url],
                self._session,
                self.clock,
                self.controller.open_incidents,
                repost_s=file.alertmanager.repost,
                runbook_url=file.alertmanager.runbook_url,
                on_result=self._posted,
            )
            self._background("alertmanager", self._poster.run())

    async def stop(self, *, drain: bool) -> None:
        """Finish streams, flush what is queued, close everything. Safe after a start that failed half-way."""
        await self.data_path.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.pipeline is not None:
            await self.pipeline.stop()
        if self._admin is not None:
            await self._admin.close()
        if self.kept_care is not None:
            await self.kept_care.stop()
        if self.cache is not None:
            await self.cache.stop()
        await asyncio.to_thread(self._flush)
        if self._registry is not None:
            await self._registry.close()
        if self._session is not None:
            await self._session.close()
        self.journal.close()
        self.alerts.close()
        if self._store is not None:
            self._store.close()

    async def reload(self, settings: Settings) -> None:
        """Swap to a new configuration as a whole, or raise and change nothing.

        Raises:
            ConfigError: it cannot be used, or it changes what only a restart can change.
        """
        self._refuse_restart_only(settings)
        rules = await asyncio.to_thread(Rules, settings, self.clock)
        state = self.controller.state if self.controller else None
        if state is not None:
            canary = state.canary if state.phase in (Phase.ROLLING_OUT, Phase.PAUSED) else ""
            for name in filter(None, (state.stable, canary)):
                if name not in settings.targets:
                    cure = f"keep it while a release uses it (release status: {state.phase.value})"
                    raise ConfigError(f"{settings.path.name}: versions", name, cure)
        file = settings.file
        self.data_path.swap(
            routes=settings.routes,
            limits=file.limits.to_ports(),
            timeouts=file.timeouts.to_ports(),
            pricer=rules.prices,
        )
        if rules.slos != self.rules.slos:
            self.memory.replace_objectives(rules.slos)
            if self.fleet is not None:
                self.fleet.replace_objectives(rules.slos)
        self.settings, self.rules = settings, rules
        if self.cache is not None:
            self.cache.configure(settings)
        self.judge.replace_rules(rules.slos, rules.known)
        await asyncio.to_thread(self.outside.replace_rules, rules.outside)
        if self.controller is not None:
            await self.controller.configure(
                plan=rules.plan,
                mode=Mode(file.release.mode),
                every_s=file.release.evaluate_every,
                drain_unknown=file.release.unknown_action == "drain",
                max_rollbacks_per_day=file.release.max_rollbacks_per_day,
                unknown_after_s=file.release.unknown_after,
            )
            self.apply(self.controller.state)
        self.last_reload = (True, self.clock.wall_s())

    def reload_failed(self) -> None:
        """A new configuration was refused; say so on the metrics page."""
        self.last_reload = (False, self.clock.wall_s())

    # -- what others ask ------------------------------------------------------------------------------------------

    def version_of(self, name: str) -> Version | None:
        """The Version called `name`, None when it is not configured."""
        target = self.settings.targets.get(name)
        return target.version if target else None

    def version_by_id(self, release: str) -> Version | None:
        """The configured Version with this short id."""
        return next((t.version for t in self.settings.targets.values() if t.version.release_id == release), None)

    def apply(self, state: ReleaseState) -> None:
        """Make a release state effective for the next request. Never fails, never waits."""
        targets = self.settings.targets
        stable = targets.get(state.stable)
        if stable is None:
            log.error(
                "version %s is stable and not in guard.yaml; %s answers",
                state.stable,
                self.settings.file.release.stable,
            )
            stable = targets[self.settings.file.release.stable]
        canary = targets.get(state.canary) if state.in_traffic else None
        ratio = state.canary_ratio if canary is not None else 0.0
        rollout = f"{self.settings.file.release.salt}{state.canary}"
        self.split.set(stable, canary, ratio, state.cache_epoch, rollout)
        self.outside.in_traffic(stable.version.release_id, canary.version.release_id if canary is not None else "")
        self.data_path.shed_ratio = SHED_RATIO if state.shedding else 0.0
        if self.kept_care is not None:
            self.kept_care.care.released()

    def dead_loops(self) -> tuple[str, ...]:
        """Names of loops that ended although the guard runs."""
        return tuple(task.get_name() for task in self._tasks if task.done())

    def status_line(self) -> str:
        """What a log line says about the release."""
        if self.controller is None:
            return self.settings.file.release.stable
        state = self.controller.state
        canary = f", canary {state.canary} at {state.canary_ratio:.0%}" if state.in_traffic else ""
        return f"{state.stable}{canary}, mode {state.mode.value}"

    # -- parts ----------------------------------------------------------------------------------------------------

    def _exchange_log(self) -> ExchangeLog | None:
        settings = self.settings.file.exchange_log
        if not settings.enabled:
            return None
        if settings.parquet:
            self.parquet = ParquetConverter(self.settings.log_dir)
        return ExchangeLog(
            self.settings.log_dir,
            on_closed=self.parquet.closed if self.parquet else lambda: None,
            text_mode=settings.text,
            segment_bytes=settings.segment,
            keep_days=settings.keep / 86400.0,
            max_total_bytes=settings.max_total,
            clock=self.clock,
            queue_bytes=LOG_QUEUE_BYTES,
            on_drop=lambda reason, count: self.exporter.inc("sft_guard_log_dropped_total", {"reason": reason}, count),
        )

    def _pipeline(self) -> WorkerPipeline | None:
        checks = self.settings.file.checks
        if not checks.enabled:
            return None
        spec = CheckSpec(
            embedder=checks.embedder,
            transformer=checks.transformer,
            rules_path=str(self.settings.resolve(checks.rules)) if checks.rules else "",
            grounding_threshold=checks.grounding_threshold,
            calibration_path=str(self.settings.resolve(checks.calibration)) if checks.calibration else "",
            pii=checks.pii,
            drift_reference=self.rules.drift_reference,
            drift_window=checks.drift.window,
            safety=self.safety,
            detector=detector_spec(self.settings),
            judge=judge_spec(self.settings, self.rules.prices),
            text_mode=self.settings.file.exchange_log.text,
            endpoint=endpoint_spec(self.settings),
            follow=follow_spec(self.settings),
        )
        return WorkerPipeline(
            spec,
            self.settings.routes,
            self._checked_sink,
            self.exporter,
            self.clock,
            limits=PipelineLimits(pending_count=checks.queue, pending_bytes=checks.queue_bytes),
        )

    def _controller(self) -> Controller:
        file = self.settings.file
        senders = self._senders()
        self.outbox = Outbox(
            self.journal,
            senders,
            self.clock,
            on_delivery=lambda result: self.exporter.inc("sft_guard_webhook_deliveries_total", {"result": result}),
            wants={w.name: w.events for w in file.webhooks},
            on_page=lambda reason, item: log.error("webhook %s: %s; the outbox goes on for 24 h", item.target, reason),
        )
        port = self._registry_port()
        self._registry = ReleaseRegistry(port, file.service, model=file.registry.model)
        self.kb_facts = KbFacts(port, lambda: [version.kb for version in self.settings.file.versions.values()])
        self.adapter_facts = AdapterFacts(port, lambda: [v.adapter for v in self.settings.file.versions.values()])
        hooks = Hooks(
            on_rollback=self._rolled_back,
            on_alert=lambda condition, text: log.error("release: %s: %s", condition, text),
            on_recommendation=lambda text: log.warning("release: recommended: %s", text),
            on_incident=self._incident_changed,
            on_new_life=self._new_life,
        )
        return Controller(
            self.journal,
            self._registry,
            self.judge,
            self.apply,
            self.outbox,
            self.clock,
            service=file.service,
            stable=file.release.stable,
            facts=self._facts(),
            plan=self.rules.plan,
            mode=Mode(file.release.mode),
            every_s=file.release.evaluate_every,
            drain_unknown=file.release.unknown_action == "drain",
            max_rollbacks_per_day=file.release.max_rollbacks_per_day,
            unknown_after_s=file.release.unknown_after,
            hooks=hooks,
        )

    def _senders(self) -> dict[str, Sender]:
        """Webhooks by name; the HTTP client is loaded only where something is posted (9 MB)."""
        file = self.settings.file
        if not file.webhooks and file.alertmanager is None:
            return {}
        import aiohttp

        self._session = session = aiohttp.ClientSession()
        return {w.name: self._sender(w.name, w.format, session) for w in file.webhooks}

    def _sender(self, name: str, kind: str, session: aiohttp.ClientSession) -> Sender:
        url = self.settings.webhook_urls[name]
        if kind == "slack":
            return ChatSender(name, url, session)
        return WebhookSender(name, url, self.settings.webhook_secrets[name], session, self.clock)

    def _registry_port(self) -> RegistryPort:
        # One of the two is loaded: a client of 9 MB, or a database of 14.
        url = self.settings.file.registry.url
        if url is not None:
            from registry.client import RegistryClient

            return RegistryClient(url, token=self.settings.registry_token)
        from registry.local import LocalRegistry
        from registry.store import RegistryStore

        with translated():
            self._store = RegistryStore(f"sqlite:///{self.settings.state_dir / 'registry.sqlite'}")
        return LocalRegistry(self._store)

    def _facts(self) -> Facts:
        def release_id(name: str) -> str:
            version = self.version_of(name)
            return version.release_id if version else ""

        return Facts(
            versions=_ConfiguredVersions(self),
            details=lambda name: self._details(name),
            exemplars=lambda name: self.recent.exemplars(release_id(name)),
            event_count=lambda name: self.recent.event_count[release_id(name)],
            history=lambda slo, name: self.memory.history(slo, release_id(name), HISTORY_S),
        )

    def _details(self, name: str) -> Mapping[str, str]:
        version = self.settings.file.versions.get(name)
        if version is None:
            return {}
        return {**self.kb_facts.details(version.kb), **self.adapter_facts.details(version.adapter), **version.details}

    def _expected(self, name: str) -> Mapping[str, float]:
        """What an evaluation found for a version before it had traffic."""
        version = self.settings.file.versions.get(name)
        return self.adapter_facts.expected(version.adapter) if version else {}

    # -- events ---------------------------------------------------------------------------------------------------

    def _rolled_back(self, rule: str, automatic: bool) -> None:
        reason = reason_code(rule) if automatic else "manual"
        self.exporter.inc("sft_release_rollbacks_total", {"reason": reason})
        log.error("release: rolled back (%s, %s)", rule, "by itself" if automatic else "by a person")

    def _new_life(self, canary: str) -> None:
        version = self.version_of(canary)
        if version is not None:
            self.judge.forget(version.release_id)

    def _incident_changed(self, incident: Incident) -> None:
        log.warning("incident %s (%s)", incident.incident_id, incident.kind.value)
        if incident.kind is IncidentKind.ROLLBACK:
            self.last_rollbacks[incident.bad.release_id] = incident.opened_s
        if self._poster is not None:
            self._poster.wake()

    def _spans_dropped(self, reason: str, count: int) -> None:
        self.exporter.inc("sft_guard_spans_dropped_total", {"reason": reason}, count)

    def _posted(self, result: str) -> None:
        """Whether an Alertmanager took our open incidents."""
        if result != "ok":
            self.exporter.fail_open("alertmanager", "error")

    def _disk_fault(self, reason: str) -> None:
        """The journal could not write. What it would have said is in the log line of the event itself."""
        self.exporter.fail_open("disk", reason)
        log.error("journal in %s: %s; see `sft-guard doctor`", self.settings.state_dir, reason)

    def _thumb(self, release: str, up: bool) -> None:
        self.memory.feedback(release, up)
        self.quality.thumb(release, up)
        self.exporter.inc("sft_quality_feedback_total", {"release": release, "thumb": "up" if up else "down"})

    def _flag(self, exchange_id: str) -> None:
        """A thumb points down: the answer is not given again."""
        if self.cache is not None:
            self.cache.answers.flag(exchange_id)

    def _recorder_failed(self, name: str, error: Exception) -> None:
        self.exporter.fail_open("recorder", name)
        log.debug("recorder %s: %r", name, error)

    # -- loops ----------------------------------------------------------------------------------------------------

    def _background(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(loop, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            # The answers go on without it; a silent end would be the worst of both.
            log.error("the loop %s ended: %r", task.get_name(), error)
            self.exporter.fail_open("loop", task.get_name())

    async def _watch_lag(self) -> None:
        while True:
            due_s = self.clock.now_s() + LAG_EVERY_S
            await self.clock.sleep(LAG_EVERY_S)
            self.vitals.lagged(self.clock.now_s() - due_s)

    async def _save_windows(self) -> None:
        while True:
            await self.clock.sleep(SAVE_EVERY_S)
            try:
                await asyncio.to_thread(self._save_windows_now)
            except OSError as error:
                self.exporter.fail_open("disk", "windows")
                log.warning("windows cannot be saved: %s", error.strerror)

    def _save_windows_now(self) -> None:
        save_windows(self.settings.state_dir, self.memory.dump_pieces())

    def _load_windows(self) -> None:
        try:
            pieces = load_windows(self.settings.state_dir)
            if pieces:
                self.memory.load_pieces(pieces)
        except (DataError, ValueError) as error:
            log.warning("windows: %s", error)

    def _flush(self) -> None:
        if self.exchange_log is not None:
            self.exchange_log.close()
        if self.parquet is not None:
            self.parquet.close()
        if self.tracing is not None:
            self.tracing.close()
        with contextlib.suppress(OSError):  # as below
            self.labels.save()
        with contextlib.suppress(OSError):  # a full disk costs history only
            self._save_windows_now()

    def _refuse_restart_only(self, settings: Settings) -> None:
        """What is bound at start cannot be swapped under load; better refused than half applied."""
        old, new = self.settings.file, settings.file
        fixed: dict[str, Callable[[Any], object]] = {
            "service": lambda f: f.service,
            "listen": lambda f: f.listen,
            "admin": lambda f: f.admin,
            "state_dir": lambda f: f.state_dir,
            "registry": lambda f: f.registry,
            "windows": lambda f: f.windows,
            "checks": lambda f: f.checks,
            "exchange_log": lambda f: f.exchange_log,
            "webhooks": lambda f: f.webhooks,
            "alertmanager": lambda f: f.alertmanager,
            "otel": lambda f: f.otel,
            "cache": lambda f: fixed_part(f.cache),
        }
        for name, part in fixed.items():
            if part(old) != part(new):
                raise ConfigError(f"{settings.path.name}: {name}", "changed", "restart the guard to change this part")


class _ConfiguredVersions(Mapping[str, Version]):
    """The versions of the running configuration, also after a reload."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def __getitem__(self, name: str) -> Version:
        return self._guard.settings.targets[name].version

    def __iter__(self) -> Iterator[str]:
        return iter(self._guard.settings.targets)

    def __len__(self) -> int:
        return len(self._guard.settings.targets)
