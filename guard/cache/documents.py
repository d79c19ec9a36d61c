"""Which documents an answer cites, as far as it says so. Pure."""

from __future__ import annotations

from typing import Any

from guard.ports import ContextSource
from guard.wire.text import Headers, at_path, load_json


def cited(source: ContextSource, documents: list[Any], headers: Headers) -> tuple[str, ...] | None:
    """Ids of the documents behind an answer; None when they are unknown, () when there are none.

    documents: the decoded body, or the decoded events of a stream. Contexts that stand in the prompt are part of the
    request, and so of the key: another text is another question, so nothing has to be remembered of them.

    >>> cited(ContextSource(body_path="contexts"), [{"contexts": [{"doc_id": "leave-1", "text": "..."}]}], ())
    ('leave-1',)
    >>> cited(ContextSource(body_path="contexts"), [{"contexts": ["a text without an id"]}], ()) is None
    True
    """
    if source.body_path:
        for document in reversed(documents):
            value = at_path(document, source.body_path)
            if value is not None:
                return _ids(value, source.id_field)
        return None
    if source.header:
        wanted = source.header.lower().encode()
        return next((_ids(load_json(value), source.id_field) for name, value in headers if name == wanted), None)
    return () if source.prompt_start else None


def _ids(contexts: Any, id_field: str) -> tuple[str, ...] | None:
    if not isinstance(contexts, list):
        return None
    found: dict[str, None] = {}
    for item in contexts:
        value = at_path(item, id_field)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            return None
        found[str(value)] = None
    return tuple(found)
