"""The demo's view of the guard: its public admin API, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec

from guard.admin.shapes import BaselineInfo, IncidentList, ReleaseStatus, SloReport
from slo.errors import RefusedError, UpstreamError

_TIMEOUT = aiohttp.ClientTimeout(total=10)


class Admin:
    """Asks one admin listener. Every method raises UpstreamError when it cannot be reached."""

    def __init__(self, base_url: str, token: str, session: aiohttp.ClientSession) -> None:
        self._base_url, self._token, self._session = base_url, token, session

    async def release(self) -> ReleaseStatus:
        """Who answers now."""
        return msgspec.json.decode(await self._call("GET", "/api/v1/release"), type=ReleaseStatus)

    async def slo(self) -> SloReport:
        """All objectives as they stand."""
        return msgspec.json.decode(await self._call("GET", "/api/v1/slo"), type=SloReport)

    async def incidents(self) -> IncidentList:
        """Newest first."""
        return msgspec.json.decode(await self._call("GET", "/api/v1/incidents"), type=IncidentList)

    async def incident(self, incident_id: str) -> dict[str, Any]:
        """One incident with its evidence, as JSON."""
        found: dict[str, Any] = msgspec.json.decode(await self._call("GET", f"/api/v1/incidents/{incident_id}"))
        return found

    async def postmortem(self, incident_id: str) -> str:
        """Its facts as Markdown."""
        return (await self._call("GET", f"/api/v1/incidents/{incident_id}/postmortem")).decode()

    async def baseline(self) -> BaselineInfo:
        """The baseline in use."""
        return msgspec.json.decode(await self._call("GET", "/api/v1/baseline"), type=BaselineInfo)

    async def start(self, version: str, plan: str) -> None:
        """Start a release. Raises RefusedError when the guard says no."""
        body = {"version": version, "plan": plan, "advance": "manual", "actor": "demo", "reason": "nightly release"}
        await self._call("POST", "/api/v1/release/start", body)

    async def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> bytes:
        headers = {"authorization": f"Bearer {self._token}"} if body is not None else {}
        try:
            async with self._session.request(
                method, self._base_url + path, json=body, headers=headers, timeout=_TIMEOUT
            ) as response:
                data = await response.read()
                if response.status >= 400:
                    raise RefusedError(
                        str(response.status), f"{method} {path}: {data.decode('utf-8', 'replace')[:300]}"
                    )
                return data
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UpstreamError(f"{self._base_url}{path}: {error or type(error).__name__}") from error
