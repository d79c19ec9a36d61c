"""Relay of one answer's body: what may go to the client now, and what is remembered of it.

`EventRelay` forwards an event stream as whole events only, `ByteRelay` forwards bytes as they come. Both keep a bounded
capture for the checks.
"""

from __future__ import annotations

import zlib

from guard.ports import Reason
from guard.wire.dialect import StreamWatcher
from guard.wire.sse import EventSplitter, EventTooLarge

_OBSERVED_BYTES = 10 * 1024 * 1024  # what is unpacked of a compressed stream, to look for its end
_STEP_BYTES = 256 * 1024


class BodyCapture:
    """The first `limit_bytes` of a body, as the upstream sent it."""

    __slots__ = ("_left", "_pieces", "truncated")

    def __init__(self, limit_bytes: int) -> None:
        self._left = limit_bytes
        self._pieces: list[bytes] = []
        self.truncated = False

    def add(self, data: bytes) -> None:
        """Remember `data` as far as there is room."""
        if len(data) > self._left:
            self.truncated = True
            data = data[: self._left]
        if data:
            self._left -= len(data)
            self._pieces.append(data)

    def body(self) -> bytes:
        """What was remembered."""
        pieces = self._pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class ByteRelay:
    """Any body that is not relayed event by event."""

    __slots__ = ()

    def feed(self, data: bytes) -> bytes:
        """Bytes that may go out now."""
        return data

    def end(self) -> tuple[bytes, Reason]:
        """(last bytes, NONE when the answer is complete) after a clean end."""
        return b"", Reason.NONE


class EventRelay:
    """An event stream: whole events, without the usage event that only we had asked for."""

    __slots__ = ("_splitter", "_watcher")

    def __init__(self, watcher: StreamWatcher) -> None:
        self._watcher = watcher
        self._splitter = EventSplitter()

    def feed(self, data: bytes) -> bytes:
        """Bytes that may go out now.

        Raises:
            EventTooLarge: an event without end; nothing more may be forwarded.
        """
        see = self._watcher.see
        events = self._splitter.feed(data)
        if len(events) == 1:  # the usual case: the upstream flushes after each event
            return b"" if see(events[0]) else events[0]
        return b"".join([event for event in events if not see(event)])

    def end(self) -> tuple[bytes, Reason]:
        """(last bytes, NONE when the answer is complete) after a clean end."""
        watcher = self._watcher
        rest = self._splitter.rest()
        if watcher.complete or watcher.reason:
            # After the end, or after an error of the upstream's own, there is nothing left to protect.
            return rest, Reason.NONE
        if watcher.needs_marker:
            return (rest, Reason.NONE) if rest and self._is_end(rest) else (b"", Reason.UPSTREAM_CUT)
        if rest.strip(b"\r\n\t "):
            return b"", Reason.UPSTREAM_CUT
        return rest, Reason.NONE

    def _is_end(self, rest: bytes) -> bool:
        """Some servers leave the blank line after their last event out; then the end of the body ends it."""
        watcher = self._watcher
        watcher.see(rest)
        if not watcher.complete:
            watcher.reason = Reason.NONE  # Half an event is cut, not malformed.
        return watcher.complete


class PackedEventRelay:
    """An event stream that the upstream compressed although it was asked not to: forwarded as it is, only watched."""

    __slots__ = ("_events", "_left", "_unpacker", "_watcher")

    def __init__(self, watcher: StreamWatcher, coding: bytes) -> None:
        self._watcher = watcher
        self._events = EventSplitter()
        self._left = _OBSERVED_BYTES
        self._unpacker = zlib.decompressobj(31 if b"gzip" in coding.lower() else 15)

    def feed(self, data: bytes) -> bytes:
        """Bytes that may go out now: all of them."""
        packed = data
        while packed and self._left > 0:
            try:
                plain = self._unpacker.decompress(packed, min(self._left, _STEP_BYTES))
                for event in self._events.feed(plain):
                    self._watcher.see(event)
            except (zlib.error, EventTooLarge):
                self._left = 0  # It cannot be followed any further; its end will not be seen.
            else:
                self._left -= len(plain) + 1
                packed = self._unpacker.unconsumed_tail
        return data

    def end(self) -> tuple[bytes, Reason]:
        """(nothing, NONE when the terminal marker was seen) after a clean end."""
        watcher = self._watcher
        seen = watcher.complete or watcher.reason or not watcher.needs_marker
        return b"", Reason.NONE if seen else Reason.UPSTREAM_CUT
