"""A generation beside the current one: added to, looked at, and then promoted or thrown away.

    DIR/candidate/                 a knowledge base of its own; its segments are the current ones (links) and the new
    DIR/candidate/staged.json      what it was made from, and the manifest of the generation it was made on
    DIR/candidate/incoming.json    profile of the rows that came in, the ones that were set aside among them
    DIR/gate.json, DIR/gate.md     the last decision, kept after a promotion for the registry

Readers of DIR know nothing of it. A promotion brings the new segments over and then moves the pointer, as any write
does, so an interruption leaves the old generation or the new one, and the promotion may be repeated.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from rag import storage
from rag.chunking import Chunking, chunk
from rag.embedding import Embedder
from rag.kb import QUARANTINE, KnowledgeBase
from rag.profile import Profile, Profiler
from rag.rows import RawRow, Rejected, check_row
from rag.types import AddReport
from slo.codec import NOT_JSON
from slo.errors import DataError, RefusedError

CANDIDATE, STAGED, INCOMING = "candidate", "staged.json", "incoming.json"
_LOCK = ".candidate.lock"
DECISION, REPORT = "gate.json", "gate.md"
_CURE = "sft-guard kb gate --kb {0} decides on it, with --discard it is thrown away"


@dataclass(frozen=True, slots=True)
class Staged:
    """What a candidate was made from. base: hash of the manifest it was made on; versions as in `kb_meta.json`."""

    base: str
    base_version: int
    kb_version: int
    chunk: str
    added: int
    skipped: int
    quarantined: int


def candidate_of(directory: Path) -> Path:
    """Where the candidate of a knowledge base is.

    Raises:
        RefusedError: `no_candidate`, nothing is staged, or staging was interrupted.
    """
    if not (directory / CANDIDATE / STAGED).exists():
        raise RefusedError("no_candidate", f"{directory}: nothing is staged; sft-guard kb add --kb {directory} --stage")
    return directory / CANDIDATE


def stage(
    directory: Path,
    rows: Iterable[RawRow],
    how: Chunking,
    *,
    chunk_name: str,
    embedder: Embedder | None = None,
    key: bytes | None = None,
    allow_bad: bool = False,
    dedupe: bool = True,
    update: bool = False,
    near: str = "off",
) -> AddReport:
    """Add rows to a copy of the current generation, which goes on serving.

    Raises:
        RefusedError: `staged`, there is a candidate already; `locked`.
        DataError: nothing was added.
    """
    # Held to the end: until `staged.json` is there, another staging would take this one for an interrupted one.
    with _candidate_lock(directory):
        return _stage(
            directory,
            rows,
            how,
            chunk_name,
            embedder,
            key,
            allow_bad=allow_bad,
            dedupe=dedupe,
            update=update,
            near=near,
        )


def _candidate_lock(directory: Path) -> AbstractContextManager[None]:
    return storage.writer_lock(directory, _LOCK)


def _stage(
    directory: Path,
    rows: Iterable[RawRow],
    how: Chunking,
    chunk_name: str,
    embedder: Embedder | None,
    key: bytes | None,
    *,
    allow_bad: bool,
    dedupe: bool,
    update: bool,
    near: str,
) -> AddReport:
    target = directory / CANDIDATE
    with storage.writer_lock(directory):
        if (target / STAGED).exists():
            raise RefusedError("staged", f"{directory}: a candidate is waiting; {_CURE.format(directory)}")
        base = storage.read(directory, key=key)
        try:
            shutil.rmtree(target, ignore_errors=True)  # of a staging that was interrupted
            _link(directory, target, base)
            (target / storage.SEGMENTS).mkdir(exist_ok=True)
            storage.write_file(target / storage.POINTER, (directory / storage.POINTER).read_bytes(), sync=True)
        except OSError as error:
            raise DataError(f"{target}: cannot be written ({error.strerror}); nothing was staged") from error
    kb = KnowledgeBase.open(target, embedder=embedder, key=key)
    before = kb.meta.kb_version
    profiler = Profiler()
    report = kb.add(
        profiled(rows, how, profiler), chunk=how, allow_bad=allow_bad, dedupe=dedupe, update=update, near=near
    )
    with storage.writer_lock(directory):
        _quarantine(target, directory)  # whatever becomes of the candidate, these rows are not lost
    write(target / INCOMING, msgspec.json.encode(profiler.profile()))
    staged = Staged(
        base.manifest_hash, before, report.kb_version, chunk_name, report.added, report.skipped, report.quarantined
    )
    write(target / STAGED, msgspec.json.encode(staged))  # last: until then it is an interrupted staging
    return report


def profiled(rows: Iterable[RawRow], how: Chunking, profiler: Profiler) -> Iterator[RawRow]:
    """The same rows, each taken into a profile as the texts it will be cut into."""
    for row in rows:
        checked = check_row(row, allow_bad=True)
        if isinstance(checked, Rejected):
            profiler.reject(row.place, checked.reason)
        else:
            fields = filled(row.value) if isinstance(row.value, Mapping) else ("text",)
            for text in chunk(checked.text, how) or [checked.text]:
                profiler.take(row.place, text, fields)
        yield row


def profile_of(kb: KnowledgeBase) -> Profile:
    """Profile of all documents, named by doc_id."""
    profiler = Profiler()
    for document in kb.iter_documents():
        fields = [name for name in ("text", "title", "lang", "acl") if getattr(document, name)]
        profiler.take(document.doc_id, document.text, fields)
    return profiler.profile()


def filled(value: Mapping[str, object]) -> list[str]:
    """Names of the fields of a row that hold something."""
    return [str(name) for name, content in value.items() if content not in (None, "", [])]


def staged_of(candidate: Path) -> tuple[Staged, Profile]:
    """What a candidate was made from, and the profile of what came in.

    Raises:
        DataError: damaged.
    """
    try:
        staged = msgspec.json.decode((candidate / STAGED).read_bytes(), type=Staged)
        return staged, msgspec.json.decode((candidate / INCOMING).read_bytes(), type=Profile)
    except (OSError, *NOT_JSON) as error:
        raise DataError(f"{candidate}: damaged ({error}); throw it away and stage again") from error


def promote(directory: Path, *, key: bytes | None = None) -> int:
    """Make the candidate the current generation; returns its version.

    Raises:
        RefusedError: `no_candidate`, `locked`; `conflict`, the current generation is not the one it was made on.
        DataError: the disk refuses, or the candidate is damaged; the old generation is still the current one.
    """
    target = candidate_of(directory)
    staged, _ = staged_of(target)
    with _candidate_lock(directory), storage.writer_lock(directory):
        new = storage.read(target, key=key)
        if storage.pointer_hash(directory) == new.manifest_hash:  # interrupted behind the pointer
            with suppress(OSError):
                _remove(target)
            return staged.kb_version
        base = storage.read(directory, key=key)
        if base.manifest_hash != staged.base:
            raise RefusedError(
                "conflict", f"{directory}: was changed since the candidate was staged; throw it away and stage again"
            )
        for name in new.manifest.files:
            if name not in base.manifest.files:  # damaged since it was staged, it would be current and unreadable
                storage.map_file(target, new, name)
        try:
            storage.clean(directory, base, storage.KEEP_COUNT)  # what an interrupted promotion has left
            made = _link(target, directory, new)
            for place in sorted(made, reverse=True):  # inner ones first, then the names of these
                sync(place)
            for kind in (storage.SEGMENTS, storage.GENERATIONS):
                sync(directory / kind)
            write(directory / storage.POINTER, (target / storage.POINTER).read_bytes())
        except OSError as error:
            raise DataError(f"{directory}: cannot be written ({error.strerror}); promote it again") from error
        with suppress(OSError):  # it is promoted; what is left over is found to be current and goes the next time
            _remove(target)
    return staged.kb_version


def discard(directory: Path) -> None:
    """Throw the candidate away. Raises RefusedError `no_candidate`, `locked`."""
    with _candidate_lock(directory), storage.writer_lock(directory):
        if not (directory / CANDIDATE).exists():
            candidate_of(directory)
        try:
            _remove(directory / CANDIDATE)
        except OSError as error:
            raise DataError(
                f"{directory / CANDIDATE}: cannot be removed ({error.strerror}); check permissions"
            ) from error


def _remove(target: Path) -> None:
    # What makes it a candidate goes first: half of one must never be taken for a whole one.
    (target / STAGED).unlink(missing_ok=True)
    shutil.rmtree(target, ignore_errors=True)


def write(path: Path, data: bytes) -> None:
    """Replace a small file, synced."""
    temporary = path.with_name(f".{path.name}.new")
    storage.write_file(temporary, data, sync=True)
    os.replace(temporary, path)
    sync(path.parent)


def sync(directory: Path) -> None:
    """Sync the names in a directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(source: Path, target: Path, generation: storage.Generation) -> set[Path]:
    """Make the files of a generation appear in `target` as well; they never change, so links cost no room.

    Returns the directories that were written to.
    """
    made: set[Path] = set()
    names = [*generation.manifest.files, f"{storage.GENERATIONS}/{generation.number:08d}/{storage.MANIFEST}"]
    for name in names:
        if (target / name).exists():
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        made.add((target / name).parent)
        try:
            os.link(source / name, target / name)
        except OSError:  # a file system without links
            storage.write_file(target / name, (source / name).read_bytes(), sync=True)
    return made


def _quarantine(target: Path, directory: Path) -> None:
    path = target / QUARANTINE
    if path.exists():
        known = set((directory / QUARANTINE).read_bytes().split(b"\n")) if (directory / QUARANTINE).exists() else set()
        lines = [line for line in path.read_bytes().split(b"\n") if line and line not in known]
        storage.append_lines(directory / QUARANTINE, lines)
