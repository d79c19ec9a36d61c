"""What all replicas of a service agree on in the registry: one control document, and the pointer that shows it.

A later epoch of somebody else is always obeyed. What was reduced here, and what the pointer does not show yet, is owed
until the registry takes it.
"""

from __future__ import annotations

from dataclasses import replace

from guard.release import state as rules
from guard.release.casebook import MANUAL, rollback_id
from guard.release.control import adopt, confirmed, control_of, may_replace, same, stands_beside
from guard.release.facts import Facts
from guard.release.ledger import Ledger
from guard.release.payload import message_id_of
from guard.release.pointer import ReleaseRegistry
from guard.release.records import ADOPT, REFUSED, AuditLine
from guard.release.report import Hooks
from guard.release.served import Served
from guard.release.state import Phase, ReleaseState
from registry.model import Control, Stage
from slo.clock import Clock
from slo.errors import RefusedError, UpstreamError


class Agreement:
    """registry None: this process alone decides, and nothing is owed.

    word: how the registry answered last: ok | unreachable | refused | none; `refused`: it does not take what was
    reduced here, because of a token, say. owes_control, owes_pointer: what it has not taken yet.
    """

    def __init__(
        self,
        registry: ReleaseRegistry | None,
        served: Served,
        ledger: Ledger,
        clock: Clock,
        facts: Facts,
        hooks: Hooks,
    ) -> None:
        self._registry, self._served, self._ledger = registry, served, ledger
        self._clock, self._facts, self._hooks = clock, facts, hooks
        self.word = "none" if registry is None else "ok"
        self.owes_control = self.owes_pointer = False

    async def register(self, canary: str = "") -> None:
        """Make sure the registry knows the releases that a rollback would name. Raises GuardError."""
        if self._registry is None:
            return
        await self._registry.ensure(self._facts.version(self._served.state.stable), Stage.PRODUCTION)
        if canary:
            await self._registry.ensure(self._facts.version(canary), Stage.STAGING)

    # -- the document -------------------------------------------------------------------------------------------

    async def commit(self, moved: ReleaseState, actor: str, *, raising: AuditLine | None = None) -> None:
        """Replace the control document. raising: written down before it is true, and not before it may be.

        Raises:
            RefusedError: unknown_version, conflict (the winner is obeyed), disk_full, disk_fault.
            UpstreamError: the registry did not answer.
        """
        if self._registry is None:
            if raising is not None:
                await self._ledger.write_down(raising)
            return
        before = self._served.state
        document, written = control_of(moved), False
        try:
            now = await self._registry.control()
            if raising and now is not None and stands_beside(before, now):
                raise self._cannot_follow(now)
            ours = now is not None and same(now, document)
            if not ours and now is not None and not (may_replace(moved, now) and now.epoch < moved.epoch):
                raise RefusedError("conflict", f"somebody else moved the release to epoch {now.epoch}; look again")
            if raising is not None:
                await self._ledger.write_down(raising)
                written = True
            if not ours:
                await self._registry.commit(document, now.epoch if now else 0, actor)
        except (RefusedError, UpstreamError) as error:
            if raising and written:
                await self._ledger.audit(REFUSED, actor, before, before, f"{raising.action}: {error}")
            if isinstance(error, RefusedError):
                await self._obey_winner()
            else:
                self.word = "unreachable"
            raise
        self.word = "ok"

    async def tell(self, moved: ReleaseState, actor: str) -> None:
        """Say what was reduced here; owed until the registry takes it, also after a restart: `look` sees it behind."""
        try:
            await self.commit(moved, actor)
        except UpstreamError:
            self.owes_control = True
        except RefusedError as error:
            # After a conflict somebody else's document is obeyed already.
            self.owes_control = self._refuses(error)
        else:
            await self._confirm()

    async def look(self, *, follow: bool) -> None:
        """Obey a document that this state does not come from; say what is owed. A silent registry changes nothing.

        follow: False while a rollback is unfinished, which finds out for itself who won.
        """
        if self._registry is None:
            return
        try:
            now = await self._registry.control()
            if follow:
                if now is not None and self._must_obey(now):
                    await self._obey(now)
                else:
                    await self._catch_up(self._registry, now)
            self.word = "ok"
            if self.owes_pointer:
                await self.show("guard")
        except UpstreamError:
            self.word = "unreachable"
        except RefusedError as error:
            self._refuses(error)  # Or a race was lost just now; the next look reads the winner.

    # -- the pointer --------------------------------------------------------------------------------------------

    def has_pointer_to_show(self) -> bool:
        """Whoever wrote this document may have died before it moved the pointer; moving it is safe to repeat."""
        return self._registry is not None and self._served.state.phase in (Phase.PROMOTED, Phase.ROLLED_BACK)

    async def show(self, actor: str) -> None:
        """Move the pointer to what is in force, if that is owed by this state."""
        state = self._served.state
        if self._registry is None or not self.has_pointer_to_show():
            self.owes_pointer = False
            return
        try:
            if state.phase is Phase.ROLLED_BACK:
                await self._show_return(self._registry, state)
            elif await self._registry.production() != state.stable:
                await self._registry.promote(state.stable, epoch=state.epoch, actor=actor)
            self.owes_pointer = False
        except UpstreamError:
            self.word = "unreachable"  # owed; paid at a later look
        except RefusedError as error:
            self.owes_pointer = False
            if error.reason != "stale_epoch":  # a later document has the pointer, and we shall hear of it
                self._hooks.on_alert("pointer_refused", str(error))

    # -- inside -------------------------------------------------------------------------------------------------

    def _refuses(self, error: RefusedError) -> bool:
        """Whether it is more than a lost race; told once until the registry takes something again."""
        if error.reason == "conflict":
            return False
        if self.word != "refused":
            why = f"the other replicas do not hear of what was reduced here: {error}"
            self._hooks.on_alert("registry_refused", why)
        self.word = "refused"
        return True

    async def _catch_up(self, registry: ReleaseRegistry, now: Control | None) -> None:
        """The registry may be behind: it was away when something was reduced here, perhaps before a restart."""
        state = self._served.state
        if now is not None and now.epoch >= state.epoch:
            if state.own_changes:  # our own document: its answer was lost
                await self._confirm()
        elif state.epoch > 0:
            told = message_id_of(state.incident_id) if state.phase is Phase.ROLLED_BACK else ""
            await registry.commit(control_of(state, told), now.epoch if now else 0)
            await self._confirm()
        self.owes_control = False

    async def _confirm(self) -> None:
        if self._registry is None:
            return
        self.owes_control = False
        self._served.state = confirmed(self._served.state)
        await self._ledger.save_progress(self._served.state, force=True)

    async def _obey_winner(self) -> None:
        if self._registry is None:
            return
        try:
            now = await self._registry.control()
        except UpstreamError:
            self.word = "unreachable"
            return
        if now is not None and self._must_obey(now):
            await self._obey(now)

    def _must_obey(self, now: Control) -> bool:
        """It is somebody else's, or it names versions that this process could not serve when it came and can now."""
        state = self._served.state
        if not may_replace(state, now):
            return True
        if not stands_beside(state, now):
            return False
        moved = self._served.servable(adopt(state, now, self._clock.now_s()), state.stable)
        return (moved.stable, moved.canary_ratio) != (state.stable, state.canary_ratio)

    def _cannot_follow(self, now: Control) -> RefusedError:
        named = (now.stable, now.canary if now.canary_ratio > 0.0 else "")
        missing = [repr(name) for name in named if name and name not in self._facts.versions]
        if not missing:
            return RefusedError("conflict", f"the release at epoch {now.epoch} is only now served here; look again")
        where = f"{' and '.join(missing)} of the release in force (epoch {now.epoch})"
        return RefusedError("unknown_version", f"{where}: not in guard.yaml here; add to versions and reload first")

    async def _obey(self, control: Control) -> None:
        before = self._served.state
        adopted = self._counted(adopt(before, control, self._clock.now_s()), control)
        moved = self._served.servable(adopted, before.stable)
        self.owes_control = False
        self._served.obey(moved)
        self.owes_pointer = self.has_pointer_to_show()
        await self._ledger.audit(ADOPT, "registry", before, moved, f"epoch {control.epoch}")
        await self._ledger.save_progress(self._served.state, force=True)

    def _counted(self, adopted: ReleaseState, control: Control) -> ReleaseState:
        """The limit of rollbacks a day is the service's: one that another replica decided by itself counts here too.

        What a person asked for there does not. Its id tells, to whoever obeyed the document that it was decided on; to
        all others it counts.
        """
        before, ident = self._served.state, control.incident_id
        if adopted.phase is not Phase.ROLLED_BACK or ident in ("", before.incident_id):
            return adopted
        if ident == rollback_id(MANUAL, self._facts.version(control.canary), before):
            return adopted
        wall_s = self._clock.wall_s()
        return replace(adopted, rollbacks_s=(*rules.recent_rollbacks(before, wall_s), wall_s))

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
