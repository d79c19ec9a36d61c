"""Batching across requests: who comes while an embedder works waits, and all who wait go together.

No timer and no minimum: a lone request is served at once, and the busier it gets the larger the batches become.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rag.retrieval import TRANSFORMER, Scale

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from rag.embedding import Embedder

    Vectors = npt.NDArray[np.float32]

TEXTS_MAX = 256
"""Texts of one batch; a larger request goes alone."""


class _Request:
    """Texts of one caller. Woken with vectors, with an error, or as the one who serves the next batch."""

    __slots__ = ("error", "leads", "texts", "vectors", "woken")

    def __init__(self, texts: Sequence[str], leads: bool) -> None:
        self.texts, self.leads = texts, leads
        self.woken = threading.Event()
        self.vectors: Vectors | None = None
        self.error: BaseException | None = None


class Coalescing:
    """The same embedder for many threads, one batch at a time. What one batch raises, each of its callers gets.

    batch_count: batches made so far.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.name, self.dim, self.fingerprint = embedder.name, embedder.dim, embedder.fingerprint
        self.scale: Scale = getattr(embedder, "scale", TRANSFORMER)
        self._lock = threading.Lock()
        self._waiting: list[_Request] = []
        self._working = False
        self.batch_count = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        with self._lock:
            mine = _Request(texts, leads=not self._working)
            self._waiting.append(mine)
            self._working = True
        if not mine.leads:
            mine.woken.wait()
        if mine.leads:
            self._serve(self._next_batch(mine))
            self._hand_over()
        if mine.error is not None:
            raise mine.error
        assert mine.vectors is not None
        return mine.vectors

    def unknown_token_ratio(self, text: str) -> float:
        return self._embedder.unknown_token_ratio(text)

    def covers(self, text: str) -> bool:
        return self._embedder.covers(text)

    def _next_batch(self, leader: _Request) -> list[_Request]:
        """The leader, who came first of all who wait, and as many of the others as fit."""
        with self._lock:
            assert self._waiting[0] is leader
            count, taken = 0, 0
            for request in self._waiting:
                if taken and count + len(request.texts) > TEXTS_MAX:
                    break
                count, taken = count + len(request.texts), taken + 1
            batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
            return batch

    def _hand_over(self) -> None:
        """Whoever has waited longest serves the next batch: nobody works for others for ever."""
        with self._lock:
            if not self._waiting:
                self._working = False
                return
            self._waiting[0].leads = True
            self._waiting[0].woken.set()

    def _serve(self, batch: list[_Request]) -> None:
        self.batch_count += 1
        try:
            vectors = self._embedder.embed([text for request in batch for text in request.texts])
            begin = 0
            for request in batch:
                request.vectors = vectors[begin : begin + len(request.texts)]
                begin += len(request.texts)
        except BaseException as error:  # those who wait must hear of it, whatever it is
            for request in batch:
                request.error = error
        for request in batch[1:]:
            request.woken.set()
