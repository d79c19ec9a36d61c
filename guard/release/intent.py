"""One promise on disk, written in place: what a rollback is about to do.

The file is allocated once, at its full size, so that writing it needs no free block and no SQLite. A record is magic,
length, SHA-256, payload. A torn record fails its hash and reads as "no promise": then nothing had been begun, because
every effect comes after the fsync.
"""

from __future__ import annotations

import errno
import os
from hashlib import sha256
from pathlib import Path

from slo.errors import GuardError

SIZE_BYTES = 64 * 1024
_MAGIC = b"sft-intent-1\n\0\0\0"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_HEAD_BYTES = len(_MAGIC) + 8 + 32


class IntentError(GuardError):
    """The promise could not be made durable; `reason` is from a closed set: disk_full, disk_fault, too_large."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class IntentFile:
    """A preallocated file that holds one record or none."""

    def __init__(self, path: Path, size_bytes: int = SIZE_BYTES) -> None:
        self.path = path
        self._size_bytes = size_bytes
        self._fd = self._open()

    def write(self, payload: bytes) -> None:
        """Make `payload` durable in place of what was there.

        Raises:
            IntentError: it is not durable. After a failed fsync the descriptor is given up for good: the kernel may
                have dropped the dirty pages, and a second fsync on it would report a success that never happened.
        """
        if len(payload) > self._size_bytes - _HEAD_BYTES:
            raise IntentError("too_large", f"{self.path}: {len(payload)} bytes; room for {self._size_bytes} in all")
        self._put(_MAGIC + len(payload).to_bytes(8, "big") + sha256(payload).digest() + payload)

    def clear(self) -> None:
        """The promise was kept: forget it."""
        self._put(b"\0" * _HEAD_BYTES)

    def read(self) -> bytes | None:
        """Return the promise, None when there is none or it is torn."""
        if self._fd < 0:
            self._fd = self._open()
        try:
            data = os.pread(self._fd, self._size_bytes, 0)
        except OSError as error:
            raise IntentError(
                "disk_fault", f"{self.path}: cannot be read ({error.strerror}); check the disk"
            ) from error
        if not data.startswith(_MAGIC):
            return None
        at = len(_MAGIC)
        length = int.from_bytes(data[at : at + 8], "big")
        payload = data[_HEAD_BYTES : _HEAD_BYTES + length]
        return payload if len(payload) == length and sha256(payload).digest() == data[at + 8 : _HEAD_BYTES] else None

    def close(self) -> None:
        """Close the file; what it holds stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _put(self, record: bytes) -> None:
        try:
            if self._fd < 0:
                self._fd = self._open()
            view, at = memoryview(record), 0
            while at < len(view):
                at += os.pwrite(self._fd, view[at:], at)
            os.fdatasync(self._fd)  # The size never changes, so data is all there is to flush.
        except OSError as error:
            self.close()
            full = error.errno in _FULL
            raise IntentError(
                "disk_full" if full else "disk_fault",
                f"{self.path}: not durable ({error.strerror or error}); check the disk, the guard reopens the file",
            ) from error

    def _open(self) -> int:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            missing = self._size_bytes - os.fstat(fd).st_size
            if missing > 0:
                # Real zeros, not a hole: a hole needs blocks later, when there may be none.
                os.pwrite(fd, b"\0" * missing, self._size_bytes - missing)
                os.fsync(fd)
                directory = os.open(self.path.parent, os.O_RDONLY)
                try:
                    os.fsync(directory)
                finally:
                    os.close(directory)
        except OSError as error:
            full = error.errno in _FULL
            raise IntentError(
                "disk_full" if full else "disk_fault",
                f"{self.path}: cannot be prepared ({error.strerror}); free some space or move the state directory",
            ) from error
        return fd
