"""The exchange log: every exchange as one JSON line, for baselines, replay and post-mortems.

    checked() on the event loop -> bounded queue -> writer thread -> segments on disk

The loop never waits for the disk: a full queue drops and counts. A full or failing disk drops and counts too, traffic
goes on, and writing resumes by itself. Each line is either in a segment or in `on_drop` with its reason.
"""

from __future__ import annotations

import errno
import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from exporters.segments import DiskFile, Opener, Segment, open_segment, prune, repair
from slo.clock import Clock, SystemClock
from slo.codec import encode_exchange, encode_exchanges
from slo.types import Exchange, Finding

log = logging.getLogger("sft_guard.exchange_log")

TEXT_MODES = ("none", "redacted", "full")
LINE_BYTES = 512 * 1024
"""Longest line; an exchange whose text makes it longer is kept without its text."""
STRING_CHARS = 16_384
LIST_ITEMS = 32

_CHUNK_BYTES = 1024 * 1024
_POLL_S = 0.25
_RETRY_S = 1.0
_WARN_EVERY_S = 60.0

# JSON escapes C0 only. U+2028, U+0085 and their kind end a line for some readers, U+009B starts an ANSI sequence.
_UNSAFE = re.compile(rb"\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]|\xc2[\x80-\x9f]|\x7f")


class ExchangeLog:
    """Append-only segments under `directory`; a `Recorder` of `exporters.fanout`.

    text_mode: "none" leaves the words out; "redacted" and "full" write them as they come, redaction having been done
    by whoever calls. segment_bytes: a segment is closed at this size, and at every full hour. keep_days,
    max_total_bytes: closed segments beyond are deleted, oldest first. on_drop: told (reason, line count) from any
    thread. clock: one that works outside the event loop, or the system's is taken. queue_bytes: lines waiting for the
    disk. opener: opens a segment file; a test plugs in a failing one. on_closed: told from the writer thread that there
    are closed segments, at the start and whenever one is closed while running.
    """

    def __init__(
        self,
        directory: Path,
        *,
        text_mode: str = "redacted",
        segment_bytes: int = 64 * 1024 * 1024,
        keep_days: float = 35.0,
        max_total_bytes: int = 4 * 1024 * 1024 * 1024,
        clock: Clock,
        on_drop: Callable[[str, int], None] = lambda reason, count: None,
        queue_bytes: int = 16 * 1024 * 1024,
        opener: Opener = DiskFile,
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        if text_mode not in TEXT_MODES:
            raise ValueError(f"text_mode: got {text_mode!r}; write one of {', '.join(TEXT_MODES)}")
        self.directory = Path(directory)
        self.written_count = 0
        self.dropped_count: dict[str, int] = {}
        self._with_text = text_mode != "none"
        self._segment_bytes = segment_bytes
        self._keep_days = keep_days
        self._max_total_bytes = max_total_bytes
        self._clock = clock
        self._on_drop = on_drop
        self._queue_bytes = queue_bytes
        self._opener = opener
        self._on_closed = on_closed
        self._lock = threading.Lock()
        self._queue: list[bytes] = []
        self._queued_bytes = 0
        self._closing = False
        self._wake = threading.Event()
        self._flushed = threading.Condition()
        self._flush_asked = self._flush_done = 0
        self._segment: Segment | None = None
        self._last_name = ""
        self._retry_at_s: float | None = None
        self._fault_reason = "internal"
        self._warned_at_s: float | None = None
        self._unwarned: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="exchange-log", daemon=True)
        self._thread.start()

    # -- event loop ---------------------------------------------------------------------------------------------

    def served(self, exchange: Exchange) -> None:
        """Nothing: an exchange is written once, when its findings are known."""

    def served_many(self, exchanges: Iterable[Exchange]) -> None:
        """Nothing, as above."""

    def checked(self, exchange: Exchange, text: Mapping[str, object] | None = None) -> None:
        """Queue one exchange. Never waits, never raises for the disk's sake.

        The line is made here: made by the writer it would hold the interpreter for whole batches at a time.
        """
        line = self._line(exchange, text if self._with_text else None)
        if line is None:
            self._drop("unencodable", 1)
        else:
            self._queue_lines([line])

    def given_up(self, exchanges: Sequence[Exchange], findings: tuple[Finding, ...]) -> None:
        """`checked`, without text, for many exchanges that share their findings: these are encoded once."""
        try:
            self._queue_lines(_one_line(encode_exchanges(exchanges, findings)).splitlines(keepends=True))
            return
        except (ValueError, TypeError):  # A lone surrogate, say, in one of them.
            pass
        for exchange in exchanges:
            try:
                self._queue_lines([_one_line(encode_exchanges((exchange,), findings))])
            except (ValueError, TypeError):
                self._drop("unencodable", 1)

    def _queue_lines(self, lines: list[bytes]) -> None:
        bytes_, reason = sum(map(len, lines)), ""
        with self._lock:
            if self._closing:
                lines, dropped_count, reason = [], len(lines), "closed"
            elif self._queued_bytes + bytes_ > self._queue_bytes:
                kept = self._fitting(lines)
                lines, dropped_count, reason = kept, len(lines) - len(kept), "queue_full"
                bytes_ = sum(map(len, kept))
            self._queue += lines
            self._queued_bytes += bytes_
            urgent = self._queued_bytes * 4 > self._queue_bytes
        if reason:
            self._drop(reason, dropped_count)
        if urgent and lines:
            self._wake.set()

    def _fitting(self, lines: list[bytes]) -> list[bytes]:
        """Those of `lines` there is room for, in their order; under the lock."""
        room, kept = self._queue_bytes - self._queued_bytes, []
        for line in lines:
            if len(line) <= room:
                kept.append(line)
                room -= len(line)
        return kept

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until what was queued before is in a file or counted as dropped. False: the disk took too long."""
        with self._flushed:
            self._flush_asked += 1
            wanted = self._flush_asked
            self._wake.set()
            return self._flushed.wait_for(lambda: self._flush_done >= wanted or not self._thread.is_alive(), timeout_s)

    def close(self, timeout_s: float = 10.0) -> bool:
        """Write what is queued, close the segment, stop. False: the disk took longer than `timeout_s`."""
        with self._lock:
            self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # -- making a line ------------------------------------------------------------------------------------------

    def _line(self, exchange: Exchange, text: Mapping[str, object] | None) -> bytes | None:
        attempts = (_capped(text), None) if text else (None,)
        for words in attempts:
            try:
                line = encode_exchange(exchange, words)
            except (ValueError, TypeError):  # A lone surrogate, say: keep the numbers at least.
                continue
            if len(line) <= LINE_BYTES:
                return _one_line(line) + b"\n"
        return None

    # -- writer thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._clock.now_s()
        except RuntimeError:  # A clock of the event loop cannot be asked from this thread.
            self._clock = SystemClock()
        self._guarded(self._start)
        while True:
            self._wake.wait(_POLL_S)
            self._wake.clear()
            with self._lock:
                closing = self._closing
            with self._flushed:
                asked = self._flush_asked
            if closing or asked > self._flush_done or not self._blocked():
                self._guarded(self._drain)
            self._guarded(self._rotate_by_hour)
            self._warn()
            with self._flushed:
                self._flush_done = asked
                self._flushed.notify_all()
            if closing:
                self._guarded(self._close_segment)
                return

    def _guarded(self, step: Callable[[], None]) -> None:
        """Run one step; a fault of the disk is counted and tried again later, never the end of the thread."""
        try:
            step()
        except OSError as error:
            self._fault(error)
        except Exception:  # The thread must outlive any mistake in here, or the queue fills for good.
            log.exception("exchange log: unexpected fault")
            self._retry_at_s = self._clock.now_s() + _RETRY_S

    def _start(self) -> None:
        if self.directory.is_dir():
            cut_bytes = repair(self.directory)
            if cut_bytes:
                log.warning("exchange log: cut %d bytes of a torn last line in %s", cut_bytes, self.directory)
            self._prune()
            self._on_closed()

    def _drain(self) -> None:
        with self._lock:
            lines, self._queue = self._queue, []
            self._queued_bytes = 0
        at = 0
        try:
            while at < len(lines):
                written = self._append(lines, at)
                if written == 0:
                    break
                at += written
        finally:
            if at < len(lines):
                self._drop(self._fault_reason, len(lines) - at)

    def _append(self, lines: list[bytes], at: int) -> int:
        """Write some of `lines[at:]` and return how many; 0 after a fault."""
        self._fault_reason = "internal"
        try:
            segment = self._open()
        except OSError as error:
            self._fault(error)
            return 0
        chunk: list[bytes] = []
        room = min(_CHUNK_BYTES, max(1, self._segment_bytes - segment.size))
        while at + len(chunk) < len(lines) and room > 0:
            chunk.append(lines[at + len(chunk)])
            room -= len(chunk[-1])
        written = segment.append(chunk)
        self.written_count += written
        if segment.error is not None:
            self._fault(segment.error)
            if segment.torn:
                self._segment = None
                segment.abandon()
        elif segment.size >= self._segment_bytes:
            self._close_segment()
        else:
            self._retry_at_s = None
        return written

    def _open(self) -> Segment:
        self._rotate_by_hour()
        if self._segment is None:
            self._segment = open_segment(self.directory, self._clock.wall_s(), self._opener, self._last_name)
            self._last_name = self._segment.path.name
        return self._segment

    def _rotate_by_hour(self) -> None:
        if self._segment is not None and self._segment.hour != int(self._clock.wall_s() // 3600):
            self._close_segment()

    def _close_segment(self) -> None:
        # Forgotten first: after a failed sync the same descriptor must never be asked again.
        segment, self._segment = self._segment, None
        if segment is not None:
            try:
                segment.close()
            except OSError as error:
                self._fault(error)
            self._prune()
            if not self._closing:
                self._on_closed()

    def _prune(self) -> None:
        try:
            prune(
                self.directory, self._clock.wall_s(), keep_days=self._keep_days, max_total_bytes=self._max_total_bytes
            )
        except OSError as error:
            self._fault(error)

    def _blocked(self) -> bool:
        return self._retry_at_s is not None and self._clock.now_s() < self._retry_at_s

    def _fault(self, error: OSError) -> None:
        self._retry_at_s = self._clock.now_s() + _RETRY_S
        self._fault_reason = _reason(error)
        with self._lock:
            self._unwarned.setdefault(error.strerror or str(error), 0)

    # -- counting -----------------------------------------------------------------------------------------------

    def _drop(self, reason: str, count: int) -> None:
        with self._lock:
            self.dropped_count[reason] = self.dropped_count.get(reason, 0) + count
            self._unwarned[reason] = self._unwarned.get(reason, 0) + count
        try:
            self._on_drop(reason, count)
        except Exception:  # Whoever counts must not stop the log.
            log.debug("exchange log: on_drop failed", exc_info=True)

    def _warn(self) -> None:
        """At most one line per minute, with everything since the last one."""
        now_s = self._clock.now_s()
        if not self._unwarned or (self._warned_at_s is not None and now_s - self._warned_at_s < _WARN_EVERY_S):
            return
        with self._lock:
            told, self._unwarned = self._unwarned, {}
        self._warned_at_s = now_s
        shown = ", ".join(f"{what} ({count})" if count else what for what, count in sorted(told.items()))
        log.warning(
            "exchange log: %d lines not written in %s: %s; answers go on, writing resumes by itself",
            sum(told.values()), self.directory, shown,
        )  # fmt: skip


def _one_line(line: bytes) -> bytes:
    """Escape what some reader may take for the end of the line or a terminal sequence."""
    if b"\x7f" not in line and (
        line.isascii() or not any(lead in line for lead in (b"\xe2\x80", b"\xe2\x81", b"\xc2"))
    ):
        return line  # Searching for a lead byte is fifty times faster than the expression.
    return _UNSAFE.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), line)


def _capped(text: Mapping[str, object]) -> dict[str, object]:
    """The words of one exchange, none longer than `STRING_CHARS`, no list longer than `LIST_ITEMS`."""
    capped: dict[str, object] = {}
    for name, value in text.items():
        if isinstance(value, (tuple, list)):
            capped[name] = [_cut(item) for item in value[:LIST_ITEMS]]
        elif value is not None:
            capped[name] = _cut(value)
    return capped


def _cut(value: object) -> object:
    return value[:STRING_CHARS] + "\u2026" if isinstance(value, str) and len(value) > STRING_CHARS else value


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk_full"
    return "io_error" if error.errno == errno.EIO else "unwritable"
