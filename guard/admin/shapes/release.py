"""The release: versions, what was judged and done, commands, the gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class VersionView:
    """A release: its name, its short id and its five parts."""

    name: str
    release: str
    model: str = ""
    adapter: str = ""
    kb: str = ""
    prompt: str = ""
    policy: str = ""


@dataclass(frozen=True, slots=True)
class CorrectedRow:
    """Hallucination rate of a release as people's labels correct it; shares. rate, low, high None: too few labels."""

    name: str
    release: str
    measured_ratio: float | None
    label_count: int
    label_needed_count: int
    rate_ratio: float | None = None
    low_ratio: float | None = None
    high_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What the last evaluation came to. rule: the one that spoke, "" when none is in breach."""

    wall_s: float
    action: str  # hold | advance | shed | roll_back
    verdict: str  # breach | unknown | ok, the gravest of all rules; "" when nothing was judged
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Deed:
    """What changed the release last. actor: `guard`, or a person and the id of the token."""

    wall_s: float
    action: str  # start | advance | promote | abort | rollback | pause | resume | shed | hold
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseStatus:
    """Who answers, how far the canary is, and what is holding it."""

    service: str
    mode: str  # observe | recommend | enforce
    phase: str  # idle | rolling_out | paused | rolling_back | rolled_back | promoted
    advance: str  # manual | auto
    stable: VersionView
    canary: VersionView | None
    previous: VersionView | None
    canary_ratio: float
    stage_number: int  # 1 is the first; 0 without a canary
    stage_count: int
    stage_held_s: float
    stage_hold_s: float
    stage_events_count: int
    stage_min_events_count: int
    epoch: int
    cache_epoch: int
    reason: str = ""
    recommendation: str = ""
    incident_id: str = ""
    conditions: tuple[str, ...] = ()
    rollbacks_24h_count: int = 0
    shedding: bool = False
    hallucination: tuple[CorrectedRow, ...] = ()
    last_judged: Judged | None = None
    last_deed: Deed | None = None
    owed: str = ""  # what the registry or the disk has not taken yet: rollback | control | pointer


@dataclass(frozen=True, slots=True)
class ReleaseCommand:
    """What a person asks of the release; fields a command does not know are empty."""

    version: str = ""
    plan: str = ""
    advance: Literal["", "manual", "auto"] = ""
    reason: str = ""
    actor: str = ""
    force: bool = False
    expected_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A command was carried out. mttr_s, passed: of a drill; passed None: it was no drill."""

    message: str
    status: ReleaseStatus
    incident_id: str = ""
    mttr_s: float | None = None
    passed: bool | None = None


@dataclass(frozen=True, slots=True)
class GateData:
    """pass: advance. fail: roll back. inconclusive: hold."""

    verdict: Literal["pass", "fail", "inconclusive"]
    reason: str = ""
    release: str = ""


@dataclass(frozen=True, slots=True)
class Gate:
    """In the form that the web metric of Argo Rollouts reads: `{$.data.verdict}`."""

    data: GateData
