"""What a scenario is, and playing it for one seed: one history of traffic, with or without the fault."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bench.traffic.arrivals import Load, flat
from bench.traffic.baseline import known_from
from bench.traffic.behaviour import HEALTHY, Behaviour, Change, Course
from bench.traffic.record import Deed, Record
from bench.traffic.service import Release, Service
from bench.traffic.upstream import CALM, Upstream
from guard.release.plan import DEFAULT, Plan
from slo.types import Slo, Version

GOOD = Version("v1.2.0", model="m1", kb="600/100")
NEW = Version("v1.2.1", model="m1", kb="350/50")
WARM_UP_S = 900.0
BUSY = flat(20.0)
MOVES = ("rollback", "shed", "drained")
"""Deeds that take traffic away."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One story. Times are seconds since Monday 00:00.

    faults: what changes in the new release. shared: what befalls both. wanted: the deed that must follow the fault:
    `rollback`, `shed`, `out` (whatever takes all its traffic away), `fires` (a rule must fire and nothing may move), or
    "" when nothing may move. rules: one of these must have led to it. within_s: from fault_at_s. promoted: everybody
    has the new release by then.
    """

    name: str
    slos: tuple[Slo, ...]
    faults: tuple[Change, ...]
    fault_at_s: float
    wanted: str
    within_s: float
    rules: tuple[str, ...] = ()
    load: Load = BUSY
    begin_s: float = 0.0
    until_s: float = 7200.0
    stable: Behaviour = HEALTHY
    fresh: Behaviour = HEALTHY
    shared: Upstream = CALM
    plan: Plan = DEFAULT
    promoted: bool = False
    step_s: float = 10.0
    measured: bool = True  # similarity was measured on an evaluation set before
    may_also: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Played:
    """How it went. deed: what was wanted, None when it did not happen. delay_s: from the beginning of the fault."""

    scenario: Scenario
    seed: int
    faulty: bool
    record: Record
    deed: Deed | None
    delay_s: float | None
    wrong: tuple[Deed, ...]  # deeds that took traffic away and were not wanted
    final_weight: float

    @property
    def caught(self) -> bool:
        """The right thing happened in time, and nothing else."""
        if self.wrong:
            return False
        if not self.faulty or not self.scenario.wanted:
            return True
        return self.delay_s is not None and 0.0 <= self.delay_s <= self.scenario.within_s

    @property
    def tail(self) -> str:
        """What happened, for the message of a failed assertion."""
        lines = [
            f"{d.t_s - self.scenario.fault_at_s:+8.0f} s {d.kind} {d.code} {d.weight:.0%} {d.reason[:160]}"
            for d in self.record.deeds[-12:]
        ]
        return "\n".join([f"{self.scenario.name} seed {self.seed} faulty {self.faulty}: {self.delay_s}", *lines])


def play(scenario: Scenario, seed: int, *, faulty: bool) -> Played:
    """Play one history. With the fault it ends when the wanted deed is done."""
    service = begin(scenario, seed, faulty=faulty)
    wanted = scenario.wanted if faulty else ""

    def done(now: Service) -> bool:
        if wanted == "fires":
            return any(rule in now.record.first_breach_s for rule in scenario.rules)
        return bool(wanted) and _deed(now.record, wanted) is not None

    record = service.run_until(scenario.until_s, stop=done)
    return _played(scenario, seed, faulty, record, service.state.canary_ratio)


def begin(scenario: Scenario, seed: int, *, faulty: bool) -> Service:
    """Return the service, warmed up, with the new release in traffic."""
    load, stable = scenario.load, scenario.stable
    service = Service(
        scenario.slos,
        load,
        Release(GOOD, Course(stable)),
        seed=seed,
        step_s=scenario.step_s,
        upstream=scenario.shared if faulty else CALM,
        begin_s=scenario.begin_s - WARM_UP_S,
    )
    if scenario.measured:
        service.known = known_from(replace(stable), load, seed=seed + 1_000_000)
    service.run_until(scenario.begin_s)
    service.start(Release(NEW, Course(scenario.fresh, scenario.faults if faulty else ())), scenario.plan)
    if scenario.promoted:
        service.promote()
    return service


def _played(scenario: Scenario, seed: int, faulty: bool, record: Record, weight: float) -> Played:
    wanted = scenario.wanted if faulty else ""
    deed, delay_s = None, None
    if wanted == "fires":
        at_s = [record.first_breach_s[rule] for rule in scenario.rules if rule in record.first_breach_s]
        delay_s = min(at_s) - scenario.fault_at_s if at_s else None
    elif wanted:
        deed = _deed(record, wanted)
        delay_s = deed.t_s - scenario.fault_at_s if deed else None
    right = {*(MOVES if wanted == "out" else (wanted,)), *(scenario.may_also if faulty else ())}
    wrong = tuple(d for d in record.of(*MOVES) if d.kind not in right)
    if deed is not None and scenario.rules and not set(deed.rules) & set(scenario.rules):
        wrong = (*wrong, deed)
    return Played(scenario, seed, faulty, record, deed, delay_s, wrong, weight)


def _deed(record: Record, wanted: str) -> Deed | None:
    if wanted == "out":
        return next((deed for deed in record.of(*MOVES) if deed.weight == 0.0), None)
    return record.first(wanted)
