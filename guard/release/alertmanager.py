"""Tells Alertmanager (API v2) about open incidents, again every minute, with a renewed end.

Alertmanager forgets what is not repeated, and may be down when something happens. So nothing is queued: what is open
in the journal is posted each time, and an alert is there at most one period after Alertmanager is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from guard.release.incident import Incident, IncidentKind
from slo.clock import Clock
from slo.errors import ConfigError, UpstreamError

if TYPE_CHECKING:
    import aiohttp

REPOST_S = 60.0
END_AFTER_S = 300.0  # At least; five missed posts: then Alertmanager may resolve what we no longer vouch for.
TIMEOUT_S = 10.0

_NAMES: dict[IncidentKind, str] = {
    IncidentKind.ROLLBACK: "SftGuardRollback",
    IncidentKind.NO_TARGET: "SftGuardRollbackWithoutTarget",
    IncidentKind.SHARED_UPSTREAM: "SftGuardSharedUpstream",
    IncidentKind.PAGE: "SftGuardPage",
    IncidentKind.CONDITION: "SftGuardCondition",
    IncidentKind.DRILL: "SftGuardDrill",
}


def alerts_of(
    incidents: Iterable[Incident],
    wall_s: float,
    generator_url: str = "",
    *,
    end_after_s: float = END_AFTER_S,
    runbook_url: str = "",
) -> list[dict[str, Any]]:
    """Return the body of POST /api/v2/alerts: open incidents renewed, those closed lately as resolved.

    runbook_url: what stands before the name of a page written by `sft-guard alerts build`.
    """
    alerts = []
    for incident in incidents:
        ends_s = wall_s + end_after_s if incident.closed_s is None else incident.closed_s
        alert: dict[str, Any] = {
            "labels": {
                "alertname": _NAMES[incident.kind],
                "severity": "info" if incident.drill else "critical",
                "service": incident.service,
                "release": incident.bad.release_id,
                "incident_id": incident.incident_id,
            },
            "annotations": {
                "summary": _summary(incident)[:300],
                "description": incident.reason[:1000],
            },
            "startsAt": _utc(incident.opened_s),
            "endsAt": _utc(ends_s),
        }
        if generator_url:
            alert["generatorURL"] = generator_url
        if runbook_url:
            alert["annotations"]["runbook_url"] = f"{runbook_url}{_NAMES[incident.kind]}.md"
        alerts.append(alert)
    return alerts


class AlertmanagerPoster:
    """Repeats open incidents to every configured Alertmanager (all of them: they deduplicate among themselves).

    open_incidents: asked before each post. on_result: told `ok` or `error` per Alertmanager. repost_s: seconds between
    two posts; alerts end by themselves after five that were missed.
    """

    def __init__(
        self,
        urls: Iterable[str],
        session: aiohttp.ClientSession,
        clock: Clock,
        open_incidents: Callable[[], Awaitable[Iterable[Incident]]],
        *,
        on_result: Callable[[str], None] = lambda _result: None,
        generator_url: str = "",
        repost_s: float = REPOST_S,
        runbook_url: str = "",
    ) -> None:
        self._urls = tuple(url.rstrip("/") + "/api/v2/alerts" for url in urls)
        for url in self._urls:
            if not url.startswith(("http://", "https://")):
                raise ConfigError("alertmanager.urls", url, "write http(s)://host:9093")
        self._session, self._clock, self._open = session, clock, open_incidents
        self._on_result, self._generator_url, self._repost_s = on_result, generator_url, repost_s
        self._runbook_url = runbook_url
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Something opened or closed: post now instead of at the next minute."""
        self._woken.set()

    async def run(self) -> None:
        """Post forever; cancel to stop."""
        while True:
            self._woken.clear()
            await self.post_once()
            try:
                async with asyncio.timeout(self._repost_s):
                    await self._woken.wait()
            except TimeoutError:
                pass  # One period is over.

    async def post_once(self) -> bool:
        """Post what is open now; True when every Alertmanager took it. Never raises for a receiver's fault."""
        end_after_s = max(END_AFTER_S, 5 * self._repost_s)
        alerts = alerts_of(
            await self._open(),
            self._clock.wall_s(),
            self._generator_url,
            end_after_s=end_after_s,
            runbook_url=self._runbook_url,
        )
        if not alerts:
            return True
        taken = True
        for url in self._urls:
            try:
                await self._post(url, alerts)
                self._on_result("ok")
            except UpstreamError:
                taken = False  # The next minute tries again; until then the other ways of telling are on.
                self._on_result("error")
        return taken

    async def _post(self, url: str, alerts: list[dict[str, Any]]) -> None:
        import aiohttp  # only where something is posted: 9 MB

        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with self._session.post(url, json=alerts, allow_redirects=False, timeout=timeout) as response:
                if response.status != 200:
                    raise UpstreamError(f"alertmanager {url}: HTTP {response.status}; check its configuration")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UpstreamError(f"alertmanager {url}: {type(error).__name__}; is it up?") from error


def _summary(incident: Incident) -> str:
    if incident.kind is IncidentKind.PAGE:
        return f"rule {incident.rule} fires on {incident.bad.name}"
    if incident.kind is IncidentKind.CONDITION:
        return f"{incident.rule}: {incident.bad.name} of {incident.service}"
    return f"{incident.kind} of {incident.bad.name} by rule {incident.rule or 'none'}"


def _utc(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
