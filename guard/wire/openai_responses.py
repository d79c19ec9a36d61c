"""Dialect `openai-responses`: POST /v1/responses, JSON and streams of typed events.

A stream is complete with `response.completed` or `response.incomplete` (the model stopped at a limit, the protocol did
not). Usage is part of that last event, so nothing is asked for and nothing is taken out.
"""

from __future__ import annotations

from typing import Any

import msgspec

from guard.ports import ExchangeText, Reason, Route
from guard.wire.dialect import AnswerFacts, RequestFacts, StreamWatcher
from guard.wire.openai_chat import edit_object, token_count
from guard.wire.replies import MESSAGE_OF
from guard.wire.sse import read_event
from guard.wire.text import (
    Headers,
    assemble,
    content_text,
    documents_of,
    last_user_text,
    load_json,
    load_leniently,
    question_alone,
    system_text,
)
from guard.wire.tokens import estimate_tokens
from slo.codec import NOT_JSON

_TERMINAL = frozenset({"response.completed", "response.incomplete"})


class _Request(msgspec.Struct):
    model: Any = ""
    stream: Any = False
    user: Any = ""
    safety_identifier: Any = ""


class _Response(msgspec.Struct):
    output: Any = None
    usage: Any = None
    error: Any = None
    status: Any = None


class _Event(msgspec.Struct):
    type: Any = ""
    delta: Any = None
    response: _Response | None = None
    error: Any = None


_read_request = msgspec.json.Decoder(_Request).decode
_read_event = msgspec.json.Decoder(_Event).decode
_read_response = msgspec.json.Decoder(_Response).decode


def _output_text(output: Any) -> str:
    """Words of the message items of `output`."""
    if not isinstance(output, list):
        return ""
    return "".join(
        content_text(item.get("content")) for item in output if isinstance(item, dict) and item.get("type") == "message"
    )


class ResponsesWatcher(StreamWatcher):
    """Follows one stream of typed events."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self.needs_marker = True

    def see(self, raw: bytes) -> bool:
        name, data = read_event(raw)
        if data is None or data.startswith(b"[DONE]"):
            return False
        try:
            event = _read_event(data)
        except NOT_JSON:
            self.reason = self.reason or Reason.MALFORMED
            return False
        kind = event.type if isinstance(event.type, str) else ""
        if kind in ("error", "response.failed") or event.error or name == b"error":
            self.reason = Reason.INBAND_ERROR
        elif kind in _TERMINAL:
            self.complete = True
            if event.response is not None:
                self.input_tokens = token_count(event.response.usage, "input_tokens", "prompt_tokens")
                self.output_tokens = token_count(event.response.usage, "output_tokens", "completion_tokens")
        elif kind.endswith(".delta") and "reasoning" not in kind and event.delta:
            self.has_content = True
            self.estimated_tokens += estimate_tokens(event.delta) if isinstance(event.delta, str) else 1.0
        return False


class OpenAIResponses:
    """See the module."""

    checked = True

    def read_request(self, route: Route, body: bytes) -> RequestFacts:
        try:
            request = _read_request(body)
        except NOT_JSON:
            return RequestFacts(body)
        user = request.safety_identifier or request.user
        return RequestFacts(
            body,
            True,
            request.model if isinstance(request.model, str) else "",
            request.stream is True,
            user if isinstance(user, str) else "",
        )

    def upstream_body(self, facts: RequestFacts, rename_model: str) -> bytes:
        return edit_object(facts.body, model=rename_model) if rename_model and facts.understood else facts.body

    def watch(self, route: Route, facts: RequestFacts) -> StreamWatcher:
        return ResponsesWatcher()

    def read_answer(self, route: Route, body: bytes) -> AnswerFacts:
        try:
            answer = _read_response(body)
        except NOT_JSON:
            return AnswerFacts(Reason.MALFORMED)
        if answer.error or answer.status == "failed":
            return AnswerFacts(Reason.INBAND_ERROR)
        if not isinstance(answer.output, list):
            return AnswerFacts(Reason.MALFORMED)
        facts = AnswerFacts(
            Reason.NONE,
            token_count(answer.usage, "input_tokens", "prompt_tokens"),
            token_count(answer.usage, "output_tokens", "completion_tokens"),
        )
        if facts.output_tokens is None:
            facts.text = _output_text(answer.output)
        return facts

    def request_text(self, route: Route, body: bytes) -> str:
        request = load_json(body)
        if not isinstance(request, dict):
            return ""
        asked = request.get("input")
        words = [content_text(request.get("instructions"))]
        if isinstance(asked, list):
            words += [content_text(item.get("content")) for item in asked if isinstance(item, dict)]
        else:
            words.append(content_text(asked))
        return "\n".join(words)

    def question(self, route: Route, body: bytes) -> str:
        asked = load_leniently(body)
        return question_alone(route.contexts, last_user_text(asked.get("input"))) if isinstance(asked, dict) else ""

    def error_frame(self, reason: Reason) -> bytes:
        # Clients of typed events read `type`; the official one raises on an `error` object, whatever the type.
        message = MESSAGE_OF.get(reason, reason.value)
        error = {"message": message, "type": reason.value, "param": None, "code": reason.value}
        frame = {"type": "error", "code": reason.value, "message": message, "param": None, "error": error}
        return b"event: error\ndata: " + msgspec.json.encode(frame) + b"\n\n"

    def extract_text(
        self, route: Route, request: bytes, response: bytes, response_headers: Headers, stream: bool
    ) -> ExchangeText:
        asked = load_json(request)
        question, system = "", ""
        if isinstance(asked, dict):
            question = last_user_text(asked.get("input"))
            parts = (content_text(asked.get("instructions")), system_text(asked.get("input")))
            system = "\n".join(filter(None, parts))
        documents = documents_of(response, response_headers, stream)
        if stream:
            answer = "".join(map(_delta_text, documents))
        else:
            answer = _output_text(documents[0].get("output")) if isinstance(documents[0], dict) else ""
        return assemble(route.contexts, question, answer, documents, response_headers, system)


def _delta_text(event: Any) -> str:
    if isinstance(event, dict) and event.get("type") == "response.output_text.delta":
        delta = event.get("delta")
        return delta if isinstance(delta, str) else ""
    return ""
