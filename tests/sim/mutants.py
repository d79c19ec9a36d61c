"""The saga and its surroundings broken by hand, one way each. Every one must be caught by the simulation.

A mutant replaces one function; what it says under `breaks` is what somebody might have written in good faith.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import guard.release.agreement
import guard.release.casebook
import guard.release.saga
from guard.release.agreement import Agreement
from guard.release.enactor import Enactor
from guard.release.outbox import Outbox
from guard.release.pointer import ReleaseRegistry
from guard.release.records import Intent, OutboxState, SagaStep
from guard.release.saga import Rollback, SagaResult
from registry.model import Control
from tests.sim.disk import MemoryJournal
from tests.sim.fleet import play
from tests.sim.registry import MemoryRegistry
from tests.sim.schedule import exhaustive_schedules, random_schedule

SEEDS = 1500
"""Random schedules a mutant may survive before it counts as alive; the exhaustive ones with one crash come first."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """name and what it breaks; `patched` puts it in force."""

    name: str
    breaks: str
    patched: Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Caught:
    """by: the schedule that caught it first, "" when none did. runs: played until then."""

    mutant: Mutant
    by: str
    runs: int
    violation: str


def _swap(owner: Any, name: str, make: Callable[[Any], Any]) -> Callable[[], AbstractContextManager[Any]]:
    """Replace `owner.name` by what `make` makes of the original."""
    return lambda: patch.object(owner, name, make(getattr(owner, name)))


@contextmanager
def _no_promise() -> Iterator[None]:
    with patch.object(MemoryJournal, "write_intent", lambda _self, _intent: None):
        yield


@contextmanager
def _weight_after_control() -> Iterator[None]:
    """The traffic goes on until the registry has been asked."""
    begin, control = Rollback.begin, Rollback._control

    async def begun(self: Any, intent: Intent) -> SagaResult:
        self._later, self._apply = self._apply, lambda _state: None
        return await begin(self, intent)

    async def controlled(self: Any, intent: Intent, taken: frozenset[SagaStep]) -> Any:
        answer = await control(self, intent, taken)
        self._apply = getattr(self, "_later", self._apply)
        self._apply(intent.state)
        return answer

    with patch.object(Rollback, "begin", begun), patch.object(Rollback, "_control", controlled):
        yield


def _unfenced(original: Any) -> Any:
    async def move_back(self: Any, bad: str, target: str, *, epoch: int, **words: Any) -> str:
        del epoch  # "the key is enough"
        moved: str = await original(self, bad, target, epoch=None, **words)
        return moved

    return move_back


def _keyless(original: Any) -> Any:
    async def move_back(self: Any, bad: str, target: str, *, key: str, **words: Any) -> str:
        del key
        moved: str = await original(self, bad, target, key="", **words)
        return moved

    return move_back


@contextmanager
def _random_webhook_id() -> Iterator[None]:
    chance = random.Random(1)

    def message_id(_incident: object, suffix: str = "") -> str:
        return f"msg_{chance.getrandbits(64):016x}{suffix}"

    with ExitStack() as stack:
        for module in (guard.release.saga, guard.release.casebook):
            stack.enter_context(patch.object(module, "message_id", message_id))
        yield


@contextmanager
def _retry_new_incident() -> Iterator[None]:
    chance = random.Random(1)
    original = Rollback.finish

    async def finish(self: Any, intent: Intent) -> SagaResult:
        fresh = f"inc-{chance.getrandbits(64):016x}"
        return await original(self, replace(intent, incident=replace(intent.incident, incident_id=fresh)))

    with patch.object(Rollback, "finish", finish):
        yield


def _random_incident(original: Any) -> Any:
    chance = random.Random(1)

    def stable_id(rule: str, version: str, epoch: int) -> str:
        return f"{original(rule, version, epoch)[:8]}{chance.getrandbits(64):016x}"

    return stable_id


def _done_before_pointer(original: Any) -> Any:
    async def pointer(self: Any, intent: Intent, taken: frozenset[SagaStep]) -> str:
        said: str = await original(self, intent, taken)
        return "at_target" if said == "pending" else said  # "it will have arrived"

    return pointer


@contextmanager
def _ignores_lost_answer() -> Iterator[None]:
    """Its own document, whose answer was lost, looks like somebody else's."""
    original = ReleaseRegistry.control

    async def control(self: Any) -> Control | None:
        now: Control | None = await original(self)
        return replace(now, incident_id="") if now is not None and now.phase == "rolled_back" else now

    with ExitStack() as stack:
        stack.enter_context(patch.object(ReleaseRegistry, "control", control))
        stack.enter_context(patch.object(Agreement, "has_pointer_to_show", lambda _self: False))
        yield


@contextmanager
def _forgets_promise() -> Iterator[None]:
    """After a restart the last recorded split is served and the promise is not looked at."""
    with patch.object(MemoryJournal, "read_intent", lambda _self, drill=False: None):
        yield


@contextmanager
def _no_later_epoch() -> Iterator[None]:
    """The saga writes over whatever is there; the registry takes any epoch."""

    def put_control(self: MemoryRegistry, control: Control, *, expected_epoch: int, actor: str) -> Control:
        del expected_epoch, actor
        self._control[control.service] = control
        self.history.append(control)
        return control

    with ExitStack() as stack:
        stack.enter_context(patch.object(guard.release.saga, "_decided_on", lambda _intent, _now: True))
        stack.enter_context(patch.object(MemoryRegistry, "put_control", put_control))
        yield


def _by_epoch_only(_original: Any) -> Any:
    """A change may replace every document whose epoch is not later than its own state's."""
    return lambda state, now: now is None or now.epoch <= state.epoch


def _deaf(_original: Any) -> Any:
    async def sync(_self: Any) -> None:
        return None

    return sync


def _drops_on_5xx(_original: Any) -> Any:
    async def again(self: Any, waiting: Any) -> None:
        await self._finish(waiting, OutboxState.EXPIRED, "5xx")

    return again


def _message_not_recorded(original: Any) -> Any:
    def record(self: Any, *, outbox: Any = (), **words: Any) -> None:
        original(self, outbox=(), **words)  # "the outbox has it already"

    return record


def _raises_first(original: Any) -> Any:
    async def raise_exposure(self: Any, moved: Any, action: str, actor: str, detail: str = "") -> None:
        self.served.obey(moved)
        await original(self, moved, action, actor, detail)

    return raise_exposure


def _forces_cas(original: Any) -> Any:
    async def commit(self: Any, control: Control, expected_epoch: int, actor: str = "") -> None:
        """Lost the race: read again and write all the same."""
        try:
            await original(self, control, expected_epoch, actor)
        except Exception:
            now = await self.control()
            later = max(control.epoch, (now.epoch if now else 0) + 1)
            await original(self, replace(control, epoch=later), now.epoch if now else 0, actor)

    return commit


def _gives_up(_original: Any) -> Any:
    async def retry(self: Any) -> bool:
        """A rollback that did not finish at once is left to people."""
        owed = self._owed is not None
        self._owed = None
        return owed

    return retry


MUTANTS = (
    Mutant("no promise", "skips the INTENT write and its fsync", _no_promise),
    Mutant("promise forgotten", "re-enables the weight after a restart", _forgets_promise),
    Mutant("weight after the document", "applies weight 0 only when the compare-and-set was won",
           _weight_after_control),
    Mutant("no fence on the pointer", "moves the pointer without its epoch",
           _swap(ReleaseRegistry, "move_back", _unfenced)),
    Mutant("no key on the pointer", "a repeated pointer move is a second one",
           _swap(ReleaseRegistry, "move_back", _keyless)),
    Mutant("done before the pointer", "DONE although the registry did not answer",
           _swap(Rollback, "_pointer", _done_before_pointer)),
    Mutant("random webhook id", "webhook-id by chance instead of by decision", _random_webhook_id),
    Mutant("incident by chance", "every replica has an incident id of its own",
           _swap(guard.release.casebook, "stable_id", _random_incident)),
    Mutant("retry is a new incident", "each try gets a fresh incident id", _retry_new_incident),
    Mutant("lost answer ignored", "takes its own document for somebody else's", _ignores_lost_answer),
    Mutant("no later epoch", "writes over the document of a later epoch", _no_later_epoch),
    Mutant("lost race forced", "reads the winner's epoch and writes over it",
           _swap(ReleaseRegistry, "commit", _forces_cas)),
    Mutant("epochs only", "a replica that was cut off counts its own epochs as the fleet's",
           lambda: _both("may_replace", _by_epoch_only)),
    Mutant("deaf", "never reads the control document again", _swap(Enactor, "sync", _deaf)),
    Mutant("raised before agreed", "raises the weight here first", _swap(Enactor, "raise_exposure", _raises_first)),
    Mutant("gives up", "an unfinished rollback is not tried again", _swap(Enactor, "retry", _gives_up)),
    Mutant("outbox drops on 5xx", "a message that is refused once is given up", _swap(Outbox, "_again", _drops_on_5xx)),
    Mutant("message in memory only", "the outbox item is not recorded with its step",
           _swap(MemoryJournal, "record", _message_not_recorded)),
)  # fmt: skip


@contextmanager
def _both(name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for module in (guard.release.saga, guard.release.agreement):
            stack.enter_context(patch.object(module, name, make(getattr(module, name))))
        yield


def hunt(mutant: Mutant, seeds: int = SEEDS) -> Caught:
    """Play schedules until one of them sees the mutant."""
    runs = 0
    with mutant.patched():
        for schedule in (*exhaustive_schedules(1), *(random_schedule(seed) for seed in range(seeds))):
            tally = play(schedule)
            runs += 1
            if tally.violations:
                return Caught(mutant, schedule.name or f"seed {schedule.seed}", runs, tally.violations[0])
    return Caught(mutant, "", runs, "")


def table(seeds: int = SEEDS) -> tuple[str, list[str]]:
    """Every mutant, who caught it, after how many runs; and the names of those that lived."""
    found = [hunt(mutant, seeds) for mutant in MUTANTS]
    lines = ["| mutant | breaks | caught by | runs | what was seen |", "|---|---|---|---|---|"]
    lines += [
        f"| {c.mutant.name} | {c.mutant.breaks} | {c.by or 'NOBODY'} | {c.runs} | {c.violation[:90]} |" for c in found
    ]
    return "\n".join(lines), [c.mutant.name for c in found if not c.by]
