"""What the guard, the knowledge base and fine-tuning need of a registry, whoever keeps it.

Every call raises `RegistryRefused` for a refusal and `RegistryUnreachable` when nobody knows what happened; every write
is safe to repeat after that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from registry.model import AuditEntry, Control, Evaluation, Lineage, Model, ModelVersion, Move, Stage


class RegistryPort(Protocol):
    """What the guard, the knowledge base and fine-tuning need of the registry."""

    async def healthy(self) -> bool: ...

    async def create_model(self, name: str, owner: str = "", description: str = "") -> Model: ...

    async def models(self) -> tuple[Model, ...]: ...

    async def create_version(
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
    ) -> ModelVersion: ...

    async def version(self, model: str, version: str) -> ModelVersion: ...

    async def versions(self, model: str) -> tuple[ModelVersion, ...]: ...

    async def production(self, model: str) -> ModelVersion | None: ...

    async def transition(
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
    ) -> tuple[Move, ...]: ...

    async def aliases(self, model: str) -> dict[str, str]: ...

    async def resolve(self, model: str, alias: str) -> ModelVersion: ...

    async def set_alias(
        self, model: str, alias: str, version: str | None, *, actor: str, expected: str | None = None
    ) -> dict[str, str]: ...

    async def evaluate(
        self, model: str, version: str, name: str, result: Mapping[str, object], *, actor: str, key: str = ""
    ) -> tuple[Evaluation, ...]: ...

    async def evaluations(self, model: str, version: str) -> tuple[Evaluation, ...]: ...

    async def audit(self, limit: int = 200, model: str | None = None) -> tuple[AuditEntry, ...]: ...

    async def control(self, service: str) -> Control | None: ...

    async def put_control(self, control: Control, *, expected_epoch: int, actor: str) -> Control: ...

    async def close(self) -> None: ...
