"""Vectors of questions, by the embedder that serves their script; vectors of two embedders never meet."""

from __future__ import annotations

from typing import Any

from guard.checks.drifting.novelty import plain
from guard.checks.semantic import Semantic

HASHED = "hashed-ngram-512"


class Space:
    """A question to (fingerprint of the embedder that served it, unit vector)."""

    def __init__(self) -> None:
        from rag.embedding import load_embedder

        embedder = load_embedder(HASHED)
        assert embedder is not None  # needs numpy alone, which is always there
        self.hashed = Semantic(embedder)
        self._semantic: Semantic | None = None

    def embed_with(self, semantic: Semantic | None) -> None:
        """Another embedder serves from now on; only one that reads every answer is asked here."""
        self._semantic = semantic if semantic is not None and semantic.every_answer else None

    def vector(self, question: str) -> tuple[str, Any] | None:
        """None for a question without words."""
        text = plain(question)
        if not text:
            return None
        serving = self._semantic.semantic_for(text) if self._semantic is not None else self.hashed
        vector = serving.vectors([text])[0]
        return (serving.embedder.fingerprint, vector) if vector.any() else None

    def fingerprints(self) -> tuple[str, ...]:
        """Everything that may serve now."""
        if self._semantic is None:
            return (self.hashed.embedder.fingerprint,)
        members = getattr(self._semantic.embedder, "members", ()) or (self._semantic.embedder,)
        return tuple(member.fingerprint for member in members)
