"""The registry over HTTP, behind the same port as the one of this process (`registry.local`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from registry.answers import read_whole, why
from registry.errors import RegistryRefused, RegistryUnreachable
from registry.local import LocalRegistry
from registry.model import (
    AuditEntry,
    Control,
    Evaluation,
    Lineage,
    Model,
    ModelVersion,
    Move,
    Stage,
    check_name,
    check_version,
)
from registry.port import RegistryPort

__all__ = ["LocalRegistry", "RegistryClient", "RegistryPort"]

T = TypeVar("T")
ANSWER_BYTES = 4 * 1024 * 1024


class RegistryClient:
    """The REST API behind the port. Redirects are failures: nobody else may answer for the registry.

    url: origin of `registry serve`, from the configuration. timeout_s: for one whole call. connector: makes what a
    session connects with; it is asked for when the first call is made.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = 2.0,
        connector: Callable[[], aiohttp.BaseConnector] | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise RegistryRefused("invalid", f"registry url: got {url!r}; write http(s)://host:port")
        self._base = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._connector = connector
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
        lineage: Lineage | None = None,
    ) -> ModelVersion:
        body: dict[str, object] = {
            "version": version,
            "artifact_url": artifact_url,
            "description": description,
            "tags": list(tags),
            "meta": dict(meta or {}),
            "actor": actor,
        }
        if lineage is not None:
            body["lineage"] = asdict(lineage)
        return await self._call("POST", f"/models/{_segment(model)}/versions", ModelVersion, body)

    async def version(self, model: str, version: str) -> ModelVersion:
        return await self._call("GET", _place(model, version), ModelVersion)

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
        if_production: str | None = None,
        force: bool = False,
    ) -> tuple[Move, ...]:
        body: dict[str, object] = {"to_stage": str(to_stage), "actor": actor, "key": key, "detail": detail}
        if rollback_to is not None:
            body["rollback_to"] = rollback_to
        if epoch is not None:
            body["epoch"] = epoch
        if if_production is not None:
            body["if_production"] = if_production
        if force:
            body["force"] = True
        path = f"{_place(model, version)}/transition"
        answer = await self._call("POST", path, dict[str, Any], body)
        return _decoded(answer.get("moves"), tuple[Move, ...], path)

    async def aliases(self, model: str) -> dict[str, str]:
        return await self._call("GET", f"/models/{_segment(model)}/aliases", dict[str, str])

    async def resolve(self, model: str, alias: str) -> ModelVersion:
        return await self._call("GET", f"/models/{_segment(model)}/aliases/{_segment(alias)}", ModelVersion)

    async def set_alias(
        self, model: str, alias: str, version: str | None, *, actor: str, expected: str | None = None
    ) -> dict[str, str]:
        body: dict[str, object] = {"version": version, "actor": actor}
        if expected is not None:
            body["expected"] = expected
        path = f"/models/{_segment(model)}/aliases/{_segment(alias)}"
        return await self._call("PUT", path, dict[str, str], body)

    async def evaluate(
        self, model: str, version: str, name: str, result: Mapping[str, object], *, actor: str, key: str = ""
    ) -> tuple[Evaluation, ...]:
        body = {"name": name, "result": dict(result), "actor": actor, "key": key}
        return await self._call("POST", f"{_place(model, version)}/evaluations", tuple[Evaluation, ...], body)

    async def evaluations(self, model: str, version: str) -> tuple[Evaluation, ...]:
        return await self._call("GET", f"{_place(model, version)}/evaluations", tuple[Evaluation, ...])

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
            connector = self._connector() if self._connector is not None else None
            self._session = aiohttp.ClientSession(timeout=self._timeout, headers=self._headers, connector=connector)
        place = f"registry {self._base}{path.split('?')[0]}"
        try:
            async with self._session.request(
                method, self._base + path, json=body, headers=headers, allow_redirects=False
            ) as response:
                raw = await read_whole(response, ANSWER_BYTES, place)
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise RegistryUnreachable(f"{place}: {why(error)}; is `sft-guard registry serve` up?") from error
        if 200 <= status < 300:
            return _decoded(raw, kind, place)
        reason, message = _refusal(raw)
        if reason == "unauthorized":  # without the place whoever asked a guard would look at the guard's own token
            cure = "check the variable that registry.token_env or --token-env names"
            message = f"registry {self._base}: {message}; {cure}"
        if 400 <= status < 500 and reason:
            raise RegistryRefused(reason, message)
        raise RegistryUnreachable(f"{place}: HTTP {status} {message}".rstrip() + "; the write may be repeated")


def _segment(name: str, check: Callable[[str], str] = check_name) -> str:
    return quote(check(name), safe="")


def _place(model: str, version: str) -> str:
    return f"/models/{_segment(model)}/versions/{_segment(version, check_version)}"


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
