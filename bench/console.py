"""What the console costs: first paint, one update, memory, with 10,000 exchanges and 50 releases behind it.

    python -m bench.console

Needs Chromium. The page is served by the real admin application; what is behind it is made here.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from guard.admin import shapes
from guard.recent import RecentExchanges
from slo.clock import SystemClock
from slo.types import Exchange, Outcome
from tests.browser import Page, browser
from tests.unit.admin_helpers import Site
from tests.unit.test_admin_server import serving

EXCHANGES, RELEASES, RULES, UPDATES = 10_000, 50, 11, 10
READY = "document.getElementById('main')?.dataset.ready"


def filled(site: Site) -> None:
    """50 releases with 11 rules each, and the newest of 10,000 exchanges as the guard keeps them."""
    recent = RecentExchanges()
    for number in range(EXCHANGES):
        recent.served(
            Exchange(f"e{number:06}", 1.75e9 + number, "chat", f"r{number % RELEASES}", "stable", Outcome.OK, 200)
        )
    made = site.backend.exchanges(1).exchanges[0]
    rows = tuple(
        shapes.SloRow(f"rule-{rule}", "sft_quality_hallucination_rate", f"r{release}", "stable", "ok", False, 0.01,
                      0.05, 0.02, "ratio", 3600.0, 500, 400, "rollback", "1 % of 500 in 1h, limit 5 %")
        for release in range(RELEASES) for rule in range(RULES)
    )  # fmt: skip
    points = tuple((1.75e9 + 60 * n, 0.01 + n % 7 / 1000) for n in range(60))
    courses = tuple(shapes.Course(row.slo, row.release, "stable", 0.05, points) for row in rows)
    backend = site.backend
    backend.slo = lambda: shapes.SloReport("faq-bot", 1.0, rows)  # type: ignore[method-assign]
    backend.history = lambda: shapes.History(courses)  # type: ignore[method-assign]
    backend.exchanges = lambda limit: shapes.ExchangeList((made,) * len(recent.newest(limit)))  # type: ignore[method-assign]


async def update_ms(page: Page) -> float:
    """Milliseconds of script and layout of one update, as the browser measures them."""
    before = {m["name"]: m["value"] for m in (await page.call("Performance.getMetrics"))["metrics"]}
    await asyncio.sleep(2.1)
    after = {m["name"]: m["value"] for m in (await page.call("Performance.getMetrics"))["metrics"]}
    return 1000 * float(after["TaskDuration"] - before["TaskDuration"])


async def measure() -> None:
    """Print the figures."""
    site = Site(words="fine", clock=SystemClock())
    filled(site)
    async with serving(site) as handle, browser() as page:
        await page.open(f"{handle.url}/status", "document.body", width=1280)  # the browser itself is warm from here
        began_s = time.perf_counter()
        await page.open(f"{handle.url}/?lang=en", READY)
        ready_s = time.perf_counter() - began_s
        paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
        await page.until(paint)
        first_ms = await page.run(paint)
        await page.call("Performance.enable")
        updates = [await update_ms(page) for _ in range(UPDATES)]
        heap = await page.call("Runtime.getHeapUsage")
    print(f"{RELEASES} releases x {RULES} rules, {EXCHANGES} exchanges (1,000 kept, 50 shown)")
    print(f"first contentful paint {first_ms:.0f} ms, all panels filled {1000 * ready_s:.0f} ms after asking")
    print(
        f"one update: median {statistics.median(updates):.0f} ms of the page's main thread, worst {max(updates):.0f} ms"
    )
    print(f"JavaScript heap {heap['usedSize'] / 2**20:.1f} MiB after {UPDATES} updates")


if __name__ == "__main__":
    sys.exit(asyncio.run(measure()))
