"""Replicas and their lives: the real `Controller`, `Outbox` and `ReleaseRegistry`, everything around them simulated."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from guard.release.controller import Controller
from guard.release.facts import Facts
from guard.release.incident import Incident
from guard.release.outbox import Outbox
from guard.release.plan import Plan, Stage
from guard.release.pointer import ReleaseRegistry
from guard.release.records import OutboxItem
from guard.release.report import Hooks
from guard.release.state import Mode, Phase, ReleaseState
from guard.release.webhook import Delivery, Sent
from registry.client import LocalRegistry
from slo.errors import GuardError, SourceError
from slo.types import Action, ActionKind, Verdict
from tests.release_kit import BAD, BREACH, GOOD, NEXT, PASS, SERVICE, VERSIONS
from tests.sim.checks import Watch
from tests.sim.disk import Disk, MemoryJournal
from tests.sim.loop import SimLoop
from tests.sim.network import CALM, Link
from tests.sim.registry import MemoryRegistry
from tests.sim.schedule import NOTED, RECEIVER, Character, Schedule

PLAN = Plan((Stage(0.1, 8.0, 10), Stage(0.5, 8.0, 10)))
HEALED_S = (1.0, 12.0, 45.0, 120.0, 330.0, 700.0, 720.0)
"""Seconds after the chaos at which every replica looks again; between them the outbox works off what it holds."""

ROLL_BACK = {
    rule: Action(ActionKind.ROLL_BACK, f"breach: {rule}", (replace(BREACH, slo=replace(BREACH.slo, name=rule)),))
    for rule in ("hallucination", "availability")
}


class Killed(BaseException):
    """This life is over. Not an Exception: no handler of the program may go on."""


class Clock:
    """Monotonic time of the loop; a wall clock that may be wrong by a constant."""

    def __init__(self, loop: SimLoop, skew_s: float) -> None:
        self._loop, self._wall_s = loop, 1_750_000_000.0 + skew_s

    def now_s(self) -> float:
        return self._loop.time()

    def wall_s(self) -> float:
        return self._wall_s + self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


EXCUSED = re.compile(r"was told to nobody|that belongs to no decision|against epoch|after promising to take it out")
"""What may happen when a disk refuses to write and its replica dies as well: nothing durable knows of the decision."""


@dataclass
class Tally:
    """Of one run."""

    crashes: int = 0
    restarts: int = 0
    violations: tuple[str, ...] = ()
    trace_hash: str = ""
    rollbacks: int = 0
    superseded: int = 0
    excused: int = 0
    trace: tuple[str, ...] = ()


class Life:
    """One process of a replica, from its start to its end."""

    def __init__(self, replica: Replica) -> None:
        self.replica, self.alive = replica, True
        self.tasks: list[asyncio.Task[None]] = []
        fleet, character = replica.fleet, replica.character
        clock = Clock(fleet.loop, character.skew_s)
        journal: Any = MemoryJournal(replica.disk, self.check)
        sender: Any = Receiver(self)
        self.outbox = Outbox(journal, {"pager": sender}, clock, offload=self.offload)
        port = LocalRegistry(fleet.registry, replica.link)  # type: ignore[arg-type]
        self.controller = Controller(
            journal,
            ReleaseRegistry(port, SERVICE),
            self,
            self.apply,
            self.outbox,
            clock,
            service=SERVICE,
            stable=GOOD.name,
            facts=Facts(VERSIONS, event_count=lambda _name: int(clock.now_s() * 10)),
            plan=PLAN,
            mode=Mode.ENFORCE,
            max_rollbacks_per_day=1000,
            hooks=Hooks(on_incident=self.incident),
            offload=self.offload,
            at=self.at,
        )

    def check(self) -> None:
        if not self.alive:
            raise Killed

    def incident(self, incident: Incident) -> None:
        """It opened or changed."""
        self.replica.fleet.tell(self.replica, f"incident {incident.incident_id[:10]} {incident.pointer}")
        self.replica.fleet.watch.told(self.replica.index, incident)

    def at(self, point: str) -> None:
        """The process passes a numbered point, and may die there."""
        self.check()
        if point != NOTED and self.replica.fleet.started_s is not None:
            sound = not (self.replica.disk.faulty or self.replica.character.slow_disk)
            self.replica.fleet.watch.passed(self.replica.index, point, sound)
        self.replica.passed(point)

    def apply(self, state: ReleaseState) -> None:
        self.check()
        fleet, replica = self.replica.fleet, self.replica
        fleet.tell(replica, f"applies {state.epoch} {state.phase} {state.stable} {state.canary} {state.canary_ratio:g}")
        fleet.watch.applied(replica.index, replica.disk, state)

    async def offload(self, call: Callable[[], Any]) -> Any:
        """The disk: mostly at once, sometimes slow; a kill may come right after it is durable."""
        self.check()
        if self.replica.character.slow_disk and self.replica.fleet.calm is False:
            await asyncio.sleep(self.replica.fleet.chance.random() * 0.3)
            self.check()
        answer = call()
        self.at(NOTED)
        return answer

    def judge(self, state: ReleaseState) -> tuple[Action, tuple[Verdict, ...]]:
        """What this replica's windows say."""
        self.check()
        replica = self.replica
        detects_s = replica.character.detects_s
        blind = replica.character.forgets and replica.lives > 1
        if blind and state.in_traffic:
            raise SourceError("simulated: empty windows")
        sure = detects_s is not None and not blind and replica.fleet.since_s() >= detects_s
        served = state.canary == BAD.name if state.in_traffic else state.stable == BAD.name
        if sure and served and (state.in_traffic or (state.phase is Phase.PROMOTED and state.previous)):
            action = ROLL_BACK[replica.character.rule]
            return action, action.verdicts
        return PASS, ()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(self.replica.fleet.loop.create_task(work))

    async def begin(self) -> None:
        """As `guard.wiring` does it: restore before anything is served, recover, then the loops."""
        self.controller.restore()
        await self.controller.recover()
        self.spawn(self.outbox.run())

    async def ticks(self) -> None:
        while not self.replica.fleet.healed:
            await asyncio.sleep(self.replica.character.tick_s)
            if not self.replica.fleet.healed:
                await self.tick()

    async def tick(self) -> None:
        """As `Controller.run`, but what goes wrong there is a finding here."""
        try:
            await self.controller.tick()
        except Exception as error:
            self.replica.fleet.watch.violated(f"a tick of {self.replica.index} failed: {type(error).__name__}: {error}")

    def end(self) -> None:
        self.alive = False
        for task in self.tasks:
            task.cancel()


class Receiver:
    """Everybody's pager, as one life reaches it. What it has got is kept by the watch."""

    identity = "pager 0123456789abcdef"

    def __init__(self, life: Life) -> None:
        self._life = life

    async def send(self, item: OutboxItem) -> Sent:
        self._life.check()
        fleet = self._life.replica.fleet
        if not fleet.calm and fleet.chance.random() < fleet.schedule.receiver_fails:
            if fleet.chance.random() < 0.5:
                return Sent(Delivery.HTTP_ERROR, "503")
            self._got(item)  # it has the message; only its answer is lost
            return Sent(Delivery.TIMEOUT, "no answer")
        self._got(item)
        self._life.at(RECEIVER)
        return Sent(Delivery.DELIVERED)

    def _got(self, item: OutboxItem) -> None:
        fleet = self._life.replica.fleet
        fleet.tell(self._life.replica, f"receiver gets {item.message_id[:10]}")
        fleet.watch.received(item)


class Replica:
    """What outlives a process: the disk, the place in the network."""

    def __init__(self, fleet: Fleet, index: int, character: Character) -> None:
        self.fleet, self.index, self.character = fleet, index, character
        self.disk = Disk()
        self.link = Link(fleet.chance, self._check, lambda what: fleet.tell(self, what))
        self.lives = 0
        self.life: Life | None = None
        self._passed: dict[str, int] = {}
        self._dies = {(c.point, c.nth) for c in fleet.schedule.crashes if c.replica == index}

    def _check(self) -> None:
        if self.life is not None:
            self.life.check()

    def passed(self, point: str) -> None:
        if not self._dies or self.fleet.started_s is None:
            return
        count = self._passed[point] = self._passed.get(point, 0) + 1
        if (point, count) in self._dies:
            self.kill(point)
            raise Killed

    def start(self) -> Life:
        self.lives += 1
        self.life = Life(self)
        self.fleet.watch.starts(self.index, self.disk)
        return self.life

    def kill(self, why: str) -> None:
        if self.life is None or not self.life.alive:
            return
        self.fleet.tell(self, f"dies at {why}")
        self.fleet.tally.crashes += 1
        self.life.end()
        self.fleet.loop.call_later(self.fleet.schedule.restart_s, self.rise)

    def rise(self) -> None:
        """Start again, unless that has been done."""
        if self.life is not None and self.life.alive:
            return
        self.fleet.tally.restarts += 1
        self.fleet.tell(self, "starts")
        life = self.start()

        async def go() -> None:
            await life.begin()
            if not self.fleet.healed:
                life.spawn(life.ticks())

        life.spawn(go())


class Fleet:
    """One run of one schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.chance = random.Random(schedule.seed ^ 0x5F7)
        self.loop = SimLoop()
        self.registry = MemoryRegistry()
        self.tally = Tally()
        self.calm, self.healed = True, False
        self.started_s: float | None = None
        self._trace: list[str] = []
        self.watch = Watch(self.registry)
        self.replicas = [Replica(self, i, c) for i, c in enumerate(schedule.replicas)]

    def tell(self, replica: Replica | None, what: str) -> None:
        who = "-" if replica is None else str(replica.index)
        self._trace.append(f"{self.loop.time():.6f} {who} {what}")

    def since_s(self) -> float:
        """Seconds since the chaos began; negative before."""
        return -1.0 if self.started_s is None else self.loop.time() - self.started_s

    def run(self) -> Tally:
        """Play it and judge it."""
        self.watch.trace = self.tell
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._play())
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()
        tally = self.tally
        if "disk" in self.schedule.kinds:
            tally.excused = sum(EXCUSED.search(what) is not None for what in self.watch.violations)
        excused = EXCUSED if tally.excused else re.compile(r"(?!)")
        tally.violations = tuple(what for what in self.watch.violations if excused.search(what) is None)
        tally.trace = tuple(self._trace)
        tally.trace_hash = sha256("\n".join(self._trace).encode()).hexdigest()
        tally.rollbacks = sum(1 for c in self.registry.history if c.phase == "rolled_back")
        tally.superseded = self.watch.superseded_count
        return tally

    async def _play(self) -> None:
        for replica in self.replicas:
            await replica.start().begin()
        await self._set_up()
        self.started_s = self.loop.time()
        self.calm = False
        for replica in self.replicas:
            replica.link.weather = self.schedule.weather
            if replica.life is not None:
                replica.life.spawn(replica.life.ticks())
        for happening in self.schedule.happenings:
            self.loop.call_later(happening.at_s, self._happen, happening.what, happening.replica, happening.detail)
        await asyncio.sleep(self.schedule.chaos_s)
        await self._heal()
        self.watch.end(
            [r.disk for r in self.replicas],
            [(r.index, r.life.controller, r.life.outbox) for r in self.replicas if r.life is not None],
        )
        for replica in self.replicas:
            if replica.life is not None:
                replica.life.end()
        await asyncio.sleep(0)

    async def _set_up(self) -> None:
        """A rollout under way, or a version just promoted; everybody knows of it."""
        first = self.replicas[0].life
        assert first is not None
        await first.controller.start(BAD.name, actor="ann", advance=self.schedule.advance)
        if self.schedule.variant == "promoted":
            await first.controller.promote(actor="ann")
        for replica in self.replicas:
            if replica.life is not None:
                await replica.life.tick()

    async def _heal(self) -> None:
        """The weather clears, the dead rise; then everybody looks some more times."""
        self.calm = self.healed = True
        healed_s = self.loop.time()
        for replica in self.replicas:
            replica.link.weather, replica.link.cut, replica.disk.faulty = CALM, False, False
            if replica.life is None or not replica.life.alive:
                replica.rise()
        for at_s in HEALED_S:
            await asyncio.sleep(healed_s + at_s - self.loop.time())
            for replica in self.replicas:
                if replica.life is None or not replica.life.alive:
                    replica.rise()
                    continue
                replica.life.spawn(replica.life.tick())
        await asyncio.sleep(30.0)

    def _happen(self, what: str, index: int, detail: str) -> None:
        replica = self.replicas[index]
        self.tell(replica, f"{what} {detail}")
        if what == "kill":
            replica.kill("any moment")
        elif what in ("cut", "join"):
            replica.link.cut = what == "cut"
        elif what == "disk":
            replica.disk.faulty = detail == "faulty"
        elif replica.life is not None and replica.life.alive:
            replica.life.spawn(self._operate(replica, replica.life, detail))

    async def _operate(self, replica: Replica, life: Life, what: str) -> None:
        controller = life.controller
        try:
            if what == "start next":
                await controller.start(NEXT.name, actor="bob", advance="auto")
            elif what == "start bad again":
                await controller.start(BAD.name, actor="bob", again=True)
            elif what == "close":
                for incident in await controller.open_incidents():
                    await controller.close_incident(incident.incident_id, actor="bob")
            else:
                await getattr(controller, what)(actor="bob")
            self.tell(replica, f"{what}: done")
        except GuardError as error:
            self.tell(replica, f"{what}: {error}")


def play(schedule: Schedule) -> Tally:
    """One run."""
    return Fleet(schedule).run()
