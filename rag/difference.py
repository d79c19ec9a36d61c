"""What changed between two knowledge bases. Pure but for reading them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rag.kb import KnowledgeBase
from rag.types import Document

_FIELDS = ("kb_version", "doc_count", "model", "dim", "indexed_count", "embedder_fingerprint", "index_type")


@dataclass(frozen=True, slots=True)
class Difference:
    """added, removed, changed: doc_ids in order. fields: those of kb_meta.json that differ, (before, after)."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    same_count: int
    fields: Mapping[str, tuple[object, object]]


def compare(before: KnowledgeBase, after: KnowledgeBase) -> Difference:
    """Documents by doc_id: text, title, language, roles, and where they were cut from."""
    old = {document.doc_id: _mark(document) for document in before.iter_documents()}
    added, changed = [], []
    seen: set[str] = set()
    for document in after.iter_documents():
        mark = old.get(document.doc_id)
        seen.add(document.doc_id)
        if mark is None:
            added.append(document.doc_id)
        elif mark != _mark(document):
            changed.append(document.doc_id)
    removed = [doc_id for doc_id in old if doc_id not in seen]
    one, two = asdict(before.meta), asdict(after.meta)
    fields = {name: (one[name], two[name]) for name in _FIELDS if one[name] != two[name]}
    return Difference(
        tuple(added), tuple(removed), tuple(changed), len(old) - len(removed) - len(changed), fields
    )  # fmt: skip


def _mark(document: Document) -> int:
    """A number instead of the text: a million texts need not be held to be compared."""
    return hash(document)
