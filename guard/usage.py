"""What an answer used: read from it, or estimated and called so."""

from __future__ import annotations

from guard.ports import Pricer, Route
from guard.streaming import BodyCapture
from guard.wire.dialect import AnswerFacts, Dialect, StreamWatcher
from guard.wire.http1 import ResponseHead
from guard.wire.tokens import LATIN_CHARS_PER_TOKEN, estimate_tokens
from guard.wire.unpack import unpack
from slo.errors import DataError

# Unpacking an answer here is only for its usage numbers; a second of it would stop all other answers.
_UNPACK_ON_PATH_BYTES = 1024 * 1024


def read_answer(dialect: Dialect, route: Route, head: ResponseHead, capture: BodyCapture | None) -> AnswerFacts | None:
    """What a whole body that is no stream says; None when it is too large or too tightly packed to be read here."""
    if capture is None or capture.truncated:
        return None  # Bytes that were forwarded are no error for being many.
    try:
        coding = head.notes.get(b"content-encoding", b"").decode("latin-1")
        body = unpack(capture.body(), coding, max_bytes=_UNPACK_ON_PATH_BYTES)
    except DataError:
        return None
    return dialect.read_answer(route, body)


def usage_of(
    dialect: Dialect, route: Route, request: bytes, watcher: StreamWatcher | None, capture: BodyCapture | None
) -> tuple[int, int, str]:
    """(input tokens, output tokens, "reported" or "estimated") of what the upstream has done, whole or not."""
    if watcher is not None and watcher.input_tokens is not None and watcher.output_tokens is not None:
        return watcher.input_tokens, watcher.output_tokens, "reported"
    asked = round(estimate_tokens(dialect.request_text(route, request)))
    if watcher is not None:
        answered = watcher.estimated_tokens
    else:  # Nothing could be looked into: its length is all that is known.
        answered = len(capture.body()) / LATIN_CHARS_PER_TOKEN if capture is not None else 0.0
    return asked, round(answered), "estimated"


def cost_of(
    pricer: Pricer, models: tuple[str, str], input_tokens: int | None, output_tokens: int | None
) -> float | None:
    """Price of a usage by the first of the models that has one; None when nothing is known.

    models: as asked for, and what the release is made of. Bots ask for aliases; the release is what is paid for.
    """
    if input_tokens is None or output_tokens is None:
        return None
    asked, known = models
    cost_usd = pricer.cost_usd(asked, input_tokens, output_tokens)
    return cost_usd if cost_usd is not None or asked == known else pricer.cost_usd(known, input_tokens, output_tokens)
