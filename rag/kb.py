"""The knowledge base: rows in, hits out; incremental, versioned, verified at every open.

    kb = KnowledgeBase.init(directory)                     version 0
    kb.add(read_jsonl(path), embedder=...)                 version + 1 when something was added
    KnowledgeBase.open(directory, embedder=...).search("leave rules?", k=3).hits

Without an embedder (or without faiss) it is a BM25-only knowledge base and says so; vectors that are missing are
made by the first `add` that has an embedder.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import msgspec

from rag import storage
from rag.batch import Batch
from rag.chunking import Chunking, parse_chunking
from rag.embedding import DEFAULT_MODEL, Embedder
from rag.index import FlatIndex, faiss_available
from rag.rows import RawRow, Rejected, as_raw_rows
from rag.search import Searcher
from rag.types import AddReport, Document, KbMeta, SearchResult
from slo.codec import NOT_JSON
from slo.errors import DataError, RefusedError

QUARANTINE = "quarantine.jsonl"
_DEFAULT_DIM = 384
_EMBED_BATCH = 256


class KnowledgeBase:
    """Documents of one directory, their index, and the version they are at. Search from any thread."""

    def __init__(self, directory: Path, generation: storage.Generation, embedder: Embedder | None) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._embedder: Embedder | None = None
        self._load(generation)
        if embedder is not None:
            self.attach(embedder)

    @classmethod
    def init(cls, directory: Path | str, *, embedder: Embedder | None = None) -> KnowledgeBase:
        """Make an empty knowledge base, version 0, in a directory that holds none.

        Raises:
            RefusedError: `exists`, there is one already.
            DataError: the directory cannot be written.
        """
        directory = Path(directory)
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{directory}: cannot be made ({error.strerror}); check path and permissions") from error
        if storage.exists(directory) or any((directory / name).exists() for name in storage.CONTENT_FILES):
            raise RefusedError("exists", f"{directory}: holds a knowledge base already; add to it")
        meta = KbMeta(
            kb_version=0,
            doc_count=0,
            dim=embedder.dim if embedder else _DEFAULT_DIM,
            model=embedder.name if embedder else DEFAULT_MODEL,
        )
        index = FlatIndex(meta.dim) if faiss_available() else None
        with storage.writer_lock(directory):
            generation = storage.commit(directory, _encode(meta, (), index))
        return cls(directory, generation, embedder)

    @classmethod
    def open(cls, directory: Path | str, *, embedder: Embedder | None = None) -> KnowledgeBase:
        """Read, verify and load.

        Raises:
            DataError: there is none, or it is damaged; it is refused as a whole.
        """
        directory = Path(directory)
        return cls(directory, storage.read(directory), embedder)

    @property
    def meta(self) -> KbMeta:
        """Content of kb_meta.json."""
        return self._meta

    @property
    def documents(self) -> tuple[Document, ...]:
        """All documents in the order of adding."""
        return tuple(self._documents)

    @property
    def content_id(self) -> str:
        """First 12 hex digits of SHA-256 over all ids and texts: the same content has the same id anywhere."""
        return self._content_id

    def attach(self, embedder: Embedder) -> None:
        """Use this embedder from now on.

        Raises:
            DataError: the vectors on disk were made by another one, so cosines would mean nothing.
        """
        made_by = self._meta.embedder_fingerprint
        if self._meta.indexed_count and made_by != embedder.fingerprint:
            raise DataError(
                f"{self.directory}: its vectors were made by {self._meta.model!r} (fingerprint {made_by}), not by "
                f"{embedder.name!r} ({embedder.fingerprint}); use that embedder or build the knowledge base again"
            )
        self._embedder = embedder
        self._searcher.attach(embedder)

    def add(
        self,
        rows: Iterable[RawRow | Mapping[str, object]],
        *,
        chunk: Chunking | str | None = None,
        allow_bad: bool = False,
        dedupe: bool = True,
    ) -> AddReport:
        """Add what is new. Rows that cannot be used go to quarantine.jsonl with place and reason.

        Args:
            rows: of `read_jsonl`, `read_text`, or mappings with `text` and optionally doc_id, title, lang.
            chunk: how to cut each text; not at all by default.
            allow_bad: let empty texts in (to rehearse what they do to answers).
            dedupe: skip texts that are known already; switched off for the same purpose.

        Raises:
            RefusedError: `locked` or `conflict`, somebody else is writing or has written since this was opened.
            DataError: the directory cannot be written; nothing was added.
        """
        how = chunk if isinstance(chunk, Chunking) else parse_chunking(chunk)
        with self._lock, storage.writer_lock(self.directory):
            storage.finish_commit(self.directory)
            if storage.read(self.directory).manifest_hash != self._manifest_hash:
                raise RefusedError("conflict", f"{self.directory}: changed since it was opened; open it again")
            batch = Batch(self._documents, allow_bad=allow_bad, dedupe=dedupe)
            for row in as_raw_rows(rows):
                batch.take(row, how)
            if batch.rejected:
                self._quarantine(batch.rejected)
            notes = list(batch.notes)
            if batch.fresh:
                documents = [*self._documents, *batch.fresh]
                index, meta = self._indexed(documents, notes)
                meta = replace(meta, kb_version=self._meta.kb_version + 1, doc_count=len(documents))
                self._load(storage.commit(self.directory, _encode(meta, documents, index)))
            return AddReport(
                added=len(batch.fresh),
                skipped=batch.skipped_count,
                quarantined=len(batch.rejected),
                kb_version=self._meta.kb_version,
                doc_count=self._meta.doc_count,
                notes=tuple(notes),
            )

    def search(self, query: str, k: int = 3, mode: str = "hybrid") -> SearchResult:
        """The `k` best documents with different texts, and their texts joined as context for a model.

        Args:
            mode: embedding | bm25 | hybrid (trusts whichever signal fits the query; never needs an embedder).

        Raises:
            DataError: an empty query, an unknown mode, or mode embedding without embedder or vectors.
        """
        return self._searcher.search(query, k, mode)

    def _load(self, generation: storage.Generation) -> None:
        place = str(self.directory)
        meta, documents = _decode(generation.files, place)
        index = None
        if faiss_available() and storage.INDEX in generation.files:
            index = FlatIndex.from_bytes(generation.files[storage.INDEX], f"{place}/{storage.INDEX}")
            if index.count != meta.indexed_count or (index.count and index.dim != meta.dim):
                raise DataError(
                    f"{place}/{storage.INDEX}: {index.count} rows of {index.dim}, {storage.META} says "
                    f"{meta.indexed_count} of {meta.dim}; build the knowledge base again from its rows"
                )
        self._meta, self._documents, self._index = meta, documents, index
        self._manifest_hash = generation.manifest_hash
        self._content_id = _content_id(documents)
        searcher = Searcher(documents, index)
        if self._embedder is not None:
            searcher.attach(self._embedder)
        self._searcher = searcher

    def _indexed(self, documents: list[Document], notes: list[str]) -> tuple[FlatIndex | bytes | None, KbMeta]:
        """The index with every vector that can be made now, and the meta that describes it."""
        meta = self._meta
        if self._embedder is None or not faiss_available():
            notes.append("no embedder: the new rows are found by words (BM25) only, until an add with the embedder")
            on_disk = storage.read(self.directory).files.get(storage.INDEX)
            return (on_disk if self._index is None else self._index), meta
        embedder = self._embedder
        if self._index is None or not self._index.count:
            index = FlatIndex(embedder.dim)
            meta = replace(
                meta, dim=embedder.dim, model=embedder.name, embedder_fingerprint=embedder.fingerprint, indexed_count=0
            )
        else:  # a copy: the one in use stays as it is until the new generation is committed
            index = FlatIndex.from_bytes(self._index.to_bytes(), str(self.directory))
        missing = [document.text for document in documents[index.count :]]
        for begin in range(0, len(missing), _EMBED_BATCH):
            index.add(embedder.embed(missing[begin : begin + _EMBED_BATCH]))
        return index, replace(meta, indexed_count=index.count)

    def _quarantine(self, rejected: list[Rejected]) -> None:
        path = self.directory / QUARANTINE
        known = set(path.read_bytes().split(b"\n")) if path.exists() else set()
        lines = [
            msgspec.json.encode({"place": row.place, "reason": row.reason, "raw": _printable(row.raw)})
            for row in rejected
        ]
        # The same file added twice leaves its bad rows here once.
        storage.append_lines(path, [line for line in dict.fromkeys(lines) if line not in known])


def _encode(meta: KbMeta, documents: Iterable[Document], index: FlatIndex | bytes | None) -> dict[str, bytes]:
    lines, ids = [], []
    for document in documents:
        row = {"doc_id": document.doc_id, "text": document.text, "text_hash": document.text_hash}
        row |= {name: value for name, value in (("title", document.title), ("lang", document.lang)) if value}
        lines.append(_one_line(msgspec.json.encode(row)) + b"\n")
        ids.append(document.doc_id)
    files = {
        storage.ROWS: b"".join(lines),
        storage.MAPPINGS: msgspec.json.encode({"rowid_to_doc_id": ids}),
        storage.META: msgspec.json.format(msgspec.json.encode(meta), indent=2) + b"\n",
    }
    if index is not None:
        files[storage.INDEX] = index if isinstance(index, bytes) else index.to_bytes()
    return files


def _decode(files: Mapping[str, bytes], place: str) -> tuple[KbMeta, list[Document]]:
    try:
        meta = msgspec.json.decode(files[storage.META], type=KbMeta)
        ids = msgspec.json.decode(files[storage.MAPPINGS], type=dict[str, list[str]])["rowid_to_doc_id"]
        documents = [msgspec.json.decode(line, type=Document) for line in files[storage.ROWS].split(b"\n") if line]
    except (*NOT_JSON, msgspec.ValidationError, KeyError) as error:
        raise DataError(f"{place}: not a knowledge base ({error}); build it again from its rows") from error
    if len(documents) != meta.doc_count or ids != [document.doc_id for document in documents]:
        raise DataError(
            f"{place}: {len(documents)} rows, {len(ids)} mapped, {meta.doc_count} announced; build it again"
        )
    return meta, documents


def _content_id(documents: Iterable[Document]) -> str:
    digest = sha256()
    for document in documents:
        digest.update(f"{document.doc_id}\x1f{document.text_hash}\x1e".encode())
    return digest.hexdigest()[:12]


def _one_line(data: bytes) -> bytes:
    """Escape the Unicode line ends that JSON leaves alone, so that every reader sees one row per line."""
    for raw, escaped in ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085")):
        data = data.replace(raw, escaped)
    return data


def _printable(raw: str) -> str:
    """Lone surrogates cannot be stored as UTF-8; they are shown as escapes."""
    return raw.encode("utf-8", "backslashreplace").decode("utf-8")
