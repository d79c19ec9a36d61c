"""Label values that may appear on a metric: closed sets, bounded sets, and what becomes of anything else.

A label value that came from outside (a path, a model name, a user agent) must never create a time series of its own.
Every label is therefore either *closed* (its words are listed here; a stranger becomes `other`) or *bounded* (the
first `BOUNDED_COUNT` distinct values of the process, such as routes and releases; the next one becomes `other`).
"""

from __future__ import annotations

import re

from slo.metric_names import CHECKS, GROUNDING_TIERS, OPTIONAL_CHECKS
from slo.types import CacheStatus, CheckResult, Outcome

OTHER = "other"
VALUE_CHARS = 120
"""Longest label value, characters; the rest is cut."""

FAILOPEN_DEPS = frozenset({
    "redis", "cache", "semantic", "checks", "worker", "registry", "otel", "disk", "log", "metrics", "recorder", "loop",
    "alertmanager", "webhook", "baseline", "embedder", "judge", "pricing", "feedback", "windows", "journal", "config",
    "screen", "sink",
})  # fmt: skip
FAILOPEN_REASONS = frozenset({
    # how a dependency failed
    "refused", "timeout", "error", "full", "queue_full", "disk_full", "disk_fault", "too_large", "io_error", "busy",
    "invalid", "unavailable", "open", "crashed", "restarted", "quarantined", "stalled", "missing", "expired", "auth",
    "garbage", "reset", "closed", "anomaly",
    # which recorder or loop of our own failed
    "prometheus", "windows", "recent", "labels", "quality", "probes", "cache", "cache_care", "cache_figures",
    "exchange_log", "otel", "fleet_windows", "release", "outbox", "lag", "alertmanager",
})  # fmt: skip

CLOSED: dict[str, frozenset[str]] = {
    "outcome": frozenset(o.value for o in Outcome),
    "cache": frozenset(c.value for c in CacheStatus),
    "check": frozenset((*CHECKS, *OPTIONAL_CHECKS)),
    "component": frozenset({"query", "retrieval", "answer", "kb", "language"}),
    "tier": frozenset(GROUNDING_TIERS),
    "thumb": frozenset({"up", "down"}),
    "type": frozenset({"input", "output"}),
    "arm": frozenset({"stable", "canary"}),
    "side": frozenset({"client", "upstream"}),
    "dep": FAILOPEN_DEPS,
    "condition": frozenset({"unknown_too_long", "rollback_suppressed", "shared_upstream", "no_target"}),
}
"""Labels whose words are the same on every metric."""

CLOSED_OF: dict[tuple[str, str], frozenset[str]] = {
    ("sft_quality_checks_total", "result"): frozenset(r.value for r in CheckResult),
    ("sft_quality_intent_answers_total", "result"): frozenset({"good", "bad", "unknown"}),
    ("sft_quality_probes_total", "result"): frozenset({"hit", "miss", "unknown", "failed"}),
    ("sft_quality_retrievals_total", "result"): frozenset({"hit", "zero_hit", "error"}),
    ("sft_quality_answers_total", "source"): frozenset({
        "RULE", "KB", "MODEL", "CLOUD_FT", "LOCAL_LORA", "REFUSAL",
        "RULE_OVERRIDE", "KB_MATCH", "MODEL_GENERATED",  # of a server that checks its answers against rules
    }),
    ("sft_cache_lookups_total", "result"): frozenset({CacheStatus.HIT.value, CacheStatus.MISS.value}),
    ("sft_cache_bypassed_total", "reason"): frozenset({
        "off", "client", "unreadable", "too_large", "not_deterministic", "several_answers", "outside_state", "extras",
    }),
    ("sft_cache_not_stored_total", "reason"): frozenset({
        "not_ok", "truncated", "too_large", "coded", "forbidden", "cut_short", "flagged", "unchecked", "revoked",
        "overflow", "full",
    }),
    ("sft_cache_removed_total", "reason"): frozenset({
        "evicted", "expired", "flagged", "document", "release", "tenant", "key", "all", "replaced", "invalid",
    }),
    ("sft_cache_warm_requests_total", "result"): frozenset({"answered", "failed", "given_up"}),
    ("sft_cache_quiet_usd_total", "purpose"): frozenset({"warm", "recheck"}),
    ("sft_cache_semantic_total", "result"): frozenset({
        "hit", "far", "number", "identifier", "name", "negation", "opposite", "period", "asked_for", "person", "order",
        "words", "language", "length",
    }),
    ("sft_cache_semantic_total", "script"): frozenset({"latin", "han", "other"}),
    ("sft_cache_semantic_rechecks_total", "result"): frozenset({"same", "different", "unknown"}),
    ("sft_cache_semantic_false_hit_ratio", "bound"): frozenset({"estimate", "lower", "upper"}),
    ("sft_quality_hallucination_corrected_ratio", "bound"): frozenset({"estimate", "lower", "upper"}),
    ("sft_cache_redis_duration_seconds", "op"): frozenset({"get", "set", "unlink"}),
    ("sft_cache_write_dropped_total", "reason"): frozenset({
        "full", "readonly", "denied", "timeout", "closed", "refused", "auth", "error", "open", "busy",
    }),
    ("sft_guard_failopen_total", "reason"): FAILOPEN_REASONS,
    ("sft_guard_alerts_received_total", "result"): frozenset({"stored", "duplicate", "truncated"}),
    ("sft_release_phase", "phase"): frozenset({
        "idle", "rolling_out", "paused", "rolling_back", "rolled_back", "promoted",
    }),
    ("sft_guard_log_dropped_total", "reason"): frozenset({
        "queue_full", "disk_full", "io_error", "unwritable", "unencodable", "closed", "internal",
    }),
    ("sft_guard_spans_dropped_total", "reason"): frozenset({"queue_full", "export"}),
    ("sft_guard_webhook_deliveries_total", "result"): frozenset({
        "delivered", "http_error", "redirect", "timeout", "connect_error", "gone", "expired",
    }),
}  # fmt: skip
"""Labels whose words depend on the metric."""

BOUNDED_COUNT: dict[str, int] = {"route": 64, "release": 32, "slo": 100, "reason": 160}
BOUNDED_COUNT_DEFAULT = 24

# C0, DEL, C1 (U+009B starts an ANSI sequence), line and paragraph separators, bidi controls, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def closed_set(metric: str, label: str) -> frozenset[str] | None:
    """Return the words `label` may take on `metric`, or None when the label is bounded instead."""
    return CLOSED_OF.get((metric, label)) or CLOSED.get(label)


def clean(value: str) -> str:
    r"""Return `value` safe for one line of text, at most `VALUE_CHARS` long.

    >>> clean("a\nb")
    'a\ufffdb'
    """
    return _UNSAFE.sub("\ufffd", value[:VALUE_CHARS])


class BoundedValues:
    """The distinct values of each bounded label seen so far, up to its limit."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {}

    def admit(self, label: str, value: str) -> bool:
        """True when `value` is known or was still free to become known; False: it is one too many."""
        seen = self._seen.setdefault(label, set())
        if value in seen:
            return True
        if len(seen) >= BOUNDED_COUNT.get(label, BOUNDED_COUNT_DEFAULT):
            return False
        seen.add(value)
        return True

    def seen(self, label: str) -> set[str]:
        """The values that are known."""
        return set(self._seen.get(label, ()))

    def forget(self, label: str, value: str) -> None:
        """Free the place of a value that will not come again (a release that is gone)."""
        self._seen.get(label, set()).discard(value)
