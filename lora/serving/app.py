"""The HTTP side of `lora serve`: OpenAI's chat completions, models, health, metrics; loading and unloading adapters.

The names of the routes that load and unload, and of their fields, are those of vLLM. They need the admin token; without
one they are off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Any, Literal, TypeVar
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from lora.serving.catalog import Served
from lora.serving.service import Answer, Refused, Service
from lora.serving.types import Done, Event, Failed, Said, Sampling
from rag.openai_http import (
    DONE,
    BadRequest,
    Message,
    StreamOptions,
    chunk_choice,
    error_body,
    error_response,
    event,
    json_response,
    parsed,
)
from slo.errors import GuardError, RefusedError

TIMEOUT_HEADER, VAULT_TOKEN_HEADER = "x-request-timeout-s", "x-vault-token"
_GONE_STATUS = 499
_STATUS = {"forbidden": 403, "unknown": 404, "bad_name": 400, "exists": 409}
_T = TypeVar("_T")

Authorise = Callable[[Request], None]
"""Raises Denied when a request may not."""


class Denied(Exception):
    """Becomes 401, 403 or 429."""

    def __init__(self, status: int, message: str, retry_after_s: int | None = None) -> None:
        self.status, self.message, self.retry_after_s = status, message, retry_after_s
        super().__init__(message)


class _PlainText(BaseModel):
    model_config = ConfigDict(extra="ignore")
    type: Literal["text"]


class _ChatRequest(BaseModel):
    """What of a chat completion request is understood; what would change the answer and is not, is refused."""

    model_config = ConfigDict(extra="ignore")
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    repetition_penalty: Annotated[float, Field(ge=1.0, le=2.0)] | None = None
    no_repeat_ngram_size: Annotated[int, Field(ge=0, le=20)] | None = None
    stop: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=4)] | str | None = None
    seed: int | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    presence_penalty: Annotated[float, Field(ge=0.0, le=0.0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0.0, le=0.0)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    response_format: _PlainText | None = None


class _LoadRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    lora_name: str
    lora_path: str
    load_inplace: bool = False


class _UnloadRequest(BaseModel):
    model_config = ConfigDict(extra="ignore")
    lora_name: str


def create_app(
    service: Service,
    *,
    defaults: Sampling,
    max_tokens: int,
    timeout_s: float,
    metrics: Callable[[], bytes],
    may_ask: Authorise,
    may_load: Authorise,
) -> FastAPI:
    """The app.

    Args:
        defaults: the inference guards, for what a request leaves open. max_tokens: of an answer, whoever asks for more.
        timeout_s: of a request; the header `x-request-timeout-s` may shorten it.
        metrics: text for Prometheus. may_ask, may_load: who may.
    """

    app = FastAPI(title="sft-guard lora serve", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(BadRequest)
    async def bad_request(request: Request, error: BadRequest) -> Response:
        return error.response()

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return _failed(error.failed, error.param, error.code)

    @app.exception_handler(Denied)
    async def denied(request: Request, error: Denied) -> Response:
        wait = {"retry-after": str(error.retry_after_s)} if error.retry_after_s else {}
        return error_response(error.status, "authentication_error", error.message, headers=wait)

    @app.exception_handler(GuardError)
    async def not_loaded(request: Request, error: GuardError) -> Response:
        status = _STATUS.get(error.reason, 400) if isinstance(error, RefusedError) else 400
        code = error.reason if isinstance(error, RefusedError) else None
        return error_response(status, "invalid_request_error", str(error), code=code)

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def no_such_route(request: Request, error: Exception) -> Response:
        status = int(getattr(error, "status_code", 404))
        return error_response(status, "invalid_request_error", f"no such route: {request.method} {request.url.path}")

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        may_ask(request)
        service.admit()
        body = await parsed(request, _ChatRequest)
        how, clip = _sampling(body, defaults, max_tokens)
        messages = [{"role": _role(m.role), "content": m.plain()} for m in body.messages]
        if not any(m["content"].strip() for m in messages):
            raise BadRequest("the messages are empty", "messages")
        begun = service.begin(body.model, messages, how, _timeout(request, timeout_s), clip=clip)
        answer = await begun
        head = {
            "id": f"chatcmpl-{uuid4().hex[:24]}",
            "created": int(service.clock.wall_s()),
            "model": answer.model.name,
            "system_fingerprint": f"adapter-{answer.model.sha256[:12]}" if answer.model.sha256 else "base",
        }
        return await (_streamed if body.stream else _whole)(request, answer, head, body)

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        may_ask(request)
        rows = [_entry(m, service) for _, m in sorted(service.models.items(), key=lambda item: item[1].handle or "")]
        return json_response({"object": "list", "data": rows})

    @app.post("/v1/load_lora_adapter")
    async def load(request: Request) -> Response:
        may_load(request)
        body = await parsed(request, _LoadRequest)
        token = request.headers.get(VAULT_TOKEN_HEADER)
        served = await service.load(body.lora_name, body.lora_path, token=token, replace=body.load_inplace)
        return json_response({"loaded": served.name, "source": served.source, "sha256": served.sha256})

    @app.post("/v1/unload_lora_adapter")
    async def unload(request: Request) -> Response:
        may_load(request)
        served = await service.unload((await parsed(request, _UnloadRequest)).lora_name)
        return json_response({"unloaded": served.name})

    @app.get("/healthz")
    @app.get("/health")
    async def healthz() -> Response:
        if not service.engine.alive:
            return json_response({"status": "failed", "why": "the model's thread has ended"}, 503)
        engine = service.engine
        return json_response(
            {"status": "ok", "models": sorted(service.models), "running": engine.running_count,
             "waiting": engine.waiting_count}
        )  # fmt: skip

    @app.get("/readyz")
    async def readyz() -> Response:
        if service.draining:
            return json_response({"ready": False, "why": "draining"}, 503)
        return json_response({"ready": True})

    @app.get("/metrics")
    async def scrape() -> Response:
        return PlainTextResponse(metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


async def _whole(request: Request, answer: Answer, head: dict[str, Any], body: _ChatRequest) -> Response:
    async def read() -> tuple[str, Event]:
        texts: list[str] = []
        async with aclosing(answer.events()) as events:
            async for one in events:
                if not isinstance(one, Said):
                    return "".join(texts), one
                texts.append(one.text)
        raise AssertionError("an answer without an end")

    read_all = await _unless_gone(request, read())
    if read_all is None:
        return Response(status_code=_GONE_STATUS)
    text, last = read_all
    if isinstance(last, Failed):
        return _failed(last)
    assert isinstance(last, Done)
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": last.finish_reason}
    return json_response({**head, "object": "chat.completion", "choices": [choice], "usage": _usage(last)})


async def _streamed(request: Request, answer: Answer, head: dict[str, Any], body: _ChatRequest) -> Response:
    events = answer.events()
    # The first event is there before the status is sent: what fails at once is a plain error, not a broken 200.
    first = await _unless_gone(request, anext(events))
    if first is None:
        await events.aclose()
        return Response(status_code=_GONE_STATUS)
    if isinstance(first, Failed):
        await events.aclose()
        return _failed(first)
    usage = body.stream_options is not None and body.stream_options.include_usage
    base = {**head, "object": "chat.completion.chunk"}
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return StreamingResponse(_frames(first, events, base, usage), media_type="text/event-stream", headers=headers)


async def _frames(
    first: Event, events: AsyncGenerator[Event, None], base: dict[str, Any], usage: bool
) -> AsyncIterator[bytes]:
    async with aclosing(events):  # a client that goes away closes this, and with it the row is freed
        yield event(base | {"choices": [chunk_choice({"role": "assistant", "content": ""})]})
        one: Event = first
        while True:
            if isinstance(one, Said):
                yield event(base | {"choices": [chunk_choice({"content": one.text})]})
            elif isinstance(one, Failed):
                # The status is sent; an error event and no [DONE] say that this is not the whole answer.
                yield event(error_body(one.kind, one.message))
                return
            else:
                yield event(base | {"choices": [chunk_choice({}, one.finish_reason)]})
                if usage:
                    yield event(base | {"choices": [], "usage": _usage(one)})
                yield DONE
                return
            one = await anext(events)


async def _unless_gone(request: Request, work: Awaitable[_T]) -> _T | None:
    """The result; None when the client went away before, and the work was ended."""
    task: asyncio.Task[_T] = asyncio.ensure_future(_as_coroutine(work))
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _as_coroutine(work: Awaitable[_T]) -> _T:
    return await work


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _sampling(body: _ChatRequest, defaults: Sampling, limit: int) -> tuple[Sampling, bool]:
    """The defaults with what the request says; and whether the length was left open."""
    asked = body.max_completion_tokens or body.max_tokens
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    how = Sampling(
        max_tokens=min(asked or defaults.max_tokens, limit),
        temperature=_or(body.temperature, defaults.temperature),
        top_p=_or(body.top_p, defaults.top_p),
        repetition_penalty=_or(body.repetition_penalty, defaults.repetition_penalty),
        no_repeat_ngram_size=_or(body.no_repeat_ngram_size, defaults.no_repeat_ngram_size),
        stop=stop,
        seed=body.seed,
    )
    return how, asked is None


def _or(value: _T | None, default: _T) -> _T:
    return default if value is None else value


def _role(role: str) -> str:
    """Chat templates of open models know system, user and assistant."""
    return {"developer": "system", "function": "tool"}.get(role, role)


def _timeout(request: Request, limit_s: float) -> float:
    said = request.headers.get(TIMEOUT_HEADER)
    if said is None:
        return limit_s
    try:
        wanted_s = float(said)
    except ValueError:
        wanted_s = 0.0
    if not 0.0 < wanted_s < float("inf"):
        raise BadRequest(f"{TIMEOUT_HEADER}: {said[:40]!r} is not a number of seconds above 0", TIMEOUT_HEADER)
    return min(wanted_s, limit_s)


def _entry(model: Served, service: Service) -> dict[str, object]:
    return {
        "id": model.name, "object": "model", "created": int(model.loaded_wall_s), "owned_by": "sft-guard",
        "root": service.base, "parent": None if model.handle is None else service.base,
        "max_model_len": service.reader.context_tokens, "sha256": model.sha256 or None,
    }  # fmt: skip


def _usage(done: Done) -> dict[str, int]:
    total = done.prompt_tokens + done.completion_tokens
    return {
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.completion_tokens,
        "total_tokens": total,
    }


def _failed(failed: Failed, param: str | None = None, code: str | None = None) -> Response:
    headers = {"retry-after": str(failed.retry_after_s)} if failed.retry_after_s is not None else {}
    return error_response(failed.status, failed.kind, failed.message, param, code, headers)
