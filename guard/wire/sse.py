"""Server-sent events as bytes: cut a stream into whole events, and read one event.

Only whole events are handed out, so that nobody downstream ever sees half of one; joined together they are the stream
again, byte for byte. Line ends may be LF, CRLF or CR, and a chunk may end anywhere, inside a character or a CRLF too.
"""

from __future__ import annotations

import re

_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventTooLarge(Exception):
    """One event is larger than the limit; it would have to be held in memory until its end."""


class EventSplitter:
    """Cuts a byte stream after each blank line. Holds at most one unfinished event of `limit_bytes`."""

    __slots__ = ("_held", "_held_bytes", "_limit_bytes", "_tail")

    def __init__(self, limit_bytes: int = 1024 * 1024) -> None:
        self._limit_bytes = limit_bytes
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._tail = b""  # last three bytes of what is held: a blank line may lie across two chunks

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that `data` completes, each with its blank line.

        Raises:
            EventTooLarge: the unfinished event has outgrown the limit.

        >>> splitter = EventSplitter()
        >>> splitter.feed(b"data: a\\n\\nda"), splitter.feed(b"ta: b\\r\\n\\r\\n")
        ([b'data: a\\n\\n'], [b'data: b\\r\\n\\r\\n'])
        """
        events: list[bytes] = []
        before = len(self._tail)
        probe = self._tail + data if before else data
        start = 0  # in `data`
        if b"\r" in probe:
            for match in _BLANK_LINE.finditer(probe):
                end = match.end() - before
                if end > start:
                    events.append(self._take(data[start:end]))
                    start = end
        else:
            found = probe.find(b"\n\n")
            while found >= 0:
                end = found + 2 - before
                if end > start:
                    events.append(self._take(data[start:end]))
                    start = end
                found = probe.find(b"\n\n", found + 2)
        if start < len(data):
            rest = data[start:] if start else data
            self._held.append(rest)
            self._held_bytes += len(rest)
            self._tail = (self._tail + rest)[-3:] if self._held_bytes > len(rest) else rest[-3:]
            if self._held_bytes > self._limit_bytes:
                raise EventTooLarge(f"an event of more than {self._limit_bytes} bytes")
        return events

    def _take(self, last: bytes) -> bytes:
        if not self._held:
            return last
        self._held.append(last)
        event = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        self._tail = b""
        return event

    def rest(self) -> bytes:
        """What is held and not yet an event."""
        return b"".join(self._held)


def read_event(raw: bytes) -> tuple[bytes, bytes | None]:
    """Return (event name, data) of one whole event; data None: a comment or an empty event.

    >>> read_event(b"event: error\\ndata: a\\ndata: b\\n\\n")
    (b'error', b'a\\nb')
    """
    # The one form that nearly every server sends.
    if raw.startswith(b"data: ") and raw.endswith(b"\n\n") and raw.find(b"\n") == len(raw) - 2 and b"\r" not in raw:
        return b"", raw[6:-2]
    name = b""
    data: list[bytes] = []
    for line in _LINE_END.split(raw.removeprefix(_BOM)):
        field, colon, value = line.partition(b":")
        if colon and value.startswith(b" "):
            value = value[1:]
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return name, b"\n".join(data) if data else None
