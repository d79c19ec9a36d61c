"""Writes the next generation of a knowledge base: new segments, tombstones, meta; or nothing at all."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rag import storage
from rag.batch import Place
from rag.embedding import Embedder
from rag.index import vectors_available
from rag.merging import trailing_to_merge
from rag.postings import Postings, merged
from rag.segment import Segment, bands_of, words_of, write_segment
from rag.text import text_hash
from rag.types import FLAT, IVF, Document, KbMeta, SegmentMeta
from slo.errors import DataError

if TYPE_CHECKING:
    from rag.index import Vectors

_EMBED_BATCH = 256
_MODULUS = 2**256


class Writer:
    """Collects the changes of one write and commits them. Hold `storage.writer_lock`.

    Raises:
        DataError: the disk refuses; what was there before is still there.
    """

    def __init__(
        self,
        directory: Path,
        base: storage.Generation | None,
        meta: KbMeta,
        segments: Sequence[Segment],
        dead: Mapping[str, Sequence[int]],
        embedder: Embedder | None,
        key: bytes | None,
    ) -> None:
        self._directory, self._meta, self._embedder, self._key = directory, meta, embedder, key
        self._pieces: list[_Piece] = [_Piece((segment,)) for segment in segments]
        self._dead = {name: set(rows) for name, rows in dead.items()}
        self._base, self._version_before = base, meta.kb_version
        self._sum = int(meta.content_sum, 16) if meta.content_sum else 0

    @staticmethod
    def clean(directory: Path, generation: storage.Generation, keep_count: int) -> None:
        """Remove old generations now."""
        try:
            storage.clean(directory, generation, keep_count)
        except OSError as error:
            raise DataError(f"{directory}: cannot be cleaned ({error.strerror}); check permissions") from error

    def remove(self, entries: Iterable[tuple[Place, Document]]) -> None:
        """Delete rows."""
        count = 0
        for (name, row), document in entries:
            self._dead.setdefault(name, set()).add(row)
            self._sum = (self._sum - _number(document)) % _MODULUS
            count += 1
        self._change(-count)

    def add(self, documents: Sequence[Document]) -> list[str]:
        """Append documents, and merge what has become many; returns notes."""
        if not documents:
            return []
        for document in documents:
            self._sum = (self._sum + _number(document)) % _MODULUS
        self._change(len(documents))
        notes = []
        if not self._embeds:
            notes = ["no embedder: the new rows are found by words (BM25) only, until an add with the embedder"]
        else:
            assert self._embedder is not None
            if not self._meta.indexed_count:
                self._meta = replace(
                    self._meta,
                    dim=self._embedder.dim,
                    model=self._embedder.name,
                    embedder_fingerprint=self._embedder.fingerprint,
                )
            # Rows that came in without vectors get them now.
            for piece in self._pieces:
                piece.rewrite |= piece.segments[0].meta.index is None
        counts = [piece.segments[0].count for piece in self._pieces]
        last = trailing_to_merge(counts, len(documents))
        sources = tuple(piece.segments[0] for piece in self._pieces[len(self._pieces) - last :]) if last else ()
        if not self._embeds and any(segment.meta.index is not None for segment in sources):
            last, sources = 0, ()  # a segment has vectors for all of its rows or for none
        self._pieces[len(self._pieces) - last :] = [_Piece(sources, tuple(documents), rewrite=True)]
        return notes

    def at_version(self, kb_version: int) -> None:
        """Be this version, whatever was counted: of an import."""
        self._meta = replace(self._meta, kb_version=kb_version)

    def compact(self) -> None:
        """Put everything into one segment."""
        with_vectors = {piece.segments[0].meta.index is not None for piece in self._pieces}
        if len(with_vectors) > 1 and not self._embeds:
            raise DataError(
                f"{self._directory}: some rows have vectors and some have not; compact it with the embedder"
            )
        segments = tuple(segment for piece in self._pieces for segment in piece.segments)
        self._pieces = [_Piece(segments, rewrite=True)]

    def commit(self, keep_count: int = storage.KEEP_COUNT) -> storage.Generation:
        """Write it."""
        transaction = storage.Transaction(self._directory, self._base)
        try:
            transaction.begin()
            metas = [meta for piece in self._pieces if (meta := self._write(piece, transaction)) is not None]
            names = {meta.name for meta in metas}
            dead = {name: sorted(rows) for name, rows in self._dead.items() if rows and name in names}
            has_vectors = [meta for meta in metas if meta.index is not None]
            indexed = sum(meta.count - len(dead.get(meta.name, ())) for meta in has_vectors)
            kinds = {meta.index.kind for meta in has_vectors if meta.index is not None}
            self._meta = replace(
                self._meta,
                segments=tuple(metas),
                indexed_count=indexed,
                index_type=IVF if IVF in kinds else FLAT,
                content_sum=f"{self._sum:064x}",
            )
            files = {
                storage.META: msgspec.json.format(msgspec.json.encode(self._meta), indent=2) + b"\n",
                storage.TOMBSTONES: msgspec.json.encode(dead),
            }
            generation = transaction.commit(files, self._meta.embedder_fingerprint, self._key)
        except OSError as error:
            raise DataError(
                f"{self._directory}: cannot be written ({error.strerror}); nothing was changed, free space and repeat"
            ) from error
        try:
            storage.clean(self._directory, generation, keep_count)
        except OSError:
            pass  # it is committed; the next writer cleans up
        return generation

    @property
    def _embeds(self) -> bool:
        return self._embedder is not None and vectors_available()

    def _change(self, count: int) -> None:
        """The version counts writes that change the content; an update removes and adds, and is one."""
        self._meta = replace(self._meta, kb_version=self._version_before + 1, doc_count=self._meta.doc_count + count)

    def _write(self, piece: _Piece, transaction: storage.Transaction) -> SegmentMeta | None:
        if not piece.rewrite:
            meta = piece.segments[0].meta
            if len(self._dead.get(meta.name, ())) < meta.count:
                transaction.keep_segment(meta.name)
                return meta
            return None  # nothing of it is left
        kept = [self._live_rows(segment) for segment in piece.segments]
        documents = [
            segment.document(row) for segment, rows in zip(piece.segments, kept, strict=True) for row in rows
        ] + list(piece.documents)
        if not documents:
            return None
        name, directory = transaction.new_segment()
        vectors = self._vectors(piece, kept)
        words = self._words(piece, kept)
        index = write_segment(directory, documents, vectors, words, self._bands(piece, kept))
        transaction.seal_segment(name)
        return SegmentMeta(name, len(documents), index)

    def _live_rows(self, segment: Segment) -> Sequence[int]:
        dead = self._dead.get(segment.meta.name)
        return [row for row in range(segment.count) if row not in dead] if dead else range(segment.count)

    def _bands(self, piece: _Piece, kept: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
        base = 0
        for segment, rows in zip(piece.segments, kept, strict=True):
            place = {row: base + i for i, row in enumerate(rows)}
            yield from ((key, place[row]) for key, row in segment.bands() if row in place)
            base += len(rows)
        yield from bands_of(piece.documents, base)

    def _words(self, piece: _Piece, kept: Sequence[Sequence[int]]) -> dict[str, array[int]]:
        if not piece.segments:
            return words_of(piece.documents)
        parts = [
            (segment.postings, None if len(rows) == segment.count else rows)
            for segment, rows in zip(piece.segments, kept, strict=True)
        ]
        if not piece.documents:
            return merged(parts)
        return merged([*parts, (Postings.of(words_of(piece.documents)), None)])

    def _vectors(self, piece: _Piece, kept: Sequence[Sequence[int]]) -> Vectors | None:
        """Shape (rows, dim): taken over where they are, made where they are not; None without an embedder."""
        known = [segment.index for segment in piece.segments]
        if piece.documents and not self._embeds:
            return None
        if not piece.documents and not self._embeds and any(index is None for index in known):
            return None
        import numpy

        parts: list[Vectors] = []
        for segment, index, rows in zip(piece.segments, known, kept, strict=True):
            if index is not None:
                parts.append(index.vectors(list(rows)))
            else:
                parts.append(self._embedded([segment.document(row).text for row in rows]))
        if piece.documents:
            parts.append(self._embedded([document.text for document in piece.documents]))
        return parts[0] if len(parts) == 1 else numpy.concatenate(parts)

    def _embedded(self, texts: Sequence[str]) -> Vectors:
        import numpy

        assert self._embedder is not None
        made: Vectors = numpy.empty((len(texts), self._embedder.dim), numpy.float32)
        for begin in range(0, len(texts), _EMBED_BATCH):
            batch = texts[begin : begin + _EMBED_BATCH]
            made[begin : begin + len(batch)] = self._embedder.embed(batch)
        return made


class _Piece:
    """A segment of the next generation: one that is there already, or one made of several and of new documents."""

    def __init__(
        self, segments: tuple[Segment, ...], documents: tuple[Document, ...] = (), *, rewrite: bool = False
    ) -> None:
        self.segments, self.documents, self.rewrite = segments, documents, rewrite


def _number(document: Document) -> int:
    """What a document adds to `KbMeta.content_sum`."""
    roles = "".join(f"\x1f{role}" for role in document.acl)
    title = f"\x1d{text_hash(document.title)}" if document.title else ""  # it decides what is found by words
    content = f"{document.doc_id}\x1f{document.text_hash}{roles}{title}\x1e"
    return int.from_bytes(sha256(content.encode()).digest(), "big")
