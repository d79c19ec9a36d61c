"""What the admin listener asks of the guard. `guard.backend` implements it."""

from __future__ import annotations

from typing import Protocol

from guard.admin.shapes import (
    AlertBatch,
    AlertsStored,
    BaselineInfo,
    CommandResult,
    ConfigView,
    DriftReport,
    ExchangeList,
    Gate,
    Health,
    History,
    IncidentClosed,
    IncidentDetail,
    IncidentList,
    QualityReport,
    Readiness,
    ReleaseCommand,
    ReleaseStatus,
    SloReport,
    Stats,
    Words,
)


class AdminBackend(Protocol):
    """The guard as the admin listener sees it. Plain methods answer from memory; `async` ones may touch a disk.

    Raises (any method): RefusedError: understood and not allowed now. ConfigError: a value in the request is wrong.
    SourceError, UpstreamError, OSError: something needed cannot be reached.
    """

    async def metrics(self, *, openmetrics: bool) -> bytes: ...
    def health(self) -> Health: ...
    def ready(self) -> Readiness: ...
    def slo(self) -> SloReport: ...
    def release_status(self) -> ReleaseStatus: ...

    async def release_command(self, name: str, body: ReleaseCommand, actor: str) -> CommandResult:
        """Carry out start | promote | abort | rollback | pause | resume | drill; `actor` is for the audit."""
        ...

    def exchanges(self, limit: int) -> ExchangeList: ...
    async def incidents(self) -> IncidentList: ...

    async def incident(self, incident_id: str) -> IncidentDetail | None:
        """None: there is no such incident."""
        ...

    async def close_incident(self, incident_id: str, reason: str, actor: str) -> IncidentClosed:
        """Raises RefusedError: `unknown_incident`, or `busy` while its rollback is not finished."""
        ...

    async def postmortem(self, incident_id: str) -> str | None:
        """Markdown, or None: there is no such incident."""
        ...

    def drift(self) -> DriftReport: ...
    def quality(self) -> QualityReport: ...
    def baseline(self) -> BaselineInfo: ...
    def config(self) -> ConfigView: ...

    async def alerts_in(self, batch: AlertBatch) -> AlertsStored:
        """Store the alerts durably, duplicates by `AlertIn.key` left out, before returning."""
        ...

    def gate(self, release: str) -> Gate:
        """Verdict on `release` (name or short id; empty: the canary)."""
        ...

    def stats(self) -> Stats: ...

    def history(self) -> History:
        """May take some milliseconds: call it beside the loop."""
        ...

    def exchange_words(self, exchange_id: str) -> Words | None:
        """None: too long ago, or no words are kept."""
        ...

    async def saved_usd(self) -> float | None:
        """What the cache saved today; None without a cache."""
        ...
