"""Whether a generation may take the place of the current one: rows, profile and golden questions. Pure.

Golden questions are chosen, not drawn: a question that was answered and is no more is a fact, so the difference of two
generations is compared as it is. The interval beside a share says how far it carries to other questions, and a share
is only called too low (`recall_min`, `zero_hit_max`) when its whole interval is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rag.golden import DEPTHS, Outcome, lost
from rag.profile import Profile, RowIssue
from rag.profile_limits import OK, REFUSED, UNKNOWN, Check, Limits, check_lengths, check_place, check_rows
from slo.statistics import Interval

DEPTH = 3
"""Recall is judged among the first three, as the practice does; the others are shown."""


@dataclass(frozen=True, slots=True)
class GateLimits:
    """recall_drop, zero_hit_rise: borne differences between the generations. recall_min, zero_hit_max: SLOs of the
    practice (recall@3 >= 70 %, zero-hit <= 2 %)."""

    rows: Limits = field(default_factory=Limits)
    vector_shift: float = 0.1
    recall_drop: float = 0.02
    zero_hit_rise: float = 0.02
    recall_min: float = 0.70
    zero_hit_max: float = 0.02


@dataclass(frozen=True, slots=True)
class Side:
    """One generation. name: shown in the report. outcome None: there were no golden questions."""

    name: str
    profile: Profile
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate says, and all it rests on. incoming: profile of the rows that made the candidate, if known."""

    current: Side | None
    candidate: Side
    incoming: Profile | None
    checks: tuple[Check, ...]

    @property
    def accepted(self) -> bool:
        """No check refuses."""
        return all(check.state != REFUSED for check in self.checks)


def decide(
    current: Side | None,
    candidate: Side,
    incoming: Profile | None = None,
    limits: GateLimits | None = None,
    *,
    vector_shift: float | None = None,
) -> Decision:
    """Hold a candidate against the current generation; None: it is the first with content.

    vector_shift: one minus the cosine of the two mean vectors, where both have vectors of one embedder.
    """
    limits = limits or GateLimits()
    if current is not None and not current.profile.row_count:
        current = None
    before = current.profile if current else None
    checks: list[Check] = []
    if incoming is not None and incoming.row_count:
        checks += [replace(check, name=f"new rows: {check.name}") for check in check_rows(incoming, limits.rows)]
        if before is not None:
            length = check_lengths(before, incoming, limits.rows)
            checks.append(replace(length, name=f"new rows: {length.name}"))
    checks += check_rows(candidate.profile, limits.rows, before)
    if before is not None:
        checks.append(check_lengths(before, candidate.profile, limits.rows))
        checks += check_place(before, candidate.profile, limits.rows)
        if vector_shift is not None:
            checks.append(_vectors(vector_shift, limits.vector_shift))
    checks += _golden(current.outcome if current else None, candidate.outcome, limits)
    return Decision(current, candidate, incoming, tuple(checks))


def _vectors(shift: float, limit: float) -> Check:
    words = f"the centroid of all vectors moved by {shift:.4f} (1 - cosine), at most {limit:g}"
    return Check("vectors", REFUSED if shift > limit else OK, words, shift, limit)


def _golden(before: Outcome | None, after: Outcome | None, limits: GateLimits) -> list[Check]:
    name, zero = f"recall@{DEPTH}", "zero-hit"
    recall = after.recall(DEPTH) if after else None
    if after is None or recall is None or after.zero_hits is None:
        return [Check(name, UNKNOWN, "no golden questions; give some with --golden")]
    old = before.recall(DEPTH) if before else None
    words = (f"{_percent(old.estimate)} -> " if old else "") + shown(recall)
    state, limit = OK, limits.recall_min
    rows: tuple[RowIssue, ...] = ()
    if before is not None and old is not None and old.estimate - recall.estimate > limits.recall_drop + 1e-9:
        state, limit = REFUSED, old.estimate - limits.recall_drop
        gone = lost(before, after, DEPTH)
        rows = tuple(
            RowIssue(
                new.golden.place,
                "question lost",
                f"{new.golden.question!r}: rank {was.rank} -> {new.rank or 'not found'}"
                + (f", first is now {new.first}" if new.first else ""),
            )
            for was, new in gone
        )
        words += f"; {len(gone)} questions lost, a drop of at most {_percent(limits.recall_drop)} is borne"
    elif recall.high < limits.recall_min:
        state = REFUSED
        words += f"; the whole interval is below {_percent(limits.recall_min)}"
    checks = [Check(name, state, words, recall.estimate, limit, rows)]
    now = after.zero_hits
    was = before.zero_hits if before else None
    words = (f"{_percent(was.estimate)} -> " if was else "") + shown(now)
    state, limit = OK, limits.zero_hit_max
    if was is not None and now.estimate - was.estimate > limits.zero_hit_rise + 1e-9:
        state, limit = REFUSED, was.estimate + limits.zero_hit_rise
        words += f"; a rise of at most {_percent(limits.zero_hit_rise)} is borne"
    elif was is None and now.low > limits.zero_hit_max:
        state = REFUSED
        words += f"; the whole interval is above {_percent(limits.zero_hit_max)}"
    empty = tuple(RowIssue(a.golden.place, "zero-hit", repr(a.golden.question)) for a in after.asked if a.zero_hit)
    checks.append(Check(zero, state, words, now.estimate, limit, empty if state == REFUSED else ()))
    return checks


def shown(share: Interval) -> str:
    """A share with its 95 % interval.

    >>> shown(Interval(0.8, 0.9, 0.95))
    '90.0% (95 % 80.0% to 95.0%)'
    """
    return f"{_percent(share.estimate)} (95 % {_percent(share.low)} to {_percent(share.high)})"


def depths(outcome: Outcome) -> dict[str, Interval]:
    """Recall at every depth, by name; empty without questions."""
    return {f"recall@{depth}": share for depth in DEPTHS if (share := outcome.recall(depth)) is not None}


def _percent(ratio: float) -> str:
    return f"{ratio:.1%}"
