"""What is told: the answer as an object or as events, and whence it came."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing

from rag.answer_path import AnswerPath, Retrieval
from rag.model_client import ModelError, Usage
from rag.openai_http import DONE, chunk_choice, error_body, event
from rag.router import Router, RouteTrace
from rag.ruled import Ruled
from rag.types import Hit

SOURCE_HEADER, ESCALATED_HEADER, RULES_HEADER = "x-answer-source", "x-answer-escalated", "x-answer-rules"
_LOADING_NOTE = "answers by words until the embedder is loaded"


def headers_of(source: str, trace: RouteTrace) -> dict[str, str]:
    return {
        SOURCE_HEADER: source,
        **({ESCALATED_HEADER: "1"} if trace.escalated else {}),
        **({RULES_HEADER: trace.ruling.sha256[:12]} if trace.ruling is not None else {}),
    }


def route_shown(trace: RouteTrace) -> dict[str, object]:
    return {
        **({"route": trace.shown()} if trace.reason else {}),
        **({"rules": trace.ruling.shown()} if trace.ruling is not None else {}),
    }


def retrieval_shown(retrieval: Retrieval, trace: RouteTrace) -> dict[str, object]:
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


def usage_shown(usage: Usage, trace: RouteTrace) -> dict[str, object]:
    """Tokens, and with a route file what they cost: only the answer path knows which models were asked."""
    total = usage.prompt_tokens + usage.completion_tokens
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": total,
        **({"cost_usd": trace.cost_usd} if trace.reason and trace.cost_usd is not None else {}),
    }


async def events_of(
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
                    yield event(base | end | {"retrieval": retrieval_shown(retrieval, trace)} | route_shown(trace))
                    if usage and piece.usage is not None:
                        yield event(base | {"choices": [], "usage": usage_shown(piece.usage, trace)})
                else:
                    yield event(base | {"choices": [chunk_choice({"content": piece.text})]})
    except ModelError as error:
        if not opened:
            raise
        # The status is sent; an error event and no [DONE] tell the client that this is not the whole answer.
        yield event(error_body(error.kind, str(error)))
        return
    yield DONE


async def chain(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    # A client that goes away ends this generator; closing the rest at once ends the request to the model too.
    async with aclosing(rest):
        yield first
        async for event in rest:
            yield event


def health(path: AnswerPath, paths: Mapping[str, AnswerPath], embedder_state: str) -> dict[str, object]:
    """Of the path that was asked for, beside what all of them serve. embedder_state: of a `SharedEmbedder`, or off."""
    state = embedder_state
    return {
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
            for name, one in paths.items()
        },
        "model": path.model_name,
        **({"routing": _routing(path.router)} if path.router is not None else {}),
        **({"rules": _rules(path.rules)} if path.rules is not None else {}),
    }


def _routing(router: Router) -> dict[str, object]:
    """Answers by source since the start, and which models are not asked now."""
    away = sorted(slot for slot, circuit in router.circuits.items() if not circuit.closed)
    return {"answers": dict(router.counts), "not_reachable": away}


def _rules(rules: Ruled) -> dict[str, object]:
    return {"sha256": rules.sha256, "note": rules.source.note}
