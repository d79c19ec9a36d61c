"""Whoever is told of an exchange, and the fan-out that tells them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from exporters.exchange_log import ExchangeLog
from exporters.fanout import Fanout
from exporters.parquet import ParquetConverter
from exporters.prometheus import PrometheusExporter
from guard.follow_settings import intents_of
from guard.human_labels import HumanLabels
from guard.quality import QualityRecorder
from guard.recent import RecentExchanges
from guard.rule_files import Rules
from guard.settings import Settings
from guard.sinks import WindowsRecorder
from guard.tracing import tracing_of
from slo.clock import Clock
from slo.sources.memory import MemorySource
from slo.thresholds import latency_bounds_s
from slo.types import Version

log = logging.getLogger("sft-guard")

LOG_QUEUE_BYTES = 4 * 2**20  # a second of peak traffic; what a stalled disk costs in memory at most


class Recorders:
    """The recorders of one guard. `exchange_log`, `parquet`, `tracing`: None where the settings ask for none."""

    def __init__(
        self, settings: Settings, rules: Rules, clock: Clock, version_by_id: Callable[[str], Version | None]
    ) -> None:
        """Opens no socket.

        Raises:
            ConfigError: intents.yaml cannot be used.
        """
        self.exporter = PrometheusExporter(
            settings.file.service, latency_bounds_s(rules.slos, rules.known()), clock=clock
        )
        self.memory = MemorySource(rules.slos, clock)
        self.recent = RecentExchanges(lives=self.memory.lives)
        self.labels = HumanLabels(settings.state_dir)
        self.parquet: ParquetConverter | None = None
        self.exchange_log = self._exchange_log(settings, clock)
        self.quality = QualityRecorder(self.memory, self.exporter.inc, intents_of(settings))
        self.tracing = tracing_of(settings, version_by_id, self._spans_dropped)

    def fanout(self, more: dict[str, Any]) -> Fanout:
        """Tells every recorder, in this order; `more` last."""
        recorders: dict[str, Any] = {
            "quality": self.quality,
            "prometheus": self.exporter,
            "windows": WindowsRecorder(self.memory),
            "recent": self.recent,
            "labels": self.labels,
        }
        if self.exchange_log is not None:
            recorders["exchange_log"] = self.exchange_log
        if self.tracing is not None:
            recorders["otel"] = self.tracing
        return Fanout({**recorders, **more}, self._failed)

    def thumb(self, release: str, up: bool) -> None:
        """What a user thought of an answer."""
        self.memory.feedback(release, up)
        self.quality.thumb(release, up)
        self.exporter.inc("sft_quality_feedback_total", {"release": release, "thumb": "up" if up else "down"})

    def close(self) -> None:
        """Write what is queued and end the processes of the log; waits for the disk."""
        if self.exchange_log is not None:
            self.exchange_log.close()
        if self.parquet is not None:
            self.parquet.close()
        if self.tracing is not None:
            self.tracing.close()
        with contextlib.suppress(OSError):  # a full disk costs history only
            self.labels.save()

    def _exchange_log(self, settings: Settings, clock: Clock) -> ExchangeLog | None:
        wanted = settings.file.exchange_log
        if not wanted.enabled:
            return None
        if wanted.parquet:
            self.parquet = ParquetConverter(settings.log_dir)
        return ExchangeLog(
            settings.log_dir,
            on_closed=self.parquet.closed if self.parquet else lambda: None,
            text_mode=wanted.text,
            segment_bytes=wanted.segment,
            keep_days=wanted.keep / 86400.0,
            max_total_bytes=wanted.max_total,
            clock=clock,
            queue_bytes=LOG_QUEUE_BYTES,
            on_drop=lambda reason, count: self.exporter.inc("sft_guard_log_dropped_total", {"reason": reason}, count),
        )

    def _spans_dropped(self, reason: str, count: int) -> None:
        self.exporter.inc("sft_guard_spans_dropped_total", {"reason": reason}, count)

    def _failed(self, name: str, error: Exception) -> None:
        self.exporter.fail_open("recorder", name)
        log.debug("recorder %s: %r", name, error)
