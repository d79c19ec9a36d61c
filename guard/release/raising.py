"""Raises exposure for automation. What is not taken is told once, and asked for again ever more seldom."""

from __future__ import annotations

from collections.abc import Callable

from guard.release.enactor import Enactor
from guard.release.state import Effects, ReleaseState
from slo.clock import Clock
from slo.errors import GuardError

FIRST_S, LAST_S = 5.0, 300.0
"""Seconds between two tries: doubled from the first to the last."""


class Raiser:
    """on_alert(word, sentence) is told when a stage is not taken, once until the release moves."""

    def __init__(self, enactor: Enactor, clock: Clock, on_alert: Callable[[str, str], None]) -> None:
        self._enactor, self._clock, self._on_alert = enactor, clock, on_alert
        self._stuck_epoch: int | None = None  # epoch of the state that could not be raised
        self._again_s = self._wait_s = 0.0

    async def go(self, moved: ReleaseState, effects: Effects) -> None:
        """Raise to `moved` if that is due. Not won, not raised: the next evaluation sees what there is then."""
        epoch, now_s = self._enactor.state.epoch, self._clock.now_s()
        stuck = epoch == self._stuck_epoch
        if stuck and now_s < self._again_s:
            return
        try:
            word = "promote" if effects.promoted else "advance"
            await self._enactor.raise_exposure(moved, word, "guard", effects.reason)
        except GuardError as error:
            if self._enactor.state.epoch != epoch:
                return  # Somebody else was first and is obeyed; in a fleet that is how it goes.
            self._wait_s = min(LAST_S, self._wait_s * 2) if stuck else FIRST_S
            self._stuck_epoch, self._again_s = epoch, now_s + self._wait_s
            if not stuck:
                self._on_alert("advance_refused", f"{effects.reason}; {error}")
