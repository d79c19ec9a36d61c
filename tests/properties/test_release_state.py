"""What must always hold of a release, whatever people and verdicts do."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from guard.release import state as rules
from guard.release.control import adopt, control_of
from guard.release.plan import Plan, Stage, parse_plan, plan_from_text
from guard.release.state import Advance, Mode, Phase, ReleaseState
from slo.errors import RefusedError
from slo.types import Action, ActionKind

PLAN = Plan((Stage(0.1, 60, 5), Stage(0.5, 60, 5), Stage(1.0, 60, 5)))
ACTIONS = st.sampled_from(list(ActionKind))
REASONS = st.sampled_from(["rule hallucination fires", "unknown: no data", "shared_upstream: stable too", "passed"])
NAMES = [f"v{n}" for n in range(6)]


class AnyRelease(RuleBasedStateMachine):
    """People give commands, the judge says anything, time passes; replicas interfere."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s, self.wall_s = 0.0, 1_750_000_000.0
        self.state = ReleaseState("faq-bot", "v0", mode=Mode.ENFORCE)
        self.rolled_back: set[str] = set()
        self.automatic: list[float] = []

    def change(self, after: ReleaseState, *, person: bool) -> None:
        before, self.state = self.state, after
        if (before.stable, before.canary_ratio, before.phase) != (after.stable, after.canary_ratio, after.phase):
            finished = after.phase is Phase.ROLLED_BACK and before.phase is Phase.ROLLING_BACK
            assert after.epoch > before.epoch or finished
        assert after.epoch >= before.epoch
        assert after.cache_epoch >= before.cache_epoch
        if not person and after.canary_ratio > before.canary_ratio:
            assert before.advance is Advance.AUTO
            assert before.mode is Mode.ENFORCE
            assert after.stage == before.stage + 1
            assert self.now_s - before.stage_started_s >= before.plan.stages[before.stage].hold_s
            assert before.stage_events >= before.plan.stages[before.stage].min_events

    @rule(seconds=st.floats(0, 50_000))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.wall_s += seconds

    @rule(seconds=st.floats(-7200, 7200))
    def the_wall_clock_jumps(self, seconds: float) -> None:
        self.wall_s += seconds

    @rule(count=st.integers(0, 20))
    def users_ask(self, count: int) -> None:
        self.change(rules.count_events(self.state, count), person=False)

    @rule(mode=st.sampled_from(list(Mode)))
    def the_mode_is_configured(self, mode: Mode) -> None:
        self.state = replace(self.state, mode=mode)

    @rule(canary=st.sampled_from(NAMES), who=st.sampled_from(list(Advance)))
    def a_person_starts(self, canary: str, who: Advance) -> None:
        try:
            after = rules.start(self.state, canary, PLAN, self.now_s, advance=who)
        except RefusedError:
            return
        self.change(after, person=True)

    @rule(command=st.sampled_from(["promote", "abort", "pause", "resume", "advance"]))
    def a_person_commands(self, command: str) -> None:
        try:
            if command in ("resume", "advance", "promote"):
                after = getattr(rules, command)(self.state, self.now_s)
            else:
                after = getattr(rules, command)(self.state)
        except RefusedError:
            return
        self.change(after, person=True)

    @rule()
    def a_person_rolls_back(self) -> None:
        try:
            after, order = rules.rollback(self.state, "asked")
        except RefusedError:
            return
        self.rolled_back.add(order.bad)
        self.change(after, person=True)

    @precondition(lambda self: self.state.phase is Phase.ROLLING_BACK)
    @rule(no_target=st.booleans())
    def the_saga_ends(self, no_target: bool) -> None:
        self.change(rules.finish_rollback(self.state, no_target=no_target), person=False)

    @rule(kind=ACTIONS, reason=REASONS, drain=st.booleans())
    def the_judge_speaks(self, kind: ActionKind, reason: str, drain: bool) -> None:
        before = self.state
        after, effects = rules.step(before, Action(kind, reason), self.now_s, self.wall_s, drain_unknown=drain)
        if before.mode is not Mode.ENFORCE:
            exposure = (before.canary_ratio, before.stable, before.canary, before.epoch)
            assert (after.canary_ratio, after.stable, after.canary, after.epoch) == exposure
        if kind is ActionKind.HOLD and not drain:
            assert after.canary_ratio == before.canary_ratio
        if effects.rollback is not None:
            assert kind is ActionKind.ROLL_BACK
            self.rolled_back.add(effects.rollback.bad)
            self.automatic.append(self.wall_s)
        if after.epoch != before.epoch:
            assert effects.exposure
        self.change(after, person=False)

    @rule()
    def a_replica_adopts_it(self) -> None:
        other = ReleaseState("faq-bot", "v0", mode=Mode.OBSERVE, barred=self.state.barred)
        copied = adopt(other, control_of(self.state), self.now_s)
        assert control_of(replace(copied, mode=self.state.mode)) == control_of(self.state)

    @invariant()
    def a_rolled_back_version_gets_no_traffic_ever_again(self) -> None:
        assert self.state.canary_ratio == 0.0 or self.state.canary not in self.rolled_back
        assert self.state.stable not in self.rolled_back

    @invariant()
    def only_a_rollout_sends_traffic_to_a_canary(self) -> None:
        assert 0.0 <= self.state.canary_ratio <= 1.0
        if self.state.canary_ratio > 0:
            assert self.state.canary
            assert self.state.phase in (Phase.ROLLING_OUT, Phase.PAUSED)

    @invariant()
    def at_most_three_automatic_rollbacks_in_a_day(self) -> None:
        for at in self.automatic:
            later = [t for t in self.automatic[self.automatic.index(at) :] if 0 <= t - at < rules.DAY_S]
            assert len(later) <= rules.ROLLBACKS_PER_DAY


AnyRelease.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyRelease = AnyRelease.TestCase


@given(
    st.lists(
        st.tuples(st.integers(1, 1000), st.integers(0, 10**6), st.integers(0, 10**6)),
        min_size=1,
        max_size=20,
        unique_by=lambda s: s[0],
    )
)
def test_a_plan_survives_the_control_document(parts: list[tuple[int, int, int]]) -> None:
    plan = Plan(tuple(Stage(w / 1000, float(h), n) for w, h, n in sorted(parts)))
    assert plan_from_text(plan.text) == plan
    written = [{"weight": s.weight, "hold": s.hold_s, "min_events": s.min_events} for s in plan.stages]
    assert parse_plan(written) == plan
