"""Hooks of Flagger: it reads the status alone, and on a rollback hook 2xx means "roll back".

    POST /api/v1/gate/flagger/confirm-rollout             200: go on    409: wait
    POST /api/v1/gate/flagger/confirm-traffic-increase
    POST /api/v1/gate/flagger/confirm-promotion
    POST /api/v1/gate/flagger/rollback                    200: roll back    409: do not

A hook that cannot be answered must never be a 2xx: to a confirm hook that would be a promotion without a verdict, to a
rollback hook a rollback without one. Only these words are read as such, whatever else fails. They change nothing, so
they need no token (Flagger's hooks carry no headers); who may ask is a matter of the network and of `allowed_hosts`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import Body, FastAPI, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from guard.admin.backend import AdminBackend
from guard.admin.shapes import Gate

PREFIX = "/api/v1/gate/flagger/"
GO_ON = {"confirm-rollout": "pass", "confirm-traffic-increase": "pass", "confirm-promotion": "pass", "rollback": "fail"}
"""Hook -> the one verdict that is answered with 200."""

PATHS = frozenset(PREFIX + hook for hook in GO_ON)
_encode = msgspec.json.Encoder().encode


class FlaggerCall(BaseModel):
    """What Flagger posts. Everything is optional and more is accepted: a newer Flagger may say more."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field("", max_length=512, description="of the Canary object")
    namespace: str = Field("", max_length=512)
    phase: str = Field("", max_length=64)
    metadata: dict[str, str] = Field(default_factory=dict, description="`release`: whose verdict is asked for")


def add_flagger_hooks(app: FastAPI, backend: AdminBackend) -> None:
    """Add one route per hook."""
    for hook in GO_ON:
        _add(app, backend, hook)


def _add(app: FastAPI, backend: AdminBackend, hook: str) -> None:
    wanted = GO_ON[hook]
    what = "200: the verdict is fail, so Flagger rolls back" if hook == "rollback" else "200: pass, so Flagger goes on"

    async def answer(
        release: Annotated[str, Query(max_length=128)] = "", call: Annotated[FlaggerCall | None, Body()] = None
    ) -> Response:
        asked = release or (call.metadata.get("release", "") if call else "")
        if not asked and hook == "confirm-rollout":
            # Nothing has asked the canary yet. What can be known before it gets traffic is whether stable is well.
            asked = backend.release_status().stable.release
        gate = backend.gate(asked)
        return Response(_encode(gate), 200 if gate.data.verdict == wanted else 409, media_type="application/json")

    app.add_api_route(
        PREFIX + hook,
        answer,
        methods=["POST"],
        response_model=Gate,
        name=f"flagger_{hook}",
        summary=f"Flagger {hook}",
        description=f"{what}; 409 otherwise, inconclusive included.",
        responses={409: {"model": Gate, "description": f"The verdict is not {wanted}"}},
    )
