"""One Markdown page per alert: what it means, how it is computed, what to look at and do, how to silence it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from alerts.model import Alert, Group, Runbook
from alerts.pages import (
    BACK,
    DOCTOR,
    INCIDENT,
    INCIDENTS,
    NO_TARGET_THEN,
    RULES,
    SHARED_THEN,
    STATUS,
    VALUES,
    is_query,
)

SEVERITIES = {
    "page": "a page: somebody is woken",
    "ticket": "a ticket: within office hours",
    "info": "for information",
}

OWN: Mapping[str, tuple[str, Runbook]] = {
    "SftGuardRollback": (
        "critical",
        Runbook(
            "The guard rolled a release back. The incident has the evidence and what differs between the two releases.",
            ("posted by the guard while the incident is open; a new rollout or a person closes it",),
            (
                STATUS,
                INCIDENTS,
                INCIDENT,
                ("the whole story, for a review", "sft-guard incident postmortem INCIDENT_ID"),
            ),
            "It has taken the traffic away, moved the pointer and told the webhooks.",
            (
                "`release status` shows phase `rolled_back` and 0 % for the canary: users are served by the good "
                "version, and the rest can wait for office hours. The incident says later whether the rollback "
                "helped.",
                "The release was bad: mend it and start it under a new version name.",
                "The release was good: `sft-guard release start VERSION --again` overrides the rollback; then see with "
                "`sft-guard slo replay` how often the rule fires on healthy traffic.",
                "Dealt with: `sft-guard incident close INCIDENT_ID --reason TEXT`; its alert ends, and baselines take "
                "traffic again from then on.",
            ),
        ),
    ),
    "SftGuardRollbackWithoutTarget": (
        "critical",
        Runbook(
            "A rollback found no release to return to. The weight of the canary is 0; the pointer was not moved.",
            ("posted by the guard while the incident is open",),
            (STATUS, ("versions in the configuration", "sft-guard check")),
            "It holds. It never points to a release that does not exist.",
            NO_TARGET_THEN,
        ),
    ),
    "SftGuardSharedUpstream": (
        "critical",
        Runbook(
            "Stable and canary breach the same rule, so something they share is at fault.",
            ("posted by the guard while stable breaches the rule",),
            (VALUES, DOCTOR),
            "It may lower the weight of the canary; the pointer does not move.",
            SHARED_THEN,
        ),
    ),
    "SftGuardPage": (
        "critical",
        Runbook(
            "A rule with `action: page` fires in the guard.",
            ("posted by the guard while the rule fires; it closes by itself",),
            (STATUS, INCIDENTS, INCIDENT, RULES, BACK),
            "It holds the release. It moves no traffic.",
            (
                "The page of the objective's own alert says what may be at fault.",
                "A canary is in traffic and bad: take it out yourself, for the guard will not.",
            ),
        ),
    ),
    "SftGuardCondition": (
        "critical",
        Runbook(
            "The guard cannot do its work; label and summary say which condition stands.",
            ("posted by the guard while the condition stands; it closes by itself",),
            (STATUS, INCIDENTS, INCIDENT),
            "It holds the release.",
            (
                "`rollback_suppressed`: see SftReleaseRollbackSuppressed. `unknown_too_long`: see "
                "SftReleaseUnknownTooLong. `no_target`: see SftReleaseNoTarget.",
            ),
        ),
    ),
    "SftGuardDrill": (
        "info",
        Runbook(
            "A rehearsal of a rollback was run; no traffic was touched.",
            ("posted by the guard for a few minutes",),
            (("the result, and how long it took", "sft-guard incident list"),),
            "Nothing.",
        ),
    ),
}
"""Alerts that the guard itself posts to Alertmanager, and how urgent they are."""


def pages(service: str, groups: Iterable[Group]) -> dict[str, str]:
    """Return file name -> Markdown, an index included."""
    found: dict[str, str] = {}
    index = [f"# Alerts of {service}", "", "| alert | severity | about |", "|---|---|---|"]
    for group in groups:
        for alert in group.alerts:
            found[f"{alert.name}.md"] = page(service, alert)
            index.append(f"| [{alert.name}]({alert.name}.md) | {alert.labels['severity']} | {_cell(alert)} |")
    for name, (severity, book) in OWN.items():
        found[f"{name}.md"] = _page(service, name, f"Severity: **{severity}**, posted by the guard itself.", book)
        index.append(f"| [{name}]({name}.md) | {severity} | {book.meaning} |")
    found["README.md"] = "\n".join(index) + "\n"
    return found


def page(service: str, alert: Alert) -> str:
    """Return the page of one alert."""
    severity = alert.labels["severity"]
    action = alert.labels.get("action")
    head = f"Severity: **{severity}**, {SEVERITIES[severity]}."
    if action:
        head += f" Action of the objective `{alert.labels['slo']}`: **{action}**."
    return _page(service, alert.name, head, alert.runbook, alert.expr)


def _page(service: str, name: str, head: str, book: Runbook, expr: str = "") -> str:
    lines = [f"# {name}", "", head, "", "## What it means", "", book.meaning, "", "## How it is computed", ""]
    lines += [f"- {line}" for line in book.computed]
    if expr:
        lines += ["", "```promql", expr, "```"]
    lines += ["", "## What to look at first", ""]
    for number, (what, command) in enumerate(book.look, start=1):
        kind = "promql" if is_query(command) else "sh"
        lines += [f"{number}. {what}:", "", f"   ```{kind}", f"   {command}", "   ```", ""]
    if book.then:
        lines += ["## What to do", "", *(f"- {sentence}" for sentence in book.then), ""]
    lines += ["## How to silence it", "", "Silence what you are working on, for as long as you work on it:", ""]
    matcher = f"alertname={name} service={service}"
    lines += ["```sh", f'amtool silence add {matcher} --duration=2h --comment="who, why"', "```", ""]
    lines += ["## What the guard does itself", "", book.guard_does]
    return "\n".join(lines) + "\n"


def _cell(alert: Alert) -> str:
    return alert.runbook.meaning.split(". ")[0].rstrip(".").replace("|", "\\|") + "."
