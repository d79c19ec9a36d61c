"""OpenSLO v1: SLO, SLI and Service documents.

Source: https://github.com/OpenSLO/OpenSLO (specification, apiVersion openslo/v1)
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from slo.errors import ConfigError
from slo.interop.promises import (
    Exported,
    Imported,
    Promise,
    all_events,
    as_json,
    bad_events,
    objective_of,
    promises_of,
    slo_yaml,
    span_text,
)
from slo.metric_names import INDICATORS
from slo.strict_yaml import parse_documents, validate_model
from slo.windows import MAX_LENGTH_S

API = "openslo/v1"
OBJECTIVE = "sft-guard/objective"
"""Annotation with the objective as slo.yaml has it."""

_UNIT_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
_DURATION = re.compile(r"([1-9]\d*)([mhdwMQY])")


class _Open(BaseModel):
    """The standard lets implementations add keys; what we do not know is not ours to refuse."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Metadata(_Open):
    """Of any document."""

    name: str = Field(min_length=1, max_length=253)
    displayName: str = ""
    annotations: dict[str, str] = Field(default_factory=dict)


class MetricSource(_Open):
    """Where a metric comes from; `spec` may be anything."""

    type: str = ""
    metricSourceRef: str = ""
    spec: dict[str, Any] = Field(default_factory=dict)


class Metric(_Open):
    """One query."""

    metricSource: MetricSource


class RatioMetric(_Open):
    """good or bad of total, or a ratio that was calculated elsewhere."""

    counter: bool = False
    good: Metric | None = None
    bad: Metric | None = None
    total: Metric | None = None
    raw: Metric | None = None
    rawType: Literal["success", "failure"] | None = None


class IndicatorSpec(_Open):
    """How to read the metrics."""

    ratioMetric: RatioMetric | None = None
    thresholdMetric: Metric | None = None


class Indicator(_Open):
    """An SLI written in an SLO."""

    metadata: Metadata | None = None
    spec: IndicatorSpec


class TimeWindow(_Open):
    """Rolling, or aligned to the calendar."""

    duration: str
    isRolling: bool = False
    calendar: dict[str, Any] | None = None


class Objective(_Open):
    """One target; `op` and `value` belong to threshold metrics."""

    displayName: str = ""
    op: Literal["lte", "gte", "lt", "gt"] | None = None
    value: float | None = None
    target: Annotated[float, Field(ge=0, lt=1)] | None = None
    targetPercent: Annotated[float, Field(ge=0, lt=100)] | None = None


class SloSpec(_Open):
    """What is promised."""

    description: str = ""
    service: str = ""
    indicator: Indicator | None = None
    indicatorRef: str = ""
    timeWindow: list[TimeWindow] = Field(default_factory=list)
    budgetingMethod: Literal["Occurrences", "Timeslices", "RatioTimeslices"] = "Occurrences"
    objectives: list[Objective] = Field(min_length=1)
    alertPolicies: list[Any] = Field(default_factory=list)


class SloDocument(_Open):
    """kind: SLO"""

    apiVersion: str
    kind: Literal["SLO"]
    metadata: Metadata
    spec: SloSpec


class SliDocument(_Open):
    """kind: SLI"""

    apiVersion: str
    kind: Literal["SLI"]
    metadata: Metadata
    spec: IndicatorSpec


def export(text: str, place: str) -> Exported:
    """Return the objectives of an slo.yaml as OpenSLO documents.

    Raises:
        ConfigError: not an slo.yaml.
    """
    service, promises, left_out = promises_of(text, place)
    documents: list[dict[str, Any]] = [_head("Service", service) | {"spec": {"description": "guarded by sft-guard"}}]
    missing, aside = list(left_out), []
    for promise in promises:
        if promise.window_s % 60:
            missing.append(f"{promise.name}: a window of {span_text(promise.window_s)} is not whole minutes")
            continue
        documents.append(_document(service, promise))
        if promise.aside:
            aside.append(f"{promise.name}: {', '.join(promise.aside)} kept as an annotation; others do not act on it")
    body = yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=1000)
    return Exported(body, len(documents) - 1, tuple(missing), tuple(aside))


def read(text: str, place: str, named: dict[str, str]) -> Imported:
    """Return an slo.yaml made of OpenSLO documents. named: name of an SLO -> indicator it measures.

    Raises:
        ConfigError: not OpenSLO v1; the place says which document.
    """
    slos, slis, left_out = _documents(text, place)
    objectives: list[Any] = []
    services: list[str] = []
    for document in slos:
        spec, name = document.spec, document.metadata.displayName or document.metadata.name
        name = name if _is_name(name) else _slug(document.metadata.name)
        services.append(spec.service)
        if spec.alertPolicies:
            left_out.append(f"{name}: its alert policies; `sft-guard alerts build` writes rules of its own")
        window_s, why = _window(spec)
        indicator = spec.indicator.spec if spec.indicator else slis.get(spec.indicatorRef)
        if not why and indicator is None:
            why = f"the SLI `{spec.indicatorRef}` is not in this file"
        if why or indicator is None:
            left_out.append(f"{name}: {why}")
            continue
        for number, objective in enumerate(spec.objectives, 1):
            own_name = name if number == 1 else f"{name}-{number}"
            made, why = _objective(own_name, objective, indicator, window_s, document, named.get(own_name, ""))
            if made is None:
                left_out.append(f"{own_name}: {why}")
            else:
                objectives.append(made)
                left_out += [f"{own_name}: {why}"] if why else []
    if not objectives:
        return Imported("", 0, tuple(left_out))
    service = next((s for s in services if s), "service")
    others = sorted({s for s in services if s and s != service})
    left_out += [f"service {other}: its SLOs are taken over under {service}; split the file" for other in others]
    return Imported(slo_yaml(_slug(service), objectives, place), len(objectives), tuple(left_out))


def _document(service: str, promise: Promise) -> dict[str, Any]:
    def metric(selector: str) -> dict[str, Any]:
        return {"metricSource": {"type": "Prometheus", "spec": {"query": f"sum({selector})"}}}

    head = _head("SLO", _slug(promise.name).replace("_", "-"))
    head["metadata"] |= {"displayName": promise.name, "annotations": {OBJECTIVE: as_json(promise.written)}}
    return head | {
        "spec": {
            "description": promise.help[:1050],
            "service": service,
            "indicator": {
                "metadata": {"name": _slug(f"{promise.name}-sli").replace("_", "-")},
                "spec": {
                    "ratioMetric": {
                        "counter": True,
                        "bad": metric(bad_events(service, promise.name)),
                        "total": metric(all_events(service, promise.name)),
                    }
                },
            },
            "timeWindow": [{"duration": span_text(promise.window_s), "isRolling": True}],
            "budgetingMethod": "Occurrences",
            "objectives": [{"displayName": promise.name, "target": promise.target_ratio}],
        }
    }


def _objective(
    name: str, objective: Objective, indicator: IndicatorSpec, window_s: float, document: SloDocument, named: str
) -> tuple[dict[str, Any] | None, str]:
    own = document.metadata.annotations.get(OBJECTIVE, "")
    if objective.target is not None:
        target = objective.target
    elif objective.targetPercent is not None:
        # 99.9 / 100 is 0.9990000000000001 in floats; rounding keeps that noise out of limits.
        target = round(objective.targetPercent / 100, 9)
    else:
        return None, "an objective without target and targetPercent"
    ratio = indicator.ratioMetric
    if ratio is None:
        return _of_threshold(name, objective, indicator, window_s)
    if ratio.raw is not None and not named:
        return None, f"a ratio calculated elsewhere cannot be counted; name it with --as {name}=INDICATOR"
    sources = (ratio.good, ratio.bad, ratio.total, ratio.raw)
    queries = " ".join(str(v) for m in sources if m for v in m.metricSource.spec.values())
    if not 0.0 < target < 1.0:
        return None, f"a target of {target:g} leaves no error budget, or none to keep"
    return objective_of(name, target, window_s, queries, own, named)


def _of_threshold(
    name: str, objective: Objective, indicator: IndicatorSpec, window_s: float
) -> tuple[dict[str, Any] | None, str]:
    """A metric compared with a value: taken over when it is one of our gauges; the share of time it holds is not."""
    source = indicator.thresholdMetric.metricSource.spec if indicator.thresholdMetric else {}
    queries = " ".join(str(value) for value in source.values())
    found = next((i for i in INDICATORS.values() if i.exact and re.search(rf"\b{i.name}\b", queries)), None)
    if found is None or objective.value is None or objective.op is None:
        return None, "a threshold metric that is none of the guard's gauges, or lacks op and value"
    if (objective.op in ("gte", "gt")) is not (found.worse == "down"):
        return None, f"`{objective.op}` is the wrong way round for {found.name}"
    made = {
        "name": name, "indicator": found.name, "window": span_text(window_s),
        "threshold": {"absolute": objective.value}, "action": "page",
    }  # fmt: skip
    return made, f"its target {objective.target or objective.targetPercent} is left out; the rule holds all the time"


def _window(spec: SloSpec) -> tuple[float, str]:
    """Length in seconds, or why there is none."""
    if spec.budgetingMethod != "Occurrences":
        return 0.0, f"budgetingMethod {spec.budgetingMethod} counts slices of time, the guard counts events"
    if len(spec.timeWindow) != 1:
        return 0.0, f"{len(spec.timeWindow)} time windows; exactly one is needed"
    window = spec.timeWindow[0]
    if window.calendar is not None or not window.isRolling:
        return 0.0, "a window aligned to the calendar; the guard's windows roll"
    match = _DURATION.fullmatch(window.duration)
    if match is None or match[2] not in _UNIT_S:
        return 0.0, f"a window of {window.duration}; write minutes, hours, days or weeks"
    length_s = int(match[1]) * _UNIT_S[match[2]]
    return (length_s, "") if length_s <= MAX_LENGTH_S else (0.0, f"a window of {window.duration}; at most 30d are kept")


def _documents(text: str, place: str) -> tuple[list[SloDocument], dict[str, IndicatorSpec], list[str]]:
    raw = [document for document in parse_documents(text, place) if document is not None]
    slos: list[SloDocument] = []
    slis: dict[str, IndicatorSpec] = {}
    others: list[str] = []
    for number, document in enumerate(raw, 1):
        at = f"{place}: document {number}"
        if not isinstance(document, dict) or document.get("apiVersion") != API:
            found = document.get("apiVersion") if isinstance(document, dict) else type(document).__name__
            raise ConfigError(f"{at}: apiVersion", found, f"write {API}")
        kind = document.get("kind")
        if kind == "SLO":
            slos.append(validate_model(SloDocument, document, at))
        elif kind == "SLI":
            sli = validate_model(SliDocument, document, at)
            slis[sli.metadata.name] = sli.spec
        elif kind != "Service":
            name = (document.get("metadata") or {}).get("name", "?")
            others.append(f"{kind} {name}: the guard has no such thing")
    if not slos:
        raise ConfigError(place, "no document of kind SLO", "give a file with at least one")
    return slos, slis, others


def _head(kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}}


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", text) is not None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:63] or "slo"
