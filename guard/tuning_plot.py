"""False alarms against detection delay, one dot per candidate, as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from guard.plotting import GOOD, LIMIT, MUTED, WARN, figure_of, save
from slo.tuning import Tried, choose, frontier
from slo.wording import show_duration


def plot_tuning(title: str, tried: Sequence[Tried], wanted: float, step_ratio: float, path: Path) -> None:
    """Write the picture.

    Raises:
        RefusedError: matplotlib is not installed. DataError: the file cannot be written.
    """
    figure = figure_of(10.0, 6.2)
    axes = figure.subplots()
    able = [t for t in tried if t.median_delay_s is not None]
    best, chosen = frontier(tried), choose(tried, wanted)
    present = next((t for t in able if t.candidate.present), None)
    axes.plot([_x(t) for t in able], [_y(t) for t in able], "o", color=MUTED, alpha=0.45, ms=5, label="candidates")
    axes.plot([_x(t) for t in best], [_y(t) for t in best], "o-", color=GOOD, ms=6, lw=1.4,
              label="frontier: nothing is better in both")  # fmt: skip
    if present is not None:
        axes.plot([_x(present)], [_y(present)], "s", color=LIMIT, ms=10, mfc="none", mew=2, label="the rule as it is")
    if chosen is not None:
        rate = chosen.false_per_month
        reach = [[max(0.0, rate.estimate - rate.low)], [max(0.0, rate.high - rate.estimate)]]
        axes.errorbar([_x(chosen)], [_y(chosen)], xerr=reach, fmt="*", color=WARN, ms=15, capsize=4, lw=1.2,
                      label="proposal, with the 95 % interval of its false alarms")  # fmt: skip
        slo = chosen.candidate.rule.slo
        told = f"factor {chosen.candidate.factor:g}, {show_duration(slo.window.length_s)}, min_events {slo.min_events}"
        axes.annotate(told, (_x(chosen), _y(chosen)), xytext=(12, 12), textcoords="offset points", color=WARN,
                      fontweight="bold")  # fmt: skip
    axes.axvline(wanted, color=LIMIT, ls="--", lw=1.0, label=f"wanted: at most {wanted:g} a month")
    axes.set_xscale("symlog", linthresh=1.0)
    most = max([wanted, *(_x(t) for t in able), chosen.false_per_month.high if chosen else 0.0])
    axes.set_xlim(-0.15, most * 1.5 + 0.5)
    ticks = [t for t in (0, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if t <= most * 1.5]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("false alarms per month")
    axes.set_ylabel(f"median delay until a step of {step_ratio:g} x is found (minutes)")
    axes.grid(alpha=0.25)
    axes.legend(loc="upper right", frameon=False, fontsize=9)
    missed = len(tried) - len(able)
    note = f" ({missed} candidates that miss most steps are not drawn)" if missed else ""
    figure.suptitle(f"{title}: false alarms against delay{note}", x=0.01, ha="left", fontsize=11, fontweight="bold")
    save(figure, path)


def _x(tried: Tried) -> float:
    return tried.false_per_month.estimate


def _y(tried: Tried) -> float:
    return (tried.median_delay_s or 0.0) / 60.0
