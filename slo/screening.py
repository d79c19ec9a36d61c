"""Which moments of recorded traffic are worth a verdict: a cheap sieve in front of `slo.evaluation.judge`. Pure.

Two weeks hold 120,000 evaluations a rule, and all but a few are plainly healthy. For each moment the sieve says OK or
UNKNOWN when the verdict could be nothing else, and ASK when a breach is possible at all; only those are judged. It may
ask too often and must never ask too seldom: a property test compares it with `judge` on random traffic.

It relies on three facts of `slo.evaluation`: a breach of a share needs the estimate and its Wilson bound past the limit
(of a mean the estimate), every kind of rule has a minimum of events, and less than half coverage is unknown.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import lru_cache

from slo.evaluation import BURN_PAIRS, MIN_COVERAGE_RATIO, allowed_share
from slo.metric_names import INDICATORS
from slo.statistics import wilson_lower
from slo.thresholds import Limit
from slo.traffic import Track, grain
from slo.types import Slo

UNKNOWN, OK, ASK = 0, 1, 2
_SLACK = 1e-9
"""Products and quotients of floats differ in the last digit: at the edge the sieve asks."""

Span = tuple[list[int], list[int]]
"""Places of begin and end of a window in the running totals, for each moment."""


def spans(track: Track, moments: range, length_s: float, tick_s: float) -> Span:
    """Return where windows of this length begin and end in the running totals of `track`."""
    per_bucket, buckets = grain(length_s, tick_s)
    return _spans(track.first, len(track.count) - 1, moments, per_bucket, buckets)


@lru_cache(maxsize=8)
def _spans(first: int, most: int, moments: range, per_bucket: int, buckets: int) -> Span:
    """Remembered, because all rules of one release ask for the same few windows one after the other."""
    low = [min(max((((m - 1) // per_bucket) - buckets + 1) * per_bucket - first, 0), most) for m in moments]
    return low, [min(max(m - first, 0), most) for m in moments]


def sieve(slo: Slo, limit: Limit, track: Track, moments: range, tick_s: float) -> bytearray:
    """Return UNKNOWN, OK or ASK for each moment at which `slo` is evaluated."""
    indicator = INDICATORS[slo.indicator]
    if not len(moments):
        return bytearray()
    if slo.burn_rate:
        found = _burn(slo, limit, track, moments, tick_s)
    elif limit.value is None:
        found = bytearray(len(moments))
    elif indicator.kind == "mean":
        found = _mean(slo, limit.value, indicator.worse == "down", track, moments, tick_s)
    else:
        allowed = allowed_share(indicator, limit.value)
        found = _share(slo, allowed, track, spans(track, moments, slo.window.length_s, tick_s))
    return _with_fast(slo, limit, track, moments, tick_s, found)


def _differences(totals: array[int] | array[float], span: Span) -> list[float]:
    return [totals[high] - totals[low] for low, high in zip(*span, strict=True)]


def _share(slo: Slo, allowed: float, track: Track, span: Span) -> bytearray:
    count, bad = _differences(track.count, span), _differences(track.bad, span)
    needed, edge = max(1, slo.min_events), allowed * (1.0 - _SLACK)
    found = bytearray(
        UNKNOWN if n < needed else ASK if b > edge * n and wilson_lower(b, n) > edge else OK
        for n, b in zip(count, bad, strict=True)
    )  # fmt: skip
    return _covered(track, span, count, found)


def _mean(slo: Slo, limit: float, down: bool, track: Track, moments: range, tick_s: float) -> bytearray:
    span = spans(track, moments, slo.window.length_s, tick_s)
    count, total = _differences(track.count, span), _differences(track.total, span)
    needed = max(2, slo.min_events)  # one value has no spread: unknown
    slack = _SLACK * max(abs(limit), 1e-6)
    if down:
        marks = (UNKNOWN if n < needed else ASK if t < (limit + slack) * n else OK
                 for n, t in zip(count, total, strict=True))  # fmt: skip
    else:
        marks = (UNKNOWN if n < needed else ASK if t > (limit - slack) * n else OK
                 for n, t in zip(count, total, strict=True))  # fmt: skip
    return _covered(track, span, count, bytearray(marks))


def _burn(slo: Slo, limit: Limit, track: Track, moments: range, tick_s: float) -> bytearray:
    """OK or UNKNOWN is what the last hour says, as long as no pair of windows can burn."""
    if limit.value is None:
        return bytearray(len(moments))
    allowed = allowed_share(INDICATORS[slo.indicator], limit.value)
    hour = spans(track, moments, BURN_PAIRS[0].long_s, tick_s)
    found = _share(slo, 2.0, track, hour)  # a share over 1 never asks
    for pair in BURN_PAIRS:
        span = spans(track, moments, pair.long_s, tick_s)
        edge = pair.factor * allowed * (1.0 - _SLACK)
        count, bad = _differences(track.count, span), _differences(track.bad, span)
        for place in [p for p, (n, b) in enumerate(zip(count, bad, strict=True)) if b > edge * n]:
            found[place] = ASK
    return found


def _with_fast(
    slo: Slo, limit: Limit, track: Track, moments: range, tick_s: float, found: bytearray
) -> bytearray:  # fmt: skip
    """Ask wherever the fast path could speak, whatever the slow rule said."""
    if slo.fast is None:
        return found
    share = slo.fast.over_ratio
    span = spans(track, moments, slo.fast.window.length_s, tick_s)
    count, bad = _differences(track.count, span), _differences(track.bad, span)
    needed, edge = max(1, slo.fast.min_events), share * (1.0 - _SLACK)
    for place, (n, b) in enumerate(zip(count, bad, strict=True)):
        if b > edge * n and n >= needed:
            found[place] = ASK
    return found


def _covered(track: Track, span: Span, count: Sequence[float], found: bytearray) -> bytearray:
    """Half of what should have been judged was not: unknown, whatever else."""
    if track.unjudged[-1]:
        missed = _differences(track.unjudged, span)
        for place, (n, m) in enumerate(zip(count, missed, strict=True)):
            if m and n and n / (n + m) < MIN_COVERAGE_RATIO:
                found[place] = UNKNOWN
    return found
