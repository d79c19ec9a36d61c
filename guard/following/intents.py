"""Which key intent a question belongs to: that of the nearest example, if it is near enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from guard.following.intents_file import Intent
from guard.following.space import Space

NEAR = 0.60
"""Least cosine to an example. See docs/quality.md for what it takes and what it leaves out."""

LEAD = 0.03
"""How much nearer the nearest example has to be than the best of any other intent."""


class IntentIndex:
    """Examples as vectors, read again whenever another embedder serves."""

    def __init__(self, intents: Sequence[Intent], space: Space) -> None:
        self.intents, self._space = tuple(intents), space
        self._read: tuple[str, ...] = ()
        self._by_embedder: dict[str, tuple[list[str], Any]] = {}

    def name_of(self, question: str) -> tuple[str, float]:
        """(intent, cosine of the nearest example); "" when no example is near, or two intents are as near."""
        found = self._space.vector(question)
        if found is None or not self.intents:
            return "", 0.0
        self._refresh()
        names, matrix = self._by_embedder.get(found[0], ([], None))
        if matrix is None:
            return "", 0.0
        best: dict[str, float] = {}
        for name, cosine in zip(names, (matrix @ found[1]).tolist(), strict=True):
            best[name] = max(best.get(name, -1.0), cosine)
        (name, cosine), *others = sorted(best.items(), key=lambda item: -item[1])
        if cosine < NEAR or (others and cosine - others[0][1] < LEAD):
            return "", max(0.0, cosine)
        return name, min(1.0, cosine)

    def _refresh(self) -> None:
        import numpy as np

        serving = self._space.fingerprints()
        if serving == self._read:
            return
        self._read = serving
        by: dict[str, tuple[list[str], list[Any]]] = {}
        for intent in self.intents:
            for example in intent.examples:
                found = self._space.vector(example)
                if found is not None:
                    names, vectors = by.setdefault(found[0], ([], []))
                    names.append(intent.name)
                    vectors.append(found[1])
        self._by_embedder = {key: (names, np.stack(vectors)) for key, (names, vectors) in by.items()}
