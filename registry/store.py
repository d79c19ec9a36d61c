"""Models, versions, audit and control documents in SQL: SQLite by default, PostgreSQL for a fleet.

Every write is one transaction and writes its audit entry in it. All methods are synchronous and safe to call from
several threads; `registry.client.LocalRegistry` keeps them off the event loop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, fields
from datetime import UTC, datetime
from threading import RLock
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import StaticPool

from registry import postgres as postgres_only
from registry import sqlite as sqlite_only
from registry.errors import RegistryRefused, RegistryUnreachable
from registry.model import (
    AuditEntry,
    Control,
    Model,
    ModelVersion,
    Move,
    Stage,
    check_control,
    check_name,
    check_version,
    plan_transition,
)

T = TypeVar("T")
META_BYTES = 32 * 1024
TAG_COUNT = 32
WRITE_TRIES = 5

_metadata = sa.MetaData()
_models = sa.Table(
    "models",
    _metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("created_s", sa.Float, nullable=False),
    # Highest control epoch that has moved this model's pointer; an enactor with an older one is stale.
    sa.Column("fence_epoch", sa.BigInteger, nullable=False),
)
_versions = sa.Table(
    "versions",
    _metadata,
    sa.Column("model", sa.String(64), sa.ForeignKey("models.name"), primary_key=True),
    sa.Column("version", sa.String(64), primary_key=True),
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("artifact_url", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("meta", sa.JSON, nullable=False),
    sa.Column("created_s", sa.Float, nullable=False),
)
_IN_PRODUCTION = _versions.c.stage == Stage.PRODUCTION.value
# The rule "one Production per model" is held by the database too, whoever writes.
sa.Index(
    "one_production_per_model",
    _versions.c.model,
    unique=True,
    sqlite_where=_IN_PRODUCTION,
    postgresql_where=_IN_PRODUCTION,
)
_audit = sa.Table(
    "audit",
    _metadata,
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
_control = sa.Table(
    "control",
    _metadata,
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
_CONTROL_FIELDS = tuple(f.name for f in fields(Control))


def _utc_s() -> float:
    return datetime.now(tz=UTC).timestamp()


class RegistryStore:
    """The registry's truth. `wall_s` gives Unix seconds for labels; inject it in tests.

    Raises:
        RegistryUnreachable: the database cannot be opened or is damaged; one line that says which and what to do.
    """

    def __init__(self, url: str = "sqlite:///registry.db", *, wall_s: Callable[[], float] = _utc_s) -> None:
        self._wall_s = wall_s
        # SQLite: threads take turns on the one connection. Others have a pool.
        self._turn: AbstractContextManager[object] = RLock() if url.startswith("sqlite") else nullcontext()
        try:
            self._engine = _open_engine(url)
        except sa.exc.SQLAlchemyError as error:
            raise RegistryUnreachable(f"registry {_safe(url)}: {_why(error)}; check the URL and its access") from error
        try:
            self._on_sqlite(sqlite_only.check)
            with self._engine.begin() as db:
                postgres_only.take_turns(db)  # two services that start at once would both create the tables
                _metadata.create_all(db)
            self._on_sqlite(sqlite_only.reserve)
        except (sa.exc.SQLAlchemyError, sqlite_only.Error) as error:
            self._engine.dispose()
            cure = "check the URL and its access; a damaged file is copied, looked at, then moved aside"
            raise RegistryUnreachable(f"registry {_safe(url)}: {_why(error)}; {cure}") from error

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()

    def healthy(self) -> bool:
        """True when the database answers."""
        with self._read() as db:
            return bool(db.execute(sa.select(sa.literal(1))).scalar() == 1)

    # -- models and versions ------------------------------------------------------------------------------------

    def create_model(self, name: str, owner: str = "", description: str = "", actor: str = "") -> Model:
        """Register a model; the same call again returns what is there.

        Raises:
            RegistryRefused: bad_name; `exists` when owner or description differ.
        """
        model = Model(check_name(name, "model"), owner, description, self._wall_s())

        def work(db: Connection) -> Model:
            there = _read_model(db, name)
            if there is not None:
                if (there.owner, there.description) == (owner, description):
                    return there
                raise RegistryRefused("exists", f"model {name!r} is registered by {there.owner!r}; choose another name")
            db.execute(_models.insert().values(**asdict(model), fence_epoch=0))
            self._note(db, "create_model", actor or owner, name)
            return model

        return self._write(work)

    def models(self) -> tuple[Model, ...]:
        """All models by name."""
        with self._read() as db:
            rows = db.execute(sa.select(_models).order_by(_models.c.name)).mappings()
            return tuple(_to_model(row) for row in rows)

    def create_version(
        self,
        model: str,
        version: str,
        *,
        artifact_url: str = "",
        description: str = "",
        tags: tuple[str, ...] = (),
        meta: Mapping[str, object] | None = None,
        actor: str = "",
    ) -> ModelVersion:
        """Register a version in stage None; the same call again returns what is there.

        Raises:
            RegistryRefused: bad_name, unknown_model, too_large; `exists` when the content differs: a version that
                may change under its name cannot be rolled back to.
        """
        check_name(model, "model")
        row = ModelVersion(
            model,
            check_version(version),
            artifact_url=artifact_url,
            description=description,
            tags=tags,
            meta=_checked_meta(meta or {}),
            created_s=self._wall_s(),
        )
        if len(tags) > TAG_COUNT:
            raise RegistryRefused("too_large", f"tags: got {len(tags)}; at most {TAG_COUNT}")

        def work(db: Connection) -> ModelVersion:
            _lock_model(db, model)
            there = _read_version(db, model, version)
            if there is not None:
                same = (there.artifact_url, there.description, there.tags, dict(there.meta)) == (
                    artifact_url,
                    description,
                    tags,
                    dict(row.meta),
                )
                if same:
                    return there
                raise RegistryRefused(
                    "exists", f"version {version!r} of {model!r} has other content; register a new version"
                )
            db.execute(_versions.insert().values(**_version_row(row)))
            self._note(db, "create_version", actor, model, version, to_value=Stage.NONE)
            return row

        return self._write(work)

    def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """All versions of a model, oldest first. Raises RegistryRefused `unknown_model`."""
        with self._read() as db:
            _require_model(db, check_name(model, "model"))
            rows = db.execute(
                sa.select(_versions)
                .where(_versions.c.model == model)
                .order_by(_versions.c.created_s, _versions.c.version)
            ).mappings()
            return tuple(_to_version(row) for row in rows)

    def production(self, model: str) -> ModelVersion | None:
        """The version in Production, None while there is none. Raises RegistryRefused `unknown_model`."""
        with self._read() as db:
            _require_model(db, check_name(model, "model"))
            row = db.execute(sa.select(_versions).where(_versions.c.model == model, _IN_PRODUCTION)).mappings().first()
            return None if row is None else _to_version(row)

    def transition(
        self,
        model: str,
        version: str,
        to_stage: Stage,
        *,
        actor: str,
        rollback_to: str | None = None,
        epoch: int | None = None,
        key: str = "",
        detail: str = "",
    ) -> tuple[Move, ...]:
        """Move a version through the stages and return what moved (see `registry.model.plan_transition`).

        epoch: control epoch of the caller; older than the one that moved this model last is `stale_epoch`.
        key: makes the call safe to repeat: the second call with a key changes nothing and returns no moves.
        """
        check_name(model, "model")

        def work(db: Connection) -> tuple[Move, ...]:
            fence = _lock_model(db, model)
            if key and db.execute(sa.select(_audit.c.entry_id).where(_audit.c.key == key)).first() is not None:
                return ()
            if epoch is not None and epoch < fence:
                raise RegistryRefused(
                    "stale_epoch",
                    f"epoch {epoch} is older than {fence}, which moved {model!r} last; read control again",
                )
            rows = db.execute(sa.select(_versions.c.version, _versions.c.stage).where(_versions.c.model == model))
            stages = {row.version: Stage(row.stage) for row in rows}
            moves = plan_transition(stages, version, to_stage, rollback_to)
            for move in moves:  # Demotions come first: at no moment are there two in Production.
                if move.from_stage is not move.to_stage:
                    db.execute(
                        _versions.update()
                        .where(_versions.c.model == model, _versions.c.version == move.version)
                        .values(stage=move.to_stage.value)
                    )
            if epoch is not None:
                db.execute(_models.update().where(_models.c.name == model).values(fence_epoch=epoch))
            for move in moves:
                last = move is moves[-1]
                self._note(
                    db, move.action, actor, model, move.version, move.from_stage, move.to_stage,
                    detail, key if last and key else None,
                )  # fmt: skip
            return moves

        return self._write(work)

    # -- audit --------------------------------------------------------------------------------------------------

    def audit(self, limit: int = 200, model: str | None = None) -> tuple[AuditEntry, ...]:
        """The newest entries, newest first."""
        query = sa.select(_audit).order_by(_audit.c.entry_id.desc()).limit(max(1, min(limit, 1000)))
        if model is not None:
            query = query.where(_audit.c.model == model)
        with self._read() as db:
            rows = db.execute(query).mappings()
            return tuple(AuditEntry(**{k: v for k, v in row.items() if k != "key"}) for row in rows)

    # -- control documents --------------------------------------------------------------------------------------

    def control(self, service: str) -> Control | None:
        """The document that replicas of `service` obey, None before the first."""
        with self._read() as db:
            return _read_control(db, check_name(service, "service"))

    def put_control(self, control: Control, *, expected_epoch: int, actor: str) -> Control:
        """Replace the document if its epoch is still `expected_epoch` (0: there is none yet).

        Raises:
            RegistryRefused: `conflict` for the loser of a race, with the epoch that won; `invalid`, `bad_name`.
        """
        check_control(control)
        if control.epoch <= expected_epoch:
            raise RegistryRefused("invalid", f"epoch: got {control.epoch}; it grows past {expected_epoch}")
        row = asdict(control)

        def work(db: Connection) -> Control:
            before = _read_control(db, control.service)
            if expected_epoch == 0 and before is None:
                db.execute(_control.insert().values(**row))
            else:
                done = db.execute(
                    _control.update()
                    .where(_control.c.service == control.service, _control.c.epoch == expected_epoch)
                    .values(**row)
                )
                if done.rowcount != 1:
                    now = before.epoch if before else 0
                    raise RegistryRefused(
                        "conflict",
                        f"control {control.service!r} is at epoch {now}, not {expected_epoch}; read it again",
                    )
            self._note(
                db, "control", actor, control.service, control.canary or control.stable,
                f"epoch {expected_epoch}", f"epoch {control.epoch}",
                f"canary_ratio={control.canary_ratio:g} phase={control.phase} incident={control.incident_id}",
            )  # fmt: skip
            return control

        return self._write(work)

    # -- inside -------------------------------------------------------------------------------------------------

    def _write(self, work: Callable[[Connection], T]) -> T:
        """Carry out `work` in one transaction. It may be run again, so it reads all it decides on through `db`.

        Run again: what the database undid for somebody else's sake (serialization, deadlock), a row that another writer
        made first (the second time it is found), and a connection that broke before the commit was asked for. A
        connection that breaks during the commit is never repeated here: nobody knows whether it stands.
        """
        for left in reversed(range(WRITE_TRIES)):
            asked = False
            try:
                with self._turn:
                    with self._engine.begin() as db:
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
    def _read(self) -> Iterator[Connection]:
        try:
            with self._turn, self._engine.connect().execution_options(reader=True) as db:
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
        if self._engine.dialect.name == "sqlite":
            with self._engine.connect() as db:
                raw: Any = db.connection.dbapi_connection
                call(raw)

    def _note(
        self,
        db: Connection,
        action: str,
        actor: str,
        model: str,
        version: str = "",
        from_value: str = "",
        to_value: str = "",
        detail: str = "",
        key: str | None = None,
    ) -> None:
        db.execute(
            _audit.insert().values(
                time_s=self._wall_s(),
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


def _open_engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return postgres_only.open_engine(url)
    # One connection for all threads: SQLite has one writer anyway, and the reserve lives as long as it does.
    engine = sa.create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False, "timeout": 5})
    sqlite_only.prepare(engine)
    return engine


def _lock_model(db: Connection, model: str) -> int:
    """Serialise writers of one model and return its fence; SQLite ignores FOR UPDATE and has one writer."""
    row = db.execute(sa.select(_models.c.fence_epoch).where(_models.c.name == model).with_for_update()).first()
    if row is None:
        raise RegistryRefused("unknown_model", f"model {model!r} is not registered; POST /models first")
    return int(row.fence_epoch)


def _require_model(db: Connection, model: str) -> None:
    if _read_model(db, model) is None:
        raise RegistryRefused("unknown_model", f"model {model!r} is not registered; POST /models first")


def _read_model(db: Connection, name: str) -> Model | None:
    row = db.execute(sa.select(_models).where(_models.c.name == name)).mappings().first()
    return None if row is None else _to_model(row)


def _read_version(db: Connection, model: str, version: str) -> ModelVersion | None:
    query = sa.select(_versions).where(_versions.c.model == model, _versions.c.version == version)
    row = db.execute(query).mappings().first()
    return None if row is None else _to_version(row)


def _read_control(db: Connection, service: str) -> Control | None:
    row = db.execute(sa.select(_control).where(_control.c.service == service)).mappings().first()
    return None if row is None else Control(**{name: row[name] for name in _CONTROL_FIELDS})


def _to_model(row: Any) -> Model:
    return Model(row["name"], row["owner"], row["description"], row["created_s"])


def _to_version(row: Any) -> ModelVersion:
    known = {k: v for k, v in row.items() if k not in ("tags", "stage")}
    return ModelVersion(**known, tags=tuple(row["tags"]), stage=Stage(row["stage"]))


def _version_row(version: ModelVersion) -> dict[str, Any]:
    row = asdict(version)
    return row | {"tags": list(version.tags), "meta": dict(version.meta), "stage": version.stage.value}


def _checked_meta(meta: Mapping[str, object]) -> dict[str, object]:
    try:
        text = json.dumps(dict(meta), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RegistryRefused("invalid", f"meta: {error}; JSON values only") from error
    if len(text) > META_BYTES:
        raise RegistryRefused("too_large", f"meta: {len(text)} bytes; at most {META_BYTES}")
    plain: dict[str, object] = json.loads(text)
    return plain


def _why(error: Exception) -> str:
    """First line of the driver's own words; SQLAlchemy's text carries the statement and a link."""
    return str(getattr(error, "orig", None) or error).split("\n", 1)[0]


def _safe(url: str) -> str:
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return "URL"
