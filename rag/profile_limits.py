"""Whether new rows may join: two profiles held against limits. Pure.

Every row of a set is seen, so shares are facts and are compared as they are; a handful of bad rows never refuses
(they are set aside, with reasons). Lengths of new rows are one draw of what that source writes, so they are judged by
a one-sided 95 % bound of the ratio of the means.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, log

from rag.defects import BAD, EXACT, NEAR
from rag.profile import Profile, RowIssue, centroid_shift
from slo.statistics import Z_95

OK, REFUSED, UNKNOWN = "ok", "refused", "unknown"


@dataclass(frozen=True, slots=True)
class Limits:
    """What is borne. Ratios are shares of rows, 0..1.

    near_ratio: of rows nearly like another; more than of copies, because lists and price tables are written like that.
    length_ratio_min, length_ratio_max: mean tokens of a row, after over before. bad_min_count: fewer bad rows than
    that refuse nothing. length_min_count: rows needed to judge lengths.
    """

    bad_ratio: float = 0.02
    duplicate_ratio: float = 0.02
    near_ratio: float = 0.10
    bad_min_count: int = 3
    length_ratio_min: float = 0.8
    length_ratio_max: float = 1.25
    length_min_count: int = 20
    language_shift: float = 0.2
    centroid_shift: float = 0.2
    field_loss: float = 0.3


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer. state: ok | refused | unknown. rows: the ones that are to blame, if any."""

    name: str
    state: str
    reason: str
    value: float | None = None
    limit: float | None = None
    rows: tuple[RowIssue, ...] = ()


def check_rows(profile: Profile, limits: Limits, before: Profile | None = None) -> tuple[Check, ...]:
    """Bad rows and duplicates of one set; what the set before had already is not held against it."""
    bad = _share(profile, "bad rows", BAD, limits.bad_ratio, limits.bad_min_count, before)
    twins = _share(profile, "duplicates", (EXACT,), limits.duplicate_ratio, limits.bad_min_count, before)
    near = _share(profile, "near duplicates", (NEAR,), limits.near_ratio, limits.bad_min_count, before)
    return bad, twins, near


def check_lengths(before: Profile, after: Profile, limits: Limits) -> Check:
    """Mean tokens of a row, after over before."""
    old, new = before.lengths, after.lengths
    if min(old.count, new.count) < limits.length_min_count or not old.mean or not new.mean:
        why = f"{new.count} rows against {old.count}, {limits.length_min_count} of each are needed"
        return Check("row length", UNKNOWN, why)
    ratio = new.mean / old.mean
    spread = Z_95 * ((old.sd / old.mean) ** 2 / old.count + (new.sd / new.mean) ** 2 / new.count) ** 0.5
    low, high = exp(log(ratio) - spread), exp(log(ratio) + spread)
    words = f"mean row {old.mean:.0f} -> {new.mean:.0f} tokens, ratio {ratio:.2f} (95 % {low:.2f} to {high:.2f})"
    if high < limits.length_ratio_min:
        return Check("row length", REFUSED, f"{words}, below {limits.length_ratio_min:g}", ratio,
                     limits.length_ratio_min)  # fmt: skip
    if low > limits.length_ratio_max:
        return Check("row length", REFUSED, f"{words}, above {limits.length_ratio_max:g}", ratio,
                     limits.length_ratio_max)  # fmt: skip
    return Check("row length", OK, words, ratio)


def check_place(before: Profile, after: Profile, limits: Limits) -> tuple[Check, ...]:
    """Language, subject and filled fields of a whole set against the one before."""
    if not before.lengths.count:
        return ()
    return _languages(before, after, limits), _centroid(before, after, limits), _fields(before, after, limits)


def refused(checks: tuple[Check, ...]) -> bool:
    """Whether any check refuses."""
    return any(check.state == REFUSED for check in checks)


def _share(
    profile: Profile, name: str, kinds: tuple[str, ...], limit: float, min_count: int, before: Profile | None
) -> Check:
    if not profile.row_count:
        return Check(name, UNKNOWN, "no rows")
    count = profile.count_of(*kinds)
    ratio = count / profile.row_count
    parts = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in profile.kinds if kind in kinds)
    about = "about " if profile.estimated and kinds != BAD else ""
    words = f"{about}{count} of {profile.row_count} rows ({ratio:.1%})" + (f": {parts}" if parts else "")
    was = before.count_of(*kinds) / before.row_count if before and before.row_count else -inf
    rows = tuple(issue for issue in profile.issues if issue.kind in kinds)
    if ratio > limit and count >= min_count and ratio > was:
        return Check(name, REFUSED, f"{words}; at most {limit:.1%}", ratio, limit, rows)
    return Check(name, OK, words, ratio, limit, rows)


def _languages(before: Profile, after: Profile, limits: Limits) -> Check:
    old, new = dict(before.language_ratio), dict(after.language_ratio)
    moved = {name: new.get(name, 0.0) - old.get(name, 0.0) for name in old.keys() | new.keys()}
    shift = sum(abs(x) for x in moved.values()) / 2.0
    words = ", ".join(f"{name} {old.get(name, 0.0):.0%} -> {new.get(name, 0.0):.0%}" for name in sorted(moved))
    state = REFUSED if shift > limits.language_shift else OK
    more = f"; {shift:.0%} of the rows changed language, at most {limits.language_shift:.0%}" if state != OK else ""
    return Check("language", state, words + more, shift, limits.language_shift)


def _centroid(before: Profile, after: Profile, limits: Limits) -> Check:
    shift = centroid_shift(before, after)
    if shift is None or min(before.lengths.count, after.lengths.count) < limits.length_min_count:
        return Check("subject", UNKNOWN, "too few rows to say what they are about")
    state = REFUSED if shift > limits.centroid_shift else OK
    words = f"the centroid of all rows moved by {shift:.3f} (1 - cosine), at most {limits.centroid_shift:g}"
    return Check("subject", state, words, shift, limits.centroid_shift)


def _fields(before: Profile, after: Profile, limits: Limits) -> Check:
    lost = []
    worst = 0.0
    new = dict(after.fields)
    for name, count in before.fields:
        was, now = count / before.row_count, new.get(name, 0) / max(1, after.row_count)
        worst = max(worst, was - now)
        if was - now > limits.field_loss:
            lost.append(f"`{name}` filled in {was:.0%} -> {now:.0%} of the rows")
    if lost:
        return Check("schema", REFUSED, "; ".join(lost), worst, limits.field_loss)
    shown = ", ".join(name for name, _ in after.fields) or "none"
    return Check("schema", OK, f"fields: {shown}", worst, limits.field_loss)
