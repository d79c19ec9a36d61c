"""An objective as a promise: so many good events of all, over a window. Pure, apart from reading the preset.

Ratios and latencies are such promises (a p95 under 1.8 s is "95 % of requests within 1.8 s"). Means are not: there is
no share of good events in a mean cost. A threshold that a baseline gives is none as long as nobody knows the number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slo.errors import ConfigError
from slo.evaluation import allowed_share
from slo.indicators import AVAILABILITY, CACHE_HITS, HALLUCINATION, LATENCY_P95, LATENCY_P99, THUMBS_UP, ZERO_HIT
from slo.metric_names import INDICATORS
from slo.series import BAD, EVENTS
from slo.spec import parse_slo, preset_text
from slo.strict_yaml import parse_yaml
from slo.thresholds import limit_for
from slo.types import Slo
from slo.wording import show_duration, show_value

DEFAULT_ACTION = "page"
_OWN_WORDS = ("for", "keep_firing_for", "min_events", "action", "fast", "burn_rate", "routes", "canary")
_WHOLE_FILE = ("canary", "outside_alerts")
_METRICS = (
    (r"sft_availability_requests_total", AVAILABILITY),
    (r'sft_quality_checks_total\{[^}]*check="grounding"', HALLUCINATION),
    (r"sft_quality_retrievals_total", ZERO_HIT),
    (r"sft_quality_feedback_total", THUMBS_UP),
    (r"sft_cache_lookups_total", CACHE_HITS),
)
_BUCKET = re.compile(r'sft_perf_request_duration_seconds_bucket\{[^}]*le="([0-9.]+)"')
_QUANTILES = {0.95: LATENCY_P95, 0.99: LATENCY_P99}


@dataclass(frozen=True, slots=True)
class Promise:
    """One objective. written: as in slo.yaml. target_ratio: share of good events, (0, 1)."""

    name: str
    written: Mapping[str, Any]
    indicator: str
    target_ratio: float
    window_s: float
    help: str
    aside: tuple[str, ...] = ()  # what other tools do not act on, in words


@dataclass(frozen=True, slots=True)
class Exported:
    """A file of another format. left_out: what it does not say at all, one line each. aside: what is only kept."""

    text: str
    count: int
    left_out: tuple[str, ...]
    aside: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """The text of an slo.yaml, checked; "" when nothing could be taken over."""

    text: str
    count: int
    left_out: tuple[str, ...]


def promises_of(text: str, place: str) -> tuple[str, tuple[Promise, ...], tuple[str, ...]]:
    """Return the service, its promises, and a line for every objective that is none.

    Raises:
        ConfigError: not an slo.yaml.
    """
    file = parse_slo(text, place)
    written = _written(text, place)
    promises: list[Promise] = []
    left_out = []
    for slo in file.objectives:
        why = _why_no_promise(slo)
        if why:
            left_out.append(f"{slo.name}: {why}")
        else:
            promises.append(_promise(slo, written[slo.name]))
    document = parse_yaml(text, place)
    whole = [word for word in _WHOLE_FILE if word in document]
    left_out += [f"{word}: of the whole file; write it again after an import" for word in whole]
    return file.service, tuple(promises), tuple(left_out)


def bad_events(service: str, name: str) -> str:
    """Selector of the counter of bad events of an objective, summed by whoever asks."""
    return f'{BAD}{{service="{service}",slo="{name}"}}'


def all_events(service: str, name: str) -> str:
    """Selector of the counter of all events of an objective."""
    return f'{EVENTS}{{service="{service}",slo="{name}"}}'


def slo_yaml(service: str, objectives: list[Mapping[str, Any]], came_from: str) -> str:
    """Return the text of an slo.yaml, checked.

    Raises:
        ConfigError: it would not be one; the place says which objective.
    """
    lines = [f"# From {came_from}. `sft-guard slo explain` says in words what each rule means.", f"service: {service}"]
    lines += ["objectives:", *(f"  - {json.dumps(objective, ensure_ascii=False)}" for objective in objectives), ""]
    text = "\n".join(lines)
    parse_slo(text, came_from)
    return text


def objective_of(
    name: str, target_ratio: float, window_s: float, queries: str, own: str, indicator: str, *, burn_rate: bool = False
) -> tuple[dict[str, Any] | None, str]:
    """Return an objective of slo.yaml for a promise made elsewhere, or None and why there is none.

    queries: all PromQL of its indicator. own: the objective as it was once exported, JSON; what the promise says goes
    before it. indicator: named by a person, else found in the queries.
    """
    kept = kept_objective(own)
    if kept is not None and not indicator:
        return _with_changes(kept, name, target_ratio, window_s), ""
    objective: dict[str, Any] = {"name": name, "indicator": indicator, "window": span_text(window_s)}
    bucket = _BUCKET.search(queries)
    if not indicator and bucket:
        found = _QUANTILES.get(round(target_ratio, 9))
        if found is None:
            return None, f"{target_ratio:.9g} of requests within {bucket[1]} s: the guard judges p95 and p99 only"
        limit_ms = round(float(bucket[1]) * INDICATORS[found].scale, 6)
        return {**objective, "indicator": found, "threshold": {"absolute": limit_ms}, "action": DEFAULT_ACTION}, ""
    if not indicator:
        indicator = next((known for pattern, known in _METRICS if re.search(pattern, queries)), "")
    if not indicator:
        shown = " ".join(queries.split())[:80]
        return None, f"`{shown}` measures nothing that the guard knows; name it with --as {name}=INDICATOR"
    meant = INDICATORS.get(indicator)
    if meant is None or meant.kind != "ratio":
        return None, f"{indicator} is no share of good events; name one of kind ratio"
    share = round(target_ratio if meant.worse == "down" else 1.0 - target_ratio, 9)
    objective |= {"indicator": indicator, "threshold": {"absolute": share}, "action": DEFAULT_ACTION}
    return objective | ({"burn_rate": True} if burn_rate else {}), ""


def span_text(seconds: float) -> str:
    """Return a span as slo.yaml, OpenSLO and people write it.

    >>> span_text(3600.0), span_text(30 * 86400.0), span_text(900.0), span_text(90.0)
    ('1h', '30d', '15m', '90s')
    """
    for unit, size_s in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds % size_s == 0:
            return f"{int(seconds // size_s)}{unit}"
    return f"{seconds:g}s"


def as_json(written: Mapping[str, Any]) -> str:
    """The objective as an annotation carries it."""
    return json.dumps(written, ensure_ascii=False, sort_keys=True)


def _promise(slo: Slo, written: Mapping[str, Any]) -> Promise:
    indicator, limit = INDICATORS[slo.indicator], limit_for(slo).value
    assert limit is not None
    aside = [word for word in _OWN_WORDS if word in written]
    if slo.threshold.form not in ("absolute", "tier"):
        aside.append(f"the threshold's form ({slo.threshold.form}; {show_value(indicator, limit)} now)")
    return Promise(
        slo.name,
        written,
        slo.indicator,
        target_ratio=round(1.0 - allowed_share(indicator, limit), 9),
        window_s=slo.window.length_s,
        help=f"{indicator.help}; limit {show_value(indicator, limit)} over {show_duration(slo.window.length_s)}",
        aside=tuple(aside),
    )


def _why_no_promise(slo: Slo) -> str:
    indicator = INDICATORS[slo.indicator]
    if indicator.kind == "mean":
        return "a mean has no share of good events"
    limit = limit_for(slo).value
    if limit is None:
        return f"its limit comes from a baseline ({slo.threshold.form}), so there is no number to write"
    if not 0.0 < 1.0 - allowed_share(indicator, limit) < 1.0:
        return f"{show_value(indicator, limit)} leaves no error budget"
    return ""


def kept_objective(own: str) -> dict[str, Any] | None:
    """The objective in an annotation; one that is not ours is no objective."""
    try:
        found = json.loads(own) if own else None
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"name", "indicator", "threshold", "window"} <= found.keys() else None


def _with_changes(kept: dict[str, Any], name: str, target_ratio: float, window_s: float) -> dict[str, Any]:
    """The objective as it was exported, with what was changed since in the words that both formats have."""
    try:
        file = parse_slo(slo_yaml("service", [kept], "an annotation"), "an annotation")
    except ConfigError:
        return {**kept, "name": name}  # told when the whole file is checked, with its place
    slo = file.objectives[0]
    changed = {**kept, "name": name}
    if slo.window.length_s != window_s:
        changed["window"] = span_text(window_s)
    indicator, limit = INDICATORS[slo.indicator], limit_for(slo).value
    same = limit is not None and abs(1.0 - allowed_share(indicator, limit) - target_ratio) < 1e-9
    if not same and indicator.kind == "ratio":
        changed["threshold"] = {"absolute": round(target_ratio if indicator.worse == "down" else 1 - target_ratio, 9)}
    return changed


def _written(text: str, place: str) -> dict[str, Mapping[str, Any]]:
    """Every objective as somebody wrote it, those of the preset included."""
    document = parse_yaml(text, place)
    found: dict[str, Mapping[str, Any]] = {}
    if document.get("preset"):
        preset = parse_yaml(preset_text(str(document["preset"])), "preset")
        found = {str(o["name"]): o for o in preset["objectives"]}
    return found | {str(o["name"]): o for o in document.get("objectives") or ()}
