"""One port, two ways to the registry: over HTTP, or in this process.

Both raise `RegistryRefused` for a refusal and `RegistryUnreachable` when nobody knows what happened; every write is
safe to repeat after that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from registry.errors import RegistryRefused, RegistryUnreachable
from registry.model import AuditEntry, Control, Model, ModelVersion, Move, Stage, check_name, check_version
from registry.store import RegistryStore

T = TypeVar("T")
ANSWER_BYTES = 4 * 1024 * 1024


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
    ) -> ModelVersion: ...

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
    ) -> tuple[Move, ...]: ...

    async def audit(self, limit: int = 200, model: str | None = None) -> tuple[AuditEntry, ...]: ...

    async def control(self, service: str) -> Control | None: ...

    async def put_control(self, control: Control, *, expected_epoch: int, actor: str) -> Control: ...

    async def close(self) -> None: ...


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
            )
        )
        return made

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
    ) -> tuple[Move, ...]:
        moves: tuple[Move, ...] = await self._offload(
            lambda: self._store.transition(
                model, version, to_stage, actor=actor, rollback_to=rollback_to, epoch=epoch, key=key, detail=detail
            )
        )
        return moves

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


class RegistryClient:
    """The REST API behind the port. Redirects are failures: nobody else may answer for the registry.

    url: origin of `registry serve`, from the configuration. timeout_s: for one whole call.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 2.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise RegistryRefused("invalid", f"registry url: got {url!r}; write http(s)://host:port")
        self._base = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def healthy(self) -> bool:
        return (await self._call("GET", "/healthz", dict[str, Any])).get("status") == "ok"

    async def create_model(self, name: str, owner: str = "", description: str = "") -> Model:
        body = {"name": name, "owner": owner, "description": description}
        return await self._call("POST", "/models", Model, body)

    async def models(self) -> tuple[Model, ...]:
        return await self._call("GET", "/models", tuple[Model, ...])

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
    ) -> ModelVersion:
        body = {
            "version": version,
            "artifact_url": artifact_url,
            "description": description,
            "tags": list(tags),
            "meta": dict(meta or {}),
            "actor": actor,
        }
        return await self._call("POST", f"/models/{_segment(model)}/versions", ModelVersion, body)

    async def versions(self, model: str) -> tuple[ModelVersion, ...]:
        return await self._call("GET", f"/models/{_segment(model)}/versions", tuple[ModelVersion, ...])

    async def production(self, model: str) -> ModelVersion | None:
        try:
            return await self._call("GET", f"/models/{_segment(model)}/production", ModelVersion)
        except RegistryRefused as error:
            if error.reason == "no_production":
                return None
            raise

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
    ) -> tuple[Move, ...]:
        body: dict[str, object] = {"to_stage": str(to_stage), "actor": actor, "key": key, "detail": detail}
        if rollback_to is not None:
            body["rollback_to"] = rollback_to
        if epoch is not None:
            body["epoch"] = epoch
        path = f"/models/{_segment(model)}/versions/{_segment(version, check_version)}/transition"
        answer = await self._call("POST", path, dict[str, Any], body)
        return _decoded(answer.get("moves"), tuple[Move, ...], path)

    async def audit(self, limit: int = 200, model: str | None = None) -> tuple[AuditEntry, ...]:
        query = f"?limit={limit}" + (f"&model={_segment(model)}" if model else "")
        rows = await self._call("GET", f"/audit{query}", list[dict[str, Any]])
        return tuple(_audit_entry(row) for row in rows)

    async def control(self, service: str) -> Control | None:
        try:
            return await self._call("GET", f"/control/{_segment(service)}", Control)
        except RegistryRefused as error:
            if error.reason == "unknown_service":
                return None
            raise

    async def put_control(self, control: Control, *, expected_epoch: int, actor: str) -> Control:
        body = {k: v for k, v in asdict(control).items() if k != "service"} | {"actor": actor}
        path = f"/control/{_segment(control.service)}"
        return await self._call("PUT", path, Control, body, {"if-match": str(expected_epoch)})

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _call(
        self,
        method: str,
        path: str,
        kind: type[T],
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, headers=self._headers)
        place = f"registry {self._base}{path.split('?')[0]}"
        try:
            async with self._session.request(
                method, self._base + path, json=body, headers=headers, allow_redirects=False
            ) as response:
                raw = await response.content.read(ANSWER_BYTES)
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            what = str(error) or type(error).__name__
            raise RegistryUnreachable(f"{place}: {what.splitlines()[0]}; is `sft-guard registry serve` up?") from error
        if 200 <= status < 300:
            return _decoded(raw, kind, place)
        reason, message = _refusal(raw)
        if 400 <= status < 500 and reason:
            raise RegistryRefused(reason, message)
        raise RegistryUnreachable(f"{place}: HTTP {status} {message}".rstrip() + "; the write may be repeated")


def _segment(name: str, check: Callable[[str], str] = check_name) -> str:
    return quote(check(name), safe="")


def _decoded(raw: object, kind: type[T], place: str) -> T:
    try:
        if isinstance(raw, bytes):
            return msgspec.json.decode(raw, type=kind)
        return msgspec.convert(raw, kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise RegistryUnreachable(f"{place}: an answer of another kind ({error}); check the URL") from error


def _refusal(raw: bytes) -> tuple[str, str]:
    try:
        error = msgspec.json.decode(raw, type=dict[str, dict[str, str]])["error"]
        return error["type"], error["message"]
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, KeyError):
        return "", ""


def _audit_entry(row: Mapping[str, Any]) -> AuditEntry:
    try:
        return AuditEntry(
            entry_id=row["id"],
            time_s=datetime.fromisoformat(row["time"]).timestamp(),
            action=row["action"],
            actor=row["actor"],
            model=row["model"],
            version=row["version"],
            from_value=row["from"],
            to_value=row["to"],
            detail=row["detail"],
        )
    except (KeyError, ValueError, TypeError) as error:
        raise RegistryUnreachable(f"registry audit: an entry of another kind ({error}); check the URL") from error
