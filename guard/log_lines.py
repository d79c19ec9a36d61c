"""The program's own log on stderr: one event is one line, and a reader that stopped reading stops nobody.

A full pipe makes a plain `logging.StreamHandler` wait inside the event loop, and with it every answer. Here lines go
through a bounded queue to a thread of their own; what does not fit is counted and the next line says how many are gone.
"""

from __future__ import annotations

import collections
import logging
import os
import threading
import time
from collections.abc import Callable

QUEUE_COUNT = 1000
LINE_CHARS = 8000
FLUSH_S = 1.0

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_ESCAPED = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
_ESCAPED |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def one_line(text: str) -> str:
    """Text with control characters, line ends of any script and direction marks written as escapes, cut at a length.

    >>> one_line("a\\nb\\x1b[2J\\u2028c")
    'a\\\\nb\\\\x1b[2J\\\\u2028c'
    """
    if len(text) > LINE_CHARS:
        text = text[:LINE_CHARS] + "..."
    return text.translate(_ESCAPED)


class _OneLine(logging.Formatter):
    """Times are UTC and say so, like those of incidents, reports and `/status`."""

    converter = staticmethod(time.gmtime)
    default_time_format, default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


class LineHandler(logging.Handler):
    """Writes to a descriptor from a thread of its own. `dropped_count`: lines that found the queue full.

    on_drop is told of each of them, from whichever thread logged.
    """

    def __init__(self, descriptor: int = 2, on_drop: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.setFormatter(_OneLine(_FORMAT))
        self.on_drop = on_drop
        self.dropped_count = 0
        self._told_count = 0
        self._descriptor = descriptor
        self._lines: collections.deque[bytes] = collections.deque()
        self._more = threading.Condition()
        self._idle = True
        # A daemon: a write that never returns must not keep the process alive.
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one event; never waits for the reader."""
        try:
            line = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        except Exception:
            self.handleError(record)
            return
        with self._more:
            full = len(self._lines) >= QUEUE_COUNT
            if full:
                self._lines.popleft()  # the newest say what is happening now
                self.dropped_count += 1
            self._lines.append(line)
            self._more.notify()
        if full:
            self.on_drop()

    def flush(self) -> None:
        """Wait until everything is written, at most `FLUSH_S`."""
        with self._more:
            self._more.wait_for(lambda: self._idle and not self._lines, FLUSH_S)

    def _write_all(self) -> None:
        while True:
            with self._more:
                self._idle = True
                self._more.notify_all()
                self._more.wait_for(lambda: bool(self._lines))
                self._idle = False
                line = self._lines.popleft()
                gone, self._told_count = self.dropped_count - self._told_count, self.dropped_count
            if gone:
                line = b"%d lines of this log were dropped: nobody read it\n" % gone + line
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                pass  # Nobody is there any more; there is no place left to say so.


def log_to_stderr(level: int = logging.INFO) -> LineHandler:
    """Make stderr the only place of the root logger; returns its handler."""
    handler = LineHandler()
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    return handler
