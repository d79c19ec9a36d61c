"""Whether the hit ratio of a release has collapsed against what it was before. Pure: time comes in as a number.

After a knowledge update the cache starts empty: the practice saw its cost rise by 30-60 %. The ratio of a release is
compared with the one its predecessor had when it took over, as soon as there are enough lookups to tell.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from slo.statistics import wilson_upper

RELEASES_COUNT = 16
BIN_S = 10.0


@dataclass(frozen=True, slots=True)
class CollapseRule:
    """A collapse: over `window_s`, with at least `min_lookups`, the upper bound of the hit ratio is below `factor` x
    the ratio before. Ratios below `least_ratio` cannot collapse."""

    window_s: float = 300.0
    baseline_s: float = 3600.0
    min_lookups: int = 50
    factor: float = 0.5
    least_ratio: float = 0.2


@dataclass(frozen=True, slots=True)
class Collapse:
    """ratio: now; before: what it is compared with. Both shares of hits of all lookups."""

    release: str
    ratio: float
    before: float
    lookups: int


class HitRatios:
    """Hits and lookups of each release in bins of ten seconds, over the baseline's span."""

    def __init__(self, rule: CollapseRule | None = None) -> None:
        self.rule = rule or CollapseRule()
        self._bins: OrderedDict[str, deque[tuple[float, int, int]]] = OrderedDict()

    def looked_up(self, release: str, now_s: float, *, hit: bool) -> None:
        """Count one lookup."""
        bins = self._bins.get(release)
        if bins is None:
            bins = self._bins[release] = deque()
            if len(self._bins) > RELEASES_COUNT:
                self._bins.popitem(last=False)
        start_s = now_s - now_s % BIN_S
        if bins and bins[-1][0] == start_s:
            at_s, hits, lookups = bins[-1]
            bins[-1] = (at_s, hits + hit, lookups + 1)
        else:
            bins.append((start_s, int(hit), 1))
        while bins and bins[0][0] < now_s - self.rule.baseline_s - BIN_S:
            bins.popleft()

    def reading(self, release: str, now_s: float, span_s: float) -> tuple[int, int]:
        """(hits, lookups) of the last `span_s`."""
        found = [(h, n) for at_s, h, n in self._bins.get(release, ()) if at_s > now_s - span_s - BIN_S]
        return sum(h for h, _ in found), sum(n for _, n in found)

    def ratio(self, release: str, now_s: float) -> float | None:
        """Of the last `window_s`; None without a lookup."""
        hits, lookups = self.reading(release, now_s, self.rule.window_s)
        return hits / lookups if lookups else None

    def releases(self) -> tuple[str, ...]:
        """Those that were heard of."""
        return tuple(self._bins)

    def collapse(self, release: str, previous: str, now_s: float) -> Collapse | None:
        """Whether `release` has lost the hits that `previous` (or, when that is unknown, itself) had before."""
        rule = self.rule
        hits, lookups = self.reading(release, now_s, rule.window_s)
        if lookups < rule.min_lookups:
            return None
        if previous and previous != release:
            base_hits, base_lookups = self.reading(previous, now_s, rule.baseline_s)
        else:
            all_hits, all_lookups = self.reading(release, now_s, rule.baseline_s)
            base_hits, base_lookups = all_hits - hits, all_lookups - lookups
        if base_lookups < rule.min_lookups:
            return None
        before = base_hits / base_lookups
        if before < rule.least_ratio or wilson_upper(hits, lookups) >= rule.factor * before:
            return None
        return Collapse(release, hits / lookups, before, lookups)
