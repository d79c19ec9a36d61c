"""One process: start the guard, reload on SIGHUP, drain on SIGTERM. Composition itself is in `wiring/`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from guard import compiled
from guard.c_heap import share_one_arena
from guard.log_lines import LineHandler, log_to_stderr
from guard.private_state import UMASK, tighten
from guard.settings import Settings, load_settings
from guard.wiring import Guard
from slo.errors import ConfigError, GuardError

log = logging.getLogger("sft-guard")


Ready = Callable[[str, str], None]
"""Told the host:port of the data and of the admin listener, once both take connections."""


def serve(settings: Settings, ready: Ready) -> int:
    """Run the sidecar until it is told to stop. Returns the exit code."""
    share_one_arena()
    lines = log_to_stderr()
    # A core dump would hold prompts and keys.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _raise_descriptor_limit()
    _private_state(settings)
    # Threads (rendering, evaluation) hand the interpreter back to the loop after 0.1 ms instead of 5. While one
    # of them computes, every wake-up of the loop waits this long: 1.15 ms with 1 ms, 0.25 ms with 0.1 ms, measured.
    sys.setswitchinterval(0.0001)
    return _run(lambda: _serve(settings, lines, ready))


def _private_state(settings: Settings) -> None:
    """Nobody but our user reads what stands in the state directory, nor what is written from now on."""
    os.umask(UMASK)
    if settings.state_dir.is_dir():
        changed, problem = tighten(settings.state_dir, settings.base_dir)
        if changed:
            log.info("%s: other users may not read it any more (%d entries)", settings.state_dir, changed)
        if problem:
            log.warning("%s", problem)


def _run(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """On uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


async def _serve(settings: Settings, lines: LineHandler, ready: Ready) -> int:
    guard = Guard(settings)
    lines.on_drop = lambda: guard.exporter.inc("sft_guard_messages_dropped_total")
    stop, reload_asked = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload_asked.set)
    try:
        await guard.start()
    except BaseException:
        await guard.stop(drain=False)  # what was opened before the fault is closed again
        raise
    log.info("data http://%s  admin http://%s  stable %s", *guard.addresses, guard.status_line())
    log.info("the data path %s", compiled.state()[1])
    ready(*guard.addresses)
    reloads = loop.create_task(_reload_when(reload_asked, guard))
    with contextlib.suppress(asyncio.CancelledError):
        await stop.wait()
    reloads.cancel()
    await asyncio.gather(reloads, return_exceptions=True)
    log.info("stopping: streams may finish for up to %g s", guard.settings.file.timeouts.drain)
    await guard.stop(drain=True)
    return 0


async def _reload_when(asked: asyncio.Event, guard: Guard) -> None:
    """One after the other; what is asked during a reload, however often, is one more."""
    while True:
        await asked.wait()
        asked.clear()
        await _reload(guard)


async def _reload(guard: Guard) -> None:
    """Parse, validate, swap; or keep the old one and say exactly why."""
    try:
        settings = await asyncio.to_thread(load_settings, guard.settings.path)
        await guard.reload(settings)
    except GuardError as error:
        guard.reload_failed()
        more = error.more if isinstance(error, ConfigError) else ()
        for one in (error, *more):
            log.error("reload refused, the old configuration stays: %s", one)
    except Exception:  # a fault of ours: the next SIGHUP is answered all the same
        guard.reload_failed()
        log.exception("reload failed")
    else:
        log.info("reloaded %s (hash %s)", settings.path, settings.config_hash)


def _raise_descriptor_limit() -> None:
    """Every connection is a descriptor, twice; the soft limit is often 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(65536, hard) if hard != resource.RLIM_INFINITY else 65536
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
