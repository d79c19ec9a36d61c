"""What happens in one run: drawn from a seed, or written down as a list of crash points."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from guard.release.saga import POINTS
from tests.sim.network import CALM, Weather

CHAOS_S = 60.0
RECEIVER = "receiver:got"
NOTED = "journal:noted"  # inside every write of the journal, after it is durable
ALL_POINTS = (*POINTS, RECEIVER)
"""Points of the saga, and the moment when a receiver has the message but nobody has written that down."""

OPERATIONS = ("promote", "abort", "rollback", "pause", "resume", "advance", "start next", "start bad again", "close")


@dataclass(frozen=True, slots=True)
class Crash:
    """The replica dies when it passes this point for the `nth` time (counted over its lives), power included."""

    replica: int
    point: str
    nth: int = 1


@dataclass(frozen=True, slots=True)
class Happening:
    """At this second of the chaos: kill | cut | join | operate | disk."""

    at_s: float
    what: str
    replica: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Character:
    """How one replica sees the bad version. detects_s: when its judge is sure, None never. rule: which objective says
    so. forgets: after a restart its windows are empty and it never finds out again. skew_s: of its wall clock."""

    detects_s: float | None
    rule: str = "hallucination"
    forgets: bool = False
    skew_s: float = 0.0
    tick_s: float = 5.0
    slow_disk: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run."""

    seed: int
    replicas: tuple[Character, ...]
    variant: str = "canary"  # or "promoted": what is in force when the chaos begins
    advance: str = "manual"
    weather: Weather = CALM
    crashes: tuple[Crash, ...] = ()
    happenings: tuple[Happening, ...] = ()
    receiver_fails: float = 0.0
    restart_s: float = 3.0
    chaos_s: float = CHAOS_S
    name: str = field(default="")

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(h.what for h in self.happenings)


def random_schedule(seed: int) -> Schedule:
    """Everything at once: crashes at points and at any moment, partitions, operators, bad weather.

    Mostly 2-5 replicas; alone, because then nobody else can mend what one leaves undone.
    """
    chance = random.Random(seed)
    count = chance.choice((1, 2, 2, 2, 3, 3, 3, 4, 4, 5))
    calm = chance.random() < 0.15
    weather = CALM if calm else Weather(
        lost_request=chance.choice((0.0, 0.1, 0.3)), lost_answer=chance.choice((0.0, 0.1, 0.3)),
        late=chance.choice((0.0, 0.1, 0.3)), twice=chance.choice((0.0, 0.1, 0.2)),
        delay_s=chance.choice((0.0, 0.05, 0.5, 1.5)),
    )  # fmt: skip
    two_rules = chance.random() < 0.2
    never = chance.random() < 0.1  # nobody finds anything: nothing may be rolled back by itself
    replicas = tuple(
        Character(
            detects_s=None if never or chance.random() < 0.3 else chance.uniform(0.0, 40.0),
            rule="availability" if two_rules and chance.random() < 0.5 else "hallucination",
            forgets=chance.random() < 0.3,
            skew_s=chance.choice((0.0, 0.0, chance.uniform(-30.0, 30.0))),
            tick_s=chance.uniform(3.0, 6.0),
            slow_disk=chance.random() < 0.2,
        )
        for _ in range(count)
    )
    crashes = tuple(
        Crash(chance.randrange(count), chance.choice((*ALL_POINTS, NOTED)), chance.choice((1, 1, 1, 2, 3, 5)))
        for _ in range(chance.choice((0, 1, 1, 2, 2, 3)))
    )
    happenings = [
        Happening(chance.uniform(0.0, CHAOS_S), "kill", chance.randrange(count))
        for _ in range(chance.choice((0, 0, 1, 2)))
    ]
    for _ in range(chance.choice((0, 0, 1, 2))):
        at_s, who = chance.uniform(0.0, CHAOS_S - 5.0), chance.randrange(count)
        happenings.append(Happening(at_s, "cut", who))
        if chance.random() < 0.8:
            happenings.append(Happening(min(CHAOS_S, at_s + chance.uniform(2.0, 40.0)), "join", who))
    if chance.random() < 0.15:
        at_s, long_s = chance.uniform(0.0, 40.0), chance.uniform(3.0, 30.0)  # the registry itself is away
        for who in range(count):
            happenings += [Happening(at_s, "cut", who), Happening(at_s + long_s, "join", who)]
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        at_s = chance.uniform(0.0, CHAOS_S)
        happenings.append(Happening(at_s, "operate", chance.randrange(count), chance.choice(OPERATIONS)))
    if chance.random() < 0.1:
        at_s, who = chance.uniform(0.0, 40.0), chance.randrange(count)
        happenings += [
            Happening(at_s, "disk", who, "faulty"),
            Happening(at_s + chance.uniform(1, 20), "disk", who, "ok"),
        ]
    return Schedule(
        seed=seed,
        replicas=replicas,
        variant=chance.choice(("canary", "canary", "promoted")),
        advance=chance.choice(("manual", "manual", "auto")),
        weather=weather,
        crashes=crashes,
        happenings=tuple(sorted(happenings, key=lambda h: (h.at_s, h.replica, h.what))),
        receiver_fails=chance.choice((0.0, 0.0, 0.3, 0.6)),
        restart_s=chance.uniform(0.5, 15.0),
    )


def exhaustive_schedules(crashes: int) -> Iterator[Schedule]:
    """Every schedule with one crash, or with two: at the same replica again, or at its neighbour.

    Two replicas that both find the bad version, the neighbour a moment later; a canary, or a version just promoted.
    """
    both = (Character(2.0, forgets=True, tick_s=4.0), Character(2.5, forgets=True, tick_s=4.1))
    alone = (Character(2.0, forgets=True, tick_s=4.0), Character(None, tick_s=4.1))
    for variant in ("canary", "promoted"):
        for who, replicas in (("both", both), ("alone", alone)):
            made = Schedule(0, replicas, variant, chaos_s=18.0)  # two restarts, and time to decide again
            for first in ALL_POINTS:
                once = replace(made, crashes=(Crash(0, first),), name=f"{variant} {who}: {first}")
                if crashes == 1:
                    yield once
                    continue
                for other in (0, 1):
                    for second in ALL_POINTS:
                        nth = 2 if other == 0 and second == first else 1
                        yield replace(
                            once,
                            crashes=(Crash(0, first), Crash(other, second, nth)),
                            name=f"{variant} {who}: {first}, then {second} at {other}",
                        )
