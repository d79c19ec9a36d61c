"""A knowledge base written out as the practice's four files: nothing deleted, one index, the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rag.index import write_index
from rag.kb import KnowledgeBase
from rag.pack import INDEX, MAPPINGS, META, ROWS
from rag.segment import encode_row

INDEX_TYPE = "faiss.IndexFlatL2"


def write_layout(kb: KnowledgeBase, directory: Path) -> dict[str, Path]:
    """Write kb.jsonl, mappings.json, kb_meta.json and, when every row has a vector here, kb.index; their paths by name.

    Raises:
        OSError: of the disk. DataError: the knowledge base is damaged.
    """
    ids: list[str] = []
    with (directory / ROWS).open("wb") as rows:
        for document in kb.iter_documents():
            ids.append(document.doc_id)
            rows.write(encode_row(document))
    (directory / MAPPINGS).write_bytes(msgspec.json.encode({"rowid_to_doc_id": ids}))
    names = [ROWS, MAPPINGS, META]
    meta = kb.meta
    if meta.doc_count and _write_vectors(kb, directory / INDEX):
        names.append(INDEX)
    said = {
        "kb_version": meta.kb_version,
        "doc_count": meta.doc_count,
        "dim": meta.dim,
        "model": meta.model,
        "index_type": INDEX_TYPE,
        "embedder_fingerprint": meta.embedder_fingerprint,
    }
    (directory / META).write_bytes(msgspec.json.format(msgspec.json.encode(said), indent=2) + b"\n")
    return {name: directory / name for name in names}


def _write_vectors(kb: KnowledgeBase, path: Path) -> bool:
    pieces = kb.iter_vectors()
    if pieces is None:
        return False
    import numpy

    raw = path.with_name(path.name + ".raw")
    with raw.open("wb") as file:
        for piece in pieces:
            piece.astype("float32", copy=False).tofile(file)
    shape = (kb.meta.doc_count, kb.meta.dim)
    # Mapped: a million vectors of 384 numbers are 1.5 GB.
    vectors = numpy.memmap(raw, dtype=numpy.float32, mode="r", shape=shape)
    write_index(path, vectors, exact_up_to=shape[0])
    del vectors
    raw.unlink()
    return True
