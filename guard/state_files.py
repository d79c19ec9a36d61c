"""What survives a restart beside the release journal: the windows, and alerts that were accepted from outside."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from guard.admin.shapes import AlertBatch, AlertIn, AlertsStored
from slo.codec import NOT_JSON
from slo.errors import DataError

log = logging.getLogger("sft-guard")

WINDOWS_NAME = "windows.jsonl"
ALERTS_NAME = "alerts.sqlite"
ALERTS_KEPT_COUNT = 100_000
RENEW_S = 30.0
"""An alert told again sooner than this after the last time is not written again."""
RECENT_COUNT = 50_000
_Key = tuple[str, str, str]
_RENEW = "UPDATE alerts SET seen_s = ? WHERE fingerprint = ? AND starts_at = ? AND status = 'firing' AND seen_s < ?"


@dataclass(frozen=True, slots=True)
class KnownAlert:
    """A stored alert, told first and last at these Unix seconds. about: see `AlertStore.store`."""

    alert: AlertIn
    first_s: float
    seen_s: float
    about: str


def save_windows(directory: Path, pieces: Iterable[Mapping[str, Any]]) -> None:
    """Replace the file in one step, one JSON line a piece. Losing it costs history, not safety: it is not forced out.

    Encoding piece by piece lets the loop that carries the answers run in between.

    Raises:
        OSError: the disk is full or gone; the temporary file is removed.
    """
    target = directory / WINDOWS_NAME
    temporary = target.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            for piece in pieces:
                file.write(msgspec.json.encode(piece) + b"\n")
        os.replace(temporary, target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def load_windows(directory: Path) -> list[Mapping[str, Any]]:
    """The pieces that were saved; empty when nothing was.

    Raises:
        DataError: the file cannot be used; windows then start empty, and empty is unknown, not healthy.
    """
    path = directory / WINDOWS_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; windows start empty") from error
    try:
        pieces = [msgspec.json.decode(line, type=dict[str, Any]) for line in content.splitlines()]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: torn or foreign ({error}); windows start empty") from error
    if not pieces:
        raise DataError(f"{path}: empty; windows start empty")
    return list(pieces)


class AlertStore:
    """Alerts accepted from Alertmanager: on the disk before they are acknowledged, each once. Blocking.

    Any thread may store; one at a time does. A file that cannot be used is moved aside at start: evidence that is
    damaged must not keep answers from being given.
    """

    def __init__(self, directory: Path, wall_s: float) -> None:
        self._lock = threading.Lock()
        self._recent: dict[_Key, float] = {}  # written, and when: told again at once, they cost no disk
        path = directory / ALERTS_NAME
        try:
            self._db = _open_alerts(path)
        except sqlite3.DatabaseError as error:
            aside = path.with_name(f"{ALERTS_NAME}.damaged-{wall_s:.0f}")
            log.error("%s: %s; moved to %s, a new one is begun", path, error, aside.name)
            os.replace(path, aside)
            self._db = _open_alerts(path)

    def store(self, batch: AlertBatch, wall_s: float, about: str = "") -> AlertsStored:
        """Store one delivery; see `store_all`."""
        return self.store_all([(batch, about)], wall_s)[0]

    def store_all(self, deliveries: Sequence[tuple[AlertBatch, str]], wall_s: float) -> list[AlertsStored]:
        """Store what is new of (delivery, about) pairs, and remember of the rest that it was told again.

        about: release that these alerts are held against where they name none; that of the first telling stays.

        Raises:
            OSError: it cannot be stored; the senders then try again.
        """
        found: list[AlertsStored] = []
        fresh: dict[_Key, float] = {}
        with self._lock:
            try:
                for batch, about in deliveries:
                    unsure = [
                        a for a in batch.alerts
                        if a.key not in fresh and self._recent.get(a.key, float("-inf")) <= wall_s - RENEW_S
                    ]  # fmt: skip
                    stored = self._write(unsure, wall_s, about) if unsure else 0
                    fresh.update((a.key, wall_s) for a in unsure)
                    found.append(AlertsStored(stored, len(batch.alerts) - stored, batch.truncated_count))
                if fresh:
                    oldest = "DELETE FROM alerts WHERE rowid <= (SELECT max(rowid) FROM alerts) - ?"
                    self._db.execute(oldest, (ALERTS_KEPT_COUNT,))
                    self._db.commit()  # one transaction: all of it, or none and the senders' next try
            except sqlite3.Error as error:
                with contextlib.suppress(sqlite3.Error):
                    self._db.rollback()
                raise OSError(f"alerts cannot be stored: {error}") from error
            if len(self._recent) + len(fresh) > RECENT_COUNT:
                self._recent.clear()  # they are on the disk; it only takes longer to find that out
            self._recent.update(fresh)
        return found

    def _write(self, alerts: Sequence[AlertIn], wall_s: float, about: str) -> int:
        """Write what is new, renew what is not; how many were new."""
        rows = [(a.fingerprint, a.starts_at, a.status, wall_s, msgspec.json.encode(a), wall_s, about) for a in alerts]
        before = self._db.total_changes
        self._db.executemany("INSERT OR IGNORE INTO alerts VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        stored = self._db.total_changes - before
        if stored < len(rows):
            again = (a for a in alerts if a.status == "firing")
            self._db.executemany(_RENEW, [(wall_s, a.fingerprint, a.starts_at, wall_s - RENEW_S) for a in again])
        return stored

    def known(self, since_wall_s: float) -> list[KnownAlert]:
        """Everything told at or after this Unix second, in the order of the first telling.

        Raises:
            OSError: the file cannot be read.
        """
        try:
            with self._lock:
                rows = self._db.execute(
                    "SELECT body, wall_s, seen_s, about FROM alerts WHERE seen_s >= ? ORDER BY rowid", (since_wall_s,)
                ).fetchall()
            return [KnownAlert(msgspec.json.decode(body, type=AlertIn), *told) for body, *told in rows]
        except (sqlite3.Error, *NOT_JSON) as error:
            raise OSError(f"stored alerts cannot be read: {error}") from error

    def close(self) -> None:
        """Give the file back."""
        self._db.close()


def _open_alerts(path: Path) -> sqlite3.Connection:
    """Raises sqlite3.DatabaseError: not a database, or a damaged one."""
    db = sqlite3.connect(path, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        with db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS alerts (fingerprint TEXT, starts_at TEXT, status TEXT, wall_s REAL,"
                " body BLOB, seen_s REAL DEFAULT 0, about TEXT DEFAULT '',"
                " PRIMARY KEY (fingerprint, starts_at, status))"
            )
            columns = {row[1] for row in db.execute("PRAGMA table_info(alerts)")}
            for name, kind in (("seen_s", "REAL DEFAULT 0"), ("about", "TEXT DEFAULT ''")):  # files of older versions
                if name not in columns:
                    db.execute(f"ALTER TABLE alerts ADD COLUMN {name} {kind}")
    except BaseException:
        db.close()
        raise
    return db
