"""What is generated, as plain values: groups of rules, the page of each alert, the cases that test it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PAGE, TICKET, INFO = "page", "ticket", "info"


@dataclass(frozen=True, slots=True)
class Options:
    """What cannot be read in slo.yaml.

    scrape_s: how often Prometheus scrapes the guard and evaluates the rules. job: name of the scrape job. guard_url:
    admin listener. token_file: its bearer token, as Alertmanager sees the file. pager_url, ticket_url: webhooks.
    alertmanager: where Prometheus finds it.
    runbook_url: what a runbook's file name is put behind.
    """

    scrape_s: float = 15.0
    job: str = "sft-guard"
    guard_url: str = "http://127.0.0.1:8801"
    token_file: str = "guard-token"  # noqa: S105 - the name of a file
    pager_url: str = "http://127.0.0.1:9911/pager"
    ticket_url: str = "http://127.0.0.1:9911/ticket"
    alertmanager: str = "127.0.0.1:9093"
    runbook_url: str = "runbooks/"

    @property
    def late_s(self) -> float:
        """How old the newest sample is that a rule uses: longer than a scrape of the guard takes."""
        return round(min(5.0, self.scrape_s / 3.0), 3)


@dataclass(frozen=True, slots=True)
class Series:
    """One input of a promtool test: a series and its samples, one per scrape, in promtool's notation."""

    series: str
    values: str


@dataclass(frozen=True, slots=True)
class Case:
    """What an alert does on given samples. expected: labels (without alertname) of each alert that fires; none: silent.

    value: of the alert's expression, as its summary shows it.
    """

    name: str
    at_s: float
    series: tuple[Series, ...]
    expected: tuple[Mapping[str, str], ...] = ()
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Runbook:
    """The page of one alert.

    look: (what, command) pairs, the first first. then: sentences that say what may be seen there and what to do then.
    """

    meaning: str
    computed: tuple[str, ...]
    look: tuple[tuple[str, str], ...]
    guard_does: str
    then: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One recording rule. note: a comment above it."""

    name: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alert:
    """One alerting rule with everything that belongs to it.

    show: how the summary shows `$value`: "ratio", "number" or "" (not at all).
    """

    name: str
    expr: str
    labels: Mapping[str, str]
    summary: str
    description: str
    runbook: Runbook
    cases: tuple[Case, ...]
    for_s: float = 0.0
    keep_s: float = 0.0
    show: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after the other, every `every_s`."""

    name: str
    every_s: float
    rules: tuple[Record | Alert, ...]
    about: str = ""

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """Those of its rules that alert."""
        return tuple(rule for rule in self.rules if isinstance(rule, Alert))
