"""Which warm-up request goes out now, if any. Pure: time is a number, money USD.

A new namespace (a canary, a new knowledge base, the stable release after a promotion) starts empty, and every question
that was a hit becomes a miss. The planner fills it from the hottest keys, within a budget of requests in any minute and
USD in any hour, for a limited time, and stands back whenever the guard has something better to do.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

MINUTE_S, HOUR_S = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class WarmLimits:
    """requests_per_minute, usd_per_hour: never exceeded in any such span. for_s: how long after its first request a
    namespace is warmed. least_count: how often a key must have been asked lately. retry_s: pause after a failure."""

    requests_per_minute: int = 60
    usd_per_hour: float = 5.0
    in_flight: int = 2
    for_s: float = 1800.0
    least_count: float = 2.0
    retry_s: float = 60.0


class Wait(StrEnum):
    """Why nothing is sent now. Closed set: it is a metric label."""

    NONE = ""
    IDLE = "idle"  # nothing hot is missing
    OVER = "over"  # the namespace has had its time
    IN_FLIGHT = "in_flight"
    REQUESTS = "requests"
    USD = "usd"
    SHEDDING = "shedding"
    SICK = "sick"
    FAILING = "failing"  # the upstream of the namespace fails; asked again after `retry_s`


@dataclass(frozen=True, slots=True)
class Ledger:
    """What warming has cost lately. sent_s: times of requests in the last minute. spent: (time, USD) of the last hour.
    reserved: USD set aside for each request under way, by a name that no other one under way has."""

    sent_s: tuple[float, ...] = ()
    spent: tuple[tuple[float, float], ...] = ()
    reserved: tuple[tuple[Hashable, float], ...] = ()
    failed_s: float | None = None

    def usd(self, now_s: float) -> float:
        """Spent in the hour before `now_s`, with what is set aside."""
        return sum(u for at, u in self.spent if now_s - at < HOUR_S) + sum(u for _, u in self.reserved)

    def requests(self, now_s: float) -> int:
        """Sent in the minute before `now_s`."""
        return sum(1 for at in self.sent_s if now_s - at < MINUTE_S)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A hot key. estimate_usd: what its answer cost when it was last made; None when that is unknown."""

    key: str
    count: float
    estimate_usd: float | None


@dataclass(frozen=True, slots=True)
class Situation:
    """What the planner has to know beside the budget. began_s: when the namespace took its first traffic. present: keys
    that it holds or that were tried in vain."""

    now_s: float
    began_s: float
    present: Collection[str] = field(default_factory=frozenset)
    shedding: bool = False
    sick: bool = False


def choose(
    candidates: Sequence[Candidate], ledger: Ledger, limits: WarmLimits, situation: Situation
) -> tuple[Candidate | None, Wait]:
    """The hottest key that is missing and affordable, or None and why.

    >>> hot = [Candidate("a", 9.0, 0.4), Candidate("b", 5.0, 0.1)]
    >>> choose(hot, Ledger(), WarmLimits(), Situation(now_s=10.0, began_s=0.0, present={"a"}))[0].key
    'b'
    >>> choose(hot, Ledger(), WarmLimits(usd_per_hour=0.3), Situation(now_s=10.0, began_s=0.0))[0].key
    'b'
    """
    now_s = situation.now_s
    if situation.sick:
        return None, Wait.SICK
    if situation.shedding:
        return None, Wait.SHEDDING
    if now_s - situation.began_s >= limits.for_s:
        return None, Wait.OVER
    if ledger.failed_s is not None and now_s - ledger.failed_s < limits.retry_s:
        return None, Wait.FAILING
    if len(ledger.reserved) >= limits.in_flight:
        return None, Wait.IN_FLIGHT
    if ledger.requests(now_s) >= limits.requests_per_minute:
        return None, Wait.REQUESTS
    left_usd = limits.usd_per_hour - ledger.usd(now_s)
    missing = [c for c in candidates if c.count >= limits.least_count and c.key not in situation.present]
    if not missing:
        return None, Wait.IDLE
    # A model without a price costs nothing that can be counted; the budget of requests still holds.
    for candidate in sorted(missing, key=lambda c: (-c.count, c.key)):
        if (candidate.estimate_usd or 0.0) <= left_usd:
            return candidate, Wait.NONE
    return None, Wait.USD


def sent(ledger: Ledger, candidate: Candidate, now_s: float, name: Hashable) -> Ledger:
    """A request has gone out; its estimate is set aside under `name` until it is settled."""
    return replace(
        _pruned(ledger, now_s),
        sent_s=(*(at for at in ledger.sent_s if now_s - at < MINUTE_S), now_s),
        reserved=(*ledger.reserved, (name, candidate.estimate_usd or 0.0)),
    )


def settled(ledger: Ledger, name: Hashable, cost_usd: float | None, now_s: float, *, failed: bool) -> Ledger:
    """A request has ended and cost this much."""
    rest = [(k, u) for k, u in ledger.reserved if k != name]
    return replace(
        _pruned(ledger, now_s),
        spent=(*(s for s in ledger.spent if now_s - s[0] < HOUR_S), (now_s, cost_usd or 0.0)),
        reserved=tuple(rest),
        failed_s=now_s if failed else None,
    )


def _pruned(ledger: Ledger, now_s: float) -> Ledger:
    return replace(
        ledger,
        sent_s=tuple(at for at in ledger.sent_s if now_s - at < MINUTE_S),
        spent=tuple(s for s in ledger.spent if now_s - s[0] < HOUR_S),
    )
