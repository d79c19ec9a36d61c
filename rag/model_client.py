"""Client of any OpenAI-compatible chat endpoint: whole answers and streams, every failure an UpstreamError."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Protocol

import aiohttp
import msgspec

from rag.bearer import clean_key, plain_url
from slo.codec import NOT_JSON
from slo.errors import UpstreamError

_LINE_BYTES_MAX = 1024 * 1024
_ERROR_CHARS_MAX = 200

REFUSED = "upstream_refused"
"""`kind` of a `ModelError` when the model is there and does not take this request: 400, 413, 422."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Where the answering model is. base_url ends before `/chat/completions`, such as http://127.0.0.1:8000/v1.

    refuse_under: confidence under which the model is not even asked; 0.0 always asks it.

    Raises:
        ConfigError: no address, or one with a user or password.
    """

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    temperature: float = 0.1
    max_tokens: int = 500
    timeout_s: float = 60.0
    idle_s: float = 30.0
    refuse_under: float = 0.0

    def __post_init__(self) -> None:
        plain_url(self.base_url, "address of the model")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of an answer. A whole answer is one piece; in a stream `finish_reason` and `usage` come once, late."""

    text: str = ""
    finish_reason: str = ""
    usage: Usage | None = None
    model: str = ""


class ModelError(UpstreamError):
    """The model did not answer as agreed. status: what the caller should answer with, 429, 502 or 504."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        self.status, self.kind = status, kind
        super().__init__(message)


class AnswerModel(Protocol):
    """Answers messages."""

    async def complete(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, object]) -> Piece:
        """The whole answer."""
        ...

    def stream(
        self, messages: Sequence[Mapping[str, str]], options: Mapping[str, object]
    ) -> AsyncGenerator[Piece, None]:
        """The answer in pieces, as they come."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


class OpenAiModel:
    """`AnswerModel` over HTTP. Make it inside a running event loop."""

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        key = clean_key(config.api_key)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=config.timeout_s, connect=2.0, sock_read=config.idle_s),
            connector=aiohttp.TCPConnector(limit=100),
            read_bufsize=_LINE_BYTES_MAX,
        )

    async def close(self) -> None:
        await self._session.close()

    async def complete(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, object]) -> Piece:
        try:
            async with self._post(messages, options, stream=False) as response:
                body = await response.read()
                _check_status(response, body)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _translated(error, self._config) from error
        try:
            answer = msgspec.json.decode(body)
            choice = answer["choices"][0]
            text = choice["message"].get("content") or ""
            return Piece(str(text), str(choice.get("finish_reason") or "stop"), _usage(answer), _model(answer))
        except (*NOT_JSON, KeyError, IndexError, TypeError, AttributeError) as error:
            raise ModelError(502, "malformed", f"model answered 200 without a chat completion ({error})") from error

    async def stream(
        self, messages: Sequence[Mapping[str, str]], options: Mapping[str, object]
    ) -> AsyncGenerator[Piece, None]:
        """Pieces as they come.

        Raises:
            ModelError: also in the middle, when the stream breaks, stalls, holds an error or lacks its end.
        """
        finished = False
        try:
            async with self._post(messages, options, stream=True) as response:
                if response.status != 200:
                    _check_status(response, await response.read())
                async for line in response.content:
                    data = line.strip()
                    if not data.startswith(b"data:"):
                        continue
                    data = data[5:].strip()
                    if data == b"[DONE]":
                        if finished:
                            return
                        break
                    piece = _piece(data)
                    finished = finished or bool(piece.finish_reason)
                    yield piece
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise _translated(error, self._config) from error
        raise ModelError(502, "upstream_cut", "model stream ended without its terminal marker")

    def _post(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, object], *, stream: bool) -> Any:
        body: dict[str, object] = {
            "model": self._config.model,
            "messages": list(messages),
            "temperature": self._config.temperature,
            "max_tokens": self._config.max_tokens,
            **options,
        }
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        url = f"{self._config.base_url.rstrip('/')}/chat/completions"
        # A redirect would send question and key somewhere nobody configured.
        return self._session.post(
            url,
            data=BytesIO(msgspec.json.encode(body)),
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
        )


def _piece(data: bytes) -> Piece:
    try:
        chunk = msgspec.json.decode(data)
        if "error" in chunk:
            raise ModelError(502, "inband_error", f"model stream reported: {_message(chunk)}")
        usage, model = _usage(chunk), _model(chunk)
        if not chunk["choices"]:
            return Piece(usage=usage, model=model)
        choice = chunk["choices"][0]
        text = choice.get("delta", {}).get("content") or ""
        return Piece(str(text), str(choice.get("finish_reason") or ""), usage, model)
    except (*NOT_JSON, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ModelError(502, "malformed", f"model stream holds no chat completion chunk ({error})") from error


def _check_status(response: aiohttp.ClientResponse, body: bytes) -> None:
    if response.status == 200:
        return
    try:
        message = _message(msgspec.json.decode(body))
    except NOT_JSON:
        message = "no error object"
    if response.status == 429:
        raise ModelError(429, "throttled", f"model is rate limited: {message}")
    kind = REFUSED if response.status in (400, 413, 422) else "upstream_status"
    raise ModelError(502, kind, f"model answered {response.status}: {message}")


def _message(answer: Any) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    text = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(text or "no message").split())[:_ERROR_CHARS_MAX]


def _usage(answer: Any) -> Usage | None:
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return Usage(prompt, completion) if isinstance(prompt, int) and isinstance(completion, int) else None


def _model(answer: Any) -> str:
    name = answer.get("model")
    return name if isinstance(name, str) else ""


def _translated(error: Exception, config: ModelConfig) -> ModelError:
    """One line that names the origin as configured, never a key or a full URL of somebody's query."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return ModelError(504, "connect_timeout", f"model at {config.base_url}: no connection within 2 s")
    if isinstance(error, TimeoutError):
        return ModelError(504, "timeout", f"model at {config.base_url}: no answer within {config.timeout_s:g} s")
    if isinstance(error, aiohttp.ClientConnectorError):
        return ModelError(502, "upstream_connect", f"model at {config.base_url}: cannot connect; is it running?")
    return ModelError(502, "upstream_cut", f"model at {config.base_url}: connection broke ({type(error).__name__})")
