"""Alerts of others, as evidence: what Alertmanager told us, kept only as far as a rule of slo.yaml names it.

What is stored on disk is the truth; this is its memory, made anew at each start. Deliveries come in any order and any
number: an alert is its fingerprint and its beginning, an end that was told stays told, and a newer beginning of the
same fingerprint replaces the older one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from guard.admin.backend import AlertIn
from guard.state_files import KnownAlert
from slo.clock import Clock
from slo.outside import Arm, OutsideAlert, OutsideRule, judge_outside
from slo.types import Verdict

log = logging.getLogger("sft-guard")

OutsideVerdicts = Callable[[str], tuple[Verdict, ...]]
"""Verdicts of all outside rules on one release."""
MAX_ALERTS = 10_000


def no_outside(_release: str) -> tuple[Verdict, ...]:
    """There are no such rules."""
    return ()


class OutsideAlerts:
    """What is known of the alerts that rules name. Any thread.

    known: everything told since a Unix second, from the disk; asked at the start and when the rules change.
    """

    def __init__(
        self, rules: tuple[OutsideRule, ...], known: Callable[[float], list[KnownAlert]], clock: Clock
    ) -> None:
        self._known, self._clock = known, clock
        self._lock = threading.Lock()
        self._alerts: dict[str, OutsideAlert] = {}
        self._stable, self._canary = "", ""
        self._canary_since_s: float | None = None
        self._rules: tuple[OutsideRule, ...] = ()
        self.replace_rules(rules)

    def replace_rules(self, rules: tuple[OutsideRule, ...]) -> None:
        """Take other rules; what they name is looked up again on the disk."""
        self._rules = rules
        with self._lock:
            self._alerts.clear()
        if not rules:
            return
        since_s = self._clock.wall_s() - max(rule.max_age_s for rule in rules)
        try:
            for told in self._known(since_s):
                self._take(told)
        except OSError as error:
            log.error("outside alerts: %s; known again when they are repeated", error)

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
            self._take(KnownAlert(alert, wall_s, wall_s, about))

    def verdicts(self, release: str) -> tuple[Verdict, ...]:
        """What every rule says of a release now."""
        if not self._rules:
            return ()
        with self._lock:
            alerts = tuple(self._alerts.values())
        since_s = self._canary_since_s if release == self._canary else None
        arm, wall_s = Arm(release, since_s), self._clock.wall_s()
        return tuple(judge_outside(rule, arm, alerts, wall_s) for rule in self._rules)

    def _take(self, told: KnownAlert) -> None:
        alert = told.alert
        if not any(rule.matches(alert.labels) for rule in self._rules):
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
        with self._lock:
            old = self._alerts.get(alert.fingerprint)
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
            self._alerts[alert.fingerprint] = new
            if len(self._alerts) > MAX_ALERTS:
                del self._alerts[min(self._alerts.values(), key=lambda a: (not a.resolved, a.seen_s)).fingerprint]


def _unix_s(text: str) -> float | None:
    """Unix seconds of an RFC 3339 time; None when there is none (Alertmanager writes year 1 for "not yet")."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when.timestamp() if when.tzinfo is not None and when.year > 1970 else None
