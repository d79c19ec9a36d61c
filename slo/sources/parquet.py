"""Parquet segments of the exchange log: a closed segment converted, and read back one exchange at a time.

    exchanges-...-0000.jsonl ─► .parquet.part ─ fsync ─ rename ─► exchanges-...-0000.parquet ─► the JSON lines go

Columns are those of `slo.sources.log_table` (findings kept as a list *and* flat, so that sums need not open the list),
`text` is the JSON object as it stood in the line. Needs the `analysis` extra; never in the proxy process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from slo.errors import DataError
from slo.sources.exchange_log import PARQUET
from slo.sources.log_table import COLUMNS, FLAT_COLUMNS, open_log
from slo.types import Exchange

PART = ".part"
_CONVERT_MEMORY_BYTES = 256 * 2**20


def convert(segment: Path) -> Path:
    """Turn one closed segment of JSON lines into Parquet beside it, remove the lines, return the new file.

    A crash leaves the lines, or both complete (readers then take the Parquet); never neither.

    Raises:
        DataError: damaged lines (they would be lost: the segment stays as it is), no room, or the extra is missing.
        OSError: the disk.
    """
    target = segment.with_suffix(PARQUET)
    part = target.with_name(target.name + PART)
    with open_log(segment, threads=1, memory_bytes=_CONVERT_MEMORY_BYTES) as table:
        table.find_damage()
        if table.bad_count:
            raise DataError(f"{table.problems[0]}; {segment.name} stays as it is, so that nothing is lost")
        names = ", ".join(f'"{name}"' for name in (*COLUMNS, *FLAT_COLUMNS, "findings", "text"))
        quoted = str(part).replace("'", "''")
        options = "FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false"
        mask = os.umask(0o077)  # the text of users is in here, and the engine makes the file itself
        try:
            table.run(f"COPY (SELECT {names} FROM exchanges) TO '{quoted}' ({options})")
            _sync(part)
            part.rename(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.umask(mask)
    _sync(target.parent)
    segment.unlink(missing_ok=True)
    return target


def parquet_exchanges(path: Path) -> Iterator[tuple[Exchange, dict[str, Any] | None]]:
    """Iterate over the exchanges of one segment and their text.

    Raises:
        DataError: no Parquet of exchanges, damaged inside, or the `analysis` extra is missing.
    """
    names = (*COLUMNS, "findings", "text")
    with open_log(path, threads=1) as table:
        if table.problems:
            raise DataError(table.problems[0])
        for row in table.rows(f"SELECT {', '.join(names)} FROM exchanges"):
            fields = dict(zip(names, row, strict=True))
            text = fields.pop("text")
            fields["findings"] = fields["findings"] or ()
            try:
                yield msgspec.convert(fields, Exchange), msgspec.json.decode(text) if text else None
            except msgspec.MsgspecError as error:
                raise DataError(f"{path}: not an exchange ({error}); the rest of the file is left out") from error


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
