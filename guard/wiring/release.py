"""The release of one guard: controller, registry, outbox and webhooks, incidents, and what they ask of the guard."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from guard.limits import Egress
from guard.release.adapter_facts import AdapterFacts
from guard.release.alertmanager import AlertmanagerPoster
from guard.release.chat import ChatSender
from guard.release.controller import Controller
from guard.release.facts import Facts
from guard.release.incident import Incident, IncidentKind
from guard.release.journal import Journal
from guard.release.kb_facts import KbFacts
from guard.release.outbox import Outbox
from guard.release.pointer import ReleaseRegistry, translated
from guard.release.report import Hooks, alert_line
from guard.release.state import Mode
from guard.release.webhook import Sender, WebhookSender
from guard.wiring.data_path import apply_state
from guard.wiring.loops import Loops
from registry.port import RegistryPort
from slo.actions import reason_code
from slo.types import Version

if TYPE_CHECKING:
    import aiohttp

    from guard.parts import Parts
    from registry.store import RegistryStore

log = logging.getLogger("sft-guard")

_PAGED = {
    "webhook_late": "not delivered by the fast tries; the outbox goes on for 24 h",
    "webhook_disabled": "answered 410, so it is not called again until its url changes",
    "webhook_expired": "given up after 24 h",
}
HISTORY_S = 3600.0
"""What is kept of an indicator's course with an incident: the span of the finest windows."""


class ReleaseParts:
    """Built with the guard, opened at its start: the HTTP client needs the running event loop.

    controller: None before `open`. outbox, kb_facts, adapter_facts: there from `open` on.
    last_rollbacks: release -> Unix seconds, of this process.
    """

    outbox: Outbox
    kb_facts: KbFacts
    adapter_facts: AdapterFacts

    def __init__(self, guard: Parts) -> None:
        self._guard = guard
        self.journal = Journal(guard.settings.state_dir, on_fault=self._disk_fault)
        self.controller: Controller | None = None
        self.last_rollbacks: dict[str, float] = {}
        self._session: aiohttp.ClientSession | None = None
        self._registry: ReleaseRegistry | None = None
        self._poster: AlertmanagerPoster | None = None
        self._store: RegistryStore | None = None

    def open(self) -> Controller:
        """The controller with all that it works with; it has restored nothing yet.

        Raises:
            ConfigError, DataError: the registry or the journal cannot be used.
        """
        guard, file = self._guard, self._guard.settings.file
        self.outbox = Outbox(
            self.journal,
            self._senders(),
            guard.clock,
            on_delivery=lambda result: guard.exporter.inc("sft_guard_webhook_deliveries_total", {"result": result}),
            wants={w.name: w.events for w in file.webhooks},
            on_page=lambda reason, item: log.error("webhook %s: %s (%s)", item.target, _PAGED[reason], item.message_id),
        )
        port = self._port()
        self._registry = ReleaseRegistry(port, file.service, model=file.registry.model or "")
        self.kb_facts = KbFacts(port, lambda: [v.kb for v in guard.settings.file.versions.values()])
        self.adapter_facts = AdapterFacts(port, lambda: [v.adapter for v in guard.settings.file.versions.values()])
        self.controller = Controller(
            self.journal,
            self._registry,
            guard.judge,
            lambda state: apply_state(guard, state),
            self.outbox,
            guard.clock,
            service=file.service,
            stable=file.release.stable,
            facts=self._facts(),
            plan=guard.rules.plan,
            mode=Mode(file.release.mode),
            every_s=file.release.evaluate_every,
            drain_unknown=file.release.unknown_action == "drain",
            max_rollbacks_per_day=file.release.max_rollbacks_per_day,
            unknown_after_s=file.release.unknown_after,
            hooks=self._hooks(),
        )
        return self.controller

    def run(self, controller: Controller, loops: Loops) -> None:
        """Begin to judge and to deliver; both listeners are open."""
        loops.begin("release", controller.run())
        loops.begin("outbox", self.outbox.run())
        loops.begin("kb_facts", self.kb_facts.run())
        loops.begin("adapter_facts", self.adapter_facts.run())
        alertmanager = self._guard.settings.file.alertmanager
        if alertmanager is not None and self._session is not None:
            self._poster = AlertmanagerPoster(
                [alertmanager.url],
                self._session,
                self._guard.clock,
                controller.open_incidents,
                repost_s=alertmanager.repost,
                runbook_url=alertmanager.runbook_url,
                on_result=self._posted,
            )
            loops.begin("alertmanager", self._poster.run())

    async def close(self) -> None:
        """Also after an `open` that failed half-way."""
        if self._registry is not None:
            await self._registry.close()
        if self._session is not None:
            await self._session.close()
        self.journal.close()
        if self._store is not None:
            self._store.close()

    def expected(self, name: str) -> Mapping[str, float]:
        """What an evaluation found for a version before it had traffic."""
        version = self._guard.settings.file.versions.get(name)
        return self.adapter_facts.expected(version.adapter) if version else {}

    # -- where it goes ------------------------------------------------------------------------------------------------

    def _senders(self) -> dict[str, Sender]:
        """Webhooks by name; the HTTP client is loaded only where something is posted (9 MB)."""
        file = self._guard.settings.file
        if not file.webhooks and file.alertmanager is None:
            return {}
        import aiohttp

        from guard.checked_names import checked_connector

        self._session = session = aiohttp.ClientSession(connector=checked_connector(self._egress()))
        return {w.name: self._sender(w.name, w.format, session) for w in file.webhooks}

    def _sender(self, name: str, kind: str, session: aiohttp.ClientSession) -> Sender:
        settings = self._guard.settings
        url = settings.webhook_urls[name]
        if kind == "slack":
            return ChatSender(name, url, session)
        return WebhookSender(name, url, settings.webhook_secrets[name], session, self._guard.clock)

    def _port(self) -> RegistryPort:
        # One of the two is loaded: a client of 9 MB, or a database of 14.
        settings = self._guard.settings
        url = settings.file.registry.url
        if url is not None:
            from guard.checked_names import checked_connector
            from registry.client import RegistryClient

            return RegistryClient(
                url, token=settings.registry_token, connector=lambda: checked_connector(self._egress())
            )
        from registry.local import LocalRegistry
        from registry.store import RegistryStore

        with translated():
            self._store = RegistryStore(f"sqlite:///{settings.state_dir / 'registry.sqlite'}")
        return LocalRegistry(self._store)

    def _egress(self) -> Egress:
        return Egress(self._guard.settings.file.limits.egress_networks)

    # -- what an incident says ----------------------------------------------------------------------------------------

    def _facts(self) -> Facts:
        guard = self._guard

        def release_id(name: str) -> str:
            version = guard.version_of(name)
            return version.release_id if version else ""

        return Facts(
            versions=_ConfiguredVersions(guard),
            details=self._details,
            exemplars=lambda name: guard.recent.exemplars(release_id(name)),
            event_count=lambda name: guard.recent.event_count[release_id(name)],
            history=lambda slo, name: guard.memory.history(slo, release_id(name), HISTORY_S),
        )

    def _details(self, name: str) -> Mapping[str, str]:
        version = self._guard.settings.file.versions.get(name)
        if version is None:
            return {}
        return {**self.kb_facts.details(version.kb), **self.adapter_facts.details(version.adapter), **version.details}

    # -- events -------------------------------------------------------------------------------------------------------

    def _hooks(self) -> Hooks:
        return Hooks(
            on_rollback=self._rolled_back,
            on_alert=lambda condition, text: log.error("release: %s", alert_line(condition, text)),
            on_recommendation=lambda text: log.warning("release: recommended: %s", text),
            on_incident=self._incident_changed,
            on_new_life=self._new_life,
        )

    def _rolled_back(self, rule: str, automatic: bool) -> None:
        reason = reason_code(rule) if automatic else "manual"
        self._guard.exporter.inc("sft_release_rollbacks_total", {"reason": reason})
        log.error("release: rolled back (%s, %s)", rule, "by itself" if automatic else "by a person")

    def _new_life(self, canary: str, life: int) -> None:
        version = self._guard.version_of(canary)
        if version is not None:
            self._guard.judge.forget(version.release_id, life)

    def _incident_changed(self, incident: Incident) -> None:
        log.warning("incident %s (%s)", incident.incident_id, incident.kind.value)
        if incident.kind is IncidentKind.ROLLBACK:
            self.last_rollbacks[incident.bad.release_id] = incident.opened_s
        if self._poster is not None:
            self._poster.wake()

    def _posted(self, result: str) -> None:
        """Whether an Alertmanager took our open incidents."""
        if result != "ok":
            self._guard.exporter.fail_open("alertmanager", "error")

    def _disk_fault(self, reason: str) -> None:
        """The journal could not write. What it would have said is in the log line of the event itself."""
        self._guard.exporter.fail_open("disk", reason)
        log.error("journal in %s: %s; see `sft-guard doctor`", self._guard.settings.state_dir, reason)


class _ConfiguredVersions(Mapping[str, Version]):
    """The versions of the running configuration, also after a reload."""

    def __init__(self, guard: Parts) -> None:
        self._guard = guard

    def __getitem__(self, name: str) -> Version:
        return self._guard.settings.targets[name].version

    def __iter__(self) -> Iterator[str]:
        return iter(self._guard.settings.targets)

    def __len__(self) -> int:
        return len(self._guard.settings.targets)
