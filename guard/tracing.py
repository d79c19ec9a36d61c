"""OpenTelemetry as guard.yaml asks for it: the exporter, and what the data path says to the upstream."""

from __future__ import annotations

from collections.abc import Callable

from exporters.otel import OtelExporter
from exporters.trace_ids import onward
from guard.limits import Egress
from guard.settings import Settings
from slo.types import Version


def tracing_of(
    settings: Settings, version_of: Callable[[str], Version | None], on_drop: Callable[[str, int], None]
) -> OtelExporter | None:
    """The exporter, None when no receiver is configured. Raises ConfigError: the `otel` extra is missing."""
    otel = settings.file.otel
    if otel is None:
        return None
    return OtelExporter(
        otel.endpoint,
        service=settings.file.service,
        protocol=otel.protocol,
        headers=settings.otel_headers,
        provider=otel.provider,
        ratio=otel.sample,
        content=otel.content,
        metrics=otel.metrics,
        version_of=version_of,
        on_drop=on_drop,
        permits=Egress(settings.file.limits.egress_networks).permits,
    )


def onward_of(settings: Settings) -> Callable[[bytes, bytes], bytes] | None:
    """What makes the upstream's `traceparent`; None without tracing, when the client's goes on untouched."""
    otel = settings.file.otel
    if otel is None:
        return None
    ratio = otel.sample

    def trace(exchange_id: bytes, traceparent: bytes) -> bytes:
        return onward(exchange_id.decode("ascii"), traceparent.decode("latin-1"), ratio).encode("ascii")

    return trace
