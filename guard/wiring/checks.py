"""The worker process that looks at answers, what it is asked to look for, and the screen before the model."""

from __future__ import annotations

from exporters.prometheus import PrometheusExporter
from guard.checks.spec import CheckSpec
from guard.embeddings import endpoint_spec
from guard.follow_settings import follow_spec
from guard.pipeline import PipelineLimits, WorkerPipeline
from guard.rule_files import Rules
from guard.safety.screen import Screen
from guard.settings import Settings
from guard.settings.safety import safety_spec
from guard.sinks import CheckedSink
from guard.slower_tiers import detector_spec, judge_spec
from slo.clock import Clock


def check_spec(settings: Settings, rules: Rules) -> CheckSpec:
    """What the worker is to know. Everything in it travels to another process."""
    checks = settings.file.checks
    return CheckSpec(
        embedder=checks.embedder,
        transformer=checks.transformer,
        rules_path=str(settings.resolve(checks.rules)) if checks.rules else "",
        grounding_threshold=checks.grounding_threshold,
        calibration_path=str(settings.resolve(checks.calibration)) if checks.calibration else "",
        pii=checks.pii,
        drift_reference=rules.drift_reference,
        drift_window=checks.drift.window,
        safety=safety_spec(settings),
        detector=detector_spec(settings),
        judge=judge_spec(settings, rules.prices),
        text_mode=settings.file.exchange_log.text,
        endpoint=endpoint_spec(settings),
        follow=follow_spec(settings),
    )


def pipeline_of(
    settings: Settings, rules: Rules, sink: CheckedSink, exporter: PrometheusExporter, clock: Clock
) -> WorkerPipeline | None:
    """The queue to the worker; None without checks."""
    checks = settings.file.checks
    if not checks.enabled:
        return None
    limits = PipelineLimits(pending_count=checks.queue, pending_bytes=checks.queue_bytes)
    return WorkerPipeline(check_spec(settings, rules), settings.routes, sink, exporter, clock, limits=limits)


def screen_of(settings: Settings, exporter: PrometheusExporter, clock: Clock) -> Screen | None:
    """What looks at a question before the model sees it; None when no safety check is in mode `enforce`."""
    safety = safety_spec(settings)
    return Screen(safety, exporter, clock.now_s) if safety.screens else None
