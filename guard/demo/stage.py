"""Where the demo happens: a directory, an event loop that ends cleanly on Ctrl-C and SIGTERM, nothing left behind."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import tempfile
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from guard.demo.playground import Playground, Ready
from guard.demo.result import DemoResult
from guard.demo.story import Script, Story
from slo.clock import SystemClock
from slo.errors import ConfigError

PLAYGROUND_DIRECTORY = Path(".run/playground")
"""Kept between runs, so that the second start is fast; ignored by git."""

Outcome = TypeVar("Outcome")


def run_story(
    *,
    seed: int,
    incident: bool,
    rate: float,
    max_s: float,
    keep: Path | None,
    warm_up_s: float | None,
    canary_answers: int | None,
) -> DemoResult:
    """See `guard.demo.run`."""
    if rate <= 0 or max_s <= 0:
        raise ConfigError("demo", f"rate {rate:g}, max {max_s:g} s", "both are more than 0")
    script = Script(seed=seed, incident=incident, rate=rate, max_s=max_s)
    if warm_up_s is not None:
        script = replace(script, warm_up_s=warm_up_s)
    if canary_answers is not None:
        script = replace(script, canary_answers=canary_answers)
    if keep is not None:
        _make_empty(keep)
        result = _play(Story(script, keep.absolute(), SystemClock(), _say).tell())
        return replace(result, directory=str(keep))
    with tempfile.TemporaryDirectory(prefix="sft-guard-demo-") as directory:
        return _play(Story(script, Path(directory), SystemClock(), _say).tell())


def _need_free(flag: str, port: int) -> None:
    """Before anything is built or started: a taken port is named with the flag that chooses another."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no such port"
            raise ConfigError(f"demo {flag}", str(port), f"{reason}; name a free port") from error


def run_playground(*, data_port: int, admin_port: int, answer_port: int, keep: Path | None, ready: Ready) -> int:
    """Knowledge base, answer path, guard and admin listener until Ctrl-C; returns the exit code.

    ready: told the URLs, by name and as a page for people, once everything answers.

    Raises:
        GuardError: a part could not be started, or ended by itself.
    """
    directory = keep or PLAYGROUND_DIRECTORY
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            "demo --keep", str(directory), f"name a directory that can be written ({error.strerror})"
        ) from error
    for flag, port in (("--data-port", data_port), ("--admin-port", admin_port), ("--answer-port", answer_port)):
        _need_free(flag, port)
    ground = Playground(directory.absolute(), data_port, admin_port, answer_port, SystemClock(), _say, ready)
    try:
        return _play(ground.run())
    except KeyboardInterrupt:
        return 0  # Ctrl-C is how a playground ends


def _play(story: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run it; SIGTERM ends it as Ctrl-C does, children included.

    Raises:
        KeyboardInterrupt: it was told to stop.
    """

    async def main() -> Outcome:
        task = asyncio.create_task(story)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _make_empty(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ConfigError("demo --keep", str(directory), "name an empty directory; this one has files in it")
    except OSError as error:
        raise ConfigError(
            "demo --keep", str(directory), f"name a directory that can be written ({error.strerror})"
        ) from error


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
