"""The exchange log is read to its end, whatever state it is in."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from slo.codec import encode_exchange
from slo.errors import DataError
from slo.sources import exchange_log
from slo.sources.exchange_log import LogReader, read_exchanges
from tests.slo_builders import make_exchange


def lines(first: int, last: int) -> bytes:
    return b"".join(
        encode_exchange(make_exchange(n), {"question": "\u8acb\u5047\uff1f"}) + b"\n" for n in range(first, last)
    )


def ids(paths: object) -> list[str]:
    return [exchange.exchange_id for exchange, _ in read_exchanges(paths)]  # type: ignore[arg-type]


def test_closed_open_and_gzipped_segments_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "exchanges-3.jsonl.open").write_bytes(lines(4, 6))
    (tmp_path / "exchanges-1.jsonl").write_bytes(lines(0, 2))
    (tmp_path / "exchanges-2.jsonl.gz").write_bytes(gzip.compress(lines(2, 4)))
    (tmp_path / "notes.txt").write_text("not a segment")
    assert ids(tmp_path) == [f"e{n}" for n in range(6)]
    assert ids([tmp_path, tmp_path / "exchanges-1.jsonl"]) == [f"e{n}" for n in range(6)]  # none twice
    ((_, text), *_) = read_exchanges(tmp_path / "exchanges-1.jsonl")
    assert text == {"question": "\u8acb\u5047\uff1f"}


def test_torn_and_foreign_lines_are_counted_and_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(0, 1) + b'{"some": "thing"}\n\nnot json\n[1]\n' + lines(1, 2) + lines(2, 3)[:50])
    reader = LogReader(path)
    assert [e.exchange_id for e, _ in reader] == ["e0", "e1"]
    assert (reader.bad_count, reader.line_count) == (4, 6)
    assert [problem.split(": ")[0] for problem in reader.problems] == [f"{path}:{n}" for n in (2, 4, 5, 7)]


def test_a_torn_archive_gives_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines(0, 2000))[:-40])
    (tmp_path / "b.jsonl").write_bytes(lines(2000, 2001))
    reader = LogReader(tmp_path)
    found = [e.exchange_id for e, _ in reader]
    assert found[0] == "e0"
    assert found[-1] == "e2000"
    assert len(found) > 1000
    assert reader.bad_count >= 1
    assert "cannot be read to its end" in reader.problems[-1]


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(lines(0, 1))
    reader = LogReader([path])
    assert list(reader) == []
    assert reader.bad_count == 1


def test_an_endless_line_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_log, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(0, 1) + b"x" * 5000 + b"\n" + lines(1, 2))
    reader = LogReader(path)
    assert [e.exchange_id for e, _ in reader] == ["e0", "e1"]
    assert reader.problems == [f"{path}:2: longer than 1000 bytes; the line is left out"]


def test_only_the_first_problems_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x\n" * 500)
    reader = LogReader(path)
    assert list(reader) == []
    assert (reader.bad_count, len(reader.problems)) == (500, 20)


def test_paths_that_hold_nothing_are_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        ids(tmp_path / "none")
    with pytest.raises(DataError, match="no segments"):
        ids(tmp_path)


def test_a_segment_that_a_running_guard_renames_meanwhile_is_read_under_its_new_name(tmp_path: Path) -> None:
    for name in ("exchanges-1.jsonl.open", "exchanges-2.jsonl"):
        (tmp_path / name).write_bytes(lines(int(name[10]), int(name[10]) + 1))
    reader = LogReader(tmp_path)
    (tmp_path / "exchanges-1.jsonl.open").rename(tmp_path / "exchanges-1.jsonl")
    (tmp_path / "exchanges-2.jsonl").unlink()
    assert [e.exchange_id for e, _ in reader] == ["e1"]
    assert "cannot be read to its end" in reader.problems[0]
