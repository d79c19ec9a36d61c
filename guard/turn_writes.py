"""What is written to sockets in one turn of the event loop goes out together at its end.

Each write to a socket of this machine wakes the program that waits for it, and waking costs more than writing. When a
turn of the loop has read from twenty connections, twenty writes in a row wake their readers once or twice instead of
twenty times: a fifth of the CPU of a busy guard. A turn that did one thing ends at once, so nothing waits for company.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

AT_ONCE_BYTES = 32 * 1024
"""From this size on a write is not held back: its bytes cost more than the waking, and they need not lie about."""

Write = Callable[[bytes], None]


class TurnWrites:
    """Writes waiting for the end of this turn of the loop, in their order."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[Write, bytes]] = []

    def add(self, write: Write, data: bytes) -> None:
        """Call `write(data)` at the end of this turn, after what was added before it."""
        waiting = self._waiting
        if len(data) >= AT_ONCE_BYTES:
            self.flush()
            write(data)
            return
        if not waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        waiting.append((write, data))

    def flush(self) -> None:
        """Write everything now: before a connection is closed or its end is announced."""
        waiting = self._waiting
        if not waiting:
            return
        self._waiting = []
        for write, data in waiting:
            try:
                write(data)
            except Exception as error:  # one connection's trouble must not cost the others their answers
                context = {"message": "data path: a write failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
