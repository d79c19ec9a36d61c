"""The release loop: ask the judge, step, carry out. It knows no threshold and no percentage: it only repeats.

Commands of people go through the same door and take turns with the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from guard.release import state as rules
from guard.release.casebook import Casebook
from guard.release.drill import rehearse
from guard.release.enactor import Enactor
from guard.release.evaluation import Evaluation, Judge
from guard.release.facts import Facts
from guard.release.incident import Incident
from guard.release.journal import Journal
from guard.release.outbox import Offload, Outbox, in_thread
from guard.release.plan import DEFAULT, Plan
from guard.release.pointer import ReleaseRegistry
from guard.release.report import CommandResult, DrillResult, Hooks, Last, ReleaseStatus, status_of
from guard.release.state import ROLLBACKS_PER_DAY, UNKNOWN_LIMIT_S, Advance, Mode, ReleaseState
from slo.clock import Clock
from slo.errors import RefusedError
from slo.types import Action, ActionKind

EVERY_S = 5.0


class Controller:
    """One release of one service. Commands are safe to call at any time; they take turns with the loop.

    stable: the version of the configuration, used until a state is recorded. apply: makes a state effective in this
    process at once (split, cache epoch); must not fail or wait. registry None: this process alone decides.
    unknown_after_s: how long a canary in traffic may go unjudged before people are told.

    Every command takes `expected_epoch`: the epoch that the person saw. When the release has moved since, the command
    is refused as `conflict`; it is compared when the command has its turn, so a rollback in between is noticed.

    Use: `restore()` before any listener opens, `await recover()`, then `run()` as a task beside `outbox.run()`.
    """

    def __init__(
        self,
        journal: Journal,
        registry: ReleaseRegistry | None,
        judge: Judge,
        apply: Callable[[ReleaseState], None],
        outbox: Outbox,
        clock: Clock,
        *,
        service: str,
        stable: str,
        facts: Facts,
        plan: Plan = DEFAULT,
        mode: Mode = Mode.RECOMMEND,
        every_s: float = EVERY_S,
        drain_unknown: bool = False,
        max_rollbacks_per_day: int = ROLLBACKS_PER_DAY,
        unknown_after_s: float = UNKNOWN_LIMIT_S,
        hooks: Hooks | None = None,
        offload: Offload = in_thread,
        at: Callable[[str], None] = lambda _point: None,
    ) -> None:
        self._journal, self._registry, self._outbox = journal, registry, outbox
        self._clock, self._facts, self._plan = clock, facts, plan
        self._every_s, self._drain_unknown, self._offload = every_s, drain_unknown, offload
        self._max_rollbacks_per_day, self._unknown_after_s = max_rollbacks_per_day, unknown_after_s
        self._hooks = hooks or Hooks()
        self.failed_ticks_count = 0
        self._last_tick_s: float | None = None
        self._turn, self._drilling = asyncio.Lock(), asyncio.Lock()
        self._last: Last | None = None
        self._judged: Last | None = None
        self._cases = Casebook(journal, outbox, clock, facts, offload, self._hooks.on_incident)
        self._enactor = Enactor(
            state=ReleaseState(service=service, stable=stable, mode=mode),
            journal=journal,
            registry=registry,
            apply=apply,
            outbox=outbox,
            clock=clock,
            facts=facts,
            casebook=self._cases,
            hooks=self._hooks,
            offload=offload,
            at=at,
        )
        self._evaluation = Evaluation(judge, self._enactor, self._cases, clock, facts, self._hooks)

    @property
    def state(self) -> ReleaseState:
        """The release now."""
        return self._enactor.state

    def restore(self) -> ReleaseState:
        """Apply the last committed state. Call before any listener opens; blocks on the disk.

        Raises:
            DataError: the journal cannot be read; a person decides what to do with it.
        """
        return self._enactor.restore()

    async def recover(self) -> None:
        """Finish an interrupted rollback and obey the registry. Does not fail when the registry is down."""
        async with self._turn:
            await self._enactor.recover()

    @property
    def last_tick_s(self) -> float | None:
        """Monotonic second at which an evaluation was last completed; None before the first."""
        return self._last_tick_s

    async def run(self) -> None:
        """Repeat forever; cancel to stop. What goes wrong at one tick is told, and the next one comes all the same."""
        while True:
            try:
                await self.tick()
            except Exception as error:
                # A loop that ends leaves a bad canary in traffic for good: nothing unforeseen may do that.
                self.failed_ticks_count += 1
                with suppress(Exception):
                    self._hooks.on_alert("tick_failed", f"{type(error).__name__}: {error}"[:500])
            await self._clock.sleep(self._every_s)

    async def tick(self) -> None:
        """One evaluation: ask, step, carry out. While a rollback is owed the judge is asked, and that is all."""
        async with self._turn:
            await self._enactor.sync()
            owed = await self._enactor.retry()
            if not owed:
                self._enactor.served.count_events()
            action, verdicts = await self._evaluation.ask()
            self._last = self._judged = (action, verdicts, self._clock.now_s())
            if owed:
                await self._cases.watch(self.state, action, verdicts or action.verdicts)
            else:
                stable_id = self._facts.version(self.state.stable).release_id
                state, effects = rules.step(
                    self.state,
                    action,
                    self._clock.now_s(),
                    self._clock.wall_s(),
                    stable=tuple(v for v in verdicts if v.release == stable_id),
                    drain_unknown=self._drain_unknown,
                    max_rollbacks_per_day=self._max_rollbacks_per_day,
                    unknown_after_s=self._unknown_after_s,
                )
                await self._evaluation.carry_out(state, effects, action, verdicts)
            self._last_tick_s = self._clock.now_s()

    # -- commands -----------------------------------------------------------------------------------------------

    async def start(
        self,
        canary: str,
        *,
        actor: str,
        plan: Plan | None = None,
        advance: str = "manual",
        again: bool = False,
        reason: str = "",
        expected_epoch: int | None = None,
    ) -> CommandResult:
        """Begin a rollout. Raises RefusedError, UpstreamError."""
        if canary not in self._facts.versions:
            known = ", ".join(sorted(self._facts.versions))
            raise RefusedError("unknown_version", f"canary: got {canary!r}; versions in guard.yaml: {known}")
        who = _advance_of(advance)
        async with self._turn:
            self._may_go(expected_epoch)
            moved = rules.start(self.state, canary, plan or self._plan, self._clock.now_s(), advance=who, again=again)
            await self._enactor.agreement.register(canary)
            await self._enactor.raise_exposure(moved, "start", actor, reason)
            await self._cases.close_rollbacks("a new rollout began")
            return self._result("start", f"{canary} takes {moved.canary_ratio:.0%} of the sessions")

    async def promote(self, *, actor: str, reason: str = "", expected_epoch: int | None = None) -> CommandResult:
        """Make the canary stable now. Raises RefusedError, UpstreamError."""
        async with self._turn:
            self._may_go(expected_epoch)
            moved = rules.promote(self.state, self._clock.now_s())
            await self._enactor.raise_exposure(moved, "promote", actor, reason)
            return self._result("promote", f"{moved.stable} is stable; {moved.previous} is kept to return to")

    async def advance(self, *, actor: str, reason: str = "", expected_epoch: int | None = None) -> CommandResult:
        """Raise the weight by one stage; past the last one this promotes. Raises RefusedError, UpstreamError."""
        async with self._turn:
            self._may_go(expected_epoch)
            moved = rules.advance(self.state, self._clock.now_s())
            await self._enactor.raise_exposure(moved, "advance", actor, reason)
            return self._result("advance", f"{moved.canary or moved.stable}: stage {moved.stage + 1}, {moved.phase}")

    async def abort(self, *, actor: str, reason: str = "", expected_epoch: int | None = None) -> CommandResult:
        """End the rollout without blame. Works with the registry down. Raises RefusedError."""
        async with self._turn:
            self._may_go(expected_epoch)
            canary, moved = self.state.canary, rules.abort(self.state)
            await self._enactor.reduce_exposure(moved, "abort", actor, reason)
            return self._result("abort", f"{canary} takes no traffic; {moved.stable} answers")

    async def rollback(
        self,
        *,
        actor: str,
        reason: str = "asked for by a person",
        force: bool = False,
        expected_epoch: int | None = None,
    ) -> CommandResult:
        """Roll back now, in every mode. Works with the registry down. Raises RefusedError.

        force: also when no rollout and no promotion is in force, to the version before the last promotion.
        """
        async with self._turn:
            self._may_go(expected_epoch)
            state, order = rules.rollback(self.state, reason, force=force)
            if order.promoted and order.target not in self._facts.versions:
                raise RefusedError(
                    "no_target", f"{order.target!r} is not configured any more; add it to guard.yaml versions first"
                )
            result = await self._enactor.roll_back(state, order, (), actor)
            message = f"{order.bad} takes no traffic; {self.state.stable} answers; {result.status}"
            return self._result("rollback", message, result.incident.incident_id)

    async def pause(self, *, actor: str, reason: str = "", expected_epoch: int | None = None) -> CommandResult:
        """Keep the weight and stop advancing. Raises RefusedError."""
        async with self._turn:
            self._may_go(expected_epoch)
            await self._enactor.reduce_exposure(rules.pause(self.state), "pause", actor, reason)
            return self._result("pause", f"held at {self.state.canary_ratio:.0%}")

    async def resume(self, *, actor: str, reason: str = "", expected_epoch: int | None = None) -> CommandResult:
        """Go on in the current stage. Raises RefusedError, UpstreamError."""
        async with self._turn:
            self._may_go(expected_epoch)
            moved = rules.resume(self.state, self._clock.now_s())
            await self._enactor.raise_exposure(moved, "resume", actor, reason)
            return self._result("resume", f"{self.state.canary} at {self.state.canary_ratio:.0%}")

    async def close_incident(self, incident_id: str, *, actor: str, reason: str = "") -> Incident:
        """A person has dealt with it; alerts stop being renewed. Raises RefusedError, JournalError.

        The incident of a rollback that is not finished stays open: what it still owes is told under it.
        """
        async with self._turn:
            if self._enactor.unfinished == incident_id:
                cure = "the registry or the disk did not take it yet; see `release status`, then close it"
                raise RefusedError("busy", f"the rollback of {incident_id} is not finished: {cure}")
            return await self._cases.close(incident_id, actor, reason)

    async def drill(self, *, actor: str, target_s: float = 300.0, expected_epoch: int | None = None) -> DrillResult:
        """Rehearse a rollback with real files, registry and receivers, and no user's traffic."""
        async with self._turn:
            self._at_epoch(expected_epoch)
        names = [name for name in (self.state.canary, self.state.previous) if name] or [self.state.stable]
        async with self._drilling:
            return await rehearse(
                journal=self._journal,
                registry=self._registry,
                outbox=self._outbox,
                clock=self._clock,
                offload=self._offload,
                service=self.state.service,
                bad=self._facts.version(names[0]),
                target=self._facts.version(self.state.stable),
                actor=actor,
                target_s=target_s,
            )

    async def configure(
        self,
        *,
        plan: Plan,
        mode: Mode,
        every_s: float,
        drain_unknown: bool,
        max_rollbacks_per_day: int = ROLLBACKS_PER_DAY,
        unknown_after_s: float = UNKNOWN_LIMIT_S,
    ) -> None:
        """Take what a reload of the configuration may change; a rollout under way keeps its plan."""
        async with self._turn:
            self._plan, self._every_s, self._drain_unknown = plan, every_s, drain_unknown
            self._max_rollbacks_per_day, self._unknown_after_s = max_rollbacks_per_day, unknown_after_s
            if mode is not self.state.mode:
                shedding = self.state.shedding and mode is Mode.ENFORCE
                moved = replace(self.state, mode=mode, recommendation="", shedding=shedding)
                await self._enactor.keep(moved, exposure=shedding is not self.state.shedding)

    def status(self) -> ReleaseStatus:
        """The release as a person wants to see it."""
        return status_of(
            self.state,
            self._last,
            now_s=self._clock.now_s(),
            wall_s=self._clock.wall_s(),
            registry=self._enactor.agreement.word,
            journal=self._enactor.ledger.word,
            pending=self._enactor.owes,
            outbox_waiting_count=self._outbox.waiting_count,
            rollbacks_allowed=self._max_rollbacks_per_day,
            judged=self._judged,
            last_deed=self._enactor.ledger.last_deed,
        )

    async def open_incidents(self) -> tuple[Incident, ...]:
        """Incidents nobody closed, and those closed within the last minutes (so that alerts resolve)."""
        return await self._cases.current()

    # -- inside -------------------------------------------------------------------------------------------------

    def _may_go(self, expected_epoch: int | None) -> None:
        self._at_epoch(expected_epoch)
        if self._enactor.owes == "rollback":
            raise RefusedError("busy", "a rollback is being finished; see `release status`")

    def _at_epoch(self, expected: int | None) -> None:
        if expected is not None and expected != self.state.epoch:
            raise RefusedError("conflict", f"the release is at epoch {self.state.epoch}, not {expected}; look again")

    def _result(self, command: str, message: str, incident_id: str = "") -> CommandResult:
        if self._enactor.owes == "control":
            message += "; the other replicas go on until the registry takes it"
        # Until the next evaluation the reason is what a person did, not what was judged before it.
        verdicts = self._last[1] if self._last else ()
        self._last = (Action(ActionKind.HOLD, f"{command} by a person: {message}"), verdicts, self._clock.now_s())
        return CommandResult(command, message, self.status(), incident_id)


def _advance_of(word: str) -> Advance:
    try:
        return Advance(word)
    except ValueError:
        raise RefusedError("invalid", f"advance: got {word[:40]!r}; one of {', '.join(Advance)}") from None
