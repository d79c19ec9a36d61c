"""Latency against offered rate, as a PNG: what the load test saw, and where the knee is."""

from __future__ import annotations

from pathlib import Path

from guard.capacity.search import Outcome
from guard.plotting import GOOD, LIMIT, MUTED, WARN, figure_of, save
from slo.capacity import why_not_sustained


def plot(outcome: Outcome, url: str, path: Path) -> None:
    """Write the picture.

    Raises:
        RefusedError: matplotlib is not installed.
        DataError: the file cannot be written.
    """
    figure = figure_of(10.0, 6.4)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.3))
    steps = sorted((s for s in outcome.steps if s.p95_s is not None), key=lambda s: s.rate_per_s)
    bound_s = outcome.criteria.bound_s(outcome.steps)
    good = [s for s in steps if not why_not_sustained(s, bound_s, outcome.criteria.goodput_ratio)]
    bad = [s for s in steps if s not in good]
    rates = [s.rate_per_s for s in steps]
    for name, values, colour, width in (
        ("P50", [s.p50_s for s in steps], MUTED, 1.2),
        ("P95", [s.p95_s for s in steps], GOOD, 2.0),
        ("P99", [s.p99_s for s in steps], MUTED, 1.2),
    ):
        style = "--" if name == "P50" else ":" if name == "P99" else "-"
        above.plot(rates, [v * 1000 for v in values if v is not None], style, color=colour, lw=width, label=name)
    above.plot([s.rate_per_s for s in good], [(s.p95_s or 0) * 1000 for s in good], "o", color=GOOD, ms=5)
    above.plot([s.rate_per_s for s in bad], [(s.p95_s or 0) * 1000 for s in bad], "x", color=WARN, ms=8, mew=2,
               label="not sustained")  # fmt: skip
    if bound_s is not None:
        above.axhline(bound_s * 1000, color=LIMIT, lw=1.0, ls="--", label=f"bound on P95: {bound_s * 1000:.4g} ms")
    above.set_yscale("log")
    above.set_ylabel("latency from the due time (ms)")
    below.plot(rates, rates, color=MUTED, lw=1.0, ls="--", label="offered")
    below.plot(rates, [s.goodput_per_s for s in steps], "o-", color=GOOD, lw=1.6, ms=4, label="good answers")
    below.set_ylabel("answers per second")
    below.set_xlabel("offered rate (requests per second)")
    knee = outcome.knee
    if knee.rate_per_s is not None and knee.p95_s is not None:
        for axes in (above, below):
            axes.axvline(knee.rate_per_s, color=WARN, lw=1.0)
        what = "knee" if knee.reached else "highest sustained (knee not reached)"
        above.annotate(
            f"{what}: {knee.rate_per_s:.4g}/s, P95 {knee.p95_s * 1000:.4g} ms",
            (knee.rate_per_s, knee.p95_s * 1000), xytext=(-8, 26), textcoords="offset points", ha="right",
            color=WARN, fontweight="bold", arrowprops={"arrowstyle": "-", "color": WARN},
        )  # fmt: skip
    for axes in (above, below):
        axes.legend(loc="upper left", frameon=False, fontsize=9)
        axes.grid(alpha=0.25)
    figure.suptitle(f"Capacity of {url[:90]}", x=0.01, ha="left", fontweight="bold")
    save(figure, path)
