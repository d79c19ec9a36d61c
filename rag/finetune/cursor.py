"""ft_cursor.json: which texts were exported before, so that the next export holds only what is new.

It remembers hashes of texts and not a position: a document that changed is new, one that moved is not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from rag.types import Document
from slo.codec import NOT_JSON
from slo.errors import DataError

NAME = "ft_cursor.json"


@dataclass(frozen=True, slots=True)
class Cursor:
    """exported: text hashes in the order of their export. updated: ISO day of the last one."""

    version: int = 1
    exported: tuple[str, ...] = ()
    updated: str = ""

    def new(self, documents: Sequence[Document]) -> tuple[Document, ...]:
        """Documents that were not exported yet."""
        known = set(self.exported)
        return tuple(document for document in documents if document.text_hash not in known)

    def with_exported(self, documents: Sequence[Document], day: str) -> Cursor:
        """The cursor after an export."""
        hashes = dict.fromkeys((*self.exported, *(document.text_hash for document in documents)))
        return replace(self, exported=tuple(hashes), updated=day)

    def count_of(self, documents: Sequence[Document]) -> int:
        """How many of these documents were exported."""
        return len(documents) - len(self.new(documents))


def read_cursor(path: Path) -> Cursor:
    """The cursor; an empty one where there is none.

    Raises:
        DataError: the file is none; exporting everything again without being asked could cost a training.
    """
    try:
        cursor = msgspec.json.decode(path.read_bytes(), type=Cursor)
    except FileNotFoundError:
        return Cursor()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except NOT_JSON as error:
        raise DataError(
            f"{path}: not an export cursor ({error}); forget it with `sft-guard ft export --reset`"
        ) from error
    if cursor.version != 1:
        raise DataError(f"{path}: cursor version {cursor.version}, known is 1; use the program that wrote it")
    return cursor


def write_file(path: Path, data: bytes) -> None:
    """Replace a file in one durable step: a crash leaves the old one or the new one.

    Raises:
        DataError: it cannot be written.
    """
    waiting = path.with_name(f".{path.name}.tmp")
    try:
        with waiting.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(waiting, path)
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        waiting.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot be written ({error.strerror}); check path, rights and space") from error


def write_cursor(path: Path, cursor: Cursor) -> None:
    """Raises DataError: it cannot be written."""
    write_file(path, msgspec.json.format(msgspec.json.encode(cursor), indent=1) + b"\n")
