"""One database behind the registry: how it is opened, written in one transaction, and read.

Knows which databases there are (`registry.sqlite`, `registry.postgres`), no table and no rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import StaticPool

from registry import postgres as postgres_only
from registry import sqlite as sqlite_only
from registry.errors import RegistryRefused, RegistryUnreachable

T = TypeVar("T")
WRITE_TRIES = 5


class Database:
    """Transactions on one database. `prepare` makes the tables, in the transaction that it is given.

    Raises:
        RegistryUnreachable: it cannot be opened or is damaged; one line that says which and what to do.
    """

    def __init__(self, url: str, prepare: Callable[[Connection], None]) -> None:
        # SQLite: threads take turns on the one connection. Others have a pool.
        self._turn: AbstractContextManager[object] = RLock() if url.startswith("sqlite") else nullcontext()
        try:
            self.engine = _open_engine(url)
        except sa.exc.SQLAlchemyError as error:
            raise RegistryUnreachable(f"registry {_safe(url)}: {_why(error)}; check the URL and its access") from error
        try:
            self._on_sqlite(sqlite_only.check)
            with self.engine.begin() as db:
                postgres_only.take_turns(db)  # two services that start at once would both create the tables
                prepare(db)
            self._on_sqlite(sqlite_only.reserve)
        except RegistryUnreachable:  # of another program's revision
            self.engine.dispose()
            raise
        except (sa.exc.SQLAlchemyError, sqlite_only.Error) as error:
            self.engine.dispose()
            cure = "check the URL and its access; a damaged file is copied, looked at, then moved aside"
            raise RegistryUnreachable(f"registry {_safe(url)}: {_why(error)}; {cure}") from error

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()

    def write(self, work: Callable[[Connection], T]) -> T:
        """Carry out `work` in one transaction. It may be run again, so it reads all it decides on through `db`.

        Run again: what the database undid for somebody else's sake (serialization, deadlock), a row that another writer
        made first (the second time it is found), and a connection that broke before the commit was asked for. A
        connection that breaks during the commit is never repeated here: nobody knows whether it stands.
        """
        for left in reversed(range(WRITE_TRIES)):
            asked = False
            try:
                with self._turn:
                    with self.engine.begin() as db:
                        result = work(db)
                        asked = True
                    self._keep_room()
                return result
            except sa.exc.IntegrityError as error:
                if left < WRITE_TRIES - 1:
                    raise RegistryRefused("conflict", "somebody else wrote the same thing first; read again") from error
            except (sa.exc.DataError, UnicodeError) as error:
                raise RegistryRefused("invalid", f"a value that the database cannot keep: {_why(error)}") from error
            except (sa.exc.SQLAlchemyError, sqlite_only.Error) as error:
                known = "nobody knows whether it was written, repeat it" if asked else "nothing was written"
                if not (left and postgres_only.may_repeat(error, asked=asked)):
                    raise RegistryUnreachable(f"registry database: {_why(error)}; {known}") from error
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads. Raises RegistryUnreachable."""
        try:
            with self._turn, self.engine.connect().execution_options(reader=True) as db:
                yield db
        except (sa.exc.SQLAlchemyError, sqlite_only.Error) as error:
            raise RegistryUnreachable(f"registry database: {_why(error)}; check that it runs") from error

    def _keep_room(self) -> None:
        try:
            self._on_sqlite(sqlite_only.top_up)
        except (sa.exc.SQLAlchemyError, sqlite_only.Error) as error:
            raise RegistryUnreachable(
                f"registry database: {_why(error)}; what was written stands, check the file and its disk"
            ) from error

    def _on_sqlite(self, call: Callable[[Any], object]) -> None:
        if self.engine.dialect.name == "sqlite":
            with self.engine.connect() as db:
                raw: Any = db.connection.dbapi_connection
                call(raw)


def _open_engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return postgres_only.open_engine(url)
    # One connection for all threads: SQLite has one writer anyway, and the reserve lives as long as it does.
    engine = sa.create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False, "timeout": 5})
    sqlite_only.prepare(engine)
    return engine


def _why(error: Exception) -> str:
    """First line of the driver's own words; SQLAlchemy's text carries the statement and a link."""
    return str(getattr(error, "orig", None) or error).split("\n", 1)[0]


def _safe(url: str) -> str:
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return "URL"
