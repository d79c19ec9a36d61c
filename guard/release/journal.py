"""The local truth of the release: SQLite (WAL, synchronous=FULL) and one preallocated promise file.

Everything here blocks on the disk; callers on an event loop run it in a thread. A fault of the disk is a
`JournalError` and means "not saved", never "perhaps". A database that cannot be read is reported and left where it
is: only a person moves it aside, because it may hold the one copy of an unfinished rollback. One process at a time
uses a state directory: two would overwrite each other's promise.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

import msgspec

from guard.release.incident import Incident
from guard.release.intent import IntentError, IntentFile
from guard.release.owner import OwnerLock
from guard.release.records import AuditLine, Intent, OutboxItem, OutboxState, SagaStep, StepRow
from guard.release.state import ReleaseState
from registry import sqlite as durable
from slo.errors import DataError, GuardError

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS state (service TEXT PRIMARY KEY, doc BLOB NOT NULL, held_s REAL NOT NULL);
CREATE TABLE IF NOT EXISTS steps (
    number INTEGER PRIMARY KEY AUTOINCREMENT, saga_id TEXT NOT NULL, step INTEGER NOT NULL,
    wall_s REAL NOT NULL, detail TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS one_row_per_step ON steps (saga_id, step);
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT, wall_s REAL NOT NULL, action TEXT NOT NULL, actor TEXT NOT NULL,
    before TEXT NOT NULL, after TEXT NOT NULL, detail TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS incidents (
    incident_id TEXT PRIMARY KEY, opened_s REAL NOT NULL, closed_s REAL, doc BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, message_id TEXT NOT NULL, target TEXT NOT NULL,
    incident_id TEXT NOT NULL, body BLOB NOT NULL, created_s REAL NOT NULL, urgent INTEGER NOT NULL,
    attempts INTEGER NOT NULL, state TEXT NOT NULL, last_error TEXT NOT NULL,
    UNIQUE (message_id, target));
"""
_SCHEMA_VERSION = "1"
_OUTBOX = "number, message_id, target, incident_id, body, created_s, urgent, attempts, state, last_error"


class JournalError(GuardError):
    """It was not saved. `reason`: disk_full | disk_fault | busy."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class Journal:
    """Release state, saga steps, audit, incidents and outbox of one sidecar.

    on_fault is told every fault's reason, for the counter and the log line on standard error.

    Raises:
        DataError: the directory or the database cannot be used, or another process uses them.
    """

    def __init__(self, state_dir: Path | str, on_fault: Callable[[str], None] = lambda _reason: None) -> None:
        self.state_dir = Path(state_dir)
        self.path = self.state_dir / "release.db"
        self._on_fault = on_fault
        self._lock = RLock()
        self._db: sqlite3.Connection | None = None
        try:
            self.state_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{self.state_dir}: cannot be the state directory ({error.strerror}); choose one that is writable"
            ) from error
        self._owner = OwnerLock(self.state_dir)
        try:
            with self._guarded("opening"):
                self._open()
            self._intent = IntentFile(self.state_dir / "intent")
            self._drill_intent = IntentFile(self.state_dir / "intent.drill")
        except BaseException:
            self._close_db()
            self._owner.release()
            raise

    def close(self) -> None:
        """Close the files; everything recorded stays."""
        with self._lock:
            self._close_db()
            self._intent.close()
            self._drill_intent.close()
            self._owner.release()

    # -- the promise --------------------------------------------------------------------------------------------

    def write_intent(self, intent: Intent) -> None:
        """Make the promise durable. Raises JournalError; works on a disk without a free byte."""
        self._promise(intent.incident.drill, lambda file: file.write(msgspec.json.encode(intent)))

    def read_intent(self, *, drill: bool = False) -> Intent | None:
        """Return the promise that was not kept yet."""
        raw = (self._drill_intent if drill else self._intent).read()
        try:
            return None if raw is None else msgspec.json.decode(raw, type=Intent)
        except msgspec.MsgspecError as error:
            raise DataError(
                f"{self._intent.path}: written by another version ({error}); finish the rollback with that version"
            ) from error

    def clear_intent(self, *, drill: bool = False) -> None:
        """The promise was kept."""
        self._promise(drill, lambda file: file.clear())

    # -- state, steps, audit, incidents -------------------------------------------------------------------------

    def record(
        self,
        *,
        state: ReleaseState | None = None,
        held_s: float = 0.0,
        incident: Incident | None = None,
        step: tuple[str, SagaStep, float, str] | None = None,
        audit: AuditLine | None = None,
        outbox: Iterable[OutboxItem] = (),
    ) -> None:
        """Write all that is given in one transaction.

        held_s: how long the state's stage has lasted; monotonic clocks do not survive a restart, spans do.
        step: (saga, step, Unix seconds, detail); a repeated step keeps its first line.

        Raises:
            JournalError: nothing of it was saved.
        """
        with self._guarded("writing"), self._write() as db:
            if state is not None:
                db.execute(
                    "INSERT OR REPLACE INTO state VALUES (?, ?, ?)",
                    (state.service, msgspec.json.encode(state), held_s),
                )
            if incident is not None:
                db.execute(
                    "INSERT OR REPLACE INTO incidents VALUES (?, ?, ?, ?)",
                    (incident.incident_id, incident.opened_s, incident.closed_s, msgspec.json.encode(incident)),
                )
            if step is not None:
                saga_id, number, wall_s, detail = step
                db.execute(
                    "INSERT OR IGNORE INTO steps (saga_id, step, wall_s, detail) VALUES (?, ?, ?, ?)",
                    (saga_id, int(number), wall_s, detail),
                )
            if audit is not None:
                db.execute(
                    "INSERT INTO audit (wall_s, action, actor, before, after, detail) VALUES (?, ?, ?, ?, ?, ?)",
                    (audit.wall_s, audit.action, audit.actor, audit.before, audit.after, audit.detail),
                )
            for item in outbox:  # One message per target, however often the step is repeated.
                db.execute(
                    "INSERT OR IGNORE INTO outbox (message_id, target, incident_id, body, created_s, urgent, attempts,"
                    " state, last_error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        item.message_id, item.target, item.incident_id, item.body, item.created_s, int(item.urgent),
                        item.attempts, item.state.value, item.last_error,
                    ),
                )  # fmt: skip

    def load_state(self, service: str) -> tuple[ReleaseState, float] | None:
        """Return the last recorded state and how long its stage had lasted, None before the first."""
        rows = self._rows("SELECT doc, held_s FROM state WHERE service = ?", (service,))
        return (self._decoded(rows[0][0], ReleaseState), rows[0][1]) if rows else None

    def steps(self, saga_id: str) -> tuple[StepRow, ...]:
        """Steps of one saga in their order."""
        rows = self._rows(
            "SELECT number, saga_id, step, wall_s, detail FROM steps WHERE saga_id = ? ORDER BY number", (saga_id,)
        )
        return tuple(StepRow(n, saga, SagaStep(step), wall_s, detail) for n, saga, step, wall_s, detail in rows)

    def audit(self, limit: int = 200) -> tuple[AuditLine, ...]:
        """The newest lines, newest first."""
        rows = self._rows(
            "SELECT wall_s, action, actor, before, after, detail FROM audit ORDER BY number DESC LIMIT ?", (limit,)
        )
        return tuple(AuditLine(*row) for row in rows)

    def incident(self, incident_id: str) -> Incident | None:
        """One incident by its id."""
        rows = self._rows("SELECT doc FROM incidents WHERE incident_id = ?", (incident_id,))
        return self._decoded(rows[0][0], Incident) if rows else None

    def incidents(self, limit: int = 100, *, only_open: bool = False) -> tuple[Incident, ...]:
        """The newest incidents, newest first."""
        where = "WHERE closed_s IS NULL " if only_open else ""
        rows = self._rows(f"SELECT doc FROM incidents {where}ORDER BY opened_s DESC LIMIT ?", (limit,))  # noqa: S608
        return tuple(self._decoded(row[0], Incident) for row in rows)

    # -- outbox -------------------------------------------------------------------------------------------------

    def pending(self) -> tuple[OutboxItem, ...]:
        """Messages not settled yet, oldest first."""
        rows = self._rows(f"SELECT {_OUTBOX} FROM outbox WHERE state = 'pending' ORDER BY number", ())  # noqa: S608
        return tuple(_outbox_item(row) for row in rows)

    def outbox(self, message_id: str) -> tuple[OutboxItem, ...]:
        """One message at each of its targets."""
        rows = self._rows(f"SELECT {_OUTBOX} FROM outbox WHERE message_id = ? ORDER BY number", (message_id,))  # noqa: S608
        return tuple(_outbox_item(row) for row in rows)

    def settle(self, item: OutboxItem) -> None:
        """Record attempts, state and last error of one message. Raises JournalError."""
        with self._guarded("writing"), self._write() as db:
            db.execute(
                "UPDATE outbox SET attempts = ?, state = ?, last_error = ? WHERE message_id = ? AND target = ?",
                (item.attempts, item.state.value, item.last_error[:500], item.message_id, item.target),
            )

    def disabled_targets(self) -> frozenset[str]:
        """Targets that said 410 Gone, as `name url-hash`."""
        rows = self._rows("SELECT name FROM meta WHERE name LIKE 'gone %'", ())
        return frozenset(row[0].removeprefix("gone ") for row in rows)

    def disable_target(self, target: str, wall_s: float) -> None:
        """Remember a 410 over restarts. Raises JournalError."""
        with self._guarded("writing"), self._write() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"gone {target}", f"{wall_s:.3f}"))

    # -- inside -------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=5, isolation_level=None, check_same_thread=False)
        try:
            durable.make_durable(db)
            durable.keep_small(db)
            problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise sqlite3.DatabaseError(problem)
            found = _form(db)
            if found not in (None, _SCHEMA_VERSION):  # before anything is made in it
                raise DataError(
                    f"{self.path}: schema {found}, this is {_SCHEMA_VERSION}; run the version that wrote it"
                )
            db.executescript(_SCHEMA)
            db.execute("INSERT OR IGNORE INTO meta VALUES ('schema', ?)", (_SCHEMA_VERSION,))
        except BaseException:
            db.close()
            raise
        durable.reserve(db)
        self._db = db
        return db

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        db = self._db or self._open()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        with suppress(sqlite3.Error):  # The commit stands; a fault of the file shows at the next call.
            durable.top_up(db)

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        rows: list[Any] = []
        with self._guarded("reading"), closing((self._db or self._open()).cursor()) as cursor:
            rows = cursor.execute(query, values).fetchall()
        return rows  # noqa: RET504 - a context manager may swallow, so the type checker wants a value after it

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        """Hold the lock and translate SQLite's words."""
        with self._lock:
            try:
                yield
            except sqlite3.OperationalError as error:
                raise self._fault(doing, error) from error
            except sqlite3.Error as error:
                if doing != "opening":  # While we run it is a fault of the disk like any other; nothing may end here.
                    raise self._fault(doing, error) from error
                why = " ".join(str(error).split())
                raise DataError(
                    f"{self.path}: not a usable journal ({why}); it may hold an unfinished rollback: copy it, look, "
                    f"then move it aside with `mv {self.path} {self.path}.bad` to start with stable at 100 %"
                ) from error

    def _fault(self, doing: str, error: sqlite3.Error) -> GuardError:
        text = str(error)
        reason = "disk_full" if "full" in text else "busy" if "locked" in text else "disk_fault"
        self._on_fault(reason)
        if reason == "disk_fault":
            # After a failed fsync nothing this connection says can be believed; the next call opens another.
            self._close_db()
        return JournalError(reason, f"{self.path}: {doing} failed ({text}); check space and disk, nothing was saved")

    def _close_db(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _promise(self, drill: bool, write: Callable[[IntentFile], None]) -> None:
        with self._lock:
            try:
                write(self._drill_intent if drill else self._intent)
            except IntentError as error:
                self._on_fault(error.reason)
                raise JournalError(error.reason, str(error)) from error

    def _decoded(self, doc: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(doc, type=kind)
        except msgspec.MsgspecError as error:
            raise DataError(
                f"{self.path}: a record of another version ({error}); run the version that wrote it"
            ) from error


def _form(db: sqlite3.Connection) -> str | None:
    """Which form the tables have; None: there are none yet, or they were left half-made."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
        return None
    row = db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
    return None if row is None else str(row[0])


def _outbox_item(row: tuple[Any, ...]) -> OutboxItem:
    number, message_id, target, incident_id, body, created_s, urgent, attempts, state, last_error = row
    return OutboxItem(
        message_id, target, incident_id, body, created_s, bool(urgent), attempts, OutboxState(state), last_error, number
    )
