"""Counters of what seldom happens, at 0 from the start.

Prometheus sees no increase in a series that is born at 1: without these zeros the first rollback, the first failed
webhook and the first answer past a broken dependency are missing from every graph and every rule on `increase`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from exporters.prometheus import PrometheusExporter
from guard.pipeline import FAIL_OPEN_REASON
from guard.release.webhook import Delivery
from guard.settings import Settings
from slo.outside import OutsideRule
from slo.types import OnBreach, Slo

Row = tuple[str, Mapping[str, str]]

_DISK = ("disk_full", "disk_fault", "busy")
_REDIS = ("refused", "timeout", "closed", "auth", "unavailable", "error", "open")


def rare_events(settings: Settings, rules: tuple[Slo | OutsideRule, ...]) -> Iterator[Row]:
    """(counter, labels) of what may happen to a process with these settings. rules: those that may act."""
    file = settings.file
    for name in ("manual", *(rule.name for rule in rules if rule.action is OnBreach.ROLLBACK)):
        yield "sft_release_rollbacks_total", {"reason": name}
    if file.checks.enabled:
        for reason, word in FAIL_OPEN_REASON.items():
            yield "sft_guard_checks_dropped_total", {"reason": reason}
            yield from _past("checks", word)
        yield "sft_guard_redacted_total", {}
    yield from _past("disk", *_DISK)
    if file.cache is not None and file.cache.enabled and file.cache.redis is not None:
        yield from _past("redis", *_REDIS)
    if file.alertmanager is not None:
        yield from _past("alertmanager", "error")
    if file.webhooks:
        for result in Delivery:
            yield "sft_guard_webhook_deliveries_total", {"result": result.value}


def of_users(settings: Settings, release: str) -> Iterator[Row]:
    """(counter, labels) of what users may say of a release that takes traffic."""
    for thumb in ("up", "down"):
        yield "sft_quality_feedback_total", {"release": release, "thumb": thumb}
    if settings.file.checks.enabled:  # else nobody looks whether a question was asked before: absent, not 0
        yield "sft_quality_reopens_total", {"release": release}


def begin(exporter: PrometheusExporter, rows: Iterator[Row]) -> None:
    """Show each of them; one that counted already keeps its count."""
    for metric, labels in rows:
        exporter.inc(metric, labels, 0)


def _past(dep: str, *reasons: str) -> Iterator[Row]:
    for reason in reasons:
        yield "sft_guard_failopen_total", {"dep": dep, "reason": reason}
