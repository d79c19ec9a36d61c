"""Child processes of the demo: start, wait until they answer, stop, always.

Each runs in a session of its own, so that Ctrl-C reaches this process only and they are stopped in order; on Linux the
kernel ends them too when this process is killed.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from guard.settings import child_environment
from slo.clock import Clock
from slo.errors import UpstreamError

# Asks the kernel for SIGTERM when the parent dies (prctl PR_SET_PDEATHSIG), then becomes the command itself.
_DIE_WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
_LAUNCH = ("-c", _DIE_WITH_PARENT) if sys.platform.startswith("linux") else ()
_POLL_S = 0.05
_LOG_TAIL = 6


class Child:
    """One process; its output goes to a log file."""

    def __init__(self, name: str, command: Sequence[str], directory: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
                [sys.executable, *_LAUNCH, *command],
                cwd=directory,
                env=child_environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def reload(self) -> None:
        """SIGHUP."""
        self._process.send_signal(signal.SIGHUP)

    def check(self) -> None:
        """Raises UpstreamError with the end of its log when it has ended."""
        if not self.running:
            raise UpstreamError(f"{self.name} ended with status {self._process.returncode}: {self.tail()}")

    def tail(self) -> str:
        """The last lines of its log, as one line."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-_LOG_TAIL:]) or "it said nothing"

    async def printed(self, marker: str, clock: Clock, *, within_s: float) -> str:
        """Wait for the first line of its output that holds `marker` and return it.

        Raises:
            UpstreamError: it ended, or said nothing of the kind in time.
        """
        end_s = clock.now_s() + within_s
        while clock.now_s() < end_s:
            for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
                if marker in line:
                    return line
            self.check()
            await clock.sleep(_POLL_S)
        raise UpstreamError(f"{self.name} was not ready within {within_s:g} s: {self.tail()}")

    async def stop(self, within_s: float = 8.0) -> None:
        """SIGTERM, then SIGKILL after `within_s`."""
        if self.running:
            self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)


class Children:
    """All of them, stopped in the reverse order of their start."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._children: list[Child] = []

    async def __aenter__(self) -> Children:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.shield(self._stop())

    def start(self, name: str, command: Sequence[str], environment: dict[str, str] | None = None) -> Child:
        """Start one more; `command` is what follows the interpreter."""
        child = Child(name, command, self._directory, environment or {})
        self._children.append(child)
        return child

    def check(self) -> None:
        """Raises UpstreamError when any has ended."""
        for child in self._children:
            child.check()

    async def _stop(self) -> None:
        while self._children:
            await self._children.pop().stop()
