"""One embedder per language: the first of several that covers a text serves it.

Vectors of different embedders say nothing about each other, so what is to be compared goes to one member as a whole:
`member_for(*texts)`. `embed` keeps the members apart as well: each writes into a stretch of its own, and the cosine of
texts of different members is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from rag.hashed import HashedTfIdfEmbedder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from rag.embedding import Embedder

    Vectors = npt.NDArray[np.float32]


class ByLanguage:
    """An embedder made of several, in order of preference; the last must cover every text.

    every_answer: whether all of them are fast enough to read every answer. files: what they were read from.
    """

    def __init__(self, *members: Embedder) -> None:
        if not members:
            raise ValueError("at least one member")
        self.members = members
        self.name = " | ".join(member.name for member in members)
        self.dim = sum(member.dim for member in members)
        joined = "\x1f".join(member.fingerprint for member in members)
        self.every_answer = all(getattr(member, "every_answer", False) for member in members)
        self.files = tuple(file for member in members for file in getattr(member, "files", ()))
        self.fingerprint = sha256(joined.encode()).hexdigest()[:16]

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint by name of each member."""
        return {member.name: member.fingerprint for member in self.members}

    def member_for(self, *texts: str) -> Embedder:
        """The first member that covers all of these texts; the last when none does."""
        return next((m for m in self.members[:-1] if all(map(m.covers, texts))), self.members[-1])

    def embed(self, texts: Sequence[str]) -> Vectors:
        import numpy

        out: Vectors = numpy.zeros((len(texts), self.dim), dtype=numpy.float32)
        chosen = [self.member_for(text) for text in texts]
        begin = 0
        for member in self.members:
            rows = [row for row, one in enumerate(chosen) if one is member]
            if rows:
                out[rows, begin : begin + member.dim] = member.embed([texts[row] for row in rows])
            begin += member.dim
        return out

    def unknown_token_ratio(self, text: str) -> float:
        return self.member_for(text).unknown_token_ratio(text)

    def covers(self, text: str) -> bool:
        return any(member.covers(text) for member in self.members)


def with_every_script(embedder: Embedder) -> ByLanguage:
    """This embedder where it covers a text, hashed character n-grams elsewhere."""
    return embedder if isinstance(embedder, ByLanguage) else ByLanguage(embedder, HashedTfIdfEmbedder())
