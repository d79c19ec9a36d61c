"""A knowledge-base release with and without progressive replacement: the dip of the hit ratio, and what it costs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bench.cache.simulated import COST_USD, World, target
from guard.cache.warming import WarmLimits
from guard.plotting import GOOD, INCIDENT, MUTED, WARN, figure_of, save
from slo.errors import RefusedError
from slo.statistics import split_mix

HOUR_S = 3600.0
RATE_PER_HOUR = 2000
QUESTION_COUNT = 6000
EXPONENT = 1.05
BEFORE_S, CANARY_S, AFTER_S = 6 * HOUR_S, 1 * HOUR_S, 5 * HOUR_S
END_S = BEFORE_S + CANARY_S + AFTER_S
CANARY_RATIO = 0.10
LIMITS = WarmLimits(requests_per_minute=20, usd_per_hour=400.0, in_flight=4, for_s=3 * HOUR_S)
BIN_S = 600.0


def run(seed: int, limits: WarmLimits | None) -> World:
    """Six hours of v1, an hour of v2 as a canary at 10 %, then v2 alone. Questions follow Zipf's law."""
    world = World(ttl_s=24 * HOUR_S, limits=limits)
    users(world, seed)
    v1, v2 = world.split.in_traffic()[0].target, target("v2")
    world.later(BEFORE_S, lambda: (world.split.set(v1, v2, CANARY_RATIO, 0, "r"), world.care.released()))
    world.later(BEFORE_S + CANARY_S, lambda: (world.split.set(v2, None, 0.0, 0), world.care.released()))
    world.care.tick()
    world.run(END_S)
    return world


def steady(seed: int) -> World:
    """The same users, no release."""
    world = World(ttl_s=24 * HOUR_S)
    users(world, seed)
    world.run(END_S)
    return world


def users(world: World, seed: int) -> None:
    """When who asks what: Poisson arrivals, questions by Zipf's law."""
    chance = split_mix(seed)
    cumulative, total = [], 0.0
    for rank in range(1, QUESTION_COUNT + 1):
        total += rank**-EXPONENT
        cumulative.append(total)
    at_s, number = 0.0, 0
    while at_s < END_S:
        at_s += -math.log(1.0 - chance()) * HOUR_S / RATE_PER_HOUR
        rank = _rank(cumulative, chance() * total)
        number += 1
        world.later(at_s, lambda r=rank, n=number: world.ask(f"How do I file form {r}?", b"s:%d" % n))


def _rank(cumulative: list[float], point: float) -> int:
    low, high = 0, len(cumulative) - 1
    while low < high:
        middle = (low + high) // 2
        if cumulative[middle] < point:
            low = middle + 1
        else:
            high = middle
    return low + 1


def ratios(world: World) -> list[tuple[float, float]]:
    """(hours since the canary, hit ratio of all users) per ten minutes."""
    bins: dict[int, list[int]] = {}
    for seen in world.seen:
        cell = bins.setdefault(int(seen.at_s / BIN_S), [0, 0])
        cell[0] += seen.hit
        cell[1] += 1
    return [((b * BIN_S + BIN_S / 2 - BEFORE_S) / HOUR_S, h / n) for b, (h, n) in sorted(bins.items())]


def spent(world: World) -> float:
    """USD from the canary on: users' misses and warm-ups."""
    misses = sum(s.cost_usd for s in world.seen if s.at_s >= BEFORE_S)
    return misses + world.care.savings.total().warm_usd


def between(world: World, from_s: float, to_s: float) -> float:
    """Hit ratio of a span, seconds since the start."""
    seen = [s.hit for s in world.seen if from_s <= s.at_s < to_s]
    return sum(seen) / len(seen)


def main(seed: int, out: Path | None) -> dict[str, Any]:
    """Run both, print, draw."""
    cold, warm = run(seed, None), run(seed, LIMITS)
    switch_s = BEFORE_S + CANARY_S
    before = between(cold, BEFORE_S - HOUR_S, BEFORE_S)
    # What a cache that lost nothing would have paid: the misses of the same users without any release.
    base_usd = COST_USD * sum(1 for s in steady(seed).seen if s.at_s >= BEFORE_S and not s.hit)
    row = warm.care.savings.total()
    result = {
        "hit_ratio_before": round(before, 3),
        "no_release_usd": round(base_usd, 2),
        "warm_requests": row.warm_requests, "warm_usd": round(row.warm_usd, 2), "misses_avoided": row.misses_avoided,
    }  # fmt: skip
    print(f"\nA knowledge release: canary 10 % for 1 h, then all; {RATE_PER_HOUR}/h, hit ratio before {before:.3f}")
    print(f"{'':<22}{'worst 10 min':>13}{'first hour':>12}{'second hour':>13}{'cost of 6 h':>13}{'extra':>10} USD")
    for name, world in (("without warming", cold), ("with warming", warm)):
        worst = min(ratio for hour, ratio in ratios(world) if hour >= CANARY_S / HOUR_S)
        first, second = (between(world, switch_s + h * HOUR_S, switch_s + (h + 1) * HOUR_S) for h in (0, 1))
        usd = spent(world)
        print(f"{name:<22}{worst:>13.3f}{first:>12.3f}{second:>13.3f}{usd:>13.2f}{usd - base_usd:>10.2f}")
        result[name.replace(" ", "_")] = {
            "worst_10_min": round(worst, 3), "first_hour": round(first, 3), "second_hour": round(second, 3),
            "usd": round(usd, 2), "extra_usd": round(usd - base_usd, 2),
        }  # fmt: skip
    counterfactual = row.usd_without_warming - row.usd_with_warming
    print(
        f"warm-ups: {row.warm_requests} for {row.warm_usd:.2f} USD; {row.misses_avoided} misses avoided; "
        f"the guard's own comparison: without warming {counterfactual:+.2f} USD"
    )
    if out is not None:
        draw(cold, warm, before, out)
    return result


def draw(cold: World, warm: World, before: float, out: Path) -> None:
    """Hit ratio over time, and the cost above it."""
    try:
        figure = figure_of(9, 6.5)
    except RefusedError as error:
        print(f"bench.cache: {error}")
        return
    top, bottom = figure.subplots(2, 1, sharex=True)
    for world, colour, name in ((cold, WARN, "without warming"), (warm, GOOD, "with warming")):
        points = [(h, r) for h, r in ratios(world) if h > -2]
        top.plot([h for h, _ in points], [r for _, r in points], color=colour, label=name, linewidth=1.8)
        costs = sorted((s.at_s, s.cost_usd) for s in world.seen if s.at_s >= BEFORE_S)
        costs = sorted([*costs, *((at_s, COST_USD) for at_s in world.warm_s)])
        sums, total = [], 0.0
        for at_s, usd in costs:
            total += usd
            sums.append(((at_s - BEFORE_S) / HOUR_S, total))
        bottom.plot([h for h, _ in sums], [u for _, u in sums], color=colour, label=name, linewidth=1.8)
    top.axhline(before, color=MUTED, linestyle=":", linewidth=1.2, label="before the release")
    for axis in (top, bottom):
        for hour, text in ((0.0, "canary 10 %"), (CANARY_S / HOUR_S, "promoted")):
            axis.axvline(hour, color=INCIDENT, linewidth=1.2)
            if axis is top:
                axis.annotate(text, (hour, 0.02), rotation=90, fontsize=8, va="bottom", ha="right", color=MUTED)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize=9)
    top.set_ylim(0, 1)
    top.set_ylabel("hit ratio, ten minutes")
    top.set_title("A knowledge release: the cache starts empty, or filled from the hottest questions", fontsize=11)
    bottom.set_ylabel("USD since the canary,\nwarm-ups included")
    bottom.set_xlabel("hours since the canary")
    save(figure, out)
    print(f"picture: {out}")
