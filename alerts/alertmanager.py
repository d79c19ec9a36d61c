"""An Alertmanager configuration: who is told of what, and what is kept quiet meanwhile. Pure."""

from __future__ import annotations

from typing import Any

from alerts.guard_rules import ABSENT, DOWN, IN_PROGRESS
from alerts.model import Options
from alerts.promql import duration
from slo.outside import OutsideRule

PAGER, TICKETS, GUARD = "pager", "tickets", "guard"


def alertmanager_document(service: str, options: Options, outside: tuple[OutsideRule, ...] = ()) -> dict[str, Any]:
    """Return alertmanager.yml: routing by action, inhibition, and the guard's own receiver.

    outside: rules of slo.yaml on alerts of others, which have to reach the guard as well.
    """
    wanted = [[f'service="{service}"']]
    for rule in outside:
        wanted.append([_matcher("alertname", rule.alert), *(_matcher(k, v) for k, v in sorted(rule.labels.items()))])
    return {
        "route": {
            "receiver": TICKETS,
            "group_by": ["service"],
            "group_wait": "10s",
            "group_interval": "1m",
            "repeat_interval": "4h",
            "routes": [
                *(_to_the_guard(matchers) for matchers in wanted),
                {"matchers": ['severity=~"page|critical"'], "receiver": PAGER},
                # Everything else; without it an alert that only the guard's route matched would reach nobody else.
                {"receiver": TICKETS},
            ],
        },
        "receivers": [
            {"name": PAGER, "webhook_configs": [{"url": options.pager_url, "send_resolved": True}]},
            {"name": TICKETS, "webhook_configs": [{"url": options.ticket_url, "send_resolved": True}]},
            {
                "name": GUARD,
                "webhook_configs": [
                    {
                        "url": f"{options.guard_url.rstrip('/')}/api/v1/alerts",
                        "send_resolved": True,
                        "max_alerts": 0,
                        "http_config": {
                            "authorization": {"type": "Bearer", "credentials_file": options.token_file},
                            "follow_redirects": False,
                        },
                    }
                ],
            },
        ],
        "inhibit_rules": [
            # What a rollback is for need not be told while it goes on: see `guard_rules.quiet_s`.
            {
                "source_matchers": [f'alertname="{IN_PROGRESS}"'],
                "target_matchers": ['kind="symptom"'],
                "equal": ["service", "release"],
            },
            # A page on an objective says what its ticket would.
            {
                "source_matchers": ['severity="page"', 'kind="symptom"'],
                "target_matchers": ['severity="ticket"', 'kind="symptom"'],
                "equal": ["service", "release", "slo"],
            },
            # A guard that is down has nothing else to say.
            {
                "source_matchers": [f'alertname="{DOWN}"'],
                "target_matchers": [f'alertname=~"{ABSENT}|SftGuardStale|SftGuardChecksDown"'],
                "equal": ["service"],
            },
        ],
    }


def _to_the_guard(matchers: list[str]) -> dict[str, Any]:
    return {
        "matchers": matchers,
        "receiver": GUARD,
        "continue": True,
        "group_by": ["service", "alertname"],
        "group_wait": "1s",
        "group_interval": "15s",
        # Renews what the guard holds as evidence: it forgets an alert that nobody repeats.
        "repeat_interval": "5m",
    }


def _matcher(label: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{label}="{escaped}"'


def prometheus_document(service: str, options: Options, rule_name: str) -> dict[str, Any]:
    """Return the part of prometheus.yml that belongs to the guard, as a whole configuration."""
    every = duration(options.scrape_s)
    target = options.guard_url.partition("://")[2].rstrip("/")
    return {
        "global": {"scrape_interval": every, "evaluation_interval": every},
        "rule_files": [rule_name],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [options.alertmanager]}]}]},
        "scrape_configs": [
            {
                "job_name": options.job,
                # The guard names its service itself; without this Prometheus would rename it to exported_service when
                # a target label of the same name exists.
                "honor_labels": True,
                "static_configs": [{"targets": [target]}],
            }
        ],
    }
