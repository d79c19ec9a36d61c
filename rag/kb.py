"""The knowledge base: rows in, hits out; incremental, versioned, verified at every open.

    kb = KnowledgeBase.init(directory)                     version 0
    kb.add(read_jsonl(path))                               version + 1 when something was added
    KnowledgeBase.open(directory, embedder=...).search("leave rules?", k=3).hits

Without an embedder (or without numpy) it is a BM25-only knowledge base and says so; vectors that are missing are made
by the first `add` that has an embedder.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rag import storage
from rag.batch import Batch, Place
from rag.chunking import Chunking, parse_chunking
from rag.embedding import DEFAULT_MODEL, Embedder
from rag.rows import RawRow, Rejected, as_raw_rows
from rag.search import Reranker, Searcher
from rag.segment import Segment
from rag.types import AddReport, Document, KbMeta, RemoveReport, SearchResult
from rag.writing import Writer
from slo.codec import NOT_JSON
from slo.errors import DataError, RefusedError

if TYPE_CHECKING:
    from rag.index import Vectors

QUARANTINE = "quarantine.jsonl"
MANY_SEGMENTS = 32
"""From here on a note says that `kb compact` would make searches faster."""

_DEFAULT_DIM = 384
_OPEN_TRIES = 20
_PIECE_ROWS = 4096


class KnowledgeBase:
    """Documents of one directory, their index, and the version they are at. Search from any thread."""

    def __init__(
        self,
        directory: Path,
        generation: storage.Generation,
        embedder: Embedder | None,
        *,
        key: bytes | None = None,
        lazy: bool = False,
    ) -> None:
        self.directory = directory
        self._key = key
        self._lock, self._search_lock = threading.Lock(), threading.Lock()
        self._embedder: Embedder | None = None
        self._reranker: Reranker | None = None
        self._segments: list[Segment] = []
        self._loaded_searcher: Searcher | None = None
        self._load(generation)
        if embedder is not None:
            self.attach(embedder)
        if not lazy:
            _ = self._searcher

    @classmethod
    def init(
        cls, directory: Path | str, *, embedder: Embedder | None = None, key: bytes | None = None
    ) -> KnowledgeBase:
        """Make an empty knowledge base, version 0, in a directory that holds none.

        key: signs the pointer, now and at every write.

        Raises:
            RefusedError: `exists`, there is one already.
            DataError: the directory cannot be written.
        """
        directory = Path(directory)
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{directory}: cannot be made ({error.strerror}); check path and permissions") from error
        if storage.exists(directory):
            raise RefusedError("exists", f"{directory}: holds a knowledge base already; add to it")
        meta = KbMeta(
            kb_version=0,
            doc_count=0,
            dim=embedder.dim if embedder else _DEFAULT_DIM,
            model=embedder.name if embedder else DEFAULT_MODEL,
            content_sum=f"{0:064x}",
        )
        with storage.writer_lock(directory):
            generation = Writer(directory, None, meta, [], {}, None, key).commit()
        return cls(directory, generation, embedder, key=key)

    @classmethod
    def open(
        cls,
        directory: Path | str,
        *,
        embedder: Embedder | None = None,
        generation: int | None = None,
        key: bytes | None = None,
        lazy: bool = False,
    ) -> KnowledgeBase:
        """Read, verify and load.

        Args:
            generation: an older one that is still on disk; the current one by default.
            key: refuses a pointer that is not signed with it.
            lazy: verify each file when it is first needed, as suits a writer, which needs few.

        Raises:
            DataError: there is none, or it is damaged; it is refused as a whole.
        """
        directory = Path(directory)
        for _ in range(_OPEN_TRIES):
            found = storage.read(directory, number=generation, key=key)
            try:
                return cls(directory, found, embedder, key=key, lazy=lazy)
            except DataError:
                # Writers may have made so many generations meanwhile that this one was cleaned away under our hands.
                if generation is not None or storage.pointer_hash(directory) == found.manifest_hash:
                    raise
        raise RefusedError("conflict", f"{directory}: was written to at every look; try again")

    def reopened(self) -> KnowledgeBase:
        """The current generation, with the same embedder, reranker and key; this one stays as it is.

        Raises:
            DataError: damaged; with a key also an older one, whose signed pointer somebody has put back.
        """
        kb = KnowledgeBase.open(self.directory, embedder=self._embedder, key=self._key)
        served, found = self._generation, kb.generation
        if self._key and found.number <= served.number and found.manifest_hash != served.manifest_hash:
            raise DataError(
                f"{self.directory}: generation {found.number} is current, and {served.number} was seen already: "
                "an old pointer was put back; if that was meant, start again"
            )
        kb.use_reranker(self._reranker)
        return kb

    @property
    def meta(self) -> KbMeta:
        """Content of kb_meta.json."""
        return self._meta

    @property
    def generation(self) -> storage.Generation:
        """Number, manifest and signature of what is loaded."""
        return self._generation

    @property
    def documents(self) -> tuple[Document, ...]:
        """All documents in the order of adding."""
        return tuple(self.iter_documents())

    def iter_documents(self) -> Iterator[Document]:
        """All documents in the order of adding, read one by one."""
        for segment in self._segments:
            dead = set(self._dead.get(segment.meta.name, ()))
            yield from (segment.document(row) for row in range(segment.count) if row not in dead)

    def iter_vectors(self) -> Iterator[Vectors] | None:
        """Vectors of all documents in their order, in pieces of shape (rows, dim); None when not every row has one."""
        if self._meta.indexed_count != self._meta.doc_count or any(s.index is None for s in self._segments):
            return None
        return self._vectors()

    def _vectors(self) -> Iterator[Vectors]:
        for segment in self._segments:
            index = segment.index
            dead = set(self._dead.get(segment.meta.name, ()))
            rows = [row for row in range(segment.count) if row not in dead]
            for begin in range(0, len(rows), _PIECE_ROWS):
                if index is not None:
                    yield index.vectors(rows[begin : begin + _PIECE_ROWS])

    @property
    def content_id(self) -> str:
        """12 hex digits over all ids, texts, titles and roles: equal content has an equal id anywhere, in any order."""
        return sha256(self._meta.content_sum.encode()).hexdigest()[:12]

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
        with self._search_lock:
            self._embedder = embedder
            if self._loaded_searcher is not None:
                self._loaded_searcher.attach(embedder)

    def use_reranker(self, reranker: Reranker | None) -> None:
        """Order the best documents of every search by reading them together with the question."""
        with self._search_lock:
            self._reranker = reranker
            if self._loaded_searcher is not None:
                self._loaded_searcher.reranker = reranker

    def add(
        self,
        rows: Iterable[RawRow | Mapping[str, object]],
        *,
        chunk: Chunking | str | None = None,
        allow_bad: bool = False,
        dedupe: bool = True,
        update: bool = False,
        near: str = "off",
    ) -> AddReport:
        """Add what is new. Rows that cannot be used go to quarantine.jsonl with place and reason.

        Args:
            rows: of `rag.rows` and `rag.sources`, or mappings with `text` and optionally doc_id, title, lang, acl.
            chunk: how to cut each text; not at all by default.
            allow_bad: let empty texts in (to rehearse what they do to answers).
            dedupe: skip texts that are known already; switched off for the same purpose.
            update: a row replaces what has its doc_id or, read from a file, what came from that file before.
            near: of texts that are nearly the same as known ones: off, report (in the notes), or skip.

        Raises:
            RefusedError: `locked` or `conflict`, somebody else is writing or has written since this was opened.
            DataError: the directory cannot be written; nothing was added.
        """
        how = chunk if isinstance(chunk, Chunking) else parse_chunking(chunk)
        with self._writing():
            known = _Known(self._segments, self._dead)
            batch = Batch(known, allow_bad=allow_bad, dedupe=dedupe, update=update, near=near)
            for row in as_raw_rows(rows):
                batch.take(row, how)
            if batch.rejected:
                self._quarantine(batch.rejected)
            notes = list(batch.notes)
            if batch.fresh or batch.replaced:
                writer = self._writer()
                writer.remove(batch.replaced)
                notes += writer.add(batch.fresh)
                self._load(writer.commit())
                if len(self._segments) >= MANY_SEGMENTS:
                    notes.append(f"{len(self._segments)} segments: kb compact would make searches faster")
            return AddReport(
                added=len(batch.fresh),
                skipped=batch.skipped_count,
                quarantined=len(batch.rejected),
                kb_version=self._meta.kb_version,
                doc_count=self._meta.doc_count,
                notes=tuple(notes),
                replaced=len(batch.replaced),
            )

    def remove(self, names: Iterable[str]) -> RemoveReport:
        """Delete documents by doc_id, or all that came from a file or a longer row by the name of that.

        They are found no more at once; their text stays on disk until `compact` and until the generations that held
        it are gone.

        Raises:
            RefusedError, DataError: as of `add`; nothing was removed.
        """
        with self._writing():
            known = _Known(self._segments, self._dead)
            found: dict[Place, Document] = {}
            missing = []
            for name in dict.fromkeys(names):
                entries = dict([*known.with_id(name), *known.with_parent(name)])
                found |= entries
                missing += [] if entries else [name]
            if found:
                writer = self._writer()
                writer.remove(list(found.items()))
                self._load(writer.commit())
            return RemoveReport(len(found), tuple(missing), self._meta.kb_version, self._meta.doc_count)

    def compact(self, *, keep_count: int = storage.KEEP_COUNT) -> None:
        """Put all segments together, without what was deleted; keep this many generations, this one included.

        Raises:
            RefusedError, DataError: as of `add`; everything is as it was.
        """
        with self._writing():
            if len(self._segments) > 1 or any(self._dead.values()):
                writer = self._writer()
                writer.compact()
                self._load(writer.commit(keep_count))
            else:
                Writer.clean(self.directory, self._generation, keep_count)

    def search(
        self, query: str, k: int = 3, mode: str = "hybrid", *, roles: Iterable[str] | None = None
    ) -> SearchResult:
        """The `k` best documents with different texts, and their texts joined as context for a model.

        Args:
            mode: embedding | bm25 | hybrid (trusts whichever signal fits the query; never needs an embedder).
            roles: of the asker; documents for other roles do not exist for them, not even in the scores. None: of
                somebody who may see everything.

        Raises:
            DataError: an empty query, an unknown mode, or mode embedding without embedder or vectors.
        """
        return self._searcher.search(query, k, mode, None if roles is None else frozenset(roles))

    @property
    def _searcher(self) -> Searcher:
        with self._search_lock:
            if self._loaded_searcher is None:
                for segment in self._segments:
                    segment.verify()
                searcher = Searcher(self._segments, self._dead)
                searcher.reranker = self._reranker
                if self._embedder is not None:
                    searcher.attach(self._embedder)
                self._loaded_searcher = searcher
            return self._loaded_searcher

    def _load(self, generation: storage.Generation) -> None:
        place = f"{storage.GENERATIONS}/{generation.number:08d}"
        try:
            meta = msgspec.json.decode(
                storage.map_file(self.directory, generation, f"{place}/{storage.META}"), type=KbMeta
            )
            dead = msgspec.json.decode(
                storage.map_file(self.directory, generation, f"{place}/{storage.TOMBSTONES}"),
                type=dict[str, tuple[int, ...]],
            )
        except (*NOT_JSON, KeyError) as error:
            raise DataError(f"{self.directory}/{place}: not a generation ({error}); build it again") from error
        old = {segment.meta.name: segment for segment in self._segments}
        segments: list[Segment] = []
        base = 0
        for segment_meta in meta.segments:
            if segment_meta.name in old:  # verified and mapped already
                segment = copy.copy(old[segment_meta.name])
                segment.base = base
            else:
                segment = Segment(self.directory, generation, segment_meta, base)
            segments.append(segment)
            base += segment.count
        if base - sum(len(rows) for rows in dead.values()) != meta.doc_count:
            raise DataError(f"{self.directory}/{place}: {base} rows, {meta.doc_count} announced; build it again")
        with self._search_lock:
            self._generation, self._meta, self._segments, self._dead = generation, meta, segments, dead
            self._loaded_searcher = None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer in this process and on this disk, on top of what was opened."""
        with self._lock, storage.writer_lock(self.directory):
            if storage.pointer_hash(self.directory) != self._generation.manifest_hash:
                storage.read(self.directory, key=self._key)  # damage is worth another message
                raise RefusedError("conflict", f"{self.directory}: changed since it was opened; open it again")
            yield

    def _writer(self) -> Writer:
        return Writer(
            self.directory, self._generation, self._meta, self._segments, self._dead, self._embedder, self._key
        )

    def _quarantine(self, rejected: list[Rejected]) -> None:
        path = self.directory / QUARANTINE
        known = set(path.read_bytes().split(b"\n")) if path.exists() else set()
        lines = [
            msgspec.json.encode({"place": row.place, "reason": row.reason, "raw": _printable(row.raw)})
            for row in rejected
        ]
        # The same file added twice leaves its bad rows here once.
        storage.append_lines(path, [line for line in dict.fromkeys(lines) if line not in known])


class _Known:
    """Finds live rows in segments, newest segment first."""

    def __init__(self, segments: Sequence[Segment], dead: Mapping[str, Sequence[int]]) -> None:
        self._segments = segments[::-1]
        self._dead = {name: frozenset(rows) for name, rows in dead.items()}

    def with_text(self, digest: str) -> Document | None:
        return next((document for _, document in self._live(lambda segment: segment.rows_with_text(digest))), None)

    def with_id(self, doc_id: str) -> Iterator[tuple[Place, Document]]:
        return self._live(lambda segment: segment.rows_with_id(doc_id))

    def with_parent(self, parent: str) -> Iterator[tuple[Place, Document]]:
        return self._live(lambda segment: segment.rows_with_parent(parent))

    def with_bands(self, keys: Sequence[int]) -> Iterator[Document]:
        return (document for _, document in self._live(lambda segment: segment.rows_with_bands(keys)))

    def _live(self, rows_of: Callable[[Segment], Iterator[int]]) -> Iterator[tuple[Place, Document]]:
        for segment in self._segments:
            dead = self._dead.get(segment.meta.name, frozenset())
            for row in rows_of(segment):
                if row not in dead:
                    yield (segment.meta.name, row), segment.document(row)


def _printable(raw: str) -> str:
    """Lone surrogates cannot be stored as UTF-8; they are shown as escapes."""
    return raw.encode("utf-8", "backslashreplace").decode("utf-8")
