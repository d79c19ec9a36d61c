"""Dialect `openai-chat`: POST /v1/chat/completions (and /v1/completions), JSON and streams.

A stream is complete with `data: [DONE]`. Its usage comes in an extra event only on request, so we ask
(`stream_options.include_usage`) and take the event out again when the client did not ask.
"""

from __future__ import annotations

from typing import Any

import msgspec

from guard.ports import ExchangeText, Reason, Route
from guard.wire.dialect import AnswerFacts, PlainFrames, RequestFacts, StreamWatcher
from guard.wire.outline import CUT, outline
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

_ASK_FOR_USAGE = b'"stream_options":{"include_usage":true},'


class _Request(msgspec.Struct):
    model: Any = ""
    stream: Any = False
    user: Any = ""
    stream_options: Any = msgspec.UNSET


class _Delta(msgspec.Struct):
    content: Any = None
    tool_calls: Any = None
    function_call: Any = None
    refusal: Any = None
    audio: Any = None


class _StreamChoice(msgspec.Struct):
    delta: _Delta | None = None
    text: Any = None  # /v1/completions


class _Chunk(msgspec.Struct):
    choices: list[_StreamChoice] | None = None
    usage: Any = None
    error: Any = None


class _Message(msgspec.Struct):
    content: Any = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: Any = None


class _Completion(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_read_request = msgspec.json.Decoder(_Request).decode
_read_chunk = msgspec.json.Decoder(_Chunk).decode
_read_completion = msgspec.json.Decoder(_Completion).decode
_read_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode


def token_count(usage: Any, *names: str) -> int | None:
    """First of the named numbers of a usage object that is a count."""
    if isinstance(usage, dict):
        for name in names:
            value = usage.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                return value
    return None


def reported_usd(usage: Any) -> float | None:
    """`cost_usd` of a usage object, when it is a sum of money."""
    value = usage.get("cost_usd") if isinstance(usage, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e6 else None


def edit_object(body: bytes, **changes: Any) -> bytes:
    """Replace top-level members of a JSON object; the other values keep their bytes.

    A body with a key that is not UTF-8 stays as it is: the upstream says what is wrong with it.

    >>> edit_object(b'{"a": 1.50, "b": 2}', b="x")
    b'{"a":1.50,"b":"x"}'
    """
    try:
        members: dict[str, Any] = dict(_read_raw_object(body))
    except NOT_JSON:
        return body
    members.update(changes)
    return _encode(members)


def _asking_for_usage(body: bytes, options: Any) -> bytes:
    if options is msgspec.UNSET:
        start = body.index(b"{") + 1
        if body[start:].lstrip(b" \t\r\n")[:1] != b"}":
            return b"".join((body[:start], _ASK_FOR_USAGE, body[start:]))
    asked = dict(options) if isinstance(options, dict) else {}
    return edit_object(body, stream_options={**asked, "include_usage": True})


def is_usage_event(raw: bytes) -> bool:
    """Whether one whole event is the one that `include_usage` asks for: usage, and no choices."""
    if b'"usage"' not in raw:
        return False
    data = read_event(raw)[1]
    try:
        chunk = _read_chunk(data or b"")
    except NOT_JSON:
        return False
    return bool(chunk.usage) and not chunk.choices


class ChatWatcher(StreamWatcher):
    """Follows one chat stream."""

    __slots__ = ("_strips_usage",)

    def __init__(self, strips_usage: bool) -> None:
        super().__init__()
        self.needs_marker = True
        self._strips_usage = strips_usage

    def see(self, raw: bytes) -> bool:
        name, data = read_event(raw)
        if data is None:
            return False
        if data.startswith(b"[DONE]"):
            self.complete = True
            return False
        try:
            chunk = _read_chunk(data)
        except NOT_JSON:
            self.reason = self.reason or Reason.MALFORMED
            return False
        if chunk.error or name == b"error":
            self.reason = Reason.INBAND_ERROR
            return False
        if chunk.choices:
            for choice in chunk.choices:
                self._see_choice(choice)
        if chunk.usage:
            self.input_tokens = token_count(chunk.usage, "prompt_tokens", "input_tokens")
            self.output_tokens = token_count(chunk.usage, "completion_tokens", "output_tokens")
            self.cost_usd = reported_usd(chunk.usage)
            return self._strips_usage and not chunk.choices
        return False

    def _see_choice(self, choice: _StreamChoice) -> None:
        delta = choice.delta
        words = choice.text if delta is None else (delta.content or delta.refusal)
        if words:
            self.has_content = True
            self.estimated_tokens += estimate_tokens(content_text(words))
        elif delta is not None and (delta.tool_calls or delta.function_call or delta.audio):
            self.has_content = True
            self.estimated_tokens += len(str(delta.tool_calls or delta.function_call or "")) / 8


class OpenAIChat(PlainFrames):
    """See the module."""

    checked = True

    def read_request(self, route: Route, body: bytes) -> RequestFacts:
        try:
            request = _read_request(outline(body))
            if request.model == CUT or request.user == CUT or request.stream_options is not msgspec.UNSET:
                request = _read_request(body)  # these are needed as they are
        except NOT_JSON:
            return RequestFacts(body)  # The upstream says what is wrong with it.
        options = request.stream_options
        return RequestFacts(
            body,
            True,
            request.model if isinstance(request.model, str) else "",
            request.stream is True,
            request.user if isinstance(request.user, str) else "",
            request.stream is True and not (isinstance(options, dict) and options.get("include_usage") is True),
            options,
        )

    def upstream_body(self, facts: RequestFacts, rename_model: str) -> bytes:
        body = _asking_for_usage(facts.body, facts.stream_options) if facts.asks_usage else facts.body
        return edit_object(body, model=rename_model) if rename_model and facts.understood else body

    def watch(self, route: Route, facts: RequestFacts) -> StreamWatcher:
        return ChatWatcher(facts.asks_usage)

    def read_answer(self, route: Route, body: bytes) -> AnswerFacts:
        try:
            answer = _read_completion(body)
        except NOT_JSON:
            return AnswerFacts(Reason.MALFORMED)
        if answer.error:
            return AnswerFacts(Reason.INBAND_ERROR)
        if answer.choices is None:
            return AnswerFacts(Reason.MALFORMED)
        facts = AnswerFacts(
            Reason.NONE,
            token_count(answer.usage, "prompt_tokens", "input_tokens"),
            token_count(answer.usage, "completion_tokens", "output_tokens"),
            cost_usd=reported_usd(answer.usage),
        )
        if facts.output_tokens is None:
            facts.text = "\n".join(
                content_text(choice.message.content if choice.message else choice.text) for choice in answer.choices
            )
        return facts

    def request_text(self, route: Route, body: bytes) -> str:
        request = load_json(body)
        if not isinstance(request, dict):
            return ""
        messages = request.get("messages")
        if isinstance(messages, list):
            return "\n".join(content_text(message.get("content")) for message in messages if isinstance(message, dict))
        return content_text(request.get("prompt"))

    def question(self, route: Route, body: bytes) -> str:
        asked = load_leniently(body)
        return question_alone(route.contexts, _asked(asked)) if isinstance(asked, dict) else ""

    def extract_text(
        self, route: Route, request: bytes, response: bytes, response_headers: Headers, stream: bool
    ) -> ExchangeText:
        asked = load_json(request)
        question, system = "", ""
        if isinstance(asked, dict):
            question, system = _asked(asked), system_text(asked.get("messages"))
        documents = documents_of(response, response_headers, stream)
        answer = "".join(map(_words_of_event, documents)) if stream else "".join(map(_words_of_body, documents))
        return assemble(route.contexts, question, answer, documents, response_headers, system)


def _asked(request: dict[str, Any]) -> str:
    return last_user_text(request.get("messages")) or content_text(request.get("prompt"))


def _first_choice(document: Any) -> dict[str, Any]:
    choices = document.get("choices") if isinstance(document, dict) else None
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and choice.get("index", 0) == 0:
                return choice
    return {}


def _words_of_body(document: Any) -> str:
    choice = _first_choice(document)
    message = choice.get("message")
    return content_text(message.get("content") if isinstance(message, dict) else choice.get("text"))


def _words_of_event(document: Any) -> str:
    choice = _first_choice(document)
    delta = choice.get("delta")
    return content_text(delta.get("content") if isinstance(delta, dict) else choice.get("text"))
