"""Sentence vectors with a memory: the same context sentences come back in RAG traffic."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag.by_language import ByLanguage
    from rag.embedding import Embedder

CACHE_COUNT = 20_000
"""Vectors kept at most."""

CACHE_BYTES = 32 * 2**20
"""What they may weigh: 20,000 of 384 dimensions, 8,000 of 1,024."""

TEXT_CHARS = 2_000
"""Characters of one text that are embedded; sentence encoders read about 256 tokens."""


class Semantic:
    """An embedder behind a bounded cache by text.

    An embedder by language stays whole: `semantic_for` gives the member that serves a comparison, with its own cache,
    so that vectors of different members never meet.
    """

    def __init__(self, embedder: Embedder, cache_count: int = CACHE_COUNT) -> None:
        self.embedder = embedder
        self._cache_count = cache_count
        self.name = f"{embedder.name}@{embedder.fingerprint}"
        self._cache: OrderedDict[str, Any] = OrderedDict()
        members: tuple[Embedder, ...] = getattr(embedder, "members", ())
        self._members = {member.name: Semantic(member, cache_count) for member in members}

    @property
    def every_answer(self) -> bool:
        """Whether it is fast enough to read every answer; a transformer is given a share of the time only."""
        return bool(getattr(self.embedder, "every_answer", False))

    @property
    def by_characters(self) -> bool:
        """Whether its vectors are those of shared characters: their cosine falls with the length of the longer text."""
        return bool(getattr(self.embedder, "by_characters", False))

    def semantic_for(self, *texts: str) -> Semantic:
        """What serves a comparison of these texts: one member for all of them, or this itself."""
        if not self._members:
            return self
        by_language: ByLanguage = self.embedder  # type: ignore[assignment]
        return self._members[by_language.member_for(*(text[:TEXT_CHARS] for text in texts)).name]

    def covers(self, text: str) -> bool:
        """Whether vectors of this text mean anything (MiniLM alone: Latin script only)."""
        return self.embedder.covers(text[:TEXT_CHARS])

    def vectors(self, texts: Sequence[str]) -> list[Any]:
        """One unit vector of shape (dim,) per text."""
        texts = [t[:TEXT_CHARS] for t in texts]
        unknown = [t for t in dict.fromkeys(texts) if t not in self._cache]
        found = dict(zip(unknown, self.embedder.embed(unknown), strict=True)) if unknown else {}
        if found:
            self._cache_count = min(self._cache_count, CACHE_BYTES // (4 * len(found[unknown[0]])))
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
        first, *rest = self.semantic_for(text, *others).vectors([text, *others])
        return max(0.0, min(1.0, max(float(first @ other) for other in rest)))
