"""Closing an incident: a person says that it is dealt with, and why."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import Body, Depends, FastAPI, Request
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from guard.admin.access import actor_of
from guard.admin.backend import AdminBackend
from guard.admin.shapes import IncidentClosed

_encode = msgspec.json.Encoder().encode
_TOKEN = [Depends(HTTPBearer(auto_error=False, scheme_name="bearer"))]


class CloseBody(BaseModel):
    """Who closes it, and why."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=500, pattern=r"\S", description="for the timeline and the audit log")
    actor: str = Field("", max_length=64, description="who asks, for the audit log")


def add_incident_routes(app: FastAPI, backend: AdminBackend) -> None:
    """Add what changes an incident."""

    @app.post("/api/v1/incidents/{incident_id}/close", response_model=IncidentClosed, dependencies=_TOKEN)
    async def close(incident_id: str, request: Request, body: Annotated[CloseBody, Body()]) -> Response:
        """Close an incident; one that is closed stays as it is. 409: its rollback is not finished."""
        actor = actor_of(body.actor, request.scope["guard.token_id"])
        done = await backend.close_incident(incident_id, " ".join(body.reason.split()), actor)
        return Response(_encode(done), media_type="application/json")
