"""Exchanges from the exchange log, one by one: segments of JSON lines, open, closed or gzipped, and of Parquet.

A torn last line, a foreign line or a broken archive is counted and reported with file and line, never fatal: a log
outlives crashes, and one bad line must not cost a week of traffic. For whole weeks `slo.sources.log_table` is some
hundred times faster; this one gives the exchanges themselves.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from slo.codec import decode_exchange
from slo.errors import DataError
from slo.types import Exchange

PARQUET = ".parquet"
SUFFIXES = (".jsonl", ".jsonl.open", ".jsonl.gz", PARQUET)
MAX_LINE_BYTES = 4 * 1024 * 1024
MAX_PROBLEMS = 20

Row = tuple[Exchange, dict[str, Any] | None]
"""An exchange and its text, when that was kept."""


class LogReader:
    """Iterates over the exchanges of segments and directories, oldest file first; may be iterated once.

    problems: one line per unusable line, with place, the first 20. bad_count: all of them. line_count: lines read.
    """

    def __init__(self, paths: Iterable[Path | str] | Path | str) -> None:
        given = [paths] if isinstance(paths, str | Path) else list(paths)
        self.files = tuple(segments(given))
        self.problems: list[str] = []
        self.bad_count = 0
        self.line_count = 0

    def __iter__(self) -> Iterator[Row]:
        for path in map(present_name, self.files):
            if path.name.endswith(PARQUET):
                yield from self._parquet_rows(path)
                continue
            try:
                with _opened(path) as stream:
                    yield from self._rows(path, stream)
            except (OSError, EOFError, zlib.error) as error:
                self._problem(f"{path}: cannot be read to its end ({error}); the lines before are used")

    def _parquet_rows(self, path: Path) -> Iterator[Row]:
        from slo.sources.parquet import parquet_exchanges  # it needs LogReader's names itself

        try:
            for row in parquet_exchanges(path):
                self.line_count += 1
                yield row
        except DataError as error:
            self._problem(str(error))

    def _rows(self, path: Path, stream: BufferedReader | gzip.GzipFile) -> Iterator[Row]:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                self._problem(f"{path}:{number}: longer than {MAX_LINE_BYTES} bytes; the line is left out")
                while line and not line.endswith(b"\n"):
                    line = stream.readline(MAX_LINE_BYTES)
                continue
            if not line.strip():
                continue
            self.line_count += 1
            try:
                yield decode_exchange(line, f"{path}:{number}")
            except DataError as error:
                self._problem(str(error))

    def _problem(self, text: str) -> None:
        self.bad_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(text)


def read_exchanges(paths: Iterable[Path | str] | Path | str) -> Iterator[Row]:
    """Iterate over the exchanges of segments and directories; use `LogReader` to learn what was left out.

    Raises:
        DataError: a path does not exist, or a directory holds no segment.
    """
    return iter(LogReader(paths))


def segments(paths: Iterable[Path | str]) -> Iterator[Path]:
    """Files in the order of their names, which begin with their time; each once.

    Where a crash left a segment both as JSON lines and as Parquet, the Parquet is taken: it was complete before it got
    its name.

    Raises:
        DataError: a path does not exist, or a directory holds no segment.
    """
    seen: set[Path] = set()
    for given in map(Path, paths):
        if given.is_dir():
            found = sorted((p for p in given.iterdir() if p.name.endswith(SUFFIXES)), key=lambda p: p.name)
            done = {p.name.removesuffix(PARQUET) for p in found if p.name.endswith(PARQUET)}
            found = [p for p in found if p.name.endswith(PARQUET) or p.name.split(".jsonl")[0] not in done]
            if not found:
                raise DataError(
                    f"{given}: no segments (*{', *'.join(SUFFIXES)}) in it; name the exchange log's directory"
                )
        elif given.exists():
            found = [given]
        else:
            raise DataError(f"{given}: does not exist; name a segment or directory of the exchange log")
        for path in found:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def present_name(path: Path) -> Path:
    """The file itself, or what a running guard made of it since it was found: closed, or turned into Parquet."""
    closed = path.with_name(path.name.removesuffix(".open"))
    for candidate in (path, closed, closed.with_suffix(PARQUET)):
        if candidate.exists():
            return candidate
    return path


def _opened(path: Path) -> BufferedReader | gzip.GzipFile:
    return gzip.GzipFile(path) if path.suffix == ".gz" else path.open("rb")
