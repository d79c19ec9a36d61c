"""Alerts of others as evidence: which ones act, on which release, until when, and in whatever order they arrive."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import msgspec
import pytest

from guard.admin.shapes import AlertBatch, AlertIn
from guard.outside import RETRY_S, OutsideAlerts
from guard.state_files import AlertStore, KnownAlert
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


def test_while_the_disk_cannot_be_read_nothing_is_ok_and_it_is_read_again(caplog: pytest.LogCaptureFixture) -> None:
    clock, broken = ManualClock(), [True]

    def known(_since_s: float) -> list[KnownAlert]:
        if broken[0]:
            raise OSError("stored alerts cannot be read: disk I/O error")
        return [KnownAlert(alert(), clock.wall_s(), clock.wall_s(), "r2")]

    made = OutsideAlerts((RULE,), known, clock)
    made.in_traffic("r1", "r2")
    assert states(made, "r1", "r2") == [State.UNKNOWN, State.UNKNOWN]
    assert "cannot be read" in made.verdicts("r2")[0].reason
    made.take([alert(fingerprint="f2")], clock.wall_s(), "r1")
    assert states(made, "r1", "r2") == [State.BREACH, State.UNKNOWN], "what is told now acts"
    clock.advance(RETRY_S)
    assert states(made, "r1", "r2") == [State.BREACH, State.UNKNOWN], "a try that failed loses nothing"
    broken[0] = False
    assert states(made, "r2") == [State.UNKNOWN], "not at every evaluation"
    clock.advance(RETRY_S)
    assert states(made, "r2") == [State.BREACH]
    broken[0] = True
    made.replace_rules((replace(RULE, name="other", alert="Other"),))
    assert states(made, "r2") == [State.UNKNOWN]
    made.replace_rules(())
    assert made.verdicts("r2") == ()


def test_while_a_reload_reads_the_disk_the_old_rules_hold_and_no_delivery_is_lost() -> None:
    clock = ManualClock()
    seen: list[list[State]] = []

    def known(_since_s: float) -> list[KnownAlert]:
        if not ready:
            return []
        made.take([alert(fingerprint="f2", release="r1")], clock.wall_s(), "r2")  # a delivery in between
        seen.append(states(made, "r1", "r2"))
        return [KnownAlert(alert(), clock.wall_s(), clock.wall_s(), "r2")]

    ready = False
    made = OutsideAlerts((RULE,), known, clock)
    made.in_traffic("r1", "r2")
    made.take([alert()], clock.wall_s(), "r2")
    ready = True
    made.replace_rules((replace(RULE, name="renamed"),))
    assert seen == [[State.BREACH, State.BREACH]]
    assert [v.slo.name for v in made.verdicts("r2")] == ["renamed"]
    assert states(made, "r1", "r2") == [State.BREACH, State.BREACH]


def test_past_the_limit_ended_alerts_go_first_then_those_not_repeated_for_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("guard.outside.MAX_ALERTS", 3)
    made, clock = outside()

    def tell(*alerts: AlertIn) -> tuple[str, ...]:
        clock.advance(1.0)
        made.take(alerts, clock.wall_s(), "r2")
        return tuple(sorted(a.fingerprint for a in made._table.alerts()))

    assert tell(alert(fingerprint="a"), alert(fingerprint="b"), alert(fingerprint="c")) == ("a", "b", "c")
    tell(alert("resolved", fingerprint="c"))
    assert tell(alert(fingerprint="d")) == ("a", "b", "d")
    tell(alert(fingerprint="a"))
    assert tell(alert(fingerprint="e")) == ("a", "d", "e")
    rows = [KnownAlert(alert(fingerprint=f), clock.wall_s(), clock.wall_s() + n, "r2") for n, f in enumerate("badc")]
    loaded = OutsideAlerts((RULE,), lambda _since_s: sorted(rows, key=lambda k: k.alert.fingerprint), clock)
    assert sorted(a.fingerprint for a in loaded._table.alerts()) == ["a", "c", "d"]


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
