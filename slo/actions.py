"""From verdicts to one action on the release. Pure; carried out elsewhere.

Automation only reduces exposure here; ADVANCE says "nothing speaks against the next stage", and whether a person
allowed that is asked where it is carried out. Unknown never rolls back and never advances. If stable breaches the
same objective it is not the canary: weight may drop, the pointer does not move. A slow burn of an error budget (a
ticket) asks for a person: it stops a release from advancing and does no more.

Beside the rules stands what each objective says of canary against stable (`slo.comparison`): a fail acts like a breach
of the objective, a pass of all is needed for the next stage, everything else holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from slo.evaluation import allowed_share, is_ticket
from slo.indicators import AVAILABILITY, HTTP_ERRORS, LLM_ERRORS
from slo.metric_names import INDICATORS
from slo.types import Action, ActionKind, Compared, OnBreach, Reading, State, Verdict

GateWord = Literal["pass", "fail", "inconclusive"]

DAY_S = 86_400.0
UNKNOWN_AFTER_S = 300.0
HARM_FACTOR = 2.0
"""The canary must look at least this many times as bad as a stable that looks bad too, to be the one at fault."""
MIN_COMPARED = 10
NOW_FACTOR = 1.5
"""A canary past a limit must certainly be this many times as bad as stable is at the same time."""
_OF_UPSTREAM = frozenset({AVAILABILITY, HTTP_ERRORS, LLM_ERRORS})
"""Harms that come from outside as easily as from the version."""


@dataclass(frozen=True, slots=True)
class ReleaseSnapshot:
    """What the decision needs to know of the release.

    weight: share of sessions on the canary. hold_satisfied, events_satisfied: of the present stage.
    unknown_for_s: how long the canary could not be judged. sick: why our own measurements cannot be trusted now (own
    loop lag, clock jump), "" when they can. since_promotion_s: seconds since stable became stable, None when long ago
    or unknown; within `probation_s`, with a previous version known, a breach of stable may roll back to that.
    """

    has_canary: bool
    weight: float = 0.0
    hold_satisfied: bool = False
    events_satisfied: bool = False
    unknown_for_s: float = 0.0
    sick: str = ""
    previous_known: bool = False
    since_promotion_s: float | None = None
    probation_s: float = DAY_S


def reason_code(reason: str) -> str:
    """Return the first word of an action's reason: a closed set, fit for a metric label.

    >>> reason_code("breach: hallucination: 8 % of 1000 in 1h")
    'breach'
    """
    return reason.partition(":")[0]


def decide(canary: tuple[Verdict, ...], stable: tuple[Verdict, ...], snapshot: ReleaseSnapshot) -> Action:
    """Return what to do now. Reasons begin with one of

    sick, breach, shared_upstream, after_promotion, no_target, pending, unknown, kept, waiting, inconclusive, pass,
    steady.
    """
    if snapshot.sick:
        return Action(ActionKind.HOLD, f"sick: {snapshot.sick}; our own measurements cannot be trusted", ())
    if not snapshot.has_canary:
        return _without_canary(stable, snapshot)
    return _against_canary(canary, stable) or _towards_next_stage(canary, snapshot)


def gate(asked: tuple[Verdict, ...], stable: tuple[Verdict, ...]) -> tuple[GateWord, str]:
    """Return (pass | fail | inconclusive, why) for whoever moves the traffic instead of us: Argo Rollouts, Flagger.

    The same judgement as `decide`, without what belongs to our own plan (hold, events, weight). What stable suffers
    too is nobody's failure: inconclusive.

    Args:
        asked: verdicts of the release asked for. stable: those of the stable one; () when that is the one asked for.
    """
    against = _against_canary(asked, stable)
    if against is not None:
        return ("fail" if against.kind is ActionKind.ROLL_BACK else "inconclusive"), against.reason
    towards = _towards_next_stage(asked, _AT_THE_END_OF_A_STAGE)
    return ("pass" if towards.kind is ActionKind.ADVANCE else "inconclusive"), towards.reason


_AT_THE_END_OF_A_STAGE = ReleaseSnapshot(has_canary=True, weight=1.0, hold_satisfied=True, events_satisfied=True)


def _against_canary(canary: tuple[Verdict, ...], stable: tuple[Verdict, ...]) -> Action | None:
    """What firing rules and failed comparisons ask for, the strongest first."""
    firing = _accused(canary)
    guilty = _asking(firing, OnBreach.ROLLBACK)
    shared = tuple(v for v in guilty if _is_shared(v, stable))
    own = tuple(v for v in guilty if v not in shared and not _is_usual_now(v, stable))
    if own:
        return Action(ActionKind.ROLL_BACK, f"breach: {_reasons(own)}", own)
    if shared:
        both = shared + tuple(s for s in stable if s.slo.name in {v.slo.name for v in shared})
        return Action(ActionKind.SHED, f"shared_upstream: stable suffers too; {_reasons(shared)}", both)
    shedding = _asking(firing, OnBreach.SHED)
    if shedding:
        return Action(ActionKind.SHED, f"breach: {_reasons(shedding)}", shedding)
    holding = tuple(v for v in firing if v.slo.action is not OnBreach.TRACK)  # pages, and tickets of any other rule
    if holding:
        return Action(ActionKind.HOLD, f"breach: {_reasons(holding)}", holding)
    return None


def _asking(firing: tuple[Verdict, ...], action: OnBreach) -> tuple[Verdict, ...]:
    """Those that ask for `action` now; a ticket asks for nothing, whatever its rule would."""
    return tuple(v for v in firing if v.slo.action is action and not is_ticket(v))


def _accused(verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """Verdicts to act on: breaches that fire, and comparisons that failed, as breaches with their own evidence.

    Where both speak the firing rule does, unless it is but a slow burn: a person reads a limit more easily.
    """
    found = []
    for verdict in verdicts:
        fires = verdict.state is State.BREACH and verdict.firing
        if has_failed(verdict) and not (fires and not is_ticket(verdict)):
            assert verdict.comparison is not None
            more = tuple(pair for pair in verdict.evidence if pair[0] != "severity")
            found.append(
                replace(
                    verdict, state=State.BREACH, firing=True, fast=False, reason=verdict.comparison.reason,
                    evidence=(*verdict.comparison.evidence, *more),
                )
            )  # fmt: skip
        elif fires:
            found.append(verdict)
    return tuple(found)


def has_failed(verdict: Verdict) -> bool:
    """Return whether the comparison of this objective says fail, and the objective may act."""
    acts = verdict.slo.action is not OnBreach.TRACK
    return acts and verdict.comparison is not None and verdict.comparison.result is Compared.FAIL


def _towards_next_stage(canary: tuple[Verdict, ...], snapshot: ReleaseSnapshot) -> Action:
    """Nothing fires. Every rule that may act on a release must say ok before it moves on."""
    acting = tuple(v for v in canary if v.slo.action is not OnBreach.TRACK)
    pending = tuple(v for v in acting if v.state is State.BREACH)
    if pending:
        return Action(ActionKind.HOLD, f"pending: {_reasons(pending)}", pending)
    unknown = tuple(v for v in acting if v.state is State.UNKNOWN)
    unseen = _compared(acting, Compared.UNKNOWN)
    if unknown or unseen or not acting:
        text = _reasons(unknown) or _told(unseen) or "no objective judges this release"
        for_long = f" for {snapshot.unknown_for_s:.0f} s" if snapshot.unknown_for_s > UNKNOWN_AFTER_S else ""
        return Action(ActionKind.HOLD, f"unknown: cannot be judged{for_long}: {text}", unknown or unseen)
    kept = tuple(v for v in acting if v.firing)
    if kept:
        return Action(ActionKind.HOLD, f"kept: breached a moment ago; {_reasons(kept)}", kept)
    if snapshot.weight <= 0.0:
        return Action(ActionKind.HOLD, "waiting: the canary takes no traffic", acting)
    if not snapshot.hold_satisfied:
        return Action(ActionKind.HOLD, "waiting: the stage's minimum hold is not over", acting)
    if not snapshot.events_satisfied:
        return Action(ActionKind.HOLD, "waiting: the stage has too few events", acting)
    open_yet = _compared(acting, Compared.INCONCLUSIVE)
    if open_yet:
        return Action(ActionKind.HOLD, f"inconclusive: not yet told from stable: {_told(open_yet)}", open_yet)
    return Action(ActionKind.ADVANCE, f"pass: {len(acting)} objectives ok", acting)


def _compared(verdicts: tuple[Verdict, ...], result: Compared) -> tuple[Verdict, ...]:
    return tuple(v for v in verdicts if v.comparison is not None and v.comparison.result is result)


def _without_canary(stable: tuple[Verdict, ...], snapshot: ReleaseSnapshot) -> Action:
    """Only stable answers: a fresh promotion may be taken back, overload may be shed, the rest needs a person."""
    fresh = snapshot.since_promotion_s is not None and snapshot.since_promotion_s <= snapshot.probation_s
    firing = _accused(stable) if fresh else tuple(v for v in stable if v.state is State.BREACH and v.firing)
    guilty = tuple(v for v in _asking(firing, OnBreach.ROLLBACK) if not _is_upstreams(v))
    if guilty and fresh and snapshot.previous_known:
        return Action(ActionKind.ROLL_BACK, f"after_promotion: {_reasons(guilty)}", guilty)
    shedding = _asking(firing, OnBreach.SHED)
    if shedding:
        return Action(ActionKind.SHED, f"breach: {_reasons(shedding)}", shedding)
    if guilty:
        why = "no previous version is known" if fresh else "stable was not promoted lately"
        return Action(
            ActionKind.HOLD, f"no_target: {why}, so there is nothing to roll back to; {_reasons(guilty)}", guilty
        )
    if firing:
        return Action(ActionKind.HOLD, f"breach: {_reasons(firing)}", firing)
    return Action(ActionKind.HOLD, "steady: no release is under way", ())


def _is_upstreams(verdict: Verdict) -> bool:
    """Whether a promoted version fails more than usual, and yet within its limit.

    With nothing beside it, that looks the same as a provider that fails more for everybody, which providers do daily:
    it is told, and nothing is moved. Worse answers are the version's own.
    """
    reading, limit = verdict.reading, verdict.threshold
    if not has_failed(verdict) or verdict.slo.indicator not in _OF_UPSTREAM:
        return False
    if reading is None or limit is None or not reading.count:
        return True
    return _share(reading) <= allowed_share(INDICATORS[verdict.slo.indicator], limit)


def _is_shared(verdict: Verdict, stable: tuple[Verdict, ...]) -> bool:
    """Whether stable suffers from the same objective.

    Beside a plain breach of stable: both arms of one outage cross their limits at slightly different evaluations, so a
    stable whose estimate is past the limit too, and not clearly better than the canary, shares the fault.
    """
    other = next((s for s in stable if s.slo.name == verdict.slo.name), None)
    if other is None:
        return False
    if other.state is State.BREACH and (is_ticket(verdict) or not is_ticket(other)):
        return True  # a slow burn of stable, a ticket, is not the fire that the canary is in
    if has_failed(verdict):
        return False  # proven worse than this stable at this time
    mine, theirs = verdict.reading, other.fast_reading if verdict.fast else other.reading
    limit = _limit_share(verdict)
    if mine is None or theirs is None or limit is None or min(mine.count, theirs.count) < MIN_COMPARED:
        return False
    return _share(theirs) > limit and _share(mine) <= HARM_FACTOR * _share(theirs)


def _is_usual_now(verdict: Verdict, stable: tuple[Verdict, ...]) -> bool:
    """Whether a canary past its limit is not certainly worse than `NOW_FACTOR` times what stable is now.

    A limit tells what is usual, stable what is: in an hour in which the upstream answers worse for everybody, a canary
    with few answers passes the limit by chance. It is held, and rolled back for more than that. Where stable is at two
    thirds of the limit or less this never speaks.
    """
    indicator = INDICATORS.get(verdict.slo.indicator)
    if indicator is None:  # an alert of somebody else has no events to compare
        return False
    if verdict.fast or has_failed(verdict) or indicator.kind != "ratio" or indicator.worse != "up":
        return False
    other = next((s for s in stable if s.slo.name == verdict.slo.name), None)
    theirs = other.reading if other is not None else None
    if theirs is None or verdict.bound is None or theirs.count < max(1, verdict.slo.min_events):
        return False
    return verdict.bound <= NOW_FACTOR * _share(theirs)


def _share(reading: Reading) -> float:
    return reading.bad_count / reading.count


def _limit_share(verdict: Verdict) -> float | None:
    """The share of bad events that was the limit in this verdict; None for means and outside alerts, which have no
    bad events."""
    indicator = INDICATORS.get(verdict.slo.indicator)
    if indicator is None or indicator.kind == "mean":  # an outside alert has no events at all
        return None
    if verdict.fast:
        return verdict.slo.fast.over_ratio if verdict.slo.fast else None
    return None if verdict.threshold is None else allowed_share(indicator, verdict.threshold)


def _reasons(verdicts: tuple[Verdict, ...]) -> str:
    return "; ".join(v.reason for v in verdicts)


def _told(verdicts: tuple[Verdict, ...]) -> str:
    return "; ".join(v.comparison.reason for v in verdicts if v.comparison)
