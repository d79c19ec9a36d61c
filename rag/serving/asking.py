"""What is asked: the request bodies, and what headers and body say of the asker."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from rag.answer_path import AnswerPath, Retrieval
from rag.openai_http import BadRequest, Message, StreamOptions
from slo.codec import header_text
from slo.errors import DataError

GENERATION_HEADER, DEFAULT_NAME = "x-kb-generation", "default"
"""A version of the guard sends the header (`versions.NAME.headers`) to be answered from its own knowledge base."""
ROLES_HEADER, TENANT_HEADER = "x-guard-roles", "x-guard-tenant"
SENSITIVITY_HEADER = "x-guard-sensitivity"

QUESTION_CHARS_MAX = 32_000
"""Its tokens are counted and its language found between the requests of others, who would wait for a longer one."""

_MODEL_OPTIONS = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed", "user")


class ChatRequest(BaseModel):
    """What of a chat completion request matters here; the rest is ignored as any server may."""

    model_config = ConfigDict(extra="allow")
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    model: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None

    def model_options(self) -> dict[str, object]:
        """What of it is for the model."""
        return {name: value for name, value in (self.model_extra or {}).items() if name in _MODEL_OPTIONS}


class AskRequest(BaseModel):
    model_config = ConfigDict(extra="allow")
    question: str


def question_of(messages: list[Message]) -> str:
    for message in reversed(messages):
        if message.role == "user":
            return message.plain()
    raise BadRequest("no message with role `user`", "messages")


def roles_of(request: Request, body: BaseModel) -> frozenset[str]:
    """Roles of the asker: of the headers `x-guard-roles` and `x-guard-tenant`, else `metadata.roles` of the body.

    Who names none sees what is for everybody.
    """
    said: object = _header(request, ROLES_HEADER)
    # Whoever sends one of the two headers knows the asker: what the asker writes into the body adds nothing then.
    if said is None and TENANT_HEADER not in request.headers:
        metadata = (body.model_extra or {}).get("metadata")
        said = metadata.get("roles") if isinstance(metadata, dict) else None
    words = said.split(",") if isinstance(said, str) else said if isinstance(said, list) else []
    roles = {word.strip().casefold() for word in words if isinstance(word, str) and word.strip()}
    if tenant := (_header(request, TENANT_HEADER) or "").strip().casefold():
        roles.add(f"tenant:{tenant}")
    return frozenset(roles)


def _header(request: Request, name: str) -> str | None:
    """As the sender wrote it: Starlette reads all bytes as Latin-1."""
    value = request.headers.get(name)
    return None if value is None else header_text(value.encode("latin-1"))


async def retrieve(path: AnswerPath, question: str, roles: frozenset[str]) -> Retrieval:
    if not question.strip():
        raise BadRequest("the question is empty", "messages")
    if len(question) > QUESTION_CHARS_MAX:
        message = f"the question has {len(question)} characters, at most {QUESTION_CHARS_MAX}; send the question alone"
        raise BadRequest(message, "messages")
    try:
        return await path.retrieve(question, roles)
    except DataError as error:
        raise BadRequest(str(error), "messages") from error


def path_of(request: Request) -> AnswerPath:
    paths: dict[str, AnswerPath] = request.app.state.paths
    name = request.headers.get(GENERATION_HEADER, DEFAULT_NAME).strip()
    if name not in paths:
        served = ", ".join(paths)
        raise BadRequest(f"{GENERATION_HEADER}: {name[:64]!r} is not served here; there is {served}", GENERATION_HEADER)
    return paths[name]


def sensitivity_of(request: Request, body: BaseModel) -> str:
    """What the sender says of the question's sensitivity: in a header, or in `metadata.sensitivity` of the body."""
    metadata = (body.model_extra or {}).get("metadata")
    said = metadata.get("sensitivity") if isinstance(metadata, dict) else None
    words = [*request.headers.getlist(SENSITIVITY_HEADER), *([] if said is None else [str(said)])]
    # Of several words the strictest one counts; anything that is not "normal" is strict.
    return next((word for word in words if word.strip().lower() not in ("", "normal")), "")
