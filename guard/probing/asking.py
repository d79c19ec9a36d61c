"""A probe as a request of its route, and what its answer retrieved. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from guard.cache.documents import cited
from guard.cache.types import Namespace
from guard.ports import Capture, Route
from guard.wire.dialects import DIALECTS
from guard.wire.text import load_json


@dataclass(frozen=True, slots=True)
class _Key:
    namespace: Namespace


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """What `guard.cache.quiet.QuietPath` asks; the same shape as a request of the cache."""

    route: Route
    target: bytes
    body: bytes
    key: _Key
    stream: bool = False
    personal: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = field(default=((b"content-type", b"application/json"),))


def request_of(route: Route, question: str, model: str) -> ProbeRequest:
    """The question as the route's dialect asks it.

    Raises:
        ValueError: the route cannot be asked a question.
    """
    if route.path.endswith("*") or not DIALECTS[route.adapter].checked:
        raise ValueError(f"route {route.name}: a {route.adapter} route at {route.path} cannot be asked a question")
    if route.adapter == "openai-chat":
        body: dict[str, object] = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
        }
    elif route.adapter == "openai-responses":
        body = {"model": model, "input": question, "temperature": 0}
    else:
        body = _nested(route.question_path, question)
    namespace = Namespace("", 0, "", route.name)
    return ProbeRequest(route, route.path.encode(), json.dumps(body, ensure_ascii=False).encode(), _Key(namespace))


def documents_of(capture: Capture) -> tuple[str, ...] | None:
    """Ids of the retrieved documents in order; None where the answer names none."""
    source = capture.route.contexts
    if source.prompt_start:
        return None  # the contexts were the caller's
    return cited(source, [load_json(capture.response)], capture.response_headers)


def _nested(path: str, value: str) -> dict[str, object]:
    """
    >>> _nested("input.question", "hi")
    {'input': {'question': 'hi'}}
    """
    head, _, rest = path.partition(".")
    return {head: _nested(rest, value) if rest else value}
