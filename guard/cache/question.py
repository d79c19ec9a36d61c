"""The question of a request, and everything else of it as one hash. Pure.

Two requests may only be neighbours when they differ in their last user message alone: system prompt, earlier turns,
parameters, headers and retrieved contexts are in the hash, and so in the space that is searched.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from guard.cache.types import CacheRequest, Namespace
from guard.ports import ContextSource

_GAP = "\x00"
"""Stands where the question was; no JSON text of a client can hold it unescaped."""


@dataclass(frozen=True, slots=True)
class Question:
    """text: the words that are compared. space: who may share an answer to them (32 bytes)."""

    text: str
    space: bytes


def question_of(request: CacheRequest) -> Question | None:
    """The question, None when the request is not one question in plain words.

    request.body: as the client sent it; it has been read before, so it is JSON.
    """
    try:
        asked = json.loads(request.body)
    except ValueError:
        return None
    if not isinstance(asked, dict):
        return None
    place = _place(asked, request)
    if place is None:
        return None
    holder, name = place
    text = holder[name]
    question, frame = _without_contexts(text, request.route.contexts)
    if not question.strip():
        return None
    holder[name] = frame  # the object is ours: it was read from the body just now
    written = json.dumps(asked, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return Question(question.strip(), _space(request.key.namespace, request, written))


def _place(asked: dict[str, Any], request: CacheRequest) -> tuple[Any, Any] | None:
    """Where the text of the last user message is: a container and the name or index in it."""
    route = request.route
    if route.adapter == "json":
        holder: Any = asked
        *path, name = route.question_path.split(".")
        for step in path:
            holder = holder.get(step) if isinstance(holder, dict) else None
        return (holder, name) if isinstance(holder, dict) and isinstance(holder.get(name), str) else None
    if route.adapter == "openai-chat":
        messages = asked.get("messages")
    else:
        messages = asked.get("input")
        if isinstance(messages, str):
            return asked, "input"
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        return None
    last = messages[-1]
    if last.get("role") != "user":
        return None
    content = last.get("content")
    if isinstance(content, str):
        return last, "content"
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        return (content[0], "text") if isinstance(content[0].get("text"), str) else None
    return None


def _without_contexts(text: str, source: ContextSource) -> tuple[str, str]:
    """(the question, what is left with a gap in its place); retrieved contexts stay with the rest."""
    start = text.find(source.prompt_start) if source.prompt_start else -1
    if start < 0:
        return text, _GAP
    end = text.find(source.prompt_end, start + len(source.prompt_start)) if source.prompt_end else -1
    if end < 0:
        return text[:start], _GAP + text[start:]
    end += len(source.prompt_end)
    before, after = text[:start].strip(), text[end:].strip()
    return f"{before} {after}".strip(), f"{_GAP}{len(before)}{text[start:end]}"


def _space(namespace: Namespace, request: CacheRequest, written: str) -> bytes:
    parts = (
        namespace.release, str(namespace.epoch), namespace.tenant, namespace.route, namespace.mark,
        request.target.decode("latin-1"), repr(request.headers), written,
    )  # fmt: skip
    raw = [part.encode("utf-8", "surrogatepass") for part in parts]
    return sha256(b"".join(b"%d:%s" % (len(part), part) for part in raw)).digest()
