"""The practice's day (2,000 requests, 60 % repeats) through the real cache code in virtual time, with its prices."""

from __future__ import annotations

from typing import Any

from bench.cache.simulated import COST_USD, DAY_S, World
from slo.statistics import split_mix

REQUESTS_PER_DAY, REPEAT_RATIO = 2000, 0.60


def practice_day(seed: int, ttl_s: float) -> dict[str, Any]:
    """One day: 800 questions in an order by chance, and 1,200 repeats of what was asked before."""
    chance = split_mix(seed)
    new_count = round(REQUESTS_PER_DAY * (1 - REPEAT_RATIO))
    kinds = [True] * (new_count - 1) + [False] * (REQUESTS_PER_DAY - new_count)
    for i in range(len(kinds) - 1, 0, -1):
        j = int(chance() * (i + 1))
        kinds[i], kinds[j] = kinds[j], kinds[i]
    world, asked = World(ttl_s=ttl_s), 0
    # Evenly over the day: what is asked again has been answered by then (43 s apart, an answer takes 1.5 s).
    for number, new in enumerate([True, *kinds]):
        asked += new
        name = asked if new else 1 + int(chance() * asked)
        question = f"How many days of leave in case {name}?"
        world.later(number * DAY_S / REQUESTS_PER_DAY, lambda q=question, n=number: world.ask(q, b"s:%d" % n))
    world.run(DAY_S + 60)
    row = world.care.savings.total()
    return {
        "requests": len(world.seen),
        "ttl_h": ttl_s / 3600,
        "hit_ratio": row.hit_ratio,
        "model_calls": world.upstream_count,
        "usd_per_request": COST_USD,
        "usd_per_day_without": round(row.usd_without_cache, 2),
        "usd_per_day_with": round(row.spent_usd, 2),
        "usd_saved": round(row.saved_usd, 2),
        "tokens_saved": row.saved_input_tokens + row.saved_output_tokens,
        "seconds_saved": round(row.saved_s, 1),
    }


def main(seed: int) -> dict[str, Any]:
    """Print and return the figures."""
    print("The practice's day: 2,000 requests, 60 % repeats, 950 + 250 tokens, 0.15 / 0.60 USD per 1k, virtual time")
    print(
        f"{'life of an entry':>18}{'hit ratio':>11}{'model calls':>13}{'without':>11}{'with':>10}{'saved':>10} USD/day"
    )
    results = {}
    for name, ttl_s in (("24 h", 1.2 * DAY_S), ("4 h", 4 * 3600.0), ("1 h (default)", 3600.0)):
        r = results[name] = practice_day(seed, ttl_s)
        print(
            f"{name:>18}{r['hit_ratio']:>11.3f}{r['model_calls']:>13}{r['usd_per_day_without']:>11.2f}"
            f"{r['usd_per_day_with']:>10.2f}{r['usd_saved']:>10.2f}"
        )
    return results
