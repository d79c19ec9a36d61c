"""Makes decisions real, in the order that keeps users safe, and survives restarts and other replicas.

Reducing exposure happens here first and is told to the registry afterwards. Raising it happens in the registry first
(compare-and-set by epoch) and here only when that was won.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from guard.release import state as rules
from guard.release.agreement import Agreement
from guard.release.casebook import Casebook
from guard.release.control import adopt, confirmed, descended
from guard.release.facts import Facts
from guard.release.journal import Journal
from guard.release.ledger import Ledger
from guard.release.outbox import Offload, Outbox
from guard.release.pointer import ReleaseRegistry
from guard.release.records import Intent, SagaStep
from guard.release.report import Hooks
from guard.release.saga import Rollback, SagaResult
from guard.release.served import Served
from guard.release.state import Condition, Mode, Phase, ReleaseState, RollbackOrder
from slo.clock import Clock
from slo.errors import GuardError, RefusedError
from slo.types import Verdict

RETRY_FIRST_S, RETRY_LAST_S = 1.0, 300.0
LATE_S = 30.0


class Enactor:
    """Holds the release state of this process and changes it. Callers take turns; see `Controller`.

    served: what is in force here. ledger: what is written down. agreement: what all replicas share.
    """

    def __init__(
        self,
        *,
        state: ReleaseState,
        journal: Journal,
        registry: ReleaseRegistry | None,
        apply: Callable[[ReleaseState], None],
        outbox: Outbox,
        clock: Clock,
        facts: Facts,
        casebook: Casebook,
        hooks: Hooks,
        offload: Offload,
        at: Callable[[str], None],
    ) -> None:
        self.served = Served(state, apply, clock, facts, hooks)
        self.ledger = Ledger(journal, clock, offload)
        self.agreement = Agreement(registry, self.served, self.ledger, clock, facts, hooks)
        self._journal, self._outbox = journal, outbox
        self._clock, self._facts, self._casebook, self._hooks = clock, facts, casebook, hooks
        self._owed: Intent | None = None
        self._owed_since_s = self._retry_at_s = self._retry_after_s = 0.0
        self._late = False
        self._saga = Rollback(
            journal=journal,
            registry=registry,
            apply=self.served.obey,
            outbox=outbox,
            clock=clock,
            usable=lambda name: name in facts.versions,
            offload=offload,
            at=at,
        )

    @property
    def state(self) -> ReleaseState:
        """The release now."""
        return self.served.state

    @property
    def owes(self) -> str:
        """What is not finished: rollback | control | pointer, or nothing."""
        shared = "control" if self.agreement.owes_control else "pointer" if self.agreement.owes_pointer else ""
        return "rollback" if self._owed else shared

    @property
    def unfinished(self) -> str:
        """Incident of the rollback that is owed, or nothing."""
        return self._owed.saga_id if self._owed else ""

    # -- start --------------------------------------------------------------------------------------------------

    def restore(self) -> ReleaseState:
        """Apply the last committed state; never a default split after a crash. Blocks on the disk.

        Raises:
            DataError: the journal cannot be read; a person decides what to do with it.
        """
        configured = self.state
        loaded = self._journal.load_state(configured.service)
        state, held_s = loaded if loaded else (configured, 0.0)
        intent = self._journal.read_intent()
        if intent is not None and intent.state.epoch >= state.epoch:
            self._owed = intent
            state = intent.state if intent.state.epoch > state.epoch else state
        elif state.phase is Phase.ROLLING_BACK:
            self._owed = self._promise_of(state)
            if self._owed is None:
                state = rules.finish_rollback(state)  # The promise was kept; only the last line was lost.
        self.ledger.restore()
        now_s = self._clock.now_s()
        self.served.restore(
            replace(
                self.served.servable(state, configured.stable),
                mode=configured.mode,
                stage_started_s=now_s - held_s,
                unknown_since_s=None,
                conditions=rules.lasting(state),
                shedding=state.shedding and configured.mode is Mode.ENFORCE,
                recommendation="",
            ),
            recorded=state,
        )
        return self.state

    async def recover(self) -> None:
        """Finish what an earlier process began and obey the registry; one that is down is no fault."""
        await self._outbox.load()
        if self._owed is None:
            await self.ledger.quietly(lambda: self._journal.clear_intent())  # older than the state: it was kept
        else:
            await self._settle(await self._saga.finish(self._owed), self._owed)
        await self.ledger.quietly(lambda: self._journal.clear_intent(drill=True))
        self.agreement.owes_pointer = self.agreement.has_pointer_to_show()
        await self.sync()
        try:
            await self.agreement.register()
        except GuardError:
            pass  # Done again before the next rollout, where it is required.

    # -- changes ------------------------------------------------------------------------------------------------

    async def roll_back(
        self, moved: ReleaseState, order: RollbackOrder, verdicts: tuple[Verdict, ...], actor: str
    ) -> SagaResult:
        """Run the saga as far as it goes now; what is left is done at later ticks and after restarts."""
        before = self.state
        incident = self._casebook.of_rollback(before, order, verdicts, actor)
        moved = descended(before, replace(moved, incident_id=incident.incident_id))
        intent = Intent(incident.incident_id, before.epoch, order.promoted, moved, incident)
        self._casebook.hold(incident)
        self._owe(intent)  # Until it is settled: the rest is done at the next tick, whatever goes wrong here.
        result = await self._saga.begin(intent)
        self._hooks.on_rollback(incident.rule, order.automatic)
        await self.ledger.audit("rollback", actor, before, moved, order.reason)
        await self._settle(result, intent)
        return result

    async def raise_exposure(self, moved: ReleaseState, action: str, actor: str, detail: str = "") -> None:
        """Registry first; a lost race, a registry that does not answer or a dead disk mean that nothing changed.

        Raises:
            RefusedError: unknown_version, conflict (the winner is obeyed), disk_full, disk_fault.
            UpstreamError: the registry did not answer.
        """
        before, served = self.state, moved.canary or moved.stable
        if served not in self._facts.versions:
            raise RefusedError(
                "unknown_version", f"{action}: {served!r} is not in guard.yaml any more; add it to versions, or abort"
            )
        line = self.ledger.line(action, actor, before, moved, detail)
        moved = descended(before, moved)
        await self.agreement.commit(moved, actor, raising=line)
        self.ledger.last_deed = line
        self.served.obey(confirmed(moved))
        await self.ledger.save_progress(self.state, force=True)
        self.agreement.owes_pointer = moved.phase is Phase.PROMOTED and before.phase is not Phase.PROMOTED
        if self.agreement.owes_pointer:
            await self.agreement.show(actor)

    async def reduce_exposure(self, moved: ReleaseState, action: str, actor: str, detail: str = "") -> None:
        """Here first; the registry hears of it now or at a later tick."""
        before = self.state
        moved = descended(before, moved)
        self.served.obey(moved)
        await self.ledger.audit(action, actor, before, moved, detail)
        await self.ledger.save_progress(self.state, force=True)
        await self.agreement.tell(moved, actor)

    async def keep(self, moved: ReleaseState, *, exposure: bool) -> None:
        """Take over a state with the same epoch (conditions, counters, shedding)."""
        told = moved.conditions != self.state.conditions
        if exposure:
            self.served.obey(moved)
        self.served.state = moved
        await self.ledger.save_progress(self.state, force=exposure or told)

    # -- every tick ---------------------------------------------------------------------------------------------

    async def sync(self) -> None:
        """Obey the registry, and say what is owed to it; see `Agreement.look`."""
        await self.agreement.look(follow=self._owed is None)

    async def retry(self) -> bool:
        """Go on with an unfinished rollback when it is due; False when none is owed."""
        now_s = self._clock.now_s()
        if self._owed is None:
            return False
        if now_s >= self._retry_at_s:
            if not self._late and now_s - self._owed_since_s >= LATE_S:
                self._late = True
                self._hooks.on_alert("rollback_pending", "weight is 0 here; registry or journal did not take it yet")
            self._retry_after_s = min(RETRY_LAST_S, max(RETRY_FIRST_S, self._retry_after_s * 2))
            self._retry_at_s = now_s + self._retry_after_s
            await self._settle(await self._saga.finish(self._owed), self._owed)
        return True

    # -- inside -------------------------------------------------------------------------------------------------

    def _promise_of(self, state: ReleaseState) -> Intent | None:
        """The promise of a rollback that was begun while the disk refused it and recorded when it took it again."""
        incident = self._journal.incident(state.incident_id)
        if incident is None or any(row.step is SagaStep.DONE for row in self._journal.steps(state.incident_id)):
            return None
        return Intent(incident.incident_id, state.epoch - 1, False, state, incident)

    async def _settle(self, result: SagaResult, intent: Intent) -> None:
        """Take over what the saga arrived at."""
        now_s = self._clock.now_s()
        state = replace(result.state, mode=self.state.mode, stage_started_s=now_s)
        if result.winner is not None:
            state = self.served.servable(adopt(state, result.winner, now_s), state.stable)
        elif result.status == "done":
            state = confirmed(state)
        self.served.obey(state)
        self.agreement.owes_pointer = result.winner is not None and self.agreement.has_pointer_to_show()
        self._hooks.on_incident(result.incident)
        if result.status == "pending":
            self._owe(intent)
            return
        self._owed, self._owed_since_s, self._late = None, 0.0, False
        self._casebook.release(intent.saga_id)
        if result.incident.pointer == "no_target":
            self._hooks.on_alert(Condition.NO_TARGET, f"{result.incident.target.name} cannot be served")
        elif result.incident.pointer == "elsewhere":
            self._hooks.on_alert("pointer_elsewhere", "rolled back; the registry's pointer is held by somebody else")
        await self.ledger.save_progress(self.state, force=True)

    def _owe(self, intent: Intent) -> None:
        now_s = self._clock.now_s()
        if self._owed_since_s == 0.0:
            self._owed_since_s, self._retry_after_s = now_s, RETRY_FIRST_S
        self._owed, self._retry_at_s = intent, now_s + self._retry_after_s
