"""What travels between the parts of `rag`: documents, hits, reports. Frozen, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass

FLAT, IVF = "faiss.IndexFlatL2", "faiss.IndexIVFFlat"


@dataclass(frozen=True, slots=True)
class Document:
    """One row of a knowledge base. `text` is as it was given; `text_hash` ignores white space."""

    doc_id: str
    text: str
    text_hash: str
    title: str = ""  # helps to find the document by words; never embedded
    lang: str = ""  # as given: "en", "zh-TW"...; empty when unknown
    parent: str = ""  # what it was cut from: a file, or a longer row; empty when it is a whole
    start: int = 0  # first character in the parent
    acl: tuple[str, ...] = ()  # roles that may see it; empty: everybody


@dataclass(frozen=True, slots=True)
class Hit:
    """One document found.

    similarity: cosine to the query, -1..1, of what `SearchResult.similarity_by` names.
    score: what the hits are ordered by; comparable within one result only.
    span: first character and end of `text` in what the document was cut from.
    """

    doc_id: str
    text: str
    similarity: float
    score: float
    lang: str = ""
    title: str = ""
    parent: str = ""
    span: tuple[int, int] = (0, 0)
    acl: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first, and the context made of them.

    mode_used: embedding, bm25 or hybrid; a hybrid search of a text the embedder does not cover is bm25.
    confidence: 0..1, how sure it is that the first hit is about the question; 0.5 is the default line for answering.
    similarity_by: name of the embedder, or "character n-grams".
    note: what a person should know about this result (why BM25 alone was used, say); may be empty.
    """

    hits: tuple[Hit, ...]
    context: str
    mode_used: str
    confidence: float
    similarity_by: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class AddReport:
    """What one `add` did. added + skipped + quarantined = what came in (after chunking).

    replaced: older rows that an update took out.
    """

    added: int
    skipped: int
    quarantined: int
    kb_version: int
    doc_count: int
    notes: tuple[str, ...] = ()
    replaced: int = 0


@dataclass(frozen=True, slots=True)
class RemoveReport:
    """What one `remove` did. missing: names that no document has."""

    removed: int
    missing: tuple[str, ...]
    kb_version: int
    doc_count: int


@dataclass(frozen=True, slots=True)
class IndexMeta:
    """How the vectors of a segment are searched. recall_at_10: against exact search, measured when it was built."""

    kind: str = FLAT
    lists: int = 0
    probes: int = 0
    recall_at_10: float = 1.0


@dataclass(frozen=True, slots=True)
class SegmentMeta:
    """One immutable piece of a knowledge base. count: rows, deleted ones too. index: None without vectors."""

    name: str
    count: int
    index: IndexMeta | None = None


@dataclass(frozen=True, slots=True)
class KbMeta:
    """kb_meta.json. content_sum: sum over all documents of a hash of each, modulo 2^256, in hex."""

    kb_version: int
    doc_count: int
    dim: int
    model: str
    indexed_count: int = 0
    embedder_fingerprint: str = ""
    index_type: str = FLAT
    content_sum: str = ""
    segments: tuple[SegmentMeta, ...] = ()
