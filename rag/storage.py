"""The files of a knowledge base on disk: always the old generation or the new one, never a mixture.

    CURRENT                         pointer: number of the generation, SHA-256 of its manifest, signature
    generations/00000007/           manifest.json, kb_meta.json, tombstones.json
    segments/00000007-0/            kb.jsonl, kb.index, mappings.json, keys.bin, words.bin: never changed

A write makes new directories, syncs every file and then the directory, writes the manifest last, and replaces the
pointer: that is the commit. A generation names the segments it is made of, so adding writes what is added. FAISS itself
loads most damaged index files without a word, so nothing is decoded before its hash was compared.
"""

from __future__ import annotations

import fcntl
import hmac
import mmap
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from slo.codec import NOT_JSON
from slo.errors import DataError, RefusedError

ROWS, INDEX, MAPPINGS, KEYS, WORDS = "kb.jsonl", "kb.index", "mappings.json", "keys.bin", "words.bin"
META, TOMBSTONES = "kb_meta.json", "tombstones.json"
POINTER, MANIFEST = "CURRENT", "manifest.json"
GENERATIONS, SEGMENTS = "generations", "segments"
KEEP_COUNT = 5
"""Generations that stay on disk, the current one included: for readers that are still on them, and for going back."""

UNSIGNED, VERIFIED, UNCHECKED = "unsigned", "verified", "signed, not checked (no key)"

_LOCK, _TEMPORARY = ".lock", ".new"
_READ_TRIES = 5  # a reader may meet writers that clean up behind it; five times in a row it is damage
_SIGNED = "hmac-sha256:"
_NAME = re.compile(r"(?:generations/\d{8}/(?:kb_meta|tombstones)\.json|segments/\d{8}-\d+/[a-z_]+\.[a-z]+)")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a generation is made of. files: path to [SHA-256, bytes]; previous: hash of the manifest before it."""

    generation: int
    previous: str
    embedder_fingerprint: str
    files: dict[str, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Generation:
    """One consistent state, its manifest verified. signature: unsigned, verified, or not checked for want of a key."""

    number: int
    manifest_hash: str
    manifest: Manifest
    signature: str


@dataclass(frozen=True, slots=True)
class _Pointer:
    generation: int
    manifest_sha256: str
    signature: str
    sha256: str  # of the three before: a flipped bit in a signature that nobody checks is damage as well


def exists(directory: Path) -> bool:
    """Whether a knowledge base was ever committed here, or lies here in another layout."""
    segments = directory / SEGMENTS
    # Without pointer and segments it is an init that was interrupted.
    return (
        (directory / POINTER).exists() or (directory / ROWS).exists() or (segments.is_dir() and any(segments.iterdir()))
    )


@contextmanager
def writer_lock(directory: Path, name: str = _LOCK) -> Iterator[None]:
    """Hold the directory for one writer. name: of the file, where something else is to be held than all of it.

    Raises:
        RefusedError: `locked`, somebody else is writing.
        DataError: the directory cannot be written to.
    """
    try:
        descriptor = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise DataError(f"{directory}: cannot be written ({error.strerror}); check path and permissions") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError("locked", f"{directory}: another process is writing to it; try again later") from error
        yield
    finally:
        os.close(descriptor)


def pointer_hash(directory: Path) -> str:
    """Hash of the manifest that is current now, without looking further; "" when there is none to be read."""
    try:
        return _decode_pointer((directory / POINTER).read_bytes(), directory).manifest_sha256
    except (OSError, DataError):
        return ""


def read(directory: Path, *, number: int | None = None, key: bytes | None = None) -> Generation:
    """The current generation, or an older one that is still there. Takes no lock and writes nothing.

    key: checks the signature of the pointer; older generations are reached through hashes from the current one.

    Raises:
        DataError: nothing there, damaged, or a signature that is missing or wrong although there is a key.
    """
    seen = b""
    for _ in range(_READ_TRIES):
        pointer_bytes = _read_pointer(directory)
        try:
            return _follow(directory, pointer_bytes, number, key)
        except FileNotFoundError as error:
            # Cleaned away while we were reading: then the pointer has moved, else it is damage.
            if pointer_bytes == seen:
                raise DataError(f"{error.filename}: is missing; {_CURE}") from error
            seen = pointer_bytes
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read ({error.strerror}); check permissions") from error
    raise DataError(f"{directory}: changed at every look; try again")


_CURE = "damaged, refused: restore the directory from a copy, or build it again from its rows"


def _read_pointer(directory: Path) -> bytes:
    try:
        return (directory / POINTER).read_bytes()
    except FileNotFoundError as error:
        if (directory / ROWS).exists():
            raise DataError(
                f"{directory}: files of the plain four-file layout, which cannot be verified; "
                f"sft-guard kb import --kb NEW --layout {directory}"
            ) from error
        if (directory / GENERATIONS).exists():
            raise DataError(f"{directory / POINTER}: is missing; {_CURE}") from error
        raise DataError(f"{directory}: no knowledge base here; sft-guard kb init --kb {directory}") from error
    except OSError as error:
        raise DataError(f"{directory}: cannot be read ({error.strerror}); check permissions") from error


def _follow(directory: Path, pointer_bytes: bytes, number: int | None, key: bytes | None) -> Generation:
    pointer = _decode_pointer(pointer_bytes, directory)
    signature = _checked_signature(pointer, directory, key)
    wanted, wanted_hash = pointer.generation, pointer.manifest_sha256
    while True:
        path = directory / GENERATIONS / f"{wanted:08d}" / MANIFEST
        if number is not None and wanted != number and not path.exists():
            raise DataError(f"{directory}: generation {number} is not there any more, the oldest is {wanted + 1}")
        manifest = _decode_manifest(path.read_bytes(), path, wanted, wanted_hash)
        if number is None or number == wanted:
            return Generation(wanted, wanted_hash, manifest, signature)
        if number > wanted or not manifest.previous:
            raise DataError(f"{directory}: there is no generation {number}; the current one is {pointer.generation}")
        wanted, wanted_hash = wanted - 1, manifest.previous


def map_file(directory: Path, generation: Generation, name: str) -> memoryview:
    """The content of a file of this generation, mapped, after its size and hash were compared.

    Raises:
        DataError: missing, truncated, changed or longer than it was.
    """
    digest, size = generation.manifest.files[name]
    path = directory / name
    try:
        with path.open("rb") as file:
            found_size = os.fstat(file.fileno()).st_size
            if found_size != size:
                raise DataError(f"{path}: {found_size} bytes, {MANIFEST} says {size}; {_CURE}")
            if size == 0:
                return memoryview(b"")
            view = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {_CURE}") from error
    if (found := sha256(view).hexdigest()) != digest:
        raise DataError(f"{path}: sha256 is {found[:12]}, {MANIFEST} says {digest[:12]}; {_CURE}")
    return view


class Transaction:
    """Writes one generation. Hold `writer_lock`; leave by `commit`, or nothing has happened."""

    def __init__(self, directory: Path, base: Generation | None) -> None:
        self._directory, self._base = directory, base
        self.number = base.number + 1 if base else 0
        self._files: dict[str, tuple[str, int]] = {}
        self._segment_count = 0

    def begin(self) -> None:
        """Remove what interrupted writers have left.

        Raises:
            OSError: of the disk.
        """
        for name in (GENERATIONS, SEGMENTS):
            (self._directory / name).mkdir(exist_ok=True)
        clean(self._directory, self._base, KEEP_COUNT)

    def new_segment(self) -> tuple[str, Path]:
        """Name of a new segment and the empty directory to write its files to."""
        name = f"{self.number:08d}-{self._segment_count}"
        self._segment_count += 1
        directory = self._directory / SEGMENTS / (_TEMPORARY + name)
        directory.mkdir()
        return name, directory

    def seal_segment(self, name: str) -> None:
        """Sync the files of a new segment and put it in its place."""
        temporary = self._directory / SEGMENTS / (_TEMPORARY + name)
        for path in sorted(temporary.iterdir()):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                size = os.fstat(descriptor).st_size
                digest = sha256(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) if size else b"").hexdigest()
            finally:
                os.close(descriptor)
            self._files[f"{SEGMENTS}/{name}/{path.name}"] = (digest, size)
        _sync_directory(temporary)
        os.rename(temporary, self._directory / SEGMENTS / name)
        _sync_directory(self._directory / SEGMENTS)

    def keep_segment(self, name: str) -> None:
        """Take over a segment of the generation before."""
        assert self._base is not None
        prefix = f"{SEGMENTS}/{name}/"
        self._files |= {n: entry for n, entry in self._base.manifest.files.items() if n.startswith(prefix)}

    def commit(self, files: Mapping[str, bytes], embedder_fingerprint: str, key: bytes | None) -> Generation:
        """Write the generation's own files and its manifest, then move the pointer.

        Raises:
            OSError: before the pointer moved; what was there before is still there.
            DataError: the pointer has moved and the disk did not confirm it.
        """
        generations = self._directory / GENERATIONS
        temporary, final = generations / f"{_TEMPORARY}{self.number:08d}", generations / f"{self.number:08d}"
        temporary.mkdir()
        for name, data in files.items():
            write_file(temporary / name, data, sync=True)
            self._files[f"{GENERATIONS}/{final.name}/{name}"] = (sha256(data).hexdigest(), len(data))
        previous = self._base.manifest_hash if self._base else ""
        manifest = Manifest(self.number, previous, embedder_fingerprint, dict(sorted(self._files.items())))
        encoded = msgspec.json.encode(manifest)
        write_file(temporary / MANIFEST, encoded, sync=True)
        _sync_directory(temporary)
        os.rename(temporary, final)
        _sync_directory(generations)
        digest = sha256(encoded).hexdigest()
        write_file(self._directory / (_TEMPORARY + POINTER), _encode_pointer(self.number, digest, key), sync=True)
        os.replace(self._directory / (_TEMPORARY + POINTER), self._directory / POINTER)
        try:
            _sync_directory(self._directory)
        except OSError as error:
            raise DataError(
                f"{self._directory}: written, but the disk did not confirm it ({error.strerror}); check the disk"
            ) from error
        return Generation(self.number, digest, manifest, VERIFIED if key else UNSIGNED)


def sign(directory: Path, generation: Generation, key: bytes | None) -> None:
    """Write the pointer again, signed with `key` or unsigned. Hold `writer_lock`."""
    try:
        pointer = _encode_pointer(generation.number, generation.manifest_hash, key)
        write_file(directory / (_TEMPORARY + POINTER), pointer, sync=True)
        os.replace(directory / (_TEMPORARY + POINTER), directory / POINTER)
        _sync_directory(directory)
    except OSError as error:
        raise DataError(f"{directory}: cannot be written ({error.strerror}); check permissions") from error


def clean(directory: Path, current: Generation | None, keep_count: int) -> None:
    """Remove generations older than the last `keep_count`, and segments and leftovers that no kept one names.

    Raises:
        OSError: of the disk; what is left over is removed by the next writer.
    """
    last = current.number if current else -1
    named = _segments_of(current.manifest) if current else set()
    (directory / (_TEMPORARY + POINTER)).unlink(missing_ok=True)
    for path in sorted((directory / GENERATIONS).iterdir()):
        number = int(path.name) if path.name.isdigit() else None
        if number == last:
            continue
        if number is not None and last - keep_count < number < last:
            try:
                named |= _segments_of(_decode_manifest((path / MANIFEST).read_bytes(), path, number, None))
                continue
            except (OSError, DataError):
                pass  # nobody could read it
        shutil.rmtree(path)
    for path in sorted((directory / SEGMENTS).iterdir()):
        if path.name not in named:
            shutil.rmtree(path)


def generations(directory: Path) -> list[int]:
    """Numbers of the generations on disk, oldest first."""
    current = read(directory).number
    found = (int(path.name) for path in (directory / GENERATIONS).iterdir() if path.name.isdigit())
    return sorted(number for number in found if number <= current)


def append_lines(path: Path, lines: Sequence[bytes]) -> None:
    """Append whole lines and sync. A torn last line of an earlier crash is ended first."""
    try:
        with path.open("ab+") as file:
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.write(b"\n")
            file.write(b"".join(line + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); free space or check permissions") from error


def write_file(path: Path, data: bytes, *, sync: bool) -> None:
    """Write a new file.

    Raises:
        OSError: of the disk.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        rest = memoryview(data)
        while len(rest):
            rest = rest[os.write(descriptor, rest) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _segments_of(manifest: Manifest) -> set[str]:
    return {name.split("/")[1] for name in manifest.files if name.startswith(SEGMENTS + "/")}


def _encode_pointer(number: int, manifest_hash: str, key: bytes | None) -> bytes:
    signature = _SIGNED + _signature(number, manifest_hash, key) if key else UNSIGNED
    check = sha256(f"{number}\n{manifest_hash}\n{signature}".encode()).hexdigest()
    return msgspec.json.encode(_Pointer(number, manifest_hash, signature, check)) + b"\n"


def _decode_pointer(data: bytes, directory: Path) -> _Pointer:
    try:
        pointer = msgspec.json.decode(data, type=_Pointer)
        text = f"{pointer.generation}\n{pointer.manifest_sha256}\n{pointer.signature}"
        # One form only: even a changed space is a change.
        if msgspec.json.encode(pointer) + b"\n" != data or sha256(text.encode()).hexdigest() != pointer.sha256:
            raise ValueError("it was edited")
    except (*NOT_JSON, ValueError) as error:
        raise DataError(f"{directory / POINTER}: not a pointer ({error}); {_CURE}") from error
    return pointer


def _signature(number: int, manifest_hash: str, key: bytes) -> str:
    return hmac.new(key, f"{number}\n{manifest_hash}".encode(), sha256).hexdigest()


def _checked_signature(pointer: _Pointer, directory: Path, key: bytes | None) -> str:
    signed = pointer.signature.startswith(_SIGNED)
    if key is None:
        return UNCHECKED if signed else UNSIGNED
    if not signed:
        raise DataError(
            f"{directory / POINTER}: is unsigned, and there is a key; look at who wrote it, then sft-guard kb sign"
        )
    expected = _SIGNED + _signature(pointer.generation, pointer.manifest_sha256, key)
    if not hmac.compare_digest(expected.encode(), pointer.signature.encode()):
        raise DataError(f"{directory / POINTER}: signed with another key, or by nobody who has it; refused")
    return VERIFIED


def _decode_manifest(data: bytes, path: Path, number: int, digest: str | None) -> Manifest:
    if digest is not None and sha256(data).hexdigest() != digest:
        raise DataError(f"{path}: does not match its hash in the pointer or the next manifest; {_CURE}")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (*NOT_JSON, ValueError) as error:
        raise DataError(f"{path}: not a manifest ({error}); {_CURE}") from error
    if manifest.generation != number or not all(_NAME.fullmatch(name) for name in manifest.files):
        raise DataError(f"{path}: not the manifest of generation {number}; {_CURE}")
    return manifest


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
