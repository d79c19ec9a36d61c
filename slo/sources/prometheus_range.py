"""Range queries of the Prometheus HTTP API, for programs that run and end. One origin: the address given, no redirects.

Source: https://prometheus.io/docs/prometheus/latest/querying/api/#range-queries
"""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlencode, urlsplit

import msgspec

from slo.errors import ConfigError, SourceError

MAX_POINTS = 10_000
"""Points of one series per request; Prometheus refuses more than 11,000."""
MAX_BYTES = 256 * 2**20
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Series:
    """Labels without the metric's name, and (Unix seconds, value) where there is a finite one."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]


class _Row(msgspec.Struct):
    metric: dict[str, str] = {}
    values: list[tuple[float, str]] = []


class _Data(msgspec.Struct):
    resultType: str = ""
    result: list[_Row] = []


class _Reply(msgspec.Struct):
    status: str
    data: _Data = msgspec.field(default_factory=_Data)
    errorType: str = ""
    error: str = ""
    warnings: list[str] = []


class PrometheusApi:
    """Asks one Prometheus, or any store that speaks its API. warnings: what it said beside its answers.

    url: scheme, host, port and a prefix, if any. token: sent as a bearer token.

    Raises:
        ConfigError: not such an address.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        cure = "write the address of a Prometheus, such as http://127.0.0.1:9090"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError("--prometheus", url, cure) from error
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise ConfigError("--prometheus", url, cure)
        self.url = url.rstrip("/")
        self.warnings: list[str] = []
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, port
        self._path = parts.path.rstrip("/") + "/api/v1/query_range"
        self._token, self._timeout_s = token, timeout_s

    def range(self, query: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        """Values of `query` at start_s, start_s + step_s, ... up to end_s, asked for in pieces.

        No series is an empty list: silence is neither an error nor a zero.

        Raises:
            SourceError: not reachable, too slow, or not answering as the API says.
        """
        found: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        for first_s, last_s in _pieces(start_s, end_s, step_s):
            for row in self._ask({"query": query, "start": first_s, "end": last_s, "step": step_s}):
                labels = tuple(sorted((k, v) for k, v in row.metric.items() if k != "__name__"))
                points = ((at_s, _number(text)) for at_s, text in row.values)
                found.setdefault(labels, []).extend((t, v) for t, v in points if math.isfinite(v))
        return [Series(dict(labels), tuple(points)) for labels, points in found.items()]

    def _ask(self, parameters: dict[str, object]) -> list[_Row]:
        kind = HTTPSConnection if self._secure else HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout_s)
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        try:
            connection.request("POST", self._path, urlencode(parameters), headers)
            with connection.getresponse() as answer:
                status, body = answer.status, answer.read(MAX_BYTES + 1)
        except TimeoutError as error:
            raise SourceError(
                f"{self.url}: no answer within {self._timeout_s:g} s; ask for fewer --days, or a larger --window"
            ) from error
        except (OSError, HTTPException, socket.gaierror, ssl.SSLError) as error:
            raise SourceError(f"{self.url}: not reachable ({error}); check address and port") from error
        finally:
            connection.close()
        if len(body) > MAX_BYTES:
            raise SourceError(
                f"{self.url}: an answer of more than {MAX_BYTES} bytes; narrow it with --service or --job"
            )
        return self._rows(status, body)

    def _rows(self, status: int, body: bytes) -> list[_Row]:
        if 300 <= status < 400:
            raise SourceError(f"{self.url}: redirects (status {status}); give the address it redirects to")
        if status in (401, 403):
            raise SourceError(f"{self.url}: access refused (status {status}); name a token with --token-env")
        try:
            reply = msgspec.json.decode(body, type=_Reply)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise SourceError(
                f"{self.url}: status {status}, no answer of the Prometheus API; check the address"
            ) from error
        if reply.status != "success":
            told = " ".join(f"{reply.errorType}: {reply.error}".split())[:300]
            raise SourceError(f"{self.url}: {told} (status {status})")
        if reply.data.resultType != "matrix":
            raise SourceError(f"{self.url}: answered {reply.data.resultType!r} instead of a matrix; check the address")
        self.warnings += [w for w in reply.warnings if w not in self.warnings]
        return reply.data.result


def _pieces(start_s: float, end_s: float, step_s: float) -> Iterator[tuple[float, float]]:
    """(first, last) evaluation times of each request, none with more than MAX_POINTS."""
    count = math.floor((end_s - start_s) / step_s + 1e-9) + 1
    for at in range(0, count, MAX_POINTS):
        yield start_s + at * step_s, start_s + (min(at + MAX_POINTS, count) - 1) * step_s


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
