"""Embeddings from an endpoint, against a real HTTP server on the loopback; and batching across requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.checks.spec import CheckSpec
from guard.checks.worker import load_semantic
from guard.embedder_report import embedder_findings
from guard.embeddings import endpoint_spec
from guard.settings import load_settings
from rag.coalescing import TEXTS_MAX, Coalescing
from rag.embedding import load_embedder
from rag.endpoint import TEXT_CHARS_MAX, EndpointEmbedder
from slo.errors import ConfigError, DataError

MODEL = "some-embedding-model"


class Server:
    """Answers as told: `script` holds (status, headers, body) to give before it answers well."""

    def __init__(self) -> None:
        self.script: list[tuple[int, dict[str, str], bytes]] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.connection_count = 0
        self.dim = 4
        self.change: Any = lambda data: data

    def vectors(self, texts: list[str]) -> list[dict[str, Any]]:
        rows = [[float(len(t) % 7 + 1), float(sum(map(ord, t)) % 11), 1.0, 2.0][: self.dim] for t in texts]
        return [{"index": i, "embedding": row, "object": "embedding"} for i, row in enumerate(rows)]


@contextmanager
def serving() -> Iterator[tuple[Server, str]]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            server.connection_count += 1

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.requests.append({"path": self.path, **body})
            server.keys.append(self.headers.get("authorization"))
            if server.script:
                status, headers, data = server.script.pop(0)
            else:
                status, headers = 200, {}
                data = json.dumps({"data": server.change(server.vectors(body["input"])), "model": MODEL}).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = headers.get("connection") == "close"

        def log_message(self, *args: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{listening.server_port}/v1"
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def test_texts_go_in_batches_and_come_back_as_units_in_order() -> None:
    with serving() as (server, url):
        embedder = EndpointEmbedder(url, MODEL, api_key="k", batch_count=2)
        server.change = lambda data: list(reversed(data))  # an order of its own is allowed: `index` counts
        vectors = embedder.embed(["one", "", "three", "four", "  ", "x" * 9_000])
        embedder.close()
    assert embedder.dim == 4
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 1, 1, 0, 1], abs=1e-6)
    raw = np.array([[4.0, sum(map(ord, "one")) % 11, 1.0, 2.0]])
    assert vectors[0] == pytest.approx((raw / np.linalg.norm(raw))[0], abs=1e-6)
    assert [r["input"] for r in server.requests[2:]] == [["one", "three"], ["four", "x" * TEXT_CHARS_MAX]]
    assert {r["path"] for r in server.requests} == {"/v1/embeddings"}
    assert set(server.keys) == {"Bearer k"}
    assert server.connection_count == 1


def test_a_full_server_is_waited_for_as_long_as_it_asks() -> None:
    slept: list[float] = []
    with serving() as (server, url):
        embedder = EndpointEmbedder(url, MODEL, sleep=slept.append)
        server.script = [(429, {"retry-after": "7"}, b"{}"), (503, {}, b"busy")]
        assert embedder.embed(["one"]).shape == (1, 4)
        assert slept == [7.0, 1.0]  # what was asked for; then the second step of 0.5, 1, 2
        server.script = [(429, {"retry-after": "3600"}, b"{}")]
        with pytest.raises(DataError, match=r"answered 429 after 1 tries .*look at its server"):
            embedder.embed(["one"])
        assert slept == [7.0, 1.0]  # an hour is longer than anybody may wait
        embedder.close()


def test_a_connection_closed_while_idle_costs_no_try() -> None:
    with serving() as (server, url):
        server.script = [(200, {"connection": "close"}, json.dumps({"data": server.vectors(["a"] * 4)}).encode())]
        embedder = EndpointEmbedder(url, MODEL, tries_count=1)
        assert embedder.embed(["one"]).shape == (1, 4)
        embedder.close()
    assert server.connection_count == 2


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, b'{"error": {"message": "bad key"}}', r"answered 401 \(bad key\); check the key"),
        (404, b"nothing here", "answered 404; check `url`"),
        (400, b'{"error": {"message": "too\\nlong"}}', r"answered 400 \(too long\); check `model`"),
        (200, b"<html>", "not a list of embeddings"),
        (200, b'{"data": []}', "1 texts sent, 0 embeddings came back"),
        (200, b'{"data": [{"index": 0, "embedding": [1, 2]}]}', "vectors of 2 dimensions, expected 4"),
        (200, b'{"data": [{"index": 0, "embedding": [0, 0, 0, 0]}]}', "a vector is empty or not finite"),
    ],
    ids=["key", "path", "request", "page", "none", "dimension", "zero"],
)
def test_what_is_not_as_agreed_is_one_clear_line(status: int, body: bytes, says: str) -> None:
    with serving() as (server, url):
        embedder = EndpointEmbedder(url, MODEL, api_key="secret-key")
        server.script = [(status, {}, body)]
        with pytest.raises(DataError, match=says) as caught:
            embedder.embed(["one"])
        embedder.close()
    assert "\n" not in str(caught.value)
    assert "secret-key" not in str(caught.value)
    assert MODEL in str(caught.value)


def test_nobody_there_is_said_after_the_allowed_tries() -> None:
    with serving() as (_, url):
        pass
    slept: list[float] = []
    with pytest.raises(DataError, match=r"not reached \(.*refused.*\) after 3 tries"):
        EndpointEmbedder(url, MODEL, sleep=slept.append)
    assert slept == [0.5, 1.0]


def test_the_fingerprint_tells_models_apart_and_forgives_the_fourth_decimal() -> None:
    with serving() as (server, url):
        one = EndpointEmbedder(url, MODEL)
        server.change = lambda data: [{**d, "embedding": [x + 0.0001 for x in d["embedding"]]} for d in data]
        same = EndpointEmbedder(url, MODEL)
        server.change = lambda data: [
            {**d, "embedding": [(-x) ** (d["index"] + 1) for x in d["embedding"]]} for d in data
        ]
        other = EndpointEmbedder(url, MODEL)
        for embedder in (one, same, other):
            embedder.close()
    assert one.fingerprint == same.fingerprint != other.fingerprint
    with serving() as (server, url), pytest.raises(DataError, match="vectors of 4 dimensions, expected 8"):
        EndpointEmbedder(url, MODEL, dim=8)


class Slow:
    """An embedder that a test can hold."""

    name, dim, fingerprint = "slow", 1, "f"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def embed(self, texts: list[str]) -> Any:
        self.batches.append(list(texts))
        self.entered.release()
        assert self.go_on.acquire(timeout=30)
        if any(text == "bad" for text in texts):
            raise DataError("bad text")
        return np.array([[float(text)] for text in texts], dtype=np.float32).reshape(len(texts), 1)

    def unknown_token_ratio(self, text: str) -> float:
        return 0.0

    def covers(self, text: str) -> bool:
        return True


def waiting(coalescing: Coalescing, count: int) -> None:
    """Until so many requests wait."""
    pause = threading.Event()
    while len(coalescing._waiting) < count:
        pause.wait(0.001)


def test_who_comes_while_it_works_goes_in_the_next_batch_together() -> None:
    slow = Slow()
    coalescing = Coalescing(slow)  # type: ignore[arg-type]
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(coalescing.embed, ["0"])
        assert slow.entered.acquire(timeout=30)
        rest = []
        for number in (1, 2, 3):
            rest.append(pool.submit(coalescing.embed, [str(number), str(10 * number)]))
            waiting(coalescing, number)
        slow.go_on.release(2)
        assert first.result(30).tolist() == [[0.0]]
        assert [future.result(30).tolist() for future in rest] == [[[1.0], [10.0]], [[2.0], [20.0]], [[3.0], [30.0]]]
    assert slow.batches == [["0"], ["1", "10", "2", "20", "3", "30"]]


def test_an_error_reaches_all_of_its_batch_and_nobody_else() -> None:
    slow = Slow()
    coalescing = Coalescing(slow)  # type: ignore[arg-type]
    slow.go_on.release(3)
    with ThreadPoolExecutor(1) as pool, pytest.raises(DataError, match="bad text"):
        pool.submit(coalescing.embed, ["bad"]).result(30)
    assert coalescing.embed(["5"]).tolist() == [[5.0]]
    assert coalescing.embed([]).shape == (0, 1)


def test_many_threads_get_what_they_would_have_got_alone() -> None:
    static = load_embedder("static")
    assert static is not None
    coalescing = Coalescing(static)
    texts = [[f"question {i} about leave", "VPN"] for i in range(200)] + [["long"] * (TEXTS_MAX + 1)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(coalescing.embed, texts))
    assert all(np.allclose(got, static.embed(asked), atol=1e-6) for got, asked in zip(found, texts, strict=True))
    assert (coalescing.name, coalescing.fingerprint) == (static.name, static.fingerprint)


GUARD = """\
service: faq
listen: {data: "127.0.0.1:0", admin: "127.0.0.1:0"}
slo: null
routes: [{name: chat, path: /v1/chat/completions, adapter: openai-chat}]
versions: {v1: {model: m, upstreams: ["http://127.0.0.1:9"]}}
release: {stable: v1}
checks: {embedder: endpoint}
"""


def test_checks_use_the_endpoint_of_guard_yaml_and_doctor_says_so(tmp_path: Path) -> None:
    with serving() as (server, url):
        path = tmp_path / "guard.yaml"
        path.write_text(GUARD + f"embeddings: {{url: '{url}', model: {MODEL}, api_key_env: EMB_KEY, scripts: latin}}\n")
        settings = load_settings(path, {"EMB_KEY": "a-key"})
        spec = endpoint_spec(settings)
        assert spec is not None
        assert "a-key" not in repr(spec)
        line, semantic = load_semantic(CheckSpec(embedder="endpoint", endpoint=spec))
        assert line.startswith(f"{MODEL}@127.0.0.1:")
        assert semantic is not None
        assert 0.0 <= semantic.best_cosine("annual leave", ["holidays", "VPN"]) <= 1.0
        asked = len(server.requests)
        assert semantic.best_cosine("\u7279\u5225\u4f11\u5047", ["\u7279\u5225\u4f11\u5047"]) == pytest.approx(1.0)
        assert len(server.requests) == asked  # by characters, not by the endpoint
        assert set(server.keys) == {"Bearer a-key"}
        states = {subject: (state, text) for state, subject, text, _ in embedder_findings(settings)}
        semantic.semantic_for("a").embedder.close()  # type: ignore[attr-defined]
    assert f"English, other Latin script: {MODEL}@127" in states["embedder"][1]
    state, subject, text, cure = next(embedder_findings(settings))  # now nobody is there
    assert (state, subject) == ("fault", "embedder")
    assert "not reached" in text
    assert "static" in cure


def test_an_endpoint_that_is_not_configured_is_a_mistake_in_guard_yaml(tmp_path: Path) -> None:
    path = tmp_path / "guard.yaml"
    path.write_text(GUARD)
    with pytest.raises(ConfigError, match="there is no `embeddings`"):
        load_settings(path, {})
    path.write_text(GUARD + "embeddings: {url: 'http://api.example.com/v1', model: m, api_key_env: KEY}\n")
    with pytest.raises(ConfigError, match="clear text"):
        load_settings(path, {"KEY": "k"})
