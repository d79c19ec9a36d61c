"""Vectors of a knowledge base in a FAISS IndexFlatL2. Rows are numbered from 0 in the order of adding.

faiss comes with the `embeddings` extra and is imported only when an index is made.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from slo.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]


def faiss_available() -> bool:
    """Whether an index can be made here."""
    return all(importlib.util.find_spec(name) is not None for name in ("numpy", "faiss"))


def similarity_of(squared_l2: float) -> float:
    """Cosine of two unit vectors from their squared distance, which is what FAISS returns for METRIC_L2.

    |a - b|^2 = |a|^2 + |b|^2 - 2ab = 2 - 2 cos.

    >>> similarity_of(2.0)
    0.0
    """
    return 1.0 - squared_l2 / 2.0


class FlatIndex:
    """Exact search over unit vectors."""

    def __init__(self, dim: int) -> None:
        self._faiss = _import_faiss()
        self._index: Any = self._faiss.IndexFlatL2(dim)

    @classmethod
    def from_bytes(cls, data: bytes, place: str) -> FlatIndex:
        """Decode the content of kb.index; verify its hash before.

        Raises:
            DataError: not an IndexFlatL2.
        """
        import numpy

        made = cls.__new__(cls)
        made._faiss = _import_faiss()
        try:
            made._index = made._faiss.deserialize_index(numpy.frombuffer(data, dtype=numpy.uint8))
        except RuntimeError as error:
            raise DataError(f"{place}: not a FAISS index; build the knowledge base again from its rows") from error
        if not isinstance(made._index, made._faiss.IndexFlat) or made._index.metric_type != made._faiss.METRIC_L2:
            raise DataError(f"{place}: not an IndexFlatL2; build the knowledge base again from its rows")
        return made

    def to_bytes(self) -> bytes:
        """Content of kb.index, the same bytes `faiss.write_index` writes."""
        data: bytes = self._faiss.serialize_index(self._index).tobytes()
        return data

    @property
    def count(self) -> int:
        """Rows that have a vector."""
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._index.d)

    def add(self, vectors: Vectors) -> None:
        """Append unit vectors, shape (count, dim)."""
        self._index.add(vectors)

    def top(self, query: Vectors, k: int) -> dict[int, float]:
        """Cosine of the `k` nearest rows, nearest first; query: unit vector, shape (dim,)."""
        if not self.count or k < 1:
            return {}
        distances, rows = self._index.search(query[None, :], min(k, self.count))  # both (1, k)
        return {int(row): similarity_of(float(d)) for row, d in zip(rows[0], distances[0], strict=True)}

    def similarities(self, query: Vectors, rows: Iterable[int]) -> dict[int, float]:
        """Cosine of the given rows; those without a vector are left out."""
        return {row: float(self._index.reconstruct(row) @ query) for row in rows if row < self.count}


def _import_faiss() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its generated bindings trip over newer Python versions
        import faiss

    # One query against a few thousand rows: threads cost more than they bring, and the proxy needs the cores.
    faiss.omp_set_num_threads(1)
    return faiss
