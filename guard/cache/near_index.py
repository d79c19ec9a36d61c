"""Questions that have answers, by space, with the likeness that suits their script; runs in the worker.

English is compared by an embedder, Chinese by hashed character n-grams: MiniLM is all but blind there, and n-grams at
0.92 mean nearly the same wording. Neither is trusted alone: what is near enough has to pass the gate.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from guard.cache.gate import MAX_CHARS, Reading, Script, reading, refusal_of
from guard.cache.gate_facts import Refusal
from guard.cache.gate_han import HanReading
from rag.embedding import HashedNgramEmbedder

if TYPE_CHECKING:
    from rag.embedding import Embedder

TRIED_COUNT = 8
"""Nearest questions that are put to the gate."""

FAR = "far"


@dataclass(frozen=True, slots=True)
class Nearest:
    """What was found. digest empty: nothing; refusal says why, "far" without any neighbour above the threshold."""

    digest: bytes
    cosine: float
    refusal: str
    script: Script


@dataclass(slots=True)
class _Space:
    """One space and script. vectors: shape (capacity, dim), the first `len(digests)` rows in use."""

    vectors: Any
    digests: list[bytes] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    row_of: dict[bytes, int] = field(default_factory=dict)


class NearIndex:
    """Bounded by the number of vectors; the question added longest ago goes first."""

    def __init__(self, vector_count: int, embedder: Embedder | None) -> None:
        self._vector_count = vector_count
        self._embedder = embedder
        self._ngrams = HashedNgramEmbedder()
        self._spaces: dict[tuple[bytes, Script], _Space] = {}
        self._order: OrderedDict[tuple[bytes, Script, bytes], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._order)

    def use(self, embedder: Embedder | None) -> None:
        """Compare English with `embedder` from now on; vectors of another one are worth nothing."""
        for space, script in [key for key in self._spaces if key[1] is Script.LATIN]:
            for digest in list(self._spaces[space, script].digests):
                self.remove(space, digest)
        self._embedder = embedder

    def add(self, space: bytes, digest: bytes, question: str) -> Refusal | None:
        """Take a question; the reason when it can never be shared."""
        read = reading(question)
        vector = self._vector(question, read)
        if vector is None or read.words is None:
            return Refusal.LANGUAGE
        if len(question) > MAX_CHARS:
            return Refusal.LENGTH
        self.remove(space, digest)
        held = self._spaces.get((space, read.script))
        if held is None:
            held = self._spaces[space, read.script] = _Space(np.zeros((16, len(vector)), dtype=np.float32))
        row = len(held.digests)
        if row == len(held.vectors):
            held.vectors = np.concatenate([held.vectors, np.zeros_like(held.vectors)])  # (2 x capacity, dim)
        held.vectors[row] = vector
        held.digests.append(digest)
        held.readings.append(read)
        held.row_of[digest] = row
        self._order[space, read.script, digest] = None
        while len(self._order) > self._vector_count:
            oldest_space, _, oldest = next(iter(self._order))
            self.remove(oldest_space, oldest)
        return None

    def remove(self, space: bytes, digest: bytes) -> None:
        """Forget a question; the last row takes its place."""
        for script in (Script.LATIN, Script.HAN):
            held = self._spaces.get((space, script))
            row = held.row_of.pop(digest, None) if held is not None else None
            if held is None or row is None:
                continue
            del self._order[space, script, digest]
            last = len(held.digests) - 1
            if row != last:
                held.vectors[row] = held.vectors[last]
                held.digests[row], held.readings[row] = held.digests[last], held.readings[last]
                held.row_of[held.digests[row]] = row
            held.digests.pop()
            held.readings.pop()
            if not held.digests:
                del self._spaces[space, script]

    def find(self, space: bytes, question: str, threshold: float) -> Nearest:
        """The nearest question that may share its answer with this one."""
        read = reading(question)
        held = self._spaces.get((space, read.script))
        if len(question) > MAX_CHARS:
            return Nearest(b"", 0.0, Refusal.LENGTH.value, read.script)
        if read.words is None:
            return Nearest(b"", 0.0, Refusal.LANGUAGE.value, read.script)
        if held is None:
            return Nearest(b"", 0.0, FAR, read.script)
        vector = self._vector(question, read)
        if vector is None:
            return Nearest(b"", 0.0, Refusal.LANGUAGE.value, read.script)
        cosines = held.vectors[: len(held.digests)] @ vector  # (count,)
        nearest = np.argsort(-cosines)[:TRIED_COUNT]
        first = FAR
        best = float(cosines[nearest[0]])
        for row in nearest:
            cosine = float(cosines[row])
            if cosine < threshold:
                break
            refused = refusal_of(read, held.readings[row])
            if refused is None:
                return Nearest(held.digests[row], cosine, "", read.script)
            first = refused.value if first == FAR else first
        return Nearest(b"", best, first, read.script)

    def _vector(self, question: str, read: Reading) -> Any:
        """Unit vector of shape (dim,), None when nothing here understands such a text."""
        if isinstance(read.words, HanReading):
            return self._ngrams.embed([read.words.plain])[0]
        if read.script is Script.LATIN and self._embedder is not None and self._embedder.covers(question):
            return self._embedder.embed([question])[0]
        return None
