"""Rows of one add, sorted into fresh documents, known texts, rejected rows and rows that are replaced. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

from rag.chunking import Chunking, chunk_spans
from rag.neighbours import LOOKED_AT_MAX, Twin, band_keys, shown, twins
from rag.rows import RawRow, Rejected, check_row
from rag.text import count_tokens, text_hash
from rag.types import Document
from slo.errors import ConfigError

NEAR = ("off", "report", "skip")

_LONG_TOKENS = 256  # what all-MiniLM-L6-v2 reads of a text

Place = tuple[str, int]
"""Segment and row."""


class Known(Protocol):
    """What is in the knowledge base already, deleted rows left out."""

    def with_text(self, digest: str) -> Document | None: ...

    def with_id(self, doc_id: str) -> Iterable[tuple[Place, Document]]: ...

    def with_bands(self, keys: Sequence[int]) -> Iterable[Document]: ...

    def with_parent(self, parent: str) -> Iterable[tuple[Place, Document]]: ...


@dataclass(slots=True)
class _Group:
    """Rows of one source that an update goes through; those that do not come again are out of date."""

    old: dict[str, tuple[Place, Document]]
    kept: set[str] = field(default_factory=set)


class Batch:
    """Rows of one add.

    near: what to do with texts that are nearly the same as one that is known: off, report or skip.
    update: a row takes the place of what has its doc_id (or, of a file, its name); else known ids are refused.
    """

    def __init__(self, known: Known, *, allow_bad: bool, dedupe: bool, update: bool = False, near: str = "off") -> None:
        if near not in NEAR:
            raise ConfigError("near", near, f"write one of {', '.join(NEAR)}")
        self._near = near
        self._bands: dict[int, list[Document]] = {}
        self.twins: list[Twin] = []
        self._known, self._allow_bad, self._dedupe, self._update = known, allow_bad, dedupe, update
        self._hashes: set[str] = set()
        self._ids: set[str] = set()
        self._groups: dict[str, _Group] = {}
        self.fresh: list[Document] = []
        self.rejected: list[Rejected] = []
        self.skipped_count = 0
        self._long_count = self._other_roles_count = 0

    @property
    def replaced(self) -> list[tuple[Place, Document]]:
        """Rows that are out of date now."""
        return [
            entry for group in self._groups.values() for doc_id, entry in group.old.items() if doc_id not in group.kept
        ]

    @property
    def notes(self) -> Iterator[str]:
        if self._long_count:
            yield (
                f"{self._long_count} rows are longer than the {_LONG_TOKENS} tokens the embedder reads; "
                "cut them with --chunk 200/40 so that their ends can be found"
            )
        if self.twins:
            yield shown(self.twins, skipped=self._near == "skip")
        if self._other_roles_count:
            yield (
                f"{self._other_roles_count} known texts came with other roles, which were not changed; "
                "kb add --update does that"
            )

    def take(self, row: RawRow, how: Chunking) -> None:
        checked = check_row(row, allow_bad=self._allow_bad)
        if isinstance(checked, Rejected):
            self.rejected.append(checked)
            return
        pieces = chunk_spans(checked.text, how)
        group = self._group(checked.parent or checked.doc_id) if self._update else None
        for number, (start, text) in enumerate(pieces, 1):
            whole = len(pieces) == 1
            document = replace(
                checked,
                doc_id=checked.doc_id if whole else f"{checked.doc_id}#{number}",
                text=text,
                text_hash=text_hash(text),
                parent=checked.parent or ("" if whole else checked.doc_id),
                start=checked.start + start,
            )
            self._take_document(document, row, group)

    def _group(self, name: str) -> _Group:
        if name not in self._groups:
            found = [*self._known.with_id(name), *self._known.with_parent(name)]
            self._groups[name] = _Group({entry[1].doc_id: entry for entry in found})
        return self._groups[name]

    def _take_document(self, document: Document, row: RawRow, group: _Group | None) -> None:
        if group is not None:
            before = group.old.get(document.doc_id)
            if before is not None and before[1] == document and document.doc_id not in self._ids:
                self._ids.add(document.doc_id)
                group.kept.add(document.doc_id)
                self.skipped_count += 1
                return
        elif self._dedupe and self._is_known(document):
            self.skipped_count += 1
            return
        taken = document.doc_id in self._ids or (
            (group is None or document.doc_id not in group.old) and any(self._known.with_id(document.doc_id))
        )
        if taken:
            if self._dedupe:
                reason = (
                    f"doc_id {document.doc_id!r} names another text already; "
                    "give the new text its own doc_id, or replace the old one with --update"
                )
                self.rejected.append(Rejected(row.place, reason, row.raw))
                return
            document = replace(document, doc_id=self._free_id(document.doc_id))
        if self._near != "off" and self._is_twin(document, group) and self._near == "skip":
            self.skipped_count += 1
            return
        self._hashes.add(document.text_hash)
        self._ids.add(document.doc_id)
        self._long_count += count_tokens(document.text) > _LONG_TOKENS
        self.fresh.append(document)

    def _is_known(self, document: Document) -> bool:
        if document.text_hash in self._hashes:
            return True
        known = self._known.with_text(document.text_hash)
        self._other_roles_count += known is not None and known.acl != document.acl
        return known is not None

    def _is_twin(self, document: Document, group: _Group | None) -> bool:
        keys = band_keys(document.text)
        known = {d.doc_id: d for key in keys for d in self._bands.get(key, ())}
        known |= {d.doc_id: d for d in islice(self._known.with_bands(keys), LOOKED_AT_MAX)}
        replaced = group.old if group is not None else {}
        found = next(twins(document, (d for d in known.values() if d.doc_id not in replaced)), None)
        if found is not None:
            self.twins.append(found)
        if found is None or self._near == "report":
            for key in keys:
                self._bands.setdefault(key, []).append(document)
        return found is not None

    def _free_id(self, doc_id: str) -> str:
        number = 2
        while (name := f"{doc_id}~{number}") in self._ids or any(self._known.with_id(name)):
            number += 1
        return name
