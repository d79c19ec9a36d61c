"""Closed segments become Parquet, off the process that serves: `python -m exporters.parquet DIRECTORY`.

    writer thread closes a segment ─► ParquetConverter ─► child, lowest priority ─► every closed segment in turn

The engine is loaded in the child only. Without the `analysis` extra segments stay JSON lines, and nothing is lost by
it: readers take both.
"""

from __future__ import annotations

import fcntl
import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from exporters.background import stay_behind
from exporters.segments import CLOSED_SUFFIX, PARQUET_SUFFIX, PART_SUFFIX, segment_start_s
from slo.errors import GuardError

log = logging.getLogger("sft_guard.exchange_log")

LOCK = ".parquet.lock"
_STOP_S = 5.0


class ParquetConverter:
    """Starts a child when a segment was closed; one at a time. Called from the writer thread, never from the loop.

    start: makes the child; a test plugs in its own. available: whether the engine is installed here.
    """

    def __init__(
        self,
        directory: Path,
        start: Callable[[list[str]], subprocess.Popen[bytes]] | None = None,
        available: Callable[[], bool] = lambda: importlib.util.find_spec("duckdb") is not None,
    ) -> None:
        self._directory, self._start, self._available = directory, start or _start, available
        self._child: subprocess.Popen[bytes] | None = None
        self._told = False

    def closed(self) -> None:
        """A segment was closed; a child that is at work finds it as well. Never raises for the child's sake."""
        if self._child is not None and self._child.poll() is None:
            return
        if not self._available():
            if not self._told:
                log.info(
                    "exchange log: closed segments stay JSON lines; Parquet needs: pip install 'sft-guard[analysis]'"
                )
            self._told = True
            return
        try:
            self._child = self._start([sys.executable, "-m", "exporters.parquet", str(self._directory)])
        except OSError as error:
            log.warning("exchange log: no process to convert segments (%s); they stay JSON lines", error)

    def close(self) -> None:
        """Stop the child: what it had not finished is done after the next start."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.poll() is None:
            child.terminate()
        try:
            child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - this program itself
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )


def convert_all(directory: Path) -> tuple[int, list[str]]:
    """Convert every closed segment of JSON lines; return how many, and why others stayed as they are.

    A second process that comes meanwhile finds the lock and does nothing.

    Raises:
        OSError: the directory cannot be used.
    """
    from slo.sources.parquet import convert

    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0, []
        for part in directory.glob(f"exchanges-*{PARQUET_SUFFIX}{PART_SUFFIX}"):
            part.unlink(missing_ok=True)  # of a child that died
        count, tried, problems = 0, set[str](), list[str]()
        while waiting := [name for name in _closed(directory) if name not in tried]:
            name = waiting[0]
            tried.add(name)
            try:
                convert(directory / name)
                count += 1
            except FileNotFoundError:
                pass  # pruned meanwhile
            except (GuardError, OSError) as error:
                problems.append(str(error))
        return count, problems
    finally:
        os.close(lock)


def _closed(directory: Path) -> list[str]:
    return sorted(
        path.name
        for path in directory.iterdir()
        if path.name.endswith(CLOSED_SUFFIX) and segment_start_s(path.name) is not None
    )


def main(arguments: list[str]) -> int:
    """Convert the segments of one directory; exit 1 when some stayed as they are."""
    stay_behind()
    _, problems = convert_all(Path(arguments[0]))
    for problem in problems:
        sys.stderr.write(f"sft-guard: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.stderr.write(f"sft-guard: exchange log: {error}\n")
        sys.exit(1)
