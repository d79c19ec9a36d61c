"""What the cache speaks of. Frozen, slotted; wall times are Unix seconds, durations seconds, money USD."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Literal

from guard.ports import Route


class Bypass(StrEnum):
    """Why a request is not looked up at all. Closed set: it is a metric label."""

    OFF = "off"  # the cache, or the route, is switched off
    CLIENT = "client"  # cache-control: no-store or no-cache of the request
    UNREADABLE = "unreadable"  # not a POST with a JSON object, or an object with a name twice
    TOO_LARGE = "too_large"
    NOT_DETERMINISTIC = "not_deterministic"  # temperature not 0 and the route does not vouch for it
    SEVERAL_ANSWERS = "several_answers"  # n, best_of
    OUTSIDE_STATE = "outside_state"  # tools, stored conversations, files, images by URL: not decided by the request
    EXTRAS = "extras"  # log probabilities, audio


class NotStored(StrEnum):
    """Why an answer is not kept. Closed set: it is a metric label."""

    NOT_OK = "not_ok"  # not 200, broken off, malformed, cancelled
    TRUNCATED = "truncated"  # longer than what is captured of an answer
    TOO_LARGE = "too_large"
    CODED = "coded"  # compressed although it was asked not to be
    FORBIDDEN = "forbidden"  # Set-Cookie, or Cache-Control no-store / private / no-cache, or Vary of the answer
    CUT_SHORT = "cut_short"  # content filter, tool call, response.incomplete
    FLAGGED = "flagged"  # a check failed
    UNCHECKED = "unchecked"  # a check could not look
    REVOKED = "revoked"  # flagged, or its document, release or tenant purged, while it was under way
    OVERFLOW = "overflow"  # too many answers wait for their checks
    FULL = "full"  # the store did not take it


class Removed(StrEnum):
    """Why an entry is gone. Closed set: it is a metric label."""

    EVICTED = "evicted"
    EXPIRED = "expired"
    FLAGGED = "flagged"
    DOCUMENT = "document"
    RELEASE = "release"
    TENANT = "tenant"
    KEY = "key"
    ALL = "all"
    REPLACED = "replaced"
    INVALID = "invalid"  # read back from a shared store and not what was written


@dataclass(frozen=True, slots=True)
class Namespace:
    """Who shares answers. Entries of two namespaces never meet.

    release: `Version.release_id`. epoch: the cache epoch of the control document, so that a rollback or promotion
    leaves every older entry unreachable. tenant: `t:<x-guard-tenant>` (`b:<hex digits>` where it is not UTF-8), else
    `c:<keyed hash of the caller's credential>`, else "". mark: hash of what the target changes in a request beside its
    version (renamed model, headers the guard sets).
    """

    release: str
    epoch: int
    tenant: str
    route: str
    mark: str = ""


@dataclass(frozen=True, slots=True)
class CacheKey:
    """fingerprint: SHA-256 of the request alone, the same in every namespace; digest: of namespace and fingerprint."""

    namespace: Namespace
    fingerprint: bytes
    digest: bytes

    @property
    def text(self) -> str:
        """The digest as people and commands write it: 64 hex digits."""
        return self.digest.hex()


def key_in(namespace: Namespace, fingerprint: bytes) -> CacheKey:
    """The key of one request in a namespace; warming uses it to find the same question under another release.

    >>> a, b = (key_in(Namespace(r, 1, "t:x", "chat"), bytes(32)) for r in ("r1", "r2"))
    >>> a.fingerprint == b.fingerprint, a.digest == b.digest
    (True, False)
    """
    parts = (namespace.release, str(namespace.epoch), namespace.tenant, namespace.route, namespace.mark)
    written = b"".join(b"%d:%s" % (len(raw), raw) for raw in (p.encode("utf-8", "surrogatepass") for p in parts))
    return CacheKey(namespace, fingerprint, sha256(b"sft-guard answer 1\n" + written + fingerprint).digest())


@dataclass(frozen=True, slots=True)
class CacheRequest:
    """One request that may be answered from the cache.

    body: as the client sent it. stream: it asks for a stream. personal: it carries a credential of the caller that the
    upstream will see; it cannot be asked again by us without it. headers: (lower-case name, value) of those that are in
    the fingerprint; whoever asks the same again sends them.
    """

    key: CacheKey
    route: Route
    target: bytes  # path and query
    body: bytes
    stream: bool
    personal: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored answer.

    body: JSON as the upstream sent it, or the stream's events as the upstream sent them (its usage event included:
    whoever replays takes it out again when the client did not ask). headers: lower-case names, `content-type` and the
    header that holds the contexts. exchange_id: of the exchange that produced it. asked_wall_s: when that exchange
    began; an entry is older than a purge when it was *asked* before it. document_ids: what the contexts of the answer
    cite; None when unknown (then any changed document removes it). refusal: a negative answer, short-lived.
    generation_s: what the client of that exchange waited for. cost_usd: None when the model has no price.
    """

    key: CacheKey
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    stream: bool
    exchange_id: str
    document_ids: tuple[str, ...] | None
    model: str
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    generation_s: float
    asked_wall_s: float
    stored_wall_s: float
    ttl_s: float
    refusal: bool = False

    @property
    def size_bytes(self) -> int:
        """What it is counted as in a bounded store: its bytes and what Python needs around them."""
        own = len(self.body) + sum(len(name) + len(value) for name, value in self.headers)
        return own + ENTRY_OVERHEAD_BYTES + sum(len(d) + DOCUMENT_OVERHEAD_BYTES for d in self.document_ids or ())


ENTRY_OVERHEAD_BYTES = 1600
DOCUMENT_OVERHEAD_BYTES = 260
"""Objects and index rows around an entry's own bytes; tracemalloc over 5,000 entries says 1,540 and 239 a document."""


RevocationKind = Literal["exchange", "document", "release", "tenant", "key", "all"]


@dataclass(frozen=True, slots=True)
class Revocation:
    """From `wall_s` on, entries that were asked before it and that it names are void. value: "" for all."""

    kind: RevocationKind
    value: str
    wall_s: float


@dataclass(frozen=True, slots=True)
class StoreStats:
    """entries, bytes: None when the store cannot say (Redis shared with others). state: ok | open | closed..."""

    kind: str
    entries: int | None
    bytes: int | None
    max_bytes: int | None
    state: str = "ok"
