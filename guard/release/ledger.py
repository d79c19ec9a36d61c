"""The journal as decisions need it: who did what, and where the release is, now and then."""

from __future__ import annotations

from collections.abc import Callable

from guard.release.journal import Journal, JournalError
from guard.release.outbox import Offload
from guard.release.records import DEEDS, AuditLine, last_deed
from guard.release.state import ReleaseState
from slo.clock import Clock
from slo.errors import RefusedError

PROGRESS_S = 60.0


class Ledger:
    """Writes down what was decided. A disk that refuses is counted by the journal and shown in the status.

    word: how the journal answered last: ok | disk_full | disk_fault | busy. last_deed: what changed the release last,
    whoever did it.
    """

    def __init__(self, journal: Journal, clock: Clock, offload: Offload) -> None:
        self._journal, self._clock, self._offload = journal, clock, offload
        self._saved_at_s = 0.0
        self.word = "ok"
        self.last_deed: AuditLine | None = None

    def restore(self) -> None:
        """Read what an earlier process did last. Blocks on the disk. Raises GuardError."""
        self.last_deed = last_deed(self._journal.audit())

    def line(self, action: str, actor: str, before: ReleaseState, after: ReleaseState, detail: str) -> AuditLine:
        """One line of the audit, not yet written."""
        return AuditLine(self._clock.wall_s(), action, actor[:200], _brief(before), _brief(after), detail[:1000])

    async def write_down(self, line: AuditLine) -> None:
        """Make an audit line durable. Raises RefusedError: the disk does not take it."""
        try:
            await self._offload(lambda: self._journal.record(audit=line))
        except JournalError as error:
            self.word = error.reason
            raise RefusedError(error.reason, f"{line.action}: {error}") from error
        self.word = "ok"

    async def audit(self, action: str, actor: str, before: ReleaseState, after: ReleaseState, detail: str) -> None:
        """Write one audit line, if the disk takes it."""
        line = self.line(action, actor, before, after, detail)
        if action in DEEDS:
            self.last_deed = line
        await self.quietly(lambda: self._journal.record(audit=line))

    async def save_progress(self, state: ReleaseState, *, force: bool = False) -> None:
        """Record the state; how long a stage has lasted survives a restart to within a minute."""
        now_s = self._clock.now_s()
        if not force and now_s - self._saved_at_s < PROGRESS_S:
            return
        self._saved_at_s = now_s
        await self.quietly(lambda: self._journal.record(state=state, held_s=now_s - state.stage_started_s))

    async def quietly(self, write: Callable[[], None]) -> None:
        """Write what may be lost."""
        try:
            await self._offload(write)
            self.word = "ok"
        except JournalError as error:
            self.word = error.reason  # Shown in the status; the journal's own on_fault counted it.


def _brief(state: ReleaseState) -> str:
    canary = f" canary={state.canary}@{state.canary_ratio:g}" if state.canary else ""
    return f"epoch={state.epoch} {state.phase} stable={state.stable}{canary}"
