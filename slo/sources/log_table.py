"""The exchange log as a table of the embedded engine (DuckDB): any number of exchanges in constant memory.

    with open_log(["state/exchanges"]) as table:             segments and directories, JSON lines and Parquet, mixed
        for tally in tallies(table, 3600.0): ...             slo.sources.log_votes: what the indicators count
        table.rows("SELECT route, avg(duration_s) FROM exchanges GROUP BY route")
        table.bad_count, table.problems                      what was left out, as `LogReader` says it

Views of the connection `table.db`, made once, read lazily (nothing is loaded before a query asks):

    lines       every line, damaged ones too: `missing` is true where a required field cannot be read
    numbers     `lines` without its texts and lists; after `stage` read from columns, some ten times faster than JSON
    worded      `numbers` with `text`, of a share of the exchanges after `stage`, and `pick`, a hash to draw them by
    exchanges   the usable ones, same columns: those of `Exchange` (findings as a list of structs), and
                grounding, zero_hit, similarity     result of that check, NULL when it did not speak
                similarity_score                    its score
                text                                the words as JSON, NULL when they were not kept

Each check speaks once per answer; of two findings of one check the first is taken. Lists of rows come from `table.rows`
in pieces, so a result may be larger than memory. Bucket numbers are floor(wall_s / width), bins those of
`slo.windows.bin_key`.

Needs the `analysis` extra; it is imported when a table is opened, so that no other process carries the engine.
"""

from __future__ import annotations

import gzip
import importlib
import shutil
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from slo.errors import DataError
from slo.sources.exchange_log import MAX_LINE_BYTES, MAX_PROBLEMS, PARQUET, LogReader, present_name, segments

EXTRA_MISSING = "reading logs with the engine needs DuckDB: pip install 'sft-guard[analysis]'"
MEMORY_BYTES = 600 * 2**20
"""What the engine may hold; beyond it spills to disk. The process needs some 150 MB besides."""
PROGRESS_EVERY_S = 1.0
FETCH_ROWS = 20_000
LONG_LINE_BYTES = 2_000
KEPT_TEXTS = 20_000
"""Of longer logs about so many texts stay at hand after `stage`, more where lines are shorter."""

REQUIRED = ("wall_s", "route", "release", "arm", "outcome", "status")
_CHECKS = ("grounding", "zero_hit", "similarity")
_FINDING = '"check" VARCHAR, result VARCHAR, score DOUBLE, reason VARCHAR, evidence VARCHAR[], detector VARCHAR'

# name -> (type, value where a line of an older version lacks it)
COLUMNS: dict[str, tuple[str, str]] = {
    "exchange_id": ("VARCHAR", "NULL"),
    "wall_s": ("DOUBLE", "NULL"),
    "route": ("VARCHAR", "NULL"),
    "release": ("VARCHAR", "NULL"),
    "arm": ("VARCHAR", "NULL"),
    "outcome": ("VARCHAR", "NULL"),
    "status": ("INTEGER", "NULL"),
    "reason": ("VARCHAR", "''"),
    "duration_s": ("DOUBLE", "0.0"),
    "first_byte_s": ("DOUBLE", "NULL"),
    "first_token_s": ("DOUBLE", "NULL"),
    "overhead_s": ("DOUBLE", "NULL"),
    "stream": ("BOOLEAN", "false"),
    "model": ("VARCHAR", "''"),
    "tenant": ("VARCHAR", "''"),
    "session": ("VARCHAR", "''"),
    "cache": ("VARCHAR", "'bypass'"),
    "input_tokens": ("BIGINT", "NULL"),
    "output_tokens": ("BIGINT", "NULL"),
    "usage": ("VARCHAR", "'none'"),
    "cost_usd": ("DOUBLE", "NULL"),
    "traceparent": ("VARCHAR", "''"),
}
"""Columns of one exchange beside its findings and its text."""

_WORDY = "exchange_id, traceparent, findings, text"
_PICKED = "* EXCLUDE (exchange_id, traceparent, findings) REPLACE (text AS text), hash(exchange_id) AS pick"
FINDINGS_TYPE = f"STRUCT({_FINDING})[]"
FLAT_COLUMNS = {**dict.fromkeys(_CHECKS, "VARCHAR"), "similarity_score": "DOUBLE"}
"""What the checks said, out of the list of findings."""


def open_log(
    paths: Iterable[Path | str] | Path | str,
    *,
    memory_bytes: int = MEMORY_BYTES,
    threads: int | None = None,
    spill: Path | None = None,
) -> LogTable:
    """Open segments and directories as one table.

    memory_bytes, threads: limits of the engine; default threads: all cores. spill: where it may put what does not fit,
    default a temporary directory.

    Raises:
        DataError: a path does not exist, a directory holds no segment, or the `analysis` extra is missing.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    return LogTable(tuple(segments(given)), memory_bytes, threads, spill)


def engine(memory_bytes: int, threads: int | None, spill: Path) -> Any:
    """A connection in memory that fetches nothing from anywhere. Raises DataError when the extra is missing."""
    try:
        duckdb: Any = importlib.import_module("duckdb")
    except ImportError as error:
        raise DataError(EXTRA_MISSING) from error
    config = {
        "memory_limit": f"{memory_bytes // 2**20}MiB",
        "temp_directory": str(spill),
        "preserve_insertion_order": "true" if threads == 1 else "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    if threads:
        config["threads"] = str(threads)
    return duckdb.connect(config=config)


class LogTable:
    """One open log; a context manager, because it owns a connection and a spill directory.

    files: what is read. bad_count, problems: damaged lines and files, the first 20 told by place; complete once a
    query over all lines has run (`tallies` does) or `find_damage` was called. has_text: whether words may be in it.
    """

    def __init__(self, files: tuple[Path, ...], memory_bytes: int, threads: int | None, spill: Path | None) -> None:
        self._own_spill = tempfile.mkdtemp(prefix="sft-guard-log-") if spill is None else None
        self.spill = Path(self._own_spill or str(spill))
        self.problems: list[str] = []
        self.bad_count = 0
        self._file_faults = 0
        self._looked = False
        self.has_text = False
        try:
            self.db = engine(memory_bytes, threads, self.spill)
            self._json, self._parquet = self._usable(files)
            self.files = (*self._json, *self._parquet)
            self.has_text = bool(self._json)
            self.db.execute(f"CREATE VIEW lines AS {self._lines()}")
            self.db.execute(f"CREATE VIEW exchanges AS SELECT * EXCLUDE (missing) FROM lines WHERE {USABLE}")
            self.db.execute(f"CREATE VIEW numbers AS SELECT * EXCLUDE ({_WORDY}) FROM lines")
            self.db.execute(f"CREATE VIEW worded AS SELECT {_PICKED} FROM lines")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LogTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back memory and disk."""
        if hasattr(self, "db"):
            self.db.close()
        if self._own_spill:
            shutil.rmtree(self._own_spill, ignore_errors=True)

    # -- asking -------------------------------------------------------------------------------------------------

    def run(self, sql: str, on_progress: Callable[[float], None] | None = None) -> None:
        """Execute a statement; `on_progress` is told the share done, 0 to 1, every second while it runs.

        Raises:
            DataError: a file changed or is damaged inside, or the spill directory is full.
        """
        done = threading.Event()
        watcher = None
        if on_progress is not None:
            watcher = threading.Thread(target=self._watch, args=(done, on_progress), daemon=True)
            watcher.start()
        try:
            self.db.execute(sql)
        except Exception as error:
            raise self._told(error) from error
        finally:
            done.set()
            if watcher:
                watcher.join()

    def stage(self, on_progress: Callable[[float], None] | None = None) -> None:
        """Read JSON lines once and keep their numbers as columns in the spill directory; `numbers` then reads those.

        Worth it before anything that reads the log more than once; some 30 bytes an exchange. Of the words an even
        share is kept, a few ten thousand texts, for `worded`. Raises DataError as `run` does.
        """
        if not self._json:
            return
        staged = self.spill / "numbers.parquet"
        quoted = str(staged).replace("'", "''")
        share = max(1, sum(path.stat().st_size for path in self._json) // (LONG_LINE_BYTES * KEPT_TEXTS))
        kept = f"CASE WHEN hash(exchange_id) % {share} = 0 THEN text END AS text"
        picked = _PICKED.replace("REPLACE (text AS text)", f"REPLACE ({kept})")
        self.run(f"COPY (SELECT {picked} FROM ({self._json_lines()})) TO '{quoted}' (FORMAT parquet)", on_progress)
        source = f"SELECT * FROM read_parquet({_list([staged])}, hive_partitioning=false)"
        if self._parquet:
            source += f" UNION ALL BY NAME SELECT {_PICKED} FROM ({self._parquet_lines()})"
        self.run(f"CREATE OR REPLACE VIEW worded AS {source}")
        self.run("CREATE OR REPLACE VIEW numbers AS SELECT * EXCLUDE (pick, text) FROM worded")

    def rows(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """Rows of a query, fetched in pieces. Raises DataError as `run` does."""
        cursor = self.db.cursor()
        try:
            cursor.execute(sql)
            while piece := cursor.fetchmany(FETCH_ROWS):
                yield from piece
        except Exception as error:
            raise self._told(error) from error
        finally:
            cursor.close()

    def find_damage(self, line_count: int | None = None) -> None:
        """Fill `bad_count` and `problems`. line_count: damaged lines that a query has seen, else they are counted."""
        if self._looked:
            return
        self._looked = True
        if line_count is None:
            line_count = next(self.rows(f"SELECT count(*) FROM lines WHERE NOT ({USABLE})"))[0]
        self.bad_count = self._file_faults + line_count
        if not line_count or not self._json:
            return
        # The engine knows no line numbers: the files that hold damage are read once more, until enough is told.
        source = self._json_lines(filename=True)
        suspects = self.rows(f"SELECT DISTINCT filename FROM ({source}) WHERE NOT ({USABLE})")
        room = min(MAX_PROBLEMS - len(self.problems), line_count)
        for (name,) in sorted(suspects):
            reader = LogReader(Path(name))
            for _ in reader:
                if len(reader.problems) >= room:
                    break
            self.problems.extend(reader.problems[:room])
            room -= len(reader.problems)
            if room <= 0:
                break

    def _watch(self, done: threading.Event, tell: Callable[[float], None]) -> None:
        while not done.wait(PROGRESS_EVERY_S):
            share = self.db.query_progress()
            if share is not None and share >= 0:
                tell(min(1.0, share / 100.0))

    def _told(self, error: Exception) -> BaseException:
        """The engine's fault in one line; what is no fault of data goes up as it is."""
        if isinstance(error, RuntimeError) and str(error) == "Query interrupted":
            return KeyboardInterrupt()  # how the engine tells of Ctrl-C
        if type(error).__module__.partition(".")[0] not in ("duckdb", "_duckdb"):
            return error
        first = str(error).splitlines()[0]
        kind = type(error).__name__
        if kind == "OutOfMemoryException" or "No space left on device" in first:
            return DataError(
                f"{self.spill}: no room to work in ({first[:200]}); free some disk, or name one with TMPDIR"
            )
        if kind in ("IOException", "InvalidInputException", "ConversionException", "SerializationException"):
            return DataError(
                f"exchange log: {first}; if a guard is writing here run it again, else leave that file out"
            )
        return error

    # -- files --------------------------------------------------------------------------------------------------

    def _usable(self, files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
        """(files of JSON lines, files of Parquet) that can be read; the others become problems."""
        json_files, parquet_files = [], []
        for path in map(present_name, files):
            try:
                with path.open("rb"):
                    pass
                if path.name.endswith(PARQUET):
                    self._check_parquet(path)
                    parquet_files.append(path)
                else:
                    json_files.append(self._whole(path) if path.suffix == ".gz" else path)
            except OSError as error:
                self._fault(f"{path}: cannot be read ({error.strerror or error}); the file is left out")
            except DataError as error:
                self._fault(str(error))
        return json_files, parquet_files

    def _check_parquet(self, path: Path) -> None:
        try:
            found = {
                name
                for (name,) in self.db.execute("SELECT name FROM parquet_schema($1)", [_literal_path(path)]).fetchall()
            }
        except Exception as error:
            raise DataError(
                f"{path}: no readable Parquet ({str(error).splitlines()[0]}); the file is left out"
            ) from error
        lacking = [name for name in REQUIRED if name not in found]
        if lacking:
            raise DataError(f"{path}: no exchanges (column {lacking[0]!r} is missing); the file is left out")

    def _whole(self, path: Path) -> Path:
        """An archive that is whole, or else a copy of what can be read of it: the engine would refuse all of it."""
        try:
            with gzip.open(path) as stream:
                while stream.read(2**20):
                    pass
            return path
        except (OSError, EOFError, zlib.error) as error:
            self._fault(f"{path}: cannot be read to its end ({error}); the lines before are used")
        copy = self.spill / f"{path.name}.{len(self.problems)}.jsonl"
        with copy.open("wb") as out:
            try:
                with gzip.open(path) as stream:
                    while piece := stream.read(2**16):
                        out.write(piece)
            except (OSError, EOFError, zlib.error):
                pass  # told above
        return copy

    def _fault(self, text: str) -> None:
        self._file_faults += 1
        self.bad_count = self._file_faults
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(text)

    # -- SQL ----------------------------------------------------------------------------------------------------

    def _lines(self) -> str:
        parts = []
        if self._json:
            parts.append(self._json_lines())
        if self._parquet:
            parts.append(self._parquet_lines())
        if not parts:
            nothing = [f"NULL::{kind} AS {name}" for name, kind in _all_columns().items()]
            parts.append(f"SELECT {', '.join(nothing)}, true AS missing WHERE false")
        return " UNION ALL BY NAME ".join(parts)

    def _json_lines(self, filename: bool = False) -> str:
        kinds = {"v": "INTEGER", **{name: kind for name, (kind, _) in COLUMNS.items()}}
        kinds |= {"findings": FINDINGS_TYPE, "text": "JSON"}
        wanted = ", ".join(f"{name}: '{kind}'" for name, kind in kinds.items())
        columns = [_or_default(name, default) for name, (_, default) in COLUMNS.items()]
        missing = " OR ".join(f"{name} IS NULL" for name in ("v", "exchange_id", *REQUIRED))
        return (
            f"SELECT {', '.join(columns)}, {_flattened()}, findings, text::VARCHAR AS text, {missing} AS missing"
            f"{', filename' if filename else ''} FROM read_json({_list(self._json)}, format='newline_delimited', "
            f"ignore_errors=true, hive_partitioning=false, maximum_object_size={MAX_LINE_BYTES}, "
            f"columns={{{wanted}}}{', filename=true' if filename else ''})"
        )

    def _parquet_lines(self) -> str:
        source = f"read_parquet({_list(self._parquet)}, union_by_name=true, hive_partitioning=false)"
        found = {row[0]: row[1] for row in self.db.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
        columns = []
        for name, (kind, default) in COLUMNS.items():
            if name in found:
                columns.append(_or_default(name, default) if found[name] == kind else _cast(name, kind, default))
            else:
                columns.append(f"CAST({default} AS {kind}) AS {name}")
        if all(name in found for name in FLAT_COLUMNS):
            columns += [f'"{name}"' for name in FLAT_COLUMNS]
        elif "findings" in found:
            columns.append(_flattened())
        else:
            columns += [f"NULL::{kind} AS {name}" for name, kind in FLAT_COLUMNS.items()]
        columns.append("findings" if "findings" in found else f"NULL::{FINDINGS_TYPE} AS findings")
        self.has_text |= "text" in found
        columns.append("text::VARCHAR AS text" if "text" in found else "NULL::VARCHAR AS text")
        missing = " OR ".join(f"{name} IS NULL" for name in REQUIRED)
        return f"SELECT {', '.join(columns)}, {missing} AS missing FROM {source}"


def _all_columns() -> dict[str, str]:
    return {
        **{name: kind for name, (kind, _) in COLUMNS.items()},
        **FLAT_COLUMNS,
        "findings": FINDINGS_TYPE,
        "text": "VARCHAR",
    }


def _or_default(name: str, default: str) -> str:
    return name if default == "NULL" else f"coalesce({name}, {default}) AS {name}"


def _cast(name: str, kind: str, default: str) -> str:
    return f"coalesce(TRY_CAST({name} AS {kind}), {default}) AS {name}"


def _flattened() -> str:
    """Columns of the checks out of the list of findings."""
    first = "list_filter(findings, lambda f: f.\"check\" = '{0}')[1]"
    parts = [f"{first.format(check)}.result AS {check}" for check in _CHECKS]
    return ", ".join([*parts, f"{first.format('similarity')}.score AS similarity_score"])


def _literal_path(path: Path) -> str:
    """The path with what the engine would expand made plain."""
    text = str(path)
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)


def _list(paths: Sequence[Path]) -> str:
    return "[" + ", ".join("'" + _literal_path(path).replace("'", "''") + "'" for path in paths) + "]"


_OUTCOMES = "'ok','client_error','server_error','timeout','incomplete','cancelled','blocked'"
_RESULTS = "'pass','fail','unavailable','skipped'"
USABLE = (
    f"NOT missing AND outcome IN ({_OUTCOMES}) AND cache IN ('hit','miss','bypass')"
    + "".join(f" AND coalesce({check}, 'pass') IN ({_RESULTS})" for check in _CHECKS)
)  # fmt: skip
"""Condition over `lines`: what `LogReader` would have accepted."""
