"""What the proxy process and the check worker say to each other: length-prefixed msgpack over a socket pair.

Proxy to worker: one `Hello`, then `Job`s. Worker to proxy: `Ready`, `Done` per job, `Beat` while idle. Imported by
both sides, so it imports nothing heavy.
"""

from __future__ import annotations

import struct

import msgspec

from guard.checks.spec import CheckSpec
from guard.ports import ExchangeText, Route
from slo.types import Finding

MAX_FRAME_BYTES = 32 * 2**20
HEAD = struct.Struct("<I")


class Hello(msgspec.Struct, tag="h", array_like=True, frozen=True):
    """First frame: what to check, and the routes that jobs name by position."""

    spec: CheckSpec
    routes: tuple[Route, ...]


class Job(msgspec.Struct, tag="j", array_like=True, frozen=True):
    """One exchange to check. route: position in `Hello.routes`, or the route itself when it is newer than that.

    response: as captured; response_headers: lower-case names.
    """

    job_id: int
    route: int | Route
    release: str
    arm: str
    request: bytes
    response: bytes
    response_headers: tuple[tuple[bytes, bytes], ...]
    stream: bool
    truncated: bool
    roles: str = ""
    tenant: str = ""
    session: str = ""
    exchange_id: str = ""
    wall_s: float = 0.0
    reference: str = ""


class Ready(msgspec.Struct, tag="r", array_like=True, frozen=True):
    """The worker can check; said again when the embedder is there and when something is not as it was.

    problem: what is unavailable and why, "" when nothing. blind: check -> why nobody may believe it now.
    """

    embedder_line: str
    problem: str = ""
    blind: dict[str, str] = {}


class Done(msgspec.Struct, tag="d", array_like=True, frozen=True):
    """Answer to one job. text: what may be stored, already redacted. judge_usd: what a judging model cost for it."""

    job_id: int
    findings: tuple[Finding, ...]
    text: ExchangeText | None
    redacted_count: int = 0
    judge_usd: float = 0.0


class DriftNews(msgspec.Struct, tag="m", array_like=True, frozen=True):
    """What a component of a release looks like after a window. effect: spreads of ordinary windows, None: not known.

    size: share of strangers (query) or the move in deviations of single values. state: learning |
    unavailable | steady | signal | alarm. clusters: those that moved most, with redacted examples.
    """

    release: str
    component: str
    effect: float | None
    size: float
    state: str
    reason: str
    clusters: tuple[str, ...] = ()


class Beat(msgspec.Struct, tag="b", array_like=True, frozen=True):
    """Still here, nothing to do."""


FromWorker = Ready | Done | DriftNews | Beat
ToWorker = Hello | Job

encode = msgspec.msgpack.Encoder().encode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode


def frame(message: FromWorker | ToWorker) -> bytes:
    """Message with its length in front."""
    body = encode(message)
    return HEAD.pack(len(body)) + body


class Splitter:
    """Bytes in any pieces to whole frames.

    Raises ValueError on a length over `MAX_FRAME_BYTES`: the other side is not ours.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes, return the frames that are complete now."""
        self._buffer += data
        found: list[bytes] = []
        at = 0
        while len(self._buffer) - at >= HEAD.size:
            (length,) = HEAD.unpack_from(self._buffer, at)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"frame of {length} bytes")
            if len(self._buffer) - at - HEAD.size < length:
                break
            begin = at + HEAD.size
            found.append(bytes(self._buffer[begin : begin + length]))
            at = begin + length
        del self._buffer[:at]
        return found
