"""The admin listener as a FastAPI application: metrics, health, `/api/v1`, status page, API reference.

Thin on purpose: each route asks the backend for one dataclass and writes it as JSON. What guards every route and
method is `shield.py`; without a token the routes that change state do not exist.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any

import msgspec
from fastapi import Body, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from exporters.text import OPENMETRICS_TYPE, TEXT_TYPE, wants_openmetrics
from guard.admin.access import Refusal, actor_of
from guard.admin.alerts_in import read_delivery
from guard.admin.backend import AdminBackend
from guard.admin.cache_routes import CacheAdmin, add_cache_routes
from guard.admin.console import add_console
from guard.admin.hooks import add_flagger_hooks
from guard.admin.incident_routes import add_incident_routes
from guard.admin.pages import docs_page, status_page
from guard.admin.reference import document_refusals
from guard.admin.shapes import (
    AlertsStored,
    BaselineInfo,
    CommandResult,
    ConfigView,
    DriftReport,
    ExchangeList,
    Gate,
    Health,
    IncidentDetail,
    IncidentList,
    QualityReport,
    Readiness,
    ReleaseCommand,
    ReleaseStatus,
    SloReport,
    Stats,
)
from guard.admin.shield import Shield, error_body
from slo.clock import Clock, SystemClock
from slo.errors import ConfigError, DataError, GuardError, RefusedError, SourceError, UpstreamError

log = logging.getLogger("sft_guard.admin")

COMMANDS = ("start", "promote", "abort", "rollback", "pause", "resume", "drill")
PAGE_EXCHANGES = 20
MAX_EXCHANGES = 1000

_STATUS_OF_REASON = {"not_found": 404, "unknown_incident": 404, "invalid": 400, "unavailable": 503}
_encode = msgspec.json.Encoder().encode
# Says in the API reference that a token is needed; `Shield` is what looks at it.
_TOKEN = [Depends(HTTPBearer(auto_error=False, scheme_name="bearer"))]
_DELIVERY = {
    "type": "object",
    "required": ["version", "alerts"],
    "properties": {"version": {"type": "string", "enum": ["4"]}, "alerts": {"type": "array", "items": {}}},
}


class ReleaseBody(BaseModel):
    """Body of a release command; all of it is optional except `version` for `start`."""

    model_config = ConfigDict(extra="forbid")

    version: str = Field("", max_length=128, description="start: name of a version of guard.yaml")
    plan: str = Field("", max_length=500, description="start: default, short, or stages such as `20% for 2h`")
    advance: str = Field("", pattern="^(|manual|auto)$", description="start: auto lets the guard raise the weight")
    reason: str = Field("", max_length=500, description="for the audit log")
    actor: str = Field("", max_length=64, description="who asks, for the audit log")
    force: bool = Field(
        False,
        description="start: although it was rolled back before; promote: stable at once, not one stage up; rollback: "
        "also without a rollout, to the previous version",
    )
    expected_epoch: int | None = Field(None, ge=0, description="refuse when the release has moved on meanwhile")


def create_admin_app(
    backend: AdminBackend,
    *,
    token: str | None,
    allowed_hosts: Iterable[str],
    clock: Clock | None = None,
    on_refusal: Callable[[Refusal], None] = lambda refusal: None,
    protect_reads: bool = False,
    version: str = "1",
    cache: CacheAdmin | None = None,
) -> FastAPI:
    """Return the application.

    token: bearer token of everything that changes state; None: those routes are absent. allowed_hosts: names in the
    `Host` header, with or without port; "*" for any. on_refusal: told of each refused request, for the audit.
    cache: what `/api/v1/cache` asks; None: there are no such routes.
    protect_reads: `/api/v1` and the pages need the token for reading too; `/metrics`, `/healthz`, `/readyz` never do.
    """
    app = FastAPI(
        title="sft-guard admin API",
        version=version,
        description="Health, objectives, releases and incidents of one guard.",
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(
        Shield,
        token=token,
        allowed_hosts=tuple(allowed_hosts),
        clock=clock or SystemClock(),
        on_refusal=on_refusal,
        protect_reads=protect_reads,
    )
    _errors(app)
    _pages(app, backend)
    _reading(app, backend)
    add_console(app, backend, clock or SystemClock(), writable=token is not None)
    if cache is not None:
        add_cache_routes(app, cache, writable=token is not None)
    if token is not None:
        _writing(app, backend)
        add_incident_routes(app, backend)
    document_refusals(app, reads_need_token=protect_reads)
    return app


def _pages(app: FastAPI, backend: AdminBackend) -> None:
    @app.get("/metrics", response_class=Response, responses=_text("Prometheus text format or OpenMetrics"))
    async def metrics(request: Request) -> Response:
        """Every `sft_*` series."""
        openmetrics = wants_openmetrics(request.headers.get("accept", ""))
        body = await backend.metrics(openmetrics=openmetrics)
        return Response(body, media_type=OPENMETRICS_TYPE if openmetrics else TEXT_TYPE)

    @app.get("/healthz", response_model=Health)
    async def healthz() -> Response:
        """The process lives; 200 also when a part fails open."""
        return _json(backend.health())

    @app.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness, "description": "Not ready"}})
    async def readyz() -> Response:
        """Whether the data listener takes traffic."""
        ready = backend.ready()
        return _json(ready, 200 if ready.ready else 503)

    @app.get("/status", include_in_schema=False)
    async def status() -> Response:
        return _html(
            status_page(
                backend.health(),
                backend.ready(),
                backend.slo(),
                backend.release_status(),
                backend.exchanges(PAGE_EXCHANGES).exchanges,
            )
        )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return _html(docs_page(app.openapi()))


def _reading(app: FastAPI, backend: AdminBackend) -> None:
    @app.get("/api/v1/slo", response_model=SloReport)
    async def slo() -> Response:
        """Every objective for every release in traffic, as last evaluated."""
        return _json(backend.slo())

    @app.get("/api/v1/release", response_model=ReleaseStatus)
    async def release() -> Response:
        """Who answers, how far the canary is, and what holds it."""
        return _json(backend.release_status())

    @app.get("/api/v1/exchanges", response_model=ExchangeList)
    async def exchanges(limit: Annotated[int, Query(ge=1, le=MAX_EXCHANGES)] = 50) -> Response:
        """Recent exchanges, newest first: numbers and labels, no words."""
        return _json(backend.exchanges(limit))

    @app.get("/api/v1/incidents", response_model=IncidentList)
    async def incidents() -> Response:
        """All incidents, newest first."""
        return _json(await backend.incidents())

    @app.get("/api/v1/incidents/{incident_id}", response_model=IncidentDetail, responses=_missing("incident"))
    async def incident(incident_id: str) -> Response:
        """One incident with its timeline and evidence."""
        found = await backend.incident(incident_id)
        return _json(found) if found is not None else _no_incident(incident_id)

    @app.get(
        "/api/v1/incidents/{incident_id}/postmortem",
        response_class=Response,
        responses=_text("Markdown", "text/markdown") | _missing("incident"),
    )
    async def postmortem(incident_id: str) -> Response:
        """The facts of one incident as Markdown; causes and follow-ups are left to people."""
        found = await backend.postmortem(incident_id)
        if found is None:
            return _no_incident(incident_id)
        return Response(found, media_type="text/markdown; charset=utf-8")

    @app.get("/api/v1/drift", response_model=DriftReport)
    async def drift() -> Response:
        """Drift per component."""
        return _json(backend.drift())

    @app.get("/api/v1/quality", response_model=QualityReport)
    async def quality() -> Response:
        """Key intents, questions asked again, thumbs and probes by release."""
        return _json(backend.quality())

    @app.get("/api/v1/baseline", response_model=BaselineInfo)
    async def baseline() -> Response:
        """The baseline in use."""
        return _json(backend.baseline())

    @app.get("/api/v1/config", response_model=ConfigView)
    async def config() -> Response:
        """The running configuration, secrets removed."""
        return _json(backend.config())

    @app.get("/api/v1/stats", response_model=Stats)
    async def stats() -> Response:
        """Sizes of queues, pools and windows."""
        return _json(backend.stats())

    @app.get("/api/v1/gate", response_model=Gate)
    async def gate(release: Annotated[str, Query(max_length=128)] = "") -> Response:
        """Verdict on the canary, for the web metric of Argo Rollouts (`{$.data.verdict}`)."""
        return _json(backend.gate(release))

    @app.post("/api/v1/gate", response_model=Gate, responses={409: {"model": Gate, "description": "Not passed"}})
    async def gate_hook(release: Annotated[str, Query(max_length=128)] = "") -> Response:
        """The same for hooks that look at the status only: 200 on pass, else 409. Never for a rollback hook."""
        verdict = backend.gate(release)
        return _json(verdict, 200 if verdict.data.verdict == "pass" else 409)

    add_flagger_hooks(app, backend)


def _writing(app: FastAPI, backend: AdminBackend) -> None:
    async def carry_out(name: str, request: Request, body: ReleaseBody | None) -> Response:
        body = body or ReleaseBody()
        actor = actor_of(body.actor, request.scope["guard.token_id"])
        return _json(await backend.release_command(name, ReleaseCommand(**body.model_dump()), actor))

    def route(name: str) -> Callable[[Request, ReleaseBody | None], Awaitable[Response]]:
        async def endpoint(request: Request, body: Annotated[ReleaseBody | None, Body()] = None) -> Response:
            return await carry_out(name, request, body)

        return endpoint

    for name in COMMANDS:
        app.add_api_route(
            f"/api/v1/release/{name}",
            route(name),
            methods=["POST"],
            response_model=CommandResult,
            name=f"release_{name}",
            summary=f"release {name}",
            description=f"Carry out `{name}` and answer with the status after it; 409 says why it is not allowed.",
            dependencies=_TOKEN,
        )

    @app.post(
        "/api/v1/alerts",
        response_model=AlertsStored,
        responses={503: {"description": "Could not be stored; send it again"}},
        dependencies=_TOKEN,
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _DELIVERY}}}},
    )
    async def alerts(request: Request) -> Response:
        """Webhook receiver of Alertmanager (version 4): stored before it is acknowledged."""
        batch = read_delivery(await request.body())
        try:
            return _json(await backend.alerts_in(batch))
        except Exception as error:  # Whatever the cause, a 4xx would make Alertmanager give the alert up.
            log.warning("admin: %d alerts could not be stored: %s", len(batch.alerts), error)
            return _error(503, "not_stored", "the alerts could not be stored; send them again")


# -- answers ----------------------------------------------------------------------------------------------------------


def _json(value: object, status: int = 200) -> Response:
    return Response(_encode(value), status, media_type="application/json")


def _html(page: str) -> Response:
    return Response(page.encode("utf-8", "replace"), media_type="text/html; charset=utf-8")


def _error(status: int, kind: str, message: str) -> Response:
    return Response(error_body(kind, message), status, media_type="application/json")


def _no_incident(incident_id: str) -> Response:
    return _error(404, "not_found", f"no incident {incident_id[:64]}; /api/v1/incidents lists them")


def _text(description: str, media_type: str = "text/plain") -> dict[int | str, dict[str, Any]]:
    return {200: {"description": description, "content": {media_type: {"schema": {"type": "string"}}}}}


def _missing(what: str) -> dict[int | str, dict[str, Any]]:
    return {404: {"description": f"No such {what}"}}


def _errors(app: FastAPI) -> None:
    @app.exception_handler(GuardError)
    async def expected(request: Request, error: Exception) -> Response:
        if isinstance(error, RefusedError):
            return _error(_STATUS_OF_REASON.get(error.reason, 409), error.reason, str(error))
        if isinstance(error, (ConfigError, DataError)):
            return _error(400, "invalid", str(error))
        if isinstance(error, (SourceError, UpstreamError)):
            return _error(503, "unavailable", str(error))
        return _error(500, "internal", str(error))

    @app.exception_handler(OSError)
    async def storage(request: Request, error: Exception) -> Response:
        log.warning("admin: %s: %s", request.url.path, error)
        return _error(503, "unavailable", "storage of the guard failed; see its log")

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        return _error(400, "invalid", f"{place}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        message = f"no route {request.url.path[:200]}; see /docs" if error.status_code == 404 else str(error.detail)
        response = _error(error.status_code, kind, message)
        response.headers.update(error.headers or {})
        return response
