"""The tables, and rows of them as the types of `registry.model`. SQL, and no rule of the stages."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.errors import RegistryRefused
from registry.model import AuditEntry, Control, Evaluation, Lineage, Model, ModelVersion, Stage

REVISION = "r0002"
"""Newest revision of `registry/migrations`: what `metadata` describes."""

metadata = sa.MetaData()
models = sa.Table(
    "models",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("created_s", sa.Float, nullable=False),
    # Highest control epoch that has moved this model's pointer; an enactor with an older one is stale.
    sa.Column("fence_epoch", sa.BigInteger, nullable=False),
    # Columns that came later have defaults: a program from before them still writes here during an upgrade.
    sa.Column("previous", sa.String(64), nullable=False, server_default=sa.text("''")),
)
versions = sa.Table(
    "versions",
    metadata,
    sa.Column("model", sa.String(64), sa.ForeignKey("models.name"), primary_key=True),
    sa.Column("version", sa.String(64), primary_key=True),
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("artifact_url", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("meta", sa.JSON, nullable=False),
    sa.Column("created_s", sa.Float, nullable=False),
    sa.Column("lineage", sa.JSON, nullable=False, server_default="{}"),
)
IN_PRODUCTION = versions.c.stage == Stage.PRODUCTION.value
# The rule "one Production per model" is held by the database too, whoever writes.
sa.Index(
    "one_production_per_model",
    versions.c.model,
    unique=True,
    sqlite_where=IN_PRODUCTION,
    postgresql_where=IN_PRODUCTION,
)
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("entry_id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("time_s", sa.Float, nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("model", sa.String(64), nullable=False),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("from_value", sa.String(200), nullable=False),
    sa.Column("to_value", sa.String(200), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    # A request that may be repeated carries a key; its second coming finds this row and changes nothing.
    sa.Column("key", sa.String(200), unique=True, nullable=True),
)
aliases = sa.Table(
    "aliases",
    metadata,
    sa.Column("model", sa.String(64), sa.ForeignKey("models.name"), primary_key=True),
    sa.Column("alias", sa.String(64), primary_key=True),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("updated_s", sa.Float, nullable=False),
)
evaluations = sa.Table(
    "evaluations",
    metadata,
    sa.Column("entry_id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(64), nullable=False, index=True),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("time_s", sa.Float, nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("result", sa.JSON, nullable=False),
)
alembic_version = sa.Table(
    "alembic_version",
    metadata,
    sa.Column("version_num", sa.String(32), primary_key=True),
)
control = sa.Table(
    "control",
    metadata,
    sa.Column("service", sa.String(64), primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("stable", sa.String(64), nullable=False),
    sa.Column("canary", sa.String(64), nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("canary_ratio", sa.Float, nullable=False),
    sa.Column("stage", sa.Integer, nullable=False),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("advance", sa.String(16), nullable=False),
    sa.Column("phase", sa.String(16), nullable=False),
    sa.Column("cache_epoch", sa.BigInteger, nullable=False),
    sa.Column("incident_id", sa.String(64), nullable=False),
    sa.Column("outbox_id", sa.String(64), nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
)
CONTROL_FIELDS = tuple(f.name for f in fields(Control))
LINEAGE_FIELDS = tuple(f.name for f in fields(Lineage))


def lock_model(db: Connection, model: str) -> int:
    """Serialise writers of one model and return its fence; SQLite ignores FOR UPDATE and has one writer."""
    row = db.execute(sa.select(models.c.fence_epoch).where(models.c.name == model).with_for_update()).first()
    if row is None:
        raise RegistryRefused("unknown_model", f"model {model!r} is not registered; POST /models first")
    return int(row.fence_epoch)


def require_model(db: Connection, model: str) -> None:
    if read_model(db, model) is None:
        raise RegistryRefused("unknown_model", f"model {model!r} is not registered; POST /models first")


def read_model(db: Connection, name: str) -> Model | None:
    row = db.execute(sa.select(models).where(models.c.name == name)).mappings().first()
    return None if row is None else to_model(row)


def read_version(db: Connection, model: str, version: str) -> ModelVersion | None:
    query = sa.select(versions).where(versions.c.model == model, versions.c.version == version)
    row = db.execute(query).mappings().first()
    return None if row is None else to_version(row)


def require_version(db: Connection, model: str, version: str) -> ModelVersion:
    """One version. Raises RegistryRefused `unknown_model`, `unknown_version`."""
    require_model(db, model)
    found = read_version(db, model, version)
    if found is None:
        raise RegistryRefused(
            "unknown_version", f"version {version!r} of {model!r} is not registered; register it first"
        )
    return found


def read_evaluations(db: Connection, model: str, version: str) -> tuple[Evaluation, ...]:
    """Results of one version, oldest first."""
    query = sa.select(evaluations).where(evaluations.c.model == model, evaluations.c.version == version)
    return tuple(Evaluation(**row) for row in db.execute(query.order_by(evaluations.c.entry_id)).mappings())


def read_control(db: Connection, service: str) -> Control | None:
    row = db.execute(sa.select(control).where(control.c.service == service)).mappings().first()
    return None if row is None else Control(**{name: row[name] for name in CONTROL_FIELDS})


def to_model(row: Any) -> Model:
    return Model(row["name"], row["owner"], row["description"], row["created_s"])


def to_version(row: Any) -> ModelVersion:
    """A version as it is registered."""
    known = {k: v for k, v in row.items() if k not in ("tags", "stage", "lineage")}
    said = {k: v for k, v in dict(row["lineage"] or {}).items() if k in LINEAGE_FIELDS}
    return ModelVersion(**known, tags=tuple(row["tags"]), stage=Stage(row["stage"]), lineage=Lineage(**said))


def version_row(version: ModelVersion) -> dict[str, Any]:
    """A version as a row."""
    row = asdict(version)
    return row | {"tags": list(version.tags), "meta": dict(version.meta), "stage": version.stage.value}


def to_entry(row: Any) -> AuditEntry:
    """An audit entry; the key of the request stays inside."""
    return AuditEntry(**{k: v for k, v in row.items() if k != "key"})


def note(
    db: Connection,
    time_s: float,
    action: str,
    actor: str,
    model: str,
    version: str = "",
    from_value: str = "",
    to_value: str = "",
    detail: str = "",
    key: str | None = None,
) -> None:
    """Write one audit entry, in the transaction of what it tells of."""
    db.execute(
        audit.insert().values(
            time_s=time_s,
            action=action,
            actor=actor[:200],
            model=model,
            version=version,
            from_value=str(from_value),
            to_value=str(to_value),
            detail=detail[:2000],
            key=key,
        )
    )


def used_key(db: Connection, key: str, model: str, version: str, *, evaluation: str = "") -> bool:
    """Whether this request was carried out already. version: the one that the request moves last, or evaluates.

    Raises:
        RegistryRefused: `conflict`, the key belongs to another request; taken for a repetition, this one would be lost.
    """
    if not key:
        return False
    query = sa.select(audit.c.action, audit.c.model, audit.c.version, audit.c.to_value).where(audit.c.key == key)
    there = db.execute(query).first()
    if there is None:
        return False
    evaluated = there.to_value if there.action == "evaluate" else ""
    if (there.model, there.version, evaluated) != (model, version, evaluation):
        raise RegistryRefused(
            "conflict",
            f"key {key[:64]!r} was used for {there.action} of {there.version!r} of {there.model!r}; take a new key",
        )
    return True
