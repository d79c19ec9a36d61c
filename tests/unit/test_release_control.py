"""Which document a replica may replace, and which it must obey."""

from __future__ import annotations

from dataclasses import replace

from guard.release.control import OWN_CHANGES_COUNT, adopt, confirmed, control_of, descended, digest, may_replace, same
from guard.release.plan import Plan, Stage
from guard.release.state import ReleaseState, abort, pause, promote, rollback, start

PLAN = Plan((Stage(0.1, 60.0, 10), Stage(0.5, 60.0, 10)))
AT_START = confirmed(start(ReleaseState("faq-bot", "v1"), "v2", PLAN, 0.0))


def test_what_was_obeyed_or_confirmed_may_be_replaced_and_nothing_later() -> None:
    document = control_of(AT_START)
    assert AT_START.base_epoch == document.epoch == 1
    assert may_replace(AT_START, None)
    assert may_replace(AT_START, document)
    assert may_replace(AT_START, replace(document, epoch=0))  # a registry restored from an old copy
    assert not may_replace(AT_START, replace(document, epoch=2))


def test_a_replica_that_was_cut_off_does_not_undo_a_promotion_of_a_lower_epoch() -> None:
    paused = descended(AT_START, pause(AT_START))
    rolled = descended(paused, rollback(paused, "errors")[0])
    assert rolled.epoch == 3
    promoted_elsewhere = control_of(promote(AT_START, 0.0))
    assert promoted_elsewhere.epoch == 2
    assert not may_replace(rolled, promoted_elsewhere)


def test_its_own_change_whose_answer_was_lost_is_no_stranger() -> None:
    paused = descended(AT_START, pause(AT_START))
    aborted = descended(paused, abort(paused))
    for landed in (AT_START, paused, aborted):
        assert may_replace(aborted, control_of(landed))
    assert confirmed(aborted).own_changes == ()
    assert may_replace(confirmed(aborted), control_of(paused))  # older than what is confirmed


def test_ids_and_modes_do_not_make_a_document_another_one() -> None:
    document = control_of(AT_START)
    assert same(document, replace(document, mode="observe", incident_id="inc-1", outbox_id="msg_1"))
    for change in ({"canary_ratio": 0.5}, {"phase": "paused"}, {"stage": 1}, {"cache_epoch": 9}, {"advance": "auto"}):
        assert digest(replace(document, **change)) != digest(document)


def test_obeying_a_document_forgets_what_was_decided_here() -> None:
    paused = descended(AT_START, pause(AT_START))
    other = control_of(promote(AT_START, 0.0))
    obeyed = adopt(paused, other, 5.0)
    assert (obeyed.base_epoch, obeyed.own_changes) == (2, ())
    assert same(control_of(obeyed), other)


def test_a_promotion_keeps_its_time_and_another_one_has_its_own() -> None:
    promoted = confirmed(promote(AT_START, 100.0))
    again = adopt(promoted, replace(control_of(promoted), epoch=5), 900.0)
    assert again.stage_started_s == 100.0
    other = promote(start(promoted, "v3", PLAN, 200.0), 800.0)
    assert adopt(promoted, control_of(other), 900.0).stage_started_s == 900.0


def test_the_memory_of_own_changes_is_bounded() -> None:
    state = AT_START
    for _ in range(40):
        state = descended(state, replace(state, epoch=state.epoch + 1))
    assert len(state.own_changes) == OWN_CHANGES_COUNT
    assert digest(control_of(state)) == state.own_changes[-1]
