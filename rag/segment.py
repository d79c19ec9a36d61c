"""One immutable piece of a knowledge base: its rows, their words and vectors, and what finds a row by hash or id."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rag import storage
from rag.arrays import pack, unpack
from rag.index import VectorIndex, faiss_available, read_index, vectors_available, write_index
from rag.neighbours import band_keys
from rag.postings import Postings, PostingsBuilder, term_key
from rag.text import cjk_characters, search_tokens
from rag.types import IVF, Document, IndexMeta, SegmentMeta
from slo.errors import DataError

if TYPE_CHECKING:
    from rag.index import Vectors

_DEFAULTS = {"title": "", "lang": "", "parent": "", "start": 0, "acl": ()}


class Segment:
    """Reads a segment of a generation. Each file is mapped and verified when it is first needed.

    base: number of its first row in the knowledge base.
    """

    def __init__(self, directory: Path, generation: storage.Generation, meta: SegmentMeta, base: int) -> None:
        self.meta, self.base, self.count = meta, base, meta.count
        self._directory, self._generation = directory, generation

    def verify(self) -> None:
        """Map and check every file.

        Raises:
            DataError: damaged, or not what the meta says.
        """
        _ = self.postings, self._keys, self._rows, self.file(storage.MAPPINGS)
        if self.meta.index is not None and self.index is None:
            self.file(storage.INDEX)  # not usable here, and no less to be whole
        if len(self.postings.lengths) != self.count or len(self._starts) != self.count + 1:
            raise DataError(f"{self._path}: {self.count} rows announced, other numbers found; build it again")

    def file(self, name: str) -> memoryview:
        """Verified content of one of its files."""
        return storage.map_file(self._directory, self._generation, f"{storage.SEGMENTS}/{self.meta.name}/{name}")

    def document(self, row: int) -> Document:
        """The document of a row, counted from 0 in this segment."""
        begin, end = self._starts[row], self._starts[row + 1]
        return msgspec.json.decode(self._rows[begin:end], type=Document)

    def documents(self) -> Iterator[Document]:
        """All rows, deleted ones too."""
        return (self.document(row) for row in range(self.count))

    def roles(self, row: int) -> tuple[str, ...]:
        """Roles that may see a row; empty: everybody."""
        return self._role_sets[self._acl[row]]

    @property
    def named_roles(self) -> frozenset[str]:
        """All roles that its rows name."""
        return frozenset(role for roles in self._role_sets for role in roles)

    @property
    def has_roles(self) -> bool:
        """Whether any row is for some roles only."""
        return self._role_sets != [()]

    def rows_with_text(self, text_hash: str) -> Iterator[int]:
        """Rows whose normalised text has this hash."""
        return (row for row in self._find("text", _text_key(text_hash)) if self.document(row).text_hash == text_hash)

    def rows_with_id(self, doc_id: str) -> Iterator[int]:
        """Rows of this id."""
        return (row for row in self._find("id", term_key(doc_id)) if self.document(row).doc_id == doc_id)

    def rows_with_parent(self, parent: str) -> Iterator[int]:
        """Rows that were cut from this parent."""
        return (row for row in self._find("parent", term_key(parent)) if self.document(row).parent == parent)

    def rows_with_bands(self, keys: Iterable[int]) -> Iterator[int]:
        """Rows that may be nearly the same text, see `rag.neighbours.band_keys`."""
        return iter(dict.fromkeys(row for key in keys for row in self._find("band", key)))

    def bands(self) -> Iterator[tuple[int, int]]:
        """(key, row) of all rows."""
        return zip(self._keys["band_keys"], self._keys["band_rows"], strict=True)

    @cached_property
    def postings(self) -> Postings:
        """Words of all rows."""
        return Postings(unpack(self.file(storage.WORDS), f"{self._path}/{storage.WORDS}")[0])

    @cached_property
    def index(self) -> VectorIndex | None:
        """Vectors of all rows, or None."""
        if self.meta.index is None or not (faiss_available() if self.meta.index.kind == IVF else vectors_available()):
            return None
        index = read_index(self._path / storage.INDEX, self.file(storage.INDEX), self.meta.index)
        if index.count != self.count:
            raise DataError(f"{self._path}: {index.count} vectors of {self.count} rows; build it again from its rows")
        return index

    @property
    def _path(self) -> Path:
        return self._directory / storage.SEGMENTS / self.meta.name

    @cached_property
    def _rows(self) -> memoryview:
        return self.file(storage.ROWS)

    @cached_property
    def _key_file(self) -> tuple[dict[str, memoryview], dict[str, Any]]:
        return unpack(self.file(storage.KEYS), f"{self._path}/{storage.KEYS}")

    @property
    def _keys(self) -> dict[str, memoryview]:
        return self._key_file[0]

    @cached_property
    def _role_sets(self) -> list[tuple[str, ...]]:
        return [tuple(roles) for roles in self._key_file[1]["acl"]]

    @cached_property
    def _starts(self) -> memoryview:
        return self._keys["starts"]

    @cached_property
    def _acl(self) -> memoryview:
        return self._keys["acl"]

    def _find(self, kind: str, key: int) -> Iterator[int]:
        keys, rows = self._keys[f"{kind}_keys"], self._keys[f"{kind}_rows"]
        for place in range(bisect_left(keys, key), len(keys)):
            if keys[place] != key:
                return
            yield rows[place]


def write_segment(
    directory: Path,
    documents: Sequence[Document],
    vectors: Vectors | None,
    words: dict[str, array[int]],
    bands: Iterable[tuple[int, int]],
) -> IndexMeta | None:
    """Write the files of a segment, without syncing them.

    vectors: unit vectors, shape (len(documents), dim), or None.
    words: their postings. bands: (key, row), see `bands_of`.

    Raises:
        OSError: of the disk.
    """

    def write(name: str, data: bytes) -> None:
        storage.write_file(directory / name, data, sync=False)

    lines, starts = [], array("Q", [0])
    for document in documents:
        lines.append(encode_row(document))
        starts.append(starts[-1] + len(lines[-1]))
    write(storage.ROWS, b"".join(lines))
    del lines
    write(storage.MAPPINGS, msgspec.json.encode({"rowid_to_doc_id": [document.doc_id for document in documents]}))
    role_sets: dict[tuple[str, ...], int] = {}
    places = [role_sets.setdefault(document.acl, len(role_sets)) for document in documents]
    acl = array("H" if len(role_sets) <= 1 << 16 else "I", places)
    arrays = {"starts": starts, "acl": acl}
    numbered = list(enumerate(documents))
    arrays |= _sorted("text", ((_text_key(document.text_hash), row) for row, document in numbered))
    arrays |= _sorted("id", ((term_key(document.doc_id), row) for row, document in numbered))
    arrays |= _sorted("parent", ((term_key(d.parent), row) for row, d in numbered if d.parent))
    arrays |= _sorted("band", bands)
    write(storage.KEYS, pack(arrays, {"acl": list(role_sets) or [()]}))
    write(storage.WORDS, pack(words))
    return None if vectors is None else write_index(directory / storage.INDEX, vectors)


def words_of(documents: Iterable[Document]) -> dict[str, array[int]]:
    """The postings of documents, by title and text."""
    builder = PostingsBuilder()
    for document in documents:
        builder.add(search_terms(document), cjk_characters(document.title + document.text))
    return builder.arrays()


def bands_of(documents: Iterable[Document], base: int = 0) -> Iterator[tuple[int, int]]:
    """What near twins are found by, with rows numbered from `base`."""
    return ((key, row) for row, document in enumerate(documents, base) for key in band_keys(document.text))


def search_terms(document: Document) -> list[str]:
    """What a document can be found by."""
    return search_tokens(f"{document.title}\n{document.text}" if document.title else document.text)


def encode_row(document: Document) -> bytes:
    """One line of kb.jsonl; fields without a value are left out."""
    row = asdict(document)
    data = msgspec.json.encode({name: value for name, value in row.items() if _DEFAULTS.get(name, ...) != value})
    # Line ends of Unicode, which JSON leaves alone, are escaped so that every reader sees one row per line.
    for raw, escaped in ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085")):
        data = data.replace(raw, escaped)
    return data + b"\n"


def _text_key(text_hash: str) -> int:
    return int(text_hash[:16], 16)


def _sorted(kind: str, pairs: Iterable[tuple[int, int]]) -> dict[str, array[int]]:
    ordered = sorted(pairs)
    return {
        f"{kind}_keys": array("Q", [key for key, _ in ordered]),
        f"{kind}_rows": array("I", [row for _, row in ordered]),
    }
