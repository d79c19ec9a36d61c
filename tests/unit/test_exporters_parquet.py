"""A closed segment is in the directory once, as lines or as columns, whatever happens on the way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from exporters.exchange_log import ExchangeLog
from exporters.parquet import LOCK, ParquetConverter, convert_all
from exporters.segments import open_segment, prune
from slo.sources import parquet as columns
from slo.sources.exchange_log import LogReader
from slo.types import Exchange
from tests.log_kit import write_log
from tests.slo_builders import found, make_exchange
from tests.unit.exporters_helpers import ManualClock

pytest.importorskip("duckdb", reason="needs the `analysis` extra: pip install 'sft-guard[analysis]'")

ONE, TWO = (f"exchanges-20250616T0{hour}0000Z-0000" for hour in (0, 1))
WORDS = {"question": "\u8acb\u5047\u898f\u5b9a\uff1f", "answer": "7 days", "contexts": ["a", "b"]}


def exchanges(first: int, last: int) -> list[Exchange]:
    return [make_exchange(n, findings=(found("grounding", "pass", 0.9),)) for n in range(first, last)]


def held(directory: Path) -> list[str]:
    return [exchange.exchange_id for exchange, _ in LogReader(directory)]


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {LOCK}


def test_closed_segments_become_columns_and_keep_every_word(tmp_path: Path) -> None:
    write_log(tmp_path / f"{ONE}.jsonl", exchanges(0, 3), WORDS)
    write_log(tmp_path / f"{TWO}.jsonl", exchanges(3, 5))
    write_log(tmp_path / f"{TWO[:-1]}1.jsonl.open", exchanges(5, 6))
    before = list(LogReader(tmp_path))
    assert convert_all(tmp_path) == (2, [])
    assert names(tmp_path) == {f"{ONE}.parquet", f"{TWO}.parquet", f"{TWO[:-1]}1.jsonl.open"}
    assert list(LogReader(tmp_path)) == before
    assert before[0][1] == WORDS
    assert (tmp_path / f"{ONE}.parquet").stat().st_mode & 0o777 == 0o600
    assert convert_all(tmp_path) == (0, [])


@pytest.mark.parametrize("point", ["sync_file", "rename", "sync_directory", "unlink"])
def test_a_crash_at_any_point_leaves_one_or_the_other_and_the_next_run_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    write_log(tmp_path / f"{ONE}.jsonl", exchanges(0, 4))
    child = os.fork()
    if child == 0:  # the real thing: a process that is gone at this very moment
        sync, rename, unlink = columns._sync, Path.rename, Path.unlink

        def here(name: str) -> None:
            if name == point:
                os._exit(9)

        monkeypatch.setattr(
            columns, "_sync", lambda p: (here("sync_directory" if p.is_dir() else "sync_file"), sync(p))
        )
        monkeypatch.setattr(Path, "rename", lambda p, target: (here("rename"), rename(p, target)))
        monkeypatch.setattr(Path, "unlink", lambda p, missing_ok=False: (here("unlink"), unlink(p, missing_ok)))
        try:
            convert_all(tmp_path)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert held(tmp_path) == ["e0", "e1", "e2", "e3"]
    convert_all(tmp_path)
    assert held(tmp_path) == ["e0", "e1", "e2", "e3"]
    assert names(tmp_path) == {f"{ONE}.parquet"}


def test_what_cannot_be_converted_stays_and_is_told(tmp_path: Path) -> None:
    (tmp_path / f"{ONE}.jsonl").write_bytes(b"torn\n")
    write_log(tmp_path / f"{TWO}.jsonl", exchanges(0, 1))
    count, problems = convert_all(tmp_path)
    assert count == 1
    assert len(problems) == 1
    assert f"{ONE}.jsonl:1" in problems[0]
    assert names(tmp_path) == {f"{ONE}.jsonl", f"{TWO}.parquet"}


def test_a_second_converter_leaves_the_first_alone(tmp_path: Path) -> None:
    import fcntl

    write_log(tmp_path / f"{ONE}.jsonl", exchanges(0, 1))
    with (tmp_path / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert convert_all(tmp_path) == (0, [])
    assert names(tmp_path) == {f"{ONE}.jsonl"}


def test_retention_and_naming_know_both_forms(tmp_path: Path) -> None:
    write_log(tmp_path / f"{ONE}.jsonl", exchanges(0, 1))
    convert_all(tmp_path)
    noon_s = 1_750_032_000.0
    again = open_segment(tmp_path, noon_s, lambda path: path.open("wb"))  # type: ignore[arg-type, return-value]
    assert again.path.name == f"{ONE[:-1]}1.jsonl.open"  # the same second after a restart
    again.abandon()
    assert prune(tmp_path, noon_s + 86_400 * 2, keep_days=1, max_total_bytes=10**9) == 1
    assert names(tmp_path) == {again.path.name}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_log_converts_behind_itself_in_another_process(tmp_path: Path) -> None:
    converter = ParquetConverter(tmp_path)
    log = ExchangeLog(tmp_path, segment_bytes=1, clock=ManualClock(), on_closed=converter.closed)
    log.checked(exchanges(0, 1)[0], WORDS)
    assert log.flush()
    until(lambda: any(name.endswith(".parquet") for name in names(tmp_path)))
    log.close()
    converter.close()
    assert held(tmp_path) == ["e0"]


def test_the_process_that_serves_never_loads_the_engine(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from exporters.parquet import ParquetConverter\n"
        "import guard.wiring\n"
        "c = ParquetConverter(pathlib.Path(sys.argv[1])); c.closed(); c.close()\n"
        "print([m for m in ('duckdb', 'numpy') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_without_the_engine_no_process_is_started(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    started: list[object] = []
    converter = ParquetConverter(tmp_path, start=started.append, available=lambda: False)  # type: ignore[arg-type]
    with caplog.at_level("INFO"):
        converter.closed()
        converter.closed()
    assert started == []
    assert [record.message for record in caplog.records] == [
        "exchange log: closed segments stay JSON lines; Parquet needs: pip install 'sft-guard[analysis]'"
    ]
    converter.close()


def test_a_child_at_work_is_not_joined_by_a_second_and_is_stopped_at_the_end(tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(_: list[str]) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        return started[-1]

    converter = ParquetConverter(tmp_path, start=start)
    converter.closed()
    converter.closed()
    assert len(started) == 1
    converter.close()
    assert started[0].returncode is not None
    converter.close()


def test_a_process_that_cannot_be_started_costs_the_conversion_only(tmp_path: Path) -> None:
    def start(_: list[str]) -> subprocess.Popen[bytes]:
        raise OSError("no more processes")

    ParquetConverter(tmp_path, start=start).closed()
