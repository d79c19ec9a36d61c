"""Follows a rollback that is done: adds how the indicators went, since when it was bad, and whether it helped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from guard.release.aftermath import GIVE_UP_S, GRACE_S, Aftermath, Recovery, bad_since_s, recovery_of, series_of
from guard.release.facts import Facts
from guard.release.incident import Incident, note, utc
from guard.release.journal import Journal
from guard.release.outbox import Offload
from guard.release.state import Phase, ReleaseState
from slo.clock import Clock
from slo.errors import GuardError
from slo.history import Point
from slo.outside import is_outside
from slo.types import Reading, Slo, Verdict

RULE_COUNT = 4
"""Rules whose history is kept with an incident, the first ones of its evidence."""


class Follower:
    """One incident at a time: that of the last rollback. Ask at every evaluation; it writes twice per incident."""

    def __init__(self, journal: Journal, clock: Clock, facts: Facts, offload: Offload) -> None:
        self._journal, self._clock, self._facts, self._offload = journal, clock, facts, offload
        self._finished = ""
        self._ended_before: tuple[str, int] | None = None  # exchanges of the bad release when its time was over

    async def follow(self, state: ReleaseState, verdicts: tuple[Verdict, ...]) -> None:
        """Do what is due. A disk that refuses is tried again at the next evaluation."""
        incident_id = state.incident_id
        if state.phase is not Phase.ROLLED_BACK or not incident_id or incident_id == self._finished:
            return
        try:
            incident: Incident | None = await self._offload(lambda: self._journal.incident(incident_id))
            known = incident.aftermath if incident is not None else None
            if incident is None or (known is not None and known.recovery is not Recovery.PENDING):
                self._finished = incident_id
                return
            moved = self._moved(incident, verdicts)
            if moved != incident:
                await self._offload(lambda: self._journal.record(incident=moved))
        except GuardError:
            pass  # Counted by the journal.

    def _moved(self, incident: Incident, verdicts: tuple[Verdict, ...]) -> Incident:
        rules = self._rules(incident, verdicts)
        after_s = self._clock.wall_s() - incident.opened_s
        if incident.evidence and after_s < GIVE_UP_S:
            judged = {v.slo.name for v in verdicts if v.release == incident.target.release_id}
            if not any(evidence.rule in judged for evidence in incident.evidence):
                return incident  # Stable was not judged by these rules yet.
        if incident.aftermath is None:
            found = self._aftermath(incident, rules, Recovery.PENDING, "")
            if found.since_s is not None:
                incident = note(incident, self._clock.wall_s(), f"bad since {utc(found.since_s)}, by its counts")
            return replace(incident, aftermath=found)
        if after_s < GRACE_S:
            return incident
        count = self._facts.event_count(incident.bad.name)
        if self._ended_before is None or self._ended_before[0] != incident.incident_id:
            self._ended_before = (incident.incident_id, count)
            return incident
        since_s = incident.opened_s + GRACE_S
        outside = {v.slo.name: v.state for v in verdicts if v.release == incident.target.release_id and is_outside(v)}
        spoke = {evidence.rule: outside[evidence.rule] for evidence in incident.evidence if evidence.rule in outside}
        stable = {
            name: _sum(p for p in self._facts.history(slo, incident.target.name) if p.wall_s >= since_s)
            for name, (slo, _) in rules.items()
        }
        recovery, words = recovery_of(rules, stable, count - self._ended_before[1], after_s=after_s, outside=spoke)
        if recovery is Recovery.PENDING:
            return incident
        known = incident.aftermath
        final = replace(self._aftermath(incident, rules, recovery, words), since_s=known.since_s)
        return note(replace(incident, aftermath=final), self._clock.wall_s(), words[:500])

    def _rules(self, incident: Incident, verdicts: tuple[Verdict, ...]) -> dict[str, tuple[Slo, float | None]]:
        """The rules that had spoken, as they stand for the release that answers now."""
        names = [evidence.rule for evidence in incident.evidence]
        answers = incident.target.release_id
        now = {v.slo.name: (v.slo, v.threshold) for v in verdicts if v.release == answers and not is_outside(v)}
        limits = {evidence.rule: evidence.threshold for evidence in incident.evidence}
        found = {}
        for name in names:
            if name in now:
                slo, limit = now[name]
                found[name] = (slo, limit if limit is not None else limits[name])
        return found

    def _aftermath(
        self, incident: Incident, rules: dict[str, tuple[Slo, float | None]], recovery: Recovery, words: str
    ) -> Aftermath:
        series = []
        for slo, limit in list(rules.values())[:RULE_COUNT]:
            for arm, version in (("bad", incident.bad), ("stable", incident.target)):
                series.append(series_of(slo, limit, version.name, arm, self._facts.history(slo, version.name)))
        since_s, began_s = bad_since_s(series), incident.began_s
        if since_s is not None and began_s is not None and since_s < began_s <= incident.opened_s:
            since_s = began_s  # The points are spans: the first one began before the release did.
        return Aftermath(recovery, words, since_s, tuple(series))


def _sum(points: Iterable[Point]) -> Reading:
    """Points of disjoint spans as one reading; means are weighed by their events."""
    bad = count = total = 0.0
    for point in points:
        bad += point.bad_count
        count += point.count
        total += point.count * (point.mean or 0.0)
    whole = round(count)
    # The spread within a span is not kept; that of the means between spans is what a bound would rest on, and is left
    # out: the estimate alone decides whether a mean recovered.
    return Reading(min(round(bad), whole), whole, total, total * total / whole if whole else 0.0)
