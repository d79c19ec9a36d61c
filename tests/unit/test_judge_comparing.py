"""The judge over a whole rollout, in its own time: real counting, real evaluation, real stages."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from guard.admin.views import slo_row
from guard.comparing import comparisons, evidence_ratio, trial_setup
from guard.judge import SloJudge, Vitals
from guard.release import state as rules
from guard.release.plan import parse_plan
from guard.release.state import Advance, Mode, Phase, ReleaseState
from slo.artefact import QUANTILES, Baseline, IndicatorBaseline, Statistic
from slo.clock import HandClock
from slo.comparison import Span
from slo.sources.memory import MemorySource
from slo.spec import parse_slo
from slo.statistics import split_mix
from slo.thresholds import Known
from slo.types import Action, ActionKind, Compared, Comparison, Outcome, Slo, State, Verdict, Version
from tests.slo_builders import HALLUCINATION, found, make_exchange

pytestmark = pytest.mark.anyio

SLO_TEXT = """
service: faq-bot
objectives:
  - name: hallucination
    indicator: sft_quality_hallucination_rate
    window: 1h
    threshold: {absolute: 12%}
    min_events: 50
    action: rollback
    fast: off
  - name: up
    indicator: sft_availability_success_rate
    window: 1h
    threshold: {absolute: 90%}
    min_events: 50
    action: rollback
    fast: off
"""
SLOS = parse_slo(SLO_TEXT).objectives
VERSIONS = {name: Version(name, kb=name) for name in ("v1", "v2")}
V1, V2 = (VERSIONS[name].release_id for name in ("v1", "v2"))


async def at_once(work: Callable[[], Any]) -> Any:
    return work()


@dataclass
class Service:
    """Simulated traffic, and the judge over it. bad: release -> share of hallucinations; down: of failed answers."""

    slos: tuple[Slo, ...] = SLOS
    rate: float = 2.0
    known: Known = field(default_factory=Known)
    bad: dict[str, float] = field(default_factory=lambda: {V1: 0.03, V2: 0.03})
    down: dict[str, float] = field(default_factory=dict)
    unjudged: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        self.clock = HandClock(1_000_000.0, 1e9)
        self.source = MemorySource(self.slos, self.clock)
        self.judge = self._judge()
        self.chance = split_mix(self.seed)
        self.state = ReleaseState("faq-bot", "v1", mode=Mode.ENFORCE)
        self.actions: list[Action] = []
        self.number = 0

    def _judge(self) -> SloJudge:
        return SloJudge(
            self.slos, self.source, lambda: self.known, VERSIONS.get, Vitals(self.clock), self.clock, offload=at_once
        )

    def start(self, plan: str = "20% for 5m min 50") -> None:
        self.state = rules.start(self.state, "v2", parse_plan(plan), self.clock.now_s(), advance=Advance.AUTO)

    def restart(self) -> None:
        pieces = json.loads(json.dumps(list(self.source.dump_pieces())))
        self.source = MemorySource(self.slos, self.clock)
        self.source.load_pieces(pieces)
        self.judge = self._judge()

    async def run(self, seconds: float, until: Callable[[Action], bool] = lambda _: False) -> Action:
        """Traffic and an evaluation every 5 s; the state follows as the controller lets it."""
        end_s = self.clock.at_s + seconds
        while self.clock.at_s < end_s:
            for _ in range(round(self.rate * 5)):
                self._answer()
                self.clock.at_s += 1 / self.rate
            action, verdicts = await self.judge.judge(self.state)
            self.actions.append(action)
            stable = tuple(v for v in verdicts if v.release == VERSIONS[self.state.stable].release_id)
            before = self.state
            self.state, _ = rules.step(self.state, action, self.clock.now_s(), self.clock.wall_s(), stable=stable)
            if until(action) or self.state.phase is not before.phase:
                break
        return self.actions[-1]

    def _answer(self) -> None:
        canary = self.state.in_traffic and self.chance() < self.state.canary_ratio
        release = VERSIONS[self.state.canary if canary else self.state.stable].release_id
        if canary:
            self.state = rules.count_events(self.state, 1)
        self.number += 1
        if self.chance() < self.down.get(release, 0.0):
            self.source.served(make_exchange(self.number, release=release, outcome=Outcome.SERVER_ERROR, status=500))
            return
        exchange = make_exchange(self.number, release=release)
        self.source.served(exchange)
        result = (
            "unavailable" if self.chance() < self.unjudged else "fail" if self.chance() < self.bad[release] else "pass"
        )
        self.source.checked(make_exchange(self.number, release=release, findings=(found("grounding", result),)))

    def verdict(self, name: str, release: str = V2) -> Verdict:
        assert self.judge.last is not None
        judged = (j.verdict for j in self.judge.last.judged)
        return next(v for v in judged if v.slo.name == name and v.release == release)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_healthy_canary_is_promoted_stage_by_stage(seed: int) -> None:
    service = Service(seed=seed)
    service.start("20% for 5m min 50, 50% for 5m min 50")
    await service.run(7200.0)
    assert service.state.phase is Phase.PROMOTED
    kinds = [action.kind for action in service.actions]
    assert kinds.count(ActionKind.ADVANCE) == 2
    assert ActionKind.ROLL_BACK not in kinds
    # Before it passed it was not yet told from stable, and that held it beyond the five minutes of each stage.
    assert any(action.reason.startswith("inconclusive: ") for action in service.actions)


async def test_a_canary_within_every_limit_and_four_times_as_bad_as_stable_is_rolled_back() -> None:
    service = Service(bad={V1: 0.02, V2: 0.10}, rate=4.0)
    service.start()
    action = await service.run(7200.0)
    assert service.state.phase is Phase.ROLLING_BACK
    assert action.reason.startswith("breach: hallucination: canary ")
    assert "x as bad as stable: e-value" in action.reason
    names = dict(action.verdicts[0].evidence)
    assert names["comparison"] == "fail"
    assert float(names["e_value"]) >= float(names["e_value_needed"]) == 200.0  # alpha 1 % shared by two objectives
    assert service.verdict("hallucination").state.value == "ok"  # the rule alone would have let it go on


async def test_few_answers_are_enough_when_the_canary_hardly_answers() -> None:
    service = Service(down={V2: 0.5}, rate=1.0)
    service.start()
    await service.run(600.0)
    assert service.state.phase is Phase.ROLLING_BACK
    assert service.state.stage_events < 50  # fewer than any rule needs in its window


async def test_both_arms_of_one_outage_move_no_pointer() -> None:
    service = Service(down={V1: 0.3, V2: 0.3}, rate=4.0)
    service.start()
    await service.run(900.0)
    reasons = {action.reason.partition(":")[0] for action in service.actions}
    assert "shared_upstream" in reasons
    assert all(action.kind is not ActionKind.ROLL_BACK for action in service.actions)


async def test_half_of_the_answers_unjudged_is_unknown_and_not_inconclusive() -> None:
    service = Service(unjudged=0.7, rate=4.0)
    service.start()
    action = await service.run(900.0)
    comparison = service.verdict("hallucination").comparison
    assert comparison is not None
    assert comparison.result is Compared.UNKNOWN
    assert "of canary could be judged" in comparison.reason
    assert action.reason.startswith("unknown: ")


class Uncounted:
    def spans(self, slo: Slo) -> tuple[Span, ...]:
        return ()


def test_what_was_not_counted_is_unknown_and_no_pass() -> None:
    slo = SLOS[0]
    canary, stable = (Verdict(slo, release, State.OK, 0.03, 0.12, "") for release in (V2, V1))
    for others in ((stable,), ()):
        (judged,) = comparisons((canary,), others, Uncounted(), 0.2, "")
        assert judged.comparison is not None
        assert judged.comparison.result is Compared.UNKNOWN
        assert "not being counted" in judged.comparison.reason
    (same,) = comparisons((stable,), (stable,), Uncounted(), 0.2, "")
    assert same.comparison is None
    (alone,) = comparisons((replace(canary, slo=replace(slo, canary=None)),), (stable,), Uncounted(), 0.2, "")
    assert alone.comparison is None


async def test_our_own_stall_says_nothing_and_forgets_nothing() -> None:
    service = Service()
    service.start()
    await service.run(300.0)
    counted = service.source.spans(SLOS[0])
    service.judge._vitals.lagged(0.5)
    await service.judge.judge(service.state)
    comparison = service.verdict("hallucination").comparison
    assert comparison is not None
    assert (comparison.result, service.source.spans(SLOS[0])) == (Compared.UNKNOWN, counted)


async def test_a_rollout_goes_on_after_a_restart_with_all_it_knew() -> None:
    service = Service()
    service.start()
    await service.run(600.0)
    before = service.verdict("hallucination").comparison
    service.restart()
    await service.judge.judge(service.state)
    after = service.verdict("hallucination").comparison
    assert before is not None
    assert after is not None
    assert after.evidence == before.evidence


async def test_a_paused_canary_at_weight_nothing_keeps_what_was_counted() -> None:
    service = Service()
    service.start()
    await service.run(300.0)
    paused = rules.pause(service.state)
    setup = trial_setup(paused, VERSIONS.get, service.clock.now_s())
    assert setup is not None
    assert (setup.key, setup.weight) == ("rollout", 0.2)


def a_baseline(share: float, clock: HandClock) -> Baseline:
    statistics = tuple(Statistic(name, share, share, share) for name in ("mean", *QUANTILES))
    values = IndicatorBaseline(HALLUCINATION, 3600.0, 336, 1_000_000, share, statistics)
    now_s = clock.wall_s()
    return Baseline(now_s - 60, now_s + 1e7, now_s - 2e6, now_s - 60, 14.0, 3600.0, 1_000_000, (values,), sha256="ab")


async def test_a_promotion_is_taken_back_when_quality_falls_after_it() -> None:
    service = Service(rate=2.0)
    service.known = Known(service.clock.wall_s(), a_baseline(0.03, service.clock))
    service.start("50% for 1m min 50")
    await service.run(7200.0)
    assert service.state.phase is Phase.PROMOTED
    healthy = await service.run(3600.0)
    assert (healthy.kind, service.state.phase) == (ActionKind.HOLD, Phase.PROMOTED)
    service.restart()
    service.bad[V2] = 0.09
    action = await service.run(7200.0)
    assert service.state.phase is Phase.ROLLING_BACK
    assert action.reason.startswith("after_promotion: hallucination: changed since the promotion: ")
    assert service.verdict("hallucination").state.value == "ok"  # the rule's limit is 12 %
    assert service.verdict("up").comparison is None  # the baseline has no values of it


async def test_without_a_baseline_a_promotion_is_watched_by_the_rules_alone() -> None:
    service = Service()
    service.start("50% for 1m min 50")
    await service.run(7200.0)
    await service.run(60.0)
    assert service.verdict("hallucination").comparison is None


async def test_a_day_after_the_promotion_the_watch_ends() -> None:
    service = Service()
    promoted = ReleaseState("faq-bot", "v2", previous="v1", phase=Phase.PROMOTED, stage_started_s=0.0)
    assert trial_setup(promoted, VERSIONS.get, 3600.0) is not None
    assert trial_setup(promoted, VERSIONS.get, 90_000.0) is None
    assert trial_setup(service.state, VERSIONS.get, 0.0) is None


async def test_what_the_admin_api_and_the_metrics_say_of_a_comparison() -> None:
    service = Service()
    service.start()
    await service.run(60.0)
    verdict = service.verdict("hallucination")
    row = slo_row(verdict, "canary").comparison
    assert row is not None
    assert (row.result, row.e_needed) == ("inconclusive", 200.0)
    assert row.figures["comparison"] == "inconclusive"
    assert verdict.comparison is not None
    ratio = evidence_ratio(verdict.comparison)
    assert ratio is not None
    assert ratio < 1
    assert evidence_ratio(Comparison(Compared.UNKNOWN, "")) is None
    assert slo_row(service.verdict("hallucination", V1), "stable").comparison is None


FAST_TEXT = """
service: faq-bot
objectives:
  - name: up
    indicator: sft_availability_success_rate
    window: 1h
    threshold: {absolute: 90%}
    min_events: 50
    action: rollback
    fast: {over: 40%, window: 1m, min_events: 20}
"""


async def test_in_a_catastrophe_the_limit_that_is_shown_stays_that_of_the_objective() -> None:
    service = Service(slos=parse_slo(FAST_TEXT).objectives, down={V1: 0.9})
    await service.run(120.0)
    assert service.judge.last is not None
    (judged,) = service.judge.last.judged
    assert (judged.verdict.fast, judged.verdict.threshold) == (True, 0.6)  # what this verdict was held against
    assert judged.limit == 0.9  # what Prometheus compares its rules with
