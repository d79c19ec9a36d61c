"""What one exchange says about each indicator. One table for the live windows and for baselines, so both agree.

The rules and their reasons:

* a cancelled exchange is neither success nor failure (the client left), but its cost was paid;
* what the guard refused itself (`blocked`) is not held against a release, or shedding would breed shedding;
* 4xx of the caller and 429 of the upstream (`throttled`) count for the HTTP error rate only;
* cache hits count for what users see (latency, availability, HTTP errors), never for what the release generated
  (quality, cost, failed model calls);
* latency counts every exchange that a user waited for, failures included: leaving timeouts out would make the slowest
  ones invisible. The histogram `sft_perf_request_duration_seconds` counts the same ones.
"""

from __future__ import annotations

from slo.types import FAILURES, CacheStatus, CheckResult, Exchange, Outcome

HALLUCINATION = "sft_quality_hallucination_rate"
SIMILARITY = "sft_quality_similarity_score"
LATENCY_P95 = "sft_perf_latency_p95_ms"
LATENCY_P99 = "sft_perf_latency_p99_ms"
COST = "sft_cost_inference_per_request_usd"
AVAILABILITY = "sft_availability_success_rate"
ZERO_HIT = "sft_quality_zero_hit_rate"
THUMBS_UP = "sft_quality_thumbs_up_rate"
HTTP_ERRORS = "sft_availability_http_error_rate"
LLM_ERRORS = "sft_availability_llm_error_rate"
KEY_INTENT = "sft_quality_intent_good_rate"
REOPEN = "sft_quality_reopen_rate"
CACHE_HITS = "sft_cache_hit_rate"

LATENCY = "latency"
"""Stands for both latency indicators: the same durations, read at two quantiles."""

THROTTLED = "throttled"

Vote = tuple[str, "bool | None", "float | None"]
"""(indicator or LATENCY, bad, value). bad None: it should have been judged and could not be, so coverage falls."""

# Bound once: on the hot path, looking up and hashing enum members would cost more than all the rest.
_OK, _CANCELLED, _BLOCKED, _CLIENT_ERROR = Outcome.OK, Outcome.CANCELLED, Outcome.BLOCKED, Outcome.CLIENT_ERROR
_HIT, _BYPASS = CacheStatus.HIT, CacheStatus.BYPASS
assert {*Outcome} - FAILURES == {_OK, _CANCELLED, _BLOCKED, _CLIENT_ERROR}
INDICATOR_OF_CHECK = {"grounding": HALLUCINATION, "similarity": SIMILARITY, "zero_hit": ZERO_HIT}


def served_votes(exchange: Exchange) -> list[Vote]:
    """Return what is known at the end of an exchange, before any check. Hot path: about a microsecond."""
    outcome = exchange.outcome
    if outcome is _BLOCKED:
        return []
    cache = exchange.cache
    hit = cache is _HIT
    votes: list[Vote] = []
    if outcome is not _CANCELLED:
        votes.append((HTTP_ERRORS, exchange.status >= 400, None))
    if outcome is not _CLIENT_ERROR:
        if outcome is not _CANCELLED and exchange.reason != THROTTLED:
            failed = outcome is not _OK
            votes.append((AVAILABILITY, failed, None))
            votes.append((LATENCY, False, exchange.duration_s))
            if not hit:
                votes.append((LLM_ERRORS, failed, None))
        if not hit:
            cost_usd = exchange.cost_usd
            if cost_usd is not None:
                votes.append((COST, False, cost_usd))
            elif outcome is _OK:
                votes.append((COST, None, None))
    if cache is not _BYPASS:
        votes.append((CACHE_HITS, not hit, None))
    return votes


def checked_votes(exchange: Exchange) -> list[Vote]:
    """Return what the checks said. Only whole, fresh answers vote; unavailable or skipped is unjudged, never passed."""
    if exchange.outcome is not Outcome.OK or exchange.cache is CacheStatus.HIT:
        return []
    votes: list[Vote] = []
    for finding in exchange.findings:
        indicator = INDICATOR_OF_CHECK.get(finding.check)
        if indicator is None:
            continue
        judged = finding.result is CheckResult.PASS or finding.result is CheckResult.FAIL
        if indicator is SIMILARITY:
            score = finding.score if judged else None
            votes.append((indicator, None if score is None else False, score))
        else:
            votes.append((indicator, finding.result is CheckResult.FAIL if judged else None, None))
    return votes
