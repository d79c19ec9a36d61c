"""run_card.json and RUN.md: who trained what, when, on which data, how, where, and what came of it. Pure.

`sft-guard lora diagnose` reads the settings of the JSON; the registry takes it as lineage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

JSON, MARKDOWN = "run_card.json", "RUN.md"
RUNNING, STOPPED = "running", "stopped"


def settings_of(plan: Mapping[str, Any], row_count: int) -> dict[str, Any]:
    """The plan with the number of rows: what a diagnosis asks for."""
    return {**plan, "row_count": row_count}


def run_card(
    *,
    who: str,
    began_wall_s: float,
    base: Mapping[str, Any],
    data: Mapping[str, Any],
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    notes: Sequence[str] = (),
    status: str = RUNNING,
    ended_wall_s: float | None = None,
    result: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The card as plain values. status: running, else how it ended. files: name of each adapter file to its SHA-256."""
    return {
        "version": 1, "status": status, "trained_by": who, "began_wall_s": began_wall_s, "ended_wall_s": ended_wall_s,
        "base": dict(base), "data": dict(data), "settings": dict(settings), "environment": dict(environment),
        "notes": list(notes), "result": dict(result or {}), "adapter": dict(files or {}),
    }  # fmt: skip


def as_markdown(card: Mapping[str, Any]) -> str:
    """The card for people."""
    result, settings, data, base = card["result"], card["settings"], card["data"], card["base"]
    lines = [
        "# Training run", "",
        f"{_day(card['began_wall_s'])}, by {card['trained_by']}: **{card['status']}**", "",
        "| | |", "|---|---|",
        f"| base | {_cell(base.get('name', ''))} |",
        f"| data | {data.get('rows', {}).get('train', 0)} rows, SHA-256 `{str(data.get('sha256', ''))[:16]}` |",
    ]  # fmt: skip
    if result:
        lines += [
            f"| steps | {result['steps']} ({result['epochs']:.1f} epochs) |",
            f"| train loss (last epoch) | {_number(result['train_loss'])} |",
            f"| eval loss (last, best) | {_number(result['eval_loss'])}, {_number(result['best_eval_loss'])}"
            f" at step {result['best_step']} |",
            f"| time | {result['train_s']:.1f} s training of {result['wall_s']:.1f} s,"
            f" {result['tokens_per_s']:.0f} tokens/s |",
            f"| memory | {result['peak_bytes'] / 2**30:.2f} GiB at most |",
            f"| trained parameters | {result.get('trained_parameters', 0):,} of {result.get('parameters', 0):,} |",
        ]
    lines += ["", "## Settings", "", "| setting | value |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in settings.items()]
    lines += ["", "## Environment", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in card["environment"].items()]
    if card["notes"]:
        lines += ["", "## Notes", "", *(f"- {note}" for note in card["notes"])]
    if card["adapter"]:
        lines += ["", "## Adapter", "", *(f"- `{name}` {digest}" for name, digest in card["adapter"].items())]
    return "\n".join(lines) + "\n"


def _day(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _cell(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
