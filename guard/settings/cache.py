"""Section `cache`: what is answered from earlier answers, for how long, and where they are kept."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from guard.settings.cache_care import SemanticSettings, WarmingSettings
from guard.settings.fields import Bytes, EnvName, Model, Name, Ratio, Seconds

REFUSALS = (
    "could not find",
    "do not say anything about",
    "does not say anything about",
    "no information about",
    "i don't know",
    "i do not know",
    "\u6587\u4ef6\u4e2d\u6c92\u6709\u63d0\u5230",  # the documents do not mention it
    "\u67e5\u7121\u76f8\u95dc",  # nothing found about it
    "\u7121\u6cd5\u56de\u7b54",  # cannot answer
    "\u627e\u4e0d\u5230\u76f8\u95dc",  # cannot find anything about it
)
"""Phrases that mark an answer as a refusal, lower case."""


class RedisSettings(Model):
    """A Redis that the replicas share. Entries only: nothing in it is needed to decide anything."""

    url: str = Field(description="redis://host:port/db or rediss://host:port/db, without user or password.")
    username: str = Field("", description="ACL user; see docs/cache.md for the commands it needs.")
    password_env: EnvName | None = Field(None, description="Environment variable with its password.")
    hmac_key_env: EnvName = Field(
        description="Environment variable with the secret that signs entries; the same on every replica, 16 bytes up."
    )
    budget: Seconds = Field(0.02, le=1.0, description="Longest wait of a request for one lookup.")
    write_budget: Seconds = Field(0.5, le=30.0, description="Longest try of one write; no request waits for it.")
    connections: int = Field(16, ge=1, le=256, description="Connections to Redis.")

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError(f"`{value}`: write redis://host:port/db or rediss://host:port/db")
        if parts.username is not None or parts.password is not None:
            raise ValueError("no user or password in a URL; use username and password_env")
        if parts.query or parts.fragment or not (parts.path in ("", "/") or parts.path[1:].isdigit()):
            raise ValueError(f"`{value}`: after the port comes only a database number")
        return value


class RouteCacheSettings(Model):
    """What differs on one route."""

    enabled: bool = Field(True, description="Cache answers of this route.")
    assume_deterministic: bool = Field(
        False, description="One question has one answer here whatever the parameters say; needed for `json` routes."
    )
    ttl: Seconds | None = Field(None, description="Overrides cache.ttl.")
    negative_ttl: Seconds | None = Field(None, description="Overrides cache.negative_ttl.")
    ignore_fields: tuple[str, ...] = Field(
        (), description="Top-level members of the request that never change an answer, for example user."
    )
    ignore_headers: tuple[str, ...] = Field((), description="Request headers that never change an answer.")
    ignore_cache_control: bool = Field(
        False,
        description="Keep answers although the upstream says Cache-Control: no-store, as some servers do on streams, "
        "only to keep proxies from buffering them.",
    )


class CacheSettings(Model):
    """Answer cache. Without this section nothing is cached."""

    enabled: bool = Field(True, description="Off without removing the section.")
    store: Literal["memory", "redis"] = Field("memory", description="`redis` is shared by replicas.")
    max_bytes: Bytes = Field(64 * 2**20, description="Bound of the store in memory.")
    max_entry: Bytes = Field(256 * 2**10, description="Longest answer that is kept; limits.capture bounds it too.")
    max_request: Bytes = Field(64 * 2**10, description="Longer requests are not looked up.")
    ttl: Seconds = Field(3600.0, description="Life of an answer.")
    negative_ttl: Seconds = Field(60.0, description="Life of a refusal.")
    jitter: Ratio = Field(0.1, description="Lives are shortened by up to this share, by a hash of the key.")
    wait: Seconds = Field(2.0, description="Longest wait for the answer to the same question asked a moment before.")
    admit: Literal["checked", "complete"] = Field(
        "checked", description="checked: the checks have looked and found nothing; complete: no check has failed."
    )
    refusals: tuple[str, ...] = Field(REFUSALS, description="Phrases that mark an answer as a refusal.")
    routes: dict[Name, RouteCacheSettings] = Field(default_factory=dict, description="By route name.")
    redis: RedisSettings | None = None
    warming: WarmingSettings = WarmingSettings()
    semantic: SemanticSettings | None = Field(None, description="Semantic cache; without this section it is off.")

    @model_validator(mode="after")
    def _store_is_there(self) -> CacheSettings:
        if (self.store == "redis") != (self.redis is not None):
            raise ValueError("store: redis and a section `redis` go together; write both or neither")
        return self
