"""Rows of one add, sorted into fresh documents, known texts and rejected rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from rag.chunking import Chunking, chunk
from rag.rows import RawRow, Rejected, check_row
from rag.text import count_tokens, text_hash
from rag.types import Document

_LONG_TOKENS = 256  # what all-MiniLM-L6-v2 reads of a text


class Batch:
    """Rows of one add, sorted into fresh documents, known texts and rejected rows."""

    def __init__(self, known: Iterable[Document], *, allow_bad: bool, dedupe: bool) -> None:
        self._allow_bad, self._dedupe = allow_bad, dedupe
        self._hashes: set[str] = set()
        self._ids: dict[str, str] = {}
        for document in known:
            self._hashes.add(document.text_hash)
            self._ids[document.doc_id] = document.text_hash
        self.fresh: list[Document] = []
        self.rejected: list[Rejected] = []
        self.skipped_count = 0
        self._long_count = 0

    @property
    def notes(self) -> Iterator[str]:
        if self._long_count:
            yield (
                f"{self._long_count} rows are longer than the {_LONG_TOKENS} tokens the embedder reads; "
                "cut them with --chunk 200/40 so that their ends can be found"
            )

    def take(self, row: RawRow, how: Chunking) -> None:
        checked = check_row(row, allow_bad=self._allow_bad)
        if isinstance(checked, Rejected):
            self.rejected.append(checked)
            return
        pieces = chunk(checked.text, how)
        for number, text in enumerate(pieces, 1):
            name = checked.doc_id if len(pieces) == 1 else f"{checked.doc_id}#{number}"
            self._take_document(replace(checked, doc_id=name, text=text, text_hash=text_hash(text)), row)

    def _take_document(self, document: Document, row: RawRow) -> None:
        if self._dedupe and document.text_hash in self._hashes:
            self.skipped_count += 1
            return
        if document.doc_id in self._ids:
            if self._dedupe:
                reason = f"doc_id {document.doc_id!r} names another text already; give the new text its own doc_id"
                self.rejected.append(Rejected(row.place, reason, row.raw))
                return
            document = replace(document, doc_id=self._free_id(document.doc_id))
        self._hashes.add(document.text_hash)
        self._ids[document.doc_id] = document.text_hash
        self._long_count += count_tokens(document.text) > _LONG_TOKENS
        self.fresh.append(document)

    def _free_id(self, doc_id: str) -> str:
        number = 2
        while f"{doc_id}~{number}" in self._ids:
            number += 1
        return f"{doc_id}~{number}"
