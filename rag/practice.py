"""The practice's four files, which `rag.layout` writes, read into a knowledge base of this kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rag import storage
from rag.embedding import Embedder
from rag.index import FlatIndex, vectors_available
from rag.kb import KnowledgeBase
from rag.rows import Rejected, check_row, read_jsonl
from rag.types import Document, KbMeta
from rag.writing import Writer
from slo.codec import NOT_JSON
from slo.errors import DataError, RefusedError

if TYPE_CHECKING:
    from rag.index import Vectors

_PROBES = 3
_LENGTH_MAX = 1.01  # squared, of a unit vector; a longer one would be the nearest to every question
_SAME_COSINE = 0.999  # kernels of two machines differ in the seventh decimal, other models in the first


class _Stored:
    """Gives out vectors that were stored, in order."""

    def __init__(self, vectors: Vectors, embedder: Embedder) -> None:
        self.name, self.dim, self.fingerprint = embedder.name, embedder.dim, embedder.fingerprint
        self._vectors, self._given = vectors, 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        part = self._vectors[self._given : self._given + len(texts)]
        self._given += len(texts)
        return part

    def unknown_token_ratio(self, text: str) -> float:
        return 0.0

    def covers(self, text: str) -> bool:
        return True


def read_layout(
    layout: Path, directory: Path, *, embedder: Embedder | None = None, key: bytes | None = None
) -> tuple[KnowledgeBase, str]:
    """Make a knowledge base in `directory` of the files in `layout`, at their version; with a note on the vectors.

    Vectors are taken over when `embedder` makes the same ones of the first texts: nothing in these files proves by
    what they were made. Else the next `kb add` with an embedder makes them.

    Raises:
        DataError: a file is missing or damaged, or they do not fit each other; nothing was made.
        RefusedError: `exists`, there is a knowledge base in `directory`.
    """
    meta = _json(layout / storage.META)
    documents = _documents(layout / storage.ROWS)
    mapped = _json(layout / storage.MAPPINGS).get("rowid_to_doc_id")
    named = [mapped.get(str(row)) for row in range(len(mapped))] if isinstance(mapped, dict) else mapped
    if named != [document.doc_id for document in documents]:
        raise DataError(f"{layout / storage.MAPPINGS}: does not list the doc_ids of {storage.ROWS} in their order")
    if meta.get("doc_count") != len(documents) or not isinstance(version := meta.get("kb_version"), int):
        raise DataError(
            f"{layout / storage.META}: kb_version {meta.get('kb_version')!r}, doc_count {meta.get('doc_count')!r}, and "
            f"{storage.ROWS} has {len(documents)} rows; export it again"
        )
    if not isinstance(dim := meta.get("dim", 384), int) or not isinstance(model := meta.get("model", ""), str):
        told = f"dim {meta.get('dim')!r}, model {meta.get('model')!r}"
        raise DataError(f"{layout / storage.META}: {told}; export it again")
    stored, note = _vectors(layout / storage.INDEX, documents, embedder)
    if storage.exists(directory):
        raise RefusedError("exists", f"{directory}: holds a knowledge base already; import into a new directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{directory}: cannot be made ({error.strerror}); check path and permissions") from error
    empty = KbMeta(0, 0, dim, model, content_sum=f"{0:064x}")
    with storage.writer_lock(directory):
        writer = Writer(directory, None, empty, [], {}, stored, key)
        writer.add(documents)
        writer.at_version(version)
        generation = writer.commit()
    return KnowledgeBase(directory, generation, None, key=key), note


def _documents(path: Path) -> list[Document]:
    found: list[Document] = []
    for row in read_jsonl(path):
        document = check_row(row, allow_bad=True)
        if isinstance(document, Rejected):
            raise DataError(f"{path.parent / row.place}: {document.reason}; mend the row and import again")
        told = row.value.get("text_hash") if isinstance(row.value, dict) else None
        if told != document.text_hash:
            raise DataError(f"{path.parent / row.place}: `text_hash` is not the SHA-256 of the text; export it again")
        found.append(document)
    if len({document.doc_id for document in found}) != len(found):
        raise DataError(f"{path}: a doc_id stands twice; export it again")
    return found


def _vectors(path: Path, documents: Sequence[Document], embedder: Embedder | None) -> tuple[_Stored | None, str]:
    later = "vectors are made by the next kb add with an embedder"
    if not path.exists() or not documents:
        return None, f"no {storage.INDEX}: {later}"
    if embedder is None or not vectors_available():
        return None, f"without the embedder that made them its vectors cannot be checked: {later}"
    import numpy

    try:
        index = FlatIndex.from_bytes(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check permissions") from error
    if index.count != len(documents):
        raise DataError(f"{path}: {index.count} vectors for {len(documents)} rows; export it again")
    probed = range(min(_PROBES, len(documents)))
    made = embedder.embed([documents[row].text for row in probed])
    vectors = index.vectors(list(range(index.count)))
    same = index.dim == embedder.dim and all(float(made[row] @ vectors[row]) >= _SAME_COSINE for row in probed)
    squares = numpy.einsum("ij,ij->i", vectors, vectors)
    if not same or not bool((squares < _LENGTH_MAX).all()):  # no number is not below it either
        return None, f"{embedder.name} does not make these vectors: {later}"
    return _Stored(vectors, embedder), f"took over {index.count} vectors of {embedder.name}"


def _json(path: Path) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); the layout has four files") from error
    except NOT_JSON as error:
        raise DataError(f"{path}: not JSON ({error}); export it again") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: not a JSON object; export it again")
    return found
