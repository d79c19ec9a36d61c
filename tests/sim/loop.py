"""An event loop without file descriptors: only timers and ready callbacks, and time that jumps to the next timer."""

from __future__ import annotations

import asyncio
from typing import Any


class _Jump:
    """In the place of a selector: nothing is ever ready, waiting takes no time."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everybody waits and no timer is set: the simulation would stand still")
        if timeout > 0:
            self.now_s += timeout
        return []


class SimLoop(asyncio.BaseEventLoop):
    """`time()` starts at 0. Made anew for each run: the order of everything depends on the seed alone."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Jump()
        self._clock_resolution = 1e-9
        self.set_exception_handler(lambda _loop, _context: None)  # what dies with a replica is of no interest

    def time(self) -> float:
        return self._selector.now_s

    def _process_events(self, _events: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""
