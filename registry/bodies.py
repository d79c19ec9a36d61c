"""What the registry's HTTP takes and gives, as the framework checks it and the API reference shows it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from registry.model import NAME_PATTERN, VERSION_PATTERN, ModelVersion, Move

Name = Annotated[str, Path(pattern=NAME_PATTERN)]
VersionName = Annotated[str, Path(pattern=VERSION_PATTERN)]


class Body(BaseModel):
    """Of a request: nothing more than is named, of the very types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NewModel(Body):
    """POST /models."""

    name: str = Field(pattern=NAME_PATTERN)
    owner: str = Field(default="", max_length=200)
    description: str = Field(default="", max_length=2000)


class LineageBody(Body):
    """Where a version comes from; `parameters` takes any JSON values."""

    created_by: str = Field(default="", max_length=200)
    data_hash: str = Field(default="", max_length=200)
    git_commit: str = Field(default="", max_length=200)
    parent: str = Field(default="", max_length=200)
    parameters: dict[str, Any] = Field(default={})


class NewVersion(Body):
    """POST /models/{name}/versions. `meta` takes any JSON values (artifact_type, dim, hash...)."""

    version: str = Field(pattern=VERSION_PATTERN)
    artifact_url: str = Field(default="", max_length=2000)
    description: str = Field(default="", max_length=2000)
    tags: list[Annotated[str, Field(max_length=64)]] = Field(default=[], max_length=32)
    meta: dict[str, Any] = Field(default={})
    actor: str = Field(default="", max_length=200)
    lineage: LineageBody | None = None


class AliasBody(Body):
    """PUT /models/{name}/aliases/{alias}. `version` null removes it; `expected`: what it points to now, "" nothing."""

    version: str | None = Field(pattern=VERSION_PATTERN)
    actor: str = Field(min_length=1, max_length=200)
    expected: str | None = Field(default=None, max_length=64)


class EvaluationBody(Body):
    """POST .../evaluations. `key` makes it safe to repeat."""

    name: str = Field(pattern=NAME_PATTERN)
    result: dict[str, Any]
    actor: str = Field(min_length=1, max_length=200)
    key: str = Field(default="", max_length=200)


class Transition(Body):
    """POST .../transition. `rollback_to`: the version that takes Production in the same transaction.

    `epoch` (fence), `key` (safe to repeat) and `if_production` (compare and set, "" for nobody) are for programs.
    `force`: a rollback goes although a failed evaluation closes Production to its target; the audit says so.
    """

    to_stage: str
    actor: str = Field(min_length=1, max_length=200)
    rollback_to: str | None = Field(default=None, pattern=VERSION_PATTERN)
    epoch: int | None = Field(default=None, ge=1)
    key: str = Field(default="", max_length=200)
    detail: str = Field(default="", max_length=2000)
    if_production: str | None = Field(default=None, max_length=64)
    force: bool = False


class ControlBody(Body):
    """PUT /control/{service}: the whole new document."""

    epoch: int = Field(ge=1)
    stable: str = Field(pattern=VERSION_PATTERN)
    canary: str = ""
    previous: str = ""
    canary_ratio: float = Field(default=0.0, ge=0.0, le=1.0, strict=False)
    stage: int = Field(default=0, ge=0)
    plan: str = Field(default="", max_length=2000)
    advance: str = Field(default="manual", max_length=16)
    phase: str = Field(default="idle", max_length=16)
    cache_epoch: int = Field(default=0, ge=0)
    incident_id: str = Field(default="", max_length=64)
    outbox_id: str = Field(default="", max_length=64)
    mode: str = Field(default="recommend", max_length=16)
    actor: str = Field(default="", max_length=200)


class MovedTo(BaseModel):
    """Answer of a transition: the version now, and every move it took."""

    version: ModelVersion
    moves: list[Move]
    repeated: bool = Field(description="the key was used before: nothing was changed this time")


class AuditRow(BaseModel):
    """One audit entry with the names of the contract."""

    model_config = ConfigDict(populate_by_name=True)

    id: int
    time: str = Field(description="UTC, ISO 8601")
    action: str
    actor: str
    model: str
    version: str
    from_: str = Field(alias="from")
    to: str
    detail: str


class Health(BaseModel):
    """GET /healthz."""

    status: str
