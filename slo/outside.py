"""Alerts of others as evidence: rules of slo.yaml that name an alert which somebody else raises. Pure.

Only an alert that a rule names ever acts. What is known of alerts comes in as `OutsideAlert` values; time is Unix
seconds, because that is what alerts carry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from slo.types import OnBreach, Slo, State, Threshold, Verdict, Window
from slo.wording import show_duration

INDICATOR = "outside_alert"
"""Stands where an indicator stands in the verdicts of these rules; no metric has this name."""


@dataclass(frozen=True, slots=True)
class OutsideRule:
    """A rule of slo.yaml on somebody else's alert.

    alert: its `alertname`. labels: what it must carry besides. for_s: how long it must be known to fire.
    max_age_s: an alert that nobody repeated for so long says nothing any more.
    """

    name: str
    alert: str
    labels: Mapping[str, str]
    for_s: float = 0.0
    max_age_s: float = 3600.0
    action: OnBreach = OnBreach.TRACK

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether an alert with these labels is meant."""
        return labels.get("alertname") == self.alert and all(labels.get(k) == v for k, v in self.labels.items())


@dataclass(frozen=True, slots=True)
class OutsideAlert:
    """One alert as it was told. starts_s, ends_s, seen_s: Unix seconds; ends_s None: its end was not announced.

    seen_s: when it was told last, first_seen_s: when first, by our clock. about: the release that it is held against
    when it names none itself: the canary that took traffic when we were first told, else stable.
    """

    fingerprint: str
    labels: Mapping[str, str]
    starts_s: float
    seen_s: float
    about: str = ""
    ends_s: float | None = None
    resolved: bool = False
    first_seen_s: float | None = None

    @property
    def release(self) -> str:
        """The release that it speaks of."""
        return self.labels.get("release") or self.about


@dataclass(frozen=True, slots=True)
class Arm:
    """A release in traffic. since_s: Unix seconds at which it came into traffic; None: long ago, or not known."""

    release: str
    since_s: float | None = None


def judge_outside(rule: OutsideRule, arm: Arm, alerts: Iterable[OutsideAlert], wall_s: float) -> Verdict:
    """Return breach while an alert that the rule names fires and speaks of this release, ok when none does.

    An alert with a label `release` speaks of that release only, one without it of the release that was newest when we
    were first told (`OutsideAlert.about`). What began before the release came into traffic is not its fault. An alert
    that was not repeated for `max_age_s`, or whose announced end is past without a word that it ended, is unknown: it
    neither acts nor proves health.

    >>> rule = OutsideRule("errors", "HighErrorRate", {}, action=OnBreach.ROLLBACK)
    >>> alert = OutsideAlert("f1", {"alertname": "HighErrorRate"}, starts_s=100.0, seen_s=110.0, about="r2")
    >>> judge_outside(rule, Arm("r2", since_s=90.0), [alert], 120.0).state.value
    'breach'
    >>> judge_outside(rule, Arm("r1"), [alert], 120.0).state.value
    'ok'
    """
    slo = as_slo(rule)
    mine = [a for a in alerts if not a.resolved and rule.matches(a.labels) and _speaks_of(a, arm)]
    silent = [a for a in mine if _why_stale(rule, a, wall_s)]
    firing = sorted((a for a in mine if a not in silent), key=lambda a: (_known_since(a), a.fingerprint))
    if firing:
        first = firing[0]
        held_s = max(0.0, wall_s - _known_since(first))
        reason = f"{rule.name}: {rule.alert} fires ({len(firing)}), since {show_duration(round(held_s) or 1)}"
        evidence = (
            ("alertname", rule.alert),
            ("fingerprint", first.fingerprint),
            ("starts_wall_s", f"{first.starts_s:.0f}"),
            ("threshold_source", "an outside alert"),
        )
        fires = held_s >= rule.for_s
        if not fires:
            reason += f"; held {show_duration(round(held_s) or 1)} of {show_duration(rule.for_s)}"
        return Verdict(slo, arm.release, State.BREACH, None, None, reason, firing=fires, evidence=evidence)
    if silent:
        reason = f"{rule.name}: {_why_stale(rule, silent[0], wall_s)}; whether it still fires is not known"
        return Verdict(slo, arm.release, State.UNKNOWN, None, None, reason)
    return Verdict(slo, arm.release, State.OK, None, None, f"{rule.name}: {rule.alert} does not fire")


def as_slo(rule: OutsideRule) -> Slo:
    """Return the rule in the shape that decisions, incidents and screens know."""
    return Slo(
        rule.name,
        INDICATOR,
        Window(rule.max_age_s),
        Threshold("outside_alert", {"alert": rule.alert}),
        for_s=rule.for_s,
        keep_firing_for_s=0.0,
        min_events=0,
        action=rule.action,
    )


def _known_since(alert: OutsideAlert) -> float:
    """When it began, but never before we heard of it: a `for` is time in which we could have been told of its end."""
    return alert.first_seen_s if alert.first_seen_s is not None else alert.seen_s


def _speaks_of(alert: OutsideAlert, arm: Arm) -> bool:
    return alert.release == arm.release and (arm.since_s is None or alert.starts_s >= arm.since_s)


def _why_stale(rule: OutsideRule, alert: OutsideAlert, wall_s: float) -> str:
    """Why an alert says nothing any more, "" while it does."""
    if alert.ends_s is not None and alert.ends_s <= wall_s:
        return f"{rule.alert} was to end {show_duration(max(1.0, round(wall_s - alert.ends_s)))} ago"
    age_s = wall_s - alert.seen_s
    if age_s > rule.max_age_s:
        return f"{rule.alert} was not repeated for {show_duration(round(age_s))}"
    return ""


def is_outside(verdict: Verdict) -> bool:
    """Whether a verdict is about somebody else's alert: it has no events, no value and no limit."""
    return verdict.slo.indicator == INDICATOR
