"""Models, versions, audit and control documents in SQL: SQLite by default, PostgreSQL for a fleet.

Every write is one transaction and writes its audit entry in it. All methods are synchronous and safe to call from
several threads; `registry.client.LocalRegistry` keeps them off the event loop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry import aliases, migrating, tables
from registry.database import Database
from registry.errors import RegistryRefused
from registry.model import (
    MAX_EPOCH,
    AuditEntry,
    Control,
    Evaluation,
    Lineage,
    Model,
    ModelVersion,
    Move,
    Stage,
    check_control,
    check_gates,
    check_holder,
    check_name,
    check_version,
    forced_detail,
    plan_transition,
)

META_BYTES = 32 * 1024
META_DEPTH = 32
"""Nesting of `meta` and of results; deeper ones cannot be shown again by every reader of JSON."""
TAG_COUNT = 32


def _utc_s() -> float:
    return datetime.now(tz=UTC).timestamp()


class RegistryStore:
    """The registry's truth. `wall_s` gives Unix seconds for labels; inject it in tests.

    Raises:
        RegistryUnreachable: the database cannot be opened or is damaged; one line that says which and what to do.
    """

    def __init__(self, url: str = "sqlite:///registry.db", *, wall_s: Callable[[], float] = _utc_s) -> None:
        self._wall_s = wall_s
        self.database = Database(url, migrating.prepare)

    def close(self) -> None:
        """Give all connections back."""
        self.database.close()

    def healthy(self) -> bool:
        """True when the database answers."""
        with self.database.read() as db:
            return bool(db.execute(sa.select(sa.literal(1))).scalar() == 1)

    # -- models and versions ------------------------------------------------------------------------------------

    def create_model(self, name: str, owner: str = "", description: str = "", actor: str = "") -> Model:
        """Register a model; the same call again returns what is there.

        Raises:
            RegistryRefused: bad_name; `exists` when owner or description differ.
        """
        model = Model(check_name(name, "model"), owner, description, self._wall_s())

        def work(db: Connection) -> Model:
            there = tables.read_model(db, name)
            if there is not None:
                if (there.owner, there.description) == (owner, description):
                    return there
                raise RegistryRefused("exists", f"model {name!r} is registered by {there.owner!r}; choose another name")
            db.execute(tables.models.insert().values(**asdict(model), fence_epoch=0))
            tables.note(db, self._wall_s(), "create_model", actor or owner, name)
            return model

        return self.database.write(work)

    def models(self) -> tuple[Model, ...]:
        """All models by name."""
        with self.database.read() as db:
            rows = db.execute(sa.select(tables.models).order_by(tables.models.c.name)).mappings()
            return tuple(tables.to_model(row) for row in rows)

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
        lineage: Lineage | None = None,
    ) -> ModelVersion:
        """Register a version in stage None; the same call again returns what is there.

        lineage: where it comes from; `created_by` is the actor unless it says otherwise.

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
            meta=_checked_json(meta or {}, "meta"),
            created_s=self._wall_s(),
            lineage=_checked_lineage(lineage or Lineage(), actor),
        )
        if len(tags) > TAG_COUNT:
            raise RegistryRefused("too_large", f"tags: got {len(tags)}; at most {TAG_COUNT}")

        def work(db: Connection) -> ModelVersion:
            tables.lock_model(db, model)
            there = tables.read_version(db, model, version)
            if there is not None:
                if _content(there) == _content(row):
                    return there
                raise RegistryRefused(
                    "exists", f"version {version!r} of {model!r} has other content; register a new version"
                )
            db.execute(tables.versions.insert().values(**tables.version_row(row)))
            tables.note(db, self._wall_s(), "create_version", actor, model, version, to_value=Stage.NONE)
            return row

        return self.database.write(work)

    def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """All versions of a model, oldest first. Raises RegistryRefused `unknown_model`."""
        with self.database.read() as db:
            tables.require_model(db, check_name(model, "model"))
            rows = db.execute(
                sa.select(tables.versions)
                .where(tables.versions.c.model == model)
                .order_by(tables.versions.c.created_s, tables.versions.c.version)
            ).mappings()
            return tuple(tables.to_version(row) for row in rows)

    def production(self, model: str) -> ModelVersion | None:
        """The version in Production, None while there is none. Raises RegistryRefused `unknown_model`."""
        with self.database.read() as db:
            tables.require_model(db, check_name(model, "model"))
            row = (
                db.execute(sa.select(tables.versions).where(tables.versions.c.model == model, tables.IN_PRODUCTION))
                .mappings()
                .first()
            )
            return None if row is None else tables.to_version(row)

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
        if_production: str | None = None,
        force: bool = False,
    ) -> tuple[Move, ...]:
        """Move a version through the stages and return what moved (see `registry.model.plan_transition`).

        epoch: control epoch of the caller; older than the one that moved this model last is `stale_epoch`.
        key: makes the call safe to repeat: the second call with a key changes nothing and returns no moves.
        if_production: what the caller believes to be in Production, "" for nothing; the loser of a race is refused.
        force: a rollback goes although a failed evaluation closes Production to its target; the audit says so.
        """
        check_name(model, "model")
        if epoch is not None and epoch > MAX_EPOCH:
            raise RegistryRefused("invalid", f"epoch: got {str(epoch)[:40]}; epochs end at {MAX_EPOCH}")

        def work(db: Connection) -> tuple[Move, ...]:
            fence = tables.lock_model(db, model)
            if tables.used_key(db, key, model, rollback_to or version):
                return ()
            if epoch is not None and epoch < fence:
                raise RegistryRefused(
                    "stale_epoch",
                    f"epoch {epoch} is older than {fence}, which moved {model!r} last; read control again",
                )
            rows = db.execute(
                sa.select(tables.versions.c.version, tables.versions.c.stage).where(tables.versions.c.model == model)
            )
            stages = {row.version: Stage(row.stage) for row in rows}
            check_holder(stages, if_production)
            moves = plan_transition(stages, version, to_stage, rollback_to)
            passed = check_gates(moves, lambda name: tables.read_evaluations(db, model, name), force=force)
            for move in moves:  # Demotions come first: at no moment are there two in Production.
                if move.from_stage is not move.to_stage:
                    db.execute(
                        tables.versions.update()
                        .where(tables.versions.c.model == model, tables.versions.c.version == move.version)
                        .values(stage=move.to_stage.value)
                    )
            aliases.follow(db, model, moves)
            if epoch is not None:
                db.execute(tables.models.update().where(tables.models.c.name == model).values(fence_epoch=epoch))
            for move in moves:
                last = move is moves[-1]
                tables.note(
                    db, self._wall_s(), move.action, actor, model, move.version, move.from_stage, move.to_stage,
                    forced_detail(passed, detail), key if last and key else None,
                )  # fmt: skip
            return moves

        return self.database.write(work)

    def version(self, model: str, version: str) -> ModelVersion:
        """One version. Raises RegistryRefused `unknown_model`, `unknown_version`."""
        with self.database.read() as db:
            return tables.require_version(db, check_name(model, "model"), check_version(version))

    # -- aliases and evaluations ---------------------------------------------------------------------------------

    def aliases(self, model: str) -> dict[str, str]:
        """Alias to version; `champion` is what is in Production, `previous` what was there before."""
        with self.database.read() as db:
            tables.require_model(db, check_name(model, "model"))
            return aliases.read(db, model)

    def resolve(self, model: str, alias: str) -> ModelVersion:
        """The version that an alias points to. Raises RegistryRefused `unknown_model`, `unknown_alias`."""
        with self.database.read() as db:
            tables.require_model(db, check_name(model, "model"))
            return aliases.resolve(db, model, alias)

    def set_alias(
        self, model: str, alias: str, version: str | None, *, actor: str, expected: str | None = None
    ) -> dict[str, str]:
        """Point an alias to a version, None: remove it; returns all aliases (see `registry.aliases.point`)."""
        check_name(model, "model")

        def work(db: Connection) -> dict[str, str]:
            tables.lock_model(db, model)
            now_s = self._wall_s()
            before, changed = aliases.point(db, model, alias, version, expected, now_s)
            action = "alias" if changed else "noop"
            tables.note(db, now_s, action, actor, model, version or before, before, version or "", f"alias {alias}")
            return aliases.read(db, model)

        return self.database.write(work)

    def evaluate(
        self, model: str, version: str, name: str, result: Mapping[str, object], *, actor: str, key: str = ""
    ) -> tuple[Evaluation, ...]:
        """Add a result to a version and return all of them; nothing is ever replaced. key: safe to repeat."""
        check_name(name, "evaluation")
        plain = _checked_json(result, "result")

        def work(db: Connection) -> tuple[Evaluation, ...]:
            tables.lock_model(db, check_name(model, "model"))
            tables.require_version(db, model, version)
            if not tables.used_key(db, key, model, version, evaluation=name):
                row = {"model": model, "version": version, "name": name, "actor": actor[:200], "result": plain}
                db.execute(tables.evaluations.insert().values(time_s=self._wall_s(), **row))
                tables.note(db, self._wall_s(), "evaluate", actor, model, version, "", name, "", key or None)
            return tables.read_evaluations(db, model, version)

        return self.database.write(work)

    def evaluations(self, model: str, version: str) -> tuple[Evaluation, ...]:
        """All results of a version, oldest first."""
        with self.database.read() as db:
            tables.require_version(db, check_name(model, "model"), check_version(version))
            return tables.read_evaluations(db, model, version)

    # -- audit --------------------------------------------------------------------------------------------------

    def audit(self, limit: int = 200, model: str | None = None) -> tuple[AuditEntry, ...]:
        """The newest entries, newest first."""
        query = sa.select(tables.audit).order_by(tables.audit.c.entry_id.desc()).limit(max(1, min(limit, 1000)))
        if model is not None:
            query = query.where(tables.audit.c.model == model)
        with self.database.read() as db:
            rows = db.execute(query).mappings()
            return tuple(tables.to_entry(row) for row in rows)

    # -- control documents --------------------------------------------------------------------------------------

    def control(self, service: str) -> Control | None:
        """The document that replicas of `service` obey, None before the first."""
        with self.database.read() as db:
            return tables.read_control(db, check_name(service, "service"))

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
            before = tables.read_control(db, control.service)
            if expected_epoch == 0 and before is None:
                db.execute(tables.control.insert().values(**row))
            else:
                done = db.execute(
                    tables.control.update()
                    .where(tables.control.c.service == control.service, tables.control.c.epoch == expected_epoch)
                    .values(**row)
                )
                if done.rowcount != 1:
                    now = before.epoch if before else 0
                    raise RegistryRefused(
                        "conflict",
                        f"control {control.service!r} is at epoch {now}, not {expected_epoch}; read it again",
                    )
            tables.note(
                    db, self._wall_s(), "control", actor, control.service, control.canary or control.stable,
                f"epoch {expected_epoch}", f"epoch {control.epoch}",
                f"canary_ratio={control.canary_ratio:g} phase={control.phase} incident={control.incident_id}",
            )  # fmt: skip
            return control

        return self.database.write(work)


def _checked_json(value: Mapping[str, object], place: str) -> dict[str, object]:
    if _too_deep(value):
        raise RegistryRefused("invalid", f"{place}: nested more than {META_DEPTH} deep; keep it flatter")
    try:
        text = json.dumps(dict(value), allow_nan=False)
        json.dumps(value, ensure_ascii=False).encode()  # half a character: kept, it could never be shown again
    except (TypeError, ValueError) as error:
        raise RegistryRefused("invalid", f"{place}: {error}; JSON values only") from error
    if len(text) > META_BYTES:
        raise RegistryRefused("too_large", f"{place}: {len(text)} bytes; at most {META_BYTES}")
    plain: dict[str, object] = json.loads(text)
    return plain


def _too_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(META_DEPTH):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, Mapping) else one if isinstance(one, list | tuple) else ())
        ]
    return bool(level)


def _checked_lineage(lineage: Lineage, actor: str) -> Lineage:
    for name in ("created_by", "data_hash", "git_commit", "parent"):
        if len(getattr(lineage, name)) > 200:
            raise RegistryRefused("too_large", f"lineage: `{name}` has more than 200 characters")
    parameters = _checked_json(lineage.parameters, "lineage: parameters")
    return replace(lineage, created_by=lineage.created_by or actor[:200], parameters=parameters)


def _content(version: ModelVersion) -> tuple[object, ...]:
    """What may not change under a name. Who registered it may: two people may register the same thing."""
    lineage = replace(version.lineage, created_by="")
    return version.artifact_url, version.description, version.tags, dict(version.meta), lineage
