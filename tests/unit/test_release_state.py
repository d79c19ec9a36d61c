"""The release step by step, with the numbers of the practice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guard.release import state as rules
from guard.release.plan import DEFAULT, SHORT, parse_plan, plan_from_text
from guard.release.state import Advance, Condition, Mode, Phase, ReleaseState
from slo.errors import ConfigError, RefusedError
from slo.types import Action, ActionKind

IDLE = ReleaseState("faq-bot", "v1.2.0", mode=Mode.ENFORCE)
PASS = Action(ActionKind.ADVANCE, "all objectives pass")
BREACH = Action(ActionKind.ROLL_BACK, "hallucination 8 % over 4.5 %")
BLIND = Action(ActionKind.HOLD, "unknown: 12 events, need 400")
HOLD = Action(ActionKind.HOLD, "inconclusive")
SHED = Action(ActionKind.SHED, "p95 over 3 s")
DAY = 86_400.0


def rolling(advance: Advance = Advance.AUTO, mode: Mode = Mode.ENFORCE, at_s: float = 0.0) -> ReleaseState:
    state = ReleaseState("faq-bot", "v1.2.0", mode=mode)
    return rules.start(state, "v1.2.1", DEFAULT, at_s, advance=advance)


def test_the_default_plan_is_10_30_50_100_with_a_day_on_the_first() -> None:
    assert [s.weight for s in DEFAULT.stages] == [0.1, 0.3, 0.5, 1.0]
    assert DEFAULT.stages[0].hold_s == DAY
    assert parse_plan("default") is DEFAULT
    assert parse_plan("short") == parse_plan("20% for 2h") == SHORT
    assert parse_plan("10% for 24h, 30%, 50%, 100%") == DEFAULT


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "plan[0]"),
        ("ten percent", "plan[0]"),
        ("0%", "plan[0].weight"),
        ("150%", "plan[0].weight"),
        ("30%, 10%", "plan[1].weight"),
        ("10% for ever", "plan[0]"),
        ("10% for 1x", "plan[0]"),
        ([], "plan"),
        ([5], "plan[0]"),
        ([{"weight": "10"}], "plan[0].weight"),
        ([{"weight": 0.1, "wait": 5}], "plan[0]"),
        ([{"weight": 0.1, "hold": "soon"}], "plan[0].hold"),
        ([{"weight": 0.1, "min_events": -1}], "plan[0].min_events"),
        ([{"weight": True}], "plan[0].weight"),
        (["10%"] * 21, "plan"),
    ],
)
def test_a_plan_that_cannot_be_says_where_and_how(text: object, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_plan(text)  # type: ignore[arg-type]
    assert caught.value.place == place
    assert "\n" not in str(caught.value)


def test_a_plan_of_another_version_reads_as_the_default() -> None:
    assert plan_from_text("") is DEFAULT
    assert plan_from_text("0.1;60") is DEFAULT


def test_automation_climbs_only_after_hold_events_and_pass() -> None:
    state = rules.count_events(rolling(), 400)
    assert rules.step(state, PASS, DAY - 1, 0.0)[0].canary_ratio == 0.1  # hold
    few = rules.count_events(rolling(), 399)
    assert rules.step(few, PASS, DAY, 0.0)[0].canary_ratio == 0.1  # events
    assert rules.step(state, HOLD, DAY, 0.0)[0].canary_ratio == 0.1  # pass
    moved, effects = rules.step(state, PASS, DAY, 0.0)
    assert (moved.canary_ratio, moved.stage, moved.stage_events, moved.epoch) == (0.3, 1, 0, state.epoch + 1)
    assert (effects.exposure, effects.promoted) == (True, False)
    assert effects.reason == "raise v1.2.1 to 30%: stage 1 passed"


@pytest.mark.parametrize(("advance", "mode"), [(Advance.MANUAL, Mode.ENFORCE), (Advance.AUTO, Mode.RECOMMEND)])
def test_without_leave_it_only_recommends_and_only_once(advance: Advance, mode: Mode) -> None:
    state = rules.count_events(rolling(advance, mode), 400)
    moved, effects = rules.step(state, PASS, DAY, 0.0)
    assert moved.canary_ratio == 0.1
    assert effects.recommendation == "raise v1.2.1 to 30%: stage 1 passed"
    assert rules.step(moved, PASS, DAY + 5, 0.0)[1].recommendation == ""


def test_passing_the_last_stage_promotes_and_keeps_the_way_back() -> None:
    state, now_s = rolling(), 0.0
    weights = []
    for _ in range(4):
        now_s += DAY
        state, effects = rules.step(rules.count_events(state, 400), PASS, now_s, 0.0)
        weights.append(state.canary_ratio)
    assert weights == [0.3, 0.5, 1.0, 0.0]
    assert effects.promoted
    assert (state.stable, state.previous, state.canary, state.phase) == ("v1.2.1", "v1.2.0", "", Phase.PROMOTED)
    assert state.cache_epoch == 0  # what was warmed as a canary stays of use; the release is part of every key


def test_a_breach_takes_the_canary_out_at_once() -> None:
    state = rolling()
    moved, effects = rules.step(state, BREACH, 5.0, 1000.0)
    assert effects.rollback is not None
    assert (effects.rollback.bad, effects.rollback.target) == ("v1.2.1", "v1.2.0")
    assert (moved.canary_ratio, moved.phase, moved.epoch) == (0.0, Phase.ROLLING_BACK, state.epoch + 1)
    assert (moved.cache_epoch, moved.barred, moved.rollbacks_s) == (moved.epoch, ("v1.2.1",), (1000.0,))
    assert rules.step(moved, PASS, 10.0, 1005.0)[0] is moved  # the saga finishes first
    done = rules.finish_rollback(moved)
    assert done.phase is Phase.ROLLED_BACK
    with pytest.raises(RefusedError, match="was rolled back"):
        rules.start(done, "v1.2.1", DEFAULT, 20.0)
    assert rules.start(done, "v1.2.1", DEFAULT, 20.0, again=True).canary_ratio == 0.1


def test_after_a_promotion_the_previous_version_comes_back() -> None:
    promoted = rules.promote(rolling(), 0.0)
    moved, effects = rules.step(promoted, BREACH, 5.0, 0.0)
    assert effects.rollback is not None
    assert effects.rollback.promoted
    assert (moved.stable, moved.canary, moved.previous, moved.canary_ratio) == ("v1.2.0", "v1.2.1", "", 0.0)


def test_a_breach_without_a_previous_version_is_held_and_told_once() -> None:
    lonely = rules.promote(rolling(), 0.0)
    lonely = ReleaseState("faq-bot", lonely.stable, mode=Mode.ENFORCE, phase=Phase.PROMOTED)
    moved, effects = rules.step(lonely, BREACH, 5.0, 0.0)
    assert effects.alerts == (Condition.NO_TARGET,)
    assert moved.stable == lonely.stable
    assert rules.step(moved, BREACH, 10.0, 0.0)[1].alerts == ()
    assert rules.step(IDLE, BREACH, 5.0, 0.0) == (IDLE, rules.NOTHING)


def test_the_fourth_automatic_rollback_of_a_day_is_suppressed_and_the_next_day_is_not() -> None:
    state = IDLE
    for n in range(3):
        state = rules.start(state, f"v2.{n}", SHORT, 0.0)
        state, effects = rules.step(state, BREACH, 1.0, 1000.0 + n)
        assert effects.rollback is not None
        state = rules.finish_rollback(state)
    state = rules.start(state, "v2.3", SHORT, 0.0)
    held, effects = rules.step(state, BREACH, 1.0, 1010.0)
    assert (effects.rollback, effects.alerts) == (None, (Condition.ROLLBACK_SUPPRESSED,))
    assert held.canary_ratio == 0.2
    assert rules.step(held, BREACH, 2.0, 1011.0)[1].alerts == ()  # told once
    by_hand, order = rules.rollback(held, "asked")  # a person is never suppressed
    assert (by_hand.canary_ratio, order.automatic) == (0.0, False)
    assert rules.step(held, BREACH, 1.0, 1000.0 + DAY)[1].rollback is not None


def test_a_jump_of_the_wall_clock_into_the_past_does_not_forget_rollbacks() -> None:
    state = rules.start(IDLE, "v2", SHORT, 0.0)
    state = rules.finish_rollback(rules.step(state, BREACH, 1.0, 5000.0)[0])
    assert rules.recent_rollbacks(state, 1000.0) == (5000.0,)


def test_unknown_for_five_minutes_holds_and_alerts_once() -> None:
    state = rules.step(rolling(), BLIND, 100.0, 0.0)[0]
    assert rules.unknown_for_s(state, 399.0) == 299.0
    assert rules.step(state, BLIND, 399.0, 0.0)[1].alerts == ()
    late, effects = rules.step(state, BLIND, 400.0, 0.0)
    assert (effects.alerts, late.canary_ratio) == ((Condition.UNKNOWN_TOO_LONG,), 0.1)
    assert rules.step(late, BLIND, 405.0, 0.0)[1].alerts == ()
    known = rules.step(late, HOLD, 410.0, 0.0)[0]
    assert (known.unknown_since_s, known.conditions) == (None, ())


def test_draining_an_unknown_canary_is_an_option_and_leaves_the_pointer() -> None:
    state = rules.step(rolling(), BLIND, 0.0, 0.0)[0]
    drained, effects = rules.step(state, BLIND, 300.0, 0.0, drain_unknown=True)
    assert (drained.canary_ratio, drained.phase, drained.stable) == (0.0, Phase.PAUSED, "v1.2.0")
    assert (effects.exposure, effects.rollback) == (True, None)
    assert rules.resume(drained, 400.0).canary_ratio == 0.1


def test_shedding_steps_down_and_leaves_the_climb_to_a_person() -> None:
    state = rules.advance(rolling(), 0.0)
    assert rules.step(state, SHED, 59.0, 0.0)[0] is not None
    assert rules.step(state, SHED, 59.0, 0.0)[0].canary_ratio == 0.3  # the last change has to settle
    lower, effects = rules.step(state, SHED, 60.0, 0.0)
    assert (lower.canary_ratio, lower.stage, lower.advance) == (0.1, 0, Advance.MANUAL)
    assert effects.reason == "lower v1.2.1 to 10%: p95 over 3 s"
    none, _ = rules.step(lower, SHED, 120.0, 0.0)
    assert (none.canary_ratio, none.phase, none.canary) == (0.0, Phase.PAUSED, "v1.2.1")


def test_without_a_canary_shedding_is_admission_control_and_ends_with_the_breach() -> None:
    shedding, effects = rules.step(IDLE, SHED, 0.0, 0.0)
    assert (shedding.shedding, effects.exposure, shedding.epoch) == (True, True, IDLE.epoch)
    assert rules.step(shedding, SHED, 1.0, 0.0)[1] == rules.NOTHING
    healthy, effects = rules.step(shedding, HOLD, 2.0, 0.0)
    assert (healthy.shedding, effects.exposure) == (False, True)


def test_stable_breaching_too_alerts_once_and_never_moves_the_pointer() -> None:
    shared = Action(ActionKind.SHED, "shared_upstream: stable breaches availability too")
    state, effects = rules.step(rolling(), shared, 60.0, 0.0)
    assert effects.alerts == (Condition.SHARED_UPSTREAM,)
    assert (effects.rollback, state.stable, state.canary_ratio) == (None, "v1.2.0", 0.0)
    assert rules.step(state, shared, 120.0, 0.0)[1].alerts == ()
    assert rules.step(state, HOLD, 180.0, 0.0)[0].conditions == ()


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.RECOMMEND])
def test_observing_records_what_it_would_have_done(mode: Mode) -> None:
    state = rolling(mode=mode)
    moved, effects = rules.step(state, BREACH, 5.0, 0.0)
    assert effects.recommendation == "roll back v1.2.1 to v1.2.0: hallucination 8 % over 4.5 %"
    assert (moved.canary_ratio, moved.epoch) == (state.canary_ratio, state.epoch)
    again = Action(ActionKind.ROLL_BACK, "hallucination 9 % over 4.5 %")
    assert rules.step(moved, again, 10.0, 0.0)[1].recommendation == ""


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (lambda s: rules.promote(s, 0.0), "no_rollout"),
        (lambda s: rules.abort(s), "no_rollout"),
        (lambda s: rules.pause(s), "no_rollout"),
        (lambda s: rules.resume(s, 0.0), "no_rollout"),
        (lambda s: rules.advance(s, 0.0), "no_rollout"),
        (lambda s: rules.rollback(s, "x"), "nothing_to_roll_back"),
        (lambda s: rules.start(s, "v1.2.0", DEFAULT, 0.0), "same_version"),
        (lambda s: rules.start(rolling(), "v3", DEFAULT, 0.0), "busy"),
        (lambda s: rules.rollback(rules.rollback(rolling(), "x")[0], "x"), "busy"),
    ],
)
def test_a_command_at_the_wrong_time_is_refused_with_the_cure(command: object, reason: str) -> None:
    with pytest.raises(RefusedError) as caught:
        command(IDLE)  # type: ignore[operator]
    assert caught.value.reason == reason


def test_pause_keeps_the_weight_and_resume_starts_the_hold_anew() -> None:
    paused = rules.pause(rolling())
    assert (paused.canary_ratio, paused.phase) == (0.1, Phase.PAUSED)
    assert rules.step(rules.count_events(paused, 999), PASS, 2 * DAY, 0.0)[0].canary_ratio == 0.1
    resumed = rules.resume(paused, 2 * DAY)
    assert (resumed.phase, resumed.stage_started_s) == (Phase.ROLLING_OUT, 2 * DAY)


def test_abort_leaves_no_blame() -> None:
    state = rules.abort(rolling())
    assert (state.canary, state.canary_ratio, state.phase, state.barred) == ("", 0.0, Phase.IDLE, ())


def test_a_second_rollback_after_a_rolled_back_canary_needs_force() -> None:
    promoted = rules.promote(rolling(), 0.0)
    canary = rules.start(promoted, "v1.3.0", DEFAULT, 0.0)
    done = rules.finish_rollback(rules.step(canary, BREACH, 5.0, 0.0)[0])
    assert (done.stable, done.previous) == ("v1.2.1", "v1.2.0")
    with pytest.raises(RefusedError, match="force") as caught:
        rules.rollback(done, "x")
    assert caught.value.reason == "nothing_to_roll_back"
    assert rules.step(done, BREACH, 10.0, 5.0)[1].rollback is None  # automation obeys the same rule
    forced, order = rules.rollback(done, "x", force=True)
    assert (forced.stable, order.bad, order.target) == ("v1.2.0", "v1.2.1", "v1.2.0")


def test_the_limits_of_a_day_and_of_blindness_are_parameters() -> None:
    assert rules.step(rolling(), BREACH, 1.0, 0.0, max_rollbacks_per_day=0)[1].rollback is None
    blind = rules.step(rolling(), BLIND, 0.0, 0.0)[0]
    assert rules.step(blind, BLIND, 59.0, 0.0, unknown_after_s=60.0)[1].alerts == ()
    assert rules.step(blind, BLIND, 60.0, 0.0, unknown_after_s=60.0)[1].alerts == (Condition.UNKNOWN_TOO_LONG,)


def test_advice_ends_with_its_cause_and_is_given_again_with_the_next() -> None:
    said, effects = rules.step(rolling(mode=Mode.RECOMMEND), BREACH, 5.0, 0.0)
    assert effects.recommendation
    assert rules.step(said, BLIND, 10.0, 0.0)[0].recommendation == said.recommendation
    quiet = rules.step(said, HOLD, 10.0, 0.0)[0]
    assert quiet.recommendation == ""
    assert rules.step(quiet, BREACH, 15.0, 0.0)[1].recommendation == effects.recommendation


def test_shedding_lasts_while_nobody_can_see_and_ends_outside_of_enforce() -> None:
    shedding = rules.step(IDLE, SHED, 0.0, 0.0)[0]
    for blind in (BLIND, Action(ActionKind.HOLD, "sick: own event loop stalled")):
        kept, effects = rules.step(shedding, blind, 5.0, 0.0)
        assert (kept.shedding, effects.exposure) == (True, False)
    for action in (SHED, BLIND):
        ended, effects = rules.step(replace(shedding, mode=Mode.RECOMMEND), action, 5.0, 0.0)
        assert (ended.shedding, effects.exposure) == (False, True)
