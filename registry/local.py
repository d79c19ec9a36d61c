"""The registry of this process behind the port."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from registry.model import AuditEntry, Control, Evaluation, Lineage, Model, ModelVersion, Move, Stage

if TYPE_CHECKING:  # `registry.client` names this class too, and needs no database
    from registry.store import RegistryStore

T = TypeVar("T")


async def in_thread(call: Callable[[], T]) -> T:
    """Run a blocking call off the event loop."""
    return await asyncio.to_thread(call)


class LocalRegistry:
    """The store of this process behind the port. `offload` runs blocking calls; default: in a thread."""

    def __init__(
        self, store: RegistryStore, offload: Callable[[Callable[[], Any]], Awaitable[Any]] = in_thread
    ) -> None:
        self._store = store
        self._offload = offload

    async def healthy(self) -> bool:
        return bool(await self._offload(self._store.healthy))

    async def create_model(self, name: str, owner: str = "", description: str = "") -> Model:
        model: Model = await self._offload(lambda: self._store.create_model(name, owner, description))
        return model

    async def models(self) -> tuple[Model, ...]:
        models: tuple[Model, ...] = await self._offload(self._store.models)
        return models

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
    ) -> ModelVersion:
        made: ModelVersion = await self._offload(
            lambda: self._store.create_version(
                model,
                version,
                artifact_url=artifact_url,
                description=description,
                tags=tags,
                meta=meta,
                actor=actor,
                lineage=lineage,
            )
        )
        return made

    async def version(self, model: str, version: str) -> ModelVersion:
        found: ModelVersion = await self._offload(lambda: self._store.version(model, version))
        return found

    async def versions(self, model: str) -> tuple[ModelVersion, ...]:
        versions: tuple[ModelVersion, ...] = await self._offload(lambda: self._store.versions(model))
        return versions

    async def production(self, model: str) -> ModelVersion | None:
        version: ModelVersion | None = await self._offload(lambda: self._store.production(model))
        return version

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
    ) -> tuple[Move, ...]:
        moves: tuple[Move, ...] = await self._offload(
            lambda: self._store.transition(
                model,
                version,
                to_stage,
                actor=actor,
                rollback_to=rollback_to,
                epoch=epoch,
                key=key,
                detail=detail,
                if_production=if_production,
                force=force,
            )
        )
        return moves

    async def aliases(self, model: str) -> dict[str, str]:
        found: dict[str, str] = await self._offload(lambda: self._store.aliases(model))
        return found

    async def resolve(self, model: str, alias: str) -> ModelVersion:
        found: ModelVersion = await self._offload(lambda: self._store.resolve(model, alias))
        return found

    async def set_alias(
        self, model: str, alias: str, version: str | None, *, actor: str, expected: str | None = None
    ) -> dict[str, str]:
        found: dict[str, str] = await self._offload(
            lambda: self._store.set_alias(model, alias, version, actor=actor, expected=expected)
        )
        return found

    async def evaluate(
        self, model: str, version: str, name: str, result: Mapping[str, object], *, actor: str, key: str = ""
    ) -> tuple[Evaluation, ...]:
        found: tuple[Evaluation, ...] = await self._offload(
            lambda: self._store.evaluate(model, version, name, result, actor=actor, key=key)
        )
        return found

    async def evaluations(self, model: str, version: str) -> tuple[Evaluation, ...]:
        found: tuple[Evaluation, ...] = await self._offload(lambda: self._store.evaluations(model, version))
        return found

    async def audit(self, limit: int = 200, model: str | None = None) -> tuple[AuditEntry, ...]:
        entries: tuple[AuditEntry, ...] = await self._offload(lambda: self._store.audit(limit, model))
        return entries

    async def control(self, service: str) -> Control | None:
        document: Control | None = await self._offload(lambda: self._store.control(service))
        return document

    async def put_control(self, control: Control, *, expected_epoch: int, actor: str) -> Control:
        document: Control = await self._offload(
            lambda: self._store.put_control(control, expected_epoch=expected_epoch, actor=actor)
        )
        return document

    async def close(self) -> None:
        await self._offload(self._store.close)
