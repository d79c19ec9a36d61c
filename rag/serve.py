"""The answer path over HTTP: OpenAI-compatible chat completions, `/ask`, and health.

Beside the standard fields a response carries `retrieval` (contexts, duration, zero_hit) and `answer_source`; in a
stream both are on the chunk with `finish_reason`. The header `x-answer-source` says it too, and with a route file
`route` says why and what it cost; `x-guard-sensitivity: sensitive` keeps a question on the premises.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from rag.answer_path import AnswerPath, Retrieval, SharedEmbedder
from rag.answer_rules import RuleSource
from rag.embedding import Embedder
from rag.kb import KnowledgeBase
from rag.model_client import AnswerModel, ModelConfig, ModelError, OpenAiModel, Usage
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
from rag.router import Pricer, Router, RouteTrace
from rag.routes_file import Routes
from rag.ruled import Ruled
from rag.types import Hit
from slo.clock import Clock, SystemClock
from slo.errors import DataError

GENERATION_HEADER, DEFAULT_NAME = "x-kb-generation", "default"
"""A version of the guard sends the header (`versions.NAME.headers`) to be answered from its own knowledge base."""
ROLES_HEADER, TENANT_HEADER = "x-guard-roles", "x-guard-tenant"
SENSITIVITY_HEADER = "x-guard-sensitivity"
SOURCE_HEADER, ESCALATED_HEADER, RULES_HEADER = "x-answer-source", "x-answer-escalated", "x-answer-rules"

QUESTION_CHARS_MAX = 32_000
"""Its tokens are counted and its language found between the requests of others, who would wait for a longer one."""

_LOADING_NOTE = "answers by words until the embedder is loaded"

_MODEL_OPTIONS = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed", "user")


class _ChatRequest(BaseModel):
    """What of a chat completion request matters here; the rest is ignored as any server may."""

    model_config = ConfigDict(extra="allow")
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    model: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None


class _AskRequest(BaseModel):
    model_config = ConfigDict(extra="allow")
    question: str


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

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        options: dict[str, Any] = {} if refuse_under is None else {"refuse_under": refuse_under}
        paths = {
            name: AnswerPath(
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
            for name, one in {DEFAULT_NAME: kb, **(others or {})}.items()
        }
        app.state.paths = paths
        tasks: list[asyncio.Task[None]] = []
        for path in paths.values() if shared is not None else ():
            assert shared is not None
            if shared.state == "ready":
                await path.use_embedder(shared)
            else:
                tasks.append(asyncio.create_task(path.use_embedder(shared)))
        if follow:
            tasks.append(asyncio.create_task(paths[DEFAULT_NAME].follow()))
        if rules is not None:
            tasks += [asyncio.create_task(path.follow_rules()) for path in paths.values()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for path in paths.values():
                await path.close()

    app = FastAPI(title="sft-guard answer path", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(BadRequest)
    async def bad_request(request: Request, error: BadRequest) -> Response:
        return error.response()

    @app.exception_handler(ModelError)
    async def model_failed(request: Request, error: ModelError) -> Response:
        return error_response(error.status, error.kind, str(error))

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def no_such_route(request: Request, error: Exception) -> Response:
        status = int(getattr(error, "status_code", 404))
        return error_response(status, "invalid_request_error", f"no such route: {request.method} {request.url.path}")

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await parsed(request, _ChatRequest)
        retrieval = await _retrieve(_path(request), _question(body.messages), _roles(request, body))
        options = {name: value for name, value in (body.model_extra or {}).items() if name in _MODEL_OPTIONS}
        head = {"id": f"chatcmpl-{uuid4().hex[:24]}", "created": int(clock.wall_s())}
        trace, marked = RouteTrace(), _marked(request, body)
        if body.stream:
            include_usage = body.stream_options is not None and body.stream_options.include_usage
            events = _events(_path(request), retrieval, options, head, include_usage, trace, marked)
            # The first event is made before the status is sent: a model that is down is a 502, not a broken 200.
            first = await anext(events)
            headers = {"cache-control": "no-cache", **_headers(trace.source, trace)}
            return StreamingResponse(_chain(first, events), media_type="text/event-stream", headers=headers)
        answer = await _path(request).answer(retrieval, options, trace, marked)
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        return json_response(
            head
            | {
                "object": "chat.completion",
                "model": answer.model,
                "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}],
                "usage": _usage(answer.usage, trace),
                "retrieval": _retrieval(retrieval, trace),
                "answer_source": answer.source,
                **_route(trace),
            },
            headers=_headers(answer.source, trace),
        )

    @app.post("/ask")
    async def ask(request: Request) -> Response:
        body = await parsed(request, _AskRequest)
        retrieval = await _retrieve(_path(request), body.question, _roles(request, body))
        trace = RouteTrace()
        answer = await _path(request).answer(retrieval, {}, trace, _marked(request, body))
        shown = _retrieval(retrieval, trace)
        return json_response(
            {
                "answer": answer.text,
                "contexts": shown["contexts"],
                "answer_source": answer.source,
                "confidence": round(retrieval.result.confidence, 4),
                "model": answer.model,
                "usage": _usage(answer.usage, trace),
                "retrieval": shown,
                **_route(trace),
            },
            headers=_headers(answer.source, trace),
        )

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        entry = {"id": _path(request).model_name, "object": "model", "created": 0, "owned_by": "sft-guard"}
        return json_response({"object": "list", "data": [entry]})

    @app.get("/healthz")
    async def healthz(request: Request) -> Response:
        path = _path(request)
        state = shared.state if shared is not None else "off"
        return json_response(
            {
                "status": "ok",
                "embedder": "failed" if state == "ready" and path.embedder_note else state,
                "retrieval": "hybrid" if state == "ready" and not path.embedder_note else "bm25",
                "note": path.kb_note or path.embedder_note or (_LOADING_NOTE if state == "loading" else ""),
                "kb_version": path.kb.meta.kb_version,
                "doc_count": path.kb.meta.doc_count,
                "content_id": path.kb.content_id,
                "generation": path.kb.generation.number,
                "generations": {
                    name: {
                        "kb_version": one.kb.meta.kb_version,
                        "generation": one.kb.generation.number,
                        "content_id": one.kb.content_id,
                    }
                    for name, one in request.app.state.paths.items()
                },
                "model": path.model_name,
                **({"routing": _routing(path.router)} if path.router is not None else {}),
                **({"rules": _rules(path.rules)} if path.rules is not None else {}),
            }
        )

    return app


async def _events(
    path: AnswerPath,
    retrieval: Retrieval,
    options: Mapping[str, object],
    head: Mapping[str, object],
    usage: bool,
    trace: RouteTrace,
    marked: str,
) -> AsyncGenerator[bytes, None]:
    base = {**head, "object": "chat.completion.chunk"}
    opened = False
    try:
        async with aclosing(path.stream(retrieval, options, trace, marked)) as pieces:
            async for piece, source in pieces:
                base["model"] = piece.model
                trace.source = source
                if not opened:
                    opened = True
                    yield event(base | {"choices": [chunk_choice({"role": "assistant", "content": ""})]})
                if piece.finish_reason:
                    end = {"choices": [chunk_choice({}, piece.finish_reason)], "answer_source": source}
                    yield event(base | end | {"retrieval": _retrieval(retrieval, trace)} | _route(trace))
                    if usage and piece.usage is not None:
                        yield event(base | {"choices": [], "usage": _usage(piece.usage, trace)})
                else:
                    yield event(base | {"choices": [chunk_choice({"content": piece.text})]})
    except ModelError as error:
        if not opened:
            raise
        # The status is sent; an error event and no [DONE] tell the client that this is not the whole answer.
        yield event(error_body(error.kind, str(error)))
        return
    yield DONE


async def _chain(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    # A client that goes away ends this generator; closing the rest at once ends the request to the model too.
    async with aclosing(rest):
        yield first
        async for event in rest:
            yield event


def _question(messages: list[Message]) -> str:
    for message in reversed(messages):
        if message.role == "user":
            return message.plain()
    raise BadRequest("no message with role `user`", "messages")


def _roles(request: Request, body: BaseModel) -> frozenset[str]:
    """Roles of the asker: of the headers `x-guard-roles` and `x-guard-tenant`, else `metadata.roles` of the body.

    Who names none sees what is for everybody.
    """
    said: object = request.headers.get(ROLES_HEADER)
    # Whoever sends one of the two headers knows the asker: what the asker writes into the body adds nothing then.
    if said is None and TENANT_HEADER not in request.headers:
        metadata = (body.model_extra or {}).get("metadata")
        said = metadata.get("roles") if isinstance(metadata, dict) else None
    words = said.split(",") if isinstance(said, str) else said if isinstance(said, list) else []
    roles = {word.strip().casefold() for word in words if isinstance(word, str) and word.strip()}
    if tenant := request.headers.get(TENANT_HEADER, "").strip().casefold():
        roles.add(f"tenant:{tenant}")
    return frozenset(roles)


async def _retrieve(path: AnswerPath, question: str, roles: frozenset[str]) -> Retrieval:
    if not question.strip():
        raise BadRequest("the question is empty", "messages")
    if len(question) > QUESTION_CHARS_MAX:
        message = f"the question has {len(question)} characters, at most {QUESTION_CHARS_MAX}; send the question alone"
        raise BadRequest(message, "messages")
    try:
        return await path.retrieve(question, roles)
    except DataError as error:
        raise BadRequest(str(error), "messages") from error


def _path(request: Request) -> AnswerPath:
    paths: dict[str, AnswerPath] = request.app.state.paths
    name = request.headers.get(GENERATION_HEADER, DEFAULT_NAME).strip()
    if name not in paths:
        served = ", ".join(paths)
        raise BadRequest(f"{GENERATION_HEADER}: {name[:64]!r} is not served here; there is {served}", GENERATION_HEADER)
    return paths[name]


def _marked(request: Request, body: BaseModel) -> str:
    """What the sender says of the question's sensitivity: in a header, or in `metadata.sensitivity` of the body."""
    metadata = (body.model_extra or {}).get("metadata")
    said = metadata.get("sensitivity") if isinstance(metadata, dict) else None
    words = [*request.headers.getlist(SENSITIVITY_HEADER), *([] if said is None else [str(said)])]
    # Of several words the strictest one counts; anything that is not "normal" is strict.
    return next((word for word in words if word.strip().lower() not in ("", "normal")), "")


def _headers(source: str, trace: RouteTrace) -> dict[str, str]:
    return {
        SOURCE_HEADER: source,
        **({ESCALATED_HEADER: "1"} if trace.escalated else {}),
        **({RULES_HEADER: trace.ruling.sha256[:12]} if trace.ruling is not None else {}),
    }


def _route(trace: RouteTrace) -> dict[str, object]:
    return {
        **({"route": trace.shown()} if trace.reason else {}),
        **({"rules": trace.ruling.shown()} if trace.ruling is not None else {}),
    }


def _rules(rules: Ruled) -> dict[str, object]:
    return {"sha256": rules.sha256, "note": rules.source.note}


def _routing(router: Router) -> dict[str, object]:
    """Answers by source since the start, and which models are not asked now."""
    away = sorted(slot for slot, circuit in router.circuits.items() if not circuit.closed)
    return {"answers": dict(router.counts), "not_reachable": away}


def _retrieval(retrieval: Retrieval, trace: RouteTrace) -> dict[str, object]:
    hits = retrieval.result.hits
    given = trace.ruling.context if trace.ruling is not None else None
    if given is not None and all(hit.doc_id != given.doc_id for hit in hits):
        hits = (given, *hits)  # what the answer is now the text of
    return {
        "contexts": [_context(hit) for hit in hits] if not trace.fixed else [_fixed(trace)],
        "duration_s": round(retrieval.duration_s, 6),
        "zero_hit": not hits and not trace.fixed,
        "mode": retrieval.result.mode_used,
        "confidence": round(retrieval.result.confidence, 4),
    }


def _fixed(trace: RouteTrace) -> dict[str, object]:
    """A fixed answer is its own source: held against documents of other subjects it would look made up."""
    return {"doc_id": f"answer:{trace.topic}", "text": trace.fixed, "score": 1.0}


def _context(hit: Hit) -> dict[str, object]:
    """span: first character and end in what the document was cut from, which is `parent` or itself."""
    shown: dict[str, object] = {"doc_id": hit.doc_id, "text": hit.text, "score": round(hit.score, 4)}
    shown["span"] = list(hit.span)
    if hit.parent:
        shown["parent"] = hit.parent
    if hit.acl:
        shown["acl"] = list(hit.acl)
    return shown


def _usage(usage: Usage, trace: RouteTrace) -> dict[str, object]:
    """Tokens, and with a route file what they cost: only the answer path knows which models were asked."""
    total = usage.prompt_tokens + usage.completion_tokens
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": total,
        **({"cost_usd": trace.cost_usd} if trace.reason and trace.cost_usd is not None else {}),
    }
