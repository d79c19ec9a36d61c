"""Tenants and their share of the weight."""

from __future__ import annotations

from slo.fair_share import FairShare
from slo.statistics import split_mix


def weights_of(share: FairShare, tenants: list[str], *, every_s: float = 0.05) -> dict[str, float]:
    found: dict[str, float] = {}
    for number, tenant in enumerate(tenants):
        found[tenant] = found.get(tenant, 0.0) + share.weight(tenant, number * every_s)
    return found


def test_one_tenant_counts_fully() -> None:
    assert weights_of(FairShare(), ["only"] * 1000) == {"only": 1000.0}


def test_few_tenants_count_fully_because_a_fifth_is_impossible() -> None:
    assert weights_of(FairShare(), ["big"] * 900 + ["a", "b", "c", "d"] * 25) == {
        "big": 900.0, "a": 25.0, "b": 25.0, "c": 25.0, "d": 25.0,
    }  # fmt: skip


def test_half_of_the_traffic_becomes_a_fifth_of_the_weight() -> None:
    chance = split_mix(7)
    tenants = ["flood" if chance() < 0.5 else f"t{int(chance() * 20)}" for _ in range(20_000)]
    weights = weights_of(FairShare(), tenants)
    total = sum(weights.values())
    assert 0.19 <= weights["flood"] / total <= 0.21
    assert sum(1 for t in tenants if t == "t3") == weights["t3"]  # the others are not touched


def test_a_budget_of_a_quiet_hour_cannot_be_spent_in_a_minute() -> None:
    share = FairShare()
    for number in range(3600):
        share.weight(f"t{number % 10}", float(number))
    burst = sum(share.weight("flood", 3600.0 + number * 0.01) for number in range(5000))
    assert burst <= 20  # a fifth of some 60 events that fade within a minute, not of 3,600


def test_alone_at_night_a_tenant_counts_fully_again() -> None:
    share = FairShare()
    weights_of(share, [f"t{n % 10}" for n in range(5000)])
    lonely = [share.weight("t1", 10_000.0 + n) for n in range(100)]
    assert sum(lonely) == 100.0


def test_tenants_beyond_the_bound_share_one_place() -> None:
    share = FairShare(max_tenants=10)
    weights = [share.weight(f"t{n}", n * 0.001) for n in range(5000)]
    assert len(share._spans[0].given) <= 11
    assert sum(weights[10:]) < 100
