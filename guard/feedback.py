"""`POST /guard/v1/feedback`: a user's thumb on one answer. The only path of the guard's own on the data listener.

One thumb per answer: the same thumb again is answered 200 and not counted, the opposite one is refused. Anybody who can
ask can send one, so a flood is refused before it is read.

A person with the admin token may send a `label` instead or as well: whether the answer says what its contexts say. It
corrects the measured hallucination rate (`guard.human_labels`), and the last one of an answer counts.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Literal

import msgspec

from guard.limits import TokenBucket
from guard.recent import RELEASE_OF_COUNT, RecentExchanges
from slo.codec import NOT_JSON

PATH = b"/guard/v1/feedback"
COMMENT_CHARS = 2_000
PER_S, BURST_COUNT = 50.0, 500.0
"""Thumbs read per second in the long run, and at once. People do not come near it."""


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """The body. A comment is accepted for compatibility with bots and not stored: it may hold anything."""

    exchange_id: str
    thumb: Literal["up", "down"] | None = None
    comment: str = ""
    label: Literal["hallucinated", "supported"] | None = None


_decode = msgspec.json.Decoder(Feedback).decode


def feedback_handler(
    recent: RecentExchanges,
    count: Callable[[str, bool], None],
    flag: Callable[[str], object] = lambda _: None,
    now_s: Callable[[], float] = time.monotonic,
    label: Callable[[str, str], Awaitable[str | None]] | None = None,
    token: Callable[[], str | None] = lambda: None,
) -> Callable[[Mapping[bytes, bytes], bytes], Awaitable[tuple[int, bytes]]]:
    """Return the handler; `count(release, up)` is told of each thumb on an answer that is remembered, once.

    flag: told the exchange of each thumb that points down, so that nobody else gets the same answer from the cache.
    label: told (exchange, label); gives the release, None when the answer was not judged. token: that labels need.
    """
    voted: dict[str, str] = {}  # as long as an answer is remembered, so that nothing is counted twice
    bucket = TokenBucket(PER_S, BURST_COUNT)

    async def handle(headers: Mapping[bytes, bytes], body: bytes) -> tuple[int, bytes]:
        if not bucket.take(now_s()):
            return 429, _error("too_many", f"more than {PER_S:g} thumbs per second; send it again later")
        try:
            feedback = _decode(body)
        except NOT_JSON as error:
            return 400, _error("bad_request", f'{error}; send {{"exchange_id": "...", "thumb": "up" or "down"}}')
        if feedback.label is None and feedback.thumb is None:
            return 400, _error("bad_request", "neither `thumb` nor `label`; send a thumb, or a label with the token")
        if feedback.label is not None and not _is_allowed(headers, token()):
            return 401, _error("unauthorized", "a label needs `authorization: Bearer` with the admin token")
        if len(feedback.comment) > COMMENT_CHARS:
            return 413, _error("too_large", f"comment: {len(feedback.comment)} characters, at most {COMMENT_CHARS}")
        release = recent.release_of(feedback.exchange_id)
        if release is None:
            return 404, _error("unknown_exchange", "send the x-guard-exchange-id of a recent answer")
        if feedback.label is not None and label is not None:
            try:
                labelled = await label(feedback.exchange_id, feedback.label)
            except OSError as error:
                return 503, _error("not_stored", f"the label cannot be written ({error.strerror}); send it again")
            if labelled is None:
                return 409, _error("not_judged", "the grounding check has not judged this answer (yet)")
            if feedback.thumb is None:
                return 202, b'{"accepted":true}'
        if (before := voted.get(feedback.exchange_id)) is not None:
            if before == feedback.thumb:
                return 200, b'{"accepted":true,"repeated":true}'
            return 409, _error("voted", f"this answer has its thumb already: {before}")
        assert feedback.thumb is not None
        voted[feedback.exchange_id] = feedback.thumb
        if len(voted) > RELEASE_OF_COUNT:
            voted.pop(next(iter(voted)))
        count(release, feedback.thumb == "up")
        if feedback.thumb == "down":
            flag(feedback.exchange_id)
        return 202, b'{"accepted":true}'

    return handle


def _is_allowed(headers: Mapping[bytes, bytes], token: str | None) -> bool:
    """Whether the request carries the admin token; without one configured nobody may label."""
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    if token is None or scheme.lower() != b"bearer":
        return False
    # Digests have one length, so the time taken does not tell that of the token.
    return hmac.compare_digest(sha256(given.strip()).digest(), sha256(token.encode()).digest())


def _error(kind: str, message: str) -> bytes:
    return msgspec.json.encode({"error": {"type": kind, "message": message}})
