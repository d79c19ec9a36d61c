"""An event loop whose clock jumps to the next timer: a day of waiting takes no time at all.

Use it by parametrising the anyio backend (see tests/conftest.py): tests marked `@pytest.mark.anyio` that ask for the
fixture `virtual_time` run on it. Real I/O inside such a test does not move the clock.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class JumpingSelector(selectors.DefaultSelector):
    """Never waits: when nothing is ready it moves the clock by what the loop wanted to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self.now_s += timeout  # nothing to do until then, so be there
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and moves only when everybody waits."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s
