"""The journal on bad disks: full, failing, torn, foreign."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from guard.release import intent as intent_module
from guard.release.facts import Facts
from guard.release.incident import Incident, IncidentKind
from guard.release.intent import IntentError, IntentFile
from guard.release.journal import Journal, JournalError
from guard.release.records import AuditLine, Intent, SagaStep
from guard.release.state import Mode, Phase, ReleaseState
from slo.errors import DataError, GuardError, RefusedError
from tests.release_kit import BAD, GOOD, ROLL_BACK, SERVICE, ScriptedJudge, World

STATE = ReleaseState(SERVICE, GOOD.name, canary=BAD.name, canary_ratio=0.1, epoch=4, mode=Mode.ENFORCE)
INCIDENT = Incident("inc-1", IncidentKind.ROLLBACK, SERVICE, 1.75e9, "hallucination", "8 %", BAD, GOOD, 5)
INTENT = Intent("inc-1", 4, False, replace(STATE, epoch=5, canary_ratio=0.0, phase=Phase.ROLLING_BACK), INCIDENT)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "state")
    yield made
    made.close()


def test_everything_recorded_is_there_after_a_restart(journal: Journal) -> None:
    journal.write_intent(INTENT)
    line = AuditLine(1.0, "start", "ann", "a", "b", "d")
    journal.record(state=STATE, held_s=12.5, incident=INCIDENT, step=("inc-1", SagaStep.RECORDED, 2.0, "x"), audit=line)
    journal.record(step=("inc-1", SagaStep.RECORDED, 9.0, "a repeated step keeps its first line"))
    journal.close()
    again = Journal(journal.state_dir)
    assert again.read_intent() == INTENT
    assert again.load_state(SERVICE) == (STATE, 12.5)
    assert again.incident("inc-1") == INCIDENT
    assert again.audit() == (line,)
    assert [(s.step, s.wall_s, s.detail) for s in again.steps("inc-1")] == [(SagaStep.RECORDED, 2.0, "x")]
    again.clear_intent()
    assert again.read_intent() is None
    again.close()


@pytest.mark.parametrize("at", [0, 15, 20, 40, 60, 300])
def test_a_torn_promise_reads_as_none(tmp_path: Path, at: int) -> None:
    file = IntentFile(tmp_path / "intent")
    file.write(b"x" * 500)
    with (tmp_path / "intent").open("r+b") as raw:
        raw.seek(at)
        raw.write(b"\xff")
    assert file.read() is None
    file.write(b"again")
    assert file.read() == b"again"
    file.close()


def test_a_shorter_promise_hides_nothing_of_a_longer_one(tmp_path: Path) -> None:
    file = IntentFile(tmp_path / "intent", 4096)
    file.write(b"a" * 4000)
    file.write(b"b")
    assert file.read() == b"b"
    with pytest.raises(IntentError, match="room for 4096"):
        file.write(b"c" * 4096)
    file.close()


def test_the_promise_never_grows_its_file(tmp_path: Path) -> None:
    file = IntentFile(tmp_path / "intent")
    before = os.stat(tmp_path / "intent")
    file.write(b"x" * 60_000)
    after = os.stat(tmp_path / "intent")
    assert (before.st_size, before.st_blocks) == (after.st_size, after.st_blocks)
    assert before.st_blocks * 512 >= before.st_size  # real blocks, no hole
    file.close()


def test_after_a_failed_fsync_the_descriptor_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[str] = []
    journal = Journal(tmp_path, faults.append)
    failed: list[int] = []

    def eio(fd: int) -> None:
        failed.append(fd)
        raise OSError(errno.EIO, "Input/output error")

    closed: list[int] = []
    real_close = os.close
    monkeypatch.setattr(intent_module.os, "fdatasync", eio)
    monkeypatch.setattr(intent_module.os, "close", lambda fd: (closed.append(fd), real_close(fd))[1])
    with pytest.raises(JournalError, match="not durable") as caught:
        journal.write_intent(INTENT)
    assert (caught.value.reason, faults) == ("disk_fault", ["disk_fault"])
    assert failed == closed  # never asked again on the same descriptor
    monkeypatch.undo()
    journal.write_intent(INTENT)
    assert journal.read_intent() == INTENT
    journal.close()


def test_a_disk_fault_in_sqlite_is_not_saved_and_the_database_is_reopened(journal: Journal) -> None:
    class Failing:
        in_transaction = False

        def execute(self, *_words: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        def close(self) -> None:
            self.closed = True

    real, broken = journal._db, Failing()
    journal._db = broken  # type: ignore[assignment]
    with pytest.raises(JournalError, match="nothing was saved") as caught:
        journal.record(state=STATE)
    assert caught.value.reason == "disk_fault"
    assert broken.closed
    assert journal.load_state(SERVICE) is None  # another connection, and no false "saved"
    journal.record(state=STATE)
    assert journal.load_state(SERVICE) is not None
    assert real is not None
    real.close()


@pytest.mark.parametrize("damage", [b"", b"not a database at all" * 500])
def test_a_foreign_file_is_reported_and_left_where_it_is(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "release.db"
    path.write_bytes(damage)
    if not damage:
        Journal(tmp_path).close()  # an empty file is an empty database
        return
    with pytest.raises(DataError, match="mv "):
        Journal(tmp_path)
    assert path.read_bytes() == damage


def test_a_damaged_page_is_found_at_the_start(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for n in range(200):
        journal.record(audit=AuditLine(float(n), "a" * 50, "b" * 50, "c", "d"))
    journal.close()
    path = tmp_path / "release.db"
    raw = bytearray(path.read_bytes())
    raw[4096:8192] = b"\xa5" * 4096
    path.write_bytes(raw)
    with pytest.raises(GuardError) as caught:
        Journal(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_state_directory_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="state directory"):
        Journal(tmp_path / "file" / "state")


@pytest.mark.anyio
async def test_with_a_broken_disk_exposure_is_never_raised_and_always_lowered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await World(tmp_path, ScriptedJudge(ROLL_BACK)).up()
    await world.controller.start(BAD.name, actor="ann")

    def full(*_args: object, **_words: object) -> None:
        raise JournalError("disk_full", "release.db: writing failed (disk full)")

    for name in ("record", "write_intent", "clear_intent", "settle"):
        monkeypatch.setattr(world.journal, name, full)
    with pytest.raises(RefusedError) as caught:
        await world.controller.advance(actor="ann")
    assert caught.value.reason == "disk_full"
    assert world.applied[-1].canary_ratio == 0.1
    await world.controller.tick()
    assert world.applied[-1].canary_ratio == 0.0
    await world.outbox.deliver_due()
    assert len(world.receivers["pager"].got) == 1
    control = world.store.control(SERVICE)
    assert control is not None
    assert control.canary_ratio == 0.0
    assert [i.incident_id for i in await world.controller.open_incidents()] == [control.incident_id]
    assert world.controller.status().pending == "rollback"
    monkeypatch.undo()
    world.controller._enactor._retry_at_s = 0.0
    await world.controller.tick()
    assert world.controller.status().pending == ""
    assert world.controller.state.phase is Phase.ROLLED_BACK
    assert world.journal.read_intent() is None
    world.close()


SCRIPT = """
import asyncio, os, sys
from pathlib import Path
from tests.release_kit import *

async def main() -> None:
    root = Path(sys.argv[1])
    world = await World(root, ScriptedJudge(ROLL_BACK)).up()
    for n in range(int(sys.argv[2])):
        await world.controller.start(BAD.name, actor="ann", again=True)
        world.controller._enactor.served.state = replace(world.controller.state, rollbacks_s=())
        await world.controller.promote(actor="ann")
        ballast = os.open(root / "ballast", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for size in (65536, 4096, 1):  # until not one byte is free
            try:
                while True:
                    os.write(ballast, b"x" * size)
            except OSError:
                pass
        os.close(ballast)
        assert os.statvfs(root).f_bavail == 0
        await world.controller.tick()
        assert world.controller.status().pending == "", world.controller.status()
        assert world.applied[-1].stable == GOOD.name and world.applied[-1].canary_ratio == 0.0
        await world.outbox.deliver_due()
        assert len(world.receivers["pager"].got) == n + 1
        assert len(world.pointer_moves()) == n + 1
        assert os.statvfs(root).f_bavail == 0
        os.unlink(root / "ballast")
    print("faults", world.faults, "incidents", len(world.journal.incidents()))

from dataclasses import replace
asyncio.run(main())
"""


def test_a_rollback_completes_on_a_disk_without_a_free_byte(tmp_path: Path) -> None:
    count = 5
    inner = f'mount -t tmpfs -o size=1m tmpfs {tmp_path} && exec "{sys.executable}" -c "$SCRIPT" {tmp_path} {count}'
    probe = ["unshare", "-m", "sh", "-c", f"mount -t tmpfs -o size=1m tmpfs {tmp_path}"]
    try:
        able = subprocess.run(probe, capture_output=True, timeout=20, check=False).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        pytest.skip("needs root and unshare (Debian package util-linux) to mount a small tmpfs")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", inner],
        env={"SCRIPT": SCRIPT, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split("incidents")[1].strip() == str(count)


def test_facts_of_a_forgotten_version_have_its_name() -> None:
    assert Facts({}).version("v0").name == "v0"


def test_the_reserve_is_renewed_while_there_is_space(journal: Journal) -> None:
    for n in range(300):
        journal.record(audit=AuditLine(float(n), "a", "b", "c" * 400, "d" * 400, "e" * 400))
    assert journal._db is not None
    free_pages = journal._db.execute("PRAGMA freelist_count").fetchone()[0]
    assert free_pages * 4096 >= 64 * 1024


def test_few_of_its_pages_stay_in_memory(journal: Journal) -> None:
    assert journal._db is not None
    assert journal._db.execute("PRAGMA cache_size").fetchone()[0] == -256  # KiB
    for n in range(100):
        journal.record(audit=AuditLine(float(n), "a", "b", "c" * 5000, "d" * 5000, "e" * 5000))
    assert journal._db.execute("PRAGMA page_count").fetchone()[0] * 4096 > 4 * 256 * 1024
    lines = journal.audit(100)  # most of it is read from the file again
    assert [line.wall_s for line in lines] == [float(n) for n in reversed(range(100))]


def test_a_journal_of_another_form_is_refused_and_left_alone(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    path = tmp_path / "release.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE meta SET value = '2' WHERE name = 'schema'")
        db.execute("ALTER TABLE outbox RENAME TO messages")  # what a later form may do: it must not be undone,
        db.execute("DROP INDEX one_row_per_step")
        db.execute("ALTER TABLE steps RENAME COLUMN saga_id TO rollback")  # nor told as a fault of the disk
        before = db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    faults: list[str] = []
    with pytest.raises(DataError, match=r"release\.db: schema 2, this is 1; run the version that wrote it"):
        Journal(tmp_path, on_fault=faults.append)
    assert faults == []
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall() == before
        db.execute("UPDATE meta SET value = '1' WHERE name = 'schema'")
        db.execute("ALTER TABLE messages RENAME TO outbox")
        db.execute("ALTER TABLE steps RENAME COLUMN rollback TO saga_id")
        db.commit()
    Journal(tmp_path).close()  # the lock of the refused one is not held
