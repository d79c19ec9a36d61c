"""The only place that knows PostgreSQL: how to connect, what may be tried again, and turns while tables are made.

READ COMMITTED is set whatever the server's default is, and on purpose: every write locks what it decides on (`FOR
UPDATE` on the model, `UPDATE ... WHERE epoch = ?` on the control document) and must then see what was committed while
it waited for the lock. A snapshot taken before the wait would show the loser of a race the world before it lost.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from registry.errors import RegistryUnreachable

INSTALL = "pip install 'sft-guard[postgres]'"
CONNECT_S = 5
STATEMENT_MS = 10_000
"""Longer than any statement here takes; a server that hangs gives its thread back."""

_UNDONE = frozenset({"40001", "40P01"})
"""serialization_failure, deadlock_detected: the server has undone the transaction and asks for another try."""
_TABLES_LOCK = 7_302_519_031
"""Any number that all registries on one database agree on."""


def open_engine(url: str) -> Engine:
    """Return an engine for `postgresql://` or `postgresql+psycopg://`; opens no connection yet.

    Raises:
        RegistryUnreachable: the driver is not installed, or the URL is for another database.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "postgresql":
        raise RegistryUnreachable(
            f"registry {parsed.drivername}: write sqlite:///FILE, or postgresql+psycopg://USER@HOST/DATABASE"
        )
    if parsed.drivername == "postgresql":  # SQLAlchemy would look for the older driver of the same family.
        parsed = parsed.set(drivername="postgresql+psycopg")
    own: dict[str, Any] = {"connect_timeout": CONNECT_S, "keepalives_idle": 10, "tcp_user_timeout": STATEMENT_MS}
    arguments = {name: value for name, value in own.items() if name not in parsed.query}
    try:
        engine = sa.create_engine(
            parsed,
            pool_pre_ping=True,  # after a restart of the server the pool holds dead connections
            pool_timeout=CONNECT_S,
            isolation_level="READ COMMITTED",
            connect_args=arguments,
        )
    except ImportError as error:
        raise RegistryUnreachable(f"registry {parsed.drivername}: the driver is missing; {INSTALL}") from error

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {STATEMENT_MS}")
            cursor.execute(f"SET lock_timeout = {STATEMENT_MS // 2}")
        connection.commit()

    return engine


def take_turns(db: Connection) -> None:
    """Wait until no other process makes the tables; held to the end of the transaction. Nothing on SQLite."""
    if db.dialect.name == "postgresql":
        db.execute(sa.select(sa.func.pg_advisory_xact_lock(_TABLES_LOCK)))


def may_repeat(error: Exception, *, asked: bool) -> bool:
    """Whether the transaction certainly left nothing behind and another try may succeed.

    asked: the commit had been asked for; of a connection lost after that nobody knows what became of it.
    """
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    if getattr(error.orig, "sqlstate", None) in _UNDONE:
        return True
    return error.connection_invalidated and not asked
