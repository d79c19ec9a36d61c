"""What a dialect knows, as one small protocol: where question, answer, usage and errors are; the path only asks.

A dialect is stateless; what it must remember of one stream lives in the watcher it makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from guard.ports import ExchangeText, Reason, Route
from guard.wire.replies import error_frame


@dataclass(slots=True)
class RequestFacts:
    """What the path needs of a request body.

    user: the end user, for sticky splitting. understood: the body is what the dialect expects.
    asks_usage: the client did not ask for the usage event of its stream; we do, and take it out again.
    """

    body: bytes
    understood: bool = False
    model: str = ""
    stream: bool = False
    user: str = ""
    asks_usage: bool = False
    stream_options: object = None


@dataclass(slots=True)
class AnswerFacts:
    """What a complete body that is no stream says. Tokens are None when it does not report them.

    reason: NONE, MALFORMED (not what the dialect promises) or INBAND_ERROR (an error object in a 200).
    """

    reason: Reason = Reason.NONE
    input_tokens: int | None = None
    output_tokens: int | None = None
    text: str = ""  # the answer's words, filled in only when the usage has to be estimated
    cost_usd: float | None = None  # by the upstream's own word: an answer path that asked several models knows better


class StreamWatcher:
    """Follows one stream, event by event. This base knows no dialect: a clean end is a complete answer.

    complete: the terminal marker was seen (or none is needed). has_content: the first content was seen; a role,
    a comment or a reasoning step is none. estimated_tokens: estimate of the output so far.
    """

    __slots__ = (
        "complete",
        "cost_usd",
        "estimated_tokens",
        "has_content",
        "input_tokens",
        "needs_marker",
        "output_tokens",
        "reason",
    )

    def __init__(self) -> None:
        self.complete = False
        self.needs_marker = False
        self.has_content = False
        self.reason = Reason.NONE
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None
        self.cost_usd: float | None = None
        self.estimated_tokens = 0.0

    def see(self, raw: bytes) -> bool:
        """Look at one whole event; True: keep it from the client, we had asked for it ourselves."""
        self.has_content = True
        return False


class Dialect(Protocol):
    """One file per dialect implements this; `guard.wire.dialects.DIALECTS` lists them."""

    checked: bool
    """Answers have words that the checks can judge."""

    def read_request(self, route: Route, body: bytes) -> RequestFacts:
        """Never fails: a body that is not understood is passed on as it is."""
        ...

    def upstream_body(self, facts: RequestFacts, rename_model: str) -> bytes:
        """What goes to the upstream: the client's bytes unless usage is asked for or the model has another name."""
        ...

    def watch(self, route: Route, facts: RequestFacts) -> StreamWatcher:
        """A watcher for one stream."""
        ...

    def read_answer(self, route: Route, body: bytes) -> AnswerFacts:
        """Judge a complete, unpacked 200 body."""
        ...

    def request_text(self, route: Route, body: bytes) -> str:
        """All words of the request, to estimate its tokens by."""
        ...

    def question(self, route: Route, body: bytes) -> str:
        """The user's question alone, without delimited contexts; "" when the body is not understood."""
        ...

    def error_frame(self, reason: Reason) -> bytes:
        """The event that tells an official client that its stream failed."""
        ...

    def extract_text(
        self,
        route: Route,
        request: bytes,
        response: bytes,
        response_headers: tuple[tuple[bytes, bytes], ...],
        stream: bool,
    ) -> ExchangeText:
        """The words of one exchange, for the checks. Pure, and safe on hostile bytes.

        Args:
            request: the body the client sent. response: the body the upstream sent, content coding as in the headers.
            response_headers: lower-case names. stream: the response is a stream of events.

        Raises:
            DataError: the answer cannot be read (compressed beyond the caps, not JSON).
        """
        ...


class PlainFrames:
    """Mix-in: errors in a stream as a nameless event with an `error` object."""

    def error_frame(self, reason: Reason) -> bytes:
        return error_frame(reason)
