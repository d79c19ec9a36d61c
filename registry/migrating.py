"""Tables are made or brought up to date when a registry is opened; nothing is ever taken back.

A fresh database gets the tables of today and the mark of their revision. One that is older goes through the
revisions of `registry/migrations` with Alembic, in one transaction; the first registries had no mark and are revision
r0001. One that is newer than this program is refused: what it holds must not be written by rules that do not know it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry import tables
from registry.errors import RegistryUnreachable

if TYPE_CHECKING:
    from alembic.config import Config

FIRST = "r0001"
LOCATION = "registry:migrations"


def prepare(db: Connection) -> None:
    """Make or upgrade the tables, in this transaction.

    Raises:
        RegistryUnreachable: the database is of a newer program.
    """
    held = set(sa.inspect(db).get_table_names())
    if "models" not in held:
        tables.metadata.create_all(db)
        if "alembic_version" not in held or revision_of(db) is None:
            _mark(db, tables.REVISION)
        return
    now = revision_of(db) if "alembic_version" in held else None
    if now == tables.REVISION:
        return
    if now is None:
        if "alembic_version" not in held:
            tables.alembic_version.create(db)
        _mark(db, FIRST)
    upgrade(db)


def upgrade(db: Connection) -> None:
    """Bring the tables up to date with Alembic, which is only needed for this."""
    from alembic import command
    from alembic.util import CommandError

    settings = config()
    settings.attributes["connection"] = db
    try:
        command.upgrade(settings, "head")
    except CommandError as error:
        raise RegistryUnreachable(
            f"registry database: revision {revision_of(db)!r} is not known here, newest is {tables.REVISION}; "
            "run a newer sft-guard, or restore a copy from before its upgrade"
        ) from error


def config() -> Config:
    """Alembic's configuration, with nothing of it on disk."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", LOCATION)
    return made


def revision_of(db: Connection) -> str | None:
    """Revision that the database is marked with."""
    found = db.execute(sa.select(tables.alembic_version.c.version_num)).scalar()
    return None if found is None else str(found)


def _mark(db: Connection, revision: str) -> None:
    db.execute(tables.alembic_version.insert().values(version_num=revision))
