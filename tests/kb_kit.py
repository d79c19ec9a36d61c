"""What tests of the knowledge base share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rag import storage
from rag.postings import Postings, PostingsBuilder
from rag.wordsearch import WordIndex, word_index


def postings(documents: Sequence[Sequence[str]]) -> Postings:
    """Postings of documents given as terms."""
    builder = PostingsBuilder()
    for terms in documents:
        builder.add(terms, ())
    return Postings.of(builder.arrays())


def words_over(*segments: Sequence[Sequence[str]], visible: bytearray | None = None, numpy: bool = False) -> WordIndex:
    """A word index over segments of documents."""
    return word_index([postings(documents) for documents in segments], visible, numpy=numpy)


def content_files(directory: Path) -> Iterator[Path]:
    """Every file that the current generation is made of, the pointer and the manifest included."""
    generation = storage.read(directory)
    yield directory / storage.POINTER
    yield directory / storage.GENERATIONS / f"{generation.number:08d}" / storage.MANIFEST
    yield from (directory / name for name in generation.manifest.files)


def segment_file(directory: Path, name: str, place: int = -1) -> Path:
    """A file of one of the current segments, the last one by default."""
    found = [path for path in content_files(directory) if path.name == name and path.parent.parent.name == "segments"]
    return found[place]


def meta_file(directory: Path) -> Path:
    """kb_meta.json of the current generation."""
    return next(path for path in content_files(directory) if path.name == storage.META)
