"""What an evaluation costs: 200 objectives on 20 releases, all windows full, every 5 seconds.

The objectives are those of the preset `support-faq` over five window lengths and four sets of routes; the releases have
had answers for 30 days. A tick is what the guard does: limits, readings, quantiles, verdicts, what is held over time.
"""

from __future__ import annotations

import gc
import time
from dataclasses import replace

from guard.judge import SloJudge, Vitals
from slo.clock import HandClock
from slo.indicators import LATENCY
from slo.metric_names import INDICATORS
from slo.sources.memory import MemorySource
from slo.spec import parse_slo, preset_text
from slo.statistics import split_mix
from slo.thresholds import NOTHING_KNOWN
from slo.types import Slo, Version, Window
from slo.windows import RINGS

TICK_S = 5.0
WINDOWS_S = (300.0, 900.0, 3600.0, 6 * 3600.0, 30 * 86_400.0)
ROUTES: tuple[tuple[str, ...], ...] = ((), ("chat",), ("ask",), ("chat", "ask"))
GOAL_RATIO = 0.05


def objectives(count: int) -> tuple[Slo, ...]:
    """The preset's, each several times over other windows and routes."""
    preset = parse_slo(preset_text("support-faq")).objectives
    made = []
    for number in range(count):
        slo, turn = preset[number % len(preset)], number // len(preset)
        window = slo.window if slo.burn_rate else Window(WINDOWS_S[turn % len(WINDOWS_S)])
        name = f"{slo.name}-{number}"
        made.append(replace(slo, name=name, window=window, routes=ROUTES[turn // len(WINDOWS_S) % len(ROUTES)]))
    return tuple(made)


def full_source(slos: tuple[Slo, ...], releases: list[str], clock: HandClock, seed: int) -> MemorySource:
    """A source whose windows have events in every bucket of every ring, up to now."""
    source = MemorySource(slos, clock, max_releases=len(releases))
    end_s = clock.at_s
    starts = sorted({end_s - age for width, longest in RINGS for age in _ages(width, longest)})
    chance = split_mix(seed)
    for release in releases:
        books = source.shelf.release(release, end_s).books
        for book in books.values():
            every = [(name, book.window(name)) for name in (*INDICATORS, LATENCY) if "latency_p" not in name]
            counted = [windows for _, windows in book.over.values()]
            for start_s in starts:
                for name, windows in every:
                    if name == LATENCY:
                        for _ in range(12):
                            windows.add(start_s, 0.0, 10.0, 0.2 + 0.3 * chance())
                    else:
                        value = 0.9 if INDICATORS[name].kind == "mean" else None
                        windows.add(start_s, float(chance() < 0.3), 120.0, value)
                for windows in counted:
                    windows.add(start_s, float(chance() < 0.3), 120.0)
    return source


def _ages(width_s: float, longest_s: float) -> list[float]:
    return [width_s * step for step in range(int(longest_s / width_s))]


def measure(objective_count: int, release_count: int, tick_count: int, seed: int) -> tuple[float, float, int]:
    """Return CPU seconds of a tick (mean and longest), and the verdicts of each."""
    clock = HandClock(40 * 86_400.0, 1_750_000_000.0)
    slos = objectives(objective_count)
    versions = {f"v{number}": Version(f"v{number}", kb=str(number)) for number in range(release_count)}
    source = full_source(slos, [version.release_id for version in versions.values()], clock, seed)
    judge = SloJudge(slos, source, lambda: NOTHING_KNOWN, versions.get, Vitals(clock), clock)
    chance = split_mix(seed + 1)
    # As the guard does after loading its windows: what lives as long as the process is not looked at again.
    gc.collect()
    gc.freeze()
    spent = []
    verdict_count = 0
    for tick in range(tick_count + 1):
        clock.at_s += TICK_S
        for version in versions.values():  # answers go on between two evaluations
            for book in source.shelf.release(version.release_id, clock.at_s).books.values():
                for name, windows in book.windows.items():
                    windows.add(clock.at_s - 1.0, 0.0, 10.0, 0.2 + 0.3 * chance() if name == LATENCY else None)
        began_s = time.process_time()
        judged = [one for name in versions for one in judge._arm("stable", name, NOTHING_KNOWN, "")]
        if tick:  # the first one fills caches, as the first one after a start does
            spent.append(time.process_time() - began_s)
        verdict_count = len(judged)
    gc.unfreeze()
    return sum(spent) / len(spent), max(spent), verdict_count


def report(*, quick: bool, seed: int) -> str:
    """One line for each size."""
    lines = ["objectives  releases  verdicts  CPU s per tick (mean, longest)  share of a core at a tick of 5 s"]
    for objective_count, release_count in ((50, 5),) if quick else ((50, 5), (200, 5), (200, 20)):
        mean_s, longest_s, count = measure(objective_count, release_count, 12 if quick else 36, seed)
        lines.append(
            f"{objective_count:10d}  {release_count:8d}  {count:8d}  {mean_s:12.4f}, {longest_s:.4f}"
            f"             {mean_s / TICK_S:7.2%}"
        )
    lines.append(f"goal: below {GOAL_RATIO:.0%} for 200 x 20")
    return "\n".join(lines)
