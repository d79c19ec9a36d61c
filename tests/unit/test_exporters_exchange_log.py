"""The exchange log loses nothing silently: each line is in a segment or counted with its reason."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from exporters.exchange_log import LIST_ITEMS, STRING_CHARS, ExchangeLog
from exporters.segments import DiskFile, prune, repair, segment_name, segment_start_s
from slo.clock import LoopClock
from slo.codec import decode_exchange
from slo.types import CheckResult, Exchange, Finding, Outcome
from tests.unit.exporters_helpers import ManualClock

EXCHANGE = Exchange("e1", 1_750_000_000.0, "chat", "r1", "stable", Outcome.OK, 200, duration_s=0.5)
ROOT = Path(__file__).resolve().parents[2]


class Disk:
    """A disk with a switch: files on it fail as told."""

    def __init__(self) -> None:
        self.write_error: int | None = None
        self.sync_error: int | None = None
        self.truncate_error: int | None = None
        self.take_bytes: int | None = None  # how much of the next write gets through before it fails
        self.gate = threading.Event()
        self.gate.set()
        self.synced: list[DiskFile] = []

    def open(self, path: Path) -> DiskFile:
        return FlakyFile(path, self)


class FlakyFile(DiskFile):
    def __init__(self, path: Path, disk: Disk) -> None:
        super().__init__(path)
        self.disk = disk

    def write(self, data: memoryview) -> int:
        assert self.disk.gate.wait(20)
        if self.disk.write_error is None:
            return super().write(data)
        if self.disk.take_bytes:
            taken, self.disk.take_bytes = super().write(data[: self.disk.take_bytes]), 0
            return taken
        raise OSError(self.disk.write_error, os.strerror(self.disk.write_error))

    def truncate(self, size: int) -> None:
        if self.disk.truncate_error is not None:
            raise OSError(self.disk.truncate_error, os.strerror(self.disk.truncate_error))
        super().truncate(size)

    def sync(self) -> None:
        assert self not in self.disk.synced, "the same descriptor is never synced again"
        self.disk.synced.append(self)
        if self.disk.sync_error is not None:
            raise OSError(self.disk.sync_error, os.strerror(self.disk.sync_error))
        super().sync()


class Bench:
    """One log under test, its clock, its disk and its drop counter."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock()
        self.disk = Disk()
        self.drops: Counter[str] = Counter()
        self.logs: list[ExchangeLog] = []

    def log(self, **options: object) -> ExchangeLog:
        made = ExchangeLog(
            self.directory,
            clock=self.clock,
            on_drop=lambda reason, count: self.drops.update({reason: count}),
            opener=self.disk.open,
            **options,  # type: ignore[arg-type]
        )
        self.logs.append(made)
        return made

    def ids(self) -> list[str]:
        """Exchange ids of all segments in the order of their names."""
        return [decode_exchange(line)[0].exchange_id for line in self.lines()]

    def lines(self) -> list[bytes]:
        return [line for path in self.segments() for line in path.read_bytes().splitlines()]

    def segments(self) -> list[Path]:
        return sorted(self.directory.glob("exchanges-*"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "log")
    yield made
    made.disk.gate.set()
    for log in made.logs:
        log.close()


def numbered(count: int, start: int = 0) -> list[Exchange]:
    return [replace(EXCHANGE, exchange_id=f"e{i}") for i in range(start, start + count)]


def test_an_exchange_is_one_line_that_reads_back_the_same(bench: Bench) -> None:
    log = bench.log()
    exchange = replace(EXCHANGE, findings=(Finding("grounding", CheckResult.FAIL, 0.3, evidence=("7 days",)),))
    log.checked(
        exchange,
        {"question": "q", "answer": "\u8acb\u5047\u4e94\u5929\u3002", "contexts": ("a", "b"), "retrieval_s": 0.1},
    )
    assert log.close()
    (line,) = bench.lines()
    assert decode_exchange(line) == (
        exchange,
        {"question": "q", "answer": "\u8acb\u5047\u4e94\u5929\u3002", "contexts": ["a", "b"], "retrieval_s": 0.1},
    )
    assert [path.name for path in bench.segments()] == ["exchanges-20250615T150640Z-0000.jsonl"]
    assert bench.segments()[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("mode", "has_text"), [("none", False), ("redacted", True), ("full", True)])
def test_the_words_are_written_only_when_asked_for(bench: Bench, mode: str, has_text: bool) -> None:
    log = bench.log(text_mode=mode)
    log.checked(EXCHANGE, {"question": "q"})
    log.close()
    assert (decode_exchange(bench.lines()[0])[1] is not None) is has_text


def test_a_text_mode_of_ones_own_is_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match="text_mode: got 'some'; write one of none, redacted, full"):
        bench.log(text_mode="some")


def test_a_segment_is_open_while_written_and_flush_makes_it_readable(bench: Bench) -> None:
    log = bench.log()
    for exchange in numbered(3):
        log.checked(exchange)
    assert log.flush()
    assert [path.suffix for path in bench.segments()] == [".open"]
    assert bench.ids() == ["e0", "e1", "e2"]
    assert log.written_count == 3


def test_segments_rotate_by_size_in_order_and_without_loss(bench: Bench) -> None:
    log = bench.log(segment_bytes=1000)
    for exchange in numbered(100):
        log.checked(exchange)
    log.close()
    assert bench.ids() == [f"e{i}" for i in range(100)]
    sizes = [path.stat().st_size for path in bench.segments()]
    assert len(sizes) > 5
    assert max(sizes) < 1000 + 200
    assert all(path.suffix == ".jsonl" for path in bench.segments())


def test_segments_rotate_at_the_full_hour_with_or_without_traffic(bench: Bench) -> None:
    log = bench.log()
    log.checked(EXCHANGE)
    log.flush()
    bench.clock.advance(3600)
    log.flush()
    assert [path.name for path in bench.segments()] == ["exchanges-20250615T150640Z-0000.jsonl"]
    log.checked(EXCHANGE)
    log.close()
    assert [path.name for path in bench.segments()][1:] == ["exchanges-20250615T160640Z-0000.jsonl"]


def test_nothing_said_leaves_no_file(bench: Bench) -> None:
    bench.log().close()
    assert not bench.directory.exists()


def test_old_segments_go_by_age_then_by_size_oldest_first(tmp_path: Path) -> None:
    now_s = 1_750_000_000.0
    for days in range(10):
        (tmp_path / segment_name(now_s - days * 86_400, 0).removesuffix(".open")).write_bytes(b"x" * 100)
    (tmp_path / "notes.txt").write_text("not ours")
    (tmp_path / segment_name(now_s - 50 * 86_400, 0)).write_bytes(b"open ones stay")
    assert prune(tmp_path, now_s, keep_days=7, max_total_bytes=10_000) == 2
    assert prune(tmp_path, now_s, keep_days=7, max_total_bytes=420) == 4
    left = sorted(path.name for path in tmp_path.iterdir())
    starts = [segment_start_s(name) for name in left if name.endswith(".jsonl")]
    assert starts == [now_s - days * 86_400 for days in (3, 2, 1, 0)]
    assert "notes.txt" in left
    assert any(name.endswith(".open") for name in left)


def test_retention_runs_when_a_segment_is_closed(bench: Bench) -> None:
    log = bench.log(segment_bytes=1000, max_total_bytes=3000)
    for exchange in numbered(100):
        log.checked(exchange)
    log.close()
    assert sum(path.stat().st_size for path in bench.segments()) <= 3000
    assert bench.ids()[-1] == "e99"


def test_a_torn_last_line_is_cut_at_the_next_start(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    log = bench.log()
    for exchange in numbered(2):
        log.checked(exchange)
    log.close()
    closed = bench.segments()[0]
    orphan = closed.with_suffix(".jsonl.open")
    closed.rename(orphan)
    with orphan.open("ab") as file:
        file.write(b'{"v":1,"exchange_id":"torn')
    (bench.directory / segment_name(1_750_000_000.0, 7)).write_bytes(b'{"only":"torn')
    with caplog.at_level(logging.WARNING):
        bench.log().close()
    assert [path.name for path in bench.segments()] == ["exchanges-20250615T150640Z-0000.jsonl"]
    assert bench.ids() == ["e0", "e1"]
    assert "cut 39 bytes of a torn last line" in caplog.text


def test_a_segment_of_a_living_process_is_left_alone(bench: Bench) -> None:
    first = bench.log()
    first.checked(EXCHANGE)
    first.flush()
    second = bench.log()
    second.checked(EXCHANGE)
    second.flush()
    assert [path.name for path in bench.segments()] == [
        "exchanges-20250615T150640Z-0000.jsonl.open",
        "exchanges-20250615T150640Z-0001.jsonl.open",
    ]
    assert repair(bench.directory) == 0


def test_a_full_queue_drops_counts_and_never_waits(bench: Bench) -> None:
    bench.disk.gate.clear()
    log = bench.log(queue_bytes=4000)
    log.checked(EXCHANGE)
    for exchange in numbered(200):
        log.checked(exchange)  # would hang here if it waited for the disk
    bench.disk.gate.set()
    log.close()
    assert bench.drops["queue_full"] > 0
    assert len(bench.ids()) + bench.drops.total() == 201
    assert log.dropped_count == bench.drops


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "disk_full"), (errno.EDQUOT, "disk_full"), (errno.EIO, "io_error")]
)
def test_a_failing_disk_drops_with_its_reason_and_writing_resumes_by_itself(
    bench: Bench, number: int, reason: str
) -> None:
    log = bench.log()
    log.checked(replace(EXCHANGE, exchange_id="before"))
    log.flush()
    bench.disk.write_error = number
    for exchange in numbered(5):
        log.checked(exchange)
    log.flush()
    assert bench.drops == {reason: 5}
    bench.disk.write_error = None
    bench.clock.advance(2)
    log.checked(replace(EXCHANGE, exchange_id="after"))
    log.close()
    assert bench.ids() == ["before", "after"]


@pytest.mark.parametrize("take", [1, 30, 150, 400])
def test_a_write_that_fails_half_way_leaves_only_whole_lines(bench: Bench, take: int) -> None:
    log = bench.log()
    log.flush()
    bench.disk.write_error, bench.disk.take_bytes = errno.ENOSPC, take
    for exchange in numbered(6):
        log.checked(exchange)
    log.flush()
    kept = len(bench.ids())
    assert kept == log.written_count
    assert kept + bench.drops["disk_full"] == 6
    bench.disk.write_error = None
    log.checked(replace(EXCHANGE, exchange_id="after"))
    log.close()
    assert bench.ids() == [f"e{i}" for i in range(kept)] + ["after"]


def test_a_torn_line_that_cannot_be_cut_stays_the_last_of_its_file(bench: Bench) -> None:
    log = bench.log()
    log.flush()
    bench.disk.write_error, bench.disk.take_bytes, bench.disk.truncate_error = errno.EIO, 30, errno.EIO
    log.checked(EXCHANGE)
    log.flush()
    bench.disk.write_error = bench.disk.truncate_error = None
    log.checked(replace(EXCHANGE, exchange_id="after"))
    log.close()
    assert bench.drops == {"io_error": 1}
    bench.log().close()  # the next start repairs what was abandoned
    assert bench.ids() == ["after"]


def test_after_a_failed_sync_the_descriptor_is_never_used_again(bench: Bench) -> None:
    log = bench.log(segment_bytes=100)
    bench.disk.sync_error = errno.EIO
    log.checked(EXCHANGE)
    log.flush()
    bench.disk.sync_error = None
    log.checked(replace(EXCHANGE, exchange_id="e2"))
    log.close()
    assert len(bench.disk.synced) == 2
    assert sorted(path.suffix for path in bench.segments()) == [".jsonl", ".open"]
    assert sorted(bench.ids()) == ["e1", "e2"]


def test_a_directory_that_cannot_be_made_costs_lines_and_heals(bench: Bench) -> None:
    bench.directory.write_text("a file is in the way")
    log = bench.log()
    log.checked(EXCHANGE)
    log.flush()
    assert bench.drops == {"unwritable": 1}
    bench.directory.unlink()
    log.checked(EXCHANGE)
    log.close()
    assert bench.ids() == ["e1"]


def test_a_sick_disk_warns_once_a_minute(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.disk.write_error = errno.ENOSPC
    log = bench.log()
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            log.checked(EXCHANGE)
            log.flush()
            bench.clock.advance(10)
        assert caplog.text.count("lines not written") == 1
        bench.clock.advance(60)
        log.checked(EXCHANGE)
        log.flush()
    last = caplog.messages[-1]
    assert caplog.text.count("lines not written") == 2
    assert "disk_full (5)" in last
    assert "No space left on device" in last
    assert "\n" not in last


def test_a_counter_that_raises_does_not_stop_the_log(tmp_path: Path) -> None:
    def broken(reason: str, count: int) -> None:
        raise RuntimeError("boom")

    log = ExchangeLog(tmp_path, clock=ManualClock(), on_drop=broken, queue_bytes=10)
    log.checked(EXCHANGE)
    assert log.close()
    assert log.dropped_count == {"queue_full": 1}


def test_a_clock_of_the_event_loop_does_not_stop_the_writer(tmp_path: Path) -> None:
    log = ExchangeLog(tmp_path, clock=LoopClock(), queue_bytes=1000)
    log.checked(EXCHANGE)
    log.checked(EXCHANGE, {"answer": "x" * 1500})  # dropped, so that the clock is asked for the warning too
    assert log.close()
    (segment,) = tmp_path.iterdir()
    assert decode_exchange(segment.read_bytes())[0] == EXCHANGE


def test_what_comes_after_closing_is_counted(bench: Bench) -> None:
    log = bench.log()
    assert log.close()
    log.checked(EXCHANGE)
    assert bench.drops == {"closed": 1}
    assert log.flush()


HOSTILE = [
    "a\nb",
    "a\r\nb",
    "\x1b[31m",
    "\x9b31m",
    "a\u2028b\u2029c",
    "a\x85b",
    "\x00\x7f",
    "\u202e\u2066",
    "\x0b\x0c\x1c",
]


@pytest.mark.parametrize("words", HOSTILE)
def test_whatever_was_said_one_event_is_one_line(bench: Bench, words: str) -> None:
    log = bench.log()
    log.checked(replace(EXCHANGE, model=words, tenant=words), {"question": words, "answer": "\u53f0\u5317" + words})
    log.close()
    data = bench.segments()[0].read_bytes()
    assert len(data.decode().splitlines()) == 1
    assert data.count(b"\n") == 1
    assert not any(ch < " " or "\x7f" <= ch < "\xa0" or ch in "\u2028\u2029\u202e\u2066" for ch in data.decode()[:-1])
    exchange, text = decode_exchange(data)
    assert (exchange.model, exchange.tenant) == (words, words)
    assert text == {"question": words, "answer": "\u53f0\u5317" + words}


def test_text_that_is_no_unicode_costs_the_text_not_the_numbers(bench: Bench) -> None:
    log = bench.log()
    log.checked(EXCHANGE, {"question": "\ud800"})
    log.checked(replace(EXCHANGE, model="\ud800"))
    log.close()
    assert decode_exchange(bench.lines()[0]) == (EXCHANGE, None)
    assert bench.drops == {"unencodable": 1}


def test_endless_text_is_cut(bench: Bench) -> None:
    log = bench.log()
    log.checked(EXCHANGE, {"answer": "x" * 100_000, "contexts": ["y" * 100_000] * 100, "reference": None})
    log.checked(EXCHANGE, {f"field{i}": "z" * STRING_CHARS for i in range(60)})
    log.close()
    _, text = decode_exchange(bench.lines()[0])
    assert text is None, "32 contexts of 16,384 characters are over the limit of one line"
    assert decode_exchange(bench.lines()[1])[1] is None
    log = bench.log()
    log.checked(EXCHANGE, {"answer": "x" * 100_000, "contexts": ["y"] * 100})
    log.close()
    _, text = decode_exchange(bench.lines()[-1])
    assert text is not None
    assert text["answer"] == "x" * STRING_CHARS + "\u2026"
    assert len(text["contexts"]) == LIST_ITEMS


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from exporters.exchange_log import ExchangeLog
from slo.clock import SystemClock
from slo.types import Exchange, Outcome

log = ExchangeLog(Path(sys.argv[1]), clock=SystemClock(), segment_bytes=20_000)
exchange = Exchange("e", 1.0, "chat", "r1", "stable", Outcome.OK, 200)
i = 0
while True:
    for _ in range(50):
        log.checked(replace(exchange, exchange_id=f"e{i}"), {"answer": "word " * 20})
        i += 1
    log.flush()
    print(i, flush=True)
"""


def test_after_kill_9_everything_flushed_is_there_and_readable(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    flushed = 0
    for line in process.stdout:
        flushed = int(line)
        if flushed >= 500:
            process.send_signal(signal.SIGKILL)
            break
    rest = process.stdout.read()
    process.stdout.close()
    process.wait(10)
    flushed = max([flushed, *(int(n) for n in rest.split("\n")[:-1])])
    orphans = list(directory.glob("*.open"))
    for path in orphans:  # and the kill came in the middle of a write
        with path.open("ab") as file:
            file.write(b'{"v":1,"exch')
    assert repair(directory) == 12 * len(orphans)
    names = sorted(path.name for path in directory.iterdir())
    assert names
    assert all(name.endswith(".jsonl") for name in names)
    ids = [
        decode_exchange(line)[0].exchange_id for name in names for line in (directory / name).read_bytes().splitlines()
    ]
    assert ids == [f"e{i}" for i in range(len(ids))]
    assert len(ids) >= flushed


TMPFS = """
set -e
mount -t tmpfs -o size=256k tmpfs "$1"
exec "$2" -c "$3" "$1"
"""
FULL_DISK = """
import json, sys
from dataclasses import replace
from pathlib import Path
from exporters.exchange_log import ExchangeLog
from slo.clock import SystemClock
from slo.codec import decode_exchange
from slo.types import Exchange, Outcome

root = Path(sys.argv[1])
ballast = root / "ballast"
ballast.write_bytes(b"x" * 100_000)
log = ExchangeLog(root / "log", clock=SystemClock())
exchange = Exchange("e", 1.0, "chat", "r1", "stable", Outcome.OK, 200)
for i in range(400):
    log.checked(replace(exchange, exchange_id=f"e{i}"), {"answer": "x" * 1000})
log.flush()
full = dict(log.dropped_count)
ballast.unlink()
log.checked(replace(exchange, exchange_id="after"))
log.close()
ids = [decode_exchange(l)[0].exchange_id for p in sorted((root / "log").iterdir()) for l in p.open("rb")]
names = [p.suffix for p in (root / "log").iterdir()]
print(json.dumps({"full": full, "kept": len(ids), "last": ids[-1], "names": names}))
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare (Debian package `util-linux`)"
)
def test_on_a_real_full_disk_lines_are_counted_and_writing_resumes(tmp_path: Path) -> None:
    found = subprocess.run(
        ["unshare", "-m", "sh", "-c", TMPFS, "sh", str(tmp_path), sys.executable, FULL_DISK],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    if found.returncode != 0 and ("unshare failed" in found.stderr or "mount:" in found.stderr):
        pytest.skip(f"no mounts here: {found.stderr.strip().splitlines()[0]}")
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    assert set(result["full"]) == {"disk_full"}
    assert result["full"]["disk_full"] > 100
    assert result["kept"] + result["full"]["disk_full"] == 401
    assert result["last"] == "after"
    assert set(result["names"]) == {".jsonl"}
