"""The exchange log when its disk, its reader or its process fails: no line is lost without being counted."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from exporters.exchange_log import ExchangeLog
from exporters.segments import repair, segment_name
from slo.codec import decode_exchange
from tests.exchange_log_kit import EXCHANGE, Bench, log_bench, numbered
from tests.unit.exporters_helpers import ManualClock

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with log_bench(tmp_path / "log") as made:
        yield made


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
