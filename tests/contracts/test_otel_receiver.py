"""Spans and metrics as a real OTLP receiver reads them, over HTTP and gRPC; and what an outage of it costs."""

from __future__ import annotations

import dataclasses
import socket

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the `otel` extra")

from exporters.otel import DURATION_BOUNDS_S, QUEUE_COUNT, TOKEN_BOUNDS, OtelExporter
from slo.types import CacheStatus, Version
from tests.otlp_receiver import OtlpReceiver
from tests.unit.test_exporters_spans import EXCHANGE, PARENT, WORDS

VERSION = Version("v1", model="gpt-4o-mini", kb="faq@7")


def attributes(span: object) -> dict[str, object]:
    found = {}
    for a in span.attributes:  # type: ignore[attr-defined]
        kind = a.value.WhichOneof("value")
        found[a.key] = (
            [v.string_value for v in a.value.array_value.values] if kind == "array_value" else getattr(a.value, kind)
        )
    return found


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_receiver_reads_spans_events_and_histograms(protocol: str) -> None:
    with OtlpReceiver(protocol) as receiver:
        exporter = OtelExporter(
            receiver.endpoint, service="faq-bot", protocol=protocol, headers={"x-team": "sre"}, ratio=0.0,
            version_of=lambda release: VERSION if release == "r1" else None, sleep_s=0.01, metrics_every_s=0.2,
        )  # fmt: skip
        exporter.checked(EXCHANGE, WORDS)
        exporter.checked(dataclasses.replace(EXCHANGE, exchange_id="e2", cache=CacheStatus.HIT), None)
        receiver.wait_for(lambda: len(receiver.spans) == 3 and len(receiver.metrics) == 3)
        exporter.close()
    chat = next(s for s in receiver.spans if s.name == "chat gpt-4o-mini")
    assert chat.trace_id.hex() == PARENT[3:35]
    assert chat.parent_span_id.hex() == PARENT[36:52]
    assert (chat.kind, chat.start_time_unix_nano) == (3, 1_750_000_000 * 10**9)  # 3: CLIENT
    found = attributes(chat)
    assert found["gen_ai.response.finish_reasons"] == ["stop"]
    assert found["gen_ai.usage.input_tokens"] == 950
    assert [event.name for event in chat.events] == ["gen_ai.evaluation.result"] * 2
    retrieval = next(s for s in receiver.spans if s.name == "retrieval faq@7")
    assert retrieval.parent_span_id == chat.span_id
    assert receiver.headers["x-team"] == "sre"
    assert receiver.resources[0]["service.name"] == "faq-bot"

    duration = receiver.metrics["gen_ai.client.operation.duration"].histogram.data_points[0]
    assert tuple(duration.explicit_bounds) == DURATION_BOUNDS_S
    assert (duration.count, duration.sum) == (1, 2.0)  # a cache hit is no operation of the model
    tokens = receiver.metrics["gen_ai.client.token.usage"].histogram.data_points
    assert sorted(point.sum for point in tokens) == [250, 950]
    assert tuple(tokens[0].explicit_bounds) == tuple(map(float, TOKEN_BOUNDS))
    assert receiver.metrics["gen_ai.server.time_to_first_token"].histogram.data_points[0].sum == 0.5


def test_a_receiver_that_refuses_costs_counted_spans_and_nothing_else() -> None:
    dropped: list[tuple[str, int]] = []
    with OtlpReceiver("http", status=400) as receiver:
        exporter = OtelExporter(
            receiver.endpoint, service="s", metrics=False, version_of=lambda release: None, sleep_s=0.01,
            on_drop=lambda reason, count: dropped.append((reason, count)),
        )  # fmt: skip
        exporter.checked(EXCHANGE, None)
        exporter.close()
    assert dropped == [("export", 1)]


def test_the_queue_is_bounded_and_drops_the_oldest() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stalled:  # accepts, never answers
        dropped: list[tuple[str, int]] = []
        exporter = OtelExporter(
            f"http://127.0.0.1:{stalled.getsockname()[1]}", service="s", metrics=False,
            version_of=lambda release: None, sleep_s=3600.0,
            on_drop=lambda reason, count: dropped.append((reason, count)),
        )  # fmt: skip
        for number in range(QUEUE_COUNT + 3):
            exporter.checked(dataclasses.replace(EXCHANGE, exchange_id=str(number)), None)
        assert dropped == [("queue_full", 1)] * 3
        assert exporter._queue[0][0].exchange_id == "3"
