"""One picture per rule of a replay: its value against its limit, what was marked, and when it would have fired."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from guard.plotting import GOOD, INCIDENT, LIMIT, MUTED, WARN, figure_of, save
from slo.backtest import Report, RuleResult, incident_of
from slo.curves import Point, curve
from slo.metric_names import INDICATORS
from slo.traffic import Life, Traffic
from slo.types import Slo, State
from slo.wording import show_duration, show_ratio, show_value

_COLOURS = {"stable": GOOD, "canary": "#7c3aed"}
_STATES = {State.OK: "#86b58d", State.UNKNOWN: "#d6d9de", State.BREACH: WARN}
MAX_LIVES = 8
"""More lines than this cannot be told apart; those with most traffic are drawn."""


def plot_rules(report: Report, traffic: Traffic, directory: Path, every_s: float) -> list[Path]:
    """Write one PNG per rule into `directory` and return their paths.

    Raises:
        RefusedError: matplotlib is not installed. DataError: a file cannot be written.
    """
    paths = []
    for result in report.rules:
        path = directory / f"{re.sub(r'[^a-z0-9._-]', '-', result.rule.slo.name)}.png"
        plot_rule(result, report, traffic, path, every_s)
        paths.append(path)
    return paths


def plot_rule(result: RuleResult, report: Report, traffic: Traffic, path: Path, every_s: float) -> None:
    """Write the picture of one rule: all of the log, and beside it the first firing or incident from near."""
    slo = result.rule.slo
    near = _near(result, report, traffic)
    columns = 2 if near else 1
    figure = figure_of(15.0 if near else 12.0, 6.8)
    grid = figure.subplots(
        3, columns, sharex="col", sharey="row" if near else False, squeeze=False, height_ratios=(6, 0.8, 1.6),
        width_ratios=(2.2, 1) if near else (1,),
    )  # fmt: skip
    lives = sorted(traffic.lives, key=lambda life: -life.exchange_count)[:MAX_LIVES]
    lives.sort(key=lambda life: (life.arm != "canary", life.first))  # canaries on top of the strip
    everything = (traffic.first_s, traffic.last_s)
    for column, between_s in enumerate([everything, near] if near else [everything]):
        axes = tuple(grid[row][column] for row in range(3))
        _column(axes, result, report, traffic, lives, between_s, every_s)
    above, strip, below = (grid[row][0] for row in range(3))
    _frame(above, strip, below, slo, [f"{life.arm} {life.release[:8]}" for life in lives])
    above.set_ylabel(_axis_label(slo, result))
    handles, labels = above.get_legend_handles_labels()
    patches: Any = importlib.import_module("matplotlib.patches")
    handles += [patches.Patch(color=_STATES[s]) for s in (State.OK, State.UNKNOWN, State.BREACH)]
    labels += ["ok", "unknown", "breach"]
    if near:
        _frame(grid[0][1], grid[1][1], grid[2][1], slo, [])
        what = "first firing" if result.firings else "first incident"
        grid[0][1].set_title(f"{what}, from near", fontsize=10, loc="left")
        above.set_title("all of the log", fontsize=10, loc="left")
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    figure.suptitle(_title(slo, result, report), x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    save(figure, path)


def _near(result: RuleResult, report: Report, traffic: Traffic) -> tuple[float, float] | None:
    """The stretch to be seen from near: around the first firing, or else the first incident in the log."""
    length_s = 3600.0 if result.rule.slo.burn_rate else result.rule.slo.window.length_s
    lead_s = min(max(length_s, 900.0), 6 * 3600.0)
    if result.firings:
        first = next((f for f in result.firings if incident_of(f, report.incidents) is not None), result.firings[0])
        end_s = min(first.end_s or traffic.last_s, first.start_s + 12 * 3600.0)
        stretch = first.since_s - lead_s, end_s + lead_s
    else:
        inside = [i for i in report.incidents if i.from_s < traffic.last_s and i.to_s > traffic.first_s]
        if not inside:
            return None
        stretch = inside[0].from_s - lead_s, inside[0].to_s + lead_s
    stretch = max(stretch[0], traffic.first_s), min(stretch[1], traffic.last_s)
    # Seen from near only when it is much less than all.
    return stretch if stretch[1] - stretch[0] < 0.4 * (traffic.last_s - traffic.first_s) else None


def _column(
    axes: tuple[Any, Any, Any], result: RuleResult, report: Report, traffic: Traffic, lives: Sequence[Life],
    between_s: tuple[float, float], every_s: float,
) -> None:  # fmt: skip
    """Everything over one stretch of time."""
    above, strip, below = axes
    slo, scale = result.rule.slo, _scale(result.rule.slo)
    busiest = max(traffic.lives, key=lambda each: each.exchange_count)
    drawn: set[str] = set()
    for row, life in enumerate(lives):
        points = curve(traffic, result.rule, life, every_s, between_s=between_s)
        name, colour = life.arm, _COLOURS.get(life.arm, MUTED)
        when = [_date(p.wall_s) for p in points]
        values = [None if p.value is None else p.value * scale for p in points]
        above.plot(when, _gaps(values), color=colour, lw=1.3, label=None if name in drawn else _value_label(slo, name))
        if any(p.bound is not None for p in points):
            above.plot(when, _gaps([None if p.bound is None else p.bound * scale for p in points]), color=colour,
                       lw=0.7, alpha=0.45, label=None if name in drawn else "its 95 % bound")  # fmt: skip
        if life is busiest:
            limits = [None if p.limit is None else p.limit * scale for p in points]
            above.plot(when, _gaps(limits), color=LIMIT, lw=1.4, ls="--", label=_limit_label(slo, result))
        below.plot(when, [p.count for p in points], color=colour, lw=1.0)
        _strip(strip, points, row, every_s)
        for firing in result.firings:  # a fast path may speak while the slow window is well
            if (firing.release, firing.arm) == (life.release, life.arm):
                _bar(strip, row, firing.start_s, traffic.last_s if firing.end_s is None else firing.end_s, State.BREACH)
        drawn.add(name)
    below.axhline(slo.min_events, color=LIMIT, lw=0.9, ls=":")
    _incidents((above, below), report)
    _firings(above, result, report, traffic.last_s)
    above.set_xlim(_date(between_s[0]), _date(between_s[1]))


def _title(slo: Slo, result: RuleResult, report: Report) -> str:
    fired, false = len(result.firings), len(result.false_firings)
    told = f"{fired} firing{'s' * (fired != 1)}"
    if report.incidents:
        told += f", {false} false alarm{'s' * (false != 1)}"
    held = f", for {show_duration(slo.for_s)}" if slo.for_s else ""
    span = "burn rate" if slo.burn_rate else f"window {show_duration(slo.window.length_s)}{held}"
    return f"{slo.name} - {slo.indicator}, {span}, action {slo.action.value}: {told} in {report.log_days:.1f} days"


def _scale(slo: Slo) -> float:
    """Shares are drawn in percent; means and burns as they are."""
    return 1.0 if slo.burn_rate or INDICATORS[slo.indicator].kind == "mean" else 100.0


def _axis_label(slo: Slo, result: RuleResult) -> str:
    indicator = INDICATORS[slo.indicator]
    if slo.burn_rate:
        return "burn, share of the\nnearest pair's factor"
    if indicator.kind == "latency":
        limit = result.rule.limits[0].value
        over = "the hour's limit" if len(result.rule.limits) > 1 else show_value(indicator, limit)
        return f"requests over {over} (%)"
    if indicator.kind == "mean":
        return "USD per inference" if indicator.unit == "usd" else "mean score (0 to 1)"
    what = "good events" if indicator.worse == "down" else "bad events"
    return f"{what} (% of the window)"


def _value_label(slo: Slo, arm: str) -> str:
    return f"{arm}: " + ("burn" if slo.burn_rate else "mean" if INDICATORS[slo.indicator].kind == "mean" else "share")


def _limit_label(slo: Slo, result: RuleResult) -> str:
    indicator, limit = INDICATORS[slo.indicator], result.rule.limits[0]
    if limit.value is None:
        return f"no limit: {limit.reason[:60]}"
    if slo.burn_rate:
        return "breach"
    if indicator.kind == "latency":
        return f"allowed: {show_ratio(round(1 - (indicator.quantile or 0), 9))}"
    if len(result.rule.limits) > 1:
        return "limit of the hour"
    return f"limit {show_value(indicator, limit.value)}"


def _strip(axes: Any, points: Sequence[Point], row: int, every_s: float) -> None:
    """Coloured runs: ok, unknown, breach."""
    begin = 0
    for place in range(1, len(points) + 1):
        if place == len(points) or points[place].state is not points[begin].state:
            last = points[place].wall_s if place < len(points) else points[-1].wall_s + every_s
            _bar(axes, row, points[begin].wall_s, last, points[begin].state)
            begin = place


def _bar(axes: Any, row: int, from_s: float, to_s: float, state: State) -> None:
    axes.barh(row, _date(to_s) - _date(from_s), left=_date(from_s), height=0.8, color=_STATES[state], lw=0)


def _incidents(several: Sequence[Any], report: Report) -> None:
    for number, incident in enumerate(report.incidents):
        for axes in several:
            axes.axvspan(_date(incident.from_s), _date(incident.to_s), color=INCIDENT, alpha=0.22, lw=0,
                         label="marked incident" if not number and axes is several[0] else None)  # fmt: skip


def _firings(axes: Any, result: RuleResult, report: Report, last_s: float) -> None:
    """A bar along the upper edge while it fires, a marker at its begin: filled for true ones, hollow for false ones."""
    told: set[bool] = set()
    edge = axes.get_xaxis_transform()  # x in data, y in parts of the axes
    for firing in result.firings:
        false = bool(report.incidents) and incident_of(firing, report.incidents) is None
        label = None if false in told else "false alarm" if false else "would have fired"
        told.add(false)
        begin = _date(firing.start_s)
        end = _date(firing.end_s if firing.end_s is not None else last_s)
        axes.plot([begin, end], [0.985, 0.985], color=WARN, lw=4, solid_capstyle="butt", transform=edge)
        axes.plot([begin], [0.955], "v", color=WARN, mfc="white" if false else WARN, ms=8, transform=edge, ls="none",
                  label=label)  # fmt: skip
        axes.axvline(begin, color=WARN, lw=0.7, alpha=0.6)


def _frame(above: Any, strip: Any, below: Any, slo: Slo, lives: Sequence[str]) -> None:
    """Axes of one column; lives: names of the strips, [] where they stand in the column beside."""
    dates: Any = importlib.import_module("matplotlib.dates")
    if lives:
        low, high = above.get_ylim()
        above.set_ylim(max(0.0, low) if low > -high else low, high + 0.14 * (high - low))
        strip.set_yticks(range(len(lives)), lives, fontsize=7)
        below.set_yscale("symlog", linthresh=max(1, slo.min_events))
        below.set_ylim(bottom=0)
        below.set_ylabel("events in\nthe window")
        below.annotate(f"min_events {slo.min_events}", (0.005, slo.min_events), xycoords=("axes fraction", "data"),
                       xytext=(0, 2), textcoords="offset points", fontsize=7, color=LIMIT)  # fmt: skip
    above.grid(alpha=0.25)
    below.grid(alpha=0.25)
    strip.tick_params(length=0)
    for side in strip.spines.values():
        side.set_visible(False)
    # Three ticks are enough before a finer unit is taken: so no span is without an interval, and labels stay apart.
    locator = dates.AutoDateLocator(tz=UTC, minticks=3, maxticks=7)
    below.xaxis.set_major_locator(locator)
    below.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=UTC))
    below.set_xlabel("time (UTC)")


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _date(wall_s: float) -> datetime:
    return datetime.fromtimestamp(wall_s, UTC)
