"""What the Prometheus operator accepts of the two kinds that `deploy/kubernetes` uses, as a JSON schema of our own.

The facts are those of `monitoring.coreos.com/v1` in the operator's API reference (ServiceMonitor and PrometheusRule,
release 0.84): names, types, patterns and required fields, for what plain scraping and plain rules need. A field that is
not here is refused: look it up, then add it. The API server drops a field that it does not know, with a warning at
most; that is why a test has to see it.
"""

from __future__ import annotations

from typing import Any

_TEXT: dict[str, Any] = {"type": "string"}
_YES: dict[str, Any] = {"type": "boolean"}
_COUNT: dict[str, Any] = {"type": "integer"}
_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT}
_LABELS: dict[str, Any] = {"type": "object", "additionalProperties": _TEXT}
_DURATION: dict[str, Any] = {
    "type": "string",
    "pattern": "^(0|([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$",
    "minLength": 1,
}
_ACTIONS = [
    "replace", "keep", "drop", "hashmod", "labelmap", "labeldrop", "labelkeep", "lowercase", "uppercase", "keepequal",
    "dropequal",
]  # fmt: skip


def _closed(required: tuple[str, ...] = (), /, **properties: dict[str, Any]) -> dict[str, Any]:
    """An object with these fields and no other."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _object(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return _closed(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "monitoring.coreos.com/v1"},
        kind={"const": kind},
        metadata=_closed(("name",), name=_TEXT, namespace=_TEXT, labels=_LABELS, annotations=_LABELS),
        spec=spec,
    )


_SELECTOR = _closed(
    matchLabels=_LABELS,
    matchExpressions={
        "type": "array",
        "items": _closed(
            ("key", "operator"),
            key=_TEXT,
            operator={"enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
            values=_TEXTS,
        ),
    },
)
_RELABEL = _closed(
    action={"enum": _ACTIONS},
    modulus=_COUNT, regex=_TEXT, replacement=_TEXT, separator=_TEXT, sourceLabels=_TEXTS, targetLabel=_TEXT,
)  # fmt: skip
_RELABELS = {"type": "array", "items": _RELABEL}
_ENDPOINT = _closed(
    port=_TEXT, targetPort={"type": ["integer", "string"]}, path=_TEXT, scheme={"enum": ["http", "https"]},
    interval=_DURATION, scrapeTimeout=_DURATION, honorLabels=_YES, honorTimestamps=_YES, followRedirects=_YES,
    filterRunning=_YES, params={"type": "object", "additionalProperties": _TEXTS}, relabelings=_RELABELS,
    metricRelabelings=_RELABELS,
)  # fmt: skip
_RULE = {
    **_closed(
        ("expr",), record=_TEXT, alert=_TEXT, expr={"type": ["integer", "string"]}, labels=_LABELS,
        annotations=_LABELS, keep_firing_for=_DURATION, **{"for": _DURATION},
    ),
    "oneOf": [{"required": ["record"]}, {"required": ["alert"]}],
}  # fmt: skip

SCHEMAS = {
    "ServiceMonitor": _object(
        "ServiceMonitor",
        _closed(
            ("endpoints", "selector"),
            endpoints={"type": "array", "items": _ENDPOINT, "minItems": 1},
            selector=_SELECTOR, namespaceSelector=_closed(any=_YES, matchNames=_TEXTS), jobLabel=_TEXT,
            targetLabels=_TEXTS, podTargetLabels=_TEXTS, sampleLimit=_COUNT, targetLimit=_COUNT,
        ),
    ),
    "PrometheusRule": _object(
        "PrometheusRule",
        _closed(
            ("groups",),
            groups={
                "type": "array",
                "minItems": 1,
                "items": _closed(
                    ("name",), name={"type": "string", "minLength": 1}, interval=_DURATION, limit=_COUNT,
                    query_offset=_DURATION, labels=_LABELS, rules={"type": "array", "items": _RULE},
                ),
            },
        ),
    ),
}  # fmt: skip
