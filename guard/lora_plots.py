"""Three pictures of a training run: losses, learning rate, gradient norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from guard.plotting import GOOD, LIMIT, MUTED, WARN, figure_of, save
from lora.diagnose import GRAD_EXPLODING, GRAD_STUCK
from lora.runlog import Run, Step


def plot_run(run: Run, directory: Path) -> list[Path]:
    """Write loss.png, learning_rate.png and gradient_norm.png; a picture without a point is left out.

    Raises:
        RefusedError: matplotlib is not installed. DataError: a file cannot be written.
    """
    made = []
    for name, unit, limits in (
        ("loss", "nats per answer token", ()),
        ("learning_rate", "learning rate", ()),
        ("gradient_norm", "gradient norm", ((GRAD_EXPLODING, "exploding"), (GRAD_STUCK, "stuck"))),
    ):
        lines = _lines(run.steps)[name]
        if not any(points for _, _, points in lines):
            continue
        figure = figure_of(9.0, 4.5)
        axes = figure.subplots()
        for label, colour, points in lines:
            mark = "o" if len(points) <= 40 else None
            axes.plot([x for x, _ in points], [y for _, y in points], marker=mark, color=colour,
                      label=label, linewidth=1.4, markersize=3)  # fmt: skip
        if limits and any(y > 0 for _, _, points in lines for _, y in points):
            axes.set_yscale("log")
        for value, what in limits:
            axes.axhline(value, color=LIMIT, linestyle=":", linewidth=1)
            axes.annotate(what, (0, value), xytext=(4, 2), textcoords="offset points", fontsize=8, color=LIMIT)
        axes.set_xlabel("step")
        axes.set_ylabel(unit)
        axes.grid(color=MUTED, alpha=0.2)
        if len(lines) > 1:
            axes.legend(frameon=False)
        save(figure, directory / f"{name}.png")
        made.append(directory / f"{name}.png")
    return made


def _lines(steps: Sequence[Step]) -> dict[str, list[tuple[str, str, list[tuple[int, float]]]]]:
    def points(name: str) -> list[tuple[int, float]]:
        found = [(step.step, getattr(step, name)) for step in steps]
        return [(x, y) for x, y in found if y is not None and math.isfinite(y)]

    return {
        "loss": [("train", GOOD, points("train_loss")), ("eval", WARN, points("eval_loss"))],
        "learning_rate": [("learning rate", GOOD, points("learning_rate"))],
        "gradient_norm": [("gradient norm", GOOD, points("grad_norm"))],
    }
