"""Search over documents in memory: words always, vectors where they mean something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from heapq import nlargest
from math import log
from typing import TYPE_CHECKING

from rag.bm25 import Bm25
from rag.embedding import INSTALL_LINE, Embedder, ngram_cosine
from rag.index import FlatIndex
from rag.retrieval import CHARACTER_WEIGHT, TRANSFORMER, confidence_of, fuse
from rag.text import fold_width, has_cjk, language, search_tokens
from rag.types import Document, Hit, SearchResult
from slo.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MODES = ("hybrid", "embedding", "bm25")
NGRAMS = "character n-grams"
QUERY_CHARS_MAX = 8_000
"""Only the beginning of a longer query is searched for: nobody asks that much, somebody pastes it."""

_CANDIDATES = 50
_RERANKED = 20
_COSINE_FLOOR = 0.2  # below it, without a common word, two texts have nothing to do with each other


class Searcher:
    """Documents, their words and their vectors; replaced as a whole when the knowledge base changes."""

    def __init__(self, documents: Sequence[Document], index: FlatIndex | None) -> None:
        self._documents, self._index = documents, index
        self._embedder: Embedder | None = None
        self._scale = TRANSFORMER
        self._bm25 = Bm25()
        self._terms: list[frozenset[str]] = []
        self._character_count: Counter[str] = Counter()  # documents that hold a CJK character
        self._covered: dict[int, bool] = {}
        # Equal texts are dropped from a result; asking for this many more always leaves k different ones.
        self._repeated_count = len(documents) - len({document.text_hash for document in documents})
        for document in documents:
            terms = search_tokens(f"{document.title}\n{document.text}" if document.title else document.text)
            self._bm25.add(terms)
            self._terms.append(frozenset(terms))
            self._character_count.update(_characters(document.title + document.text))
        self._embed_query = lru_cache(maxsize=2048)(self._embed_query_now)

    def attach(self, embedder: Embedder) -> None:
        """Use vectors from now on; the index must have been made by the same embedder."""
        self._embedder = embedder
        self._scale = getattr(embedder, "scale", TRANSFORMER)
        self._embed_query.cache_clear()
        self._covered.clear()

    def search(self, query: str, k: int, mode: str) -> SearchResult:
        """See `KnowledgeBase.search`."""
        if mode not in MODES:
            raise DataError(f"search mode: got {mode!r}; write one of {', '.join(MODES)}")
        if k < 1:
            raise DataError(f"k: got {k}; ask for at least one document")
        query = query[:QUERY_CHARS_MAX]
        if not query.strip():
            raise DataError(f"query: got {query[:20]!r}; write a question")
        if mode == "embedding":
            return self._by_vectors(query, k)
        if mode == "bm25":
            return self._by_words(query, k, self._bm25.search(search_tokens(query), k + self._repeated_count), "")
        note = self._why_no_vectors(query)
        if note:
            return self._by_words(query, k, self._reranked(query), note)
        return self._fused(query, k)

    def _by_vectors(self, query: str, k: int) -> SearchResult:
        if self._embedder is None or self._index is None or not self._index.count:
            missing = "no embedder is loaded" if self._embedder is None else "it has no vectors"
            raise DataError(f"search mode embedding: {missing}; use hybrid or bm25, or {INSTALL_LINE} and add the rows")
        note = ""
        if not self._embedder.covers(query):
            note = f"{self._embedder.name} does not cover this text: these similarities mean little, use hybrid"
        ranked = self._index.top(self._embed_query(query), k + self._repeated_count)
        return self._result(query, k, list(ranked.items()), ranked, "embedding", note)

    def _by_words(self, query: str, k: int, ranked: list[tuple[int, float]], note: str) -> SearchResult:
        return self._result(query, k, ranked, None, "bm25", note)

    def _fused(self, query: str, k: int) -> SearchResult:
        assert self._index is not None
        vector = self._embed_query(query)
        words = self._shares(self._bm25.scores(search_tokens(query)), query)
        best_words = nlargest(_CANDIDATES, words, key=words.__getitem__)
        cosines = self._index.top(vector, _CANDIDATES)
        cosines |= self._index.similarities(vector, (row for row in best_words if row not in cosines))
        # A vector of a text the embedder does not cover is noise that can land anywhere near the query.
        trusted = {row: cosine for row, cosine in cosines.items() if self._is_covered(row)}
        scores = fuse(trusted, {row: words[row] for row in {*best_words, *cosines} if row in words}, self._scale)
        kept = [(row, s) for row, s in scores.items() if row in words or trusted.get(row, 0.0) >= _COSINE_FLOOR]
        ranked = nlargest(len(kept), kept, key=lambda item: (item[1], -item[0]))
        return self._result(query, k, ranked, cosines, "hybrid", "")

    def _reranked(self, query: str) -> list[tuple[int, float]]:
        """By words; in Chinese the best are ordered again by their single characters, which survive word breaks."""
        shares = self._shares(self._bm25.scores(search_tokens(query)), query)
        if not has_cjk(query):
            return nlargest(len(shares), shares.items(), key=lambda item: (item[1], -item[0]))
        for row in nlargest(_RERANKED, shares, key=shares.__getitem__):
            shares[row] += CHARACTER_WEIGHT * self._character_share(query, row)
        return nlargest(len(shares), shares.items(), key=lambda item: (item[1], -item[0]))

    def _result(
        self,
        query: str,
        k: int,
        ranked: Iterable[tuple[int, float]],
        cosines: Mapping[int, float] | None,
        mode: str,
        note: str,
    ) -> SearchResult:
        hits: list[Hit] = []
        seen: set[str] = set()
        first: int | None = None
        for row, score in ranked:
            document = self._documents[row]
            if document.text_hash in seen:
                continue
            seen.add(document.text_hash)
            first = row if first is None else first
            similarity = ngram_cosine(query, document.text) if cosines is None else cosines.get(row, 0.0)
            hits.append(Hit(document.doc_id, document.text, similarity, score, document.lang, document.title))
            if len(hits) == k:
                break
        return SearchResult(
            hits=tuple(hits),
            context="\n\n".join(hit.text for hit in hits),
            mode_used=mode,
            confidence=self._confidence(query, first, cosines) if first is not None else 0.0,
            similarity_by=self._embedder.name if cosines is not None and self._embedder else NGRAMS,
            note=note,
        )

    def _confidence(self, query: str, row: int, cosines: Mapping[int, float] | None) -> float:
        words = self._bm25.coverage_ratio(search_tokens(query), self._terms[row])
        trusted = cosines is not None and self._embedder is not None and self._embedder.covers(query)
        return confidence_of(
            cosine=cosines.get(row) if cosines is not None and trusted else None,
            word_ratio=words,
            character_ratio=self._character_share(query, row) if has_cjk(query) else None,
            scale=self._scale,
        )

    def _shares(self, scores: Mapping[int, float], query: str) -> dict[int, float]:
        """BM25 scores as shares of the highest score this query could reach, 0..1."""
        terms = dict.fromkeys(search_tokens(query))
        highest = sum(self._bm25.idf(term) for term in terms) * (self._bm25.k1 + 1.0)
        return {row: score / highest for row, score in scores.items()}

    def _character_share(self, query: str, row: int) -> float:
        document = self._documents[row]
        held = _characters(document.title + document.text)
        wanted = {ch: self._character_idf(ch) for ch in _characters(query)}
        total = sum(wanted.values())
        return sum(weight for ch, weight in wanted.items() if ch in held) / total if total else 0.0

    def _character_idf(self, character: str) -> float:
        found_count = self._character_count[character]
        return log(1.0 + (len(self._documents) - found_count + 0.5) / (found_count + 0.5))

    def _is_covered(self, row: int) -> bool:
        covered = self._covered.get(row)
        if covered is None:
            assert self._embedder is not None
            covered = self._covered[row] = self._embedder.covers(self._documents[row].text)
        return covered

    def _why_no_vectors(self, query: str) -> str:
        if self._embedder is None:
            return "no embedder: found by words (BM25) alone"
        if self._index is None or not self._index.count:
            return "no vectors in this knowledge base: found by words (BM25) alone"
        if not self._embedder.covers(query):
            return f"{self._embedder.name} does not cover this text ({language(query)}): found by words (BM25)"
        return ""

    def _embed_query_now(self, query: str) -> npt.NDArray[np.float32]:
        assert self._embedder is not None
        vector: npt.NDArray[np.float32] = self._embedder.embed([query])[0]
        return vector


def _characters(text: str) -> set[str]:
    return {ch for ch in fold_width(text) if has_cjk(ch)}
