"""Vectors of one segment: exact (IndexFlatL2) while it is small, approximate (IndexIVFFlat) when that pays.

Both are FAISS files. A flat one is read and written with numpy alone; an IVF one needs faiss and is mapped, not read.
IVF and not HNSW: a graph costs a millisecond of one core per vector to build, 15 minutes for a million; lists take two.
"""

from __future__ import annotations

import importlib.util
import struct
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from rag.types import IVF, IndexMeta
from slo.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]
    Flags = npt.NDArray[np.bool_]

EXACT_UP_TO: Final = 50_000
"""Vectors of a segment that are searched one by one; 384 numbers each, that takes about 10 ms."""
RECALL_MIN: Final = 0.98
"""Recall@10 against the exact search that an approximate index has to reach."""

_RECALL_AIMED = 0.99  # measured on few queries, so a little above what is promised
_RECALL_QUERIES = 256
_PROBED_RATIO_MAX = 1 / 8  # where more of the lists must be visited, exact search costs little more
_EXACT_VISIBLE_MAX = 20_000
# fourcc, dimension, rows, two unused numbers, trained, metric L2, number of floats
_HEAD = struct.Struct("<4siqqqBiQ")
_UNUSED = 1 << 20


class VectorIndex(Protocol):
    """Rows are numbered from 0 in the segment."""

    count: int
    dim: int

    def top(self, query: Vectors, k: int, visible: Flags | None) -> list[tuple[int, float]]:
        """(row, cosine) of the `k` nearest visible rows, nearest first; query: unit vector, shape (dim,)."""
        ...

    def vectors(self, rows: Sequence[int]) -> Vectors:
        """Shape (len(rows), dim)."""
        ...


def vectors_available() -> bool:
    """Whether vectors can be stored and searched here (numpy)."""
    return importlib.util.find_spec("numpy") is not None


def faiss_available() -> bool:
    """Whether approximate indexes can be made and read here."""
    return all(importlib.util.find_spec(name) is not None for name in ("numpy", "faiss"))


def similarity_of(squared_l2: float) -> float:
    """Cosine of two unit vectors from their squared distance, which is what FAISS returns for METRIC_L2.

    |a - b|^2 = |a|^2 + |b|^2 - 2ab = 2 - 2 cos.

    >>> similarity_of(2.0)
    0.0
    """
    return 1.0 - squared_l2 / 2.0


class FlatIndex:
    """Exact search. vectors: unit vectors, shape (count, dim)."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self.count, self.dim = int(vectors.shape[0]), int(vectors.shape[1])

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, place: str) -> FlatIndex:
        """Decode the content of an IndexFlatL2 file; verify its hash before.

        Raises:
            DataError: not an IndexFlatL2.
        """
        import numpy

        view = memoryview(data)
        try:
            magic, dim, count, _, _, _, metric, floats = _HEAD.unpack(view[: _HEAD.size])
        except struct.error as error:
            raise DataError(f"{place}: not a FAISS index; build the knowledge base again from its rows") from error
        if (magic, metric) != (b"IxF2", 1) or floats != dim * count or len(view) != _HEAD.size + 4 * floats:
            raise DataError(f"{place}: not an IndexFlatL2; build the knowledge base again from its rows")
        # A copy: 45 bytes of head leave the numbers unaligned, and every search would copy them all.
        return cls(numpy.frombuffer(view, numpy.float32, offset=_HEAD.size).reshape(count, dim).copy())

    def top(self, query: Vectors, k: int, visible: Flags | None) -> list[tuple[int, float]]:
        import numpy

        cosines = self._vectors @ query  # (count,)
        if visible is not None:
            cosines[~visible] = -numpy.inf
            k = min(k, int(visible.sum()))
        k = min(k, self.count)
        if k < 1:
            return []
        rows = numpy.argpartition(-cosines, k - 1)[:k]
        order = numpy.lexsort((rows, -cosines[rows]))
        return [(int(row), float(cosines[row])) for row in rows[order]]

    def vectors(self, rows: Sequence[int]) -> Vectors:
        found: Vectors = self._vectors[list(rows)]
        return found


class IvfIndex:
    """Approximate search through faiss, over a mapped file."""

    def __init__(self, path: Path, meta: IndexMeta) -> None:
        self._faiss = _import_faiss()
        try:
            self._index: Any = self._faiss.read_index(
                str(path), self._faiss.IO_FLAG_MMAP | self._faiss.IO_FLAG_READ_ONLY
            )
        except RuntimeError as error:
            raise DataError(f"{path}: not a FAISS index; build the knowledge base again from its rows") from error
        self._index.make_direct_map()
        self._meta = meta
        self.count, self.dim = int(self._index.ntotal), int(self._index.d)

    def top(self, query: Vectors, k: int, visible: Flags | None) -> list[tuple[int, float]]:
        import numpy

        probes, selector = self._meta.probes, None
        if visible is not None:
            shown_count = int(visible.sum())
            if shown_count <= _EXACT_VISIBLE_MAX:  # few are left: looking at each of them is exact and quick
                rows = numpy.flatnonzero(visible)
                ranked = FlatIndex(self.vectors(rows.tolist())).top(query, k, None) if shown_count else []
                return [(int(rows[place]), cosine) for place, cosine in ranked]
            selector = self._faiss.IDSelectorBitmap(numpy.packbits(visible, bitorder="little"))
            probes = min(self._meta.lists, -(-probes * self.count // shown_count))
        wanted = self._faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        distances, found = self._index.search(query[None, :], k, params=wanted)  # both (1, k)
        return [(int(r), similarity_of(float(d))) for r, d in zip(found[0], distances[0], strict=True) if r >= 0]

    def vectors(self, rows: Sequence[int]) -> Vectors:
        import numpy

        found: Vectors = self._index.reconstruct_batch(numpy.asarray(rows, numpy.int64))
        return found


def write_index(path: Path, vectors: Vectors, *, exact_up_to: int = EXACT_UP_TO) -> IndexMeta:
    """Write the index that suits the number of vectors, shape (count, dim), and say which it is."""
    count, dim = vectors.shape
    if count > exact_up_to and faiss_available():
        index, meta = _trained(vectors)
        if index is not None:
            _import_faiss().write_index(index, str(path))
            return meta
    with path.open("wb") as file:
        file.write(_HEAD.pack(b"IxF2", dim, count, _UNUSED, _UNUSED, 1, 1, count * dim))
        vectors.astype("float32", copy=False).tofile(file)
    return IndexMeta()


def read_index(path: Path, data: memoryview, meta: IndexMeta) -> VectorIndex:
    """The index of a file whose content was verified as `data`.

    Raises:
        DataError: not what `meta` says.
    """
    return IvfIndex(path, meta) if meta.kind == IVF else FlatIndex.from_bytes(data, str(path))


def similarities(index: VectorIndex, query: Vectors, rows: Iterable[int]) -> dict[int, float]:
    """Cosine of the given rows."""
    wanted = list(rows)
    if not wanted:
        return {}
    return dict(zip(wanted, (index.vectors(wanted) @ query).tolist(), strict=True))


def _trained(vectors: Vectors) -> tuple[Any, IndexMeta]:
    """An IVF index that reaches the recall aimed at with few enough lists, or None: data without clusters."""
    import numpy

    faiss = _import_faiss()
    count, dim = vectors.shape
    lists = 2 ** round(numpy.log2(2.0 * count**0.5))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, lists, faiss.METRIC_L2)
    # 40 points a list are enough for k-means here; it would take 256.
    index.cp.niter, index.cp.max_points_per_centroid, index.cp.seed = 8, 40, 1
    random = numpy.random.default_rng(1)
    index.train(vectors[random.choice(count, min(count, 40 * lists), replace=False)])
    # Questions lie near documents and not on them: stored vectors moved by half their length.
    chosen = vectors[random.choice(count, min(count, _RECALL_QUERIES), replace=False)]
    moved = random.standard_normal(chosen.shape).astype(numpy.float32)
    queries = chosen + 0.5 * moved / numpy.linalg.norm(moved, axis=1, keepdims=True)
    queries /= numpy.linalg.norm(queries, axis=1, keepdims=True)
    _, expected = faiss.knn(queries, vectors, 10, metric=faiss.METRIC_L2)
    index.add(vectors)
    probes = 1
    while probes <= lists * _PROBED_RATIO_MAX:
        _, found = index.search(queries, 10, params=faiss.SearchParametersIVF(nprobe=probes))
        hits = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), expected.tolist(), strict=True))
        recall = hits / expected.size
        if recall >= _RECALL_AIMED:
            return index, IndexMeta(IVF, lists, probes, round(recall, 4))
        probes *= 2
    return None, IndexMeta()


def _import_faiss() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its generated bindings trip over newer Python versions
        import faiss

    # One query against a few thousand rows: threads cost more than they bring, and the proxy needs the cores.
    faiss.omp_set_num_threads(1)
    return faiss
