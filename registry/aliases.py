"""Names that point to versions, inside a transaction of the store.

`champion` and `previous` follow the stages and cannot be set by hand; all others are free.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry import tables
from registry.errors import RegistryRefused
from registry.model import CHAMPION, PREVIOUS, ModelVersion, Move, check_name, previous_after


def read(db: Connection, model: str) -> dict[str, str]:
    """Alias to version, `champion` and `previous` among them while they point somewhere."""
    query = sa.select(tables.aliases.c.alias, tables.aliases.c.version).where(tables.aliases.c.model == model)
    found = {row.alias: row.version for row in db.execute(query)}
    holder = sa.select(tables.versions.c.version).where(tables.versions.c.model == model, tables.IN_PRODUCTION)
    before = sa.select(tables.models.c.previous).where(tables.models.c.name == model)
    for name, query_one in ((CHAMPION, holder), (PREVIOUS, before)):
        if version := db.execute(query_one).scalar():
            found[name] = version
    return dict(sorted(found.items()))


def resolve(db: Connection, model: str, alias: str) -> ModelVersion:
    """The version that an alias points to. Raises RegistryRefused `unknown_alias`."""
    version = read(db, model).get(check_name(alias, "alias"))
    found = tables.read_version(db, model, version) if version else None
    if found is None:
        raise RegistryRefused("unknown_alias", f"model {model!r} has no alias {alias!r}; see `registry show {model}`")
    return found


def point(
    db: Connection, model: str, alias: str, version: str | None, expected: str | None, now_s: float
) -> tuple[str, bool]:
    """Set an alias (None: remove it); returns what it was before, "" for nothing, and whether that is a change.

    expected: what the caller believes it points to ("" for nothing); the loser of a race is refused.

    Raises:
        RegistryRefused: bad_name, reserved_alias, unknown_version, unknown_alias, conflict.
    """
    if check_name(alias, "alias") in (CHAMPION, PREVIOUS):
        raise RegistryRefused("reserved_alias", f"alias {alias!r} follows the stages; use a transition")
    there = (tables.aliases.c.model == model) & (tables.aliases.c.alias == alias)
    before = db.execute(sa.select(tables.aliases.c.version).where(there)).scalar() or ""
    if expected is not None and expected != before:
        raise RegistryRefused(
            "conflict", f"alias {alias!r} points to {before or 'nothing'}, not {expected or 'nothing'}"
        )
    if version is None:
        if not before:
            raise RegistryRefused("unknown_alias", f"model {model!r} has no alias {alias!r}; nothing was removed")
        db.execute(tables.aliases.delete().where(there))
        return before, True
    if tables.read_version(db, model, version) is None:
        raise RegistryRefused("unknown_version", f"version {version!r} is not registered; register it first")
    if version == before:
        return before, False
    if before:
        db.execute(tables.aliases.update().where(there).values(version=version, updated_s=now_s))
    else:
        row = {"model": model, "alias": alias, "version": version, "updated_s": now_s}
        db.execute(tables.aliases.insert().values(**row))
    return before, True


def follow(db: Connection, model: str, moves: tuple[Move, ...]) -> None:
    """Keep the `previous` pointer of a model in step with moves that were just written."""
    where = tables.models.c.name == model
    before = db.execute(sa.select(tables.models.c.previous).where(where)).scalar() or ""
    after = previous_after(before, moves)
    if after != before:
        db.execute(tables.models.update().where(where).values(previous=after))
