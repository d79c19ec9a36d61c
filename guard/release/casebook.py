"""Opens, closes and finds incidents; builds the record of a rollback from what is known of the versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from guard.release.incident import (
    Exemplar,
    Incident,
    IncidentKind,
    diff_versions,
    evidence_of,
    note,
    stable_id,
)
from guard.release.journal import Journal, JournalError
from guard.release.outbox import Offload, Outbox
from guard.release.payload import message_id, webhook_body
from guard.release.state import ReleaseState, RollbackOrder
from slo.clock import Clock
from slo.errors import GuardError, RefusedError
from slo.types import Action, State, Verdict, Version

EVIDENCE_COUNT, DIFFERENCE_COUNT, EXEMPLAR_COUNT = 10, 50, 20
RESOLVED_S = 300.0  # How long a closed incident is still told, so that alerts resolve.


@dataclass(frozen=True, slots=True)
class Facts:
    """What the controller may ask about versions, all by name.

    versions: every version this process can serve. details: more to compare than the release tuple has (a knowledge
    base profile, say). exemplars: bad answers of a release to look at. event_count: exchanges of a release so far.
    """

    versions: Mapping[str, Version]
    details: Callable[[str], Mapping[str, str]] = lambda _name: {}
    exemplars: Callable[[str], tuple[Exemplar, ...]] = lambda _name: ()
    event_count: Callable[[str], int] = lambda _name: 0

    def version(self, name: str) -> Version:
        """The version called `name`; of one that is not configured any more only the name is known."""
        return self.versions.get(name) or Version(name)


class Casebook:
    """Incidents of one service. on_incident is told when one opens or changes."""

    def __init__(
        self,
        journal: Journal,
        outbox: Outbox,
        clock: Clock,
        facts: Facts,
        offload: Offload,
        on_incident: Callable[[Incident], None],
    ) -> None:
        self._journal, self._outbox, self._clock, self._facts = journal, outbox, clock, facts
        self._offload, self._on_incident = offload, on_incident
        self._unsaved: dict[str, Incident] = {}

    def of_rollback(
        self, before: ReleaseState, order: RollbackOrder, verdicts: tuple[Verdict, ...], actor: str
    ) -> Incident:
        """The incident of a rollback decided on `before`; every replica arrives at the same id."""
        bad, target = self._facts.version(order.bad), self._facts.version(order.target)
        rule = rule_of(verdicts) if order.automatic else "manual"
        now_s = self._clock.wall_s()
        incident = Incident(
            incident_id=f"inc-{stable_id(rule, bad.release_id, before.epoch)}",
            kind=IncidentKind.ROLLBACK,
            service=before.service,
            opened_s=now_s,
            rule=rule,
            reason=order.reason,
            bad=bad,
            target=target,
            epoch=before.epoch + 1,
            automatic=order.automatic,
            actor=actor,
            evidence=tuple(evidence_of(v) for v in verdicts if v.state is State.BREACH)[:EVIDENCE_COUNT],
            differences=diff_versions(target, bad, self._facts.details(target.name), self._facts.details(bad.name))[
                :DIFFERENCE_COUNT
            ],
            exemplars=self._facts.exemplars(bad.name)[:EXEMPLAR_COUNT],
        )
        incident = replace(incident, outbox_id=message_id(incident))
        return note(incident, now_s, f"verdict: {order.reason}"[:300])

    def hold(self, incident: Incident) -> None:
        """Show this one although the disk may not have it yet."""
        self._unsaved[incident.incident_id] = incident

    def release(self, incident_id: str) -> None:
        """The disk has it."""
        self._unsaved.pop(incident_id, None)

    async def open_shared(self, state: ReleaseState, action: Action) -> None:
        """Stable breaches too: it is not the canary, and people have to know."""
        now_s = self._clock.wall_s()
        stable = self._facts.version(state.stable)
        incident = Incident(
            incident_id=f"inc-{stable_id('shared_upstream', stable.release_id, int(now_s))}",
            kind=IncidentKind.SHARED_UPSTREAM,
            service=state.service,
            opened_s=now_s,
            rule=rule_of(action.verdicts),
            reason=action.reason,
            bad=self._facts.version(state.canary or state.stable),
            target=stable,
            epoch=state.epoch,
            pointer="local",
            evidence=tuple(evidence_of(v) for v in action.verdicts if v.state is State.BREACH)[:EVIDENCE_COUNT],
        )
        incident = note(incident, now_s, f"stable breaches too: {action.reason}"[:300])
        items = self._outbox.items(message_id(incident), incident.incident_id, webhook_body(incident))
        saved = True
        try:
            await self._offload(lambda: self._journal.record(incident=incident, outbox=items))
        except JournalError:
            saved = False
            self.hold(incident)
        self._outbox.add(items, saved=saved)
        self._on_incident(incident)

    async def close(self, incident_id: str, actor: str) -> Incident:
        """A person has dealt with it. Raises RefusedError `unknown_incident`, JournalError."""
        incident: Incident | None = await self._offload(lambda: self._journal.incident(incident_id))
        if incident is None:
            raise RefusedError("unknown_incident", f"incident {incident_id[:80]!r} is not known; see `incident list`")
        return incident if incident.closed_s is not None else await self._close(incident, f"closed by {actor}")

    async def close_all(self, why: str, kind: IncidentKind | None = None) -> None:
        """Close what is open; a disk that refuses leaves it open."""
        try:
            standing: tuple[Incident, ...] = await self._offload(lambda: self._journal.incidents(50, only_open=True))
            for incident in standing:
                if kind is None or incident.kind is kind:
                    await self._close(incident, f"closed: {why}")
        except GuardError:
            pass  # Counted by the journal; an open incident is the careful side.

    async def current(self) -> tuple[Incident, ...]:
        """Open incidents, and those closed within the last minutes."""
        since_s = self._clock.wall_s() - RESOLVED_S
        try:
            recent: tuple[Incident, ...] = await self._offload(lambda: self._journal.incidents(50))
            standing: tuple[Incident, ...] = await self._offload(lambda: self._journal.incidents(50, only_open=True))
        except GuardError:
            recent = standing = ()
        found = {i.incident_id: i for i in (*standing, *recent) if i.closed_s is None or i.closed_s >= since_s}
        return tuple((self._unsaved | found).values())

    async def _close(self, incident: Incident, why: str) -> Incident:
        now_s = self._clock.wall_s()
        closed = replace(note(incident, now_s, why), closed_s=now_s)
        await self._offload(lambda: self._journal.record(incident=closed))
        self._on_incident(closed)
        return closed


def rule_of(verdicts: tuple[Verdict, ...]) -> str:
    """Name of the rule that spoke: the first that fires, else the first in breach, else `none`."""
    breaches = [v for v in verdicts if v.state is State.BREACH]
    firing = [v for v in breaches if v.firing]
    return (firing or breaches)[0].slo.name if breaches else "none"
