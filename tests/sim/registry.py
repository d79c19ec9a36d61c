"""The registry's rules in memory, call for call as `registry.store.RegistryStore` (the same contract tests run on it).

`history` and `moves` are for the checks: every control document that ever was, every move of the pointer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from registry.errors import RegistryRefused
from registry.model import (
    AuditEntry,
    Control,
    Lineage,
    Model,
    ModelVersion,
    Move,
    Stage,
    check_control,
    check_holder,
    check_name,
    check_version,
    plan_transition,
)


@dataclass(frozen=True, slots=True)
class PointerMove:
    """One transition that changed something. control: the document in force then."""

    version: str
    rollback_to: str | None
    epoch: int | None
    key: str
    moves: tuple[Move, ...]
    control: Control | None


class MemoryRegistry:
    """One registry for all services; `wall_s` labels the audit."""

    def __init__(self, wall_s: Callable[[], float] = lambda: 1_750_000_000.0) -> None:
        self._wall_s = wall_s
        self._models: dict[str, Model] = {}
        self._versions: dict[str, dict[str, ModelVersion]] = {}
        self._fence: dict[str, int] = {}
        self._audit: list[AuditEntry] = []
        self._keys: set[str] = set()
        self._control: dict[str, Control] = {}
        self.history: list[Control] = []
        self.moves: list[PointerMove] = []

    def healthy(self) -> bool:
        return True

    def create_model(self, name: str, owner: str = "", description: str = "", actor: str = "") -> Model:
        there = self._models.get(check_name(name, "model"))
        if there is not None:
            if (there.owner, there.description) == (owner, description):
                return there
            raise RegistryRefused("exists", f"model {name!r} is registered by {there.owner!r}; choose another name")
        self._models[name] = Model(name, owner, description, self._wall_s())
        self._versions[name] = {}
        self._note("create_model", actor or owner, name)
        return self._models[name]

    def models(self) -> tuple[Model, ...]:
        return tuple(self._models[name] for name in sorted(self._models))

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
        lineage: Lineage | None = None,  # of no matter to releases
    ) -> ModelVersion:
        versions = self._of(model)
        row = ModelVersion(model, check_version(version), Stage.NONE, artifact_url, description, tuple(tags),
                           dict(meta or {}), self._wall_s())  # fmt: skip
        there = versions.get(version)
        if there is not None:
            if replace(there, stage=Stage.NONE, created_s=0.0) == replace(row, created_s=0.0):
                return there
            raise RegistryRefused("exists", f"version {version!r} of {model!r} has other content")
        versions[version] = row
        self._note("create_version", actor, model, version, to_value=Stage.NONE)
        return row

    def versions(self, model: str) -> tuple[ModelVersion, ...]:
        return tuple(self._of(model).values())

    def production(self, model: str) -> ModelVersion | None:
        return next((v for v in self._of(model).values() if v.stage is Stage.PRODUCTION), None)

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
        versions = self._of(model)
        if key and key in self._keys:
            return ()
        if epoch is not None and epoch < self._fence.get(model, 0):
            raise RegistryRefused("stale_epoch", f"epoch {epoch} is older than {self._fence[model]}")
        check_holder({v.version: v.stage for v in versions.values()}, if_production)
        moves = plan_transition({v.version: v.stage for v in versions.values()}, version, to_stage, rollback_to)
        for move in moves:
            versions[move.version] = replace(versions[move.version], stage=move.to_stage)
            self._note(move.action, actor, model, move.version, move.from_stage, move.to_stage, detail)
        if epoch is not None:
            self._fence[model] = epoch
        if key:
            self._keys.add(key)
        self.moves.append(PointerMove(version, rollback_to, epoch, key, moves, self._control.get(model)))
        return moves

    def audit(self, limit: int = 200, model: str | None = None) -> tuple[AuditEntry, ...]:
        rows = [e for e in reversed(self._audit) if model is None or e.model == model]
        return tuple(rows[:limit])

    def control(self, service: str) -> Control | None:
        return self._control.get(check_name(service, "service"))

    def put_control(self, control: Control, *, expected_epoch: int, actor: str) -> Control:
        check_control(control)
        if control.epoch <= expected_epoch:
            raise RegistryRefused("invalid", f"epoch: got {control.epoch}; it grows past {expected_epoch}")
        before = self._control.get(control.service)
        if (before.epoch if before else 0) != expected_epoch:
            raise RegistryRefused("conflict", f"control is at epoch {before.epoch if before else 0}; read it again")
        self._control[control.service] = control
        self.history.append(control)
        self._note("control", actor, control.service, control.canary or control.stable, f"epoch {expected_epoch}",
                   f"epoch {control.epoch}")  # fmt: skip
        return control

    def close(self) -> None:
        """Nothing to close."""

    def _of(self, model: str) -> dict[str, ModelVersion]:
        if check_name(model, "model") not in self._models:
            raise RegistryRefused("unknown_model", f"model {model!r} is not registered; POST /models first")
        return self._versions[model]

    def _note(
        self, action: str, actor: str, model: str, version: str = "", from_value: str = "", to_value: str = "",
        detail: str = "",
    ) -> None:  # fmt: skip
        self._audit.append(AuditEntry(len(self._audit) + 1, self._wall_s(), action, actor, model, version,
                                      str(from_value), str(to_value), detail))  # fmt: skip
