"""Alerts of others as evidence: which ones act, on which release, until when, and in whatever order they arrive."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import msgspec
import pytest

from guard.admin.backend import AlertBatch, AlertIn
from guard.outside import OutsideAlerts
from guard.state_files import AlertStore
from slo.actions import ReleaseSnapshot, decide
from slo.errors import ConfigError
from slo.outside import Arm, OutsideAlert, OutsideRule, judge_outside
from slo.spec import parse_slo
from slo.types import ActionKind, OnBreach, State
from tests.unit.exporters_helpers import ManualClock

RULE = OutsideRule("errors", "HighErrorRate", {"team": "bots"}, max_age_s=600.0, action=OnBreach.ROLLBACK)
LABELS = {"alertname": "HighErrorRate", "team": "bots"}
START = "2025-06-15T15:06:50Z"  # 10 s after the manual clock begins
START_S = 1_750_000_010.0


def alert(status: str = "firing", starts_at: str = START, fingerprint: str = "f1", **labels: str) -> AlertIn:
    ends_at = "0001-01-01T00:00:00Z" if status == "firing" else "2025-06-15T15:10:00Z"
    return AlertIn(fingerprint, status, starts_at, ends_at, LABELS | labels, {})


def outside(*rules: OutsideRule) -> tuple[OutsideAlerts, ManualClock]:
    clock = ManualClock()
    made = OutsideAlerts(rules or (RULE,), lambda _since_s: [], clock)
    made.in_traffic("r1", "")
    clock.advance(5.0)
    made.in_traffic("r1", "r2")
    clock.advance(15.0)
    return made, clock


def states(made: OutsideAlerts, *releases: str) -> list[State]:
    return [made.verdicts(release)[0].state for release in releases]


def test_an_alert_that_a_rule_names_is_a_breach_of_the_canary_and_rolls_it_back() -> None:
    made, clock = outside()
    assert states(made, "r1", "r2") == [State.OK, State.OK]
    made.take([alert()], clock.wall_s(), made.newest_release())
    assert states(made, "r1", "r2") == [State.OK, State.BREACH]
    snapshot = ReleaseSnapshot(has_canary=True, weight=0.1)
    action = decide(made.verdicts("r2"), made.verdicts("r1"), snapshot)
    assert action.kind is ActionKind.ROLL_BACK
    assert "HighErrorRate fires" in action.reason


@pytest.mark.parametrize("labels", [{"alertname": "Other"}, {"team": "web"}])
def test_an_alert_that_no_rule_names_never_acts(labels: dict[str, str]) -> None:
    made, clock = outside()
    made.take([replace(alert(), labels=LABELS | labels)], clock.wall_s(), "r2")
    assert states(made, "r1", "r2") == [State.OK, State.OK]


def test_an_alert_with_a_release_label_speaks_of_that_release_only() -> None:
    made, clock = outside()
    made.take([alert(release="r1")], clock.wall_s(), "r2")
    assert states(made, "r1", "r2") == [State.BREACH, State.OK]


def test_what_began_before_the_canary_came_is_not_its_fault() -> None:
    made, clock = outside()
    made.take([alert(starts_at="2025-06-15T15:06:41Z")], clock.wall_s(), "r2")
    assert states(made, "r2") == [State.OK]


def test_an_alert_told_of_the_canary_is_not_held_against_stable_when_the_canary_is_gone() -> None:
    made, clock = outside()
    made.take([alert()], clock.wall_s(), made.newest_release())
    made.in_traffic("r1", "")
    made.take([alert()], clock.wall_s(), made.newest_release())  # told again, now that only stable answers
    assert states(made, "r1") == [State.OK]


def test_every_order_of_firing_and_resolved_ends_in_the_same_state() -> None:
    again = "2025-06-15T15:20:00Z"
    told = [alert(), alert("resolved"), alert()]
    for order in permutations(told):
        made, clock = outside()
        for one in order:
            made.take([one], clock.wall_s(), "r2")
        assert states(made, "r2") == [State.OK]
    for order in permutations([*told, alert(starts_at=again)]):
        made, clock = outside()
        for one in order:
            made.take([one], clock.wall_s(), "r2")
        assert states(made, "r2") == [State.BREACH], "it began again"


def test_an_alert_that_nobody_repeats_becomes_unknown_and_a_repeated_one_does_not() -> None:
    made, clock = outside()
    made.take([alert()], clock.wall_s(), "r2")
    clock.advance(500.0)
    made.take([alert()], clock.wall_s(), "r2")
    clock.advance(500.0)
    assert states(made, "r2") == [State.BREACH]
    clock.advance(101.0)
    verdict = made.verdicts("r2")[0]
    assert verdict.state is State.UNKNOWN
    assert "was not repeated for 10m1s" in verdict.reason


def test_an_announced_end_that_is_past_is_unknown() -> None:
    seen = OutsideAlert("f", LABELS, START_S, START_S, about="r2", ends_s=START_S + 60.0)
    assert judge_outside(RULE, Arm("r2"), [seen], START_S + 59.0).state is State.BREACH
    assert judge_outside(RULE, Arm("r2"), [seen], START_S + 61.0).state is State.UNKNOWN


def test_a_rule_with_for_waits_from_when_it_was_first_told() -> None:
    made, clock = outside(replace(RULE, for_s=60.0))
    made.take([alert()], clock.wall_s(), "r2")
    clock.advance(59.0)
    assert [(v.state, v.firing) for v in made.verdicts("r2")] == [(State.BREACH, False)]
    clock.advance(1.0)
    assert [(v.state, v.firing) for v in made.verdicts("r2")] == [(State.BREACH, True)]


def test_what_was_told_is_known_after_a_restart(tmp_path: Path) -> None:
    clock = ManualClock()
    store = AlertStore(tmp_path, clock.wall_s())
    store.store(AlertBatch("guard", "", "firing", 0, (alert(), alert(fingerprint="f2", team="web"))), START_S, "r2")
    store.store(AlertBatch("guard", "", "firing", 0, (alert(),)), START_S + 300.0, "r1")
    store.close()
    clock.advance(800.0)
    again = AlertStore(tmp_path, clock.wall_s())
    made = OutsideAlerts((RULE,), again.known, clock)
    made.in_traffic("r1", "r2")
    verdict = made.verdicts("r2")[0]
    assert verdict.state is State.BREACH, "told first of r2, and told again 490 s ago"
    assert made.verdicts("r1")[0].state is State.OK
    again.store(AlertBatch("guard", "", "resolved", 0, (alert("resolved"),)), clock.wall_s(), "r1")
    made.replace_rules((RULE,))
    assert made.verdicts("r2")[0].state is State.OK
    again.close()


def test_a_file_of_an_older_version_is_read(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "alerts.sqlite") as db:
        db.execute(
            "CREATE TABLE alerts (fingerprint TEXT, starts_at TEXT, status TEXT, wall_s REAL, body BLOB,"
            " PRIMARY KEY (fingerprint, starts_at, status))"
        )
        old = msgspec.json.encode(alert())
        db.execute("INSERT INTO alerts VALUES ('f1', ?, 'firing', 1.0, ?)", (START, old))
    db.close()
    store = AlertStore(tmp_path, 1.0)
    stored = store.store(AlertBatch("guard", "", "firing", 0, (alert(), alert(fingerprint="f2"))), START_S, "r2")
    assert (stored.stored_count, stored.duplicate_count) == (1, 1)
    assert [(k.alert.fingerprint, k.about) for k in store.known(2.0)] == [("f1", ""), ("f2", "r2")]
    store.close()


OUTSIDE = "service: a\noutside_alerts:\n  - {name: x, alert: HighErrorRate, labels: {team: bots}, action: rollback}\n"


def test_slo_yaml_names_outside_alerts_strictly() -> None:
    rule = parse_slo(OUTSIDE).outside[0]
    assert rule == OutsideRule("x", "HighErrorRate", {"team": "bots"}, 0.0, 3600.0, OnBreach.ROLLBACK)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("HighErrorRate", "SftGuardPage"), "raised by the guard itself"),
        (("HighErrorRate", "'two words'"), "outside_alerts[0].alert"),
        (("labels", "label"), "outside_alerts[0].label"),
        (("rollback", "rollbak"), "outside_alerts[0].action"),
        (("name: x", "name: p95"), "an objective of the preset has this name"),
        (("rollback}", "rollback, max_age: 5s}"), "outside_alerts[0].max_age"),
    ],
)
def test_a_mistake_names_its_place(change: tuple[str, str], words: str) -> None:
    text = OUTSIDE.replace("service: a", "service: a\npreset: support-faq").replace(*change)
    with pytest.raises(ConfigError) as found:
        parse_slo(text)
    assert words in str(found.value)


def test_two_rules_of_one_name_are_refused() -> None:
    text = (
        OUTSIDE + "objectives:\n  - {name: x, indicator: sft_cache_hit_rate, window: 1h, threshold: {absolute: 1%}}\n"
    )
    with pytest.raises(ConfigError, match="two rules are called `x`"):
        parse_slo(text)
