"""An exchange as spans of the OpenTelemetry GenAI semantic conventions, v1.41.1. Pure; knows no SDK.

    chat {model}              CLIENT, the whole exchange; an event `gen_ai.evaluation.result` for every check
    retrieval {data source}   INTERNAL, inside it, when the answer path reported its retrieval time

No words of anybody are in a span unless `content` is asked for, and then they are the redacted ones.
Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporters.trace_ids import child_id, is_sampled, trace_ids
from slo.quoting import unquoted
from slo.types import CheckResult, Exchange, Finding, Outcome, Version

Value = str | bool | int | float | tuple[str, ...]
EVALUATION = "gen_ai.evaluation.result"
NS = 1_000_000_000
_FAILED = frozenset({Outcome.SERVER_ERROR, Outcome.TIMEOUT, Outcome.INCOMPLETE})
_EVIDENCE_CHARS = 256


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened inside a span. at_ns: Unix nanoseconds."""

    name: str
    at_ns: int
    attributes: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Span:
    """One finished span. kind: client | internal. error: "" or what `error.type` says."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    events: tuple[Event, ...] = ()
    error: str = ""


def is_kept(exchange: Exchange, ratio: float) -> bool:
    """Whether an exchange whose checks are known becomes spans: failures and failed checks always do."""
    if exchange.outcome in _FAILED or any(f.result is CheckResult.FAIL for f in exchange.findings):
        return True
    return is_sampled(trace_ids(exchange.exchange_id, exchange.traceparent), ratio)


def spans_of(
    exchange: Exchange,
    version: Version | None,
    words: Mapping[str, object] | None,
    *,
    ratio: float,
    provider: str,
    content: bool = False,
) -> tuple[Span, ...]:
    """Return the spans of an exchange whose checks are known, or () when it is not sampled.

    Failures and failed checks are always sampled, whatever the client or the ratio says.

    Args:
        version: what the release is made of, None when it is not configured any more.
        words: what the checks kept: response_model, finish_reasons, retrieval_s; question and answer with `content`.
        provider: `gen_ai.provider.name`.
    """
    if not is_kept(exchange, ratio):
        return ()
    ids = trace_ids(exchange.exchange_id, exchange.traceparent)
    words = words or {}
    start_ns = round(exchange.wall_s * NS)
    end_ns = start_ns + round(exchange.duration_s * NS)
    error = exchange.reason or exchange.outcome.value if exchange.outcome in _FAILED else ""
    model = exchange.model or (version.model if version else "")
    chat = Span(
        f"chat {model}".strip(), "client", ids.trace_id, ids.span_id, ids.parent_id, start_ns, end_ns,
        _attributes(exchange, version, words, model, provider, error, content),
        tuple(_evaluation(f if content else unquoted(f), end_ns) for f in exchange.findings), error,
    )  # fmt: skip
    retrieval = _retrieval(chat, version, words, start_ns)
    return (chat,) if retrieval is None else (chat, retrieval)


def _attributes(
    exchange: Exchange, version: Version | None, words: Mapping[str, object], model: str, provider: str, error: str,
    content: bool,
) -> dict[str, Value]:  # fmt: skip
    found: dict[str, Value | None] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model or None,
        "gen_ai.response.model": _word(words.get("response_model")),
        "gen_ai.response.finish_reasons": _words(words.get("finish_reasons")),
        "gen_ai.usage.input_tokens": exchange.input_tokens,
        "gen_ai.usage.output_tokens": exchange.output_tokens,
        "gen_ai.conversation.id": exchange.session or None,
        "http.response.status_code": exchange.status or None,
        "error.type": error or None,
        "sft.exchange.id": exchange.exchange_id,
        "sft.release": exchange.release,
        "sft.release.name": version.name if version else None,
        "sft.arm": exchange.arm,
        "sft.route": exchange.route,
        "sft.outcome": exchange.outcome.value,
        "sft.cache": exchange.cache.value,
        "sft.usage": exchange.usage,
        "sft.cost.usd": exchange.cost_usd,
        "sft.first_token_s": exchange.first_token_s,
        "sft.overhead_s": exchange.overhead_s,
    }
    if content:
        found["sft.question"] = _word(words.get("question"))
        found["sft.answer"] = _word(words.get("answer"))
    return {name: value for name, value in found.items() if value is not None}


def _evaluation(finding: Finding, at_ns: int) -> Event:

    attributes: dict[str, Value] = {
        "gen_ai.evaluation.name": finding.check,
        "gen_ai.evaluation.score.label": finding.result.value,
    }
    if finding.score is not None:
        attributes["gen_ai.evaluation.score.value"] = finding.score
    explanation = finding.reason[:_EVIDENCE_CHARS]
    if explanation:
        attributes["gen_ai.evaluation.explanation"] = explanation
    return Event(EVALUATION, at_ns, attributes)


def _retrieval(chat: Span, version: Version | None, words: Mapping[str, object], start_ns: int) -> Span | None:
    seconds = words.get("retrieval_s")
    if not isinstance(seconds, int | float):
        return None
    source = version.kb if version else ""
    attributes: dict[str, Value] = {"gen_ai.operation.name": "retrieval"}
    if source:
        attributes["gen_ai.data_source.id"] = source
    # When it began inside the exchange is not reported; it comes first in every answer path we know.
    end_ns = min(chat.end_ns, start_ns + round(seconds * NS))
    ids = trace_ids(str(chat.attributes["sft.exchange.id"]))
    return Span(
        f"retrieval {source}".strip(), "internal", chat.trace_id, child_id(ids, "retrieval"), chat.span_id, start_ns,
        end_ns, attributes,
    )  # fmt: skip


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _words(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list | tuple):
        return None
    return tuple(word for word in value if isinstance(word, str)) or None
