"""`POST /guard/v1/feedback`: a user's thumb on one answer. The only path of the guard's own on the data listener."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import msgspec

from guard.recent import RecentExchanges

PATH = b"/guard/v1/feedback"
COMMENT_CHARS = 2_000


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """The body. A comment is accepted for compatibility with bots and not stored: it may hold anything."""

    exchange_id: str
    thumb: Literal["up", "down"]
    comment: str = ""


_decode = msgspec.json.Decoder(Feedback).decode


def feedback_handler(
    recent: RecentExchanges, count: Callable[[str, bool], None], flag: Callable[[str], object] = lambda _: None
) -> Callable[[Mapping[bytes, bytes], bytes], Awaitable[tuple[int, bytes]]]:
    """Return the handler; `count(release, up)` is told of each thumb on an answer that is remembered, once.

    flag: told the exchange of each thumb that points down, so that nobody else gets the same answer from the cache.
    """
    voted: dict[str, None] = {}

    async def handle(_headers: Mapping[bytes, bytes], body: bytes) -> tuple[int, bytes]:
        try:
            feedback = _decode(body)
        except msgspec.DecodeError as error:
            return 400, _error("bad_request", f'{error}; send {{"exchange_id": "...", "thumb": "up" or "down"}}')
        if len(feedback.comment) > COMMENT_CHARS:
            return 413, _error("too_large", f"comment: {len(feedback.comment)} characters, at most {COMMENT_CHARS}")
        release = recent.release_of(feedback.exchange_id)
        if release is None:
            return 404, _error("unknown_exchange", "send the x-guard-exchange-id of a recent answer")
        if feedback.exchange_id in voted:
            return 409, _error("voted", "this answer has its thumb already")
        voted[feedback.exchange_id] = None
        if len(voted) > 10_000:
            voted.pop(next(iter(voted)))
        count(release, feedback.thumb == "up")
        if feedback.thumb == "down":
            flag(feedback.exchange_id)
        return 202, b'{"accepted":true}'

    return handle


def _error(kind: str, message: str) -> bytes:
    return msgspec.json.encode({"error": {"type": kind, "message": message}})
