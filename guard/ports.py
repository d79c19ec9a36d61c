"""What the data path needs from the rest of the house, as Protocols of 1-3 methods.

The data path (`proxy`, `upstream`, `streaming`, `split`, `wire`) imports these and nothing else of the
guard; `wiring/` plugs the real ones in, tests plug in fakes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from slo.types import Exchange, Finding, Version


class Reason(StrEnum):
    """Why an exchange did not end well. Closed set: metric label and `type` of the error the bot reads."""

    NONE = ""
    UPSTREAM_CONNECT = "upstream_connect"  # refused or unreachable: 502
    CONNECT_TIMEOUT = "connect_timeout"  # no connection within the budget: 504
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"  # accepted, never answered: 504
    TOTAL_TIMEOUT = "total_timeout"  # 504 before the first byte, error frame after
    BAD_UPSTREAM_HEAD = "bad_upstream_head"  # too large, too slow: 502
    BAD_FRAMING = "bad_framing"  # Content-Length with Transfer-Encoding...: 502
    UPSTREAM_STALLED = "upstream_stalled"  # idle in the middle of an answer
    UPSTREAM_CUT = "upstream_cut"  # closed in the middle of an answer, or no terminal marker
    UPSTREAM_5XX = "upstream_5xx"
    THROTTLED = "throttled"  # 429 of the upstream
    MALFORMED = "malformed"  # 200 with a body that is not what the dialect promises
    INBAND_ERROR = "inband_error"  # error object inside a 200 stream
    CLIENT_GONE = "client_gone"
    CLIENT_SLOW = "client_slow"
    SLOW_REQUEST = "slow_request"
    TOO_LARGE = "too_large"
    BAD_REQUEST = "bad_request"
    NO_ROUTE = "no_route"
    CONN_LIMIT = "conn_limit"
    SHED = "shed"
    EGRESS_DENIED = "egress_denied"
    DRAINING = "draining"
    INTERNAL = "internal"
    GUARD_BLOCKED = "guard_blocked"  # a safety check in mode enforce refused the question: 400


@dataclass(frozen=True, slots=True)
class ContextSource:
    """Where the contexts of an answer are: one of these, the first that is set.

    body_path: dotted path in the response JSON ("guard.contexts", "contexts").
    header: name of a response header holding a JSON list.
    prompt_start, prompt_end: delimiters of the part of the last user message that holds them.
    text_field: when the list holds objects, the field with the text.
    """

    body_path: str = ""
    header: str = ""
    prompt_start: str = ""
    prompt_end: str = ""
    text_field: str = "text"
    retrieval_s_path: str = ""  # where the answer path reports its retrieval time, seconds
    id_field: str = "doc_id"  # when the list holds objects, the field that names the document
    acl_field: str = "acl"  # when the list holds objects, the field with the roles that may see it


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of `routes` in guard.yaml.

    path: exact path, or a prefix ending in `*`. adapter: openai-chat | openai-responses | json | passthrough.
    The `*_path` fields are for the `json` adapter: dotted paths into request and response.
    """

    name: str
    path: str
    adapter: str
    contexts: ContextSource = field(default_factory=ContextSource)
    question_path: str = "question"
    answer_path: str = "answer"
    usage_path: str = "usage"
    error_path: str = "error"
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One origin of a version. `host` is what the config file says; the port is never guessed."""

    scheme: str  # http | https
    host: str
    port: int
    base_path: str = ""  # prepended to the request path, no trailing slash


@dataclass(frozen=True, slots=True)
class Target:
    """Where a release is served: its version, its endpoints, and headers the guard sets for it.

    set_headers replace what the client sent (an API key from the environment, say).
    drop_headers: names, lower case, that clients may not send: other versions are told apart by them.
    """

    version: Version
    endpoints: tuple[Endpoint, ...]
    set_headers: tuple[tuple[str, str], ...] = ()
    rename_model: str = ""  # replaces `model` in the request body when set
    drop_headers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Budgets of one exchange, seconds. Defaults are those of the fault matrix."""

    connect_s: float = 2.0
    first_byte_s: float = 60.0
    idle_s: float = 30.0
    total_s: float = 600.0
    upstream_head_s: float = 10.0
    request_head_s: float = 10.0
    request_body_min_bytes_per_s: float = 100.0
    request_body_grace_s: float = 30.0
    client_write_stall_s: float = 60.0
    keep_alive_s: float = 75.0
    upstream_keep_alive_s: float = 60.0
    drain_s: float = 25.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes and counts. Each is a named setting and, where it can bite, a counted reason."""

    request_head_bytes: int = 64 * 1024
    request_url_bytes: int = 8 * 1024
    request_body_bytes: int = 8 * 1024 * 1024
    upstream_head_bytes: int = 64 * 1024
    client_buffer_bytes: int = 256 * 1024
    capture_bytes: int = 256 * 1024
    connections: int = 20_000
    concurrent_requests: int = 2_000
    upstream_connections: int = 1_000  # per endpoint
    upstream_idle: int = 512  # per endpoint


@dataclass(frozen=True, slots=True)
class Capture:
    """What was said, for the checks: raw bytes, at most `Limits.capture_bytes` of the answer.

    response: the body as the upstream sent it, transfer coding removed, content coding not.
    truncated: the answer was longer than the capture.
    """

    route: Route
    request: bytes
    response: bytes
    response_headers: tuple[tuple[bytes, bytes], ...]
    stream: bool
    truncated: bool
    roles: str = ""  # x-guard-roles of the request
    reference: str = ""  # the right answer, where the guard asked a question of its own


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where one request goes. `cache_epoch` is part of the cache key."""

    arm: str
    target: Target
    cache_epoch: int


class Splitter(Protocol):
    """Decides which release answers a session: sticky and monotone."""

    def assign(self, session_key: bytes) -> Assignment:
        """Never fails, never waits: without knowledge it is stable at 100 %."""
        ...


class ExchangeSink(Protocol):
    """Told once per exchange, at its end. Must not raise, block or take more than microseconds."""

    def finished(self, exchange: Exchange, capture: Capture | None) -> None:
        """`capture` is None when there is nothing to check (errors, hits, passthrough)."""
        ...


class Pricer(Protocol):
    """Turns usage into money."""

    def cost_usd(self, model: str, input_tokens: int, output_tokens: int) -> float | None:
        """None when the price of the model is unknown."""
        ...


class FailOpenCounter(Protocol):
    """R7: every passage past a broken dependency is counted; both words come from closed sets."""

    def fail_open(self, dep: str, reason: str) -> None: ...


class CheckedSink(Protocol):
    """Told when the checks of one exchange are done, or were given up."""

    def checked(self, exchange: Exchange, text: ExchangeText | None) -> None:
        """`exchange.findings` are filled in; `text` is redacted already, None when unknown."""
        ...

    def given_up(self, exchanges: Sequence[Exchange], findings: tuple[Finding, ...]) -> None:
        """Nobody looked at these: `findings`, which say so, hold for each; the exchanges themselves carry none yet."""
        ...


@dataclass(frozen=True, slots=True)
class ExchangeText:
    """The words of one exchange. contexts None: unknown (unchecked, never passed); (): zero-hit.

    response_model, finish_reasons: what the answer says of itself, for traces. answer_source, escalated: which way the
    answer path took, by its own word (header `x-answer-source`, or `answer_source` in the body). system: the request's
    own system messages. context_tags: access tags of each context, None where it carries none; () when unknown.
    """

    question: str
    answer: str
    contexts: tuple[str, ...] | None
    retrieval_s: float | None = None
    reference: str = ""
    response_model: str = ""
    finish_reasons: tuple[str, ...] = ()
    answer_source: str = ""
    escalated: bool = False
    system: str = ""
    context_tags: tuple[tuple[str, ...] | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a question goes no further. message: for the caller, without a word of the question; code: the check."""

    finding: Finding
    message: str
    param: str


class QuestionScreen(Protocol):
    """Looks at a question before the upstream is asked."""

    def refusal(self, route: Route, question: str) -> Refusal | None:
        """None: it may pass. Never raises, never waits: what breaks lets the question pass and is counted."""
        ...

    def unread(self) -> None:
        """Count a body that nobody here can read and that passes all the same."""
        ...


class CheckPipeline(Protocol):
    """Takes an exchange off the path; drops and counts when full, never waits."""

    def offer(self, exchange: Exchange, capture: Capture) -> bool: ...


__all__ = [
    "Assignment", "Capture", "CheckPipeline", "CheckedSink", "ContextSource", "Endpoint", "ExchangeSink",
    "ExchangeText", "FailOpenCounter", "Finding", "Limits", "Pricer", "QuestionScreen", "Reason", "Refusal", "Route",
    "Splitter", "Target",
    "Timeouts", "Version",
]  # fmt: skip
