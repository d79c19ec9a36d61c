"""The answer path over HTTP: OpenAI-compatible chat completions, `/ask`, and health.

Beside the standard fields a response carries `retrieval` (contexts, duration, zero_hit) and `answer_source`; in a
stream both are on the chunk with `finish_reason`. The header `x-answer-source` says it too, and with a route file
`route` says why and what it cost; `x-guard-sensitivity: sensitive` keeps a question on the premises.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from rag.answer_path import AnswerPath, SharedEmbedder
from rag.answer_rules import RuleSource
from rag.embedding import Embedder
from rag.kb import KnowledgeBase
from rag.model_client import AnswerModel, ModelConfig, ModelError, OpenAiModel
from rag.openai_http import BadRequest, error_response, json_response, parsed
from rag.router import Pricer, Router, RouteTrace
from rag.routes_file import Routes
from rag.serving.asking import (
    DEFAULT_NAME,
    AskRequest,
    ChatRequest,
    path_of,
    question_of,
    retrieve,
    roles_of,
    sensitivity_of,
)
from rag.serving.telling import chain, events_of, headers_of, health, retrieval_shown, route_shown, usage_shown
from slo.clock import Clock, SystemClock

_routes = APIRouter()


def create_app(
    kb: KnowledgeBase,
    model: ModelConfig | None = None,
    embedder: Embedder | SharedEmbedder | None = None,
    *,
    k: int = 3,
    mode: str = "hybrid",
    refuse_under: float | None = None,
    clock: Clock | None = None,
    make_model: Callable[[ModelConfig], AnswerModel] = OpenAiModel,
    routes: Routes | None = None,
    prices: Pricer | None = None,
    others: Mapping[str, KnowledgeBase] | None = None,
    context_tokens: int | None = None,
    follow: bool = True,
    rules: RuleSource | None = None,
) -> FastAPI:
    """An app that answers from `kb`.

    Args:
        others: more knowledge bases or generations, asked for by name in the header `x-kb-generation`.
        context_tokens: contexts are packed into so many tokens.
        follow: go over to new generations of `kb`; those in `others` stay.
        model: asked with the contexts; without one answers are extractive.
        embedder: a `SharedEmbedder` is loaded in the background while words answer already.
        k, mode: of the search.
        refuse_under: confidence under which an extractive answer is refused.
        routes: decides who answers each question; then `model` is not asked. prices: of the models in `routes`.
        rules: behind the model; its answers are then held until they are whole.
    """
    clock = clock or SystemClock()
    shared = embedder if embedder is None or isinstance(embedder, SharedEmbedder) else SharedEmbedder(loaded=embedder)
    options: dict[str, Any] = {} if refuse_under is None else {"refuse_under": refuse_under}

    def path(one: KnowledgeBase) -> AnswerPath:
        return AnswerPath(
            one,
            model=make_model(model) if model else None,
            model_config=model,
            k=k,
            mode=mode,
            clock=clock,
            router=Router(routes, clock, prices=prices, make_model=make_model) if routes else None,
            context_tokens=context_tokens,
            rules=rules,
            **options,
        )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.paths = paths = {name: path(one) for name, one in {DEFAULT_NAME: kb, **(others or {})}.items()}
        async with _following(paths, shared, follow=follow, rules=rules is not None):
            yield

    app = FastAPI(title="sft-guard answer path", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.clock, app.state.shared = clock, shared
    app.add_exception_handler(BadRequest, _bad_request)
    app.add_exception_handler(ModelError, _model_failed)
    app.add_exception_handler(404, _no_such_route)
    app.add_exception_handler(405, _no_such_route)
    app.include_router(_routes)
    return app


@asynccontextmanager
async def _following(
    paths: Mapping[str, AnswerPath], shared: SharedEmbedder | None, *, follow: bool, rules: bool
) -> AsyncIterator[None]:
    """Load the embedder, follow generations and rules; close the paths at the end."""
    tasks: list[asyncio.Task[None]] = []
    for path in paths.values() if shared is not None else ():
        assert shared is not None
        if shared.state == "ready":
            await path.use_embedder(shared)
        else:
            tasks.append(asyncio.create_task(path.use_embedder(shared)))
    if follow:
        tasks.append(asyncio.create_task(paths[DEFAULT_NAME].follow()))
    if rules:
        tasks += [asyncio.create_task(path.follow_rules()) for path in paths.values()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for path in paths.values():
            await path.close()


async def _bad_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadRequest)
    return error.response()


async def _model_failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, ModelError)
    return error_response(error.status, error.kind, str(error))


async def _no_such_route(request: Request, error: Exception) -> Response:
    status = int(getattr(error, "status_code", 404))
    return error_response(status, "invalid_request_error", f"no such route: {request.method} {request.url.path}")


@_routes.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    body = await parsed(request, ChatRequest)
    retrieval = await retrieve(path_of(request), question_of(body.messages), roles_of(request, body))
    options = body.model_options()
    head = {"id": f"chatcmpl-{uuid4().hex[:24]}", "created": int(request.app.state.clock.wall_s())}
    trace, marked = RouteTrace(), sensitivity_of(request, body)
    if body.stream:
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        events = events_of(path_of(request), retrieval, options, head, include_usage, trace, marked)
        # The first event is made before the status is sent: a model that is down is a 502, not a broken 200.
        first = await anext(events)
        headers = {"cache-control": "no-cache", **headers_of(trace.source, trace)}
        return StreamingResponse(chain(first, events), media_type="text/event-stream", headers=headers)
    answer = await path_of(request).answer(retrieval, options, trace, marked)
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    return json_response(
        head
        | {
            "object": "chat.completion",
            "model": answer.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}],
            "usage": usage_shown(answer.usage, trace),
            "retrieval": retrieval_shown(retrieval, trace),
            "answer_source": answer.source,
            **route_shown(trace),
        },
        headers=headers_of(answer.source, trace),
    )


@_routes.post("/ask")
async def ask(request: Request) -> Response:
    body = await parsed(request, AskRequest)
    retrieval = await retrieve(path_of(request), body.question, roles_of(request, body))
    trace = RouteTrace()
    answer = await path_of(request).answer(retrieval, {}, trace, sensitivity_of(request, body))
    shown = retrieval_shown(retrieval, trace)
    return json_response(
        {
            "answer": answer.text,
            "contexts": shown["contexts"],
            "answer_source": answer.source,
            "confidence": round(retrieval.result.confidence, 4),
            "model": answer.model,
            "usage": usage_shown(answer.usage, trace),
            "retrieval": shown,
            **route_shown(trace),
        },
        headers=headers_of(answer.source, trace),
    )


@_routes.get("/v1/models")
async def models(request: Request) -> Response:
    entry = {"id": path_of(request).model_name, "object": "model", "created": 0, "owned_by": "sft-guard"}
    return json_response({"object": "list", "data": [entry]})


@_routes.get("/healthz")
async def healthz(request: Request) -> Response:
    shared: SharedEmbedder | None = request.app.state.shared
    state = shared.state if shared is not None else "off"
    return json_response(health(path_of(request), request.app.state.paths, state))
