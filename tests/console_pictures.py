"""Pictures of the console in four states, driven by the real traffic of `demo --incident`.

    python -m tests.console_pictures docs/images        (needs chromium; takes some minutes)

healthy, canary, rolled-back, degraded; each in English and Traditional Chinese, light and dark, wide and narrow.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.browser import Page, browser

READY = "document.getElementById('main')?.dataset.ready && document.querySelectorAll('svg.spark').length"
SHOWS = {
    "healthy": "!document.querySelector('#release .stages')",
    "canary": "document.querySelector('#release .stages')",
    "rolled-back": "document.querySelector('#release .bad')",
    "degraded": "[...document.querySelectorAll('#health .card.warn b')].some(b => b.textContent === 'checks')"
    " && !document.querySelector('#health .card.bad')",
}
"""What the page itself must show: it is up to two seconds behind the API."""
VIEWS = (
    ("en", "light", 1280, 900), ("zh-TW", "dark", 1280, 900), ("en", "dark", 360, 740), ("zh-TW", "light", 360, 740),
)  # fmt: skip
LIMIT_S = 420.0


def read(admin: str, path: str) -> Any:
    with urllib.request.urlopen(admin + path, timeout=10) as answer:
        return json.loads(answer.read())


def checks(admin: str) -> str:
    """How the checks are."""
    return next(str(part["status"]) for part in read(admin, "/healthz")["parts"] if part["name"] == "checks")


async def until(condition: Callable[[], Any], what: str, every_s: float = 0.5) -> Any:
    """Wait for a state of the demo; the limit only ends a run that hangs."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            with contextlib.suppress(OSError):
                found = await asyncio.to_thread(condition)
                if found:
                    return found
            await asyncio.sleep(every_s)
    raise AssertionError(what)


async def take(page: Page, admin: str, state: str, out: Path) -> None:
    """One picture per view."""
    for language, theme, width, height in VIEWS:
        ready = f"({READY}) && ({SHOWS[state]})"
        await page.open(f"{admin}/?lang={language}&theme={theme}", ready, width=width, height=height)
        await asyncio.sleep(0.3)
        size = "wide" if width > 600 else "narrow"
        await page.picture(out / f"console-{state}-{language}-{theme}-{size}.png")
    print(f"{state}: {len(VIEWS)} pictures", flush=True)


async def keep_stopped(pid: int) -> None:
    """The checks hang, as if the machine had no time for them: every new worker is stopped too."""
    while True:
        with contextlib.suppress(psutil.Error):
            stop_worker(pid)
        await asyncio.sleep(0.1)


def stop_worker(pid: int) -> None:
    """Stop the worker of now."""
    for child in psutil.Process(pid).children(recursive=True):
        if "guard.checks.worker" in " ".join(child.cmdline()):
            child.send_signal(signal.SIGSTOP)


async def run(out: Path) -> None:
    """Run the demo beside the browser."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        kept = Path(directory) / "demo"
        demo = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "guard.cli", "demo", "--incident", "--seed", "1", "--json", "--keep", str(kept),
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            log = kept / "guard.log"
            address = re.compile(r"admin (http://[0-9.:]+)")
            admin = (await until(lambda: address.search(log.read_text()), "the guard"))[1]
            guard = next(p for p in psutil.Process(demo.pid).children(recursive=True) if "serve" in p.cmdline())
            async with browser() as page:
                await until(lambda: len(read(admin, "/api/v1/exchanges?limit=1000")["exchanges"]) > 600, "traffic")
                await take(page, admin, "healthy", out)
                await until(lambda: read(admin, "/api/v1/release")["stage_events_count"] > 40, "a canary")
                await take(page, admin, "canary", out)
                await until(lambda: read(admin, "/api/v1/release")["phase"] == "rolled_back", "the rollback")
                await take(page, admin, "rolled-back", out)
                stopping = asyncio.create_task(keep_stopped(guard.pid))
                await asyncio.sleep(5.0)  # answers wait for their checks
                demo.send_signal(signal.SIGSTOP)  # it would end now, and the guard with it
                await until(lambda: checks(admin) == "degraded", "checks that are not well")
                await take(page, admin, "degraded", out)
                stopping.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                demo.send_signal(signal.SIGCONT)
                demo.send_signal(signal.SIGINT)
            await demo.wait()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")))
