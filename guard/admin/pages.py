"""Two HTML pages without scripts, made here and escaped here: `/status` and the API reference at `/docs`.

No script, no image, no font, no request to anywhere: their one style sheet is inline and named by its hash in the
content security policy. Everything that came from outside goes through `text()`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from html import escape
from typing import Any

from guard.admin.shapes import ExchangeRow, Health, Readiness, ReleaseStatus, SloReport, SloRow, VersionView

REFRESH_S = 5
CELL_CHARS = 300

STYLE = """
:root{color-scheme:light dark;font:15px/1.45 system-ui,sans-serif}
body{max-width:75rem;margin:0 auto;padding:1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #8885;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
code,pre{font-family:ui-monospace,monospace;font-size:.9em}pre{overflow:auto;padding:.6rem;border:1px solid #8885}
.ok{color:#187a2f}.breach,.degraded{color:#b3261e;font-weight:600}.unknown,.off{color:#8a6100}
.wrap{overflow-x:auto}
@media(prefers-color-scheme:dark){.ok{color:#6fd083}.breach,.degraded{color:#ff8a80}.unknown,.off{color:#e3b341}}
"""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self'; style-src 'self' 'sha256-"
    + base64.b64encode(sha256(STYLE.encode()).digest()).decode()
    + "'; require-trusted-types-for 'script'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Scripts and styles come from this listener's own files only, and no script may make HTML out of a string."""

_SHOWN = {"ratio": "{:.4g}", "seconds": "{:.3f} s", "usd": "{:.6f} USD"}


def text(value: object) -> str:
    """Anything as inert text: escaped, control characters made visible, cut at `CELL_CHARS`."""
    words = str(value)
    if len(words) > CELL_CHARS:
        words = words[:CELL_CHARS] + "\u2026"
    # Bidi and control characters could make a cell read as something else.
    return escape("".join(ch if ch.isprintable() else "\ufffd" for ch in words))


def status_page(
    health: Health, ready: Readiness, slo: SloReport, release: ReleaseStatus, exchanges: Sequence[ExchangeRow]
) -> str:
    """The page at `/status`: health, objectives, release, recent exchanges."""
    parts = "".join(
        f"<tr><td>{text(p.name)}</td><td>{_state(p.status)}</td><td>{text(p.detail)}</td></tr>" for p in health.parts
    )
    serving = "ready" if ready.ready else "not ready: " + "; ".join(ready.reasons)
    body = (
        f"<h1>{text(slo.service)} <small>sft-guard {text(health.version)}</small></h1>"
        f"<p>{_state(health.status)}, {text(serving)}, up {text(_duration(health.uptime_s))}</p>"
        + _table(("part", "state", "detail"), parts)
        + "<h2>Objectives</h2>"
        + _table(
            ("objective", "release", "state", "value", "limit", "events", "window", "action", "why"),
            "".join(_slo_row(row) for row in slo.objectives),
        )
        + "<h2>Release</h2>"
        + _release(release)
        + "<h2>Recent exchanges</h2>"
        + _table(
            ("time (UTC)", "exchange", "route", "arm", "outcome", "status", "seconds", "tokens", "USD", "findings"),
            "".join(_exchange_row(row) for row in exchanges),
        )
        + "<h2>More</h2><p>"
        + " \u00b7 ".join(
            f'<a href="{path}">{path}</a>'
            for path in (
                "/metrics", "/healthz", "/readyz", "/docs", "/openapi.json", "/api/v1/slo", "/api/v1/release",
                "/api/v1/exchanges", "/api/v1/incidents", "/api/v1/drift", "/api/v1/baseline", "/api/v1/config",
                "/api/v1/stats",
            )
        )
        + "</p>"
    )  # fmt: skip
    return _page(f"{slo.service} - sft-guard", body, refresh_s=REFRESH_S)


def docs_page(openapi: Mapping[str, Any]) -> str:
    """The page at `/docs`: every route of the OpenAPI document with its parameters and answers."""
    info = openapi.get("info", {})
    sections = [
        f"<h1>{text(info.get('title', ''))} {text(info.get('version', ''))}</h1>"
        f'<p>{text(info.get("description", ""))}</p><p>Machine-readable: <a href="/openapi.json">/openapi.json</a></p>'
    ]
    for path, methods in openapi.get("paths", {}).items():
        for method, operation in methods.items():
            sections.append(f"<h2><code>{text(method.upper())} {text(path)}</code></h2>")
            sections.append(f"<p>{text(operation.get('description') or operation.get('summary', ''))}</p>")
            if operation.get("security"):
                sections.append("<p>Needs <code>Authorization: Bearer TOKEN</code>.</p>")
            sections.append(_parameters(operation))
            answers = "".join(
                f"<tr><td>{text(code)}</td><td>{text(answer.get('description', ''))}</td>"
                f"<td><code>{text(_schema_name(answer))}</code></td></tr>"
                for code, answer in operation.get("responses", {}).items()
            )
            sections.append(_table(("status", "meaning", "shape"), answers))
    sections.append("<h1>Shapes</h1>")
    for name, schema in openapi.get("components", {}).get("schemas", {}).items():
        fields = "".join(
            f"<tr><td><code>{text(field)}</code></td><td>{text(_type(spec))}</td></tr>"
            for field, spec in schema.get("properties", {}).items()
        )
        sections.append(f"<h2><code>{text(name)}</code></h2><p>{text(schema.get('description', ''))}</p>")
        sections.append(_table(("field", "type"), fields))
    return _page("Admin API - sft-guard", "".join(sections))


def _page(title: str, body: str, refresh_s: int | None = None) -> str:
    refresh = f'<meta http-equiv="refresh" content="{refresh_s}">' if refresh_s else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{refresh}'
        f'<meta name="viewport" content="width=device-width"><title>{text(title)}</title>'
        f"<style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def _table(head: Iterable[str], rows: str) -> str:
    if not rows:
        return "<p>nothing yet</p>"
    cells = "".join(f"<th>{text(name)}</th>" for name in head)
    return f'<div class="wrap"><table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>'


def _state(word: str) -> str:
    known = word if word in ("ok", "breach", "degraded", "unknown", "off") else "unknown"
    return f'<span class="{known}">{text(word)}</span>'


def _slo_row(row: SloRow) -> str:
    state = f"{row.state} (firing)" if row.firing else row.state
    shown = _SHOWN.get(row.unit, "{:g}")
    cells = (
        text(row.slo),
        f"{text(row.arm)} <code>{text(row.release)}</code>",
        f'<span class="{row.state if row.state in ("ok", "breach") else "unknown"}">{text(state)}</span>',
        text("unknown" if row.value is None else shown.format(row.value)),
        text("unknown" if row.threshold is None else shown.format(row.threshold)),
        text(f"{row.events_count} of {row.min_events_count}"),
        text(_duration(row.window_s)),
        text(row.action),
        text(f"{row.reason}; beside stable: {row.comparison.reason}" if row.comparison else row.reason),
    )
    return _row(cells, numbers=(3, 4, 5))


def _release(release: ReleaseStatus) -> str:
    rows = [
        ("mode", f"{release.mode}, advance {release.advance or 'manual'}"),
        ("phase", release.phase),
        ("stable", _version(release.stable)),
        ("canary", f"{_version(release.canary)} at {release.canary_ratio:.1%}" if release.canary else "none"),
        ("previous", _version(release.previous) if release.previous else "none"),
    ]
    if release.canary and release.phase in ("rolling_out", "paused"):  # what was rolled back is on no stage
        rows.append(
            (
                "stage",
                f"{release.stage_number} of {release.stage_count}, {_duration(release.stage_held_s)} of "
                f"{_duration(release.stage_hold_s)}, {release.stage_events_count} of "
                f"{release.stage_min_events_count} exchanges",
            )
        )
    rows += [
        (name, value)
        for name, value in (
            ("reason", release.reason),
            ("recommendation", release.recommendation),
            ("conditions", ", ".join(release.conditions)),
            ("incident", release.incident_id),
            ("shedding", "the lowest priority is refused" if release.shedding else ""),
        )
        if value
    ]
    rows += [
        (
            f"labels {row.name}",
            f"hallucination {row.rate_ratio:.1%} ({row.low_ratio:.1%} to {row.high_ratio:.1%}), "
            f"corrected by {row.label_count} labels",
        )
        for row in release.hallucination
        if row.rate_ratio is not None
    ]
    rows.append(("epoch", f"{release.epoch}, cache {release.cache_epoch}"))
    return _table(("", ""), "".join(_row((text(name), text(value))) for name, value in rows))


def _version(version: VersionView) -> str:
    parts = (version.model, version.adapter, version.kb, version.prompt, version.policy)
    made_of = " x ".join(part for part in parts if part)
    return f"{version.name} [{version.release}] {made_of}".rstrip()


def _exchange_row(row: ExchangeRow) -> str:
    counts = (row.input_tokens, row.output_tokens)
    tokens = "/".join("-" if n is None else str(n) for n in counts) if counts != (None, None) else ""
    findings = ", ".join(f"{f.check}: {f.result}" for f in row.findings if f.result in ("fail", "unavailable"))
    when = datetime.fromtimestamp(row.wall_s, UTC).strftime("%H:%M:%S")
    cells = (
        text(when),
        f"<code>{text(row.exchange_id)}</code>",
        text(row.route),
        text(row.arm),
        text(f"{row.outcome} {row.reason}".rstrip()),
        text(row.status),
        text(f"{row.duration_s:.3f}"),
        text(tokens),
        text("" if row.cost_usd is None else f"{row.cost_usd:.6f}"),
        text(findings or ("passed" if row.findings else "")),
    )
    return _row(cells, numbers=(5, 6, 7, 8))


def _row(cells: Iterable[str], numbers: Sequence[int] = ()) -> str:
    """One table row of cells that are HTML already."""
    inner = "".join(
        f'<td class="n">{cell}</td>' if index in numbers else f"<td>{cell}</td>" for index, cell in enumerate(cells)
    )
    return f"<tr>{inner}</tr>"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("m", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _parameters(operation: Mapping[str, Any]) -> str:
    rows = "".join(
        _row((f"<code>{text(p.get('name', ''))}</code>", text(p.get("in", "")), text(_type(p.get("schema", {})))))
        for p in operation.get("parameters", ())
    )
    body = operation.get("requestBody")
    if body:
        rows += _row(("body", "application/json", f"<code>{text(_schema_name(body))}</code>"))
    return _table(("parameter", "in", "type"), rows) if rows else ""


def _schema_name(holder: Mapping[str, Any]) -> str:
    content = holder.get("content", {})
    for kind, media in content.items():
        shape = _type(media.get("schema", {}))
        return shape if kind == "application/json" else f"{kind}"
    return ""


def _type(spec: Mapping[str, Any]) -> str:
    if "$ref" in spec:
        return str(spec["$ref"]).rpartition("/")[2]
    if "anyOf" in spec:
        return " or ".join(_type(option) for option in spec["anyOf"])
    if "enum" in spec:
        return " | ".join(str(word) for word in spec["enum"])
    if spec.get("type") == "array":
        return f"list of {_type(spec.get('items', {}))}"
    return str(spec.get("type", "any"))
