"""`/api/v1/cache`: what the cache holds and saves, one entry, and taking answers back.

Reading gives numbers and hashes, never words and never who a tenant is; words and purging need the token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import msgspec
from fastapi import Body, Depends, FastAPI, Query, Request
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from guard.admin.access import actor_of
from guard.admin.shield import error_body

PurgeKind = Literal["release", "document", "tenant", "key", "all"]
MAX_DAYS = 400

_encode = msgspec.json.Encoder().encode
_TOKEN = [Depends(HTTPBearer(auto_error=False, scheme_name="bearer"))]


@dataclass(frozen=True, slots=True)
class SavingsRow:
    """One day of one release (`day` and `release` empty: the sum). USD and seconds; ratios in [0, 1]."""

    day: str
    release: str
    hits: int
    misses: int
    hit_ratio: float | None
    semantic_hits: int
    saved_input_tokens: int
    saved_output_tokens: int
    saved_usd: float
    saved_s: float
    unpriced_hits: int
    spent_usd: float
    usd_without_cache: float
    warm_requests: int
    warm_usd: float
    misses_avoided: int
    usd_with_warming: float
    usd_without_warming: float
    recheck_requests: int
    recheck_usd: float


@dataclass(frozen=True, slots=True)
class WarmingRow:
    """One release being filled. waits_for: why nothing is sent now; steady: it was there when the guard started."""

    release: str
    epoch: int
    arm: str
    sent_count: int
    stored_count: int
    waits_for: str


@dataclass(frozen=True, slots=True)
class SemanticRow:
    """One route of the semantic cache. Shares with one-sided 95 % bounds; None before the first re-check."""

    route: str
    off: bool
    threshold: float
    rechecked_count: int
    wrong_count: int
    false_hit_ratio: float | None
    false_hit_lower: float | None
    false_hit_upper: float | None


@dataclass(frozen=True, slots=True)
class SemanticReport:
    """latin, han: what such questions are compared with; "" while they are refused."""

    worker: str
    entries: int
    lookups: int
    hits: int
    late: int
    latin: str
    han: str
    refused: Mapping[str, int]
    routes: tuple[SemanticRow, ...]


@dataclass(frozen=True, slots=True)
class ReleaseRatio:
    """Hit ratio of a release over the last five minutes."""

    release: str
    hit_ratio: float | None
    collapsed: bool
    before: float | None = None


@dataclass(frozen=True, slots=True)
class HotKey:
    """One of the hottest keys. key: under the stable release of now; count: about the last hour."""

    key: str
    route: str
    tenant_hash: str
    count: float
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class CacheReport:
    """Counts since the start, savings by day and release (newest first)."""

    enabled: bool
    store: str = ""
    state: str = ""
    entries: int | None = None
    bytes: int | None = None
    max_bytes: int | None = None
    hits: int = 0
    misses: int = 0
    hit_ratio: float | None = None
    coalesced: int = 0
    stored: int = 0
    removed: Mapping[str, int] | None = None
    not_stored: Mapping[str, int] | None = None
    bypassed: Mapping[str, int] | None = None
    releases: tuple[ReleaseRatio, ...] = ()
    warming: tuple[WarmingRow, ...] = ()
    warm_usd_last_hour: float = 0.0
    semantic: SemanticReport | None = None
    hottest: tuple[HotKey, ...] = ()
    conditions: tuple[str, ...] = ()
    total: SavingsRow | None = None
    savings: tuple[SavingsRow, ...] = ()


@dataclass(frozen=True, slots=True)
class CacheEntryView:
    """One entry. tenant, answer: only with the token; else a hash, and nothing."""

    key: str
    release: str
    epoch: int
    tenant_hash: str
    route: str
    exchange_id: str
    document_ids: tuple[str, ...] | None
    stream: bool
    refusal: bool
    bytes: int
    model: str
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    generation_s: float
    age_s: float
    ttl_s: float
    servable: bool
    tenant: str | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class PurgeResult:
    """count: entries removed here; None when a shared store cannot count them."""

    kind: str
    value: str
    count: int | None
    message: str


class CacheAdmin(Protocol):
    """The cache as the admin listener sees it."""

    def cache_report(self, days: int) -> CacheReport: ...

    async def cache_entry(self, key: str, *, words: bool) -> CacheEntryView | None:
        """key: 64 hex digits, or the first of them. None: no such entry here."""
        ...

    async def cache_purge(self, kind: PurgeKind, value: str, reason: str, actor: str) -> PurgeResult:
        """Raises RefusedError when there is no cache, ConfigError for a value that names nothing."""
        ...


class PurgeBody(BaseModel):
    """What is to be taken back."""

    model_config = ConfigDict(extra="forbid")

    kind: PurgeKind
    value: str = Field("", max_length=256, description="release (name or id), document id, tenant or key; empty: all")
    reason: str = Field("", max_length=500, description="for the audit log")
    actor: str = Field("", max_length=64, description="who asks, for the audit log")


class InspectBody(BaseModel):
    """Which entry."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(pattern="^[0-9a-f]{8,64}$", description="hex digits of a key, eight or more")


def add_cache_routes(app: FastAPI, backend: CacheAdmin, *, writable: bool) -> None:
    """Add them; without a token only those that read numbers."""

    @app.get("/api/v1/cache", response_model=CacheReport)
    async def cache(days: Annotated[int, Query(ge=1, le=MAX_DAYS)] = 7) -> Response:
        """Sizes, hit ratios, warming, the semantic cache, and what was saved per day and release."""
        return _json(backend.cache_report(days))

    @app.get(
        "/api/v1/cache/entries/{key}", response_model=CacheEntryView, responses={404: {"description": "No such entry"}}
    )
    async def entry(key: str) -> Response:
        """One entry without words: whose it is stays a hash."""
        return _entry(await backend.cache_entry(key, words=False), key)

    if writable:
        _writing(app, backend)


def _writing(app: FastAPI, backend: CacheAdmin) -> None:
    @app.post("/api/v1/cache/inspect", response_model=CacheEntryView, dependencies=_TOKEN)
    async def inspect(body: Annotated[InspectBody, Body()]) -> Response:
        """One entry with its tenant and its answer."""
        return _entry(await backend.cache_entry(body.key, words=True), body.key)

    @app.post("/api/v1/cache/purge", response_model=PurgeResult, dependencies=_TOKEN)
    async def purge(request: Request, body: Annotated[PurgeBody, Body()]) -> Response:
        """Take answers back: at once here, within a second in replicas that share a store. Audited."""
        actor = actor_of(body.actor, request.scope["guard.token_id"])
        return _json(await backend.cache_purge(body.kind, body.value, body.reason, actor))


def _entry(found: CacheEntryView | None, key: str) -> Response:
    if found is not None:
        return _json(found)
    message = f"no entry {key[:64]}; `sft-guard cache stats --json` lists the hottest keys"
    return Response(error_body("not_found", message), 404, media_type="application/json")


def _json(value: Any) -> Response:
    return Response(_encode(value), media_type="application/json")
