"""A post-mortem with pictures: each rule that spoke over time, the bad release beside the stable one."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from guard.commands.common import progress
from slo.metric_names import INDICATORS

_COLOURS = {"bad": "tab:red", "stable": "tab:blue"}


def write_postmortem(markdown: str, incident: dict[str, Any], out: Path) -> list[Path]:
    """Write postmortem.md and its pictures; without matplotlib only the text, and a line that says so.

    Raises:
        OSError: the directory cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    pictures = _pictures(incident, out)
    links = [f"![{rule} over time]({path.name})" for rule, path in pictures]
    section = "\n".join(["## Course", "", *(links or ["No course was kept."]), ""])
    text = markdown.replace("## Causes", f"{section}\n## Causes", 1)
    report = out / "postmortem.md"
    report.write_text(text, encoding="utf-8")
    return [report, *(path for _, path in pictures)]


def _pictures(incident: dict[str, Any], out: Path) -> list[tuple[str, Path]]:
    after = incident.get("aftermath") or {}
    rules: dict[str, list[dict[str, Any]]] = {}
    for series in after.get("series", ()):
        if series["points"]:
            rules.setdefault(series["rule"], []).append(series)
    if not rules:
        return []
    try:
        import matplotlib.figure  # noqa: F401 - asked for before anything is drawn
    except ImportError:
        progress("sft-guard: no pictures: install the extra: pip install 'sft-guard[analysis]'")
        return []
    found = []
    for number, (rule, several) in enumerate(rules.items()):
        name = re.sub(r"[^A-Za-z0-9_-]", "-", rule) or f"rule-{number}"
        path = out / f"{name}.png"
        _draw(rule, several, incident, after.get("since_s"), path)
        found.append((rule, path))
    return found


def _draw(
    rule: str, several: list[dict[str, Any]], incident: dict[str, Any], since_s: float | None, path: Path
) -> None:
    from matplotlib.figure import Figure

    indicator = INDICATORS.get(several[0]["indicator"])
    is_mean = indicator is not None and indicator.kind == "mean"
    scale = indicator.scale if is_mean and indicator is not None else 100.0
    verdict_s = incident["opened_wall_s"]
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for series in several:
        points, colour = series["points"], _COLOURS.get(series["arm"])
        minutes = [(p["wall_s"] - verdict_s) / 60 for p in points]
        values = [(p["bad_count"] / p["count"] if p["mean"] is None else p["mean"]) * scale for p in points]
        version = incident["bad"] if series["arm"] == "bad" else incident["target"]
        label = f"{version['name']} ({'taken out' if series['arm'] == 'bad' else 'stable'})"
        axes.plot(minutes, values, color=colour, linewidth=1, alpha=0.7)
        axes.scatter(minutes, values, s=[max(8.0, min(60.0, p["count"])) for p in points], color=colour, label=label)
    allowed = next((s["allowed"] for s in several if s["allowed"] is not None), None)
    if allowed is not None:
        axes.axhline(allowed * scale, color="black", linestyle="--", linewidth=1, label="limit")
    axes.axvline(0.0, color="tab:purple", label="verdict")
    if since_s is not None:
        axes.axvline((since_s - verdict_s) / 60, color="tab:orange", linestyle=":", label="bad since")
    verdict = datetime.fromtimestamp(verdict_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    axes.set(
        title=f"{rule}: {several[0]['indicator']}",
        xlabel=f"minutes from the verdict at {verdict}; larger points rest on more events",
        ylabel="value" if is_mean else "bad events (%)",
    )
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.legend(fontsize=8, loc="upper left")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
