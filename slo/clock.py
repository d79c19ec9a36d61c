"""The only place that asks for the time. Windows and deadlines use `now_s`; `wall_s` is a label."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Time as three questions."""

    def now_s(self) -> float:
        """Monotonic seconds; the origin means nothing."""
        ...

    def wall_s(self) -> float:
        """Unix seconds; may jump; for labels, signatures and file names only."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` of monotonic time pass."""
        ...


class SystemClock:
    """Monotonic and wall time of this machine."""

    def now_s(self) -> float:
        return time.monotonic()

    def wall_s(self) -> float:
        return time.time()  # noqa: TID251 - this is the one place.

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class HandClock:
    """Time that moves only when somebody moves it: for replays, simulations and tests.

    at_s: monotonic seconds, to be set as well. wall_origin_s: Unix seconds at 0.
    """

    def __init__(self, at_s: float = 0.0, wall_origin_s: float = 0.0) -> None:
        self.at_s, self.wall_origin_s = at_s, wall_origin_s

    def now_s(self) -> float:
        return self.at_s

    def wall_s(self) -> float:
        return self.wall_origin_s + self.at_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.at_s += seconds

    async def sleep(self, seconds: float) -> None:
        """Nobody waits: the time is over at once."""
        self.advance(seconds)


class LoopClock:
    """Time of the running event loop, so that a virtual loop moves both clocks together."""

    def __init__(self, wall_origin_s: float = 1_750_000_000.0) -> None:
        self.wall_origin_s = wall_origin_s

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_s(self) -> float:
        return self.wall_origin_s + self.now_s()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
