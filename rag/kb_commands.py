"""`sft-guard kb remove|compact|diff|sign|import|export` as functions: arguments in, the object of `--json` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rag import storage
from rag.difference import compare
from rag.embedding import embedder_status, load_embedder
from rag.kb import KnowledgeBase
from rag.layout import write_layout
from rag.practice import read_layout
from slo.errors import DataError

Json = dict[str, object]
_SHOWN = 1000


def parse_place(text: str) -> tuple[Path, int | None]:
    """`DIR` or `DIR@GENERATION`.

    >>> parse_place("kb@7")
    (PosixPath('kb'), 7)
    """
    directory, at, number = text.rpartition("@")
    return (Path(directory), int(number)) if at and number.isdigit() else (Path(text), None)


def kb_remove(directory: Path, names: Sequence[str], *, key: bytes | None = None) -> Json:
    """Delete by doc_id or by the name of the file or row that documents were cut from."""
    if not names:
        raise DataError("kb remove: no document named; give doc_ids, or names of files that were added")
    report = KnowledgeBase.open(directory, key=key, lazy=True).remove(names)
    return {**asdict(report), "missing": list(report.missing)}


def kb_compact(directory: Path, keep_count: int, *, key: bytes | None = None) -> Json:
    """Put all segments together and drop what was deleted."""
    if keep_count < 1:
        raise DataError(f"--keep {keep_count}: at least the current generation stays")
    kb = KnowledgeBase.open(directory, key=key, lazy=True)
    before = len(kb.meta.segments)
    kb.compact(keep_count=keep_count)
    return {"segments_before": before, "segments": len(kb.meta.segments), "generation": kb.generation.number,
            "generations": storage.generations(directory), "kb_version": kb.meta.kb_version,
            "doc_count": kb.meta.doc_count}  # fmt: skip


def kb_diff(one: str, other: str, *, key: bytes | None = None) -> Json:
    """What changed from one knowledge base or generation (DIR or DIR@GENERATION) to another."""
    opened = []
    for text in (one, other):
        directory, number = parse_place(text)
        opened.append(KnowledgeBase.open(directory, generation=number, key=key, lazy=True))
    found = compare(*opened)
    return {
        "added": len(found.added),
        "removed": len(found.removed),
        "changed": len(found.changed),
        "same": found.same_count,
        "added_ids": list(found.added[:_SHOWN]),
        "removed_ids": list(found.removed[:_SHOWN]),
        "changed_ids": list(found.changed[:_SHOWN]),
        "fields": {name: list(values) for name, values in found.fields.items()},
    }


def kb_info(directory: Path, *, key: bytes | None = None) -> Json:
    """Version, generations on disk, segments and how they are searched, and whether the pointer is signed."""
    kb = KnowledgeBase.open(directory, key=key, lazy=True)
    meta = kb.meta
    return {
        "kb_version": meta.kb_version,
        "doc_count": meta.doc_count,
        "content_id": kb.content_id,
        "generation": kb.generation.number,
        "generations": storage.generations(directory),
        "signature": kb.generation.signature,
        "model": meta.model,
        "embedder_fingerprint": meta.embedder_fingerprint,
        "indexed_count": meta.indexed_count,
        "index_type": meta.index_type,
        "segments": [asdict(segment) for segment in meta.segments],
    }


def kb_sign(directory: Path, *, key: bytes | None) -> Json:
    """Sign the pointer with the key, or take the signature away when there is none."""
    with storage.writer_lock(directory):
        generation = storage.read(directory)
        storage.sign(directory, generation, key)
    return {"generation": generation.number, "signed": key is not None}


def kb_export(directory: Path, out: Path, *, key: bytes | None = None) -> Json:
    """Write the practice's four files."""
    kb = KnowledgeBase.open(directory, key=key)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any((out / name).exists() for name in (storage.POINTER, storage.GENERATIONS)):
            raise DataError(f"{out}: is a knowledge base of its own; choose another directory")
        paths = write_layout(kb, out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}); check path and space") from error
    return {"files": sorted(str(path) for path in paths.values()), "kb_version": kb.meta.kb_version,
            "doc_count": kb.meta.doc_count}  # fmt: skip


def kb_import(layout: Path, directory: Path, *, embedder: str | None = None, key: bytes | None = None) -> Json:
    """Make a knowledge base of the practice's four files, with its version and its vectors.

    embedder: checks that the vectors are its own; all-MiniLM-L6-v2 by default.
    """
    loaded = load_embedder(embedder) if embedder_status(embedder)[0] else None
    kb, note = read_layout(layout, directory, embedder=loaded, key=key)
    return {"kb": str(directory), "kb_version": kb.meta.kb_version, "doc_count": kb.meta.doc_count,
            "indexed_count": kb.meta.indexed_count, "model": kb.meta.model, "notes": [note]}  # fmt: skip
