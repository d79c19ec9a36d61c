"""Alerts about the guard itself: a watchman who fell asleep must not look like a quiet night. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from alerts.cache_rules import cache_alerts
from alerts.cases import flat
from alerts.model import INFO, PAGE, TICKET, Alert, Case, Group, Options, Runbook, Series
from alerts.pages import BACK, BUILD, COLLECT, DOCTOR, HEALTH, INCIDENTS, RULES, STATUS
from alerts.promql import number, selector
from alerts.windows import Rule
from slo.metric_names import INDICATORS

IN_PROGRESS = "SftReleaseRollbackInProgress"
DOWN = "SftGuardDown"
ABSENT = "SftGuardAbsent"
MAX_QUIET_S = 120.0

_CONDITIONS = {
    "rollback_suppressed": (
        "SftReleaseRollbackSuppressed", PAGE,
        "the guard wanted to roll back and did not: too many automatic rollbacks in 24 h",
        "The limit `release.max_rollbacks_per_day` is reached, so the guard holds instead. Find out why "
        "release after release fails.",
        "It holds the release where it is and lets nothing advance.",
    ),
    "unknown_too_long": (
        "SftReleaseUnknownTooLong", PAGE,
        "a canary takes traffic and cannot be judged",
        "For longer than `release.unknown_after` the canary could not be judged: too little traffic, checks that are "
        "down, or an expired baseline.",
        "It holds the canary; with `unknown_action: drain` it takes its traffic away.",
    ),
    "no_target": (
        "SftReleaseNoTarget", PAGE,
        "stable breaches a rule and there is nothing to return to",
        "A rule that rolls back fires on the stable release, and no earlier release is known or configured.",
        "It holds and opens an incident: it never points to a release that does not exist.",
    ),
    "shared_upstream": (
        "SftReleaseSharedUpstream", PAGE,
        "stable and canary breach the same rule: it is not the canary",
        "Both arms suffer, so something they share does: model server, knowledge base, network.",
        "It may lower the weight of the canary; the pointer does not move.",
    ),
}  # fmt: skip


def quiet_s(rules: Iterable[Rule]) -> float:
    """Return how long after a rollback the symptoms of the bad release stay unsaid, seconds.

    Half as long as the alert that is kept the shortest: Alertmanager says nothing of an inhibited alert, its end
    included, so the silence must be over before the first symptom ends.
    """
    return min([MAX_QUIET_S, *(rule.slo.keep_firing_for_s / 2.0 for rule in rules)])


def guard_group(service: str, rules: tuple[Rule, ...], options: Options) -> Group:
    """Return the alerts about the guard of one service."""
    compared = [r for r in rules if r.limit.value is not None and r.slo.threshold.form != "previous"]
    alerts = (
        _down(service, options), _absent(service), _stale(service, options), _checks_down(service), _coverage(service),
        _baseline(service), _reload(service), _outbox(service), *_standing(service),
        *_in_progress(service, quiet_s(rules)),
        _unknown(service), *cache_alerts(service), *(_outdated(service, rule) for rule in compared[:1]),
    )  # fmt: skip
    return Group(f"sft-{service}-guard", options.scrape_s, alerts, "the guard itself")


def _series(name: str, service: str, **labels: str) -> str:
    return selector(name, {"service": service, **labels})


def _labels(severity: str) -> dict[str, str]:
    return {"severity": severity, "kind": "guard"}


def _simple(
    name: str, expr: str, severity: str, summary: str, description: str, book: Runbook, firing: Series, silent: Series,
    expected: Mapping[str, str], *, for_s: float, at_s: float = 900.0, extra: Mapping[str, str] | None = None,
) -> Alert:  # fmt: skip
    """An alert on one gauge. at_s: when both cases are asked."""
    labels = {**_labels(severity), **(extra or {})}
    return Alert(
        name, expr, labels, summary, description, book,
        (Case("fires", at_s, (firing,), ({**labels, **expected},)), Case("stays silent", at_s, (silent,))),
        for_s=for_s,
    )  # fmt: skip


def _down(service: str, options: Options) -> Alert:
    up = selector("up", {"job": options.job})
    book = Runbook(
        f"Prometheus cannot scrape the guard of {service}: the process is gone, hangs, or the admin port is closed. "
        "Answers go through it, so users probably see errors.",
        (f"`{up}` is 0 for 2 minutes",),
        (HEALTH, ("the process and its log", "systemctl status sft-guard; journalctl -u sft-guard -n 50"), DOCTOR),
        "Nothing: it is down. After a restart it takes the last committed split, never a default one.",
    )
    return _simple(
        DOWN, f"{up} == 0", PAGE, f"the guard of {service} does not answer ({{{{ $labels.instance }}}})",
        "Answers go through the guard. While it is down nothing is measured and nothing is rolled back.", book,
        flat(selector("up", {"job": options.job, "instance": "a"}), 0),
        flat(selector("up", {"job": options.job, "instance": "a"}), 1),
        {"job": options.job, "instance": "a"}, for_s=120.0, extra={"service": service},
    )  # fmt: skip


def _absent(service: str) -> Alert:
    uptime = _series("sft_guard_uptime_seconds", service)
    book = Runbook(
        f"No guard of the service {service} is scraped at all: the scrape job, its targets or its labels are wrong, or "
        "nothing runs. Every other alert of this file is silent then.",
        (f"`absent({uptime})` for 5 minutes",),
        (("targets that Prometheus knows", "curl -s http://127.0.0.1:9090/api/v1/targets"), HEALTH),
        "Nothing that Prometheus could see. The guard itself may well be at work.",
    )
    return _simple(
        ABSENT, f"absent({uptime})", PAGE, f"no guard of {service} is scraped", "Every other alert is silent then.",
        book,
        flat(selector("sft_guard_uptime_seconds", {"service": "another"}), 5), flat(uptime, 5),
        {"service": service}, for_s=300.0,
    )  # fmt: skip


def _stale(service: str, options: Options) -> Alert:
    last = _series("sft_guard_last_evaluation_timestamp_seconds", service)
    book = Runbook(
        "The guard answers and counts, but has judged nothing for a minute: its release loop hangs or failed.",
        (f"`time() - {last}` is over 60 s for 1 minute",),
        (HEALTH, ("what the loop says", "journalctl -u sft-guard -n 50"), BACK),
        "Nothing: the part that acts is the part that hangs. These rules go on judging.",
    )
    return _simple(
        "SftGuardStale", f"time() - {last} > 60", PAGE, f"the guard of {service} judges nothing any more",
        "No breach would be acted on.", book, flat(last, 0),
        Series(last, f"0+{number(options.scrape_s)}x3000"), {"service": service}, for_s=60.0,
    )  # fmt: skip


def _checks_down(service: str) -> Alert:
    available = _series("sft_guard_checks_available", service)
    book = Runbook(
        "The worker that checks answers (grounding, similarity, rules, PII) does not run or reports that it cannot "
        "tell good answers from bad ones. Quality objectives are unknown until it is back.",
        (f"`{available}` is 0 for 5 minutes",),
        (HEALTH, ("what the worker says", "journalctl -u sft-guard -n 50"), DOCTOR),
        "It starts the worker again with growing pauses, serves answers unchecked, and counts them as unchecked.",
    )
    return _simple(
        "SftGuardChecksDown", f"{available} == 0", PAGE, f"the answer checks of {service} are down",
        "Hallucinations would not be seen.", book, flat(available, 0), flat(available, 1), {"service": service},
        for_s=300.0,
    )  # fmt: skip


def _coverage(service: str) -> Alert:
    coverage = _series("sft_guard_check_coverage_ratio", service)
    dropped, checks = _series("sft_guard_checks_dropped_total", service), _series("sft_quality_checks_total", service)
    book = Runbook(
        "Fewer than half of the answers could be checked, so quality objectives are unknown: the checks are slower "
        "than the traffic, or contexts are missing in the answers.",
        (f"`{coverage}` is below 0.5 for 10 minutes",),
        (
            ("why answers are dropped", f"sum by (reason) (rate({dropped}[5m]))"),
            ("checks by result", f"sum by (check, result) (rate({checks}[5m]))"),
            HEALTH,
        ),
        "It samples, says unknown, and lets no release advance on quality.",
    )  # fmt: skip
    return _simple(
        "SftGuardCheckCoverageLow", f"{coverage} < 0.5", TICKET, f"few answers of {service} are checked",
        "Quality objectives are unknown.", book, flat(coverage, 0.4), flat(coverage, 0.9), {"service": service},
        for_s=600.0, at_s=1200.0,
    )  # fmt: skip


def _baseline(service: str) -> Alert:
    expiry = _series("sft_guard_baseline_expiry_timestamp_seconds", service)
    book = Runbook(
        "The baseline has expired. Rules that are relative to it (baseline, current) are unknown in the guard; the "
        "numbers in these generated rules are as old as the baseline.",
        (f"`{expiry} - time()` is below 0",),
        (
            ("the baseline in use", "sft-guard baseline show baseline.json"),
            COLLECT,
            BUILD,
        ),
        "It says unknown for relative rules; absolute ones keep acting.",
    )
    return _simple(
        "SftGuardBaselineExpired", f"{expiry} - time() < 0", TICKET, f"the baseline of {service} has expired",
        "Relative rules are unknown.", book, flat(expiry, 60), flat(expiry, 1_000_000), {"service": service},
        for_s=300.0,
    )  # fmt: skip


def _reload(service: str) -> Alert:
    accepted = _series("sft_guard_config_last_reload_success", service)
    book = Runbook(
        "The last reload of the configuration was refused as a whole; the old configuration runs.",
        (f"`{accepted}` is 0 for 5 minutes",),
        (
            ("the exact place of the error", "sft-guard check"),
            ("what runs", "curl -s http://127.0.0.1:8801/api/v1/config"),
        ),
        "It goes on with the old configuration.",
    )
    return _simple(
        "SftGuardConfigReloadFailed", f"{accepted} == 0", TICKET, f"the guard of {service} refused a configuration",
        "The old one runs.", book, flat(accepted, 0), flat(accepted, 1), {"service": service}, for_s=300.0,
    )  # fmt: skip


def _outbox(service: str) -> Alert:
    waiting, disabled = _series("sft_guard_outbox_waiting", service), _series("sft_guard_webhooks_disabled", service)
    deliveries = f"sum by (result) (rate({_series('sft_guard_webhook_deliveries_total', service)}[10m]))"
    book = Runbook(
        "Webhooks are not delivered: a receiver is down, refuses, its address is wrong, or it has answered 410 and is "
        "not called any more. Whoever relies on them does not know of a rollback.",
        (
            f"`{waiting}` is over 0 for 2 minutes; fast tries (0, 1, 2, 5, 10, 30 s) are used up by then",
            f"or `{disabled}` is over 0: a receiver that answered 410 gets nothing until its `url` is another one",
        ),
        (HEALTH, ("how tries end", deliveries), STATUS, ("what the log says", "journalctl -u sft-guard -n 50")),
        "It keeps them on disk and tries for 24 hours, in order per incident; after a 410 it does not.",
    )
    labels = _labels(PAGE)
    expected = ({**labels, "service": service},)
    return Alert(
        "SftGuardWebhookFailing", f"{waiting} > 0\nor {disabled} > 0", labels,
        f"webhooks of {service} are not delivered", "Whoever relies on them does not know.", book,
        (
            Case("fires", 900.0, (flat(waiting, 2), flat(disabled, 0)), expected),
            Case("a receiver answered 410", 900.0, (flat(waiting, 0), flat(disabled, 1)), expected),
            Case("stays silent", 900.0, (flat(waiting, 0), flat(disabled, 0))),
        ),
        for_s=120.0,
    )  # fmt: skip


def _standing(service: str) -> tuple[Alert, ...]:
    made = []
    for condition, (name, severity, summary, meaning, does) in _CONDITIONS.items():
        gauge = _series("sft_release_condition", service, condition=condition)
        book = Runbook(meaning, (f"`{gauge}` is 1",), (STATUS, INCIDENTS, RULES, BACK), does)
        made.append(
            _simple(
                name, f"{gauge} == 1", severity, f"{service}: {summary}", meaning, book, flat(gauge, 1), flat(gauge, 0),
                {"service": service, "condition": condition}, for_s=0.0,
            )
        )  # fmt: skip
    return tuple(made)


def _in_progress(service: str, quiet: float) -> tuple[Alert, ...]:
    """The alert that keeps symptoms quiet; none when symptoms are not kept long enough for it."""
    if quiet <= 0:
        return ()
    when = _series("sft_release_last_rollback_timestamp_seconds", service)
    book = Runbook(
        "A release was rolled back a moment ago. While this fires Alertmanager keeps the symptoms of that release to "
        "itself: they are what the rollback is for.",
        (f"`time() - {when}` is below {number(quiet)} s",),
        (INCIDENTS, STATUS),
        "It has set the weight to 0 and is finishing: pointer, cache epoch, webhooks, proof.",
    )
    labels = _labels(INFO)
    fired = selector("sft_release_last_rollback_timestamp_seconds", {"service": service, "release": "r1"})
    samples = (flat(fired, 120.0 - quiet / 2.0),)
    return (
        Alert(
            IN_PROGRESS,
            f"time() - {when} < {number(quiet)}",
            labels,
            f"{service}: {{{{ $labels.release }}}} was rolled back",
            "Its symptoms are not told meanwhile.",
            book,
            (
                Case("fires", 120.0, samples, ({**labels, "service": service, "release": "r1"},)),
                Case("is over", 300.0, samples),
            ),
        ),
    )


def _unknown(service: str) -> Alert:
    state = _series("sft_slo_state", service)
    book = Runbook(
        "An objective could not be judged for six hours: too few events in its window (`min_events`), no baseline, or "
        "checks that could not look. A rule that never knows protects nobody.",
        (f"`{state}` is 2 (unknown) at every evaluation of 6 hours",),
        (RULES, ("the reason in words", "curl -s http://127.0.0.1:8801/api/v1/slo")),
        "Unknown never rolls back and never lets a release advance. With little traffic: choose a longer window or "
        "fewer `min_events`.",
    )
    fired = selector("sft_slo_state", {"service": service, "release": "r1", "slo": "p95"})
    return _simple(
        "SftObjectiveUnknown", f"{state} == 2", INFO,
        f"{service}: {{{{ $labels.slo }}}} of {{{{ $labels.release }}}} cannot be judged", "It protects nobody.", book,
        flat(fired, 2, 25_000), flat(fired, 0, 25_000), {"service": service, "release": "r1", "slo": "p95"},
        for_s=21_600.0, at_s=22_500.0,
    )  # fmt: skip


def _outdated(service: str, rule: Rule) -> Alert:
    """rule: one whose limit is compared; it is what the cases are about."""
    running, built = _series("sft_slo_threshold", service), _series("sft:slo_limit", service)
    expr = f"abs({running} - on (service, slo) group_left () {built})\n> 0.001 * {running} + 0.000001"
    book = Runbook(
        "The guard judges by another limit than these rules do: slo.yaml or the baseline changed, and the rules were "
        "not built again (or not loaded).",
        (
            "`sft_slo_threshold` (the guard, now) and `sft:slo_limit` (this file) differ by over 0.1 % for an hour",
            "while a fast path speaks the guard shows that limit instead; an hour outlasts it",
            "limits of the form `previous` follow the hour of the week and are not compared",
        ),
        (
            BUILD,
            ("what the guard uses", "sft-guard slo explain --slo slo.yaml --baseline baseline.json"),
        ),
        "It judges by its own, current limits.",
    )
    labels, limit = _labels(TICKET), (rule.limit.value or 0.0) * INDICATORS[rule.slo.indicator].scale
    shown = _series("sft_slo_threshold", service, release="r1", slo=rule.slo.name)
    expected = {**labels, "service": service, "release": "r1", "slo": rule.slo.name}
    at_s = 3900.0
    return Alert(
        "SftRulesOutdated", expr, labels,
        f"{service}: the limit of {{{{ $labels.slo }}}} in Prometheus is not the one of the guard",
        "Build the rules again.", book,
        (
            Case("fires", at_s, (flat(shown, limit * 2 + 1, 5000),), (expected,)),
            Case("the same limit", at_s, (flat(shown, limit, 5000),)),
        ),
        for_s=3600.0,
    )  # fmt: skip
