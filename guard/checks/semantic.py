"""Sentence vectors with a memory: the same context sentences come back in RAG traffic."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag.embedding import Embedder

CACHE_COUNT = 20_000
"""Vectors kept (384 floats: about 1.6 kB each, 32 MB in all)."""

TEXT_CHARS = 2_000
"""Characters of one text that are embedded; sentence encoders read about 256 tokens."""


class Semantic:
    """An embedder behind a bounded cache by text."""

    def __init__(self, embedder: Embedder, cache_count: int = CACHE_COUNT) -> None:
        self.embedder, self._cache_count = embedder, cache_count
        self.name = f"{embedder.name}@{embedder.fingerprint}"
        self._cache: OrderedDict[str, Any] = OrderedDict()

    def covers(self, text: str) -> bool:
        """Whether vectors of this text mean anything (MiniLM: Latin script only)."""
        return self.embedder.covers(text[:TEXT_CHARS])

    def vectors(self, texts: Sequence[str]) -> list[Any]:
        """One unit vector of shape (dim,) per text."""
        texts = [t[:TEXT_CHARS] for t in texts]
        unknown = [t for t in dict.fromkeys(texts) if t not in self._cache]
        found = dict(zip(unknown, self.embedder.embed(unknown), strict=True)) if unknown else {}
        result = []
        for text in texts:
            if text in found:
                result.append(found[text])
            else:
                self._cache.move_to_end(text)
                result.append(self._cache[text])
        self._cache.update(found)
        while len(self._cache) > self._cache_count:
            self._cache.popitem(last=False)
        return result

    def best_cosine(self, text: str, others: Sequence[str]) -> float:
        """Largest cosine of `text` with one of `others`, clipped to [0, 1]; 0.0 without others."""
        if not others:
            return 0.0
        first, *rest = self.vectors([text, *others])
        return max(0.0, min(1.0, max(float(first @ other) for other in rest)))
