"""What survives a restart beside the release journal: the windows, and alerts that were accepted from outside."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from guard.admin.backend import AlertBatch, AlertsStored
from slo.errors import DataError

WINDOWS_NAME = "windows.json"
ALERTS_KEPT_COUNT = 100_000


def save_windows(directory: Path, dump: dict[str, Any]) -> None:
    """Replace the file in one step. Losing it costs history, not safety, so it is not forced to the disk.

    Raises:
        OSError: the disk is full or gone; the temporary file is removed.
    """
    target = directory / WINDOWS_NAME
    temporary = target.with_suffix(".tmp")
    try:
        temporary.write_bytes(msgspec.json.encode(dump))
        os.replace(temporary, target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def load_windows(directory: Path) -> dict[str, Any] | None:
    """What was saved, or None when there is nothing.

    Raises:
        DataError: the file cannot be used; windows then start empty, and empty is unknown, not healthy.
    """
    path = directory / WINDOWS_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; windows start empty") from error
    try:
        dump = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: torn or foreign ({error}); windows start empty") from error
    if not isinstance(dump, dict):
        raise DataError(f"{path}: not a dump of windows; windows start empty")
    return dump


class AlertStore:
    """Alerts accepted from Alertmanager: on the disk before they are acknowledged, each once. Blocking."""

    def __init__(self, directory: Path) -> None:
        self._db = sqlite3.connect(directory / "alerts.sqlite", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS alerts (fingerprint TEXT, starts_at TEXT, status TEXT, wall_s REAL, body BLOB,"
            " PRIMARY KEY (fingerprint, starts_at, status))"
        )

    def store(self, batch: AlertBatch, wall_s: float) -> AlertsStored:
        """Raises OSError when it cannot be stored; the sender then tries again."""
        stored = 0
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for alert in batch.alerts:
                    row = (alert.fingerprint, alert.starts_at, alert.status, wall_s, msgspec.json.encode(alert))
                    stored += self._db.execute("INSERT OR IGNORE INTO alerts VALUES (?, ?, ?, ?, ?)", row).rowcount
                self._db.execute(
                    "DELETE FROM alerts WHERE rowid <= (SELECT max(rowid) FROM alerts) - ?", (ALERTS_KEPT_COUNT,)
                )
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise OSError(f"alerts cannot be stored: {error}") from error
        return AlertsStored(stored, len(batch.alerts) - stored)

    def close(self) -> None:
        """Give the file back."""
        self._db.close()
