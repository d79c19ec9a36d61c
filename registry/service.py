"""The registry over HTTP: JSON in, JSON out, one line per refusal.

    POST /models {name, owner, description}          GET /models
    POST|GET /models/{name}/versions                 GET /models/{name}/production
    POST /models/{name}/versions/{version}/transition {to_stage, actor, rollback_to, force}
    GET /models/{name}/versions/{version}            POST|GET .../evaluations {name, result, actor}
    GET /models/{name}/aliases                       GET|PUT /models/{name}/aliases/{alias} {version, actor, expected}
    GET /audit    GET /healthz    GET|PUT /control/{service} (If-Match: the epoch that was read)

Handlers are plain functions: the framework runs them in threads, so a slow disk never stalls the loop.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from registry.bodies import (
    AliasBody,
    AuditRow,
    ControlBody,
    EvaluationBody,
    Health,
    MovedTo,
    Name,
    NewModel,
    NewVersion,
    Transition,
    VersionName,
)
from registry.errors import STATUS, RegistryRefused, RegistryUnreachable
from registry.model import NAME_PATTERN, AuditEntry, Control, Evaluation, Lineage, Model, ModelVersion, Stage
from registry.store import RegistryStore

BODY_BYTES = 64 * 1024


def create_app(store: RegistryStore, *, token: str | None = None) -> FastAPI:
    """Return the registry as an ASGI application.

    token: bearer token that writes need; None leaves writing open, so bind to loopback then.
    """
    app = FastAPI(title="sft-guard registry", docs_url=None, redoc_url=None)
    _install_errors(app)

    def writer(authorization: Annotated[str, Header()] = "") -> None:
        if token is not None and not _same(authorization, f"Bearer {token}"):
            raise RegistryRefused("unauthorized", "this needs `Authorization: Bearer <token>`")

    writes = [Depends(writer)]
    _models(app, store, writes)
    _versions(app, store, writes)
    _records(app, store, writes)
    _control(app, store, writes)
    return app


def _models(app: FastAPI, store: RegistryStore, writes: list[Any]) -> None:
    @app.get("/healthz")
    def healthz() -> Health:
        store.healthy()
        return Health(status="ok")

    @app.post("/models", status_code=201, dependencies=writes)
    def create_model(body: NewModel) -> Model:
        return store.create_model(body.name, body.owner, body.description)

    @app.get("/models")
    def models() -> list[Model]:
        return list(store.models())

    @app.get("/audit")
    def audit(
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
        model: Annotated[str | None, Query(pattern=NAME_PATTERN)] = None,
    ) -> list[AuditRow]:
        return [_audit_row(entry) for entry in store.audit(limit, model)]


def _versions(app: FastAPI, store: RegistryStore, writes: list[Any]) -> None:
    @app.post("/models/{name}/versions", status_code=201, dependencies=writes)
    def create_version(name: Name, body: NewVersion) -> ModelVersion:
        return store.create_version(
            name,
            body.version,
            artifact_url=body.artifact_url,
            description=body.description,
            tags=tuple(body.tags),
            meta=body.meta,
            actor=body.actor,
            lineage=Lineage(**body.lineage.model_dump()) if body.lineage else None,
        )

    @app.get("/models/{name}/versions")
    def versions(name: Name) -> list[ModelVersion]:
        return list(store.versions(name))

    @app.post("/models/{name}/versions/{version}/transition", dependencies=writes)
    def transition(name: Name, version: VersionName, body: Transition) -> MovedTo:
        moves = store.transition(
            name,
            version,
            _stage(body.to_stage),
            actor=body.actor,
            rollback_to=body.rollback_to,
            epoch=body.epoch,
            key=body.key,
            detail=body.detail,
            if_production=body.if_production,
            force=body.force,
        )
        return MovedTo(version=store.version(name, version), moves=list(moves), repeated=not moves)

    @app.get("/models/{name}/versions/{version}")
    def version(name: Name, version: VersionName) -> ModelVersion:
        return store.version(name, version)

    @app.get("/models/{name}/production")
    def production(name: Name) -> ModelVersion:
        version = store.production(name)
        if version is None:
            raise RegistryRefused("no_production", f"model {name!r} has no version in Production; promote one")
        return version


def _records(app: FastAPI, store: RegistryStore, writes: list[Any]) -> None:
    @app.get("/models/{name}/versions/{version}/evaluations")
    def evaluations(name: Name, version: VersionName) -> list[Evaluation]:
        return list(store.evaluations(name, version))

    @app.post("/models/{name}/versions/{version}/evaluations", status_code=201, dependencies=writes)
    def evaluate(name: Name, version: VersionName, body: EvaluationBody) -> list[Evaluation]:
        return list(store.evaluate(name, version, body.name, body.result, actor=body.actor, key=body.key))

    @app.get("/models/{name}/aliases")
    def aliases(name: Name) -> dict[str, str]:
        return store.aliases(name)

    @app.get("/models/{name}/aliases/{alias}")
    def resolve(name: Name, alias: Name) -> ModelVersion:
        return store.resolve(name, alias)

    @app.put("/models/{name}/aliases/{alias}", dependencies=writes)
    def set_alias(name: Name, alias: Name, body: AliasBody) -> dict[str, str]:
        return store.set_alias(name, alias, body.version, actor=body.actor, expected=body.expected)


def _control(app: FastAPI, store: RegistryStore, writes: list[Any]) -> None:
    @app.get("/control/{service}")
    def control(service: Name, response: Response) -> Control:
        document = store.control(service)
        if document is None:
            raise RegistryRefused("unknown_service", f"service {service!r} has no control document yet; PUT the first")
        response.headers["etag"] = f'"{document.epoch}"'
        return document

    @app.put("/control/{service}", dependencies=writes)
    def put_control(
        service: Name, body: ControlBody, response: Response, if_match: Annotated[str | None, Header()] = None
    ) -> Control:
        row = body.model_dump(exclude={"actor"})
        document = store.put_control(
            Control(service=service, **row), expected_epoch=_epoch_of(if_match), actor=body.actor
        )
        response.headers["etag"] = f'"{document.epoch}"'
        return document


def _stage(text: str) -> Stage:
    try:
        return Stage(text)
    except ValueError:
        stages = ", ".join(Stage)
        raise RegistryRefused("invalid", f"to_stage: got {text[:40]!r}; one of {stages}") from None


def _epoch_of(if_match: str | None) -> int:
    if if_match is None:
        raise RegistryRefused("precondition_required", "If-Match: missing; send the epoch you read, 0 for the first")
    digits = if_match.strip().strip('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 15):
        raise RegistryRefused("invalid", f"If-Match: got {if_match[:40]!r}; send the epoch you read, such as 7")
    return int(digits)


def _same(got: str, wanted: str) -> bool:
    # Digests: equal lengths, so that the time taken says nothing about the token.
    return hmac.compare_digest(sha256(got.encode()).digest(), sha256(wanted.encode()).digest())


def _audit_row(entry: AuditEntry) -> AuditRow:
    row = asdict(entry)
    time = datetime.fromtimestamp(entry.time_s, tz=UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return AuditRow(
        id=row["entry_id"],
        time=time,
        action=row["action"],
        actor=row["actor"],
        model=row["model"],
        version=row["version"],
        from_=row["from_value"],
        to=row["to_value"],
        detail=row["detail"],
    )


def _refusal(status: int, reason: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"type": reason, "message": message}}, status_code=status)


def _install_errors(app: FastAPI) -> None:
    @app.exception_handler(RegistryRefused)
    def refused(_request: Request, error: RegistryRefused) -> JSONResponse:
        return _refusal(STATUS.get(error.reason, 409), error.reason, str(error))

    @app.exception_handler(RegistryUnreachable)
    def unreachable(_request: Request, error: RegistryUnreachable) -> JSONResponse:
        return _refusal(503, "unavailable", str(error))

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return _refusal(422, "invalid", f"{place}: {first['msg']}".replace("\n", " ")[:300])

    @app.exception_handler(HTTPException)
    def http(_request: Request, error: HTTPException) -> JSONResponse:
        reason = {404: "no_route", 405: "method_not_allowed"}.get(error.status_code, "invalid")
        return _refusal(error.status_code, reason, str(error.detail).replace("\n", " ")[:300])

    @app.middleware("http")
    async def cap(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        length = request.headers.get("content-length", "0")
        if (
            not (length.isascii() and length.isdigit())
            or int(length) > BODY_BYTES
            or "transfer-encoding" in request.headers
        ):
            return _refusal(413, "too_large", f"body: at most {BODY_BYTES} bytes, with a Content-Length")
        return await go_on(request)
