"""From windows to one Action every few seconds: reads, resolves limits, evaluates, holds, decides.

The decisions themselves are pure functions of `slo`; this is the memory between two evaluations: what is held, what was
last said, whether we ourselves are well. It knows no traffic split and no journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from guard.comparing import TrialSource, comparisons, trial_setup
from guard.outside import OutsideVerdicts, no_outside
from guard.promotion_watch import PromotionWatch, WatchSource
from guard.release.outbox import Offload, in_thread
from guard.release.state import Phase, ReleaseState, events_satisfied, hold_satisfied, unknown_for_s
from slo.actions import ReleaseSnapshot, decide
from slo.clock import Clock
from slo.errors import SourceError
from slo.evaluation import NOT_HELD, Held, Read, advance, budget_remaining_ratio, judge, suspend
from slo.metric_names import INDICATORS
from slo.sources.trial import TrialSetup
from slo.thresholds import Known, Limit, limit_for
from slo.types import Action, Reading, Slo, State, Verdict, Version

CLOCK_JUMP_S = 5.0
LOOP_LAG_S = 0.1


class Vitals:
    """Whether our own measurements can be trusted: loop lag and clock jumps since the last evaluation."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = (clock.now_s(), clock.wall_s())
        self._worst_lag_s = 0.0
        self.last_lag_s = 0.0

    def lagged(self, seconds: float) -> None:
        """A timer of the event loop fired this much too late."""
        self._worst_lag_s = max(self._worst_lag_s, seconds)

    def sick(self) -> str:
        """Why nothing can be judged now, "" when it can. Asking starts a new period."""
        now_s, wall_s = self._clock.now_s(), self._clock.wall_s()
        jump_s = (wall_s - self._last[1]) - (now_s - self._last[0])
        self._last = (now_s, wall_s)
        self.last_lag_s, self._worst_lag_s = self._worst_lag_s, 0.0
        if abs(jump_s) > CLOCK_JUMP_S:
            return f"the wall clock jumped by {jump_s:+.0f} s"
        if self.last_lag_s > LOOP_LAG_S:
            return f"own event loop stalled for {self.last_lag_s * 1000:.0f} ms"
        return ""


@dataclass(frozen=True, slots=True)
class Judged:
    """One verdict with what people want to see beside it.

    arm: stable | canary. value, limit: present value and limit of the objective, inside unit; what the verdict was held
    against may be the catastrophe limit of its fast path.
    """

    verdict: Verdict
    arm: str
    value: float | None
    budget_remaining_ratio: float | None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """Everything said at one evaluation. wall_s: Unix seconds, a label."""

    wall_s: float
    action: Action
    judged: tuple[Judged, ...]


class ReadingSource(TrialSource, WatchSource, Protocol):
    """Where readings come from: this process (`slo.sources.memory`) or a fleet (`guard.fleet_windows`).

    Readings may be asked for from another thread. Raises (reading, objective_value): SourceError: not known now.
    """

    def reading(self, slo: Slo, release: str, length_s: float | None = None) -> Reading: ...
    def objective_value(self, slo: Slo, release: str) -> float | None: ...
    def forget(self, release: str, life: int | None = None) -> None: ...
    def set_limits(self, limits: Mapping[str, float | None]) -> None: ...
    def compare(self, setup: TrialSetup | None) -> None: ...


class SloJudge:
    """Implements the judge that the release controller asks. One per process; not thread-safe.

    blind: indicator -> why no rule on it may act now.
    versions: name of a version -> Version. known: what limits may be taken from, now.
    expected: name of a version -> indicator -> score that an evaluation found for it before it had traffic.
    """

    def __init__(
        self,
        slos: tuple[Slo, ...],
        source: ReadingSource,
        known: Callable[[], Known],
        versions: Callable[[str], Version | None],
        vitals: Vitals,
        clock: Clock,
        *,
        offload: Offload = in_thread,
        outside: OutsideVerdicts = no_outside,
        blind: Callable[[], Mapping[str, str]] = dict,
        expected: Callable[[str], Mapping[str, float]] = lambda name: {},
    ) -> None:
        self._offload, self._outside, self._blind = offload, outside, blind
        self._blind_now: Mapping[str, str] = {}
        self._expected = expected
        self._slos, self._source, self._known, self._versions = slos, source, known, versions
        self._vitals, self._clock = vitals, clock
        self._held: dict[tuple[str, str, str], Held] = {}
        self._watch = PromotionWatch()
        self.last: Judgement | None = None
        self.last_s: float | None = None  # monotonic, of the last evaluation

    def replace_rules(self, slos: tuple[Slo, ...], known: Callable[[], Known]) -> None:
        """New rules after a reload; what was held for rules that still exist stays held."""
        self._slos, self._known = slos, known

    def forget(self, release: str, life: int | None = None) -> None:
        """A release begins a new life: nothing of its former one is held against it. life: its number in the fleet."""
        self._source.forget(release, life)
        for key in [k for k in self._held if k[2] == release]:
            del self._held[key]

    async def judge(self, state: ReleaseState) -> tuple[Action, tuple[Verdict, ...]]:
        """Return the action and all verdicts, those of stable included.

        Reading a month of windows takes milliseconds, so it is done beside the loop that carries the answers.
        """
        sick = self._vitals.sick()
        self._blind_now = self._blind()
        known = self._known()
        self._source.set_limits({s.name: limit_for(s, known).value for s in self._slos if _is_latency(s)})
        self._source.compare(trial_setup(state, self._versions, self._clock.now_s(), self._expected))
        self.last = await self._offload(lambda: self._evaluate(state, known, sick))
        self.last_s = self._clock.now_s()
        return self.last.action, _verdicts(self.last.judged)

    def _evaluate(self, state: ReleaseState, known: Known, sick: str) -> Judgement:
        stable = self._arm("stable", state.stable, known, sick)
        canary = self._arm("canary", state.canary, known, sick) if state.canary and state.in_traffic else ()
        canary = _with(
            canary,
            comparisons(_verdicts(canary), _verdicts(stable), self._source, state.canary_ratio, sick, self._blind_now),
        )
        if state.phase is Phase.PROMOTED:
            stable = _with(stable, self._watch.beside(_verdicts(stable), self._source, known, sick, self._blind_now))
        stable += self._from_outside("stable", state.stable)
        canary += self._from_outside("canary", state.canary) if state.canary and state.in_traffic else ()
        action = decide(_verdicts(canary), _verdicts(stable), self._snapshot(state, sick))
        judged = stable + canary
        self._forget({j.verdict.release for j in judged})
        return Judgement(self._clock.wall_s(), action, judged)

    def _arm(self, arm: str, name: str, known: Known, sick: str) -> tuple[Judged, ...]:
        version = self._versions(name)
        if version is None:
            return ()
        release = version.release_id
        return tuple(self._one(slo, arm, release, known, sick) for slo in self._slos)

    def _one(self, slo: Slo, arm: str, release: str, known: Known, sick: str) -> Judged:
        limit = limit_for(slo, known)
        # A detector that may not be believed says nothing about the past hour either: nobody knows since when.
        sick = sick or self._blind_now.get(slo.indicator, "")

        def read(length_s: float) -> Reading:
            return self._source.reading(slo, release, length_s)

        value = self._shown(slo, release)
        try:
            verdict = judge(slo, release, read, limit, value)
        except SourceError as error:
            # Blind for this objective, as we are when we are sick: nothing is forgotten and nothing is counted on.
            verdict = Verdict(slo, release, State.UNKNOWN, None, limit.value, "")
            sick = str(error)
        budget = _budget(verdict, read, limit)
        key = (slo.name, arm, release)
        held, now_s = self._held.get(key, NOT_HELD), self._clock.now_s()
        if sick:
            # Our own stall is no proof of anything: what was held is neither forgotten nor counted on.
            self._held[key], verdict = suspend(held, replace(verdict, reason=f"{slo.name}: {sick}"), now_s)
        else:
            self._held[key], verdict = advance(held, verdict, now_s)
        return Judged(verdict, arm, value, budget, limit.value)

    def _shown(self, slo: Slo, release: str) -> float | None:
        """The present value, for people: one that cannot be had keeps nothing from being judged."""
        try:
            return self._source.objective_value(slo, release)
        except SourceError:
            return None

    def _from_outside(self, arm: str, name: str) -> tuple[Judged, ...]:
        version = self._versions(name)
        found = self._outside(version.release_id) if version else ()
        return tuple(Judged(v, arm, None, None, v.threshold) for v in found)

    def _snapshot(self, state: ReleaseState, sick: str) -> ReleaseSnapshot:
        now_s = self._clock.now_s()
        promoted = state.phase is Phase.PROMOTED
        return ReleaseSnapshot(
            has_canary=bool(state.canary) and state.in_traffic,
            weight=state.canary_ratio,
            hold_satisfied=hold_satisfied(state, now_s),
            events_satisfied=events_satisfied(state),
            unknown_for_s=unknown_for_s(state, now_s),
            sick=sick,
            previous_known=bool(state.previous),
            since_promotion_s=now_s - state.stage_started_s if promoted else None,
        )

    def _forget(self, releases: set[str]) -> None:
        """Releases that are no longer judged hold nothing."""
        for key in [k for k in self._held if k[2] not in releases]:
            del self._held[key]


def _budget(verdict: Verdict, read: Read, limit: Limit) -> float | None:
    """What is left in the objective's own window, whichever window the verdict was read from; None while unknown."""
    slo, reading = verdict.slo, verdict.reading
    if slo.burn_rate or verdict.fast:
        try:
            reading = read(slo.window.length_s)
        except SourceError:
            return None
    return budget_remaining_ratio(slo, reading, limit) if reading is not None else None


def _verdicts(judged: tuple[Judged, ...]) -> tuple[Verdict, ...]:
    return tuple(j.verdict for j in judged)


def _with(judged: tuple[Judged, ...], verdicts: tuple[Verdict, ...]) -> tuple[Judged, ...]:
    return tuple(replace(one, verdict=verdict) for one, verdict in zip(judged, verdicts, strict=True))


def _is_latency(slo: Slo) -> bool:
    return INDICATORS[slo.indicator].kind == "latency"
