"""MLflow's model registry behind the same port, over its REST API; the mlflow package is not needed.

MLflow numbers versions itself and has retired stages, so names, stages, tags, meta and lineage are kept as tags of a
version (`sft.*`), and Production is the alias `champion`, with `previous` beside it, as MLflow's own users do it.

What MLflow has no means for is refused or weaker: there is no control document (a guard keeps its own registry) and no
audit; it has no transactions, so the pointer moves in one call but two people who promote at the same moment may both
believe to have been first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from registry.answers import read_whole, why
from registry.errors import RegistryRefused, RegistryUnreachable
from registry.model import (
    CHAMPION,
    PREVIOUS,
    AuditEntry,
    Control,
    Evaluation,
    Lineage,
    Model,
    ModelVersion,
    Move,
    Stage,
    check_gates,
    check_holder,
    check_name,
    check_version,
    forced_detail,
    plan_transition,
    previous_after,
)

API = "/api/2.0/mlflow"
PAGE = 200
TAG_BYTES = 90_000  # MLflow takes 100,000 characters
ANSWER_BYTES = 16 * 2**20
_EXISTS, _MISSING = "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"
_RETIRED = frozenset({"RESOURCE_EXHAUSTED", "TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED"})


class _MlflowSaid(Exception):
    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class MlflowRegistry:
    """url: origin of the MLflow server. token: sent as bearer token."""

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 10.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise RegistryRefused("invalid", f"registry url: got {url!r}; write mlflow+http(s)://host:port")
        self._base = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def healthy(self) -> bool:
        await self._call("GET", "/registered-models/search", {"max_results": "1"})
        return True

    async def create_model(self, name: str, owner: str = "", description: str = "") -> Model:
        body = {"name": check_name(name, "model"), "description": description, "tags": _tags({"sft.owner": owner})}
        try:
            made = await self._call("POST", "/registered-models/create", body)
        except _MlflowSaid as error:
            if error.code != _EXISTS:
                raise _refused(error) from error
            there = _model(await self._model(name))
            if (there.owner, there.description) == (owner, description):
                return there
            raise RegistryRefused(
                "exists", f"model {name!r} is registered by {there.owner!r}; choose another"
            ) from error
        return _model(made["registered_model"])

    async def models(self) -> tuple[Model, ...]:
        rows = await self._pages("/registered-models/search", {}, "registered_models")
        return tuple(sorted((_model(row) for row in rows), key=lambda m: m.name))

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
        check_version(version)
        lineage = replace(lineage or Lineage(), created_by=(lineage.created_by if lineage else "") or actor)
        wanted = ModelVersion(
            model, version, Stage.NONE, artifact_url, description, tags, dict(meta or {}), lineage=lineage
        )
        there = (await self._versions(model)).get(version)
        if there is not None:
            if _content(there[1]) == _content(wanted):
                return there[1]
            raise RegistryRefused("exists", f"version {version!r} of {model!r} has other content; register a new one")
        said = {
            "sft.version": version,
            "sft.stage": Stage.NONE.value,
            "sft.artifact_url": artifact_url,
            "sft.tags": _json(list(tags)),
            "sft.meta": _json(dict(meta or {})),
            "sft.lineage": _json(asdict(lineage)),
        }
        # MLflow takes no file of this machine as a source; what is asked for is in the tag.
        remote = urlsplit(artifact_url).scheme in ("http", "https", "s3", "gs", "wasbs", "dbfs", "hdfs")
        source = artifact_url if remote else f"sft-guard:/{model}/{version}"
        body = {"name": model, "source": source, "description": description, "tags": _tags(said)}
        await self._asked("POST", "/model-versions/create", body)
        return (await self._one(model, version))[1]

    async def version(self, model: str, version: str) -> ModelVersion:
        return (await self._one(model, version))[1]

    async def versions(self, model: str) -> tuple[ModelVersion, ...]:
        found = (await self._versions(model)).values()
        return tuple(v for _, v in sorted(found, key=lambda pair: int(pair[0]["version"])))

    async def production(self, model: str) -> ModelVersion | None:
        found = await self._versions(model)
        return next((v for _, v in found.values() if v.stage is Stage.PRODUCTION), None)

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
        found = await self._versions(model)
        row = await self._model(model)
        own = _said(row)
        mark = f"sft.key.{sha256(key.encode()).hexdigest()[:16]}" if key else ""
        if mark and mark in own:
            return ()
        fence = int(own.get("sft.fence_epoch") or 0)
        if epoch is not None and epoch < fence:
            raise RegistryRefused("stale_epoch", f"epoch {epoch} is older than {fence}, which moved {model!r} last")
        stages = {name: v.stage for name, (_, v) in found.items()}
        check_holder(stages, if_production)
        moves = plan_transition(stages, version, to_stage, rollback_to)
        passed = check_gates(moves, lambda name: _evaluations(model, name, found[name][0]), force=force)
        aliases = _aliases(row)
        names = {raw["version"]: name for name, (raw, _) in found.items()}
        before = names.get(aliases.get(PREVIOUS, ""), "")
        risen = next((m for m in moves if m.to_stage is Stage.PRODUCTION), None)
        fallen = any(m.from_stage is Stage.PRODUCTION and m.to_stage is not Stage.PRODUCTION for m in moves)
        # The pointer first, in one call; the tags behind it only say what each version is besides.
        if risen is not None:
            await self._alias(model, CHAMPION, found[risen.version][0]["version"])
        elif fallen:
            await self._alias(model, CHAMPION, None)
        after = previous_after(before, moves)
        if after != before:
            await self._alias(model, PREVIOUS, found[after][0]["version"] if after else None)
        for move in moves:
            if move.from_stage is not move.to_stage:
                await self._tag_version(model, found[move.version][0]["version"], "sft.stage", move.to_stage.value)
        for name, value in ((("sft.fence_epoch", str(epoch)),) if epoch is not None else ()) + (
            ((mark, f"{actor}: {forced_detail(passed, detail)}"[:200]),) if mark else ()
        ):
            await self._asked("POST", "/registered-models/set-tag", {"name": model, "key": name, "value": value})
        return moves

    async def aliases(self, model: str) -> dict[str, str]:
        names = {raw["version"]: name for name, (raw, _) in (await self._versions(model)).items()}
        known = _aliases(await self._model(model))
        return dict(sorted((alias, names[number]) for alias, number in known.items() if number in names))

    async def resolve(self, model: str, alias: str) -> ModelVersion:
        version = (await self.aliases(model)).get(check_name(alias, "alias"))
        if version is None:
            raise RegistryRefused("unknown_alias", f"model {model!r} has no alias {alias!r}")
        return await self.version(model, version)

    async def set_alias(
        self, model: str, alias: str, version: str | None, *, actor: str, expected: str | None = None
    ) -> dict[str, str]:
        if check_name(alias, "alias") in (CHAMPION, PREVIOUS):
            raise RegistryRefused("reserved_alias", f"alias {alias!r} follows the stages; use a transition")
        now = (await self.aliases(model)).get(alias, "")
        if expected is not None and expected != now:
            raise RegistryRefused(
                "conflict", f"alias {alias!r} points to {now or 'nothing'}, not {expected or 'nothing'}"
            )
        if version is None and not now:
            raise RegistryRefused("unknown_alias", f"model {model!r} has no alias {alias!r}; nothing was removed")
        number = (await self._one(model, version))[0]["version"] if version is not None else None
        await self._alias(model, alias, number)
        return await self.aliases(model)

    async def evaluate(
        self, model: str, version: str, name: str, result: Mapping[str, object], *, actor: str, key: str = ""
    ) -> tuple[Evaluation, ...]:
        raw, _ = await self._one(model, version)
        known = _evaluations(model, version, raw)
        said = {"name": check_name(name, "evaluation"), "actor": actor, "key": key, "result": dict(result)}
        if not (key and any(f'"key":{_json(key)}' in value for value in _said(raw).values())):
            await self._tag_version(model, raw["version"], f"sft.evaluation.{len(known) + 1}", _json(said))
        return await self.evaluations(model, version)

    async def evaluations(self, model: str, version: str) -> tuple[Evaluation, ...]:
        return _evaluations(model, version, (await self._one(model, version))[0])

    async def audit(self, limit: int = 200, model: str | None = None) -> tuple[AuditEntry, ...]:
        raise RegistryRefused("unsupported", "MLflow keeps no audit; `sft-guard registry serve` does")

    async def control(self, service: str) -> Control | None:
        raise RegistryRefused("unsupported", "MLflow has no compare-and-set for a control document; use registry serve")

    async def put_control(self, control: Control, *, expected_epoch: int, actor: str) -> Control:
        raise RegistryRefused("unsupported", "MLflow has no compare-and-set for a control document; use registry serve")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # -- inside -------------------------------------------------------------------------------------------------

    async def _model(self, name: str) -> dict[str, Any]:
        found = await self._asked("GET", "/registered-models/get", {"name": check_name(name, "model")})
        row: dict[str, Any] = found["registered_model"]
        return row

    async def _versions(self, model: str) -> dict[str, tuple[dict[str, Any], ModelVersion]]:
        """Our versions by name, with what MLflow says of each; those that others made there are not ours."""
        champion = _aliases(await self._model(model)).get(CHAMPION)
        rows = await self._pages("/model-versions/search", {"filter": f"name='{model}'"}, "model_versions")
        found = {}
        for row in rows:
            said = _said(row)
            if "sft.version" in said:
                found[said["sft.version"]] = (row, _version(model, row, said, row["version"] == champion))
        return found

    async def _one(self, model: str, version: str) -> tuple[dict[str, Any], ModelVersion]:
        found = (await self._versions(model)).get(check_version(version))
        if found is None:
            raise RegistryRefused("unknown_version", f"version {version!r} of {model!r} is not registered")
        return found

    async def _alias(self, model: str, alias: str, number: str | None) -> None:
        body = {"name": model, "alias": alias}
        if number is None:
            await self._asked("DELETE", "/registered-models/alias", body)
        else:
            await self._asked("POST", "/registered-models/alias", body | {"version": number})

    async def _tag_version(self, model: str, number: str, name: str, value: str) -> None:
        if len(value) > TAG_BYTES:
            raise RegistryRefused("too_large", f"{name}: {len(value)} characters; at most {TAG_BYTES}")
        await self._asked(
            "POST", "/model-versions/set-tag", {"name": model, "version": number, "key": name, "value": value}
        )

    async def _pages(self, path: str, query: Mapping[str, str], field: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        token = ""
        while True:
            more = {"page_token": token} if token else {}
            answer = await self._asked("GET", path, {**query, "max_results": str(PAGE), **more})
            rows += answer.get(field, [])
            token = answer.get("next_page_token", "")
            if not token:
                return rows

    async def _asked(self, method: str, path: str, said: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await self._call(method, path, said)
        except _MlflowSaid as error:
            raise _refused(error) from error

    async def _call(self, method: str, path: str, said: Mapping[str, Any]) -> dict[str, Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, headers=self._headers)
        place = f"registry {self._base}{API}{path}"
        options: dict[str, Any] = {"params": said} if method == "GET" else {"json": said}
        try:
            async with self._session.request(
                method, f"{self._base}{API}{path}", allow_redirects=False, **options
            ) as response:
                raw, status = await read_whole(response, ANSWER_BYTES, place), response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise RegistryUnreachable(f"{place}: {why(error)}; is the MLflow server up?") from error
        try:
            answer: dict[str, Any] = msgspec.json.decode(raw or b"{}", type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if 200 <= status < 300:  # taken for an empty one, it would say that nothing is registered
                raise RegistryUnreachable(f"{place}: an answer of another kind ({error}); check the URL") from error
            answer = {}
        if 200 <= status < 300:
            return answer
        code, message = str(answer.get("error_code", "")), str(answer.get("message", "")).split("\n")[0]
        if 400 <= status < 500 and code and code not in _RETIRED:
            raise _MlflowSaid(code, message)
        raise RegistryUnreachable(f"{place}: HTTP {status} {message}".rstrip() + "; the write may be repeated")


def _refused(error: _MlflowSaid) -> RegistryRefused:
    if error.code == _MISSING:
        return RegistryRefused("unknown_model", f"MLflow: {error}")
    if error.code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return RegistryRefused("unauthorized", f"MLflow: {error}")
    return RegistryRefused("invalid", f"MLflow: {error}")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _tags(values: Mapping[str, str]) -> list[dict[str, str]]:
    for name, value in values.items():
        if len(value) > TAG_BYTES:
            raise RegistryRefused("too_large", f"{name}: {len(value)} characters; at most {TAG_BYTES}")
    return [{"key": key, "value": value} for key, value in values.items()]


def _said(row: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag.get("value", "") for tag in row.get("tags", [])}


def _aliases(row: Mapping[str, Any]) -> dict[str, str]:
    return {entry["alias"]: str(entry["version"]) for entry in row.get("aliases", [])}


def _model(row: Mapping[str, Any]) -> Model:
    created_s = int(row.get("creation_timestamp", 0)) / 1000.0
    return Model(row["name"], _said(row).get("sft.owner", ""), row.get("description", ""), created_s)


def _version(model: str, row: Mapping[str, Any], said: Mapping[str, str], champion: bool) -> ModelVersion:
    stage = Stage(said.get("sft.stage") or "None")
    if champion:
        stage = Stage.PRODUCTION
    elif stage is Stage.PRODUCTION:
        stage = Stage.STAGING  # the alias moved and its tag did not follow: the alias is what counts
    return ModelVersion(
        model,
        said["sft.version"],
        stage,
        said.get("sft.artifact_url", ""),
        row.get("description", ""),
        tuple(msgspec.json.decode(said.get("sft.tags") or "[]")),
        msgspec.json.decode(said.get("sft.meta") or "{}"),
        int(row.get("creation_timestamp", 0)) / 1000.0,
        msgspec.json.decode(said.get("sft.lineage") or "{}", type=Lineage),
    )


def _evaluations(model: str, version: str, row: Mapping[str, Any]) -> tuple[Evaluation, ...]:
    changed_s = int(row.get("last_updated_timestamp", 0)) / 1000.0
    found = []
    for key, value in _said(row).items():
        number = key.removeprefix("sft.evaluation.")
        if number != key and number.isdigit():
            said = msgspec.json.decode(value, type=dict[str, Any])
            found.append(
                Evaluation(int(number), model, version, said["name"], changed_s, said["actor"], said["result"])
            )
    return tuple(sorted(found, key=lambda e: e.entry_id))


def _content(version: ModelVersion) -> tuple[object, ...]:
    lineage = replace(version.lineage, created_by="")
    return version.artifact_url, version.description, version.tags, dict(version.meta), lineage
