"""Windows and accepted alerts on the disk."""

from __future__ import annotations

import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from guard.admin.shapes import AlertBatch, AlertIn
from guard.state_files import AlertStore, load_windows, save_windows
from slo.clock import SystemClock
from slo.errors import DataError
from slo.sources.memory import MemorySource
from slo.spec import parse_slo
from slo.types import Exchange, Outcome


def batch(*fingerprints: str, status: str = "firing") -> AlertBatch:
    alerts = tuple(AlertIn(f, status, "2026-01-01T00:00:00Z", "", {"alertname": "A"}, {}) for f in fingerprints)
    return AlertBatch("guard", "{}", status, 0, alerts)


def test_an_alert_is_stored_once_however_often_it_is_sent(tmp_path: Path) -> None:
    store = AlertStore(tmp_path, 1.0)
    first, again = store.store(batch("a", "b"), 1.0), store.store(batch("a", "b", "c"), 2.0)
    resolved = store.store(batch("a", status="resolved"), 3.0)
    store.close()
    assert (first.stored_count, first.duplicate_count) == (2, 0)
    assert (again.stored_count, again.duplicate_count) == (1, 2)
    assert resolved.stored_count == 1


def test_what_was_acknowledged_from_many_threads_is_on_the_disk(tmp_path: Path) -> None:
    store = AlertStore(tmp_path, 1.0)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: store.store(batch(f"{n}-a", f"{n}-b"), 1.0), range(100)))
    store.close()
    assert all(r.stored_count == 2 for r in results)
    with sqlite3.connect(tmp_path / "alerts.sqlite") as db:
        count = db.execute("SELECT count(*) FROM alerts").fetchone()[0]
    db.close()
    assert count == 200


def test_a_damaged_alert_file_is_moved_aside_and_answers_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "alerts.sqlite").write_bytes(b"not a database" * 100)
    with caplog.at_level(logging.ERROR):
        store = AlertStore(tmp_path, 7.0)
    assert store.store(batch("a"), 1.0).stored_count == 1
    store.close()
    assert (tmp_path / "alerts.sqlite.damaged-7").read_bytes().startswith(b"not a database")
    assert "moved to" in caplog.text


def test_windows_are_replaced_as_a_whole(tmp_path: Path) -> None:
    assert load_windows(tmp_path) == []
    save_windows(tmp_path, [{"v": 1}, {"piece_count": 1}])
    assert load_windows(tmp_path) == [{"v": 1}, {"piece_count": 1}]
    assert [p.name for p in tmp_path.iterdir()] == ["windows.jsonl"]


@pytest.mark.parametrize("content", [b"", b"{torn", b"[]", b"\xff\xfe", b'{"v":1}\n{"pie'])
def test_windows_that_cannot_be_read_say_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "windows.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="windows start empty"):
        load_windows(tmp_path)


def test_what_memory_saves_is_what_it_loads(tmp_path: Path) -> None:
    slos = parse_slo("service: a\npreset: support-faq\n").objectives
    clock = SystemClock()
    before, after = MemorySource(slos, clock), MemorySource(slos, clock)
    for number in range(30):
        before.served(Exchange(str(number), 1.0, "chat", "r1", "stable", Outcome.OK, 200, duration_s=0.1))
    save_windows(tmp_path, before.dump_pieces())
    after.load_pieces(load_windows(tmp_path))
    availability = next(s for s in slos if s.name == "availability")
    assert after.reading(availability, "r1", 3600.0).count == 30
