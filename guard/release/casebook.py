"""Opens, closes and finds incidents; builds the record of a rollback from what is known of the versions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from guard.release.control import control_of, digest
from guard.release.facts import Facts
from guard.release.follower import Follower
from guard.release.incident import (
    STANDING,
    Incident,
    IncidentKind,
    diff_versions,
    evidence_of,
    note,
    rule_of,
    stable_id,
)
from guard.release.journal import Journal, JournalError
from guard.release.outbox import Offload, Outbox
from guard.release.payload import event_kind, message_id, webhook_body
from guard.release.records import AuditLine
from guard.release.state import Condition, ReleaseState, RollbackOrder, can_tell, is_blind
from slo.clock import Clock
from slo.errors import GuardError, RefusedError
from slo.types import Action, OnBreach, State, Verdict, Version

EVIDENCE_COUNT, DIFFERENCE_COUNT, EXEMPLAR_COUNT = 10, 50, 20
RESOLVED_S = 300.0  # How long a closed incident is still told, so that alerts resolve.
MANUAL = "manual"
"""In the place of a rule: a person rolled back."""


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
        # Standing incidents by id, until what they tell of is over: one that a person closed is not opened again.
        self._standing: dict[str, Incident] = {}
        self._unclosed: dict[str, Incident] = {}  # closed, and the disk did not take it yet
        self._remembered = False
        self._follower = Follower(journal, clock, facts, offload)
        self._writing = asyncio.Lock()  # a person who closes an incident, and what is added to it meanwhile

    def of_rollback(
        self, before: ReleaseState, order: RollbackOrder, verdicts: tuple[Verdict, ...], actor: str
    ) -> Incident:
        """The incident of a rollback decided on `before`; every replica arrives at the same id."""
        bad, target = self._facts.version(order.bad), self._facts.version(order.target)
        rule = rule_of(verdicts) if order.automatic else MANUAL
        now_s = self._clock.wall_s()
        incident = Incident(
            incident_id=rollback_id(rule, bad, before),
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
            began_s=before.began_wall_s,
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

    async def watch(self, state: ReleaseState, action: Action, verdicts: tuple[Verdict, ...]) -> None:
        """Close what is over, then open an incident for every rule that pages and every condition that stands.

        state: after this evaluation. verdicts: all that were said at it, of the canary and of stable.
        """
        await self._remember()
        async with self._writing:
            await self._follower.follow(state, verdicts)
        for incident in tuple(self._standing.values()):
            why = _over(incident, state, action, verdicts)
            if why:
                self._standing.pop(incident.incident_id)
                await self._close_quietly(incident, why)
        out = self._facts.version(state.canary).release_id if state.canary and not state.in_traffic else ""
        for verdict in verdicts:
            fires = verdict.firing and verdict.state is State.BREACH and verdict.release != out
            if fires and verdict.slo.action is OnBreach.PAGE:
                about = self._release(state, verdict.release)
                await self._open(IncidentKind.PAGE, verdict.slo.name, verdict.reason, about, state, (verdict,))

    async def begin(self, condition: Condition, state: ReleaseState, action: Action, reason: str = "") -> None:
        """A condition began on which people have to act; reason: one line, else that of the action."""
        kind, rule, reason = IncidentKind.CONDITION, condition.value, reason or action.reason
        about = self._facts.version(state.canary or state.stable)
        if condition is Condition.SHARED_UPSTREAM:
            kind, rule, reason = (
                IncidentKind.SHARED_UPSTREAM,
                rule_of(action.verdicts),
                f"stable breaches too: {reason}",
            )
        elif condition is Condition.NO_TARGET:
            about = self._facts.version(state.stable)
            told = Condition.SHARED_UPSTREAM in state.conditions
            if told and all(v.slo.name in state.shared_rules for v in action.verdicts):
                return  # The same breach of stable is told of already.
        await self._open(kind, rule, reason, about, state, action.verdicts)

    async def _open(
        self,
        kind: IncidentKind,
        rule: str,
        reason: str,
        about: Version,
        state: ReleaseState,
        verdicts: tuple[Verdict, ...],
    ) -> None:
        """Open one unless there is one: per rule and release, of a shared fault one in all."""
        for known in self._standing.values():
            same = (known.kind, known.rule, known.bad.release_id) == (kind, rule, about.release_id)
            if same or known.kind is kind is IncidentKind.SHARED_UPSTREAM:
                return
        now_s = self._clock.wall_s()
        incident = Incident(
            incident_id=f"inc-{stable_id(f'{kind} {rule}', about.release_id, int(now_s))}",
            kind=kind,
            service=state.service,
            opened_s=now_s,
            rule=rule,
            reason=reason,
            bad=about,
            target=self._facts.version(state.stable),
            epoch=state.epoch,
            pointer="untouched",
            evidence=tuple(evidence_of(v) for v in verdicts if v.state is State.BREACH)[:EVIDENCE_COUNT],
            exemplars=self._facts.exemplars(about.name)[:EXEMPLAR_COUNT],
        )
        incident = note(replace(incident, outbox_id=message_id(incident)), now_s, reason[:300])
        self._standing[incident.incident_id] = incident
        body = webhook_body(incident)
        items = self._outbox.items(message_id(incident), incident.incident_id, body, event=event_kind(incident))
        saved = True
        try:
            await self._offload(lambda: self._journal.record(incident=incident, outbox=items))
        except JournalError:
            saved = False
            self.hold(incident)
        self._outbox.add(items, saved=saved)
        self._on_incident(incident)

    async def close(self, incident_id: str, actor: str, reason: str = "") -> Incident:
        """A person has dealt with it; one that is closed stays as it is. Raises RefusedError, JournalError."""
        async with self._writing:
            incident: Incident | None = await self._offload(lambda: self._journal.incident(incident_id))
            if incident is None:
                raise RefusedError(
                    "unknown_incident", f"incident {incident_id[:80]!r} is not known; see `incident list`"
                )
            if incident.closed_s is not None:
                return incident
            why = f"closed by {actor}{': ' if reason else ''}{reason}"[:600]
            audit = AuditLine(self._clock.wall_s(), "close_incident", actor[:200], "open", "closed",
                              f"{incident.incident_id}: {reason}"[:1000])  # fmt: skip
            return await self._close(incident, why, audit)

    async def close_rollbacks(self, why: str) -> None:
        """Close what an earlier rollout left open; a disk that refuses leaves it open. Standing incidents stand."""
        try:
            standing: tuple[Incident, ...] = await self._offload(lambda: self._journal.incidents(50, only_open=True))
            for incident in standing:
                if incident.kind not in STANDING:
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
        return tuple((self._unsaved | found | self._unclosed).values())

    async def _close(self, incident: Incident, why: str, audit: AuditLine | None = None) -> Incident:
        now_s = self._clock.wall_s()
        closed = replace(note(incident, now_s, why), closed_s=now_s)
        await self._offload(lambda: self._journal.record(incident=closed, audit=audit))
        self._unsaved.pop(closed.incident_id, None)
        if closed.incident_id in self._standing:
            self._standing[closed.incident_id] = closed
        self._on_incident(closed)
        return closed

    async def _close_quietly(self, incident: Incident, why: str) -> None:
        """The end of a standing incident; while the disk refuses, it is shown as closed from memory."""
        if incident.closed_s is not None:
            return
        try:
            await self._close(incident, f"closed: {why}")
        except GuardError:
            now_s = self._clock.wall_s()
            closed = replace(note(incident, now_s, f"closed: {why}"), closed_s=now_s)
            self._unclosed[closed.incident_id] = closed
            self._on_incident(closed)

    async def _remember(self) -> None:
        """Take over what an earlier process left open, and give the disk what it refused before."""
        try:
            if not self._remembered:
                left: tuple[Incident, ...] = await self._offload(lambda: self._journal.incidents(200, only_open=True))
                self._standing |= {i.incident_id: i for i in left if i.kind in STANDING} | self._standing
                self._remembered = True
            for incident in (*self._unclosed.values(), *(i for k, i in self._standing.items() if k in self._unsaved)):
                await self._record(incident)
                self._unclosed.pop(incident.incident_id, None)
                self._unsaved.pop(incident.incident_id, None)
        except GuardError:
            pass  # Counted by the journal; the next evaluation tries again.

    async def _record(self, incident: Incident) -> None:
        await self._offload(lambda: self._journal.record(incident=incident))

    def _release(self, state: ReleaseState, release_id: str) -> Version:
        """The version that a verdict is about."""
        arms = (self._facts.version(name) for name in (state.canary, state.stable) if name)
        return next((v for v in arms if v.release_id == release_id), None) or next(
            (v for v in self._facts.versions.values() if v.release_id == release_id), self._facts.version(state.stable)
        )


def rollback_id(rule: str, bad: Version, before: ReleaseState) -> str:
    """Id of the incident of a rollback of `bad` that was decided on `before`."""
    # What was decided on, not its epoch alone: a replica that was cut off counts epochs of its own, and may decide
    # twice at the same one, on its own state and then on the document that it came to obey.
    return f"inc-{stable_id(rule, f'{bad.release_id} {digest(control_of(before))}', before.epoch)}"


def _over(incident: Incident, state: ReleaseState, action: Action, verdicts: tuple[Verdict, ...]) -> str:
    """Why a standing incident has ended; nothing while it stands or nobody can tell."""
    if incident.kind is IncidentKind.PAGE:
        return _page_over(incident, action, verdicts)
    if incident.kind is IncidentKind.SHARED_UPSTREAM:
        if Condition.SHARED_UPSTREAM in state.conditions or not can_tell(action):
            return ""
        return f"stable does not breach {incident.rule} any more"
    if incident.rule in state.conditions:
        return ""
    gone = incident.rule == Condition.UNKNOWN_TOO_LONG and not state.in_traffic
    if is_blind(action) and not gone:
        return ""
    return f"{incident.rule} is over: {action.reason}"[:300]


def _page_over(incident: Incident, action: Action, verdicts: tuple[Verdict, ...]) -> str:
    of_rule = [v for v in verdicts if (v.slo.name, v.release) == (incident.rule, incident.bad.release_id)]
    if not of_rule:  # The version or the rule is not judged any more, or nothing could be.
        return "" if is_blind(action) else f"{incident.rule} is not judged for {incident.bad.name} any more"
    fires = any(v.firing or v.state is State.UNKNOWN for v in of_rule)
    return "" if fires else f"{incident.rule} does not fire any more"
