"""Alerts about the answer cache: replies meant for others, a hit ratio that fell, a Redis left alone. Pure."""

from __future__ import annotations

from alerts.cases import flat
from alerts.model import PAGE, TICKET, Alert, Case, Runbook, Series
from alerts.pages import CACHE, DOCTOR, HEALTH, STATUS
from alerts.promql import selector


def cache_alerts(service: str) -> tuple[Alert, ...]:
    """Return the alerts of one service; without a cache their series do not exist and they stay silent."""
    return _crosstalk(service), _collapsed(service), _redis(service)


def _crosstalk(service: str) -> Alert:
    counter = selector("sft_cache_crosstalk_total", {"service": service})
    expr = f"{counter} - {counter} offset 15m > 0\nor {counter} > 0 unless {counter} offset 15m"
    labels = {"severity": PAGE, "kind": "guard"}
    book = Runbook(
        "A reply of Redis belonged to another request. It was noticed by the key inside the value and not served, and "
        "the connection was dropped; but something between guard and Redis mixes answers up.",
        (f"`{counter}` grew within 15 minutes",),
        (CACHE, DOCTOR, ("a proxy between them?", "redis-cli CLIENT LIST")),
        "It served none of them: every value carries its key and an HMAC, and is held against both.",
        (
            "Until the cause is known, do without: `enabled: false` for every route under `cache.routes` and a "
            "reload, or `cache: {store: memory}` and a restart.",
            "Suspect what stands between guard and Redis: a proxy or a connection pool that gives replies to the wrong "
            "connection.",
        ),
    )
    grew = Series(counter, "0x10 1x300")
    return Alert(
        "SftCacheCrosstalk", expr, labels, f"Redis answers {service} with values of other requests",
        "None was served; take Redis out of `cache:` until the cause is known.", book,
        (Case("fires", 300.0, (grew,), ({**labels, "service": service},)),
         Case("stays silent", 300.0, (flat(counter, 0),))),
    )  # fmt: skip


def _collapsed(service: str) -> Alert:
    gauge = selector("sft_cache_collapsed", {"service": service})
    labels = {"severity": TICKET, "kind": "guard"}
    book = Runbook(
        "The hit ratio of a release fell far below that of the release before: answers cost more and take longer. "
        "A new knowledge base or release begins with an empty namespace.",
        (f"`{gauge}` is 1 for 10 minutes",),
        (CACHE, STATUS, ("is it being filled?", "curl -s http://127.0.0.1:8801/api/v1/cache")),
        "It fills the new release from the hottest questions within `cache.warming`'s budget.",
        (
            "A release or a changed knowledge base moments ago: it fills by itself. The model has to bear the misses "
            "until then: watch latency, and raise `cache.warming` for the next time.",
            "No release: the bot sends something that differs each time; see `sft_cache_bypassed_total` and "
            "`sft_cache_not_stored_total` by `reason`.",
        ),
    )
    fired = selector("sft_cache_collapsed", {"service": service, "release": "r1"})
    return Alert(
        "SftCacheCollapsed", f"{gauge} == 1", labels,
        f"{service}: the hit ratio of {{{{ $labels.release }}}} collapsed", "Answers cost more and take longer.", book,
        (Case("fires", 900.0, (flat(fired, 1),), ({**labels, "service": service, "release": "r1"},)),
         Case("stays silent", 900.0, (flat(fired, 0),))),
        for_s=600.0,
    )  # fmt: skip


def _redis(service: str) -> Alert:
    gauge = selector("sft_cache_redis_up", {"service": service})
    labels = {"severity": TICKET, "kind": "guard"}
    book = Runbook(
        "Redis is not asked: it was refused, too slow or full, and the circuit breaker is open. Every question is a "
        "miss.",
        (f"`{gauge}` is 0 for 5 minutes",),
        (HEALTH, DOCTOR, ("Redis itself", "redis-cli --latency")),
        "It answers as without a cache, and tries Redis once a second.",
        (
            "Users get right answers. Watch whether the model server bears the traffic without a cache.",
            "`sft_guard_failopen_total` with `dep` `redis` has the reason: `refused` (down), `timeout` (slow or "
            "network), `auth` (password or rights), `unavailable` (loading). It is used again by itself when it "
            "answers.",
        ),
    )
    return Alert(
        "SftCacheRedisDown", f"{gauge} == 0", labels, f"{service}: the cache does without Redis",
        "Every question is a miss; nobody gets an error.", book,
        (Case("fires", 900.0, (flat(gauge, 0),), ({**labels, "service": service},)),
         Case("stays silent", 900.0, (flat(gauge, 1),))),
        for_s=300.0,
    )  # fmt: skip
