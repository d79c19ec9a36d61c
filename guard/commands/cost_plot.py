"""A picture of cost against volume. Needs matplotlib (extra `analysis`)."""

from __future__ import annotations

from pathlib import Path

from slo.economics.breakeven import Comparison
from slo.economics.formulas import MILLION
from slo.economics.scenario import Scenario
from slo.errors import ConfigError


def plot_breakeven(scenario: Scenario, found: Comparison, path: Path) -> None:
    """Write a PNG: a line per option priced per token, a band per option of fixed cost, break-even points marked.

    Raises:
        ConfigError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        cure = "install the extra: pip install 'sft-guard[analysis]'"
        raise ConfigError("--plot", str(path), cure) from error

    furthest = max([found.tokens_per_month, *(t for p in found.break_evens for t in p.tokens_per_month)]) * 1.15
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for option in scenario.options:
        low, high = option.fixed_range
        per_token = option.usd_per_1m_tokens
        ends = (low, low + per_token * furthest / MILLION)
        if option.kind == "per_token":
            axes.plot((0, furthest / MILLION), ends, linewidth=2.5, label=option.name)
            continue
        colour = axes.plot((0, furthest / MILLION), (high, high), linewidth=1.2, label=f"{option.name}, no people")[0]
        axes.fill_between((0, furthest / MILLION), low, high, color=colour.get_color(), alpha=0.25)
        if option.fte is not None:
            for number, (usd, fte) in enumerate(zip((low, high), option.fte, strict=True)):
                people = usd + fte * scenario.fte_usd_per_month
                label = f"{option.name}, with people (low, high)" if number == 0 else None
                axes.axhline(people, color=colour.get_color(), linestyle="--", linewidth=1, label=label)
    for point in found.break_evens:
        if point.basis != "rounded":
            axes.plot(point.tokens_per_month[1] / MILLION, point.usd_per_month[1], "k.", markersize=8)
            axes.annotate(f"{point.tokens_per_month[1] / MILLION:,.0f}M",
                          (point.tokens_per_month[1] / MILLION, point.usd_per_month[1]),
                          xytext=(4, 6), textcoords="offset points", fontsize=8)  # fmt: skip
    axes.axvline(found.tokens_per_month / MILLION, color="grey", linestyle=":", label="this scenario")
    axes.set(xlim=(0, furthest / MILLION), ylim=(0, None), xlabel="tokens a month (millions)", ylabel="USD a month",
             title=f"Cost of ownership by volume: {scenario.name}")  # fmt: skip
    axes.legend(fontsize=8, loc="upper left")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
