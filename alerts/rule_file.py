"""Rule groups as a Prometheus rule file, and the promtool unit tests of every alert. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from alerts.cases import RELEASE
from alerts.model import Alert, Case, Group, Options, Record, Series
from alerts.promql import duration

LONG_S = 3600.0
"""Cases that ask later than this are tested with rare evaluations, in a file of their own."""
LONG_EVERY_S = 300.0
_SHOWN = {"ratio": "{{ $value | humanizePercentage }}", "number": '{{ printf "%.4g" $value }}', "": ""}


def rule_document(groups: Iterable[Group], options: Options) -> dict[str, Any]:
    """Return the rule file."""
    return {
        "groups": [
            {
                "name": group.name,
                "interval": duration(group.every_s),
                "rules": [_record(r) if isinstance(r, Record) else _alert(r, options) for r in group.rules],
            }
            for group in groups
            if group.rules
        ]
    }


def annotations_of(alert: Alert, options: Options) -> dict[str, str]:
    """Summary, description, and where its page is."""
    return {
        "summary": alert.summary.replace("{{value}}", _SHOWN[alert.show]),
        "description": alert.description,
        "runbook_url": f"{options.runbook_url}{alert.name}.md",
    }


def test_documents(groups: Iterable[Group], options: Options, rule_name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the promtool test files: short cases, and long ones.

    Every test evaluates all rules, so cases that do not touch each other share one: those of an alert on an objective
    by a release each, named after the case; different objectives and different alerts about the guard side by side.
    """
    tests: dict[tuple[bool, str], _Test] = {}
    for group in groups:
        nth: Counter[str] = Counter()
        for alert in group.alerts:
            slo = alert.labels.get("slo", "")
            nth[slo] += 1
            for place, case in enumerate(alert.cases):
                long = case.at_s > LONG_S and not slo  # steps need every evaluation
                name = f"objectives, alert {nth[slo]} of each" if slo else f"the guard, case {place + 1} of each"
                made = tests.setdefault((long, name), _Test(name))
                made.add(alert, _of_release(case) if slo else case, options)
    short, late = (
        [t.document(options) for (is_late, _), t in tests.items() if is_late is long] for long in (False, True)
    )
    return (
        {"rule_files": [rule_name], "evaluation_interval": duration(options.scrape_s), "tests": short},
        {"rule_files": [rule_name], "evaluation_interval": duration(LONG_EVERY_S), "tests": late},
    )


def _of_release(case: Case) -> Case:
    """The case as one of several releases, named after it."""
    name = case.name.replace(" ", "-")
    series = tuple(Series(s.series.replace(f'release="{RELEASE}"', f'release="{name}"'), s.values) for s in case.series)
    return replace(case, series=series, expected=tuple({**labels, "release": name} for labels in case.expected))


class _Test:
    """Several cases that do not touch each other."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.series: dict[str, str] = {}
        self.asked: dict[tuple[float, str], list[dict[str, Any]]] = {}

    def add(self, alert: Alert, case: Case, options: Options) -> None:
        """Take a case in. A series that two cases want different is a mistake of the generator."""
        for one in case.series:
            if self.series.setdefault(one.series, one.values) != one.values:
                raise ValueError(f"{self.name}: two cases want {one.series} different")
        self.asked.setdefault((case.at_s, alert.name), []).extend(
            {"exp_labels": dict(labels), "exp_annotations": _expanded(alert, case, labels, options)}
            for labels in case.expected
        )

    def document(self, options: Options) -> dict[str, Any]:
        """The test as promtool reads it."""
        return {
            "name": self.name,
            "interval": duration(options.scrape_s),
            "input_series": [{"series": series, "values": values} for series, values in self.series.items()],
            "alert_rule_test": [
                {"eval_time": duration(at_s), "alertname": name, "exp_alerts": expected}
                for (at_s, name), expected in self.asked.items()
            ],
        }


def _record(record: Record) -> dict[str, Any]:
    made: dict[str, Any] = {"record": record.name, "expr": record.expr}
    if record.labels:
        made["labels"] = dict(record.labels)
    return made


def _alert(alert: Alert, options: Options) -> dict[str, Any]:
    made: dict[str, Any] = {"alert": alert.name, "expr": alert.expr}
    if alert.for_s:
        made["for"] = duration(alert.for_s)
    if alert.keep_s:
        made["keep_firing_for"] = duration(alert.keep_s)
    made["labels"] = dict(alert.labels)
    made["annotations"] = annotations_of(alert, options)
    return made


def _expanded(alert: Alert, case: Case, labels: Any, options: Options) -> dict[str, str]:
    """The annotations as Prometheus expands them for this case."""
    shown = {"ratio": f"{case.value * 100:.4g}%", "number": f"{case.value:.4g}", "": ""}[alert.show]
    found = {}
    for name, text in annotations_of(alert, options).items():
        text = text.replace(_SHOWN[alert.show] or "\0", shown)
        for label, value in labels.items():
            text = text.replace(f"{{{{ $labels.{label} }}}}", value)
        found[name] = text
    return found
