"""Which trace and span an exchange is, worked out from its own id: nothing has to be kept while it is under way.

W3C Trace Context: the client's `traceparent` names the parent; what the upstream gets names our span. An exchange that
came without one begins a trace of its own. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

# Version 00 has exactly these four fields; a later one may have more, of which these four are read.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_RATIO_BITS = 56
"""The trailing bits of a trace id that are random by the W3C specification, level 2."""


@dataclass(frozen=True, slots=True)
class TraceIds:
    """Hexadecimal ids of one exchange. parent_id: "" for a trace of our own. sampled None: the client did not say."""

    trace_id: str
    span_id: str
    parent_id: str = ""
    sampled: bool | None = None


def trace_ids(exchange_id: str, traceparent: str = "") -> TraceIds:
    """Return the ids of an exchange; a `traceparent` that is not valid counts as none.

    >>> trace_ids("abc", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").parent_id
    '00f067aa0ba902b7'
    """
    own = sha256(exchange_id.encode()).hexdigest()
    match = _TRACEPARENT.match(traceparent)
    if match:
        version, trace_id, parent_id, flags, more = match.groups()
        valid = version != "ff" and not (version == "00" and more) and int(trace_id, 16) and int(parent_id, 16)
        if valid:
            return TraceIds(trace_id, own[:16], parent_id, bool(int(flags, 16) & 1))
    return TraceIds(own[16:48], own[:16])


def child_id(ids: TraceIds, name: str) -> str:
    """Return the id of a span inside the exchange's own.

    >>> len(child_id(trace_ids("abc"), "retrieval"))
    16
    """
    return sha256(f"{ids.span_id}/{name}".encode()).hexdigest()[:16]


def is_sampled(ids: TraceIds, ratio: float) -> bool:
    """Whether the trace is kept: as the client decided, else by its id, so that every service decides alike.

    >>> is_sampled(trace_ids("abc"), 0.0), is_sampled(trace_ids("abc"), 1.0)
    (False, True)
    """
    if ids.sampled is not None:
        return ids.sampled
    return int(ids.trace_id[-_RATIO_BITS // 4 :], 16) < int(ratio * (1 << _RATIO_BITS))


def onward(exchange_id: str, traceparent: str, ratio: float) -> str:
    """Return the `traceparent` that goes to the upstream: our span as its parent.

    >>> onward("abc", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", 0.0)
    '00-4bf92f3577b34da6a3ce929d0e0e4736-ba7816bf8f01cfea-01'
    """
    ids = trace_ids(exchange_id, traceparent)
    return f"00-{ids.trace_id}-{ids.span_id}-{'01' if is_sampled(ids, ratio) else '00'}"
