"""One service in virtual time: traffic by the weights, the real judge, the real step, the new weights.

The judge, its limits, windows' borders, holds, the decision, the plan, epochs and the rollbacks-a-day limit are the
guard's own. What is left out is the outside: journal, registry and webhooks, which have tests of their own; a rollback
that was decided is carried out at once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from math import exp, sqrt
from typing import Any

import numpy

from bench.traffic.arrivals import Load
from bench.traffic.behaviour import ALWAYS_HEALTHY, Course
from bench.traffic.counting import draw
from bench.traffic.record import Record
from bench.traffic.source import CountedSource
from bench.traffic.upstream import CALM, Upstream
from guard.judge import SloJudge, Vitals
from guard.release import state as rules
from guard.release.plan import DEFAULT, Plan
from guard.release.state import Advance, Mode, ReleaseState
from slo.clock import HandClock
from slo.thresholds import NOTHING_KNOWN, Known
from slo.types import Slo, Version

MONDAY_S = 1_795_392_000.0
"""2026-11-23, a Monday, 00:00 UTC: t = 0 of every simulation."""
NOISE_RATIO = 0.01
NOISE_FADE_S = 600.0


@dataclass(frozen=True, slots=True)
class Release:
    """A version and how it answers over the time of the simulation."""

    version: Version
    course: Course = ALWAYS_HEALTHY


@dataclass(slots=True)
class _Arm:
    """What is remembered of one release: its slow noise, so that neighbouring minutes are alike."""

    release: Release
    noise: float = 0.0


@dataclass
class Service:
    """A guarded service at `t_s`, in mode enforce.

    step_s: grain of the traffic. tick_s: between two evaluations, a multiple of it; None: every step. known: baselines.
    seed: of everything random.
    """

    slos: tuple[Slo, ...]
    load: Load
    stable: Release
    seed: int = 1
    step_s: float = 5.0
    tick_s: float | None = None
    known: Known = NOTHING_KNOWN
    upstream: Upstream = CALM
    mode: Mode = Mode.ENFORCE
    begin_s: float = 0.0
    record: Record = field(default_factory=Record)

    def __post_init__(self) -> None:
        self.chance = numpy.random.default_rng(self.seed)
        self.clock = HandClock(self.begin_s, MONDAY_S)
        self.source = CountedSource(self.slos, self.clock)
        self._arms: dict[str, _Arm] = {}
        self._due_s = self.begin_s + (self.tick_s or self.step_s)
        self._add(self.stable)
        self.state = ReleaseState(service="faq-bot", stable=self.stable.version.name, mode=self.mode)
        self.judge = SloJudge(
            self.slos, self.source, self._known, self._version, Vitals(self.clock), self.clock, offload=_here
        )

    @property
    def t_s(self) -> float:
        """Seconds since Monday 00:00."""
        return self.clock.at_s

    def start(self, canary: Release, plan: Plan = DEFAULT, *, advance: Advance = Advance.AUTO) -> None:
        """A person starts a canary. Raises RefusedError as the guard does."""
        self._add(canary)
        self.judge.forget(canary.version.release_id)
        self.state = rules.start(self.state, canary.version.name, plan, self.t_s, advance=advance)

    def promote(self) -> None:
        """A person makes the canary stable."""
        self.state = rules.promote(self.state, self.t_s)

    def run_until(self, t_s: float, *, stop: Callable[[Service], bool] = lambda _service: False) -> Record:
        """Let time pass, step by step, until `t_s` or until `stop` says so."""
        while self.t_s < t_s and not stop(self):
            self.clock.at_s += self.step_s
            self._traffic()
            if self.t_s >= self._due_s - 1e-9:
                self._due_s += self.tick_s or self.step_s
                self.tick()
        return self.record

    def tick(self) -> None:
        """One evaluation of what was counted, and what follows from it."""
        before = self.state
        action, verdicts = _finished(self.judge.judge(before))
        stable_id = self._arms[before.stable].release.version.release_id
        moved, effects = rules.step(
            before, action, self.t_s, self.clock.wall_s(), stable=tuple(v for v in verdicts if v.release == stable_id)
        )
        if effects.rollback is not None:
            moved = rules.finish_rollback(moved)
        self.record.note(self.t_s, self.tick_s or self.step_s, before, moved, action, effects, verdicts)
        self.state = moved
        for name in [n for n in self._arms if n not in (moved.stable, moved.canary, moved.previous)]:
            del self._arms[name]

    # -- inside

    def _traffic(self) -> None:
        """What came during the last step, by the weights as they are."""
        state, expected = self.state, self.load.rate(self.t_s) * self.step_s
        disturbance = self.upstream.at(self.t_s)
        limits = self.source.limits_s()
        shares = {state.stable: 1.0 - state.canary_ratio}
        if state.in_traffic:
            shares[state.canary] = state.canary_ratio
        for name, share in shares.items():
            arm = self._arms[name]
            behaviour = arm.release.course.at(self.t_s)
            found = draw(self.chance, expected * share, behaviour, limits, disturbance, self._noise(arm))
            self.source.count(arm.release.version.release_id, found)
            if name == state.canary:
                self.state = rules.count_events(state, found.questions)

    def _noise(self, arm: _Arm) -> float:
        """Factor about 1 with a standard deviation of 1 %, correlated over ten minutes."""
        kept = exp(-self.step_s / NOISE_FADE_S)
        arm.noise = kept * arm.noise + NOISE_RATIO * sqrt(1.0 - kept * kept) * self.chance.normal()
        return max(0.0, 1.0 + arm.noise)

    def _add(self, release: Release) -> None:
        self._arms[release.version.name] = _Arm(release)

    def _version(self, name: str) -> Version | None:
        arm = self._arms.get(name)
        return arm.release.version if arm else None

    def _known(self) -> Known:
        return replace(self.known, wall_s=self.clock.wall_s())


async def _here(call: Callable[[], Any]) -> Any:
    return call()


def _finished(asked: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing: an event loop would cost as much as the judgement."""
    try:
        asked.send(None)
    except StopIteration as done:
        return done.value
    asked.close()
    raise RuntimeError("the judge waited for something that this simulation does not have")
