"""Alerts about the guard itself: a watchman who fell asleep must not look like a quiet night. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from alerts.cache_rules import cache_alerts
from alerts.cases import flat
from alerts.conditions import CONDITIONS
from alerts.model import INFO, PAGE, TICKET, Alert, Case, Group, Options, Runbook, Series
from alerts.pages import BACK, BUILD, COLLECT, DOCTOR, HEALTH, INCIDENTS, LOG, RULES, STATUS, VALUES
from alerts.promql import number, selector
from alerts.windows import Rule
from slo.metric_names import INDICATORS

IN_PROGRESS = "SftReleaseRollbackInProgress"
DOWN = "SftGuardDown"
ABSENT = "SftGuardAbsent"
MAX_QUIET_S = 120.0


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
        (
            "`/healthz` answers on its own host: users are well; the way from Prometheus to the admin port is not.",
            "The process is gone: start it. It ends at once: its last line names file, path, value and cure; mend "
            "that, or put the last good file back.",
            "It does not come back within minutes: give the bot its old base URL and restart the bot; it then answers "
            "without the guard (docs/operations.md, *Take it out of the way*).",
        ),
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
        (
            "The guard answers `/healthz`: the scrape job has another name, another target, or is not loaded; "
            "compare it with the generated `prometheus.yml`.",
            "It does not answer: see SftGuardDown.",
        ),
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
        (HEALTH, LOG, BACK),
        "Nothing: the part that acts is the part that hangs. These rules go on judging.",
        (
            "A canary is in traffic: take it out now, nobody else will.",
            "Then restart the guard (`systemctl restart sft-guard`): streams get 25 s to finish, and it comes back "
            "with the split that was last decided. Keep the log of before.",
        ),
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
        (HEALTH, LOG, DOCTOR),
        "It starts the worker again with growing pauses, serves answers unchecked, and counts them as unchecked.",
        (
            "`/healthz` names the cause in the part `checks`. A model file that changed on disk: put the old one "
            "back, or restart the guard to take the new one. Golden pairs that fail: the model or the calibration is "
            "not the one it was. A worker that dies again and again: mostly memory (raise the limit) or a broken "
            "file.",
            "A canary is in traffic: nobody looks at the quality of its answers. `sft-guard release pause`, or "
            "`abort`.",
            "`checks` of guard.yaml cannot be changed by a reload; restart the guard after a change.",
        ),
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
            DOCTOR,
            HEALTH,
        ),
        "It samples, says unknown, and lets no release advance on quality.",
        (
            "Mostly `skipped`, or `sft-guard doctor` warns of *contexts of* a route: the bot answers in another "
            "shape than `routes: contexts` says. Correct it in guard.yaml and reload.",
            "Dropped with `queue_full` or `too_late`: the checks are slower than the traffic. Give the worker a "
            "core, or switch slower tiers off (`checks.transformer`, `checks.detector`) and restart.",
            "Mostly `unavailable`: see SftGuardChecksDown.",
        ),
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
        (
            "Collect it anew from the last healthy weeks, put it where `baseline` of guard.yaml points, reload "
            "(`kill -HUP`), then build the rules and load them into Prometheus.",
            "`baseline collect` refuses for lack of healthy days: an incident that was never closed may leave them "
            "out; it names each (`sft-guard incident close`).",
        ),
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
            ("the words of the refusal", "journalctl -u sft-guard -n 50"),
            ("what runs", "curl -s http://127.0.0.1:8801/api/v1/config"),
        ),
        "It goes on with the old configuration.",
        (
            "Mend the place that is named, then reload (`systemctl reload sft-guard`, or `kill -HUP`).",
            "`sft-guard check` says ok and the log says *restart the guard to change this part*: a reload cannot "
            "change that section (docs/settings.md lists them). Restart, or take the change back and reload.",
            "A version that is in traffic is missing in the file: put it back; finish or abort its release first.",
        ),
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
        (HEALTH, ("how tries end", deliveries), DOCTOR, LOG, INCIDENTS),
        "It keeps them on disk and tries for 24 hours, in order per incident; after a 410 it does not.",
        (
            "Tell those who rely on it yourself: `sft-guard incident list` has what they did not hear.",
            "`sft-guard doctor` connects to every receiver: down, a wrong address, a name that leads inside "
            "(`limits.egress_networks`). A changed address needs a restart.",
            "It answers 4xx: secret or clock differ (signatures allow 5 minutes).",
            "It answered 410: it asks not to be called again. Ask its owner, then give it another `url` and restart.",
        ),
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
    for condition, (name, severity, summary, meaning, does, look, then) in CONDITIONS.items():
        gauge = _series("sft_release_condition", service, condition=condition)
        book = Runbook(meaning, (f"`{gauge}` is 1",), look, does, then)
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
        ("See SftGuardRollback: what to look at after a rollback, and how to close it.",),
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
        (VALUES, RULES),
        "Unknown never rolls back and never lets a release advance.",
        (
            "Too few events: choose a longer window or fewer `min_events`; `sft-guard slo replay` says how long a rule "
            "would have been unknown.",
            "No baseline: collect one, or write an absolute limit until there is one.",
            "Less than half judged: see SftGuardCheckCoverageLow.",
        ),
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
            "limits of the form `previous` follow the hour of the week and are not compared",
        ),
        (
            BUILD,
            ("what the guard uses", "sft-guard slo explain --slo slo.yaml --baseline baseline.json"),
        ),
        "It judges by its own, current limits.",
        ("Build the rules, load them into Prometheus (reload it), and put both into the job that changes slo.yaml.",),
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
