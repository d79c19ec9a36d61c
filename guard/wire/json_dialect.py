"""Dialect `json`: bots with an endpoint of their own, `POST /ask {question} -> {answer, contexts}`; paths by route.

Such bots rarely stream; when one does, there is no terminal marker to wait for and a clean end of the body completes
the answer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from guard.ports import ExchangeText, Reason, Route
from guard.wire.dialect import AnswerFacts, PlainFrames, RequestFacts, StreamWatcher
from guard.wire.openai_chat import edit_object, reported_usd, token_count
from guard.wire.sse import read_event
from guard.wire.text import (
    Headers,
    assemble,
    at_path,
    content_text,
    documents_of,
    load_json,
    load_leniently,
    question_alone,
)
from guard.wire.tokens import estimate_tokens
from slo.codec import NOT_JSON

_INPUT_NAMES = ("prompt_tokens", "input_tokens")
_OUTPUT_NAMES = ("completion_tokens", "output_tokens")


class JsonWatcher(StreamWatcher):
    """Follows a stream of JSON events: usage, errors and words at the paths of the route."""

    __slots__ = ("_route",)

    def __init__(self, route: Route) -> None:
        super().__init__()
        self._route = route

    def see(self, raw: bytes) -> bool:
        name, data = read_event(raw)
        if data is None or data.startswith(b"[DONE]"):
            return False
        try:
            event = msgspec.json.decode(data)
        except NOT_JSON:
            self.reason = self.reason or Reason.MALFORMED
            return False
        if name == b"error" or at_path(event, self._route.error_path):
            self.reason = Reason.INBAND_ERROR
            return False
        if words := content_text(at_path(event, self._route.answer_path)):
            self.has_content = True
            self.estimated_tokens += estimate_tokens(words)
        if usage := at_path(event, self._route.usage_path):
            self.input_tokens = token_count(usage, *_INPUT_NAMES)
            self.output_tokens = token_count(usage, *_OUTPUT_NAMES)
            self.cost_usd = reported_usd(usage)
        return False


class JsonDialect(PlainFrames):
    """See the module."""

    checked = True

    def read_request(self, route: Route, body: bytes) -> RequestFacts:
        request = load_json(body)
        if not isinstance(request, dict):
            return RequestFacts(body)
        model, user = request.get("model"), request.get("user")
        return RequestFacts(
            body,
            True,
            model if isinstance(model, str) else "",
            request.get("stream") is True,
            user if isinstance(user, str) else "",
        )

    def upstream_body(self, facts: RequestFacts, rename_model: str) -> bytes:
        # A bot that names no model is not told one.
        return edit_object(facts.body, model=rename_model) if rename_model and facts.model else facts.body

    def watch(self, route: Route, facts: RequestFacts) -> StreamWatcher:
        return JsonWatcher(route)

    def read_answer(self, route: Route, body: bytes) -> AnswerFacts:
        document = load_json(body)
        if not isinstance(document, dict):
            return AnswerFacts(Reason.MALFORMED)
        if at_path(document, route.error_path):
            return AnswerFacts(Reason.INBAND_ERROR)
        answer = at_path(document, route.answer_path)
        if answer is None:
            return AnswerFacts(Reason.MALFORMED)
        usage = at_path(document, route.usage_path)
        facts = AnswerFacts(Reason.NONE, token_count(usage, *_INPUT_NAMES), token_count(usage, *_OUTPUT_NAMES))
        facts.cost_usd = reported_usd(usage)
        if facts.output_tokens is None:
            facts.text = content_text(answer)
        return facts

    def request_text(self, route: Route, body: bytes) -> str:
        return content_text(at_path(load_json(body), route.question_path))

    def question(self, route: Route, body: bytes) -> str:
        return question_alone(route.contexts, content_text(at_path(load_leniently(body), route.question_path)))

    def extract_text(
        self, route: Route, request: bytes, response: bytes, response_headers: Headers, stream: bool
    ) -> ExchangeText:
        question = content_text(at_path(load_json(request), route.question_path))
        documents: list[Any] = documents_of(response, response_headers, stream)
        answer = "".join(content_text(at_path(document, route.answer_path)) for document in documents)
        return assemble(route.contexts, question, answer, documents, response_headers)
