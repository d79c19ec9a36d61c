"""Pictures of an evaluation: the sides beside each other, and which rules were mixed up."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from guard.plotting import GOOD, LIMIT, MUTED, WARN, figure_of, save
from lora.evaluate import REFUSAL
from lora.evaluation import ADAPTER, SIDES, Evaluation
from lora.figures import figures

RULES_SHOWN = 14
_BARS = (("similarity", "average similarity"), ("accuracy", ">= 90 %"), ("high_quality", ">= 85 %"), ("poor", "< 50 %"))


def plot_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write a PNG.

    Raises:
        RefusedError: matplotlib is not installed (`missing_extra`). DataError: the place cannot be written.
    """
    picture = figure_of(12, 5)
    left, right = picture.subplots(1, 2)
    names = [name for name in SIDES if name in evaluation.sides]
    width = 0.8 / len(names)
    colours = dict(zip(SIDES, (MUTED, WARN, GOOD, "#0f766e"), strict=True))
    for place, name in enumerate(names):
        found = figures(evaluation.sides[name])
        values = [found.similarity or 0.0, *(getattr(found, key).ratio or 0.0 for key, _ in _BARS[1:])]
        xs = [x + (place - (len(names) - 1) / 2) * width for x in range(len(values))]
        left.bar(xs, values, width, label=name, color=colours[name])
    least = evaluation.decision.minimum
    left.axhline(
        least, color=LIMIT, linestyle="--", linewidth=1, label=f"least average for {evaluation.decision.scenario}"
    )
    left.set(xticks=range(len(_BARS)), xticklabels=[label for _, label in _BARS], ylim=(0, 1.02),
             title=f"{figures(evaluation.sides[ADAPTER]).count} questions: "
                   f"{'passed' if evaluation.decision.passed else 'NOT passed'} ({evaluation.decided_on})")  # fmt: skip
    left.legend(fontsize=8)
    _confusions(right, evaluation)
    save(picture, path)


def _confusions(draw: Any, evaluation: Evaluation) -> None:
    """Wanted against given, of the rules that were mixed up most; the count in each square."""
    pairs = Counter((g.row.rule or REFUSAL, g.given or "(nothing)") for g in evaluation.sides[ADAPTER])
    wrong = Counter[str]()
    for (wanted, given), count in pairs.items():
        if wanted != given:
            wrong.update({wanted: count, given: count})
    shown = [name for name, _ in wrong.most_common(RULES_SHOWN)]
    draw.set_title("wanted (down) against given: most mixed up" if shown else "nothing was mixed up")
    if not shown:
        draw.set_axis_off()
        return
    grid = [[pairs[wanted, given] for given in shown] for wanted in shown]
    draw.imshow(grid, cmap="Blues")
    for y, row in enumerate(grid):
        for x, count in enumerate(row):
            if count:
                draw.text(x, y, str(count), ha="center", va="center", fontsize=7, color=MUTED if x == y else LIMIT)
    draw.set(xticks=range(len(shown)), yticks=range(len(shown)))
    draw.set_xticklabels(shown, rotation=90, fontsize=7)
    draw.set_yticklabels(shown, fontsize=7)
