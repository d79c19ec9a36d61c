"""Append-only log segments on disk: naming, opening, closing, repair after a crash, retention.

    exchanges-20250615T150640Z-0000.jsonl.open   being written; locked by its process
    exchanges-20250615T150640Z-0000.jsonl        closed: synced, never touched again
    exchanges-20250615T150640Z-0000.parquet      the same one as columns (`exporters.parquet`); .part while being made

Names sort by time. A segment that a dead process left open is cut back to its last whole line and closed.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

OPEN_SUFFIX = ".open"
CLOSED_SUFFIX = ".jsonl"
PARQUET_SUFFIX = ".parquet"
PART_SUFFIX = ".part"
_NAME = re.compile(r"exchanges-(\d{8}T\d{6}Z)-(\d{4,})\.(?:jsonl|parquet)(\..+)?")
_TAIL_BYTES = 64 * 1024


class SegmentFile(Protocol):
    """What the writer needs of an open file; a test plugs in one that fails."""

    def write(self, data: memoryview) -> int:
        """Append and return how many bytes were taken. Raises OSError."""
        ...

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None: ...

    def close(self) -> None: ...


class DiskFile:
    """A file descriptor in append mode, locked so that a second process leaves it alone."""

    def __init__(self, path: Path) -> None:
        # O_EXCL: two processes that start in the same second get two names. 0600: the text of users is in here.
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, data: memoryview) -> int:
        return os.write(self._fd, data)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


Opener = Callable[[Path], SegmentFile]


def segment_name(wall_s: float, number: int) -> str:
    """Name of a segment being written.

    >>> segment_name(1750000000.0, 3)
    'exchanges-20250615T150640Z-0003.jsonl.open'
    """
    stamp = datetime.fromtimestamp(wall_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"exchanges-{stamp}-{number:04d}.jsonl{OPEN_SUFFIX}"


def segment_start_s(name: str) -> float | None:
    """Unix seconds in the name of a segment, None for a foreign file.

    >>> segment_start_s("exchanges-20250615T150640Z-0003.jsonl")
    1750000000.0
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        return datetime.strptime(match[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


class Segment:
    """The segment being written. `size` counts whole lines only."""

    def __init__(self, path: Path, file: SegmentFile, wall_s: float) -> None:
        self.path = path
        self.hour = int(wall_s // 3600)
        self.size = 0
        self.error: OSError | None = None
        self.torn = False
        self._file = file

    def append(self, lines: list[bytes]) -> int:
        """Append whole lines (each ends in a line feed) and return how many are in the file.

        A short count comes with `error` set. What was written of the next line is cut off again; where even that
        fails `torn` is set and the segment must be abandoned.
        """
        self.error = None
        data = memoryview(b"".join(lines))
        done = 0
        try:
            while done < len(data):
                done += self._file.write(data[done:])
        except OSError as error:
            self.error = error
        if done == len(data):
            self.size += done
            return len(lines)
        written = whole = 0
        for line in lines:
            if whole + len(line) > done:
                break
            whole += len(line)
            written += 1
        self.size += whole
        try:
            self._file.truncate(self.size)
        except OSError:
            self.torn = True  # The torn line must stay the last one of this file; go on in a new one.
        return written

    def close(self) -> None:
        """Sync, close and rename. Raises OSError; the descriptor is closed in any case, and never synced again."""
        try:
            self._file.sync()
        finally:
            self._file.close()
        if self.size == 0:
            self.path.unlink(missing_ok=True)
            return
        self.path.rename(self.path.with_suffix(""))
        sync_directory(self.path.parent)

    def abandon(self) -> None:
        """Close without trusting the file any more; the repair at the next start gives it its final name."""
        try:
            self._file.close()
        except OSError:
            pass  # It failed before; there is nothing left to save.


def open_segment(directory: Path, wall_s: float, opener: Opener, after: str = "") -> Segment:
    """Open the next segment. Raises OSError.

    after: name of the segment before, so that a second one within the same second sorts behind it even when that one
    has been deleted meanwhile.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    number = 0
    previous = _NAME.fullmatch(after)
    if previous is not None and previous[1] in segment_name(wall_s, 0):
        number = int(previous[2]) + 1
    while True:
        path = directory / segment_name(wall_s, number)
        closed = path.with_suffix("")
        if not closed.exists() and not closed.with_suffix(PARQUET_SUFFIX).exists():
            try:
                return Segment(path, opener(path), wall_s)
            except FileExistsError:
                pass  # Another process, or the same second after a crash.
        number += 1


def repair(directory: Path) -> int:
    """Close the segments that a dead process left open; return how many bytes of torn lines were cut.

    One that a living process holds locked is left alone. Raises OSError.
    """
    cut_bytes = 0
    for path in sorted(directory.glob(f"exchanges-*.jsonl{OPEN_SUFFIX}")):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            size = os.fstat(fd).st_size
            whole = _whole_lines_bytes(fd, size)
            if whole < size:
                os.ftruncate(fd, whole)
                cut_bytes += size - whole
            os.fsync(fd)
            if whole == 0:
                path.unlink()
            else:
                path.rename(path.with_suffix(""))
        finally:
            os.close(fd)
    if cut_bytes:
        sync_directory(directory)
    return cut_bytes


def prune(directory: Path, wall_s: float, *, keep_days: float, max_total_bytes: int) -> int:
    """Delete closed segments that are too old, then the oldest while all are too big; return how many.

    Raises OSError.
    """
    segments: list[tuple[float, str, int]] = []
    total = 0
    for path in directory.iterdir():
        start_s = segment_start_s(path.name)
        if start_s is None:
            continue
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            continue  # converted meanwhile
        total += size
        if not path.name.endswith((OPEN_SUFFIX, PART_SUFFIX)):
            segments.append((start_s, path.name, size))
    deleted = 0
    for start_s, name, size in sorted(segments):
        if wall_s - start_s <= keep_days * 86_400 and total <= max_total_bytes:
            break
        (directory / name).unlink(missing_ok=True)
        total -= size
        deleted += 1
    return deleted


def sync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _whole_lines_bytes(fd: int, size: int) -> int:
    """Size up to and including the last line feed."""
    end = size
    while end > 0:
        start = max(0, end - _TAIL_BYTES)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
