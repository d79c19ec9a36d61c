"""Makes decisions real, in the order that keeps users safe, and survives restarts and other replicas.

Reducing exposure happens here first and is told to the registry afterwards. Raising it happens in the registry first
(compare-and-set by epoch) and here only when that was won. A later epoch of somebody else is always obeyed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from guard.release import state as rules
from guard.release.casebook import MANUAL, Casebook, rollback_id
from guard.release.control import adopt, confirmed, control_of, descended, may_replace, same, stands_beside
from guard.release.facts import Facts
from guard.release.journal import Journal
from guard.release.ledger import Ledger
from guard.release.outbox import Offload, Outbox
from guard.release.payload import message_id_of
from guard.release.pointer import ReleaseRegistry
from guard.release.records import ADOPT, REFUSED, AuditLine, Intent, SagaStep
from guard.release.report import Hooks
from guard.release.saga import Rollback, SagaResult
from guard.release.served import Served
from guard.release.state import Condition, Mode, Phase, ReleaseState, RollbackOrder
from registry.model import Control, Stage
from slo.clock import Clock
from slo.errors import GuardError, RefusedError, UpstreamError
from slo.types import Verdict

RETRY_FIRST_S, RETRY_LAST_S = 1.0, 300.0
LATE_S = 30.0


class Enactor:
    """Holds the release state of this process and changes it. Callers take turns; see `Controller`.

    registry_word: how the registry answered last, for the status. served: what is in force here. ledger: what is
    written down.
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
        self.registry_word = "none" if registry is None else "ok"
        self.ledger = Ledger(journal, clock, offload)
        self._journal, self._registry, self._outbox = journal, registry, outbox
        self._clock, self._facts, self._casebook, self._hooks = clock, facts, casebook, hooks
        self._owed: Intent | None = None
        self._owes_control = self._owes_pointer = False
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
        return (
            "rollback" if self._owed else "control" if self._owes_control else "pointer" if self._owes_pointer else ""
        )

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
        self._owes_pointer = self._has_pointer_to_show()
        await self.sync()
        try:
            await self.register()
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
        await self._commit(moved, actor, raising=line)
        self.ledger.last_deed = line
        self.served.obey(confirmed(moved))
        await self.ledger.save_progress(self.state, force=True)
        self._owes_pointer = moved.phase is Phase.PROMOTED and before.phase is not Phase.PROMOTED
        if self._owes_pointer:
            await self._pay_pointer(actor)

    async def reduce_exposure(self, moved: ReleaseState, action: str, actor: str, detail: str = "") -> None:
        """Here first; the registry hears of it now or at a later tick."""
        before = self.state
        moved = descended(before, moved)
        self.served.obey(moved)
        await self.ledger.audit(action, actor, before, moved, detail)
        await self.ledger.save_progress(self.state, force=True)
        try:
            await self._commit(moved, actor)
        except UpstreamError:
            self._owes_control = True  # also after a restart: `sync` sees that the registry is behind
        except RefusedError:
            pass  # Somebody else's document won and is obeyed already.
        else:
            await self._confirm()

    async def keep(self, moved: ReleaseState, *, exposure: bool) -> None:
        """Take over a state with the same epoch (conditions, counters, shedding)."""
        told = moved.conditions != self.state.conditions
        if exposure:
            self.served.obey(moved)
        self.served.state = moved
        await self.ledger.save_progress(self.state, force=exposure or told)

    # -- every tick ---------------------------------------------------------------------------------------------

    async def sync(self) -> None:
        """Obey a document that this state does not come from; say what is owed. A silent registry changes nothing."""
        if self._registry is None:
            return
        try:
            now = await self._registry.control()
            self.registry_word = "ok"
            if self._owed is None:
                if now is not None and self._must_obey(now):
                    await self._obey_newer(now)
                else:
                    await self._catch_up(now)
            if self._owes_pointer:
                await self._pay_pointer("guard")
        except UpstreamError:
            self.registry_word = "unreachable"
        except RefusedError:
            pass  # Lost a race just now; the next tick reads the winner.

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

    async def register(self, canary: str = "") -> None:
        """Make sure the registry knows the releases that a rollback would name. Raises GuardError."""
        if self._registry is None:
            return
        await self._registry.ensure(self._facts.version(self.state.stable), Stage.PRODUCTION)
        if canary:
            await self._registry.ensure(self._facts.version(canary), Stage.STAGING)

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
        self._owes_pointer = result.winner is not None and self._has_pointer_to_show()
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

    async def _commit(self, moved: ReleaseState, actor: str, *, raising: AuditLine | None = None) -> None:
        """Replace the control document. raising: written down before it is true, and not before it may be."""
        if self._registry is None:
            if raising is not None:
                await self.ledger.write_down(raising)
            return
        document, written = control_of(moved), False
        try:
            now = await self._registry.control()
            if raising and now is not None and stands_beside(self.state, now):
                raise self._cannot_follow(now)
            ours = now is not None and same(now, document)
            if not ours and now is not None and not (may_replace(moved, now) and now.epoch < moved.epoch):
                raise RefusedError("conflict", f"somebody else moved the release to epoch {now.epoch}; look again")
            if raising is not None:
                await self.ledger.write_down(raising)
                written = True
            if not ours:
                await self._registry.commit(document, now.epoch if now else 0, actor)
        except (RefusedError, UpstreamError) as error:
            if raising and written:
                await self.ledger.audit(REFUSED, actor, self.state, self.state, f"{raising.action}: {error}")
            if isinstance(error, RefusedError):
                await self._obey_winner()
            else:
                self.registry_word = "unreachable"
            raise
        self.registry_word = "ok"

    async def _catch_up(self, now: Control | None) -> None:
        """The registry may be behind: it was away when something was reduced here, perhaps before a restart."""
        if now is not None and now.epoch >= self.state.epoch:
            if self.state.own_changes:  # our own document: its answer was lost
                await self._confirm()
        elif self.state.epoch > 0 and self._registry is not None:
            told = message_id_of(self.state.incident_id) if self.state.phase is Phase.ROLLED_BACK else ""
            await self._registry.commit(control_of(self.state, told), now.epoch if now else 0)
            await self._confirm()
        self._owes_control = False

    async def _confirm(self) -> None:
        if self._registry is None:
            return
        self._owes_control = False
        self.served.state = confirmed(self.state)
        await self.ledger.save_progress(self.state, force=True)

    async def _obey_winner(self) -> None:
        if self._registry is None:
            return
        try:
            now = await self._registry.control()
        except UpstreamError:
            self.registry_word = "unreachable"
            return
        if now is not None and self._must_obey(now):
            await self._obey_newer(now)

    def _must_obey(self, now: Control) -> bool:
        """It is somebody else's, or it names versions that this process could not serve when it came and can now."""
        if not may_replace(self.state, now):
            return True
        if not stands_beside(self.state, now):
            return False
        moved = self.served.servable(adopt(self.state, now, self._clock.now_s()), self.state.stable)
        return (moved.stable, moved.canary_ratio) != (self.state.stable, self.state.canary_ratio)

    def _cannot_follow(self, now: Control) -> RefusedError:
        named = (now.stable, now.canary if now.canary_ratio > 0.0 else "")
        missing = [repr(name) for name in named if name and name not in self._facts.versions]
        if not missing:
            return RefusedError("conflict", f"the release at epoch {now.epoch} is only now served here; look again")
        where = f"{' and '.join(missing)} of the release in force (epoch {now.epoch})"
        return RefusedError("unknown_version", f"{where}: not in guard.yaml here; add to versions and reload first")

    async def _obey_newer(self, control: Control) -> None:
        before = self.state
        adopted = self._counted(adopt(before, control, self._clock.now_s()), control)
        moved = self.served.servable(adopted, before.stable)
        self._owes_control = False
        self.served.obey(moved)
        self._owes_pointer = self._has_pointer_to_show()
        await self.ledger.audit(ADOPT, "registry", before, moved, f"epoch {control.epoch}")
        await self.ledger.save_progress(self.state, force=True)

    def _counted(self, adopted: ReleaseState, control: Control) -> ReleaseState:
        """The limit of rollbacks a day is the service's: one that another replica decided by itself counts here too.

        What a person asked for there does not. Its id tells, to whoever obeyed the document that it was decided on; to
        all others it counts.
        """
        before, ident = self.state, control.incident_id
        if adopted.phase is not Phase.ROLLED_BACK or ident in ("", before.incident_id):
            return adopted
        if ident == rollback_id(MANUAL, self._facts.version(control.canary), before):
            return adopted
        wall_s = self._clock.wall_s()
        return replace(adopted, rollbacks_s=(*rules.recent_rollbacks(before, wall_s), wall_s))

    def _has_pointer_to_show(self) -> bool:
        """Whoever wrote this document may have died before it moved the pointer; moving it is safe to repeat."""
        return self._registry is not None and self.state.phase in (Phase.PROMOTED, Phase.ROLLED_BACK)

    async def _pay_pointer(self, actor: str) -> None:
        state = self.state
        if self._registry is None or not self._has_pointer_to_show():
            self._owes_pointer = False
            return
        try:
            if state.phase is Phase.ROLLED_BACK:
                await self._show_return(self._registry, state)
            elif await self._registry.production() != state.stable:
                await self._registry.promote(state.stable, epoch=state.epoch, actor=actor)
            self._owes_pointer = False
        except UpstreamError:
            self.registry_word = "unreachable"  # owed; paid at a later tick
        except RefusedError as error:
            self._owes_pointer = False
            if error.reason != "stale_epoch":  # a later document has the pointer, and we shall hear of it
                self._hooks.on_alert("pointer_refused", str(error))

    async def _show_return(self, registry: ReleaseRegistry, state: ReleaseState) -> None:
        """The pointer move of a rollback, in case whoever decided it is gone for good; its key makes it one move."""
        if state.incident_id and state.canary and state.stable in self._facts.versions:
            await registry.move_back(
                state.canary,
                state.stable,
                epoch=state.epoch,
                key=state.incident_id,
                actor="guard",
                detail="seen in the control document",
            )
