"""What every server here that speaks OpenAI's dialect shares: forms of requests, refusals, frames of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

import msgspec
import pydantic
from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from slo.codec import NOT_JSON

BODY_BYTES_MAX = 1024 * 1024
DONE = b"data: [DONE]\n\n"

_Body = TypeVar("_Body", bound=BaseModel)


class Part(BaseModel):
    """One part of a message that is a list."""

    model_config = ConfigDict(extra="ignore")
    type: str
    text: str = ""


class Message(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None

    def plain(self) -> str:
        """Its text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.type in ("text", "input_text"))
        return self.content or ""


class StreamOptions(BaseModel):
    """Whether the stream ends with the usage."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class BadRequest(Exception):
    """Becomes an OpenAI-style 400 (or another 4xx)."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None) -> None:
        self.message, self.param, self.status, self.code = message, param, status, code
        super().__init__(message)

    def response(self) -> Response:
        """As it is sent."""
        return error_response(self.status, "invalid_request_error", self.message, self.param, self.code)


async def parsed(request: Request, kind: type[_Body]) -> _Body:
    """The request body as `kind`.

    Raises:
        BadRequest: too large, not JSON, or a field is missing or of the wrong type.
    """
    data = bytearray()
    async for block in request.stream():
        data += block
        if len(data) > BODY_BYTES_MAX:
            raise BadRequest(f"request body is larger than {BODY_BYTES_MAX} bytes", status=413)
    try:
        return kind.model_validate(msgspec.json.decode(bytes(data)))
    except NOT_JSON as error:
        raise BadRequest(f"request body is not JSON: {error}") from error
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"])
        raise BadRequest(f"`{param or 'body'}`: {first['msg']}", param or None) from error


def event(value: Mapping[str, object]) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def chunk_choice(delta: Mapping[str, str], finish_reason: str | None = None) -> dict[str, object]:
    """The only choice of a chunk."""
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def json_response(value: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def error_body(kind: str, message: str, param: str | None = None, code: str | None = None) -> dict[str, object]:
    """OpenAI's form of an error."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(
    status: int,
    kind: str,
    message: str,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error as it is sent."""
    return json_response(error_body(kind, message, param, code), status, headers)
