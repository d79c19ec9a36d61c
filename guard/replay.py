"""A stored answer as a response: the head's fields and the pieces of the body. Pure."""

from __future__ import annotations

from guard.cache.types import Entry
from guard.wire.http1 import PLAIN, ResponseHead
from guard.wire.openai_chat import is_usage_event
from guard.wire.sse import EventSplitter


def replay(entry: Entry, strips_usage: bool, wall_s: float) -> tuple[ResponseHead, list[bytes]]:
    """Head and body of an answer from the cache; the body of a stream in pieces of one event.

    strips_usage: the client did not ask for the usage event that the stored stream has.
    """
    head = ResponseHead(200, b"OK", 1)
    # RFC 9111 5.1: how long ago this was said; a client that minds can ask again with cache-control: no-cache.
    age = (b"age", b"%d" % max(0, int(wall_s - entry.stored_wall_s)))
    head.fields = [(PLAIN, name, b"%s: %s" % (name, value), (name, value)) for name, value in (*entry.headers, age)]
    if not entry.stream:
        return head, [entry.body]
    splitter = EventSplitter(limit_bytes=len(entry.body) + 1)
    pieces = splitter.feed(entry.body)
    if strips_usage:
        pieces = [piece for piece in pieces if not is_usage_event(piece)]
    rest = splitter.rest()
    return head, [*pieces, rest] if rest else pieces
