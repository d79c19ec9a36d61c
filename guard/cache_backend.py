"""The cache as the admin listener sees it: a report, one entry, and taking answers back."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from hashlib import blake2b
from typing import TYPE_CHECKING

from guard.admin.cache_routes import (
    CacheEntryView,
    CacheReport,
    HotKey,
    PurgeKind,
    PurgeResult,
    ReleaseRatio,
    SavingsRow,
    SemanticReport,
    SemanticRow,
    WarmingRow,
)
from guard.cache.key import target_mark
from guard.cache.near import NearCache
from guard.cache.savings import Row
from guard.cache.types import CacheKey, Entry, Namespace, key_in
from guard.release.records import AuditLine
from guard.wire.dialects import DIALECTS
from slo.errors import ConfigError, DataError, RefusedError

if TYPE_CHECKING:
    from guard.parts import Parts

HOTTEST_COUNT = 20
ANSWER_CHARS = 4000
LOOKUP_S = 2.0
_HEX = frozenset("0123456789abcdef")


class CacheBackend:
    """Implements `guard.admin.cache_routes.CacheAdmin`."""

    def __init__(self, guard: Parts) -> None:
        self._guard = guard

    # -- reading --------------------------------------------------------------------------------------------------

    def cache_report(self, days: int) -> CacheReport:
        """Numbers only."""
        guard = self._guard
        if guard.cache is None or guard.kept_care is None:
            return CacheReport(False)
        care, stats = guard.kept_care.care, guard.cache.answers.stats()
        seen = care.stats()
        collapsed = {c.release: c for c in seen.collapses}
        rows = care.savings.rows()
        wanted = sorted({day for day, _, _ in rows}, reverse=True)[:days]
        return CacheReport(
            True,
            stats.store.kind,
            stats.store.state,
            stats.store.entries,
            stats.store.bytes,
            stats.store.max_bytes,
            stats.hits,
            stats.misses,
            stats.hit_ratio,
            stats.coalesced,
            stats.stored,
            stats.removed,
            stats.not_stored,
            stats.bypassed,
            tuple(
                ReleaseRatio(
                    release, ratio, release in collapsed, collapsed[release].before if release in collapsed else None
                )
                for release, ratio in seen.ratios.items()
            ),
            tuple(WarmingRow(s.release, s.epoch, s.arm, s.sent, s.stored, s.wait) for s in seen.spaces),
            seen.warm_usd_last_hour,
            _semantic(care.near) if care.near is not None else None,
            self._hottest(),
            care.conditions(),
            _savings_row("", "", care.savings.total()),
            tuple(_savings_row(day, release, row) for day, release, row in rows if day in wanted),
        )

    def _hottest(self) -> tuple[HotKey, ...]:
        guard = self._guard
        warmer = guard.kept_care.care.warmer if guard.kept_care is not None else None
        if warmer is None:
            return ()
        stable = guard.split.in_traffic()[0]
        found = []
        for hot in warmer.hot.hottest(guard.clock.now_s())[:HOTTEST_COUNT]:
            old = hot.value.request.key.namespace
            mark = target_mark(stable.target)
            space = Namespace(stable.target.version.release_id, stable.cache_epoch, old.tenant, old.route, mark)
            key = key_in(space, hot.key)
            found.append(HotKey(key.text, old.route, _tenant_hash(old.tenant), round(hot.count, 1), hot.value.cost_usd))
        return tuple(found)

    async def cache_entry(self, key: str, *, words: bool) -> CacheEntryView | None:
        """Looked for among the keys that this process has met."""
        guard = self._guard
        if guard.cache is None or guard.kept_care is None:
            return None
        key = key.lower()
        if not 8 <= len(key) <= 64 or not set(key) <= _HEX:
            raise ConfigError("key", key[:64], "give the 64 hex digits of a key, or the first of them, eight at least")
        known = guard.kept_care.care.key_of(key)
        entry = await self._look_up(known) if known is not None else None
        if entry is None:
            return None
        return self._view(entry, words=words)

    async def _look_up(self, key: CacheKey) -> Entry | None:
        assert self._guard.cache is not None
        told: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()

        def found(entry: Entry | None, failure: str) -> None:
            if not told.done():
                told.set_result(entry)

        self._guard.cache.answers.store.get(key, found)
        try:
            return await asyncio.wait_for(told, LOOKUP_S)
        except TimeoutError:
            return None

    def _view(self, entry: Entry, *, words: bool) -> CacheEntryView:
        guard = self._guard
        assert guard.cache is not None
        space = entry.key.namespace
        return CacheEntryView(
            entry.key.text,
            space.release,
            space.epoch,
            _tenant_hash(space.tenant),
            space.route,
            entry.exchange_id,
            entry.document_ids,
            entry.stream,
            entry.refusal,
            len(entry.body),
            entry.model,
            entry.input_tokens,
            entry.output_tokens,
            entry.cost_usd,
            entry.generation_s,
            guard.clock.wall_s() - entry.stored_wall_s,
            entry.ttl_s,
            guard.cache.answers.alive(entry),
            space.tenant if words else None,
            self._answer(entry) if words else None,
        )

    def _answer(self, entry: Entry) -> str:
        route = next((r for r in self._guard.settings.routes if r.name == entry.key.namespace.route), None)
        if route is None:
            return ""
        try:
            text = DIALECTS[route.adapter].extract_text(route, b"{}", entry.body, entry.headers, entry.stream)
        except DataError:
            return ""
        return text.answer[:ANSWER_CHARS]

    # -- changing -------------------------------------------------------------------------------------------------

    async def cache_purge(self, kind: PurgeKind, value: str, reason: str, actor: str) -> PurgeResult:
        """Take back, then write down who did it."""
        guard = self._guard
        if guard.cache is None:
            raise RefusedError("off", "there is no cache; guard.yaml has no section `cache`")
        value = self._named(kind, value.strip())
        answers = guard.cache.answers
        count = answers.invalidate_documents([value]) if kind == "document" else answers.invalidate(kind, value)
        shown = _tenant_hash(value) if kind == "tenant" else value
        what = f"{kind} {value}".strip()
        message = f"{what}: " + (f"{count} entries removed" if count is not None else "taken back in the shared store")
        detail = f"{kind} {shown}: {'?' if count is None else count} entries; {reason}".strip("; ")
        line = AuditLine(guard.clock.wall_s(), "cache_purge", actor, "", "", detail)
        await asyncio.to_thread(lambda: guard.journal.record(audit=line))
        return PurgeResult(kind, value, count, message)

    def _named(self, kind: PurgeKind, value: str) -> str:
        """A value as the cache knows it."""
        if kind == "all":
            if value:
                raise ConfigError("value", value, "`all` takes no value")
            return ""
        if not value:
            raise ConfigError("value", value, f"say which {kind}")
        if kind == "release":
            version = self._guard.version_of(value)
            return version.release_id if version is not None else value
        if kind == "tenant":
            return value if value.startswith(("t:", "b:", "c:")) else f"t:{value}"
        if kind == "key":
            care = self._guard.kept_care
            known = care.care.key_of(value.lower()) if care is not None else None
            if known is None and len(value) != 64:
                raise ConfigError("value", value, "no such key here; give all 64 hex digits")
            return known.text if known is not None else value.lower()
        return value


def _tenant_hash(tenant: str) -> str:
    return blake2b(tenant.encode(), digest_size=6).hexdigest() if tenant else ""


def _savings_row(day: str, release: str, row: Row) -> SavingsRow:
    values = asdict(row)
    del values["avoided_usd"]
    return SavingsRow(
        day,
        release,
        **values,
        hit_ratio=row.hit_ratio,
        usd_without_cache=row.usd_without_cache,
        usd_with_warming=row.usd_with_warming,
        usd_without_warming=row.usd_without_warming,
    )


def _semantic(near: NearCache) -> SemanticReport:
    stats = near.stats()
    rows = tuple(
        SemanticRow(
            route, s.off, s.threshold, s.total_rechecked, s.total_wrong, found.estimate, found.lower, found.upper
        )
        for route, (s, found) in stats.routes.items()
    )
    return SemanticReport(
        stats.worker, stats.entries, stats.lookups, stats.hits, stats.late, stats.latin, stats.han, stats.refused, rows
    )
