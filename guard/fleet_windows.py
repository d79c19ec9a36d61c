"""Which readings the judge gets: of this process, or of the fleet by way of Prometheus; and whether they can be had."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from guard.rule_counters import life_of
from guard.settings import Settings
from slo.clock import Clock
from slo.comparison import Span
from slo.errors import SourceError
from slo.sources.memory import MemorySource
from slo.sources.trial import TrialSetup
from slo.sources.window_queries import newest_sample
from slo.types import Reading, Slo

if TYPE_CHECKING:
    from slo.sources.prometheus_http import PrometheusClient, PrometheusWindows


class FleetSource:
    """Windows of all replicas from Prometheus, everything else from the counts of this process.

    What stays local: the comparison of canary and stable and the watch after a promotion (their counts know sessions,
    which no counter does), and the limits that requests are counted against.
    """

    def __init__(self, local: MemorySource, fleet: PrometheusWindows, client: PrometheusClient) -> None:
        self._local, self.fleet, self._client = local, fleet, client

    def reading(self, slo: Slo, release: str, length_s: float | None = None) -> Reading:
        """Raises SourceError."""
        return self.fleet.reading(slo, release, length_s)

    def objective_value(self, slo: Slo, release: str) -> float | None:
        """Raises SourceError."""
        return self.fleet.objective_value(slo, release)

    def forget(self, release: str, life: int | None = None) -> None:
        self._local.forget(release, life)
        self.fleet.forget(release, life_of(release, self._local))

    def set_limits(self, limits: Mapping[str, float | None]) -> None:
        self._local.set_limits(limits)

    def compare(self, setup: TrialSetup | None) -> None:
        self._local.compare(setup)

    def spans(self, slo: Slo) -> tuple[Span, ...]:
        return self._local.spans(slo)

    def alarm(self, objective: str) -> list[float] | None:
        return self._local.alarm(objective)

    def replace_objectives(self, slos: tuple[Slo, ...]) -> None:
        """Other objectives after a reload; the local source is told by its owner."""
        self.fleet.replace_objectives(slos)

    async def run(self) -> None:
        """Ask forever; cancel to stop. Lives that an earlier process began, and this one has read back, go on."""
        for release, wall_s in self._local.lives.began_wall_s.items():
            self.fleet.go_on(release, life_of(release, self._local), wall_s)
        try:
            await self.fleet.run()
        finally:
            await self._client.close()


def fleet_source(
    settings: Settings, slos: tuple[Slo, ...], local: MemorySource, clock: Clock, on_fault: Callable[[str], None]
) -> FleetSource | None:
    """Return the fleet's windows when guard.yaml asks for them, None for those of this process."""
    windows = settings.file.windows
    if windows.source != "prometheus" or windows.url is None:
        return None
    from slo.sources.prometheus_http import PrometheusWindows  # its HTTP client is 9 MB

    client = _client(settings, windows.url)
    fleet = PrometheusWindows(
        slos,
        client,
        clock,
        service=settings.file.service,
        labels=windows.labels,
        scrape_s=windows.scrape_interval,
        stale_s=windows.stale_s,
        budget_s=windows.timeout,
        every_s=settings.file.release.evaluate_every,
        on_fault=on_fault,
    )
    return FleetSource(local, fleet, client)


def _client(settings: Settings, url: str) -> PrometheusClient:
    from guard.checked_names import checked_connector
    from guard.limits import Egress
    from slo.sources.prometheus_http import PrometheusClient

    egress, windows = Egress(settings.file.limits.egress_networks), settings.file.windows
    return PrometheusClient(
        url, token=settings.prometheus_token, timeout_s=windows.timeout, connector=lambda: checked_connector(egress)
    )


async def examine_prometheus(settings: Settings) -> tuple[str, str, str]:
    """Ask for the newest sample of this service. Returns state (ok | warn | fault), what was found, and the cure."""
    windows = settings.file.windows
    assert windows.url is not None
    client = _client(settings, windows.url)
    labels = {"service": settings.file.service, **windows.labels}
    try:
        rows = await client(newest_sample(labels), None)
    except SourceError as error:
        return "fault", str(error), "start it, or correct windows.url and windows.token_env in guard.yaml"
    finally:
        await client.close()
    if not rows:
        cure = "scrape /metrics of every replica's admin listener; check windows.labels"
        return "warn", f"{windows.url} answers and knows no series of {settings.file.service}", cure
    age_s = rows[0][1] - rows[0][2]
    if age_s > windows.stale_s:
        cure = "look at the targets page of Prometheus; until then every objective is unknown"
        return "warn", f"the newest sample of {settings.file.service} is {age_s:.0f} s old", cure
    return "ok", f"{windows.url}, newest sample of {settings.file.service} {age_s:.0f} s old", ""
