"""One process per state directory: a lock of the operating system, which ends with its holder however that dies."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from slo.errors import DataError

NAME = "lock"


class OwnerLock:
    """An exclusive flock on a file in the directory; the file says who, for the message to the next one."""

    def __init__(self, directory: Path) -> None:
        path = directory / NAME
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataError(f"{path}: cannot be opened ({error.strerror}); make the directory writable") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            who = _holder(self._fd)
            self.release()
            raise DataError(
                f"{directory}: another sft-guard uses this state directory ({who}); stop it, or give this one a "
                "state_dir of its own"
            ) from error
        except OSError as error:
            self.release()
            raise DataError(f"{path}: cannot be locked ({error.strerror}); use a local disk") from error
        with suppress(OSError):  # On a full disk the lock holds all the same; only the name is missing.
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next one in; also done by the operating system when this process ends."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _holder(fd: int) -> str:
    try:
        text = os.pread(fd, 20, 0).decode("ascii", errors="replace").strip()
    except OSError:
        text = ""
    return f"pid {text}" if text.isdigit() else "pid not known"
