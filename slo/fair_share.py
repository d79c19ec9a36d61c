"""No tenant decides alone: weights that keep each below a share of the events, so that one flood can neither cause
nor hide a breach. Pure; time comes in as a number.

The cap needs at least five others to be possible at 20 %, so with fewer active tenants everybody has full weight. Two
spans are watched, because a budget earned in a quiet hour must not be spent within one minute.
"""

from __future__ import annotations

from math import exp

CAP_RATIO = 0.20
SPANS: tuple[tuple[float, float], ...] = ((60.0, 5.0), (3600.0, 20.0))
"""(seconds over which the past fades, weight every tenant may have in any case)."""
MAX_TENANTS = 256
ACTIVE_S = 900.0
COUNT_EVERY_S = 10.0
OTHER = "\x00other"
_RESCALE = 30.0  # exponent from which the running scale is brought back to 1


class _Span:
    """Fading sums of the weights given, kept in units that grow instead of shrinking every sum at every event."""

    __slots__ = ("fade_s", "floor", "given", "start_s", "total")

    def __init__(self, fade_s: float, floor: float) -> None:
        self.fade_s, self.floor = fade_s, floor
        self.start_s: float | None = None
        self.total = 0.0
        self.given: dict[str, float] = {}

    def scale(self, now_s: float) -> float:
        """Size of one event now, in the units of the sums."""
        if self.start_s is None:
            self.start_s = now_s
        exponent = (now_s - self.start_s) / self.fade_s
        if exponent > _RESCALE:
            shrink = exp(-min(exponent, 700.0))
            self.given = {tenant: kept for tenant, sum_ in self.given.items() if (kept := sum_ * shrink) > 1e-3}
            self.total = sum(self.given.values())
            self.start_s, exponent = now_s, 0.0
        return exp(max(0.0, exponent))


class FairShare:
    """Weights for the events of one release."""

    __slots__ = ("_active_count", "_count_again_s", "_odds", "_only", "_seen_s", "_spans", "max_tenants")

    def __init__(self, cap_ratio: float = CAP_RATIO, max_tenants: int = MAX_TENANTS) -> None:
        self._odds = cap_ratio / (1.0 - cap_ratio)
        self._spans = tuple(_Span(fade_s, floor) for fade_s, floor in SPANS)
        self.max_tenants = max_tenants
        self._only: str | None = None
        self._seen_s: dict[str, float] = {}
        self._active_count = 0
        self._count_again_s = float("-inf")

    def weight(self, tenant: str, now_s: float) -> float:
        """Return the weight in [0, 1] of one more event of `tenant`, and remember that it was given."""
        if not self._seen_s:  # Most services have one tenant; that must cost nothing.
            if self._only is None or self._only == tenant:
                self._only = tenant
                return 1.0
            self._seen_s[self._only] = now_s
            self._active_count = 1
        seen_s = self._seen_s
        if tenant not in seen_s:
            tenant = tenant if len(seen_s) < self.max_tenants else OTHER
            self._active_count += tenant not in seen_s
        seen_s[tenant] = now_s
        if now_s >= self._count_again_s:
            self._count_active(now_s)
        weight = 1.0
        scales = [span.scale(now_s) for span in self._spans]
        if self._active_count > 1.0 / self._odds + 1.0:
            for span, scale in zip(self._spans, scales, strict=True):
                mine = span.given.get(tenant, 0.0)
                allowed = max(span.floor * scale, self._odds * (span.total - mine)) - mine
                weight = min(weight, max(0.0, allowed / scale))
        for span, scale in zip(self._spans, scales, strict=True):
            span.given[tenant] = span.given.get(tenant, 0.0) + weight * scale
            span.total += weight * scale
        return weight

    def _count_active(self, now_s: float) -> None:
        """Tenants that were here lately. At night one may be alone, and then it may not be capped to nothing."""
        self._seen_s = {tenant: at_s for tenant, at_s in self._seen_s.items() if now_s - at_s <= ACTIVE_S}
        self._active_count = len(self._seen_s)
        self._count_again_s = now_s + COUNT_EVERY_S
