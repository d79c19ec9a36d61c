"""A guard that traces: the client's trace goes through it to the upstream, and every exchange ends as one span."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the `otel` extra")

from tests.contracts.test_otel_receiver import attributes
from tests.e2e.test_serve import CONFIG, Model, Sidecar, until
from tests.otlp_receiver import OtlpReceiver

pytestmark = pytest.mark.slow
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


class TracedModel(Model):
    """Remembers the traces it was asked in; a question for a stream gets one event and then silence."""

    seen: list[str]

    def do_POST(self) -> None:
        type(self).seen.append(self.headers["traceparent"])
        if self.headers["x-want"] != "stall":
            return super().do_POST()
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(b'data: {"choices":[{"index":0,"delta":{"content":"You"}}]}\n\n')
        self.wfile.flush()
        self.connection.recv(1)  # until the guard gives up
        return None


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[tuple[Sidecar, OtlpReceiver, list[str]]]:
    TracedModel.seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), TracedModel)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    with OtlpReceiver("http") as receiver:
        otel = f"otel: {{endpoint: '{receiver.endpoint}', sample: 100%}}\n"
        (tmp_path / "guard.yaml").write_text(CONFIG.format(stable=port, canary=port) + otel)
        (tmp_path / "slo.yaml").write_text("service: faq-bot\npreset: support-faq\n")
        made = Sidecar(tmp_path)
        made.start()
        yield made, receiver, TracedModel.seen
        if made.process is not None and made.process.poll() is None:
            made.stop()
    server.shutdown()
    server.server_close()


def ask(sidecar: Sidecar, **headers: str) -> str:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "How much leave?"}]}
    request = urllib.request.Request(
        f"{sidecar.data}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json", **headers},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        response.read()
        return str(response.headers["x-guard-exchange-id"])


def test_one_trace_from_the_client_to_the_upstream(traced: tuple[Sidecar, OtlpReceiver, list[str]]) -> None:
    sidecar, receiver, seen = traced
    exchange_id = ask(sidecar, traceparent=TRACEPARENT)
    ask(sidecar)
    receiver.wait_for(lambda: sum(s.name.startswith("chat") for s in receiver.spans) == 2)
    chat = next(s for s in receiver.spans if s.name.startswith("chat") and s.trace_id.hex() == TRACE_ID)
    found: dict[str, Any] = attributes(chat)
    assert found["sft.exchange.id"] == exchange_id
    assert found["gen_ai.response.model"] == "gpt-4o-mini"
    assert found["gen_ai.response.finish_reasons"] == ["stop"]
    assert seen[0] == f"00-{TRACE_ID}-{chat.span_id.hex()}-01"
    assert not any("leave" in str(value) for value in found.values())  # no content by default
    other = next(s for s in receiver.spans if s.name.startswith("chat") and s.trace_id.hex() != TRACE_ID)
    assert seen[1] == f"00-{other.trace_id.hex()}-{other.span_id.hex()}-01"
    assert not other.parent_span_id
    grounding = [e for e in chat.events if "grounding" in str(e)]
    assert len(grounding) == 1


def test_a_stream_that_the_client_leaves_is_one_finished_span(
    traced: tuple[Sidecar, OtlpReceiver, list[str]],
) -> None:
    sidecar, receiver, _ = traced
    host, port = sidecar.data.removeprefix("http://").split(":")
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "?"}]}).encode()
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-want: stall\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        assert b"200" in client.recv(4096)
    receiver.wait_for(lambda: len(receiver.spans) == 1)
    assert attributes(receiver.spans[0])["sft.outcome"] == "cancelled"
    assert sidecar.stop() == 0
    assert len(receiver.spans) == 1


def test_a_receiver_that_is_gone_costs_a_counter_only(traced: tuple[Sidecar, OtlpReceiver, list[str]]) -> None:
    sidecar, receiver, _ = traced
    receiver.status = 503
    assert ask(sidecar)
    receiver.status = 400  # not to be tried again
    ask(sidecar)
    until(lambda: (sidecar.metric("sft_guard_spans_dropped_total") or 0) > 0, limit_s=40.0)
