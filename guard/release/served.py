"""The release as this process serves it: the one place where a state becomes effective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from guard.release import state as rules
from guard.release.facts import Facts
from guard.release.report import Hooks
from guard.release.state import Phase, ReleaseState
from slo.clock import Clock


class Served:
    """state: the release now. apply: makes a state effective in this process at once; must not fail or wait."""

    def __init__(
        self, state: ReleaseState, apply: Callable[[ReleaseState], None], clock: Clock, facts: Facts, hooks: Hooks
    ) -> None:
        self.state = state
        self._apply, self._clock, self._facts, self._hooks = apply, clock, facts, hooks
        self._events_seen = 0
        self._life: tuple[str, int] | None = None

    def restore(self, state: ReleaseState, recorded: ReleaseState) -> None:
        """Serve what an earlier process did. What was counted of the `recorded` rollout before is still about it."""
        self._life = _life_of(recorded)
        self.obey(state)

    def obey(self, state: ReleaseState) -> None:
        """Serve this from now on."""
        if (state.canary, state.stage) != (self.state.canary, self.state.stage) or not self.state.in_traffic:
            self._events_seen = self._facts.event_count(state.canary) if state.canary else 0
        life = _life_of(state)
        if life is not None and life != self._life:
            self._life = life
            state = replace(state, began_wall_s=self._clock.wall_s())
            self._hooks.on_new_life(*life)
        self.state = state
        self._apply(state)
        self._hooks.on_state(state)

    def count_events(self) -> None:
        """Add the canary's exchanges since the last call to its stage."""
        if not self.state.in_traffic:
            return
        seen = self._facts.event_count(self.state.canary)
        self.state = rules.count_events(self.state, seen - self._events_seen)
        self._events_seen = seen

    def servable(self, state: ReleaseState, fallback: str) -> ReleaseState:
        """Never route to a version that this process is not configured for; the document itself is left alone."""
        known = self._facts.versions
        if state.stable not in known:
            return replace(state, stable=fallback, canary="", previous="", canary_ratio=0.0, phase=Phase.IDLE)
        if state.in_traffic and state.canary not in known:
            return replace(state, canary="", canary_ratio=0.0, phase=Phase.IDLE)
        return state


def _life_of(state: ReleaseState) -> tuple[str, int] | None:
    """The rollout under way: every end of one but a promotion moves the cache epoch, so it tells two lives apart."""
    return (state.canary, state.cache_epoch) if state.phase in (Phase.ROLLING_OUT, Phase.PAUSED) else None
