"""What `sft-guard doctor` finds out about the cache's Redis: everything that is needed, tried for real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from guard.cache.build import redis_link_maker, redis_prefix
from guard.settings import Settings

if TYPE_CHECKING:
    from guard.cache.redis_link import Links

Found = tuple[str, str, str, str]
"""state, subject, text, cure; as `guard.doctor.Diagnosis`."""

SUBJECT = "cache redis"
BUDGET_S = 3.0
_EVICTING = (
    "allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl",
)  # fmt: skip


async def examine_redis(settings: Settings) -> list[Found]:
    """Try every command of the cache, and look at what Redis does when it is full."""
    cache = settings.file.cache
    assert cache is not None
    assert cache.redis is not None
    try:
        from guard.cache.redis_link import Links, failure_word, write_failure_word

        links = Links(redis_link_maker(cache.redis, settings.redis_password), 1)
    except ImportError:
        return [("fault", SUBJECT, "redis-py is not installed", "pip install 'sft-guard[redis]'")]
    url = cache.redis.url
    found: list[Found] = []
    try:
        async with asyncio.timeout(BUDGET_S):
            await links.call("PING", read=bool)
    except Exception as error:  # Redis is foreign: whatever it does is a finding.
        denied = "permission" in str(error)  # PING, or SELECT when the address has a database number
        cure = (
            "give the user +ping, and +select for a database other than 0"
            if denied
            else {
                "auth": "correct username and password_env",
                "refused": "start Redis, or correct the address",
                "timeout": "see why it does not answer; until then the cache goes on without it",
            }.get(failure_word(error), "correct the address, or look into its log")
        )
        return [("fault", SUBJECT, f"{url}: {error or type(error).__name__}", cure)]
    try:
        async with asyncio.timeout(BUDGET_S):
            async for command, problem in _tried(links, redis_prefix(settings).encode()):
                word = write_failure_word(problem)
                cure = {
                    "denied": f"give the user +{command.lower()} on {redis_prefix(settings)}*; see docs/cache.md",
                    "readonly": "point the cache at the primary; a replica takes no writes",
                    "full": "raise maxmemory, or set maxmemory-policy allkeys-lru",
                }.get(word, "look into the log of Redis")
                found.append(("fault", SUBJECT, f"{command}: {problem}", cure))
            if not found:
                found.append(("ok", SUBJECT, f"{url}: every command of the cache works", ""))
            found.append(await _when_full(links))
    except Exception as error:  # As above.
        found.append(("fault", SUBJECT, f"{url}: {error or type(error).__name__}", "look into the log of Redis"))
    await links.close()
    return list(dict.fromkeys(found))


async def _tried(links: Links, prefix: bytes) -> AsyncIterator[tuple[str, Exception]]:
    """Every command on keys of its own; what did not work."""
    value, stream = prefix + b"doctor", prefix + b"doctor-stream"
    commands: tuple[tuple[Any, ...], ...] = (
        ("SET", value, b"1", "PX", 10_000),
        ("GET", value),
        ("XADD", stream, "MAXLEN", "~", 10, "*", "l", b"1"),
        ("XADD", stream, "MINID", "~", 1, "*", "l", b"1"),  # Redis 6.2
        ("XRANGE", stream, "-", "+", "COUNT", 1),
        ("UNLINK", value),
        ("UNLINK", stream),
    )
    for command in commands:
        try:
            await links.call(*command, read=bool)
        except Exception as error:  # As above.
            yield command[0], error


async def _when_full(links: Links) -> Found:
    try:
        reply = await links.call("CONFIG", "GET", "maxmemory*", read=list)
        words = [bytes(word).decode() for word in reply]
        limits = dict(zip(words[::2], words[1::2], strict=False))
    except Exception:  # The cache's own user may not ask, and that is right.
        return ("ok", SUBJECT, "what it does when full cannot be seen with these rights (allkeys-lru is best)", "")
    policy, limit = limits.get("maxmemory-policy", ""), limits.get("maxmemory", "0")
    if policy in _EVICTING:
        return ("ok", SUBJECT, f"when full ({int(limit) // 2**20} MiB) it evicts by {policy}", "")
    cure = "set maxmemory and maxmemory-policy allkeys-lru; new answers are not kept once it is full"
    return ("warn", SUBJECT, f"maxmemory {limit}, policy {policy}", cure)
