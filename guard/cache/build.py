"""From the settings to a running cache: the only module of this package that knows settings and both stores."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from guard.cache import revocation_log
from guard.cache.key import KeyRules
from guard.cache.memory import MemoryStore
from guard.cache.policy import StorePolicy
from guard.cache.ports import Counters, Store
from guard.cache.revocations import Revocations
from guard.cache.service import AnswerCache, CacheConfig, horizon_s
from guard.cache.types import Revocation
from guard.settings import Settings
from guard.settings.cache import CacheSettings, RedisSettings, RouteCacheSettings
from slo.clock import Clock
from slo.errors import ConfigError

if TYPE_CHECKING:
    from guard.cache.redis import RedisStore

log = logging.getLogger("sft-guard.cache")

EXPIRE_EVERY_S = 5.0
WRITTEN_BEFORE_COUNT = 10**9
"""Lines that earlier runs wrote: too many, so that the first write of this one rewrites the file."""
_CACHED_ADAPTERS = frozenset({"openai-chat", "openai-responses", "json"})


def cache_config(settings: Settings) -> CacheConfig:
    """The rules of every route; empty when there is no cache."""
    cache = settings.file.cache
    if cache is None or not cache.enabled:
        return CacheConfig({}, {})
    rules, policies = {}, {}
    for route in settings.routes:
        if route.adapter in _CACHED_ADAPTERS:
            own = cache.routes.get(route.name, RouteCacheSettings())
            rules[route.name] = KeyRules(
                own.enabled,
                own.assume_deterministic,
                frozenset(own.ignore_fields),
                frozenset(name.lower().encode() for name in own.ignore_headers),
                cache.max_request,
            )
            policies[route.name] = StorePolicy(
                own.ttl or cache.ttl,
                own.negative_ttl or cache.negative_ttl,
                cache.jitter,
                cache.max_entry,
                cache.admit,
                tuple(phrase.casefold() for phrase in cache.refusals),
                own.ignore_cache_control,
            )
    return CacheConfig(rules, policies, cache.wait)


class GuardCache:
    """The cache of one guard with what belongs to its life: its loops and its list on disk."""

    def __init__(self, settings: Settings, counters: Counters, clock: Clock) -> None:
        """Opens nothing but the list of what was taken back.

        Raises:
            ConfigError: Redis is asked for and redis-py is not installed.
        """
        cache = settings.file.cache
        assert cache is not None
        self._settings, self._counters, self._clock = settings, counters, clock
        self._directory: Path | None = None
        self._unwritten: list[Revocation] = []
        self._written_count = WRITTEN_BEFORE_COUNT
        self.redis: RedisStore | None = None
        self.memory: MemoryStore | None = None
        config = cache_config(settings)
        revocations = Revocations(horizon_s(config))
        secret = settings.cache_secret or secrets.token_bytes(32)
        if cache.redis is not None:
            self._directory = settings.state_dir
            if not revocation_log.load(self._directory, revocations, clock.wall_s()):
                log.warning("%s is damaged: entries from before this start are not used", revocation_log.NAME)
        self.answers = AnswerCache(
            config,
            lambda answers: self._store(cache, secret, answers),
            counters,
            clock,
            blake2b(secret, digest_size=32, person=b"tenant scope").digest(),
            revocations=revocations,
            on_revocation=self._revoked,
        )

    def _store(self, cache: CacheSettings, secret: bytes, answers: AnswerCache) -> Store:
        if cache.redis is None:
            self.memory = MemoryStore(cache.max_bytes, self._clock.now_s, answers.gone)
            return self.memory
        self.redis = self._redis_store(cache, cache.redis, secret, answers)
        return self.redis

    def _redis_store(
        self, cache: CacheSettings, redis: RedisSettings, secret: bytes, answers: AnswerCache
    ) -> RedisStore:
        try:
            from guard.cache.redis import RedisStore

            make = redis_link_maker(redis, self._settings.redis_password)
        except ImportError as error:
            cure = "pip install 'sft-guard[redis]', or write store: memory"
            raise ConfigError(f"{self._settings.path.name}: cache.store", "redis", cure) from error
        return RedisStore(
            make,
            secret,
            redis_prefix(self._settings),
            answers.revocations,
            lambda line: self._heard(answers, line),
            self._counters,
            self._clock,
            budget_s=redis.budget,
            write_budget_s=redis.write_budget,
            connections=redis.connections,
            max_entry_bytes=cache.max_entry,
        )

    async def start(self) -> None:
        """Begin to use Redis, if there is one; never fails for it."""
        if self.redis is not None:
            await self.redis.start()

    async def run(self) -> None:
        """For ever: forget what has expired, write down what was taken back."""
        while True:
            await self._clock.sleep(EXPIRE_EVERY_S if self._directory is None else 1.0)
            if self.memory is not None:
                self.memory.expire()
            await self._write_down()

    async def stop(self) -> None:
        """Write what is left and close."""
        await self._write_down()
        if self.redis is not None:
            await self.redis.stop()

    def configure(self, settings: Settings) -> None:
        """Take the rules of a reloaded file."""
        self._settings = settings
        self.answers.configure(cache_config(settings))

    def gauges(self) -> Iterator[tuple[str, Mapping[str, str], float | None]]:
        """Rows for the metrics page."""
        if self.memory is not None:
            stats = self.memory.stats()
            yield "sft_cache_entries", {}, stats.entries
            yield "sft_cache_bytes", {}, stats.bytes
        if self.redis is not None:
            yield "sft_cache_redis_up", {}, 0.0 if self.redis.breaker.open else 1.0

    def _revoked(self, revocation: Revocation) -> None:
        if self.redis is not None:
            self.redis.share(revocation)
            self._unwritten.append(revocation)

    def _heard(self, answers: AnswerCache, revocation: Revocation) -> None:
        """Another replica took something back."""
        answers.revoked(revocation)
        self._unwritten.append(revocation)

    async def _write_down(self) -> None:
        if self._directory is None or not self._unwritten:
            return
        lines, self._unwritten = self._unwritten, []
        try:
            if self._written_count > 2 * len(self.answers.revocations) + 1000:
                self._written_count = 0
                await asyncio.to_thread(revocation_log.rewrite, self._directory, list(self.answers.revocations.lines()))
            else:
                self._written_count += len(lines)
                await asyncio.to_thread(revocation_log.append, self._directory, lines)
        except OSError as error:
            self._unwritten = lines + self._unwritten
            self._counters.inc("sft_guard_failopen_total", {"dep": "disk", "reason": "io_error"})
            log.warning("what was taken back cannot be written down: %s", error.strerror)


def redis_link_maker(redis: RedisSettings, password: str | None, connect_s: float = 1.0) -> Callable[[], Any]:
    """New connections to the Redis of the settings. Raises ImportError without redis-py."""
    from guard.cache.redis_link import connection_maker

    parts = urlsplit(redis.url)
    return connection_maker(
        host=parts.hostname or "",
        port=parts.port or 6379,
        db=int(parts.path.strip("/") or 0),
        username=redis.username,
        password=password,
        tls=parts.scheme == "rediss",
        connect_s=connect_s,
    )


def redis_prefix(settings: Settings) -> str:
    """Begins every key; two services may share one Redis."""
    return f"sft:{settings.file.service}:"
