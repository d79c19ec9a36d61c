"""Finding words in JSON: dotted paths, message contents, contexts. Shared by the dialects; pure and import-light."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from guard.ports import ContextSource, ExchangeText
from guard.safety.acl import tags_of
from guard.wire.sse import EventSplitter, EventTooLarge, read_event
from guard.wire.unpack import MAX_BYTES, unpack
from slo.codec import NOT_JSON
from slo.errors import DataError

LABEL_CHARS, MAX_CHOICES = 128, 16
LENIENT_BYTES = 1 << 17
_MISSING = object()
_decode = msgspec.json.decode

Headers = tuple[tuple[bytes, bytes], ...]


def at_path(value: Any, path: str, default: Any = None) -> Any:
    """Follow a dotted path through objects and, with numbers, lists.

    >>> at_path({"a": [{"b": 1}]}, "a.0.b"), at_path({"a": 1}, "a.b"), at_path({}, "")
    (1, None, None)
    """
    if not path:
        return default
    for step in path.split("."):
        if isinstance(value, dict):
            value = value.get(step, _MISSING)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return default
        if value is _MISSING:
            return default
    return value


def load_json(data: bytes) -> Any:
    """Decode, or None: of the words of an exchange what cannot be read is simply not there."""
    try:
        return _decode(data)
    except NOT_JSON:
        return None


def load_leniently(data: bytes) -> Any:
    """As the most tolerant upstream reads it: a byte order mark, UTF-16, NaN, halves of surrogate pairs, broken UTF-8.

    What screens a question must not be blind to what the model will read. None: no JSON for anybody, or too long to be
    read twice on the path.
    """
    found = load_json(data)
    if found is not None or not data or len(data) > LENIENT_BYTES:
        return found
    try:
        text = data.decode(json.detect_encoding(data), "replace")
        return json.loads(text, strict=False, parse_int=_no_number, parse_float=_no_number, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None


def _no_number(_: str) -> float:
    return 0.0


def whole_letters(text: str) -> str:
    """Halves of surrogate pairs joined or replaced, so that the words can be searched and encoded.

    >>> whole_letters("a\\ud83d"), whole_letters("plain")
    ('a\ufffd', 'plain')
    """
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def content_text(content: Any) -> str:
    """Words of a message content: a string, or a list of parts with `text`."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (
            part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, str | dict)
        )
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""


def last_user_text(messages: Any) -> str:
    """Words of the last message whose role is `user` and that has any: an image or an empty line hides no question."""
    if isinstance(messages, str):
        return messages
    if isinstance(messages, list):
        for message in reversed(messages):
            if isinstance(message, dict) and message.get("role") == "user":
                text = content_text(message.get("content"))
                if text.strip():
                    return text
    return ""


def system_text(messages: Any) -> str:
    """Words of the messages whose role is `system` or `developer`."""
    if not isinstance(messages, list):
        return ""
    found = (
        content_text(message.get("content"))
        for message in messages
        if isinstance(message, dict) and message.get("role") in ("system", "developer")
    )
    return "\n".join(filter(None, found))


def open_body(response: bytes, headers: Headers) -> bytes:
    """The body without its content coding, within the caps of `unpack`.

    Raises:
        DataError: it cannot be unpacked.
    """
    coding = next((value for name, value in headers if name == b"content-encoding"), b"")
    # A capture may end early; whether that matters is decided by who reads it.
    return unpack(response, coding.decode("latin-1"), max_bytes=MAX_BYTES, partial=True)


def stream_events(body: bytes) -> list[tuple[bytes, Any]]:
    """(event name, decoded data) of the whole events of a stream; what is not JSON is left out."""
    events: list[tuple[bytes, Any]] = []
    try:
        whole = EventSplitter(limit_bytes=MAX_BYTES + 1).feed(body)
    except EventTooLarge:
        return events
    for raw in whole:
        name, data = read_event(raw)
        if data is not None and (value := load_json(data)) is not None:
            events.append((name, value))
    return events


Tagged = tuple["tuple[str, ...] | None", "tuple[tuple[str, ...] | None, ...]"]
"""(contexts or None when unknown, access tags of each)."""

_UNKNOWN: Tagged = (None, ())


def _context_texts(value: Any, source: ContextSource) -> Tagged:
    if isinstance(value, str):
        return ((value,) if value.strip() else ()), ()
    if not isinstance(value, list):
        return _UNKNOWN
    found: list[str] = []
    tags: list[tuple[str, ...] | None] = []
    for item in value:
        text = at_path(item, source.text_field) if isinstance(item, dict) else item
        if isinstance(text, str):
            found.append(text)
            tags.append(tags_of(at_path(item, source.acl_field)) if isinstance(item, dict) else None)
    # A list whose items cannot be read is unknown, which is not the same as an empty one (a zero hit).
    return (tuple(found), tuple(tags)) if found or not value else _UNKNOWN


def _from_header(source: ContextSource, headers: Headers) -> Tagged:
    wanted = source.header.lower().encode()
    for name, value in headers:
        if name == wanted:
            return _context_texts(load_json(value), source)
    return _UNKNOWN


def split_prompt(source: ContextSource, question: str) -> tuple[str, tuple[str, ...] | None]:
    """Take the delimited contexts out of the last user message; a blank line separates two of them.

    >>> split_prompt(ContextSource(prompt_start="<ctx>", prompt_end="</ctx>"), "<ctx>a\\n\\nb</ctx> why?")
    ('why?', ('a', 'b'))
    """
    before, start, rest = question.partition(source.prompt_start)
    if not start:
        return question, None
    inside, end, after = rest.partition(source.prompt_end) if source.prompt_end else (rest, "", "")
    if source.prompt_end and not end:
        return question, None
    parts = inside.replace("\r\n", "\n").split("\n\n")
    return (before + after).strip(), tuple(part.strip() for part in parts if part.strip())


def question_alone(source: ContextSource, question: str) -> str:
    """The question without the contexts that a prompt carries."""
    return whole_letters(split_prompt(source, question)[0] if source.prompt_start else question)


def assemble(
    source: ContextSource, question: str, answer: str, documents: list[Any], headers: Headers, system: str = ""
) -> ExchangeText:
    """Put the words of an exchange together; contexts come from the first source that is set.

    documents: the decoded body, or the decoded events of a stream (the last that holds the path counts).
    """
    contexts: tuple[str, ...] | None = None
    tags: tuple[tuple[str, ...] | None, ...] = ()
    if source.body_path:
        for document in reversed(documents):
            value = at_path(document, source.body_path)
            if value is not None:
                contexts, tags = _context_texts(value, source)
                break
    elif source.header:
        contexts, tags = _from_header(source, headers)
    elif source.prompt_start:
        question, contexts = split_prompt(source, question)
    answer_source, escalated = _way(documents, headers)
    return ExchangeText(
        question,
        answer,
        contexts,
        _retrieval_s(source, documents),
        response_model=_response_model(documents),
        finish_reasons=_finish_reasons(documents),
        answer_source=answer_source,
        escalated=escalated,
        system=system,
        context_tags=tags,
    )


def _way(documents: list[Any], headers: Headers) -> tuple[str, bool]:
    """Where the answer came from and whether a second model was asked, as the answer path says; "" when it does not."""
    said = dict(headers)
    found = said.get(b"x-answer-source", b"").decode("latin-1")
    escalated = said.get(b"x-answer-escalated") == b"1"
    for document in reversed(documents):
        named = at_path(document, "answer_source")
        if isinstance(named, str):
            return (found or named)[:LABEL_CHARS], escalated or at_path(document, "route.escalated") is True
    return found[:LABEL_CHARS], escalated


def _response_model(documents: list[Any]) -> str:
    """The model that answered, by its own word."""
    for document in reversed(documents):
        found = at_path(document, "model") or at_path(document, "response.model")
        if isinstance(found, str):
            return found[:LABEL_CHARS]
    return ""


def _finish_reasons(documents: list[Any]) -> tuple[str, ...]:
    """Why each choice ended, in the order of the choices; of a stream the event that says it counts."""
    for document in reversed(documents):
        choices = at_path(document, "choices")
        if isinstance(choices, list):
            found = [at_path(choice, "finish_reason") for choice in choices[:MAX_CHOICES]]
            reasons = tuple(reason[:LABEL_CHARS] for reason in found if isinstance(reason, str))
            if reasons:
                return reasons
    return ()


def _retrieval_s(source: ContextSource, documents: list[Any]) -> float | None:
    if source.retrieval_s_path:
        for document in reversed(documents):
            value = at_path(document, source.retrieval_s_path)
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e6:
                return float(value)
    return None


def documents_of(response: bytes, headers: Headers, stream: bool) -> list[Any]:
    """The decoded body as a list of one, or the decoded events of a stream.

    Raises:
        DataError: the body is compressed beyond the caps or is not JSON.
    """
    body = open_body(response, headers)
    if stream:
        return [value for _, value in stream_events(body)]
    document = load_json(body)
    if document is None:
        raise DataError(f"answer of {len(body)} bytes: not JSON; the checks cannot read it")
    return [document]
