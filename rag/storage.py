"""The files of a knowledge base on disk: always the old generation or the new one, never a mixture.

    kb.jsonl  kb.index  mappings.json  kb_meta.json     the content
    manifest.json                                       SHA-256 and size of each; checked at every open
    .next/                                              a committed generation on its way to its place

A write prepares everything in `.next.tmp/`, syncs it, and renames it to `.next/`: that rename is the commit. Moving
the files to their place afterwards can be interrupted anywhere and is finished by the next writer; until then readers
take each file from `.next/` first. FAISS itself loads most damaged index files without a word, so nothing is decoded
before its hash was compared.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from slo.errors import DataError, RefusedError

ROWS, INDEX, MAPPINGS, META = "kb.jsonl", "kb.index", "mappings.json", "kb_meta.json"
CONTENT_FILES = (ROWS, INDEX, MAPPINGS, META)
MANIFEST = "manifest.json"

_NEXT, _TEMPORARY, _LOCK = ".next", ".next.tmp", ".lock"
_READ_TRIES = 5  # a reader may meet a writer that is moving files; five times in a row it is damage


@dataclass(frozen=True, slots=True)
class Generation:
    """One consistent state. manifest_hash identifies it; files: name to content."""

    manifest_hash: str
    files: Mapping[str, bytes]


def exists(directory: Path) -> bool:
    """Whether a knowledge base was ever committed here."""
    return (directory / MANIFEST).exists() or (directory / _NEXT).exists()


@contextmanager
def writer_lock(directory: Path) -> Iterator[None]:
    """Hold the directory for one writer.

    Raises:
        RefusedError: `locked`, somebody else is writing.
        DataError: the directory cannot be written to.
    """
    try:
        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise DataError(f"{directory}: cannot be written ({error.strerror}); check path and permissions") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError("locked", f"{directory}: another process is adding to it; try again later") from error
        yield
    finally:
        os.close(descriptor)


def commit(directory: Path, files: Mapping[str, bytes]) -> Generation:
    """Replace the content by `files`, all or nothing. Hold `writer_lock`.

    Raises:
        DataError: disk full, no permission...; what was there before is still there.
    """
    manifest = msgspec.json.encode(
        {"files": {name: {"sha256": sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}}
    )
    temporary = directory / _TEMPORARY
    try:
        finish_commit(directory)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, data in (*files.items(), (MANIFEST, manifest)):
            _write_synced(temporary / name, data)
        _sync_directory(temporary)
        temporary.rename(directory / _NEXT)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise DataError(
            f"{directory}: cannot be written ({error.strerror}); nothing was added, free space and add again"
        ) from error
    try:
        _sync_directory(directory)
    except OSError as error:
        raise DataError(f"{directory}: added, but the disk did not confirm it ({error.strerror}); check it") from error
    finish_commit(directory)
    return Generation(sha256(manifest).hexdigest(), dict(files))


def finish_commit(directory: Path) -> None:
    """Move a committed generation to its place; safe to repeat. Hold `writer_lock`.

    Raises:
        DataError: it could not be moved now; readers see it all the same, and the next writer tries again.
    """
    waiting = directory / _NEXT
    if not waiting.is_dir():
        return
    try:
        if (waiting / MANIFEST).exists():
            _move(waiting, directory)
        shutil.rmtree(waiting)
    except OSError as error:
        raise DataError(f"{directory}: added, but not moved to its place yet ({error.strerror}); add again") from error


def _move(waiting: Path, directory: Path) -> None:
    named = set(_decode_manifest((waiting / MANIFEST).read_bytes(), waiting))
    for name in CONTENT_FILES:
        if (waiting / name).exists():
            (waiting / name).replace(directory / name)
        elif name not in named:
            (directory / name).unlink(missing_ok=True)
    _sync_directory(directory)
    # Last: from here on readers take everything from the directory itself.
    (waiting / MANIFEST).replace(directory / MANIFEST)
    _sync_directory(directory)


def read(directory: Path) -> Generation:
    """Read and verify. Takes no lock and writes nothing, so it works on a read-only disk.

    Raises:
        DataError: nothing there, a file missing, truncated, changed or longer than it was.
    """
    problem = ""
    for _ in range(_READ_TRIES):
        try:
            manifest = _read_file(directory, MANIFEST)
        except FileNotFoundError as error:
            if any((directory / name).exists() for name in CONTENT_FILES):
                raise DataError(
                    f"{directory}: {MANIFEST} is missing, so the files cannot be verified; import them with "
                    f"sft-guard kb init --kb NEW and kb add --kb NEW --jsonl {directory / ROWS}"
                ) from error
            raise DataError(f"{directory}: no knowledge base here; sft-guard kb init --kb {directory}") from error
        except OSError as error:
            raise DataError(f"{directory}: cannot be read ({error.strerror}); check permissions") from error
        files: dict[str, bytes] = {}
        problem = ""
        for name, (digest, size) in _decode_manifest(manifest, directory).items():
            try:
                data = _read_file(directory, name)
            except OSError as error:
                problem = f"{name}: {error.strerror}"
                break
            if len(data) != size or sha256(data).hexdigest() != digest:
                problem = f"{name}: {len(data)} bytes do not match the manifest ({size} bytes, sha256 {digest[:12]})"
                break
            files[name] = data
        if not problem:
            return Generation(sha256(manifest).hexdigest(), files)
    raise DataError(
        f"{directory}: {problem}; damaged, refused: restore the directory from a copy, or build it again from its rows"
    )


def append_lines(path: Path, lines: list[bytes]) -> None:
    """Append whole lines and sync. A torn last line of an earlier crash is ended first."""
    try:
        with path.open("ab+") as file:
            if file.tell() and _last_byte(file.fileno(), file.tell()) != b"\n":
                file.write(b"\n")
            file.write(b"".join(line + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); free space or check permissions") from error


def _last_byte(descriptor: int, size: int) -> bytes:
    return os.pread(descriptor, 1, size - 1)


def _read_file(directory: Path, name: str) -> bytes:
    try:
        return (directory / _NEXT / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return (directory / name).read_bytes()


def _decode_manifest(data: bytes, directory: Path) -> dict[str, tuple[str, int]]:
    try:
        decoded = msgspec.json.decode(data, type=dict[str, dict[str, dict[str, str | int]]])
        if msgspec.json.encode(decoded) != data:  # one form only: even a changed space is a change
            raise ValueError("it was edited")
        entries = decoded["files"]
        found = {name: (str(entry["sha256"]), int(entry["bytes"])) for name, entry in entries.items()}
    except (msgspec.DecodeError, KeyError, ValueError) as error:
        raise DataError(
            f"{directory / MANIFEST}: not a manifest ({error}); restore the directory from a copy"
        ) from error
    if not set(found) <= set(CONTENT_FILES) or not {ROWS, MAPPINGS, META} <= set(found):
        raise DataError(f"{directory / MANIFEST}: names {sorted(found)}; restore the directory from a copy")
    return found


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
