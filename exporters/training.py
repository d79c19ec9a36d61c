"""`sft_train_*`: a training run as a textfile for node_exporter, and over OTLP when a receiver is named.

A training is no server: it ends. The textfile keeps its last values until the next run writes over them, and
`sft_train_last_update_timestamp_seconds` tells how old they are.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporters.otel import CLOSE_S, METRICS_EVERY_S, SEMCONV, TIMEOUT_S, exporters_of
from exporters.text import FamilyText, Sample, render
from slo.errors import ConfigError, DataError
from slo.metric_names import METRICS

PREFIX = "sft_train_"
NAMES = tuple(name for name in METRICS if name.startswith(PREFIX))


class TrainingTextfile:
    """One file, replaced as a whole, so that a scrape never reads half of it."""

    def __init__(self, path: Path, *, service: str, run: str) -> None:
        """run: value of the label of that name. Raises ConfigError."""
        if path.suffix != ".prom":
            raise ConfigError("--textfile", str(path), "the collector reads files that end in .prom")
        self._path, self._service, self._run = path, service, run

    def write(self, values: Mapping[str, float]) -> None:
        """values: metric name to value; one that is no number is left out.

        Raises:
            DataError: the directory cannot be written.
        """
        families = [
            FamilyText(METRICS[name], [Sample((self._run,), values[name])])
            for name in NAMES
            if name in values and math.isfinite(values[name])
        ]
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")  # the collector reads *.prom only
        try:
            beside.write_bytes(render(self._service, families))
            beside.replace(self._path)
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written ({error.strerror}); check the directory") from error


class TrainingOtel:
    """The same values as OTLP gauges, sent from a thread of its own: a receiver that is away never slows training."""

    def __init__(
        self, endpoint: str, *, service: str, run: str, protocol: str = "http", headers: Mapping[str, str] | None = None
    ) -> None:
        """Raises ConfigError: the `otel` extra is missing."""
        try:
            from opentelemetry.sdk.metrics import MeterProvider
            from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
            from opentelemetry.sdk.resources import Resource
        except ImportError as error:
            raise ConfigError("--otlp", endpoint, "install the extra: pip install 'sft-guard[otel]'") from error
        for name in ("opentelemetry.exporter.otlp", "opentelemetry.sdk"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        _, metrics_to = exporters_of(endpoint, protocol, dict(headers or {}))
        reader = PeriodicExportingMetricReader(
            metrics_to(), export_interval_millis=METRICS_EVERY_S * 1000, export_timeout_millis=TIMEOUT_S * 1000
        )
        self._provider: Any = MeterProvider(
            metric_readers=[reader], resource=Resource.create({"service.name": service}), shutdown_on_exit=False
        )
        meter = self._provider.get_meter("sft-guard", schema_url=SEMCONV)
        self._gauges = {name: meter.create_gauge(name, description=METRICS[name].help) for name in NAMES}
        self._labels = {"run": run}

    def write(self, values: Mapping[str, float]) -> None:
        """Set; sent within seconds."""
        for name, gauge in self._gauges.items():
            if name in values and math.isfinite(values[name]):
                gauge.set(values[name], self._labels)

    def close(self) -> None:
        """Send the last values and let go of the connection."""
        self._provider.shutdown(timeout_millis=CLOSE_S * 1000)
