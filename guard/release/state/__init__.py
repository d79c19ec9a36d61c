"""The release as a value, and every way it may change. Pure: time comes in as a number.

value        what a release is, what a step may ask of the outside, and the questions that both answer
moves        the moves that persons and automation share
people       what a person may do: start, advance, promote, abort, pause, resume, roll back
automation   what automation may do: follow one action of the evaluation by at most one step

    idle ──start──► rolling_out ──promote──► promoted
                     │  ▲   │                    │
               pause │  │   └──rollback──┐       │ rollback (while `previous` is known)
                     ▼  │ resume         ▼       ▼
                    paused ─────────► rolling_back ──► rolled_back

Automation may only reduce exposure. It raises the weight along a plan that a person started with `advance: auto`, one
stage at a time, on a pass, after the hold and the minimum of events, and only in mode `enforce`. A version that was
rolled back gets no traffic again unless a person starts it again and says so.
"""

from guard.release.plan import Plan, Stage, parse_plan
from guard.release.state.automation import ROLLBACKS_PER_DAY, UNKNOWN_LIMIT_S, step
from guard.release.state.moves import count_events, finish_rollback, with_condition
from guard.release.state.people import abort, advance, pause, promote, resume, rollback, start
from guard.release.state.value import (
    DAY_S,
    NOTHING,
    Advance,
    Condition,
    Effects,
    Mode,
    Phase,
    ReleaseState,
    RollbackOrder,
    can_tell,
    events_satisfied,
    hold_satisfied,
    is_blind,
    lasting,
    recent_rollbacks,
    unknown_for_s,
)

__all__ = [
    "DAY_S", "NOTHING", "ROLLBACKS_PER_DAY", "UNKNOWN_LIMIT_S", "Advance", "Condition", "Effects", "Mode", "Phase",
    "Plan", "ReleaseState", "RollbackOrder", "Stage", "abort", "advance", "can_tell", "count_events",
    "events_satisfied", "finish_rollback", "hold_satisfied", "is_blind", "lasting", "parse_plan", "pause", "promote",
    "recent_rollbacks", "resume", "rollback", "start", "step", "unknown_for_s", "with_condition",
]  # fmt: skip
