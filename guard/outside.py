"""Alerts of others, as evidence: what Alertmanager told us, kept only as far as a rule of slo.yaml names it.

What is stored on disk is the truth; this is its memory, made anew at each start. While the disk cannot be read, a rule
that finds nothing is unknown, not ok. Deliveries come in any order and any
number: an alert is its fingerprint and its beginning, an end that was told stays told, and a newer beginning of the
same fingerprint replaces the older one.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from guard.admin.shapes import AlertIn
from guard.state_files import KnownAlert
from slo.clock import Clock
from slo.outside import Arm, OutsideAlert, OutsideRule, judge_outside
from slo.types import State, Verdict

log = logging.getLogger("sft-guard")

OutsideVerdicts = Callable[[str], tuple[Verdict, ...]]
"""Verdicts of all outside rules on one release."""
MAX_ALERTS = 10_000
RETRY_S = 30.0
"""Between two tries to read the disk."""


def no_outside(_release: str) -> tuple[Verdict, ...]:
    """There are no such rules."""
    return ()


class _Table:
    """What is known for one set of rules. loaded: also what the disk knows. The owner lets one thread in at a time."""

    def __init__(self, rules: tuple[OutsideRule, ...], *, loaded: bool = False) -> None:
        self.rules, self.loaded = rules, loaded
        self._firing: OrderedDict[str, OutsideAlert] = OrderedDict()  # both by when they were told last
        self._resolved: OrderedDict[str, OutsideAlert] = OrderedDict()

    def alerts(self) -> tuple[OutsideAlert, ...]:
        """Everything, by value."""
        return (*self._firing.values(), *self._resolved.values())

    def load(self, known: Iterable[KnownAlert]) -> None:
        """Take what the disk knows, in the order of the first telling."""
        for told in known:
            self._merge(told)
        self._firing, self._resolved = (
            OrderedDict(sorted(part.items(), key=lambda item: item[1].seen_s))
            for part in (self._firing, self._resolved)
        )
        self._trim()
        self.loaded = True

    def take(self, told: KnownAlert) -> None:
        """Take one alert that was told now."""
        self._merge(told)
        self._trim()

    def _trim(self) -> None:
        while len(self._firing) + len(self._resolved) > MAX_ALERTS:
            (self._resolved or self._firing).popitem(last=False)

    def _merge(self, told: KnownAlert) -> None:
        alert = told.alert
        if not any(rule.matches(alert.labels) for rule in self.rules):
            return
        starts_s = _unix_s(alert.starts_at)
        new = OutsideAlert(
            alert.fingerprint,
            alert.labels,
            starts_s=told.first_s if starts_s is None else starts_s,
            seen_s=told.seen_s,
            about=told.about,
            ends_s=_unix_s(alert.ends_at),
            resolved=alert.status == "resolved",
            first_seen_s=told.first_s,
        )
        old = self._firing.get(alert.fingerprint) or self._resolved.get(alert.fingerprint)
        if old is not None and old.starts_s > new.starts_s:
            return  # a late word on an episode that is over
        if old is not None and old.starts_s == new.starts_s:
            new = replace(
                new,
                about=old.about,
                first_seen_s=old.first_seen_s,
                seen_s=max(old.seen_s, new.seen_s),
                resolved=old.resolved or new.resolved,
            )
        self._firing.pop(alert.fingerprint, None)
        self._resolved.pop(alert.fingerprint, None)
        (self._resolved if new.resolved else self._firing)[alert.fingerprint] = new


class OutsideAlerts:
    """What is known of the alerts that rules name. Any thread.

    known: everything told since a Unix second, from the disk; asked at the start, when the rules change, and again
    after it failed.
    """

    def __init__(
        self, rules: tuple[OutsideRule, ...], known: Callable[[float], list[KnownAlert]], clock: Clock
    ) -> None:
        self._known, self._clock = known, clock
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._table = _Table((), loaded=True)
        self._meanwhile: list[KnownAlert] | None = None
        self._tried_s = 0.0
        self._stable, self._canary = "", ""
        self._canary_since_s: float | None = None
        self.replace_rules(rules)

    def replace_rules(self, rules: tuple[OutsideRule, ...]) -> None:
        """Take other rules; what they name is looked up on the disk, and until then the old ones hold. Blocking."""
        with self._loading:
            self._load(rules)

    def in_traffic(self, stable: str, canary: str) -> None:
        """These releases answer now (short ids; no canary: empty)."""
        if canary != self._canary:
            known_before = bool(self._stable)  # at the start nobody knows since when
            self._canary_since_s = self._clock.wall_s() if canary and known_before else None
        self._stable, self._canary = stable, canary

    def newest_release(self) -> str:
        """The release that an alert which names none is held against."""
        return self._canary or self._stable

    def take(self, alerts: Iterable[AlertIn], wall_s: float, about: str) -> None:
        """A delivery that is on the disk."""
        for alert in alerts:
            told = KnownAlert(alert, wall_s, wall_s, about)
            with self._lock:
                self._table.take(told)
                if self._meanwhile is not None:
                    self._meanwhile.append(told)

    def verdicts(self, release: str) -> tuple[Verdict, ...]:
        """What every rule says of a release now. May block on the disk, when that could not be read before."""
        if not self._table.loaded:
            self._try_again()
        with self._lock:
            table, alerts = self._table, self._table.alerts()
        since_s = self._canary_since_s if release == self._canary else None
        arm, wall_s = Arm(release, since_s), self._clock.wall_s()
        found = ((rule, judge_outside(rule, arm, alerts, wall_s)) for rule in table.rules)
        return tuple(verdict if table.loaded else _unsure(rule, verdict) for rule, verdict in found)

    def _try_again(self) -> None:
        if self._clock.now_s() - self._tried_s >= RETRY_S and self._loading.acquire(blocking=False):
            try:
                self._load(self._table.rules)
            finally:
                self._loading.release()

    def _load(self, rules: tuple[OutsideRule, ...]) -> None:
        """Fill a new table beside the present one, and swap. Without the disk it has only what is told from now on."""
        table = _Table(rules, loaded=not rules)
        with self._lock:
            self._meanwhile = []
        self._tried_s = self._clock.now_s()
        try:
            if rules:
                table.load(self._known(self._clock.wall_s() - max(rule.max_age_s for rule in rules)))
        except OSError as error:
            log.error("outside alerts: %s; unknown until they can be read or are repeated", error)
        finally:
            with self._lock:
                for told in self._meanwhile:
                    table.take(told)
                self._meanwhile = None
                if table.loaded or rules != self._table.rules:
                    self._table = table


def _unsure(rule: OutsideRule, verdict: Verdict) -> Verdict:
    """Nothing was found, but not everything is known."""
    if verdict.state is not State.OK:
        return verdict
    reason = f"{rule.name}: stored alerts cannot be read; whether {rule.alert} fires is not known"
    return replace(verdict, state=State.UNKNOWN, reason=reason)


def _unix_s(text: str) -> float | None:
    """Unix seconds of an RFC 3339 time; None when there is none (Alertmanager writes year 1 for "not yet")."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when.timestamp() if when.tzinfo is not None and when.year > 1970 else None
