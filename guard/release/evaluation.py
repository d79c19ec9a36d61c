"""One evaluation: what the judge says, what is done about it, and who is told."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import Protocol

from guard.release import state as rules
from guard.release.casebook import Casebook
from guard.release.enactor import Enactor
from guard.release.facts import Facts
from guard.release.raising import Raiser
from guard.release.report import Hooks
from guard.release.state import Condition, Effects, ReleaseState
from slo.clock import Clock
from slo.errors import SourceError
from slo.types import Action, ActionKind, Verdict

Judgement = tuple[Action, tuple[Verdict, ...]]


class Judge(Protocol):
    """Decides what the release should do. May be a coroutine function.

    Raises:
        SourceError: it could not look. That is no verdict: the release holds.
    """

    def judge(self, state: ReleaseState) -> Judgement | Awaitable[Judgement]: ...


class Evaluation:
    """Asks the judge, and carries out what a step came to. Callers take turns; see `Controller`."""

    def __init__(
        self, judge: Judge, enactor: Enactor, casebook: Casebook, clock: Clock, facts: Facts, hooks: Hooks
    ) -> None:
        self._judge, self._enactor, self._cases, self._facts, self._hooks = judge, enactor, casebook, facts, hooks
        self._raiser = Raiser(enactor, clock, hooks.on_alert)

    async def ask(self) -> Judgement:
        """What the judge says of the release; a hold when it cannot say."""
        try:
            judged = self._judge.judge(self._enactor.state)
            return await judged if inspect.isawaitable(judged) else judged
        except SourceError as error:
            # Blind: holding is safer than moving traffic without data.
            return Action(ActionKind.HOLD, f"unknown: {error}"), ()
        except Exception as error:
            # A judge that breaks must not take the loop with it; to the release it is as good as blind.
            self._hooks.on_alert("judge_failed", f"{type(error).__name__}: {error}")
            return Action(ActionKind.HOLD, f"unknown: the judge failed ({type(error).__name__})"), ()

    async def carry_out(
        self, moved: ReleaseState, effects: Effects, action: Action, verdicts: tuple[Verdict, ...]
    ) -> None:
        """Make the step real. Exposure first: telling people writes to the disk, which may take its time or fail."""
        before = self._enactor.state
        order = effects.rollback
        if order is not None and order.promoted and order.target not in self._facts.versions:
            await self._no_target(before, order.target, action)
        elif order is not None:
            await self._enactor.roll_back(moved, order, action.verdicts or verdicts, "guard")
        elif effects.promoted or moved.canary_ratio > before.canary_ratio:
            await self._raiser.go(moved, effects)
        elif moved.epoch != before.epoch:
            await self._enactor.reduce_exposure(moved, action.kind.value, "guard", effects.reason)
        else:
            await self._enactor.keep(moved, exposure=effects.exposure)
        await self._tell(before, moved, effects, action, verdicts)

    async def _tell(
        self,
        before: ReleaseState,
        moved: ReleaseState,
        effects: Effects,
        action: Action,
        verdicts: tuple[Verdict, ...],
    ) -> None:
        await self._cases.watch(self._enactor.state, action, verdicts or action.verdicts)
        for condition in effects.alerts:
            self._hooks.on_alert(condition, action.reason)
            await self._cases.begin(condition, before, action)
        if effects.recommendation:
            self._hooks.on_recommendation(effects.recommendation)
            await self._enactor.ledger.audit("recommend", "guard", before, moved, effects.recommendation)

    async def _no_target(self, before: ReleaseState, target: str, action: Action) -> None:
        """There is nothing sound to return to: the pointer never goes to a missing artifact."""
        held, fresh = rules.with_condition(before, Condition.NO_TARGET)
        if fresh:
            why = f"{target} is not configured; {action.reason}"
            self._hooks.on_alert(Condition.NO_TARGET, why)
            await self._cases.begin(Condition.NO_TARGET, before, action, why)
        await self._enactor.keep(held, exposure=False)
