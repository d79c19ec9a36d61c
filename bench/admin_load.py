"""What people and Prometheus ask of the admin listener, harder than they do: `python -m bench.admin_load PORT`.

Consoles hold the live stream, each opening the panels that it fills by asking; a scraper reads `/metrics` in both
formats. Runs until it is ended and then prints how much was answered, as one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections import Counter

import aiohttp

PANELS = ("/api/v1/slo", "/api/v1/release", "/api/v1/exchanges", "/api/v1/incidents", "/api/v1/stats", "/api/v1/drift")
OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


async def console(session: aiohttp.ClientSession, base: str, counts: Counter[str]) -> None:
    """One open console: the stream, read as it comes."""
    async with session.get(f"{base}/api/v1/stream", timeout=aiohttp.ClientTimeout(total=None)) as answer:
        counts[f"stream {answer.status}"] += 1
        async for line in answer.content:
            counts["events"] += line.startswith(b"data:")


async def asking(session: aiohttp.ClientSession, base: str, every_s: float, counts: Counter[str]) -> None:
    """Every panel and both forms of the metrics, again and again."""
    while True:
        for path, headers in (*((p, {}) for p in PANELS), ("/metrics", {}), ("/metrics", OPENMETRICS)):
            async with session.get(base + path, headers=headers) as answer:
                counts["bytes"] += len(await answer.read())
                counts[f"{path} {answer.status}"] += 1
        await asyncio.sleep(every_s)


async def run(port: int, consoles: int, every_s: float) -> Counter[str]:
    """Ask until SIGTERM."""
    counts: Counter[str] = Counter()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    base = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = [asyncio.create_task(console(session, base, counts)) for _ in range(consoles)]
        tasks.append(asyncio.create_task(asking(session, base, every_s, counts)))
        stopping = asyncio.create_task(ended.wait())
        await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
    return counts


def main() -> int:
    """Ask, then say what was answered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--consoles", type=int, default=5)
    parser.add_argument("--every-s", type=float, default=1.0, help="pause between two rounds of all panels and metrics")
    asked = parser.parse_args()
    print(json.dumps(asyncio.run(run(asked.port, asked.consoles, asked.every_s))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
