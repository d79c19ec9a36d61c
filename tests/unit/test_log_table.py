"""The log as a table: damage is left out, counted and told by place, and nothing on the way surprises."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from slo.codec import encode_exchange
from slo.errors import DataError
from slo.sources import log_table
from slo.sources.exchange_log import LogReader
from slo.sources.log_table import LogTable, open_log
from slo.sources.log_votes import tallies
from slo.sources.parquet import convert
from tests.log_kit import write_log
from tests.slo_builders import AVAILABILITY, make_exchange

pytest.importorskip("duckdb", reason="needs the `analysis` extra: pip install 'sft-guard[analysis]'")


def lines(first: int, last: int) -> bytes:
    return b"".join(encode_exchange(make_exchange(n)) + b"\n" for n in range(first, last))


def ids(table: LogTable) -> list[str]:
    return [row[0] for row in table.rows("SELECT exchange_id FROM exchanges ORDER BY exchange_id")]


def test_all_kinds_of_segments_are_one_table(tmp_path: Path) -> None:
    write_log(tmp_path / "exchanges-1.jsonl", [make_exchange(0)])
    convert(write_log(tmp_path / "exchanges-2.jsonl", [make_exchange(1)]))
    (tmp_path / "exchanges-3.jsonl.gz").write_bytes(gzip.compress(lines(2, 3)))
    (tmp_path / "exchanges-4.jsonl.open").write_bytes(lines(3, 4))
    with open_log(tmp_path) as table:
        assert ids(table) == ["e0", "e1", "e2", "e3"]
        assert (table.bad_count, table.problems) == (0, [])
    assert not table.spill.exists()


def test_damaged_lines_are_counted_and_told_by_line_as_the_reader_does(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    unknown = encode_exchange(make_exchange(7)).replace(b'"outcome":"ok"', b'"outcome":"fine"') + b"\n"
    nulled = encode_exchange(make_exchange(8)).replace(b'"arm":"stable"', b'"arm":null') + b"\n"
    path.write_bytes(
        lines(0, 1)
        + b'{"some": "thing"}\n\nnot json\n[1]\n\xff\xfe\n'
        + unknown
        + nulled
        + lines(1, 2)
        + lines(2, 3)[:50]
    )
    reader = LogReader(path)
    assert [e.exchange_id for e, _ in reader] == ["e0", "e1"]
    with open_log([path]) as table:
        assert ids(table) == ["e0", "e1"]
        (success,) = (t for t in tallies(table, 3600.0) if t.indicator == AVAILABILITY)
        assert (success.count, success.bad) == (2, 0)
        assert table.bad_count == reader.bad_count == 7
        assert table.problems == reader.problems


def test_a_line_longer_than_any_exchange_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_table, "MAX_LINE_BYTES", 70_000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(0, 1) + b"x" * 300_000 + b"\n" + lines(1, 2))
    with open_log(path) as table:
        assert ids(table) == ["e0", "e1"]
        table.find_damage()
        assert table.bad_count == 1


def test_a_torn_archive_gives_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines(0, 20_000))[:-40])
    (tmp_path / "b.jsonl").write_bytes(lines(20_000, 20_001))
    with open_log(tmp_path) as table:
        found = ids(table)
        assert len(found) > 1000
        assert "e20000" in found
        assert f"{path}: cannot be read to its end" in table.problems[0]


def test_torn_or_foreign_parquet_is_told_and_left_out(tmp_path: Path) -> None:
    whole = convert(write_log(tmp_path / "a.jsonl", [make_exchange(0)]))
    torn = tmp_path / "b.parquet"
    torn.write_bytes(whole.read_bytes()[:-20])
    with open_log(tmp_path) as table:
        assert ids(table) == ["e0"]
        assert table.bad_count == 1
        assert table.problems[0].startswith(f"{torn}: no readable Parquet")
        foreign = str(tmp_path / "c.parquet")
        table.run(f"COPY (SELECT 1 AS wall_s) TO '{foreign}' (FORMAT parquet)")
    with open_log([foreign]) as table:
        assert ids(table) == []
        assert table.problems == [f"{foreign}: no exchanges (column 'route' is missing); the file is left out"]
    assert LogReader(foreign).bad_count == 0
    reader = LogReader(foreign)
    assert list(reader) == []
    assert reader.bad_count == 1


def test_parquet_of_others_may_lack_what_is_not_needed(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with open_log(write_log(tmp_path / "seed.jsonl", [make_exchange(0)])) as table:
        table.run(
            "COPY (SELECT wall_s, route, release, arm, outcome, status::BIGINT AS status, "
            f"duration_s::FLOAT AS duration_s FROM exchanges) TO '{path}' (FORMAT parquet)"
        )
    with open_log(path) as table:
        counts = {t.indicator: t.count for t in tallies(table, 60.0)}
        assert counts[AVAILABILITY] == 1
        assert counts["latency"] == 1


def test_a_segment_left_twice_by_a_crash_counts_once(tmp_path: Path) -> None:
    segment = write_log(tmp_path / "exchanges-1.jsonl", [make_exchange(0)])
    before = segment.read_bytes()
    convert(segment)
    segment.write_bytes(before)
    with open_log(tmp_path) as table:
        assert ids(table) == ["e0"]
    assert [e.exchange_id for e, _ in LogReader(tmp_path)] == ["e0"]


def test_names_with_letters_that_engines_expand_are_plain_names(tmp_path: Path) -> None:
    folder = tmp_path / "it's [a]*? day=1"
    folder.mkdir()
    convert(write_log(folder / "exchanges-1.jsonl", [make_exchange(0)]))
    write_log(folder / "exchanges-2.jsonl", [make_exchange(1)])
    write_log(tmp_path / "exchanges-3.jsonl", [make_exchange(2)])
    with open_log(folder) as table:
        assert ids(table) == ["e0", "e1"]


def test_a_segment_with_damage_is_not_converted(tmp_path: Path) -> None:
    segment = tmp_path / "exchanges-1.jsonl"
    segment.write_bytes(lines(0, 1) + b"torn")
    with pytest.raises(DataError, match=r"exchanges-1\.jsonl:2: .*stays as it is"):
        convert(segment)
    assert [p.name for p in tmp_path.iterdir()] == [segment.name]


def test_a_missing_engine_is_one_line_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(log_table.importlib, "import_module", absent)
    with pytest.raises(DataError, match=r"pip install 'sft-guard\[analysis\]'"):
        open_log(write_log(tmp_path / "a.jsonl", [make_exchange(0)]))


def test_paths_that_hold_nothing_are_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_log(tmp_path / "none")
    with pytest.raises(DataError, match="no segments"):
        open_log(tmp_path)


def test_a_long_query_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_table, "PROGRESS_EVERY_S", 0.001)
    told: list[float] = []
    with open_log(write_log(tmp_path / "a.jsonl", (make_exchange(n) for n in range(20_000)))) as table:
        list(tallies(table, 60.0, on_progress=told.append))
    assert all(0.0 <= share <= 1.0 for share in told)


def test_ctrl_c_in_a_query_is_ctrl_c(tmp_path: Path) -> None:
    with open_log(write_log(tmp_path / "a.jsonl", [make_exchange(0)])) as table:
        assert isinstance(table._told(RuntimeError("Query interrupted")), KeyboardInterrupt)
        assert isinstance(table._told(RuntimeError("anything else")), RuntimeError)


def test_a_full_disk_names_the_place_and_the_cure(tmp_path: Path) -> None:
    import duckdb

    with open_log(write_log(tmp_path / "a.jsonl", [make_exchange(0)])) as table:
        told = table._told(duckdb.IOException("IO Error: Could not write: No space left on device"))
        assert str(told).startswith(f"{table.spill}: no room to work in")
        assert "TMPDIR" in str(told)
