"""Embeddings from an OpenAI-compatible endpoint (`POST base_url/embeddings`), whole or not at all.

It connects to the configured origin and to nothing else: no redirects, no proxy from the environment, no address that
its name may not have. A full queue or a restart over there is waited for as long as `Retry-After` asks, within
`wait_s`; anything else is one clear error.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from rag.bearer import clean_key, plain_url
from slo.clock import Clock, SystemClock
from slo.dialling import Permits, http_connection
from slo.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

TEXT_CHARS_MAX = 8_000
"""Characters of one text that are sent; the usual limit is 8,192 tokens, and a Chinese character is one or more."""

_REPLY_BYTES_MAX = 64 * 2**20
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_FIRST_WAIT_S = 0.5


class _Item(msgspec.Struct):
    embedding: list[float]
    index: int


class _Reply(msgspec.Struct):
    data: list[_Item]


class EndpointEmbedder:
    """Unit vectors from a model elsewhere. An empty text is the zero vector and is not sent. Thread-safe.

    Args:
        base_url: ends before `/embeddings`, such as https://api.example.com/v1.
        dim: what the model must return; 0 takes what the first answer has.
        batch_count: texts of one call. timeout_s: of one call.
        tries_count: calls for one batch at most; wait_s: waits between them, together.
        latin_only: the model knows no other script, so others are served by somebody else.
        permits: which addresses the host of `base_url` may have; None: any.
    Raises:
        DataError: not reached, refused, or the answer is not what it should be; at once also at construction.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str = "",
        dim: int = 0,
        batch_count: int = 64,
        timeout_s: float = 10.0,
        tries_count: int = 3,
        wait_s: float = 20.0,
        latin_only: bool = False,
        permits: Permits | None = None,
        clock: Clock | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        from rag.embedding import PROBES, fingerprint_of

        self._url = urlsplit(plain_url(base_url.rstrip("/"), "address of the embeddings"))
        self._model, self._key = model, clean_key(api_key)
        self._place = f"embeddings of {model!r} at {self._url.scheme}://{self._url.netloc}"
        self._batch_count, self._timeout_s, self._latin_only = batch_count, timeout_s, latin_only
        self._tries_count, self._wait_s = tries_count, wait_s
        self._clock, self._sleep = clock or SystemClock(), sleep
        self._permits = permits
        self._lock = threading.Lock()
        self._open: http.client.HTTPConnection | None = None
        self.name = f"{model}@{self._url.netloc}"
        self.dim = dim
        try:
            probes = self.embed(PROBES)
        except DataError:
            self.close()
            raise
        self.dim = int(probes.shape[1])
        # One decimal: servers answer the same text with vectors that differ in the fourth.
        self.fingerprint = fingerprint_of(self.name, self.dim, "", probes, decimals=1)

    def embed(self, texts: Sequence[str]) -> Vectors:
        import numpy

        rows = [row for row, text in enumerate(texts) if text.strip()]
        parts: list[Vectors] = []
        for begin in range(0, len(rows), self._batch_count):
            batch = [texts[row][:TEXT_CHARS_MAX] for row in rows[begin : begin + self._batch_count]]
            parts.append(self._vectors(batch))
        out: Vectors = numpy.zeros((len(texts), parts[0].shape[1] if parts else self.dim), dtype=numpy.float32)
        if parts:
            out[rows] = numpy.concatenate(parts)
        return out

    def unknown_token_ratio(self, text: str) -> float:
        return 0.0

    def covers(self, text: str) -> bool:
        """Whatever its operator says: nobody can see its vocabulary from here."""
        from rag.embedding import LATIN_RATIO_MIN
        from rag.text import latin_ratio

        return not self._latin_only or latin_ratio(text) >= LATIN_RATIO_MIN

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            self._hang_up()

    def _vectors(self, batch: list[str]) -> Vectors:
        """Unit vectors of non-empty texts, shape (len(batch), dim)."""
        import numpy

        try:
            reply = msgspec.json.decode(self._post(batch), type=_Reply)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            raise DataError(f"{self._place}: the answer is not a list of embeddings ({error})") from error
        found = {item.index: item.embedding for item in reply.data}
        if sorted(found) != list(range(len(batch))):
            raise DataError(f"{self._place}: {len(batch)} texts sent, {len(found)} embeddings came back")
        lengths = {len(vector) for vector in found.values()}
        if len(lengths) != 1 or (self.dim and lengths != {self.dim}):
            got = ", ".join(map(str, sorted(lengths)))
            raise DataError(f"{self._place}: vectors of {got} dimensions, expected {self.dim or 'one length'}; "
                            "name the right model, or set `dim` to what it returns")  # fmt: skip
        vectors: Vectors = numpy.array([found[row] for row in range(len(batch))], dtype=numpy.float32)
        norms = numpy.linalg.norm(vectors, axis=1, keepdims=True)
        if not bool(numpy.isfinite(norms).all()) or not bool((norms > 0.0).all()):
            raise DataError(f"{self._place}: a vector is empty or not finite")
        vectors /= norms
        return vectors

    def _post(self, batch: list[str]) -> bytes:
        """Body of a 200, after as many tries as are allowed."""
        body = msgspec.json.encode({"model": self._model, "input": batch, "encoding_format": "float"})
        waited_s, why = 0.0, ""
        for number in range(1, self._tries_count + 1):
            status, asked_s, data = self._call(body)
            if status == 200:
                return data
            why = f"answered {status}" if status else data.decode()
            if status == 0 or status in _AGAIN:
                wait_s = asked_s if asked_s is not None else _FIRST_WAIT_S * 2 ** (number - 1)
                if number == self._tries_count or waited_s + wait_s > self._wait_s:
                    break
                self._sleep(wait_s)
                waited_s += wait_s
                continue
            raise DataError(f"{self._place}: {why}{_detail(data)}; {_cure(status)}")
        raise DataError(f"{self._place}: {why} after {number} tries in {waited_s:.1f} s of waiting; look at its server")

    def _call(self, body: bytes) -> tuple[int, float | None, bytes]:
        """Status, seconds of Retry-After, body; status 0 with the reason as body when it was not reached."""
        headers = {"content-type": "application/json", "accept": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        with self._lock:
            idle = self._open is not None
            try:
                try:
                    response, data = self._exchange(body, headers)
                except (ConnectionError, http.client.HTTPException):
                    self._hang_up()
                    if not idle:
                        raise
                    # Closed over there while it lay idle: once more on a new connection is no second try.
                    response, data = self._exchange(body, headers)
            except (OSError, http.client.HTTPException) as error:
                self._hang_up()
                return 0, None, f"not reached ({error or type(error).__name__})".encode()
            if response.will_close or len(data) > _REPLY_BYTES_MAX:
                self._hang_up()
        if len(data) > _REPLY_BYTES_MAX:
            raise DataError(f"{self._place}: more than {_REPLY_BYTES_MAX >> 20} MiB in one answer; lower `batch`")
        return response.status, self._asked_s(response.getheader("retry-after")), data

    def _exchange(self, body: bytes, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
        connection = self._open = self._open or http_connection(self._url, self._timeout_s, self._permits)
        connection.request("POST", f"{self._url.path}/embeddings", body, headers)
        response = connection.getresponse()
        return response, response.read(_REPLY_BYTES_MAX + 1)

    def _hang_up(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _asked_s(self, header: str | None) -> float | None:
        """Retry-After as seconds from now; None without one that can be read."""
        if not header:
            return None
        try:
            return max(0.0, float(header))
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(header).timestamp() - self._clock.wall_s())
        except (TypeError, ValueError):
            return None


def _detail(data: bytes) -> str:
    """The server's own words, when it has some."""
    try:
        document: Any = msgspec.json.decode(data)
        text = document["error"]["message"]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        return ""
    return f" ({' '.join(str(text).split())[:200]})"


def _cure(status: int) -> str:
    if status in (401, 403):
        return "check the key in the variable that `api_key_env` names"
    if status == 404:
        return "check `url` (it ends before /embeddings) and `model`"
    return "check `model`, `batch` and the texts' length"
