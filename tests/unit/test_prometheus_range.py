"""The API of Prometheus as it may answer: whole, in pieces, empty, wrong, late."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

from slo.errors import ConfigError, GuardError, SourceError
from slo.sources import prometheus_range
from slo.sources.prometheus_baseline import histogram_quantile
from slo.sources.prometheus_range import PrometheusApi

Asked = dict[str, str]
Answer = tuple[int, bytes]


def matrix(*rows: tuple[dict[str, str], list[tuple[float, str]]], **more: object) -> Answer:
    result = [{"metric": labels, "values": values} for labels, values in rows]
    return 200, json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}, **more}).encode()


@contextmanager
def fake(answer: Callable[[Asked], Answer]) -> Iterator[tuple[str, list[Asked]]]:
    """A server that answers range queries; yields its address and what it was asked."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            fields = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            asked.append({**fields, "path": self.path, "authorization": self.headers.get("authorization", "")})
            status, text = answer(asked[-1])
            self.send_response(status)
            if status == 302:
                self.send_header("location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            with suppress(OSError):  # the client was told to go away early
                self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_values_are_read_and_what_is_no_number_is_no_value() -> None:
    row = ({"__name__": "up", "job": "a"}, [(60.0, "1.5"), (120.0, "NaN"), (180.0, "+Inf"), (240.0, "0")])
    with fake(lambda _: matrix(row, warnings=["slow"])) as (url, asked):
        api = PrometheusApi(url + "/prefix/", token="secret")
        (series,) = api.range("up", 60.0, 240.0, 60.0)
    assert (series.labels, series.points) == ({"job": "a"}, ((60.0, 1.5), (240.0, 0.0)))
    assert api.warnings == ["slow"]
    assert asked == [{"query": "up", "start": "60.0", "end": "240.0", "step": "60.0",
                      "path": "/prefix/api/v1/query_range", "authorization": "Bearer secret"}]  # fmt: skip


def test_an_empty_answer_is_neither_an_error_nor_a_zero() -> None:
    with fake(lambda _: matrix()) as (url, _):
        assert PrometheusApi(url).range("up", 0.0, 60.0, 60.0) == []


def test_long_ranges_are_asked_for_in_pieces_and_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus_range, "MAX_POINTS", 3)

    def answer(asked: Asked) -> Answer:
        start, end, step = (float(asked[name]) for name in ("start", "end", "step"))
        count = round((end - start) / step) + 1
        assert count <= 3
        return matrix(({"a": "b"}, [(start + n * step, str(start + n * step)) for n in range(count)]))

    with fake(answer) as (url, asked):
        (series,) = PrometheusApi(url).range("up", 10.0, 80.0, 10.0)
    assert [t for t, _ in series.points] == [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0]
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((400, b'{"status":"error","errorType":"bad_data","error":"a\\nb"}'), r"bad_data: a b .status 400."),
        ((503, b"<html>busy</html>"), "status 503, no answer of the Prometheus API"),
        ((200, b'{"status":"success","data":{"resultType":"vector","result":[]}}'), "'vector' instead of a matrix"),
        ((200, b'{"status":"success"'), "no answer of the Prometheus API"),
        ((302, b""), "redirects .status 302.; give the address it redirects to"),
        ((401, b"who are you"), "access refused .status 401.; name a token"),
    ],
)  # fmt: skip
def test_every_wrong_answer_is_one_line_that_names_the_address(answer: Answer, message: str) -> None:
    with fake(lambda _: answer) as (url, asked), pytest.raises(SourceError, match=message) as caught:
        PrometheusApi(url).range("up", 0.0, 60.0, 60.0)
    assert str(caught.value).startswith(url)
    assert "\n" not in str(caught.value)
    assert len(asked) == 1  # a redirect is not followed


def test_nobody_there_and_too_late() -> None:
    with fake(lambda _: matrix()) as (url, _):
        pass
    with pytest.raises(SourceError, match="not reachable"):
        PrometheusApi(url).range("up", 0.0, 60.0, 60.0)
    wait = threading.Event()

    def late(_: Asked) -> Answer:
        wait.wait(20)
        return matrix()

    with fake(late) as (url, _):
        with pytest.raises(SourceError, match=r"no answer within 0\.2 s"):
            PrometheusApi(url, timeout_s=0.2).range("up", 0.0, 60.0, 60.0)
        wait.set()


@pytest.mark.parametrize(
    "url", ["127.0.0.1:9090", "ftp://a/", "http://", "http://a:b/", "http://u:p@a/", "http://a/?x=1"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:9090"):
        PrometheusApi(url)


def test_a_quantile_between_bounds_is_that_of_prometheus() -> None:
    inf = float("inf")
    assert histogram_quantile({0.1: 10.0, 0.2: 90.0, inf: 100.0}, 0.5) == pytest.approx(0.15)
    assert histogram_quantile({0.1: 10.0, 0.2: 90.0, inf: 100.0}, 0.99) == 0.2  # beyond the last bound: that bound
    assert histogram_quantile({}, 0.5) is None
    assert histogram_quantile({0.1: 0.0, inf: 0.0}, 0.5) is None
    assert issubclass(SourceError, GuardError)
