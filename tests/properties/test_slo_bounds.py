"""Bounds of shares found by Newton's steps are those found by halving."""

from __future__ import annotations

from math import log, log1p

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slo.betas import log_beta
from slo.confidence import share_bounds


def by_halving(bad: float, count: float, alpha: float) -> tuple[float, float]:
    good = count - bad
    wanted = log_beta(bad + 0.5, good + 0.5) - log_beta(0.5, 0.5) + log(alpha)

    def border(kept: float, out: float) -> float:
        for _ in range(200):
            p = (kept + out) / 2.0
            said = (bad * log(p) if bad else 0.0) + (good * log1p(-p) if good and p < 1.0 else 0.0)
            kept, out = (p, out) if said > wanted else (kept, p)
        return kept

    return (border(bad / count, 0.0) if bad else 0.0), (border(bad / count, 1.0) if good else 1.0)


@given(
    st.integers(1, 2_000_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.sampled_from([0.2, 0.05, 0.025, 1e-4, 1e-6]),
)
def test_newton_finds_the_border_that_halving_finds(events: tuple[int, int], alpha: float) -> None:
    bad, count = events
    low, high = by_halving(float(bad), float(count), alpha)
    found = share_bounds(float(bad), float(count), alpha)
    assert found.low == pytest.approx(low, rel=1e-6, abs=1e-12)
    assert found.high == pytest.approx(high, rel=1e-6, abs=1e-12)
    assert 0.0 <= found.low <= bad / count <= found.high <= 1.0


@given(st.floats(0.0, 50.0), st.floats(0.0, 50.0))
def test_fractions_of_events_have_bounds_too(bad: float, good: float) -> None:
    found = share_bounds(bad, bad + good, 0.05)
    assert 0.0 <= found.low <= found.high <= 1.0
