"""What travels between the parts of `rag`: documents, hits, reports. Frozen, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """One row of a knowledge base. `text` is as it was given; `text_hash` ignores white space."""

    doc_id: str
    text: str
    text_hash: str
    title: str = ""  # helps to find the document by words; never embedded
    lang: str = ""  # as given: "en", "zh-TW"...; empty when unknown


@dataclass(frozen=True, slots=True)
class Hit:
    """One document found.

    similarity: cosine to the query, -1..1, of what `SearchResult.similarity_by` names.
    score: what the hits are ordered by; comparable within one result only.
    """

    doc_id: str
    text: str
    similarity: float
    score: float
    lang: str = ""
    title: str = ""


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
    """What one `add` did. added + skipped + quarantined = what came in (after chunking)."""

    added: int
    skipped: int
    quarantined: int
    kb_version: int
    doc_count: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KbMeta:
    """kb_meta.json. `indexed_count` rows, always the first ones, have a vector in kb.index."""

    kb_version: int
    doc_count: int
    dim: int
    model: str
    indexed_count: int = 0
    embedder_fingerprint: str = ""
    index_type: str = "faiss.IndexFlatL2"
