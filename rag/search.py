"""Search over segments: words always, vectors where they mean something; only among what the asker may see."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from heapq import nlargest
from typing import TYPE_CHECKING, Any, Protocol

from rag.bm25 import K1
from rag.embedding import INSTALL_LINE, Embedder, ngram_cosine
from rag.index import similarities
from rag.retrieval import CHARACTER_WEIGHT, TRANSFORMER, confidence_of, fuse
from rag.segment import Segment, search_terms
from rag.text import cjk_characters, has_cjk, language, search_tokens
from rag.types import Document, Hit, SearchResult
from rag.wordsearch import Scores, WordIndex, coverage_ratio, word_index
from slo.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MODES = ("hybrid", "embedding", "bm25")
EVERYBODY = frozenset({"*", "public"})
"""Roles that everybody has."""
NGRAMS = "character n-grams"
QUERY_CHARS_MAX = 8_000
"""Only the beginning of a longer query is searched for: nobody asks that much, somebody pastes it."""

_CANDIDATES = 50
_RERANKED = 20
_SPARE = 8  # equal texts are dropped from a result; so many more are fetched before asking again
_VIEWS_CACHED = 64
_COSINE_FLOOR = 0.2  # below it, without a common word, two texts have nothing to do with each other

Ranked = list[tuple[int, float]]


def may_see(needed: Iterable[str], roles: frozenset[str]) -> bool:
    """Whether one of these roles may see a document that names `needed` (at least one)."""
    return not roles.isdisjoint(needed) or not EVERYBODY.isdisjoint(needed)


class Reranker(Protocol):
    """Reads question and document together; slower and better than either signal."""

    name: str

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """How well each text fits the query; higher is better."""
        ...


class _View:
    """What one set of roles may see. mask: one byte a row, 1 for visible; None when everything is."""

    def __init__(self, segments: Sequence[Segment], mask: bytearray | None) -> None:
        self.words: WordIndex = word_index([segment.postings for segment in segments], mask)
        self._mask = mask
        self._flags: dict[int, Any] = {}

    def flags(self, segment: Segment) -> Any:
        """The part of the mask that belongs to a segment, as numpy booleans, or None."""
        if self._mask is None:
            return None
        if segment.base not in self._flags:
            import numpy

            part = self._mask[segment.base : segment.base + segment.count]
            self._flags[segment.base] = numpy.frombuffer(part, numpy.bool_)
        return self._flags[segment.base]


class Searcher:
    """Segments of one generation; replaced as a whole when the knowledge base changes.

    dead: rows of each segment, by its name, that are deleted.
    """

    def __init__(self, segments: Sequence[Segment], dead: Mapping[str, Sequence[int]]) -> None:
        self._segments, self._dead = segments, dead
        self._bases = [segment.base for segment in segments]
        self._embedder: Embedder | None = None
        self._scale = TRANSFORMER
        self.reranker: Reranker | None = None
        self._covered: dict[int, bool] = {}
        self._has_roles = any(segment.has_roles for segment in segments)
        self._roles = frozenset(role for segment in segments for role in segment.named_roles)
        self._vector_count = sum(segment.count for segment in segments if segment.index is not None)
        self._embed_query = lru_cache(maxsize=2048)(self._embed_query_now)
        self._view_of = lru_cache(maxsize=_VIEWS_CACHED)(self._view_now)

    def attach(self, embedder: Embedder) -> None:
        """Use vectors from now on; the index must have been made by the same embedder."""
        self._embedder = embedder
        self._scale = getattr(embedder, "scale", TRANSFORMER)
        self._embed_query.cache_clear()
        self._covered.clear()

    def search(self, query: str, k: int, mode: str, roles: frozenset[str] | None) -> SearchResult:
        """See `KnowledgeBase.search`."""
        if mode not in MODES:
            raise DataError(f"search mode: got {mode!r}; write one of {', '.join(MODES)}")
        if k < 1:
            raise DataError(f"k: got {k}; ask for at least one document")
        query = query[:QUERY_CHARS_MAX]
        if not query.strip():
            raise DataError(f"query: got {query[:20]!r}; write a question")
        # Roles that no document names change nothing; as part of the key they would make a view for every reader.
        view = self._view_of(roles & self._roles if self._has_roles and roles is not None else None)
        if mode == "embedding":
            return self._by_vectors(query, k, view)
        if mode == "bm25":
            scores = view.words.scores(search_tokens(query))
            return self._result(query, k, view, scores.top, None, "bm25", "")
        note = self._why_no_vectors(query)
        if note:
            scores = self._shares(view, query)
            return self._result(query, k, view, lambda n: self._reordered(query, view, scores, n), None, "bm25", note)
        return self._fused(query, k, view)

    def _view_now(self, roles: frozenset[str] | None) -> _View:
        if roles is None and not any(self._dead.values()):
            return _View(self._segments, None)
        mask = bytearray(b"\1") * sum(segment.count for segment in self._segments)
        for segment in self._segments:
            for row in self._dead.get(segment.meta.name, ()):
                mask[segment.base + row] = 0
            if roles is not None and segment.has_roles:
                for row in range(segment.count):
                    needed = segment.roles(row)
                    if needed and not may_see(needed, roles):
                        mask[segment.base + row] = 0
        return _View(self._segments, mask)

    def _by_vectors(self, query: str, k: int, view: _View) -> SearchResult:
        if self._embedder is None or not self._vector_count:
            missing = "no embedder is loaded" if self._embedder is None else "it has no vectors"
            raise DataError(f"search mode embedding: {missing}; use hybrid or bm25, or {INSTALL_LINE} and add the rows")
        note = ""
        if not self._embedder.covers(query):
            note = f"{self._embedder.name} does not cover this text: these similarities mean little, use hybrid"
        vector, cosines = self._embed_query(query), dict[int, float]()

        def ranked(count: int) -> Ranked:
            found = self._nearest(vector, count, view)
            cosines.update(found)
            return found

        return self._result(query, k, view, ranked, cosines, "embedding", note)

    def _fused(self, query: str, k: int, view: _View) -> SearchResult:
        vector = self._embed_query(query)
        shares = self._shares(view, query)
        words = dict(shares.top(_CANDIDATES))
        cosines = dict(self._nearest(vector, _CANDIDATES, view))
        cosines |= self._similarities(vector, [row for row in words if row not in cosines])
        words |= {row: share for row in cosines if row not in words and (share := shares.get(row))}
        # A vector of a text the embedder does not cover is noise that can land anywhere near the query.
        trusted = {row: cosine for row, cosine in cosines.items() if self._is_covered(row)}
        scores = fuse(trusted, words, self._scale, view.words.mean_length)
        kept = [(row, s) for row, s in scores.items() if row in words or trusted.get(row, 0.0) >= _COSINE_FLOOR]
        ranked = sorted(kept, key=lambda item: (-item[1], item[0]))
        return self._result(query, k, view, lambda count: ranked[:count], cosines, "hybrid", "")

    def _reordered(self, query: str, view: _View, scores: Scores, count: int) -> Ranked:
        """By words; in Chinese the best are ordered again by their single characters, which survive word breaks."""
        ranked = scores.top(max(count, _RERANKED))
        if not has_cjk(query):
            return ranked[:count]
        head = [
            (row, share + CHARACTER_WEIGHT * self._character_share(query, self._document(row), view.words))
            for row, share in ranked[:_RERANKED]
        ]
        return nlargest(count, [*head, *ranked[_RERANKED:]], key=lambda item: (item[1], -item[0]))

    def _result(
        self,
        query: str,
        k: int,
        view: _View,
        ranked: Callable[[int], Ranked],
        cosines: Mapping[int, float] | None,
        mode: str,
        note: str,
    ) -> SearchResult:
        wanted = k if self.reranker is None else max(k, _RERANKED)
        chosen = self._different(ranked, wanted)
        if self.reranker is not None and chosen:
            better = self.reranker.scores(query, [document.text for _, _, document in chosen])
            order = sorted(zip(better, chosen, strict=True), key=lambda item: -item[0])
            chosen = [(row, score, document) for score, (row, _, document) in order][:k]
        hits = [
            Hit(
                document.doc_id,
                document.text,
                ngram_cosine(query, document.text) if cosines is None else cosines.get(row, 0.0),
                score,
                document.lang,
                document.title,
                document.parent,
                (document.start, document.start + len(document.text)),
                document.acl,
            )
            for row, score, document in chosen
        ]
        return SearchResult(
            hits=tuple(hits),
            context="\n\n".join(hit.text for hit in hits),
            mode_used=mode,
            confidence=self._confidence(query, view, chosen[0][0], chosen[0][2], cosines) if chosen else 0.0,
            similarity_by=self._embedder.name if cosines is not None and self._embedder else NGRAMS,
            note=note,
        )

    def _different(self, ranked: Callable[[int], Ranked], count: int) -> list[tuple[int, float, Document]]:
        """The best `count` rows with different texts."""
        fetched = count + _SPARE
        while True:
            rows = ranked(fetched)
            chosen: dict[str, tuple[int, float, Document]] = {}
            for row, score in rows:
                document = self._document(row)
                chosen.setdefault(document.text_hash, (row, score, document))
                if len(chosen) == count:
                    return list(chosen.values())
            if len(rows) < fetched:
                return list(chosen.values())
            fetched *= 4

    def _confidence(
        self, query: str, view: _View, row: int, document: Document, cosines: Mapping[int, float] | None
    ) -> float:
        words = coverage_ratio(view.words, dict.fromkeys(search_tokens(query)), search_terms(document))
        trusted = cosines is not None and self._embedder is not None and self._embedder.covers(query)
        return confidence_of(
            cosine=cosines.get(row) if cosines is not None and trusted else None,
            word_ratio=words,
            character_ratio=self._character_share(query, document, view.words) if has_cjk(query) else None,
            scale=self._scale,
        )

    def _shares(self, view: _View, query: str) -> Scores:
        """BM25 scores as shares of the highest score this query could reach, 0..1."""
        terms = dict.fromkeys(search_tokens(query))
        highest = sum(view.words.idf(term) for term in terms) * (K1 + 1.0)
        return _Shares(view.words.scores(terms), highest)

    def _character_share(self, query: str, document: Document, words: WordIndex) -> float:
        held = cjk_characters(document.title + document.text)
        wanted = {ch: words.character_idf(ch) for ch in cjk_characters(query)}
        total = sum(wanted.values())
        return sum(weight for ch, weight in wanted.items() if ch in held) / total if total else 0.0

    def _nearest(self, vector: npt.NDArray[np.float32], count: int, view: _View) -> Ranked:
        found: Ranked = []
        for segment in self._segments:
            if segment.index is not None:
                near = segment.index.top(vector, count, view.flags(segment))
                found += [(segment.base + row, cosine) for row, cosine in near]
        return sorted(found, key=lambda item: (-item[1], item[0]))[:count]

    def _similarities(self, vector: npt.NDArray[np.float32], rows: Iterable[int]) -> dict[int, float]:
        by_segment: dict[int, list[int]] = {}
        for row in rows:
            by_segment.setdefault(bisect_right(self._bases, row) - 1, []).append(row)
        found: dict[int, float] = {}
        for place, wanted in by_segment.items():
            segment = self._segments[place]
            if segment.index is not None:
                local = similarities(segment.index, vector, [row - segment.base for row in wanted])
                found |= {segment.base + row: cosine for row, cosine in local.items()}
        return found

    def _document(self, row: int) -> Document:
        segment = self._segments[bisect_right(self._bases, row) - 1]
        return segment.document(row - segment.base)

    def _is_covered(self, row: int) -> bool:
        covered = self._covered.get(row)
        if covered is None:
            assert self._embedder is not None
            covered = self._covered[row] = self._embedder.covers(self._document(row).text)
        return covered

    def _why_no_vectors(self, query: str) -> str:
        if self._embedder is None:
            return "no embedder: found by words (BM25) alone"
        if not self._vector_count:
            return "no vectors in this knowledge base: found by words (BM25) alone"
        if not self._embedder.covers(query):
            return f"{self._embedder.name} does not cover this text ({language(query)}): found by words (BM25)"
        return ""

    def _embed_query_now(self, query: str) -> npt.NDArray[np.float32]:
        assert self._embedder is not None
        vector: npt.NDArray[np.float32] = self._embedder.embed([query])[0]
        return vector


class _Shares:
    def __init__(self, scores: Scores, highest: float) -> None:
        self._scores, self._highest = scores, highest

    def top(self, k: int) -> Ranked:
        return [(row, score / self._highest) for row, score in self._scores.top(k)]

    def get(self, row: int) -> float:
        return self._scores.get(row) / self._highest if self._highest else 0.0
