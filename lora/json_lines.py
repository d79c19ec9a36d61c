"""JSON lines from outside: an object a line, file and line named where one is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from slo.codec import NOT_JSON
from slo.errors import DataError


def rows_of(data: bytes, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place (`name:line`) and object of every line that is not empty.

    Raises:
        DataError: a line is no JSON object.
    """
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            try:
                yield f"{name}:{number}", msgspec.json.decode(line, type=dict[str, Any])
            except NOT_JSON as error:
                raise DataError(f"{name}:{number}: not a JSON object ({error})") from error


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """`rows_of` a file. Raises DataError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return rows_of(data, str(path))
