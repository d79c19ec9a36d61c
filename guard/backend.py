"""The guard as the admin listener sees it: snapshots for people and machines, commands for people with the token."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from guard.admin.shapes import (
    AlertBatch,
    AlertsStored,
    BaselineInfo,
    BaselineValue,
    CommandResult,
    ConfigView,
    DriftReport,
    ExchangeList,
    Gate,
    GateData,
    Health,
    History,
    IncidentClosed,
    IncidentDetail,
    IncidentList,
    Part,
    QualityReport,
    Readiness,
    ReleaseCommand,
    ReleaseStatus,
    SloReport,
    Stats,
    VersionView,
    Words,
)
from guard.admin.views import (
    course,
    exchange_row,
    incident_detail,
    incident_row,
    last_deed,
    last_judged,
    slo_row,
    version_view,
)
from guard.cache.savings import day_of
from guard.commands.common import program_version
from guard.comparing import COMPARED_NUMBER, evidence_ratio
from guard.coverage import check_coverage, corrected_row
from guard.holdings import held_rows
from guard.quality_views import drift_rows, quality_gauges, quality_report
from guard.release.controller import Controller
from guard.release.incident import postmortem, utc
from guard.release.plan import parse_plan
from guard.rule_counters import guard_rows, objective_rows, state_rows
from slo.actions import gate
from slo.errors import RefusedError
from slo.history import Point
from slo.metric_names import INDICATORS
from slo.types import ActionKind, State, Verdict, Version

if TYPE_CHECKING:
    from guard.parts import Parts

log = logging.getLogger("sft-guard")

GaugeRow = tuple[str, Mapping[str, str], float | None]
_STATE_NUMBER = {State.OK: 0.0, State.BREACH: 1.0, State.UNKNOWN: 2.0}
INCIDENTS_COUNT = 200
COVERAGE_COUNT = 500
STALE_TICKS = 3.0
HISTORY_S = 3600.0


class GuardBackend:
    """Implements `guard.admin.backend.AdminBackend`."""

    def __init__(self, guard: Parts) -> None:
        self._guard = guard

    # -- metrics --------------------------------------------------------------------------------------------------

    async def metrics(self, *, openmetrics: bool) -> bytes:
        """Rendered in a thread, cached for a second."""
        return await self._guard.exporter.scrape(openmetrics=openmetrics)

    def gauges(self) -> Iterable[GaugeRow]:
        """Everything that is asked for at scrape time instead of being counted."""
        guard = self._guard
        for metric, release, value in guard.memory.gauges():
            yield metric, {"release": release}, value
        yield from self._slo_gauges()
        yield from self._release_gauges()
        yield from guard_rows(guard)
        yield from state_rows(self._controller.state, guard.last_rollbacks)
        yield from objective_rows(guard.rules.slos, self._releases(), guard.memory)
        yield from quality_gauges(guard)
        if guard.pipeline is not None:
            stats = guard.pipeline.stats()
            yield "sft_guard_check_queue_length", {}, float(stats.queue_length)
            yield "sft_guard_check_coverage_ratio", {}, stats.coverage_ratio
            for check, ratio in check_coverage(guard.recent.newest(COVERAGE_COUNT)).items():
                yield "sft_quality_check_coverage_ratio", {"check": check}, ratio
        path = guard.data_path.stats()
        yield "sft_guard_connections", {"side": "client"}, float(path.connections)
        yield "sft_guard_connections", {"side": "upstream"}, float(sum(p.open for p in path.pools))
        yield "sft_guard_loop_lag_seconds", {}, guard.vitals.last_lag_s
        yield "sft_guard_tasks", {}, float(len(asyncio.all_tasks()))
        yield from held_rows(guard)
        yield "sft_guard_config_info", {"hash": guard.settings.config_hash}, 1.0
        yield "sft_guard_config_last_reload_success", {}, float(guard.last_reload[0])
        yield "sft_guard_uptime_seconds", {}, guard.clock.now_s() - guard.started_s

    def _releases(self) -> Iterable[str]:
        """Short ids: those in use first, then the other configured ones, then what was counted besides."""
        guard, state = self._guard, self._controller.state
        names = (state.stable, state.canary, *guard.settings.targets)
        versions = (guard.version_of(name) for name in names if name)
        return (*(v.release_id for v in versions if v is not None), *guard.memory.releases())

    def _slo_gauges(self) -> Iterable[GaugeRow]:
        last = self._guard.judge.last
        for judged in last.judged if last else ():
            verdict = judged.verdict
            labels = {"release": verdict.release, "slo": verdict.slo.name}
            known = INDICATORS.get(verdict.slo.indicator)
            scale = known.scale if known else 1.0
            yield "sft_slo_state", labels, _STATE_NUMBER[verdict.state]
            yield "sft_slo_value", labels, _scaled(judged.value, scale)
            yield "sft_slo_threshold", labels, _scaled(judged.limit, scale)
            yield "sft_slo_budget_remaining_ratio", labels, judged.budget_remaining_ratio
            if verdict.comparison is not None:
                yield "sft_release_comparison_state", labels, COMPARED_NUMBER[verdict.comparison.result]
                yield "sft_release_evidence_ratio", labels, evidence_ratio(verdict.comparison)

    def _release_gauges(self) -> Iterable[GaugeRow]:
        for name, target in self._guard.settings.targets.items():
            v = target.version
            yield (
                "sft_release_info",
                {"release": v.release_id, "name": name, "model": v.model, "adapter": v.adapter, "kb": v.kb,
                 "prompt": v.prompt, "policy": v.policy},
                1.0,
            )  # fmt: skip
        state = self._controller.state
        for arm, name, weight in (
            ("stable", state.stable, 1.0 - state.canary_ratio),
            ("canary", state.canary, state.canary_ratio),
        ):
            version = self._guard.version_of(name) if name else None
            if version is not None:
                yield "sft_release_weight", {"release": version.release_id, "arm": arm}, weight

    # -- health ---------------------------------------------------------------------------------------------------

    def health(self) -> Health:
        """The process lives; parts that fail open make it `degraded`, never dead."""
        guard = self._guard
        parts = []
        if guard.pipeline is None:
            parts.append(Part("checks", "off", "checks.enabled is false"))
        else:
            stats = guard.pipeline.stats()
            well = stats.worker_alive and stats.worker_ready and not stats.problem
            detail = stats.problem or (stats.embedder_line if stats.worker_ready else "the worker is starting")
            parts.append(Part("checks", "ok" if well else "degraded", detail))
        if guard.exchange_log is not None:
            dropped = sum(guard.exchange_log.dropped_count.values())
            parts.append(Part("exchange_log", "degraded" if dropped else "ok", f"{dropped} lines dropped"))
        if guard.kept_care is not None:
            conditions = guard.kept_care.care.conditions()
            parts.append(Part("cache", "degraded" if conditions else "ok", "; ".join(conditions)))
        status = self._controller.status()
        parts.append(Part("registry", "ok" if status.registry in ("ok", "none") else "degraded", status.registry))
        if guard.fleet is not None:
            problem = guard.fleet.fleet.problem
            parts.append(Part("windows", "degraded" if problem else "ok", problem or "of the fleet, from Prometheus"))
        parts.append(Part("journal", "ok" if status.journal == "ok" else "degraded", status.journal))
        outbox = guard.outbox
        if outbox.targets:
            troubles = [f"{name} answered 410 and is not called again: change its url" for name in outbox.disabled]
            if outbox.late_count:
                troubles.append(f"{outbox.late_count} not delivered by the fast tries, tried for 24 h")
            parts.append(Part("webhooks", "degraded" if troubles else "ok", "; ".join(troubles)))
        parts += [Part(f"loop {name}", "degraded", "ended; see the log, then restart") for name in guard.dead_loops()]
        if self._controller.failed_ticks_count:
            count = self._controller.failed_ticks_count
            parts.append(Part("release loop", "degraded", f"{count} evaluations failed; see the log"))
        if self._judged_ago_s() > STALE_TICKS * guard.settings.file.release.evaluate_every:
            parts.append(Part("judge", "degraded", f"last evaluation {self._judged_ago_s():.0f} s ago"))
        if not guard.last_reload[0]:
            parts.append(Part("config", "degraded", "the last reload was refused; the old configuration runs"))
        worst = "degraded" if any(p.status == "degraded" for p in parts) else "ok"
        return Health(worst, program_version(), guard.clock.now_s() - guard.started_s, tuple(parts))

    def ready(self) -> Readiness:
        """Whether the data listener takes traffic."""
        if self._guard.data_path.draining:
            return Readiness(False, ("stopping",))
        return Readiness(True)

    # -- reading --------------------------------------------------------------------------------------------------

    def slo(self) -> SloReport:
        """As it stood at the last evaluation."""
        last = self._guard.judge.last
        rows = tuple(slo_row(j.verdict, j.arm, j.budget_remaining_ratio) for j in last.judged) if last else ()
        return SloReport(self._guard.settings.file.service, last.wall_s if last else None, rows)

    def release_status(self) -> ReleaseStatus:
        """Who answers, and what is holding the canary."""
        status = self._controller.status()
        return ReleaseStatus(
            service=status.service,
            mode=status.mode,
            phase=status.phase,
            advance=status.advance,
            stable=self._view(status.stable),
            canary=self._view(status.canary) if status.canary else None,
            previous=self._view(status.previous) if status.previous else None,
            canary_ratio=status.canary_ratio,
            stage_number=status.stage + 1 if status.canary else 0,
            stage_count=status.stage_count,
            stage_held_s=status.stage_held_s,
            stage_hold_s=status.stage_hold_s,
            stage_events_count=status.stage_events,
            stage_min_events_count=status.stage_min_events,
            epoch=status.epoch,
            cache_epoch=status.cache_epoch,
            reason=status.last_reason,
            recommendation=status.recommendation,
            incident_id=status.incident_id,
            conditions=status.conditions,
            rollbacks_24h_count=status.rollbacks_24h,
            shedding=status.shedding,
            hallucination=tuple(
                corrected_row(version, self._guard.labels)
                for version in map(self._guard.version_of, filter(None, (status.stable, status.canary)))
                if version is not None
            ),
            last_judged=last_judged(status, self._guard.clock.wall_s()),
            last_deed=last_deed(status),
            owed=status.pending,
        )

    def exchanges(self, limit: int) -> ExchangeList:
        """Newest first, no words."""
        return ExchangeList(tuple(exchange_row(e) for e in self._guard.recent.newest(limit)))

    async def incidents(self) -> IncidentList:
        """Newest first."""
        found = await asyncio.to_thread(self._guard.journal.incidents, INCIDENTS_COUNT)
        return IncidentList(tuple(incident_row(i) for i in found))

    async def incident(self, incident_id: str) -> IncidentDetail | None:
        """One incident with its evidence."""
        found = await asyncio.to_thread(self._guard.journal.incident, incident_id)
        return incident_detail(found) if found else None

    async def postmortem(self, incident_id: str) -> str | None:
        """Markdown."""
        found = await asyncio.to_thread(self._guard.journal.incident, incident_id)
        return postmortem(found) if found else None

    def drift(self) -> DriftReport:
        """Every component of each release, as its last whole window said; before one, what it waits for."""
        return DriftReport(drift_rows(self._guard))

    def quality(self) -> QualityReport:
        """Key intents, questions asked again, thumbs, probes."""
        return quality_report(self._guard)

    def baseline(self) -> BaselineInfo:
        """The baseline in use, or why there is none."""
        baseline = self._guard.rules.baseline
        if baseline is None:
            return BaselineInfo(False, self._guard.rules.baseline_problem)
        values = tuple(
            BaselineValue(i.indicator, i.event_count, {s.name: s.estimate for s in i.statistics})
            for i in baseline.indicators
        )
        return BaselineInfo(True, "", baseline.sha256, baseline.created_wall_s, baseline.expires_wall_s,
                            baseline.window_s, baseline.forced, values)  # fmt: skip

    def config(self) -> ConfigView:
        """guard.yaml as read. Secrets are read from the environment; what may be one all the same is hidden."""
        guard = self._guard
        document: dict[str, Any] = guard.settings.file.model_dump(mode="json")
        for version in document["versions"].values():
            version["headers"] = dict.fromkeys(version["headers"], "(hidden)")
        for webhook in document["webhooks"]:
            parts = urlsplit(webhook["url"])
            if parts.path.strip("/"):  # the path of a chat's address is its secret
                webhook["url"] = f"{parts.scheme}://{parts.netloc}/(hidden)"
        return ConfigView(
            guard.settings.config_hash, guard.settings.path.name, guard.last_reload[0], guard.last_reload[1], document
        )

    def gate(self, release: str) -> Gate:
        """Verdict on a release (name or short id; empty: the canary). An old verdict is none."""
        last = self._guard.judge.last
        state = self._controller.state
        if (out := self._name_of(release or state.canary)) in state.barred:
            # It gets no traffic and is not judged any more; whoever asks once a minute has to hear of it all the same.
            return Gate(GateData("fail", f"{out} was rolled back", self._release_id(out)))
        if self._judged_ago_s() > STALE_TICKS * self._guard.settings.file.release.evaluate_every:
            return Gate(GateData("inconclusive", f"the last evaluation is {self._judged_ago_s():.0f} s old", release))
        wanted = self._release_id(release or self._controller.state.canary)
        judged = last.judged if last else ()
        asked = tuple(j.verdict for j in judged if j.verdict.release == wanted)
        stable = tuple(j.verdict for j in judged if j.arm == "stable" and j.verdict.release != wanted)
        verdict, why = gate(asked, stable)
        return Gate(GateData(verdict, why, wanted))

    def stats(self) -> Stats:
        """Sizes of what is bounded."""
        path = self._guard.data_path.stats()
        values = {
            "connections_count": float(path.connections),
            "requests_in_flight_count": float(path.in_flight),
            "requests_count": float(path.requests),
            "retries_count": float(path.retries),
            "sink_failures_count": float(path.sink_failures),
            "outbox_waiting_count": float(self._guard.outbox.waiting_count),
            **{f"refused_{reason}_count": float(n) for reason, n in path.refused.items()},
        }
        if self._guard.pipeline is not None:
            values["check_queue_length"] = float(self._guard.pipeline.stats().queue_length)
        return Stats(values)

    def history(self) -> History:
        """Every objective of the releases in traffic over the last hour, thinned to what a small picture shows."""
        last = self._guard.judge.last
        return History(tuple(course(j.verdict, j.arm, self._points(j.verdict)) for j in (last.judged if last else ())))

    def _points(self, verdict: Verdict) -> tuple[Point, ...]:
        return self._guard.memory.history(verdict.slo, verdict.release, HISTORY_S)

    def exchange_words(self, exchange_id: str) -> Words | None:
        """As the exchange log may hold them."""
        found = self._guard.recent.words(exchange_id)
        return Words(*found) if found else None

    async def saved_usd(self) -> float | None:
        """Of today (UTC), by the cache's own books; the last day with traffic may be another one."""
        kept = self._guard.kept_care
        if self._guard.cache is None or kept is None:
            return None
        today = day_of(self._guard.clock.wall_s())
        return sum(row.saved_usd for day, _, row in kept.care.savings.rows() if day == today)

    # -- changing -------------------------------------------------------------------------------------------------

    async def release_command(self, name: str, body: ReleaseCommand, actor: str) -> CommandResult:
        """Carry out one command of a person.

        Raises:
            RefusedError: not allowed now, or the release has moved since `expected_epoch`.
        """
        controller = self._controller
        epoch = body.expected_epoch
        if name == "drill":
            drill = await controller.drill(actor=actor, expected_epoch=epoch)
            return CommandResult(drill.message, self.release_status(), drill.incident_id, drill.mttr_s, drill.passed)
        if name == "start":
            result = await controller.start(
                body.version,
                actor=actor,
                plan=parse_plan(body.plan, "plan") if body.plan else None,
                advance=body.advance or "manual",
                again=body.force,
                reason=body.reason,
                expected_epoch=epoch,
            )
        elif name == "promote":
            up = controller.promote if body.force else controller.advance
            result = await up(actor=actor, reason=body.reason, expected_epoch=epoch)
        elif name == "abort":
            result = await controller.abort(actor=actor, reason=body.reason, expected_epoch=epoch)
        elif name == "rollback":
            reason = body.reason or "asked for by a person"
            result = await controller.rollback(actor=actor, reason=reason, force=body.force, expected_epoch=epoch)
        elif name == "pause":
            result = await controller.pause(actor=actor, reason=body.reason, expected_epoch=epoch)
        else:
            result = await controller.resume(actor=actor, reason=body.reason, expected_epoch=epoch)
        return CommandResult(result.message, self.release_status(), result.incident_id)

    async def close_incident(self, incident_id: str, reason: str, actor: str) -> IncidentClosed:
        """A person has dealt with it."""
        before = await asyncio.to_thread(self._guard.journal.incident, incident_id)
        closed = await self._controller.close_incident(incident_id, actor=actor, reason=reason)
        changed = before is None or before.closed_s is None
        closed_s = closed.closed_s or self._guard.clock.wall_s()
        words = "closed" if changed else f"was closed before, at {utc(closed_s)}"
        return IncidentClosed(closed.incident_id, f"{closed.incident_id} {words}", closed_s, changed)

    async def alerts_in(self, batch: AlertBatch) -> AlertsStored:
        """Durable before it returns; then it is evidence for the rules that name it."""
        stored = await self._guard.intake.take(batch)
        count = self._guard.exporter.inc
        for result, n in (
            ("stored", stored.stored_count),
            ("duplicate", stored.duplicate_count),
            ("truncated", stored.truncated_count),
        ):
            if n:
                count("sft_guard_alerts_received_total", {"result": result}, n)
        if stored.truncated_count:
            log.warning("alertmanager left %d alerts out of a delivery; set max_alerts: 0", stored.truncated_count)
        return stored

    # -- inside ---------------------------------------------------------------------------------------------------

    @property
    def _controller(self) -> Controller:
        controller = self._guard.controller
        if controller is None:
            raise RefusedError("starting", "the guard is starting; ask again in a second")
        return controller

    def _judged_ago_s(self) -> float:
        """Monotonic seconds since the last evaluation, or since the start when there was none."""
        last_s = self._guard.judge.last_s
        return self._guard.clock.now_s() - (self._guard.started_s if last_s is None else last_s)

    def _view(self, name: str) -> VersionView:
        return version_view(self._guard.version_of(name) or Version(name))

    def _name_of(self, release: str) -> str:
        """Name of the version that is called so or has this short id."""
        versions = (target.version for target in self._guard.settings.targets.values())
        return next((v.name for v in versions if v.release_id == release), release)

    def _release_id(self, name: str) -> str:
        version = self._guard.version_of(name)
        return version.release_id if version else name


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale


__all__ = ["ActionKind", "GuardBackend"]
