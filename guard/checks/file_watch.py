"""Whether the files that a detector was loaded from are still those on the disk.

A model file that is swapped under a running detector is a detector nobody has measured: what is in memory is old, what
comes after the next restart is something else. So a change is told at the next heartbeat, and stays told until the old
bytes are back or the guard is started again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

CHUNK_BYTES = 1 << 20

Stamp = tuple[int, int, int, int]


class FileWatch:
    """Remembers files by SHA-256; looks at their bytes again only when size, times or inode moved.

    paths: read now. known: path -> SHA-256 of files that were hashed elsewhere, when they were loaded.
    Raises (constructor): OSError when a file of `paths` cannot be read.
    """

    def __init__(self, paths: Iterable[Path] = (), known: Mapping[str, str] | None = None) -> None:
        self._wanted: dict[Path, str] = {Path(p): digest for p, digest in (known or {}).items()}
        self._seen: dict[Path, tuple[Stamp, str]] = {}
        for path in paths:
            stamp = _stamp(path)
            self._wanted[path] = digest = file_sha256(path)
            self._seen[path] = (stamp, digest)

    @property
    def file_count(self) -> int:
        """Files watched."""
        return len(self._wanted)

    def changed(self) -> str:
        """Which file is not what was loaded, "" when all are. A few microseconds while nothing moved."""
        for path, wanted in self._wanted.items():
            try:
                stamp = _stamp(path)
                seen = self._seen.get(path)
                if seen is None or seen[0] != stamp:
                    seen = self._seen[path] = (stamp, file_sha256(path))
            except OSError as error:
                return f"{path.name} cannot be read any more ({error.strerror}); put it back, or restart the guard"
            if seen[1] != wanted:
                return (
                    f"{path.name} was changed on disk after it was loaded (sha256 {wanted[:12]} -> {seen[1][:12]}); "
                    "put it back, or restart the guard to measure the new one"
                )
        return ""


def file_sha256(path: Path) -> str:
    """Hex digest of a file. Raises OSError."""
    digest = sha256()
    with path.open("rb") as source:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _stamp(path: Path) -> Stamp:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
