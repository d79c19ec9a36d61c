"""One table of metric, label and check names. Dashboards, rules and docs are made from it.

Names are contract: renaming one breaks somebody's page at night.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "sft_"


@dataclass(frozen=True, slots=True)
class Metric:
    """name, Prometheus type, help line, labels beside `service`."""

    name: str
    kind: str  # gauge | counter | histogram
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Indicator:
    """What a rule can be written on.

    kind: "ratio" (bad of count), "mean" (of values) or "latency" (share of requests over the limit).
    worse: "up" when larger is worse, "down" when smaller is worse.
    scale: gauge value = inside value x scale (the `_ms` gauges exist only at the border).
    quantile: for latency indicators, the quantile that must stay under the limit.
    exact: one of the six gauges of the practice.
    """

    name: str
    kind: str
    worse: str
    unit: str  # ratio | seconds | usd
    help: str
    scale: float = 1.0
    quantile: float | None = None
    exact: bool = False


INDICATORS: dict[str, Indicator] = {
    i.name: i
    for i in (
        Indicator("sft_quality_hallucination_rate", "ratio", "up", "ratio",
                  "Share of checked answers with a claim their contexts do not support", exact=True),
        Indicator("sft_quality_similarity_score", "mean", "down", "ratio",
                  "Mean cosine of answers to their reference or best context", exact=True),
        Indicator("sft_perf_latency_p95_ms", "latency", "up", "seconds",
                  "95th percentile of user-seen latency", scale=1000.0, quantile=0.95, exact=True),
        Indicator("sft_perf_latency_p99_ms", "latency", "up", "seconds",
                  "99th percentile of user-seen latency", scale=1000.0, quantile=0.99, exact=True),
        Indicator("sft_cost_inference_per_request_usd", "mean", "up", "usd",
                  "Mean cost of one inference", exact=True),
        Indicator("sft_availability_success_rate", "ratio", "down", "ratio",
                  "ok / (ok + server_error + timeout + incomplete)", exact=True),
        Indicator("sft_quality_zero_hit_rate", "ratio", "up", "ratio", "Share of retrievals without a result"),
        Indicator("sft_quality_thumbs_up_rate", "ratio", "down", "ratio", "up / (up + down)"),
        Indicator("sft_quality_reopen_rate", "ratio", "up", "ratio",
                  "Share of questions asked again within 24 h"),
        Indicator("sft_quality_intent_good_rate", "ratio", "down", "ratio",
                  "Share of good answers to questions of key intents (intents.yaml)"),
        Indicator("sft_availability_http_error_rate", "ratio", "up", "ratio", "(4xx + 5xx) / requests"),
        Indicator("sft_availability_llm_error_rate", "ratio", "up", "ratio",
                  "Failed model calls / calls (server_error, timeout, incomplete)"),
        Indicator("sft_cache_hit_rate", "ratio", "down", "ratio", "hits / (hits + misses)"),
    )
}  # fmt: skip

CHECKS = (
    "rules", "grounding", "similarity", "query_drift", "zero_hit", "pii",
    "injection", "context_injection", "question_pii", "prompt_leak", "toxicity", "question_toxicity", "acl",
    "intent", "reopen",
)  # fmt: skip
"""Closed set of the `check` label, with OPTIONAL_CHECKS."""

OPTIONAL_CHECKS = ("detector", "judge")
"""Said only where `guard.yaml` configures them; an answer that was given up has no finding of theirs."""

GROUNDING_TIERS = ("rules", "words", "transformer", "detector", "judge")
"""Closed set of the `tier` label."""

METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        *(Metric(i.name, "gauge", i.help + " (rolling window)", ("release",)) for i in INDICATORS.values() if i.exact),
        Metric("sft_availability_requests_total", "counter", "Exchanges by outcome",
               ("route", "release", "outcome", "cache")),
        Metric("sft_availability_throttled_total", "counter", "Answers 429 of the upstream", ("route", "release")),
        Metric("sft_perf_request_duration_seconds", "histogram", "Request to end of answer, as the user saw it",
               ("route", "release", "cache")),
        Metric("sft_perf_time_to_first_token_seconds", "histogram", "Request to first content of a stream",
               ("route", "release")),
        Metric("sft_perf_retrieval_duration_seconds", "histogram", "Retrieval time reported by the answer path",
               ("release",)),
        Metric("sft_perf_overhead_seconds", "histogram", "The guard's own share of a request", ("phase",)),
        Metric("sft_quality_checks_total", "counter", "Checks by result", ("release", "check", "result")),
        Metric("sft_quality_check_coverage_ratio", "gauge",
               "Share of the last answers that the check judged: passed or failed, neither skipped nor unavailable",
               ("check",)),
        Metric("sft_quality_grounding_answers_total", "counter",
               "Answers judged by the grounding check, by the dearest tier that had a say", ("release", "tier")),
        Metric("sft_quality_score", "histogram", "Score of each check", ("release", "check")),
        Metric("sft_quality_retrievals_total", "counter", "Retrievals by result", ("release", "result")),
        Metric("sft_quality_answers_total", "counter", "Answers by where they came from, as the answer path says",
               ("release", "source")),
        Metric("sft_quality_escalations_total", "counter",
               "Answers of the cheaper model that did not pass, so that a stronger one was asked", ("release",)),
        Metric("sft_quality_drift_score", "gauge", "Drift as an effect size: spreads of ordinary windows",
               ("release", "component")),
        Metric("sft_quality_feedback_total", "counter", "Thumbs given by users", ("release", "thumb")),
        Metric("sft_quality_human_labels", "gauge", "Answers of the release that people have labelled", ("release",)),
        Metric("sft_quality_hallucination_corrected_ratio", "gauge",
               "Hallucination rate corrected by at least 30 labels of people, with its 95 % bounds",
               ("release", "bound")),
        Metric("sft_quality_drift_state", "gauge", "0 steady or learning, 1 signal, 2 alarm; absent while unavailable",
               ("release", "component")),
        Metric("sft_quality_intent_answers_total", "counter",
               "Answers to questions of key intents: good, bad, or unknown (not checked)",
               ("release", "intent", "result")),
        Metric("sft_quality_intent_minimum_ratio", "gauge", "Least share of good answers of a key intent", ("intent",)),
        Metric("sft_quality_probes_total", "counter",
               "Probes by what their contexts held: hit, miss, unknown (no contexts or no expected document), failed",
               ("release", "result")),
        Metric("sft_quality_probe_recall_ratio", "gauge",
               "Probes whose expected document was among the first k, of those where that is known; last round",
               ("release",)),
        Metric("sft_quality_probe_zero_hit_ratio", "gauge", "Probes for which nothing was retrieved; last round",
               ("release",)),
        Metric("sft_quality_probe_similarity", "gauge", "Mean similarity of probes to their reference; last round",
               ("release",)),
        Metric("sft_quality_reopens_total", "counter", "Questions asked again within 24 h", ("release",)),
        Metric("sft_cost_usd_total", "counter", "Cost of inference", ("release",)),
        Metric("sft_cost_inferences_total", "counter", "Inferences whose cost is known", ("release",)),
        Metric("sft_cost_judge_usd_total", "counter", "Cost of the judging model", ("release",)),
        Metric("sft_cost_tokens_total", "counter", "Tokens by type", ("release", "type")),
        Metric("sft_cache_lookups_total", "counter", "Cache lookups by result", ("release", "result")),
        Metric("sft_cache_bypassed_total", "counter", "Requests that were not looked up, by reason", ("reason",)),
        Metric("sft_cache_coalesced_total", "counter", "Hits on the same question under way", ("release",)),
        Metric("sft_cache_stored_total", "counter", "Answers given to the store", ("release",)),
        Metric("sft_cache_not_stored_total", "counter", "Answers that were not kept, by reason", ("reason",)),
        Metric("sft_cache_removed_total", "counter", "Entries that left the store in memory, by reason", ("reason",)),
        Metric("sft_cache_entries", "gauge", "Entries in memory"),
        Metric("sft_cache_bytes", "gauge", "Bytes of the entries in memory"),
        Metric("sft_cache_redis_up", "gauge", "1 while Redis is asked, 0 while its circuit breaker is open"),
        Metric("sft_cache_redis_duration_seconds", "histogram", "Time of a command of the cache on Redis", ("op",)),
        Metric("sft_cache_invalid_total", "counter", "Values read from Redis that are not what was written"),
        Metric("sft_cache_crosstalk_total", "counter", "Replies of Redis that answer another request"),
        Metric("sft_cache_write_dropped_total", "counter", "Writes to Redis that did not arrive, by reason",
               ("reason",)),
        Metric("sft_cache_hit_ratio", "gauge", "hits / (hits + misses) of the last 5 minutes", ("release",)),
        Metric("sft_cache_collapsed", "gauge",
               "1 while the hit ratio has collapsed against the release before", ("release",)),
        Metric("sft_cache_warm_requests_total", "counter", "Warm-up requests by result", ("release", "result")),
        Metric("sft_cache_quiet_usd_total", "counter", "Cost of the guard's own requests",
               ("release", "purpose")),
        Metric("sft_cache_warm_usd_per_hour", "gauge", "Cost of warming in the last hour, set aside included"),
        Metric("sft_cache_saved_usd_total", "counter", "What hits would have cost again", ("release",)),
        Metric("sft_cache_semantic_total", "counter", "Semantic lookups by result of the gate",
               ("result", "script")),
        Metric("sft_cache_semantic_rechecks_total", "counter", "Semantic hits asked again, by outcome",
               ("route", "result")),
        Metric("sft_cache_semantic_threshold", "gauge", "Least cosine now; absent when switched off", ("route",)),
        Metric("sft_cache_semantic_false_hit_ratio", "gauge",
               "Share of wrong semantic hits with its 95 % bounds", ("route", "bound")),
        Metric("sft_slo_value", "gauge", "Current value of the objective, in the unit of its threshold",
               ("release", "slo")),
        Metric("sft_slo_threshold", "gauge", "Limit of the objective", ("release", "slo")),
        Metric("sft_slo_state", "gauge", "0 ok, 1 breach, 2 unknown", ("release", "slo")),
        Metric("sft_slo_events_total", "counter",
               "Events an objective was judged on, as the sidecar counts them: retries of a session once, no tenant "
               "over its share; 0 from the start", ("release", "slo", "life")),
        Metric("sft_slo_bad_events_total", "counter", "Those of them that were bad; not for means",
               ("release", "slo", "life")),
        Metric("sft_slo_unjudged_events_total", "counter", "Events that should have been judged and were not",
               ("release", "slo", "life")),
        Metric("sft_slo_values_total", "counter", "Sum of the values of a mean objective", ("release", "slo", "life")),
        Metric("sft_slo_value_squares_total", "counter", "Sum of their squares, for the bound on the mean",
               ("release", "slo", "life")),
        Metric("sft_slo_budget_remaining_ratio", "gauge", "Error budget left in the window", ("release", "slo")),
        Metric("sft_release_weight", "gauge", "Share of sessions sent to the release", ("release", "arm")),
        Metric("sft_release_judged", "gauge",
               "1 for the releases that objectives are judged for now; life: a number for each start as a canary, "
               "counted round; absent of a release that was always stable",
               ("release", "life")),
        Metric("sft_release_info", "gauge", "What a release is made of",
               ("release", "name", "model", "adapter", "kb", "prompt", "policy")),
        Metric("sft_release_comparison_state", "gauge",
               "Canary beside stable: 0 pass, 1 fail, 2 inconclusive, 3 unknown", ("release", "slo")),
        Metric("sft_release_evidence_ratio", "gauge",
               "log e-value / log of the e-value at which the canary fails; 1 is a fail, below 0 speaks for it",
               ("release", "slo")),
        Metric("sft_release_rollbacks_total", "counter", "Rollbacks by reason", ("reason",)),
        Metric("sft_release_phase", "gauge", "1 for the phase the release is in, 0 for the others", ("phase",)),
        Metric("sft_release_condition", "gauge", "1 while a condition stands on which people have to act",
               ("condition",)),
        Metric("sft_release_last_rollback_timestamp_seconds", "gauge",
               "When this release was rolled back last, Unix time; absent when it was not", ("release",)),
        Metric("sft_guard_last_evaluation_timestamp_seconds", "gauge",
               "When the objectives were judged last, Unix time"),
        Metric("sft_guard_baseline_expiry_timestamp_seconds", "gauge",
               "When the baseline in use expires, Unix time; absent without one"),
        Metric("sft_guard_checks_available", "gauge", "1 when the check worker works, 0 when it does not"),
        Metric("sft_guard_outbox_waiting", "gauge", "Webhooks not delivered yet"),
        Metric("sft_guard_webhooks_disabled", "gauge",
               "Webhook receivers that answered 410 and are not called again until their URL changes"),
        Metric("sft_guard_checks_dropped_total", "counter", "Answers not checked, by reason", ("reason",)),
        Metric("sft_guard_redacted_total", "counter",
               "Personal data and secrets taken out of questions, answers and contexts before they were stored"),
        Metric("sft_guard_check_queue_length", "gauge", "Answers waiting for the checks"),
        Metric("sft_guard_check_coverage_ratio", "gauge", "Share of recent answers that were checked"),
        Metric("sft_guard_failopen_total", "counter", "Answers served past a broken dependency", ("dep", "reason")),
        Metric("sft_guard_blocked_total", "counter", "Questions refused before the upstream by a safety check",
               ("route", "check")),
        Metric("sft_guard_webhook_deliveries_total", "counter", "Webhook attempts", ("result",)),
        Metric("sft_guard_alerts_received_total", "counter",
               "Alerts that Alertmanager sent here; truncated: those it left out of its deliveries", ("result",)),
        Metric("sft_guard_config_info", "gauge", "Hash of the running configuration", ("hash",)),
        Metric("sft_guard_config_last_reload_success", "gauge", "1 when the last reload was accepted"),
        Metric("sft_guard_log_dropped_total", "counter", "Exchange log lines not written", ("reason",)),
        Metric("sft_guard_messages_dropped_total", "counter", "Lines of the own log that nobody took from stderr"),
        Metric("sft_guard_spans_dropped_total", "counter", "Spans not sent to the OTLP receiver", ("reason",)),
        Metric("sft_guard_connections", "gauge", "Open connections", ("side",)),
        Metric("sft_guard_loop_lag_seconds", "gauge", "Worst delay of the event loop since the last evaluation"),
        Metric("sft_guard_tasks", "gauge", "Tasks of the event loop; one that never ends shows here"),
        Metric("sft_guard_held_entries", "gauge", "Entries of each bounded table of the process", ("table",)),
        Metric("sft_guard_allocated_blocks", "gauge",
               "Small blocks of memory in use, as the interpreter counts them; level while RSS rises: no leak"),
        Metric("sft_guard_heap_bytes", "gauge",
               "C heap: blocks over 512 bytes and libraries; used, and free but kept (glibc only)", ("state",)),
        Metric("sft_guard_series_dropped_total", "counter", "Series refused by the cap on label values"),
        Metric("sft_guard_uptime_seconds", "gauge", "Seconds since start"),
        Metric("sft_train_loss", "gauge", "Train loss of the last step, nats per answer token", ("run",)),
        Metric("sft_train_eval_loss", "gauge", "Eval loss of the last evaluation", ("run",)),
        Metric("sft_train_best_eval_loss", "gauge", "Least eval loss so far; the adapter of that step is kept",
               ("run",)),
        Metric("sft_train_learning_rate", "gauge", "Learning rate of the last step", ("run",)),
        Metric("sft_train_gradient_norm", "gauge", "Gradient norm of the last step, before clipping", ("run",)),
        Metric("sft_train_tokens_per_second", "gauge", "Tokens trained on a second, pads not counted", ("run",)),
        Metric("sft_train_step", "gauge", "Steps done", ("run",)),
        Metric("sft_train_steps", "gauge", "Steps of the whole run", ("run",)),
        Metric("sft_train_epoch", "gauge", "Epochs done", ("run",)),
        Metric("sft_train_running", "gauge", "1 while it trains, 0 when it ended", ("run",)),
        Metric("sft_train_last_update_timestamp_seconds", "gauge", "When these values were written, Unix time",
               ("run",)),
        Metric("sft_serve_requests_total", "counter", "Requests to `lora serve` by result: ok, timeout, queue_full...",
               ("model", "result")),
        Metric("sft_serve_tokens_total", "counter", "Tokens of whole answers", ("model", "type")),
        Metric("sft_serve_request_duration_seconds", "histogram", "Request to the end of its answer, waiting included",
               ("model",)),
        Metric("sft_serve_time_to_first_token_seconds", "histogram", "Request to the first text of its answer",
               ("model",)),
        Metric("sft_serve_waiting", "gauge", "Requests in the queue"),
        Metric("sft_serve_running", "gauge", "Answers under way"),
        Metric("sft_serve_steps_total", "counter", "Steps of the model, each a token for every answer under way"),
        Metric("sft_serve_rows_total", "counter", "Answers in all of these steps; by steps: how full batches are"),
        Metric("sft_serve_adapter_loads_total", "counter", "Adapters loaded: ok, refused, failed", ("result",)),
        Metric("sft_serve_adapter_info", "gauge", "Adapters that are served, with the hash of their content",
               ("model", "sha256")),
    )
}  # fmt: skip


def indicator(name: str) -> Indicator:
    """Return the indicator called `name`.

    Raises:
        KeyError: unknown name; the caller knows the place and names the cure.
    """
    return INDICATORS[name]
