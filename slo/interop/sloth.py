"""Sloth `prometheus/v1`: one file per service, objectives in percent over Sloth's own period.

Source: https://pkg.go.dev/github.com/slok/sloth/pkg/prometheus/api/v1
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from slo.interop.promises import (
    Exported,
    Imported,
    Promise,
    all_events,
    as_json,
    bad_events,
    kept_objective,
    objective_of,
    promises_of,
    slo_yaml,
    span_text,
)
from slo.spec import parse_duration_s
from slo.strict_yaml import parse_yaml, validate_model

VERSION = "prometheus/v1"
OBJECTIVE = "sft_guard_objective"
"""Annotation of the alerts with the objective as slo.yaml has it."""
PERIOD_S = 30 * 86_400.0
"""Sloth's period unless it is told another; the file does not say it."""


class _Open(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Events(_Open):
    """Bad of all events; both queries use `{{.window}}`."""

    error_query: str = Field(min_length=1)
    total_query: str = Field(min_length=1)


class Raw(_Open):
    """A ratio that was calculated elsewhere."""

    error_ratio_query: str = Field(min_length=1)


class Sli(_Open):
    """One of the two."""

    events: Events | None = None
    raw: Raw | None = None
    plugin: dict[str, Any] | None = None


class Alert(_Open):
    """Page or ticket."""

    disable: bool = False


class Alerting(_Open):
    """Names, labels and annotations of the alerts."""

    name: str = ""
    annotations: dict[str, str] = Field(default_factory=dict)
    page_alert: Alert = Alert()
    ticket_alert: Alert = Alert()


class SlothSlo(_Open):
    """One objective."""

    name: str = Field(min_length=1, max_length=128)
    objective: Annotated[float, Field(gt=0, le=100)]
    description: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    sli: Sli
    alerting: Alerting = Alerting()


class SlothFile(_Open):
    """The whole file."""

    version: Literal["prometheus/v1"]
    service: str = Field(min_length=1, max_length=128)
    labels: dict[str, str] = Field(default_factory=dict)
    slos: list[SlothSlo] = Field(min_length=1)


def export(text: str, place: str) -> Exported:
    """Return the objectives of an slo.yaml as a file for Sloth.

    Raises:
        ConfigError: not an slo.yaml.
    """
    service, promises, left_out = promises_of(text, place)
    aside = []
    for promise in promises:
        kept = [*promise.aside]
        if promise.window_s != PERIOD_S:
            kept.insert(0, f"the window of {span_text(promise.window_s)}")
        if kept:
            aside.append(f"{promise.name}: {', '.join(kept)} kept as an annotation; Sloth does not act on it")
    document = {"version": VERSION, "service": service, "slos": [_slo(service, promise) for promise in promises]}
    body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
    return Exported(body, len(promises), left_out, tuple(aside))


def read(text: str, place: str, named: dict[str, str]) -> Imported:
    """Return an slo.yaml made of a file for Sloth. named: name of an SLO -> indicator it measures.

    Raises:
        ConfigError: not a file of prometheus/v1.
    """
    file = validate_model(SlothFile, parse_yaml(text, place), place)
    objectives: list[Any] = []
    left_out: list[str] = []
    for slo in file.slos:
        made, why = _objective(slo, named.get(slo.name, ""))
        if made is None:
            left_out.append(f"{slo.name}: {why}")
            continue
        objectives.append(made)
        if slo.labels or file.labels:
            words = ", ".join(sorted({*slo.labels, *file.labels}))
            left_out.append(f"{slo.name}: the labels {words}; alerts of the guard carry their own")
    if not objectives:
        return Imported("", 0, tuple(left_out))
    service = re.sub(r"[^a-z0-9._-]+", "-", file.service.lower()).strip("-._")[:63]
    return Imported(slo_yaml(service or "service", objectives, place), len(objectives), tuple(left_out))


def _slo(service: str, promise: Promise) -> dict[str, Any]:
    def rate(selector: str) -> str:
        return f"sum(rate({selector}[{{{{.window}}}}]))"

    return {
        "name": promise.name,
        "objective": round(promise.target_ratio * 100, 7),
        "description": promise.help,
        "sli": {
            "events": {
                "error_query": rate(bad_events(service, promise.name)),
                "total_query": rate(all_events(service, promise.name)),
            }
        },
        "alerting": {
            "name": "Slo" + re.sub(r"[^A-Za-z0-9]", "", promise.name.title()),
            "annotations": {OBJECTIVE: as_json(promise.written)},
            "page_alert": {"labels": {"severity": "page"}},
            "ticket_alert": {"labels": {"severity": "ticket"}},
        },
    }


def _objective(slo: SlothSlo, named: str) -> tuple[dict[str, Any] | None, str]:
    sli = slo.sli
    if sli.plugin is not None:
        return None, "its SLI is made by a plugin; name what it measures by hand"
    if sli.events is None and (sli.raw is None or not named):
        return None, f"a ratio calculated elsewhere cannot be counted; name it with --as {slo.name}=INDICATOR"
    if slo.objective >= 100:
        return None, f"an objective of {slo.objective:g} % leaves no error budget"
    queries = f"{sli.events.error_query} {sli.events.total_query}" if sli.events else ""
    own = slo.alerting.annotations.get(OBJECTIVE, "")
    target = round(slo.objective / 100, 9)
    window_s = _window_of(own)
    name = slo.name if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", slo.name) else _slug(slo.name)
    made, why = objective_of(name, target, window_s, queries, own, named, burn_rate=True)
    if made is not None and not own and slo.alerting.page_alert.disable:
        made["action"] = "track"
    return made, why


def _window_of(own: str) -> float:
    """The window that was kept beside the objective, else Sloth's period."""
    kept = kept_objective(own)
    try:
        return parse_duration_s(str(kept["window"])) if kept else PERIOD_S
    except ValueError:
        return PERIOD_S


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:63] or "slo"
