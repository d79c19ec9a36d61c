"""OpenTelemetry: exchanges as spans and GenAI metrics to an OTLP receiver. Needs the `otel` extra.

    checked() on the event loop -> bounded queue -> own thread -> spans, histograms -> OTLP over HTTP or gRPC

Spans are made from finished exchanges, so none can leak from a stream that was cancelled, and a receiver that is down
or slow costs dropped spans, which are counted, and never an answer. The oldest are dropped: the newest tell more.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from exporters.spans import Span, is_kept, spans_of
from slo.dialling import Permits
from slo.drafts import with_findings
from slo.errors import ConfigError
from slo.types import CacheStatus, Exchange, Version

log = logging.getLogger("sft_guard.otel")

SEMCONV = "https://opentelemetry.io/schemas/1.41.1"
QUEUE_COUNT = 2048
"""Exchanges. Twice as many, each with its findings, took 10 MiB in the first outage of a receiver."""
BATCH_COUNT = 128
"""Spans sent at once: with the events of their checks 512 took 4.6 MiB while they were sent, 128 take 2."""
EVERY_S = 1.0
TIMEOUT_S = 5.0
METRICS_EVERY_S = 15.0
CLOSE_S = 5.0

DURATION_BOUNDS_S = tuple(0.01 * 2**n for n in range(14))
"""gen_ai.client.operation.duration and gen_ai.server.time_to_first_token, seconds: .01 ... 81.92."""
TOKEN_BOUNDS = tuple(4**n for n in range(14))
"""gen_ai.client.token.usage: 1 ... 67108864."""


class OtelExporter:
    """A `Recorder` of `exporters.fanout` that sends to an OTLP receiver.

    version_of: release id -> Version, None when unknown. on_drop: told (reason, span count) from any thread; reasons
    are queue_full and export. sleep_s: how often the queue is looked at. permits: which addresses the receiver's name
    may have, over HTTP (gRPC looks names up itself); None: any.

    Raises:
        ConfigError: the `otel` extra is missing.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        service: str,
        protocol: str = "http",
        headers: Mapping[str, str] | None = None,
        provider: str = "openai",
        ratio: float = 0.1,
        content: bool = False,
        metrics: bool = True,
        version_of: Callable[[str], Version | None],
        on_drop: Callable[[str, int], None] = lambda reason, count: None,
        sleep_s: float = EVERY_S,
        metrics_every_s: float = METRICS_EVERY_S,
        permits: Permits | None = None,
    ) -> None:
        self._sdk = _Sdk(endpoint, service, protocol, dict(headers or {}), metrics, metrics_every_s, permits)
        self._provider, self._ratio, self._content = provider, ratio, content
        self._version_of, self._on_drop = version_of, on_drop
        self._queue: deque[tuple[Exchange, Mapping[str, object] | None]] = deque()
        self._sleep_s = sleep_s
        self._closing = threading.Event()
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="otel", daemon=True)
        self._thread.start()

    def served(self, exchange: Exchange) -> None:
        """Nothing: an exchange is sent once, when its findings are known."""

    def checked(self, exchange: Exchange, text: Mapping[str, object] | None = None) -> None:
        """Queue one exchange, of those that become no span only what is measured. Never waits."""
        if not is_kept(exchange, self._ratio):
            exchange, text = with_findings(exchange, ()), None
        if len(self._queue) >= QUEUE_COUNT:
            self._queue.popleft()
            self._on_drop("queue_full", 1)
        self._queue.append((exchange, text))

    def close(self) -> None:
        """Send what is queued, for a few seconds at most."""
        self._closing.set()
        self._thread.join(CLOSE_S)
        self._sdk.close()

    def _run(self) -> None:
        while not self._closing.wait(self._sleep_s):
            self._send_all()
        self._send_all()

    def _send_all(self) -> None:
        while self._queue:
            spans: list[Span] = []
            while self._queue and len(spans) < BATCH_COUNT:
                exchange, text = self._queue.popleft()
                try:
                    version = self._version_of(exchange.release)
                    spans += spans_of(
                        exchange, version, text, ratio=self._ratio, provider=self._provider, content=self._content
                    )
                    self._sdk.measure(exchange, self._provider)
                except Exception as error:  # One odd exchange must not end the thread that sends the others.
                    self._failed("export", 1, error)
            if spans:
                self._export(spans)

    def _export(self, spans: Sequence[Span]) -> None:
        try:
            sent = self._sdk.export(spans)
        except Exception as error:  # The library raises what its transport raises.
            self._failed("export", len(spans), error)
            return
        if sent:
            self._warned = False
        else:
            self._failed("export", len(spans), None)

    def _failed(self, reason: str, count: int, error: Exception | None) -> None:
        self._on_drop(reason, count)
        if not self._warned:  # once an outage; the counter tells the rest
            self._warned = True
            why = repr(error) if error else self._sdk.problem
            log.warning("otel: spans cannot be sent%s; they are dropped and counted", f" ({why})" if why else "")


class _Sdk:
    """Everything that is said to the OpenTelemetry library."""

    def __init__(
        self, endpoint: str, service: str, protocol: str, headers: dict[str, str], metrics: bool, every_s: float,
        permits: Permits | None,
    ) -> None:  # fmt: skip
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        except ImportError as error:
            raise ConfigError("otel", endpoint, "install the extra: pip install 'sft-guard[otel]'") from error
        # The library warns about every failed batch in its own words; ours are once an outage.
        for name in ("opentelemetry.exporter.otlp", "opentelemetry.sdk"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._resource = Resource.create({"service.name": service})
        self._scope = InstrumentationScope("sft-guard", schema_url=SEMCONV)
        self.problem = ""  # why nothing can be sent, where the library does not say
        spans_to, metrics_to = exporters_of(endpoint, protocol, headers, permits, self._told)
        self._spans = spans_to()
        self._meters: Any = _meters(self._resource, metrics_to(), every_s) if metrics else None

    def _told(self, problem: str) -> None:
        self.problem = problem

    def export(self, spans: Sequence[Span]) -> bool:
        """Send; False when the receiver did not take them within the time-out."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        return bool(self._spans.export([self._readable(span) for span in spans]) is SpanExportResult.SUCCESS)

    def measure(self, exchange: Exchange, provider: str) -> None:
        """Count one exchange in the GenAI histograms; answers from the cache are no client operation."""
        if self._meters is None or exchange.cache is CacheStatus.HIT:
            return
        _, duration, tokens, first_token = self._meters
        common = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": provider}
        failed = exchange.reason if exchange.outcome.value in ("server_error", "timeout", "incomplete") else ""
        duration.record(exchange.duration_s, {**common, "error.type": failed or exchange.outcome.value}
                        if failed else common)  # fmt: skip
        for kind, count in (("input", exchange.input_tokens), ("output", exchange.output_tokens)):
            if count is not None:
                tokens.record(count, {**common, "gen_ai.token.type": kind})
        if exchange.first_token_s is not None:
            first_token.record(exchange.first_token_s, common)

    def close(self) -> None:
        """Let go of connections; the last metrics are sent, with the library's own time-out."""
        if self._meters is not None:
            self._meters[0].shutdown(timeout_millis=CLOSE_S * 1000)
        self._spans.shutdown()

    def _readable(self, span: Span) -> Any:
        from opentelemetry.sdk.trace import Event as SdkEvent
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        def context(span_id: str, *, remote: bool) -> SpanContext:
            return SpanContext(int(span.trace_id, 16), int(span_id, 16), remote, TraceFlags(TraceFlags.SAMPLED))

        return ReadableSpan(
            name=span.name,
            context=context(span.span_id, remote=False),
            parent=context(span.parent_id, remote=span.kind == "client") if span.parent_id else None,
            resource=self._resource,
            attributes=span.attributes,
            events=[SdkEvent(e.name, e.attributes, e.at_ns) for e in span.events],
            kind=SpanKind.CLIENT if span.kind == "client" else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=self._scope,
        )


def exporters_of(
    endpoint: str, protocol: str, headers: dict[str, str], permits: Permits | None = None,
    tell: Callable[[str], None] = lambda problem: None,
) -> tuple[Callable[[], Any], Callable[[], Any]]:  # fmt: skip
    """Makers of the span and the metric exporter for `http` (…/v1/traces, …/v1/metrics) or `grpc`.

    permits, tell: of `exporters.otlp_http.checked_session`; None lets the library connect as it likes.
    """
    try:
        if protocol == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans

            insecure = not endpoint.startswith("https")
            common: dict[str, Any] = {
                "endpoint": endpoint, "insecure": insecure, "headers": headers, "timeout": TIMEOUT_S,
            }  # fmt: skip
            return (lambda: GrpcSpans(**common)), (lambda: GrpcMetrics(**common))
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
    except ImportError as error:
        raise ConfigError("otel.protocol", protocol, "install the extra: pip install 'sft-guard[otel]'") from error
    base = endpoint.rstrip("/")

    def session() -> Any:
        if permits is None:
            return None
        from exporters.otlp_http import checked_session

        return checked_session(permits, tell)

    return (
        lambda: HttpSpans(endpoint=f"{base}/v1/traces", headers=headers, timeout=TIMEOUT_S, session=session()),
        lambda: HttpMetrics(endpoint=f"{base}/v1/metrics", headers=headers, timeout=TIMEOUT_S, session=session()),
    )


def _meters(resource: Any, exporter: Any, every_s: float) -> tuple[Any, Any, Any, Any]:
    """(provider, duration, token usage, time to first token) with the bounds that the conventions ask for."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    reader = PeriodicExportingMetricReader(
        exporter, export_interval_millis=every_s * 1000, export_timeout_millis=TIMEOUT_S * 1000
    )
    provider = MeterProvider(metric_readers=[reader], resource=resource, shutdown_on_exit=False)
    meter = provider.get_meter("sft-guard", schema_url=SEMCONV)

    def histogram(name: str, unit: str, bounds: Sequence[float]) -> Any:
        return meter.create_histogram(name, unit=unit, explicit_bucket_boundaries_advisory=list(bounds))

    return (
        provider,
        histogram("gen_ai.client.operation.duration", "s", DURATION_BOUNDS_S),
        histogram("gen_ai.client.token.usage", "{token}", TOKEN_BOUNDS),
        histogram("gen_ai.server.time_to_first_token", "s", DURATION_BOUNDS_S),
    )
