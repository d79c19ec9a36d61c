"""The only place that knows SQLite: durable settings, and room to write when the disk is full.

A rollback must be recorded on a disk with no free byte. SQLite in WAL mode needs new blocks in two files only: the
database and its write-ahead log. `reserve` grows both once, then gives the pages back to SQLite's own free list; as
long as the connection stays open neither file shrinks, and later writes land in blocks that are there already.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

Error = sqlite3.Error
"""What the driver raises where SQLAlchemy is not in between."""

RESERVE_BYTES = 128 * 1024
SMALL_CACHE_KIB = 256
CHECKPOINT_PAGES = 12


def make_durable(connection: sqlite3.Connection) -> None:
    """WAL, one fsync per commit, and a log that is folded back before it outgrows its reserve."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA busy_timeout = 5000")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")


def keep_small(connection: sqlite3.Connection) -> None:
    """At most 256 KiB of pages in memory, where 2 MiB are usual: for files whose newest rows are what is asked for."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(f"PRAGMA cache_size = -{SMALL_CACHE_KIB}")


def reserve(connection: sqlite3.Connection, reserve_bytes: int = RESERVE_BYTES) -> bool:
    """Make room for later writes; True when it is there. False: the disk is full already, work goes on without.

    Call outside a transaction on a connection that stays open. Every page of the insert passes through the log, so
    one insert and delete grow the log and leave the pages on the free list.
    """
    try:
        with closing(connection.cursor()) as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS reserve (room BLOB)")
            cursor.execute("INSERT INTO reserve VALUES (zeroblob(?))", (reserve_bytes,))
            cursor.execute("DELETE FROM reserve")
        connection.commit()
        with closing(connection.cursor()) as cursor:
            cursor.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    except sqlite3.OperationalError:
        connection.rollback()
        return False
    return True


def check(connection: sqlite3.Connection) -> None:
    """Look at every page once. Raises `Error` for a damaged database."""
    with closing(connection.cursor()) as cursor:
        problem = cursor.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise sqlite3.DatabaseError(" ".join(str(problem).split()))


def top_up(connection: sqlite3.Connection) -> None:
    """Renew a reserve that ordinary growth has used up; call after a commit.

    SQLite takes free pages before it grows a file, so without this the reserve would be gone after some weeks of
    ordinary work. On a disk that is nearly full nothing is done: filling the log there would do harm.
    """
    with closing(connection.cursor()) as cursor:
        free = cursor.execute("PRAGMA freelist_count").fetchone()[0] * cursor.execute("PRAGMA page_size").fetchone()[0]
        if free >= RESERVE_BYTES // 2:
            return
        path = cursor.execute("PRAGMA database_list").fetchone()[2]
    try:
        roomy = bool(path) and shutil.disk_usage(Path(path).parent).free >= 3 * RESERVE_BYTES
    except OSError:
        return  # The commit before this one stands; a disk that cannot be asked is left alone.
    if roomy:
        reserve(connection)


def prepare(engine: Engine) -> None:
    """Give every connection of `engine` durable settings and real transactions.

    The driver's own implicit BEGIN comes too late to make read-then-write atomic across processes, so it is said
    here: IMMEDIATE takes the write lock before the first read; readers (`execution_options(reader=True)`) take none.
    """

    from sqlalchemy import event  # the journal uses this file without it: 10 MB

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        make_durable(connection)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reader = connection.get_execution_options().get("reader", False)
        connection.exec_driver_sql("BEGIN" if reader else "BEGIN IMMEDIATE")
